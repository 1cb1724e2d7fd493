"""Sweeps whole: on a real Slurm with the launcher killed in the middle, and here with early stop and sharing; engines are the quick stand-ins."""

import os
import shutil
import signal
import sys
import types
from collections import Counter
from pathlib import Path

import pytest
import yaml
from deterministic import CONFIG, Engine, new_root, train
from lab import CLUSTER, running_lab, slurm, wait_until
from sweep_tree import FEW, Tree

from jobs.plan.chain import plan
from jobs.runs.shared import Outside, shared_keys
from jobs.sweeps.early import ends_here
from jobs.sweeps.schema import SweepConfig
from jobs.sweeps.trials import Sweep, save_sweep, trials_of
from serl.config.run import RunConfig
from serl.config.schema import Section
from serl.config.engine import Sampling
from serl.engines import generator
from serl.run.events import Events, read_events
from serl.run.rundir import Run
from serl.run.signals import Stop
from serl.stages.train.section import Rollout
from serl.stages.work import Work, execute
from tests.conftest import run_config

pytestmark = pytest.mark.timeout(400)
QUICK = "SERL_TEST_CALL_S=0.02 SERL_TEST_LOAD_S=0 SERL_TEST_STEP_S=0.01"


@pytest.fixture
def lab(tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def deadly_sbatch(folder: Path, after: int) -> Path:
    """A folder with an sbatch that kills who called it once the real one has taken that many jobs: the last is in the queue, and in no record."""
    script = folder / "bin" / "sbatch"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\n{shutil.which("sbatch")} "$@"; code=$?\necho >> {folder}/taken\n'
        f"[ $(wc -l < {folder}/taken) -ne {after} ] || kill -9 $PPID\nexit $code\n"
    )
    script.chmod(0o755)
    return script.parent


def test_three_algorithms_and_three_seeds_in_lanes_with_the_launcher_killed_in_the_middle(
    lab, tmp_path, monkeypatch, capsys
):
    """Nine results, nothing computed twice, shared stages once; what the killed launcher left to do, the next one or the relay does."""
    tree = Tree(tmp_path)
    base = yaml.safe_load((tree.folder / "base.yaml").read_text())
    phase = base["phases"]["self_play"]
    phase |= {"rounds": 1} | {name: phase[name] | {"shards": 1} for name in ("score", "respond")}
    tree.write("base.yaml", base)
    setup = [f"export SERL_TEST_CALLS={tree.calls} PYTHONDONTWRITEBYTECODE= {QUICK}"]
    cluster = str(
        tree.write("cluster.yaml", CLUSTER | {"data": str(tree.data), "setup": setup, "stages": {}})
    )
    with monkeypatch.context() as m:
        m.setenv("PATH", f"{deadly_sbatch(tmp_path, after=20)}:{os.environ['PATH']}")
        assert tree.start(str(tree.sweep), "--cluster", cluster).wait() == -signal.SIGKILL
    submitted = len(list(tree.data.glob("runs/*/slurm.jsonl")))
    assert 0 < submitted < 9, "it was to be killed in the middle"
    tree.verb(str(tree.sweep), "--cluster", cluster)
    wait_until(
        lambda: not slurm("squeue", "--noheader").strip(),
        "the sweep to end",
        lambda: slurm("squeue", "--array"),
        patience_s=350,
    )
    said = tree.json("status", "algos", "--cluster", cluster)
    assert said["states"] == {"done": 9}, said
    needed, unshared = tree.wanted()
    assert (tree.manifests(), needed, unshared) == (28, 28, 54)
    assert tree.computed() == tree.computed("end") == 16 + 9, (
        "3 seeds x 3 generating stages and one scoring of the base, in parts; 9 scorings"
    )
    ends = Counter(
        (str(run.stage_dir(e["round"], e["stage"])), e["shard"])
        for run in tree.runs()
        for e in read_events(run.root / "events")
        if e["kind"] == "done"
    )
    assert set(ends.values()) == {1}, "no shard was computed twice"
    assert {s["stage"]: s["users"] for s in said["shared"]} == {
        "r000-score": 9,
        "r001-propose": 3,
        "r001-curate": 3,
        "r001-respond": 3,
    }
    with capsys.disabled():
        print(
            f"\nlauncher killed with {submitted} of 9 trials submitted: 9 results, 0 shards twice, {needed} stages computed in place of {unshared}"
        )


RIGHT = """
    if prompt.startswith("Right: How many are"):
        return f"\\\\boxed{{{2 * int(prompt.split()[-1].rstrip('?'))}}}"
"""


