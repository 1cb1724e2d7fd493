"""The processes of one job: what rank 0 has to say to the others, and what of the machine is whose."""

import json
import os
import socket
import time
from pathlib import Path

import submitit

from serl.run.files import write_atomic

RENDEZVOUS_S = 300.0


def agreed(job: submitit.JobEnvironment, path: Path, decide) -> object:
    """What rank 0 decides, of all ranks; `path` is of this attempt."""
    if job.global_rank == 0:
        said = decide()
        if job.num_tasks > 1:
            write_atomic(path, json.dumps(said).encode())
        return said
    deadline = time.monotonic() + RENDEZVOUS_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{path}: rank 0 did not announce itself within {RENDEZVOUS_S:.0f} s; see its log beside "
                "this one"
            )
        time.sleep(0.05)
    return json.loads(path.read_bytes())


def take_gpus(job: submitit.JobEnvironment, gpus: int) -> None:
    """Leave this process its own share of the GPUs in sight; some sites have done so already."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen, share = told.split(",") if told else [str(i) for i in range(gpus)], gpus // job.num_tasks
    if len(seen) > share:
        mine = seen[job.local_rank * share : (job.local_rank + 1) * share]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)


def join_ranks(job: submitit.JobEnvironment, path: Path, *, address: str) -> None:
    """Tell torch.distributed who is who. Rank 0 picks a free port."""

    def meet() -> dict[str, str | int]:
        with socket.socket() as s:
            s.bind(("", 0))
            return {"address": address, "port": s.getsockname()[1]}

    meeting = agreed(job, path, meet)
    os.environ.update(
        RANK=str(job.global_rank), WORLD_SIZE=str(job.num_tasks), LOCAL_RANK=str(job.local_rank),
        MASTER_ADDR=meeting["address"], MASTER_PORT=str(meeting["port"]),
    )  # fmt: skip
