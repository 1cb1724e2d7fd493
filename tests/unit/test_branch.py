"""The kind `branch`: stored answers in, the values of their states out; no part is sampled twice, whoever is preempted."""

import copy

import pytest
from report_run import group
from test_branching import TEXTS, Characters, Script, answered

from serl.config.files import ConfigError
from serl.engines import generator
from serl.records import ANCHOR, from_jsonl, groups_to_parquet
from serl.run.attempt import Attempt
from serl.run.events import Events
from serl.run.rundir import Run
from serl.run.signals import Preempted, Stop
from serl.stages.branch import run as branch
from serl.stages.kind import World
from serl.stages.work import Work
from tests.conftest import SMALL, run_config


def tree(**changes: object) -> dict:
    made = copy.deepcopy(SMALL) | {"rounds": 1, "stages": ["propose", "curate", "respond", "branch"]}
    made["respond"]["sampling"]["max_tokens"] = 20
    made["branch"] = {"shards": 1, "rollouts": 4, "steps": {"kind": "lines"}, "part_prompts": 1} | changes
    del made["train"]
    return made


@pytest.fixture
def stored(tmp_path) -> Run:
    """A run whose answers are there: two groups, and an anchor that is nobody's."""
    run = Run.create(tmp_path / "runs/small", run_config(tree(reward={"kind": "verified"})), "test")
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/config.json").write_text("{}")
    groups = [
        answered("a", ["x\ny\n\\boxed{7}", "x\nz\n\\boxed{8}"]),
        answered("b", ["x\nw"]),
        group("c", [0], role=ANCHOR),
    ]
    for shard, mine in zip(run.shards(1, "respond"), (groups, [], [])):
        Attempt(run, shard, id="1", inputs={}).publish_bytes(".parquet", groups_to_parquet(mine), len(mine))
    return run


def attempt(run: Run, id: str, engine: Script, leave_after: int = 9):
    """One try at the shard, which is asked to leave after so many parts."""
    (shard,) = run.shards(1, "branch")
    stop = Stop()
    work = Work(
        run=run,
        shard=shard,
        attempt_id=id,
        device="cpu",
        cores=1,
        events=Events(run.root / "events", id),
        stop=stop,
    )
    plain, parts = engine.generate, []

    def generate(prompts, sampling, **how):
        parts.append(len(prompts))
        stop.requested = len(parts) >= leave_after
        return plain(prompts, sampling, **how)

    engine.generate, engine.tokenizer, engine.sampled = generate, Characters(), 0
    return branch.run(work)


def test_each_answer_has_its_steps_and_their_values_and_no_part_is_done_twice(stored, monkeypatch):
    engines = [Script(TEXTS), Script(TEXTS)]
    made = iter(engines)
    monkeypatch.setattr(generator, "Generator", lambda *_, **__: next(made))
    with pytest.raises(Preempted):
        attempt(stored, "first", engines[0], leave_after=1)
    manifest = attempt(stored, "second", engines[1])
    assert [len(e.asked) for e in engines] == [4, 2], "the first group's part was committed"
    rows = from_jsonl(stored.read(manifest))
    assert [row["id"] for row in rows] == ["a", "b"]
    assert [w["values"] for w in rows[0]["walks"]] == [[0.5, 0.75, 1.0], [0.5, 0.75, 0.0]]
    assert rows[1]["walks"] == [{"cuts": [0, 2], "values": [0.5, 0.75]}]
    assert manifest.counts == {"groups": 2, "answers": 3, "answers_whole": 0, "steps": 8}


def test_the_plan_bounds_its_rollouts():
    config = run_config(tree(steps={"kind": "lines", "most": 2}))
    stage = config.stage(1, "branch")
    bounds = stage.kind.bounds(stage, config, World())
    assert bounds.tokens == 16 * 4 * 4 * (20 + 19), "questions, answers, rollouts, and what two states leave"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rollouts": 0}, "branch.rollouts: 0: input should be greater than or equal to 1"),
        ({"data": "other"}, "branch.data other: no stage of that name before it gives groups"),
        ({"reward": {"kind": "model", "of": "answer"}}, "branch.reward.kind model: values are of the vote"),
        ({"steps": {"kind": "pattern", "pattern": "("}}, "is no regular expression"),
    ],
)
def test_what_cannot_be_valued_is_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run_config(tree(**changes))
