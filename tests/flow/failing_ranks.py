"""One of two ranks of which the second raises while the first sits in a collective; started by
`test_ranks.py`.

NCCL's way of ending a group is put in gloo's place: it waits for peers, for ever where they never come.
"""

import os
import sys
import time

import torch.distributed as dist

from serl.engines.ranks import join_ranks


def main(kind: str) -> None:
    ranks = join_ranks("cpu", timeout_s=120)
    ranks.barrier()
    dist.destroy_process_group = lambda: time.sleep(120)
    if kind == "killed" and ranks.first:
        os._exit(9)
    with ranks.together():
        if kind == "raises" and ranks.rank == 1:
            raise MemoryError("this rank has no room for its share")
        time.sleep(60) if kind == "killed" else ranks.barrier()


if __name__ == "__main__":
    main(sys.argv[1])
