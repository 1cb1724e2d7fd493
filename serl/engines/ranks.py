"""The processes that train together: who we are among them, and what all of them must agree on.

Rank and address come from the environment that torch.distributed defines (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT);
without it there is one process. Gloo on CPUs, NCCL on GPUs.
"""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among `size`."""

    rank: int
    size: int
    device: torch.device

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

    def leave(self) -> None:
        """End the process group, so that the process can exit without a warning."""
        if dist.is_initialized():
            dist.destroy_process_group()


def join_ranks(timeout_s: float = 24 * 3600.0) -> Ranks:
    """Meet the other ranks; blocks until all are there.

    `timeout_s` is for collectives, too, and a last resort: the watchdog ends ranks that hang sooner, and so that they are tried again.
    """
    missing = [name for name in VARIABLES if name not in os.environ]
    if "WORLD_SIZE" not in os.environ:
        alone = {
            "RANK": "0",
            "WORLD_SIZE": "1",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
        }
        os.environ.update(alone)
    elif missing:
        raise ValueError(
            f"WORLD_SIZE is set but {', '.join(missing)} are not: a launcher must set all of {', '.join(VARIABLES)}"
        )
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout_s))
    return Ranks(rank=dist.get_rank(), size=dist.get_world_size(), device=device)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
