"""Reports of methods nobody has thought of: made-up kinds, phases, roles, stages of one kind, and turns."""

import base64
import csv
import re
import sys

import pytest
from report_run import SAMPLES, do_round, do_score, do_train, group, make_run, publish

from jobs.reporting import figures, plots, scalars
from jobs.reporting.findings import gather
from jobs.reporting.written import write_report
from serl.records import groups_to_parquet, share
from serl.run.attempt import Attempt
from serl.run.events import Events
from serl.run.rundir import Run
from serl.stages import kind
from serl.stages.show import Show, show_of
from tests.conftest import run_config

SPEC = """
from serl.stages.kind import Kind, StageSection

class Ponder(StageSection):
    depth: int = 1

class PonderKind(Kind):
    section = Ponder

KIND = PonderKind()
"""
TURN = {
    "reward": 0.5, "agreement": 0.6, "kept": 12, "refill": 1.25, "kl": 0.01, "clip_fraction": 0.02,
    "mismatch_kl": 1e-4, "length": 31.5, "sample_s": 2.0, "vote_s": 0.1, "logprob_s": 0.3, "step_s": 1.1,
    "transfer_s": 0.05,
}  # fmt: skip


def do_turns(run: Run, round: int, num: int, *, stage: str = "train", attempt: str = "a-0") -> None:
    name = f"{stage}-r{round:03d}-00000-{attempt}-0"
    events = Events(run.root / "events", name, stage=stage, round=round, shard=0)
    for n in range(1, num + 1):
        events.add("turn", turn=n, **TURN | {"reward": 0.4 + 0.01 * n})


def test_turns_make_a_figure_a_table_and_scalars(tmp_path, small_tree):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(tmp_path, small_tree)
    for round in range(3):
        do_round(run, round)
    do_turns(run, 1, 6)
    do_turns(run, 1, 5, attempt="b-0")  # turns taken again count once
    do_turns(run, 2, 4)
    paths, _ = write_report(run)
    page, told = paths.html.read_text(), paths.markdown.read_text()
    assert "Within a round" in page and "Within a round" in told and page.count("<img") == 6
    (line,) = [x for x in told.splitlines() if x.startswith("| 2 | train | 4 | 0.44 ")]
    assert "| 31.5 |" in line and "sample s" in told
    rows = list(csv.DictReader((run.root / "turns.csv").read_text().splitlines()))
    rewards = [(r["round"], r["turn"], r["at"]) for r in rows if r["metric"] == "reward"]
    assert rewards == [("1", str(n), str(n)) for n in range(1, 7)] + [
        ("2", str(n), str(6 + n)) for n in range(1, 5)
    ]
    board = EventAccumulator(str(run.root / "tensorboard" / "turns"))
    board.Reload()
    assert [e.step for e in board.Scalars("train/reward")] == list(range(1, 11))
    metrics = {(r["round"], r["metric"]) for r in csv.DictReader(paths.csv.read_text().splitlines())}
    assert {("1", "last_turn/reward"), ("2", "last_turn/mismatch_kl")} <= metrics


def test_a_run_without_turns_says_nothing_of_them(tmp_path, small_tree):
    run = make_run(tmp_path, small_tree)
    do_round(run, 0)
    do_round(run, 1)
    paths, _ = write_report(run)
    assert "Within a round" not in paths.html.read_text() + paths.markdown.read_text()
    assert not (run.root / "turns.csv").exists() and not (run.root / "tensorboard" / "turns").exists()


def test_a_turn_that_tells_nonsense_is_drawn_around(tmp_path, small_tree):
    run = make_run(tmp_path, small_tree)
    events = Events(run.root / "events", "train-r001-00000-a-0", stage="train", round=1, shard=0)
    for n, reward in enumerate((0.5, float("nan"), 0.6), start=1):
        events.add("turn", turn=n, reward=reward)
    paths, _ = write_report(run)
    assert "Within a round" in paths.html.read_text()


