"""The processes that train together: who we are among them, and what all of them must agree on.

Rank and address come from the environment that torch.distributed defines (RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR, MASTER_PORT); without it there is one process. Gloo on CPUs, NCCL on GPUs; which of the two is
promised by the caller, never guessed.
"""

import atexit
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from serl.engines.board import GRACE_S, Board

T = TypeVar("T")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
COLLECTIVE_S = (
    15 * 60.0
)  # no collective takes as long, not even one that waits for rank 0 to read a checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among `size`; `board` is there where there are several."""

    rank: int
    size: int
    device: torch.device
    board: Board | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The elementwise sum over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, claim: bool) -> bool:
        """Whether the claim is true on any rank; all ranks get the same answer."""
        return bool(self.sum(torch.tensor([int(claim)], device=self.device)).item())

    def from_first(self, value: T) -> T:
        """What rank 0 has, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's value, on every rank, in rank order."""
        if self.size == 1:
            return [value]
        box: list = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def together(self, *alike: type[BaseException]) -> Iterator[None]:
        """Leave together at the end, also by an exception that is `alike` on all ranks; any other is one
        rank's own, and ends the job.
        """
        try:
            yield
        except alike:
            self.leave()
            raise
        except BaseException as error:
            self.fail(error)
            raise
        self.leave()

    def leave(self) -> None:
        """End the process group, so that the process can exit without a warning. All ranks call it: NCCL
        waits for those that do not.
        """
        if self.board is not None:
            self.board.close()
            self.barrier()  # rank 0 keeps the board; it may go when nobody looks there any more
        if dist.is_initialized():
            dist.destroy_process_group()

    def fail(self, error: BaseException) -> None:
        """Say what happened, here and to the peers, who may sit in a collective and leave it for that.

        The group is not ended, now or when the interpreter goes: that would wait for them.
        """
        if self.board is None:
            self.leave()
            return
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
        self.board.fail(error)
        atexit.register(_end)
        last = threading.Timer(2 * GRACE_S, _end)
        last.daemon = True
        last.start()


def join_ranks(promised: Literal["cpu", "cuda"], timeout_s: float = COLLECTIVE_S) -> Ranks:
    """Meet the other ranks on the device that was promised; blocks until all are there.

    `timeout_s` is for collectives, too, and a last resort: a rank that fails says so on the board, and one
    that hangs has a watchdog.
    """
    _complete_environment()
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    device = _device(promised, local)
    if dist.is_initialized():
        return Ranks(rank=rank, size=size, device=device)
    address, port, limit = (
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        timedelta(seconds=timeout_s),
    )
    store = dist.TCPStore(address, port, size, is_master=rank == 0, wait_for_workers=False, timeout=limit)
    if promised == "cuda":
        _claim(store, device)
    backend = "nccl" if promised == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
    board = None
    if size > 1:
        board = Board(address, port, rank=rank, host=socket.gethostname(), timeout_s=timeout_s)
    return Ranks(rank=rank, size=size, device=device, board=board)


def gpu_index(local_rank: int, visible: int) -> int:
    """Which of the visible GPUs a task takes: the one of its number among the node's tasks, or the only one,
    where the site gave it that alone.
    """
    if visible == 1 or local_rank < visible:
        return min(local_rank, visible - 1)
    raise ValueError(
        f"task {local_rank} of this node sees {visible} GPUs: give the job as many GPUs a node as it has "
        "tasks"
    )


def _device(promised: Literal["cpu", "cuda"], local_rank: int) -> torch.device:
    if promised == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"this job was promised a GPU, and torch {torch.__version__} finds none on "
            f"{socket.gethostname()} "
            f"({_why_not()}): "
            "look at `nvidia-smi` there, and at the driver, which must be as new as the environment's CUDA"
        )
    index = gpu_index(local_rank, torch.cuda.device_count())
    os.environ["LOCAL_RANK"] = str(index)  # DeepSpeed takes it for the number of the device
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def _why_not() -> str:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return "no device is visible"


def _claim(store: dist.Store, device: torch.device) -> None:
    """Refuse a GPU that another rank has: NCCL would say so in its own words, or hang."""
    gpu = f"{socket.gethostname()}/{torch.cuda.get_device_properties(device).uuid}"
    if store.add(f"gpu/{gpu}", 1) > 1:
        raise RuntimeError(f"{gpu}: two ranks were given this one GPU; ask for one GPU a task")


def _complete_environment() -> None:
    """Without a launcher there is one process; with one, all it must say is there."""
    missing = [name for name in VARIABLES if name not in os.environ]
    if "WORLD_SIZE" not in os.environ:
        alone = ("0", "1", "0", "127.0.0.1", str(_free_port()))
        os.environ.update(dict(zip(VARIABLES, alone, strict=True)))
    elif missing:
        raise ValueError(
            f"WORLD_SIZE is set but {', '.join(missing)} are not: "
            f"a launcher must set all of {', '.join(VARIABLES)}"
        )


def _end() -> None:
    """End this process as failed, without what libraries do on their way out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
