"""Verbs that read a run know no stage: made-up kinds, phases, several stages of one kind in a round."""

import copy
import sys

import pytest
from report_run import grades, group, publish

from jobs import diff, gc, logs, shard, status
from jobs.browser.index import Wish, instruction_index
from jobs.browser.site import LISTS, Site
from serl.records import Candidate, Problem, groups_to_parquet, to_jsonl
from serl.run.attempt import Attempt
from serl.run.rundir import Run
from tests.conftest import SMALL, run_config

SPEC = """
from serl.stages.kind import Kind, StageSection

class Section(StageSection):
    shards: int = 2

class Debate(Kind):
    section = Section
    engine = "vllm"

    def num_shards(self, section):
        return section.shards

KIND = Debate()
"""
RUN = """
def run(work):
    return work.attempt({}).publish_bytes(".txt", b"said", 1, {"words": 2.0})
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    package = tmp_path / "made_up" / "debate"
    package.mkdir(parents=True)
    for name, text in (("__init__.py", ""), ("spec.py", SPEC), ("run.py", RUN)):
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    tree = copy.deepcopy(SMALL)
    phase = {k: tree.pop(k) for k in ("propose", "curate", "respond", "train")}
    first = ["propose", "curate", "respond", "wild", "pick", "retry", "debate", "train"]
    exam = {"shards": 1, "samples": 4, "benchmarks": ["sums"], "max_tokens": 8}
    labelled = {"anchors": 0, "problems": {"source": tree["seeds"], "per_round": 9}}
    talk = phase | {"debate": {}, "stages": first}
    for name, kind in (("wild", "propose"), ("pick", "curate"), ("retry", "respond")):
        talk[name] = {"kind": kind} | phase[kind]
    drill = {"rounds": 2, "stages": ["respond", "train", "score", "exam"], "train": phase["train"]}
    drill |= {"respond": phase["respond"] | labelled, "score": exam, "exam": {"kind": "score"} | exam}
    tree = {k: v for k, v in tree.items() if k not in ("rounds", "stages")}
    tree |= {"plugins": ["made_up.debate"], "phases": {"talk": talk, "drill": drill}}
    yield Run.create(tmp_path / "runs" / "small", run_config(tree), "test")
    for name in [m for m in sys.modules if m.startswith("made_up")]:
        del sys.modules[name]


@pytest.fixture
def done(run) -> Run:
    """Candidates and answers of two stages each in the first round, grades of two in the second."""
    for stage in ("propose", "wild"):
        for i in range(2):
            publish(
                run, 1, stage, i, to_jsonl([Candidate(prompt=i, item=0, text=f"{stage} {i}")]), {"items": 1}
            )
    kept = [Problem(id=f"p{i}", question=f"propose {i}") for i in range(2)]
    publish(run, 1, "curate", 0, to_jsonl(kept), {"kept": 2})
    for stage in ("respond", "retry"):
        for shard_ in run.shards(1, stage):
            data = groups_to_parquet([group(f"p{shard_.index}", [0, 0, 0, 1])])
            Attempt(run, shard_, id="a", inputs={}).publish_bytes(".parquet", data, 1, {})
    for stage in ("score", "exam"):
        for shard_ in run.shards(2, stage):
            publish(run, 2, stage, shard_.index, to_jsonl(grades("sums", 4, 0.5, 0)), {})
    return run


def ask(verb, run: Run, *argv: str):
    return verb.body([*argv, "--data", str(run.data_root)])


def test_status_logs_gc_and_diff_read_it(done, capsys):
    names = [s["name"] for s in ask(status, done, "small", "--json").fields["stages"]]
    assert {"r001-debate", "r001-retry", "r003-exam"} <= set(names)
    assert ask(status, done) == 0 and ask(status, done, "small") == 0
    assert ask(logs, done, "small", "debate") == 0 and ask(logs, done, "small") == 0
    assert ask(gc, done).fields["skipped"] == []
    assert ask(diff, done, "small", "small").fields["data_differs_from"] is None


def test_the_debugger_runs_a_made_up_stage_and_refuses_unknown_ones_with_those_there_are(run, capsys):
    told = ask(shard, run, "small", "1", "debate", "1").fields
    assert (told["shard"], told["counts"], told["done_before"]) == (
        "round 1 debate 2/2",
        {"words": 2.0},
        False,
    )
    with pytest.raises(ValueError, match="no stage debate in round 2; it has respond, train, score, exam"):
        ask(shard, run, "small", "2", "debate")
    with pytest.raises(ValueError, match="no round 7; its rounds are 0 to 3"):
        ask(shard, run, "small", "7", "debate")
    assert ask(logs, run, "small", "debate", "1") == 0
    assert "* done: seconds" in capsys.readouterr().out


def test_stages_of_one_kind_stand_in_one_list_and_are_told_apart(done):
    site = Site(done)
    for name in ("", *LISTS):
        for round in site.rounds:
            assert site.page(name, {"round": str(round)}, "nonce")
    index, found = site.find("groups", 1, Wish(only={"stage": "retry"}))
    assert len(index) == 6 and {row["stage"] for row in index.rows(found.tolist())} == {"retry"}
    assert site.index("responses", 2).counts("stage") == {"score": 20, "exam": 20}
    rows = instruction_index(done, 1, site.index("groups", 1)).rows(range(4))
    assert [(row["stage"], row["fate"]) for row in rows[2:]] == [("pick", "not_curated_yet")] * 2
    assert [row["stage"] for row in rows[:2]] == ["respond"] * 2
    assert b"stage=retry" in site.page("groups", {"round": "1"}, "nonce")
