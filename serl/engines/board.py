"""A notice board for the processes that train together: what one posts, any other can read without a
collective.

A collective needs every rank; what must be said while some rank cannot answer is said here: that one has
failed, and that one has written its part of a checkpoint. Every process has its own connection to rank 0, so
that looking here never waits for anybody.
"""

import os
import sys
import threading
import time
from datetime import timedelta

import torch.distributed as dist

LOOK_S = 0.5  # how often a rank looks whether another one has failed
GRACE_S = 5.0  # the failed rank's, to write down why, before its peers leave and a launcher ends what is left
FAILED = "failed"


class Board:
    """The board at `address`:`port`, as rank `rank` of machine `host` sees it; listens for failures from now
    on.
    """

    def __init__(self, address: str, port: int, *, rank: int, host: str, timeout_s: float):
        self._me = f"rank {rank} on {host}"
        self._store = dist.TCPStore(
            address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=timeout_s)
        )
        self._closed = threading.Event()
        threading.Thread(target=self._listen, name="board", daemon=True).start()

    def post(self, key: str, text: str) -> None:
        self._store.set(key, text)

    def read(self, key: str) -> str | None:
        """What was posted under the key; None while nothing was."""
        return self._store.get(key).decode() if self._store.check([key]) else None

    def fail(self, error: BaseException) -> None:
        """Say why this rank fails, unless another was first, and stay until all can have read it."""
        self._closed.set()
        try:
            self._store.compare_set(FAILED, "", f"{self._me}: {type(error).__name__}: {error}")
        except RuntimeError:  # rank 0 is gone: nobody is left to tell
            return
        time.sleep(3 * LOOK_S)

    def close(self) -> None:
        """Stop listening: from here on a peer may leave."""
        self._closed.set()

    def _listen(self) -> None:
        while not self._closed.wait(LOOK_S):
            try:
                failure = self.read(FAILED)
            except RuntimeError:
                failure = "rank 0: its process has ended"
            if failure and not self._closed.is_set():
                print(f"\n{self._me} leaves because of {failure}", file=sys.stderr, flush=True)
                time.sleep(GRACE_S)
                os._exit(1)
