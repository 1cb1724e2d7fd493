"""Policies published along the way: milestones as stages of their own, and who knows them."""

import copy
import json
from types import SimpleNamespace

import pytest
from fake_slurm import install
from report_run import grades, publish

from evaluation.stored import stored
from jobs.chain.along import let_begin, without
from jobs.chain.gate import Gate
from jobs.chain.slurm import submit_missing
from jobs.plan.chain import bounds_of, own_work, plan
from jobs.plan.cluster import Slurm
from jobs.reporting import figures
from jobs.reporting.findings import gather
from jobs.reporting.policies import best_of
from jobs.reporting.side_by_side import side_by_side
from jobs.reporting.written import write_report
from jobs.runs.garbage import of_run
from jobs.runs.queue import Journal
from serl.records import to_jsonl
from serl.run.attempt import Attempt
from serl.run.events import Events
from serl.run.rundir import OVER, Run, RunError
from serl.run.signals import Stop
from serl.stages.exams import scored
from serl.stages.kind import Stage, World
from serl.stages.work import Work, execute
from tests.conftest import SMALL, run_config

ROLLOUT = {"prompts": 2, "samples": 4, "turns": 6, "publish_every": 2, "sampling": {"temperature": 1.0, "max_tokens": 8}}
SCORE = {"shards": 2, "benchmarks": ["arithmetic"], "validation": ["arithmetic_validation"], "max_tokens": 64}
SKILLS = {(0, 0): 0.2, (1, 2): 0.4, (1, 4): 0.9, (1, 0): 0.7}  # by round and milestone


def tree(**changes: object) -> dict:
    """One round whose training has milestones at its second and fourth turn of six."""
    small = copy.deepcopy(SMALL)
    small["train"] |= {"rollout": ROLLOUT | changes.pop("rollout", {})}
    return small | {"rounds": 1, "stages": [*SMALL["stages"], "score"], "score": SCORE} | changes


@pytest.fixture
def trained(tmp_path) -> Run:
    return Run.create(tmp_path / "runs" / "small", run_config(tree()), "test")


def put_policy(run: Run, stage: str, counts: dict[str, float]) -> None:
    (shard,) = run.shards(1, stage)
    attempt = Attempt(run, shard, id="a", inputs={})
    built = attempt.folder / "policy.a"
    built.mkdir()
    (built / "weights").write_text(stage)
    attempt.publish_folder(built, "policy", counts)


def work_of(run: Run, stage: str) -> Work:
    (shard, *_) = run.shards(1, stage)
    return Work(
        run=run, shard=shard, attempt_id="a", device="cpu", cores=1, events=Events(run.root / "events", f"{stage}-x"), stop=Stop()
    )  # fmt: skip


# ----------------------------------------------------------------------------------- the method
def test_a_milestone_is_a_stage_and_what_looks_at_it_another():
    config = run_config(tree())
    jobs = {job.name: job for job in plan(config, lambda shard: False)}
    assert [name for name in jobs if "@" in name] == [
        "r001-train@2", "r001-score@2", "r001-train@4", "r001-score@4",
    ]  # fmt: skip
    assert jobs["r001-train@2"].along and jobs["r001-train@2"].after == ("r001-train",)
    assert jobs["r001-score@2"].after == ("r001-train@2",) and not jobs["r001-score@2"].along
    assert jobs["r001-score"].after == ("r001-train",)
    assert jobs["r001-score@4"].of.section.asked == ("arithmetic_validation",), "what is chosen by"
    assert {job.name: job.after for job in own_work(jobs.values())}["r001-score@4"] == ("r001-train",)


def test_nobody_takes_a_milestone_for_its_training_or_for_the_rounds_scores():
    config = run_config(tree(rounds=2))
    plain = run_config(tree(rounds=2, rollout={"publish_every": None}))
    assert [s for s in config.stages if not s.milestone] != [] and [s.job for s in config.stages if not s.milestone] == [
        s.job for s in plain.stages
    ]
    for stage in plain.stages:
        found = config.stage(stage.round, stage.name)
        assert [s.job for s in found.kind.reads(found, config)] == [s.job for s in stage.kind.reads(stage, plain)]
    assert config.training(1).name == "train" and config.giving(1, "grades").name == "score"
    assert [s.job for s in config.stages if s.role] == [s.job for s in plain.stages if s.role]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rollout": {"turns": None}}, "publish_every 2: how many turns there are is only known with turns"),
        ({"rollout": {"publish_every": 6}}, "publish_every 6: nothing would be published along the way of 6 turns"),
        ({"rollout": {"publish_every": 0}}, "publish_every: 0: input should be greater than or equal to 1"),
        ({"stages": SMALL["stages"], "score": None}, "publish_every 2: no stage after it in the round examines the role policy"),
        ({"score": SCORE | {"along": ["else"]}}, "score.along: else is not asked"),
    ],
)  # fmt: skip
def test_what_could_not_be_published_or_looked_at_is_a_sentence(changes, said):
    with pytest.raises(ValueError, match="test.yaml") as told:
        run_config(tree(**changes))
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("score", "asked"),
    [
        ({"along": ["arithmetic"]}, ("arithmetic",)),
        ({"validation": []}, ("arithmetic",)),
        ({"along": ["arithmetic_validation", "arithmetic"]}, ("arithmetic", "arithmetic_validation")),
    ],
)
def test_what_a_policy_along_the_way_is_asked_can_be_said(score, asked):
    config = run_config(tree(score=SCORE | score))
    assert config.stage(1, "score@2").section.asked == asked


