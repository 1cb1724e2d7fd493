"""Several engines on one shard: they divide its parts, and what is published is what one would have made."""

import os
import threading
from types import SimpleNamespace

import pytest

from jobs.chain.ranks import take_gpus
from serl.run.attempt import Helped
from serl.run.events import Events, read_events
from serl.run.signals import Preempted, Stop
from serl.stages.parts import in_parts, stretch
from serl.stages.work import Work

ITEMS = list(range(11))


@pytest.fixture
def generating(run):
    """What a process of `ranks` does with a shard of 11 items, 2 in a part; and who computed what."""
    computed: list[tuple[int, list[int]]] = []

    def generate(rank: int, ranks: int, stop: Stop | None = None) -> bytes | None:
        events = Events(run.root / "events", f"respond-r001-00000-1-0-{rank}")
        shard = run.shards(1, "respond")[0]
        work = Work(
            run=run, shard=shard, attempt_id="1-0", device="cpu", cores=1, events=events, stop=stop or Stop(), rank=rank,
            ranks=ranks,
        )  # fmt: skip

        def load():
            return SimpleNamespace(sampled=0)

        def compute(engine, items):
            computed.append((rank, list(items)))
            return bytes(items)

        try:
            return b"".join(in_parts(work, work.attempt({}), load, ITEMS, 2, "questions", compute))
        except Helped:
            return None

    generate.computed, generate.run = computed, run
    return generate


def test_the_stretches_of_all_ranks_are_the_parts_each_once():
    for num_parts in range(20):
        for ranks in range(1, 9):
            shares = [stretch(num_parts, rank, ranks) for rank in range(ranks)]
            assert [n for share in shares for n in share] == list(range(num_parts))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_ranks_compute_each_part_once_and_the_first_has_what_one_alone_makes(generating):
    results: dict[int, bytes | None] = {}
    threads = [
        threading.Thread(target=lambda r=r: results.update({r: generating(r, 3)})) for r in range(3)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    assert results == {0: bytes(ITEMS), 1: None, 2: None}
    assert sorted(items for _, items in generating.computed) == [ITEMS[i : i + 2] for i in range(0, 11, 2)]
    assert {rank for rank, _ in generating.computed} == {0, 1, 2}
    said = [e for e in read_events(generating.run.root / "events") if e["kind"] == "progress"]
    assert max(e["done"] for e in said) == 11


def test_another_attempt_takes_over_the_parts_however_many_engines_it_has(generating):
    assert generating(1, 2) is None
    assert generating(0, 1) == bytes(ITEMS)
    assert [rank for rank, _ in generating.computed] == [1, 1, 1, 0, 0, 0]


def test_the_first_leaves_at_once_when_asked_while_it_waits_for_others(generating):
    stop = Stop()
    threading.Timer(1.0, lambda: setattr(stop, "requested", True)).start()
    with pytest.raises(Preempted):
        generating(0, 2, stop)


@pytest.mark.parametrize(
    ("told", "expected"), [(None, ["0,1", "2,3"]), ("4,5,6,7", ["4,5", "6,7"]), ("6,7", ["6,7", "6,7"])]
)
def test_each_process_of_a_job_sees_its_own_gpus(monkeypatch, told, expected):
    """Slurm may number them, and some sites show each task its own alone."""
    seen = []
    for rank in range(2):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        if told:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
        job = SimpleNamespace(local_rank=rank, num_tasks=2)
        take_gpus(job, 4)
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == expected
