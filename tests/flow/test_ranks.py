"""What ranks do when one of them fails, and which device they take."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from serl.engines import ranks

REPO = Path(__file__).parents[2]


def run_two(kind: str, tmp_path: Path) -> tuple[list[int], list[str], float]:
    """Exit codes, what each of two ranks said, and how long that took."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    common = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), "CUDA_VISIBLE_DEVICES": ""}
    command, begun, started = (
        [sys.executable, str(REPO / "tests/flow/failing_ranks.py"), kind],
        time.monotonic(),
        [],
    )
    for rank in range(2):
        with open(tmp_path / f"log_{rank}", "w") as log:
            own = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            started.append(subprocess.Popen(command, env=own, stdout=log, stderr=log))
    try:
        codes = [p.wait(timeout=60) for p in started]
    finally:
        for p in started:
            p.kill()
    return codes, [(tmp_path / f"log_{rank}").read_text() for rank in range(2)], time.monotonic() - begun


def test_an_exception_of_one_rank_ends_all_with_its_traceback(tmp_path):
    """It used to wait for its peer, which sat in a collective, until a watchdog ended both after half an
    hour, and was never printed.
    """
    codes, said, seconds = run_two("raises", tmp_path)
    assert codes[0] != 0 and codes[1] == 1 and seconds < 40
    assert "Traceback" in said[1] and "MemoryError: this rank has no room" in said[1]
    blamed = f"rank 1 on {socket.gethostname()}: MemoryError: this rank has no room for its share"
    assert blamed in said[0], "the peer says who is to blame"


def test_ranks_leave_when_the_first_was_killed(tmp_path):
    codes, said, seconds = run_two("killed", tmp_path)
    assert codes == [9, 1] and seconds < 40
    assert "leaves because of rank 0: its process has ended" in said[1]


@pytest.mark.parametrize(("local_rank", "visible", "index"), [(0, 8, 0), (5, 8, 5), (0, 1, 0), (5, 1, 0)])
def test_a_task_takes_its_own_gpu_or_the_one_it_was_bound_to(local_rank, visible, index):
    assert ranks.gpu_index(local_rank, visible) == index


def test_more_tasks_than_gpus_on_a_node_are_refused():
    with pytest.raises(ValueError, match="task 4 of this node sees 4 GPUs"):
        ranks.gpu_index(4, 4)


def test_a_promised_gpu_that_is_not_there_is_an_error_and_never_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="was promised a GPU, and torch .* finds none"):
        ranks.join_ranks("cuda")