def test_a_worse_trial_ends_early_in_its_own_processes_and_the_report_says_so(tmp_path, monkeypatch):
    """Two ways to ask, one of which the engine knows to answer; on this machine, so the second meets the finished first."""
    for setting in QUICK.split():
        monkeypatch.setenv(*setting.split("="))
    questions = {"per_round": 4, "source": {"kind": "jsonl", "path": "seeds.jsonl", "gold": "answer"}}
    labelled = {
        "stages": ["respond", "train", "score"],
        "propose": None,
        "curate": None,
        "respond.shards": 1,
        "score.shards": 1,
    }
    ways = [{"prompts.respond_plain": way} for way in ("Right: {question}", "Q: {question}")]
    tree = Tree(
        tmp_path, space={"kind": "list", "trials": ways}, replicates=[0], early_stop={"after_round": 1},
        overrides=labelled | {"respond.problems": questions},
    )  # fmt: skip
    engine = tree.folder / "serl/deterministic.py"
    head, call, rest = engine.read_text().partition("def _answer(prompt: str, rng: random.Random) -> str:\n")
    engine.write_text(head + call + RIGHT.lstrip("\n") + rest)
    cluster = tree.write(
        "cluster.yaml", {"kind": "local", "cores": 1}
    )  # one after another: scores come first
    said = tree.json(str(tree.sweep), "--cluster", str(cluster))
    assert said["states"] == {"done": 1, "ended early": 1}, said
    good, bad = said["trials"]
    assert (
        good["ended"] is None
        and f"by the scores of round 1 significantly worse than {good['run']}" in bad["ended"]
    )
    assert [t["rounds"] for t in said["trials"]] == [2, 1]
    run = Run.open(tree.data / "runs" / bad["run"])
    assert run.config.rounds == 1 and not (run.root / "round_002/train").exists(), (
        "its second round was not trained"
    )
    assert "1 done, 1 ended early" in (tree.data / "sweeps/algos/report.md").read_text()


# ------------------------------------------------------------------------------------------------ in this process


@pytest.fixture
def engines(monkeypatch):
    monkeypatch.setattr(generator, "Generator", Engine)
    stand_in = types.ModuleType("serl.stages.train.run")
    stand_in.run = train
    monkeypatch.setitem(sys.modules, "serl.stages.train.run", stand_in)


@pytest.fixture
def data(tmp_path) -> Path:
    new_root(tmp_path / "data")
    return tmp_path / "data"


def new_run(data: Path, name: str, *, share: bool, sweep: str = "s", **changes) -> Run:
    tree = CONFIG | {"name": name} | {k: v for k, v in FEW.items() if k not in ("score", "stages")} | changes
    config = run_config(tree)
    return Run.create(
        data / "runs" / name,
        config,
        "test",
        shared=shared_keys(config, Outside(data)) if share else {},
        sweep=sweep,
    )


def finish(run: Run) -> dict[str, str]:
    """Everything that is missing; the digest of every shard."""
    for job in plan(run.config, run.done):
        for shard in job.missing:
            execute(
                Work(
                    run=run,
                    shard=shard,
                    attempt_id=run.root.name,
                    device="cpu",
                    cores=1,
                    events=Events(run.root / "events", f"{shard.stage}-{shard.round}-{shard.index}"),
                    stop=Stop(),
                )
            )
    return {str(s): run.manifest(s).digest for job in plan(run.config, lambda s: False) for s in job.missing}


def test_a_trial_that_shares_ends_with_the_data_of_one_that_does_not(engines, data):
    alone = finish(new_run(data, "alone", share=False))
    first = finish(new_run(data, "first", share=True))
    second = new_run(data, "second", share=True, train=CONFIG["train"] | {"objective": {"kind": "grpo"}})
    assert {job.name for job in plan(second.config, second.done) if not job.missing} == {
        "r001-propose",
        "r001-curate",
        "r001-respond",
    }
    assert alone == first == finish(second), "the stand-in for training does not look at the objective"
    (manifest,) = second.complete(1, "curate")
    assert (manifest.run, manifest.attempt, manifest.config) == (
        "first",
        "first",
        second.shared["r001-curate"],
    )
    assert manifest.inputs == new_run(data, "other", share=True).complete(1, "curate")[0].inputs


class Watched:
    """A configuration that notes which of its fields are looked at."""

    def __init__(self, config: RunConfig):
        self.config, self.seen = config, set()

    def __getattr__(self, name: str):
        self.seen |= {name} & set(type(self.config).model_fields)
        return getattr(self.config, name)


def noting(section: Section, seen: set[str]) -> Section:
    """The same section; which of its keys are looked at stands in `seen`."""
    kind = type(section)

    class Noted(kind):
        def __getattribute__(self, name: str):
            if name in kind.model_fields:
                seen.add(name)
            return super().__getattribute__(name)

    return Noted.model_construct(**dict(section))