def test_the_space_of_published_policies_is_in_the_plan():
    config, world = run_config(tree()), World(num_parameters=10**9, rows={"arithmetic": 5, "arithmetic_validation": 5})
    bounds = {job.name: bounds_of(config, job, world) for job in plan(config, lambda shard: False)}
    assert bounds["r001-train@2"].bytes > 4 * 10**9 and bounds["r001-train@2"].temporary_bytes == 0
    assert bounds["r001-score@2"].tokens == 5 * 64 < bounds["r001-score"].tokens


# ----------------------------------------------------------------------------------- in a run
def test_each_examination_loads_the_weights_that_it_is_of(trained):
    for stage in ("train@2", "train@4", "train"):
        put_policy(trained, stage, {"samples": 8.0})
    for stage, policy in (("score@2", "train@2"), ("score@4", "train@4"), ("score", "train")):
        folder, digest = work_of(trained, stage).weights("policy")
        assert (folder / "weights").read_text() == policy
        assert digest == trained.manifest(trained.shards(1, policy)[0]).digest


def test_a_milestone_that_its_training_did_not_come_to_is_empty_and_so_is_what_looks_at_it(trained):
    put_policy(trained, "train@2", {"samples": 8.0})
    work_of(trained, "train").skip(trained.config.milestones(trained.config.stage(1, "train")))
    assert not trained.manifest(trained.shards(1, "train@2")[0]).over, "what is published stays"
    assert trained.manifest(trained.shards(1, "train@4")[0]).over
    assert execute(work_of(trained, "score@4")).counts == {OVER: 1.0}


def test_by_itself_a_milestone_is_never_done_before_its_training(trained):
    with pytest.raises(RunError, match=r"train: shards \[0\] are not done"):
        execute(work_of(trained, "train@2"))
    put_policy(trained, "train", {})
    assert execute(work_of(trained, "train@2")).over, "its training has ended without it"


# ----------------------------------------------------------------------------------- on Slurm
FAKES = {
    "sbatch": '#!/bin/bash\ncp "$1" $FAKE/script-$(ls $FAKE | wc -l)\necho "Submitted batch job $((100 + $(ls $FAKE | wc -l)))"\n',
    "squeue": "#!/bin/bash\nfor a; do [[ $a != *%E* ]] || exec cat $FAKE/dependency; done\n[ ! -e $FAKE/queue ] || cat $FAKE/queue\n",
    "scontrol": '#!/bin/bash\n[ $1 != update ] || echo "$@" >> $FAKE/updated\necho MaxArraySize = 1001\n',
    "scancel": '#!/bin/bash\necho "$@" >> $FAKE/cancelled\n',
    "srun": "#!/bin/bash\n",
}
CLUSTER = {"kind": "slurm", "data": "/data", "gpus_per_node": 0, "python": "python"}


@pytest.fixture
def submitted(trained, tmp_path, monkeypatch):
    """The run in a made-up queue; its folder, and the id of each job."""
    fake = install(tmp_path, monkeypatch, FAKES)
    new = submit_missing(trained, Slurm.model_validate(CLUSTER, strict=False))
    ids = {s.job: s.id for s in new}
    tokens = {s.job: s.token for s in Journal(trained.root).submissions()}
    elements = [(s.job, f"{s.id}_{i}" if s.array else s.id) for s in new for i in range(len(s.shards))]
    lines = [f"{id}\tPENDING\t9\t(Dependency)\t{json.dumps({'token': tokens[job]})}\n" for job, id in elements]
    (fake / "queue").write_text("".join(lines))
    return fake, ids


def test_what_looks_at_a_milestone_waits_for_the_training_and_is_submitted_once(trained, submitted):
    fake, ids = submitted
    assert "r001-train@2" not in ids and {"r001-score@2", "r001-score@4"} <= ids.keys()
    text = next(p.read_text() for p in fake.glob("script-*") if "r001-score@2" in p.read_text())
    assert f"--dependency=afterany:{ids['r001-train']}\n" in text
    assert submit_missing(trained, Slurm.model_validate(CLUSTER, strict=False)) == []
    assert not (fake / "cancelled").exists(), "what waits for a milestone is not in the way"


def test_a_milestone_is_not_lost_while_its_training_is_in_the_queue(trained, submitted):
    fake, ids = submitted
    gate = Gate(stages=((1, "train@2"),))
    assert gate.missing(trained) == trained.shards(1, "train@2") and gate.lost(trained) == []
    lines = (fake / "queue").read_text().splitlines(keepends=True)
    (fake / "queue").write_text("".join(line for line in lines if not line.startswith(f"{ids['r001-train']}\t")))
    assert gate.lost(trained) == trained.shards(1, "train@2")


