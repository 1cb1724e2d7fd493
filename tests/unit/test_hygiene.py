"""What a run's questions share with its benchmarks: counted, shown, kept, and never the end of a report."""

import gzip
import json

import pytest
from report_run import make_run, publish

from jobs.reporting import hygiene
from jobs.reporting.findings import gather
from jobs.reporting.written import write_report
from serl.records import Problem, to_jsonl
from serl.run.rundir import Run

LONG = "a train leaves the town at noon and travels sixty miles in one hour how fast does it go"


@pytest.fixture
def run(tmp_path, small_tree):
    """Seeds of which one stands in a benchmark, word for word."""
    score = {
        "shards": 1,
        "benchmarks": ["arithmetic"],
        "validation": ["arithmetic_validation"],
        "max_tokens": 64,
    }
    run = make_run(tmp_path, small_tree, score=score)
    for folder in ("seeds", "benchmarks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "seeds" / "seeds.jsonl").write_text(
        "".join(json.dumps({"question": q, "answer": "1"}) + "\n" for q in ("What is 2 + 3?", "quite new"))
    )
    rows = [
        {"id": str(i), "question": q, "answer": "5", "kind": "k"}
        for i, q in enumerate(("what is 2+3", f"On Monday {LONG}"))
    ]
    (tmp_path / "benchmarks" / "arithmetic.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return run


def test_seeds_and_instructions_are_compared_with_every_benchmark_asked(run):
    publish(
        run,
        1,
        "curate",
        0,
        to_jsonl([Problem(id="a", question=LONG), Problem(id="b", question="<b>other</b>")]),
        {"kept": 2},
    )
    found = gather(run).overlap
    by_name = {name: shared for (name, _), shared in found.overlaps.items()}
    assert (by_name["seeds"].exact_ours, by_name["seeds"].num_ours) == (1, 2)
    assert (
        by_name["instructions"].exact_ours,
        by_name["instructions"].runs_ours,
        by_name["instructions"].runs_theirs,
    ) == (0, 1, 1)
    assert len(found.unread) == 1 and found.unread[0].startswith("arithmetic_validation: ")
    text = write_report(run)[0].markdown.read_text().split("## Held-out hygiene")[1]
    assert (
        "| seeds | arithmetic | 2 | 1 | 1 | 2 | 1 | 1 |" in text
        and "Not compared" in text
    )


def test_a_hub_dataset_is_not_fetched_for_a_report(run, tmp_path):
    from serl.stages.sources import HubProblems

    hub = HubProblems(name="somebody/something")
    seeded = Run.create(tmp_path / "runs" / "hub", run.config.model_copy(update={"seeds": hub}), "x")
    found = hygiene.measure(seeded, [])
    assert found.overlaps == {} and "evaluation.overlap" in found.unread[0]


def test_a_damaged_file_is_a_sentence(run):
    (run.data_root / "benchmarks" / "arithmetic.jsonl").write_bytes(gzip.compress(b"x")[:7])
    (run.data_root / "seeds" / "seeds.jsonl").write_text("{")
    found = gather(run).overlap
    assert found.overlaps == {} and any("seeds.jsonl:1" in s for s in found.unread)
