"""A round that comes to nothing is a failure that says what took its questions; a phase with an end of its own may end so."""

from types import SimpleNamespace

import pytest
from report_run import do_respond, group, publish

from serl.records import Candidate, Group, to_jsonl
from serl.run.events import Events
from serl.run.rundir import Run, RunError
from serl.run.signals import Stop
from serl.stages.fruitless import check_fruit, may_be_empty, told_by
from serl.stages.work import Work, execute
from tests.conftest import run_config

frozen = pytest.importorskip("serl.stages.train.frozen")
ALONE = SimpleNamespace(first=True, rank=0, size=1, any=bool, from_first=lambda x: x)


@pytest.fixture
def begun(tmp_path, small_tree) -> Run:
    """A run with a base model's name and a seed."""
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/config.json").write_text("{}")
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds/seeds.jsonl").write_bytes(to_jsonl([{"question": "What is one?", "answer": "1"}]))
    return Run.create(tmp_path / "runs/small", run_config(small_tree), "test")


def ending(run: Run, small_tree: dict) -> Run:
    """The same with a phase that may end by itself."""
    return Run.create(run.root.with_name("ends"), run_config(small_tree | {"until": "idle"}), "test")


def work(run: Run, stage: str) -> Work:
    (shard,) = run.shards(1, stage)
    events = Events(run.root / "events", f"{stage}-a")
    return Work(run=run, shard=shard, attempt_id="a", device="cpu", cores=1, events=events, stop=Stop())


def propose(run: Run, texts: list[str], counts: dict[str, float]) -> None:
    for i in range(2):
        rows = [Candidate(prompt=j, item=0, text=text) for j, text in enumerate(texts)]
        publish(run, 1, "propose", i, to_jsonl(rows), counts)


def test_without_a_question_the_round_fails_and_names_the_rules_that_took_them(begun):
    propose(begun, ["What is one?"], {"items": 20, "accepted": 1, "too_short": 12, "banned_word": 7})
    said = (
        r"round 1 curate 1/1: no question.*propose: items 40, accepted 2, too short 24, banned word 14; "
        r"curate: exact duplicate 2, candidates 2"
    )
    with pytest.raises(RunError, match=said):
        execute(work(begun, "curate"))
    assert not begun.done(begun.shards(1, "curate")[0])


def test_where_nothing_was_written_at_all_that_is_said(begun):
    propose(begun, [], {})
    with pytest.raises(RunError, match=r"\(propose: nothing came; curate: nothing came\)"):
        execute(work(begun, "curate"))


def unanimous(num: int) -> list[Group]:
    return [group(f"g{i}", [0, 0, 0, 0]) for i in range(num)]


def test_without_a_group_the_round_fails_before_a_trainer_is_made(begun, monkeypatch):
    monkeypatch.setattr(frozen, "look_first", lambda *_: None)
    monkeypatch.setattr(frozen, "Trainer", None)
    do_respond(begun, 1, unanimous(6))
    with pytest.raises(RunError, match=r"no group in the band.*respond: questions 6.*agreement: too easy 6"):
        frozen.reinforce(work(begun, "train"), ALONE)


def test_all_prompts_too_long_is_said_by_the_training_that_gets_nothing(begun, monkeypatch):
    monkeypatch.setattr(frozen, "look_first", lambda *_: None)
    for i in range(3):
        publish(begun, 1, "respond", i, read_empty(), {"questions": 8, "too_long": 8})
    with pytest.raises(RunError, match="respond: questions 24, too long 24"):
        frozen.reinforce(work(begun, "train"), ALONE)


def read_empty() -> bytes:
    from serl.records import groups_to_parquet

    return groups_to_parquet([])


def test_a_phase_that_ends_by_itself_may_end_with_an_empty_round(begun, small_tree):
    run = ending(begun, small_tree)
    propose(run, ["What is one?"], {"items": 1, "accepted": 1})
    assert execute(work(run, "curate")).counts["kept"] == 0
    assert may_be_empty(work(run, "curate")) and not may_be_empty(work(begun, "curate"))
    check_fruit(work(run, "train"), 0, "group", [])


def test_the_counts_of_all_shards_are_told_together(begun):
    propose(begun, ["a b c d"], {"items": 3})
    assert list(told_by(work(begun, "curate"), begun.config.stage(1, "propose"), None)) == [
        ("propose", {"items": 6})
    ]