@pytest.fixture
def ponder(tmp_path, monkeypatch) -> str:
    """A kind that nobody here knows, which says nothing of how it is drawn."""
    folder = tmp_path / "elsewhere" / "made_up_kinds" / "ponder"
    folder.mkdir(parents=True)
    (folder / "spec.py").write_text(SPEC)
    for package in (folder, folder.parent):
        (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    yield "made_up_kinds.ponder"
    for name in [m for m in sys.modules if m.startswith("made_up_kinds")]:
        del sys.modules[name]


def test_a_made_up_kind_is_reported_by_its_counts_and_drawn_as_a_grey_bar(tmp_path, small_tree, ponder):
    assert type(show_of(kind("ponder", [ponder]))) is Show
    small_tree |= {"name": "made-up", "plugins": [ponder], "ponder": {"depth": 3}, "rounds": 1}
    small_tree["stages"] = ["ponder", *small_tree["stages"]]
    phase = {
        k: small_tree.pop(k) for k in ("rounds", "ponder", "propose", "curate", "respond", "train", "stages")
    }
    run = Run.create(tmp_path / "runs" / "made-up", run_config(small_tree | {"phases": {"only": phase}}), "x")
    publish(run, 1, "ponder", 0, b"", {"thoughts": 7, "<b>doubts</b>": 0.25})
    paths, summary = write_report(run)
    told = paths.markdown.read_text().split("## Other stages")[1]
    assert "| 1 | ponder | ponder/thoughts | 7 |" in told and summary.row_count == 1
    assert "<b>doubts" not in paths.html.read_text()
    picture = plots.drawn(figures.of_run(gather(run)))["time"]
    assert b"ponder" in picture.svg or picture.svg.count(b"<path") > 10
    names = {r["metric"] for r in csv.DictReader(paths.csv.read_text().splitlines())}
    assert {"ponder/thoughts", "seconds/ponder"} <= names


def two_roles(tree: dict) -> dict:
    """A warm-up on labelled problems, then a round with two sets of answers and trainings of two roles."""
    source = {"kind": "jsonl", "path": "x.jsonl", "gold": "answer"}
    respond = tree["respond"] | {"samples": SAMPLES}
    labelled = respond | {"problems": {"source": source, "per_round": 20}, "reward": {"kind": "verified"}}
    critic = tree["train"] | {"kind": "train", "role": "critic", "init": "base", "data": "second"}
    warm = {"rounds": 1, "stages": ["respond", "train"], "respond": labelled, "train": tree["train"]}
    play = {
        "rounds": 1, "stages": ["propose", "curate", "respond", "second", "train", "critic"],
        "propose": tree["propose"], "curate": tree["curate"], "respond": respond,
        "second": respond | {"kind": "respond"}, "train": tree["train"] | {"data": "respond"},
        "critic": critic,
    }  # fmt: skip
    shared = {key: tree[key] for key in ("base", "seeds", "prompts", "engine")}
    return shared | {"name": "two", "phases": {"warm": warm, "play": play}}


def do_stage(run: Run, round: int, stage: str, **changes: object) -> None:
    groups = [group(f"{stage}{i}", [0] * 5 + [1] * 3, **changes) for i in range(18)]
    counts = {"questions": 6, "completions": 48, "unparsed": 3, "tokens": 480}
    for i in range(3):
        shard = run.shards(round, stage)[i]
        data = groups_to_parquet(share(groups, i, 3))
        Attempt(run, shard, id="a", inputs={}).publish_bytes(".parquet", data, 0, counts)


def test_phases_roles_and_several_stages_of_one_kind_make_one_report(tmp_path, small_tree):
    run = Run.create(tmp_path / "runs" / "two", run_config(two_roles(small_tree)), "x")
    do_stage(run, 1, "respond", gold="0", winner_correct=True)
    for stage in ("respond", "second"):
        do_stage(run, 2, stage)
    for round, stage, num in ((1, "train", 5), (2, "train", 4), (2, "critic", 3)):
        name = f"{stage}-r{round:03d}-00000-a-0"
        events = Events(run.root / "events", name, stage=stage, round=round, shard=0)
        for n in range(1, num + 1):
            events.add("step", step=n, loss=1.0 / n, approx_kl=0.1)
        publish(run, round, stage, 0, b"{}\n", {"samples": 10 * num, "steps": num, "mismatch_kl": 1e-5})
        do_turns(run, round, 2, stage=stage)
    found = gather(run)
    by_number = {r.round: r for r in found.rounds}
    assert [p.name for p in by_number[1].funnel] == ["asked", "answered", "trainable"]
    assert [(s.name, len(s.steps)) for s in by_number[2].trainings] == [("train", 4), ("critic", 3)]
    rows = scalars.rows(found)
    keys = [(r.round, r.benchmark, r.metric) for r in rows]
    assert len(keys) == len(set(keys))
    told = {r.metric: r.value for r in rows if r.round == 2}
    assert (told["samples"], told["critic/samples"], told["critic/last_step/number"]) == (40, 30, 3)
    assert {"unparsed_share", "second/unparsed_share"} <= told.keys()
    paths, _ = write_report(run)
    told = paths.markdown.read_text()
    assert told.count("| round | steps | samples |") == told.count("| critic\\: round | steps | samples |") == 1
    assert "second (" not in paths.markdown.read_text() and "critic: round" in paths.html.read_text()


def test_the_pictures_of_a_report_are_whole(tmp_path, small_tree):
    run = make_run(tmp_path, small_tree)
    for round in range(2):
        do_score(run, round)
    do_train(run, 1)
    page = write_report(run)[0].html.read_text()
    for data in re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', page):
        assert base64.b64decode(data, validate=True).rstrip().endswith(b"</svg>")