def test_once_a_milestone_is_there_its_readers_wait_for_all_else_but_the_training(trained, submitted, monkeypatch):
    fake, ids = submitted
    training = trained.config.stage(1, "train")
    (fake / "dependency").write_text(f"afterany:{ids['r001-train']}(unfulfilled),afterany:77_*(unfulfilled)\n")
    put_policy(trained, "train@2", {"samples": 8.0})
    naps = []

    def nap(_: float) -> None:
        """Meanwhile the training publishes the next."""
        naps.append((fake / "updated").read_text() if (fake / "updated").exists() else "")
        if len(naps) == 1:
            put_policy(trained, "train@4", {"samples": 16.0})

    monkeypatch.setattr("jobs.chain.along.time", SimpleNamespace(sleep=nap))
    let_begin(trained, training, ids["r001-train"])
    first = f"update JobId={ids['r001-score@2']} Dependency=afterany:77\n"
    assert naps == [first, first + f"update JobId={ids['r001-score@4']} Dependency=afterany:77\n"]


def test_a_wait_is_told_as_scontrol_takes_it():
    told = "afterany:5(unfulfilled),afterany:6_*(unfulfilled),afterok:7(failed)"
    assert without(told, "6") == "afterany:5,afterok:7"
    assert without("(null)\nafterany:5_3(unfulfilled)\n", "5") == ""


# ----------------------------------------------------------------------------------- in reports
@pytest.fixture
def examined(trained) -> Run:
    """Every policy scored; that of the fourth turn solves most."""
    for place, (stage, samples) in enumerate((("train@2", 8), ("train@4", 16), ("train", 24))):
        put_policy(trained, stage, {"samples": samples, "turns": 2 * place + 2})
    for (round, turn), skill in SKILLS.items():
        stage: Stage = trained.config.stage(round, f"score@{turn}" if turn else "score")
        rows = [row for name in stage.section.asked for row in grades(name, 80, skill, 10 * round + turn) if row.mode == "greedy"]
        publish(trained, round, stage.name, 0, to_jsonl(rows), {"problems": 80})
        publish(trained, round, stage.name, 1, b"", {})
    return trained


def test_the_best_policy_may_be_one_of_them(examined):
    found = gather(examined)
    assert scored(examined) == [(0, 0), (1, 2), (1, 4), (1, 0)]
    assert best_of(examined) == (1, 4) == (found.chosen.round, found.chosen.turn)
    text = write_report(examined)[0].html.read_text()
    assert "Best on validation: the policy of round 1, turn 4" in text and "Policies along the way" in text
    assert "best_on_validation/turn,4.0" in (examined.root / "report.csv").read_text()
    data = examined.data_root
    (best,) = side_by_side(["small:best"], data).trials
    assert best.name == "small, round 1, turn 4" and set(best.scores) == {"arithmetic_validation"}
    assert [m.name for m in side_by_side(["small:1@2", "small"], data).trials] == ["small, round 1, turn 2", "small, round 1"]


def test_the_curve_goes_from_the_base_through_the_milestones_to_the_end(examined):
    found = gather(examined)
    points = [(p.turns, p.answers) for p, name, _ in found.along if name == "arithmetic_validation"]
    assert points == [(0, 0), (2, 8), (4, 16), (6, 24)]
    assert set(found.rounds[1].scores) == {"arithmetic"}, "a round's scores are those of its last policy"
    assert figures.along(found) is not None


def test_without_milestones_there_is_no_such_curve(tmp_path):
    run = Run.create(tmp_path / "runs" / "small", run_config(tree(rollout={"publish_every": None})), "test")
    assert gather(run).along == [] and figures.along(gather(run)) is None


def test_their_grades_are_read_without_a_model_too(examined):
    found = {name: {row.benchmark for row in rows} for name, rows in stored(examined.root)}
    assert found["round_001@4"] == {"arithmetic_validation"} and "arithmetic" in found["round_001"]


def test_gc_takes_policies_that_were_looked_at_but_never_the_best(examined):
    gone = [item.path for item in of_run(examined, best=best_of(examined)) if item.kind == "policies along the way"]
    assert gone == [examined.root / "round_001/train@2/policy"]
    shard = examined.shards(1, "score@2")[1]
    (examined.stage_dir(1, "score@2") / f"{shard.name}.json").unlink()
    assert not [item for item in of_run(examined, best=(1, 4)) if item.kind == "policies along the way"]
    (examined.root / "round_001/train@2/policy/weights").unlink()
    (examined.root / "round_001/train@2/policy/origin.json").unlink()
    (examined.root / "round_001/train@2/policy").rmdir()
    with pytest.raises(RunError, match=r"train@2/policy: removed since it was looked at"):
        work_of(examined, "score@2").weights("policy")
