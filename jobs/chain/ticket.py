"""Whose turn it is to submit: of a launcher, a resume and a relay that come at once, one goes on while the
others wait.

Claims are numbered, and the next number is taken by link-if-absent; there is no lock to be left behind. A
claim is over when its holder says so, is known to be dead, or, elsewhere, has not renewed it for as long as
we looked. Should a holder only have slept, two submit at once: then some jobs are in the queue twice,
`jobs.chain.queue.at_work` sees one of each, and the first manifest wins.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from jobs.runs.find import Process
from serl.run.files import write_if_absent

LEASE_S = 60.0
LOOK_S = 0.5


@contextmanager
def turn(folder: Path) -> Iterator[Callable[[], None]]:
    """Hold the turn in `folder` (of a run, or a sweep); what it gives is to be called now and then, between
    two calls of sbatch.
    """
    claims = folder / "turns"
    claims.mkdir(exist_ok=True)
    me = json.dumps(asdict(Process.of(os.getpid()))).encode()
    while True:
        last = max((int(p.stem) for p in claims.glob("*.json")), default=0)
        if last:
            _wait_for(claims, last)
        mine = claims / f"{last + 1:06d}.json"
        if write_if_absent(mine, me):
            break
    for old in claims.iterdir():
        if not old.name.startswith(".") and int(old.stem) < last:
            old.unlink(missing_ok=True)
    try:
        yield lambda: os.utime(mine)
    finally:
        mine.with_suffix(".over").touch()


def _wait_for(claims: Path, number: int) -> None:
    claim = claims / f"{number:06d}.json"
    try:
        holder = Process(**json.loads(claim.read_bytes()))
        renewed, since = claim.stat().st_mtime_ns, time.monotonic()
        while not claim.with_suffix(".over").exists():
            if not holder.alive() or (not holder.here and time.monotonic() - since > LEASE_S):
                return
            if (now := claim.stat().st_mtime_ns) != renewed:
                renewed, since = now, time.monotonic()
            time.sleep(LOOK_S)
    except FileNotFoundError:
        return  # a later holder swept it away