def of_train(config: RunConfig, train: Section) -> RunConfig:
    """The same run with another training."""
    phase = config.phases.self_play.model_copy(update={"train": train})
    fields = {name: getattr(config, name) for name in type(config).model_fields}
    phases = config.phases.model_copy(update={"self_play": phase})
    return type(config).model_construct(**fields | {"phases": phases})


@pytest.mark.parametrize("stage", ["propose", "curate", "respond"])
def test_a_shared_stage_reads_no_section_that_its_key_leaves_out(engines, data, stage):
    """Else two trials that differ in it would share a wrong result."""
    run = new_run(data, "watched", share=True)
    train = run.config.phases.self_play.train
    rollout = Rollout(prompts=2, samples=4, sampling=Sampling(temperature=1.0, max_tokens=8))
    other = of_train(run.config, train.model_copy(update={"agreement": (0.3, 0.4), "rollout": rollout}))
    assert shared_keys(other, Outside(data)) == dict(run.shared)
    keyed = set(type(run.config).model_fields) - {"name", "phases"}
    for job in plan(run.config, run.done):
        for shard in job.missing if job.round == 1 and job.stage in ("propose", "curate", "respond") else ():
            of_training: set[str] = set()
            of_turns: set[str] = set()
            turning = train.model_copy(update={"rollout": noting(rollout, of_turns)})
            watched = Watched(of_train(run.config, noting(turning, of_training)))
            seen_by = Run(run.root, watched, run.digest, run.code, run.shared, run.sweep)
            execute(
                Work(
                    run=seen_by,
                    shard=shard,
                    attempt_id="a",
                    device="cpu",
                    cores=1,
                    events=Events(run.root / "events", f"{shard.stage}-{shard.round}-{shard.index}"),
                    stop=Stop(),
                )
            )
            if job.stage == stage:
                assert watched.seen <= keyed, f"{stage} reads {watched.seen - keyed}"
                assert of_training <= {"kind", "role", "rollout"}, f"{stage} reads {of_training} of the training"
                assert of_turns <= {"publish_every"}, f"{stage} reads {of_turns} of the training's turns"


@pytest.mark.parametrize("at", [2, 3])
def test_a_trial_that_is_clearly_worse_ends_at_its_next_job_and_its_reason_is_kept(engines, data, at):
    """Scores are written by hand: the stand-in engines know nothing. What is whole by then stays, if the rivals came late."""
    rule = {"after_round": 1, "alpha": 0.05}
    sweep = SweepConfig.model_validate(
        {
            "name": "s",
            "base": "x",
            "space": {"kind": "grid", "over": {"rounds": [2, 3, 4]}},
            "early_stop": rule,
        },
        strict=False,
    )
    trials = trials_of(sweep)
    save_sweep(data, Sweep(name="s", config=sweep, trials=tuple(trials)))
    scored = {
        "rounds": 3,
        "stages": [*CONFIG["stages"], "score"],
        "score": {"shards": 1, "benchmarks": ["math_500"], "max_tokens": 60},
    }
    runs = [new_run(data, t.run, share=False, **scored) for t in trials]
    for run, right in zip(runs, (90, 85, 40), strict=True):
        (shard,) = run.shards(1, "score")
        rows = [
            {
                "benchmark": "math_500",
                "id": str(i),
                "sample": 0,
                "mode": "greedy",
                "response": "",
                "finish_reason": "stop",
                "verdict": "correct" if i < right else "wrong",
            }
            for i in range(100)
        ]
        publish_rows(run, shard, rows)
    (next_round,) = runs[2].shards(at, "propose")
    assert not ends_here(runs[2], runs[2].shards(at, "score")[0]), "what was trained is scored"
    assert [ends_here(run, next_round) for run in runs] == [False, False, True]
    assert (
        "by the scores of round 1 significantly worse than" in runs[2].root.joinpath("ended.json").read_text()
    )
    assert [Run.open(run.root).config.rounds for run in runs] == [3, 3, at - 1]
    assert not ends_here(runs[2], runs[2].shards(1, "propose")[0]), (
        "what comes before the comparison is not stopped by it"
    )


def publish_rows(run: Run, shard, rows: list[dict]) -> None:
    from dataclasses import fields

    from evaluation.stored import Grade
    from serl.records import to_jsonl
    from serl.run.attempt import Attempt

    empty = {f.name: None for f in fields(Grade)}
    Attempt(run, shard, id="a", inputs={}).publish_bytes(
        ".jsonl", to_jsonl([empty | r for r in rows]), len(rows)
    )
