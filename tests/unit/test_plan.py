"""The chain that a configuration means, before anything runs."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.plan.chain import bounds_of, plan
from jobs.plan.cluster import Local, Slurm, load_cluster, this_machine
from jobs.plan.preflight import bounds, world_of
from serl.config.read import load_run
from serl.config.run import RunConfig
from serl.run.attempt import Attempt
from serl.run.rundir import Run, Shard
from serl.stages.kind import World
from tests.conftest import ROOT, SMALL, run_config

QUICKSTART = load_run(ROOT / "configs/quickstart.yaml")


def nothing(shard: Shard) -> bool:
    return False


def config(**changes) -> RunConfig:
    return run_config(SMALL | changes)


def chain(c: RunConfig) -> dict[str, tuple[str, ...]]:
    return {job.name: job.after for job in plan(c, nothing)}


def test_a_run_from_a_checkpoint_starts_with_round_one():
    after = chain(config(rounds=2))
    assert list(after) == [f"r{r:03d}-{s}" for r in (1, 2) for s in ("propose", "curate", "respond", "train")]
    assert after["r001-propose"] == ()
    assert after["r001-curate"] == ("r001-propose",)
    assert after["r002-propose"] == ("r001-train", "r001-respond")
    assert after["r002-respond"] == ("r002-curate", "r001-train")


def test_a_base_from_scratch_is_made_and_scored_in_round_zero():
    after = chain(QUICKSTART)
    assert list(after)[:3] == ["r000-corpus", "r000-train", "r000-score"]
    assert after["r000-train"] == ("r000-corpus",)
    assert after["r000-score"] == ("r000-train",)
    assert after["r001-propose"] == ("r000-train",)
    assert len(after) == 3 + 5 * QUICKSTART.rounds


def test_without_rounds_only_the_base_is_scored():
    score = {"shards": 2, "benchmarks": ["x"], "max_tokens": 8}
    c = config(rounds=0, stages=["score"], propose=None, curate=None, respond=None, train=None, score=score)
    assert chain(c) == {"r000-score": ()}


def test_labelled_problems_need_no_curation():
    problems = {"per_round": 2, "source": {"kind": "jsonl", "path": "x"}}
    c = config(
        stages=["respond", "train"],
        propose=None,
        curate=None,
        respond=SMALL["respond"] | {"problems": problems},
    )
    assert chain(c) == {
        "r001-respond": (),
        "r001-train": ("r001-respond",),
        "r002-respond": ("r001-train",),
        "r002-train": ("r002-respond",),
    }


@pytest.mark.parametrize(
    "c", [config(), config(rounds=5), QUICKSTART], ids=["checkpoint", "five rounds", "quickstart"]
)
def test_every_job_comes_after_the_jobs_it_reads_and_names_are_unique(c):
    jobs = plan(c, nothing)
    names = [j.name for j in jobs]
    assert len(set(names)) == len(names)
    for i, job in enumerate(jobs):
        assert set(job.after) <= set(names[:i])


def transitive(after: dict[str, tuple[str, ...]], name: str) -> set[str]:
    return set(after[name]).union(*(transitive(after, a) for a in after[name]))


def test_the_order_holds_for_everything_a_stage_reads():
    """Policy of the round before, and for propose and curate the groups and instructions of every earlier round."""
    after = chain(QUICKSTART)
    for round in range(1, QUICKSTART.rounds + 1):
        earlier = {
            f"r{r:03d}-{s}" for r in range(1, round) for s in ("propose", "curate", "respond", "train")
        } | {"r000-train"}
        for stage in ("propose", "curate", "respond", "train"):
            assert earlier <= transitive(after, f"r{round:03d}-{stage}")


@given(st.sets(st.integers(0, 13)))
def test_exactly_what_is_not_done_is_missing(done):
    c = config(rounds=2)
    everything = [s for job in plan(c, nothing) for s in job.missing]
    assert len(everything) == 2 * (2 + 1 + 3 + 1)
    finished = {everything[i] for i in done}
    jobs = plan(c, finished.__contains__)
    assert [s for job in jobs for s in job.missing] == [s for s in everything if s not in finished]
    assert [j.name for j in jobs] == [j.name for j in plan(c, nothing)]


def test_a_run_that_has_a_manifest_plans_the_rest(run):
    shard = Shard(round=1, stage="propose", index=1, count=2)
    Attempt(run, shard, id="a", inputs={}).publish_bytes(".jsonl", b"", 0)
    missing = {s for job in plan(run.config, run.done) for s in job.missing}
    everything = {s for job in plan(run.config, nothing) for s in job.missing}
    assert everything - missing == {shard}


def test_the_estimate_shrinks_with_what_is_done():
    c = config(rounds=1)
    propose, curate, respond = (c.stage(1, name).section for name in ("propose", "curate", "respond"))
    whole = [bounds_of(c, job, World(num_parameters=1000)) for job in plan(c, nothing)]
    assert whole[0].tokens == propose.prompts * propose.sampling.max_tokens
    assert whole[2].tokens == curate.max_instructions * respond.samples * respond.sampling.max_tokens
    half = [bounds_of(c, job, World(num_parameters=1000)) for job in plan(c, lambda s: s.index == 0)]
    assert half[0].tokens == whole[0].tokens // 2
    assert half[1].tokens == half[1].files == 0


def test_a_benchmark_whose_description_does_not_tell_its_rows_is_counted_in_its_file(tmp_path):
    score = {"shards": 1, "benchmarks": ["arithmetic", "math_500"], "max_tokens": 10}
    c = config(stages=["propose", "curate", "respond", "train", "score"], score=score, rounds=1)
    scoring = c.giving(0, "grades")
    rows = scoring.kind.rows(scoring, c, tmp_path)
    assert scoring.kind.num_problems(scoring, c, rows) == 500, "nothing is known of a file that is not there"
    (tmp_path / "benchmarks").mkdir()
    rows = [{"id": str(i), "question": "1 + 1?", "answer": "2", "kind": "x"} for i in range(30)]
    (tmp_path / "benchmarks/arithmetic.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert world_of(c, tmp_path).rows == {"arithmetic": 30}
    scored = [
        e
        for job, e in zip(plan(c, nothing), bounds(c, plan(c, nothing), tmp_path), strict=True)
        if job.stage == "score"
    ]
    assert [e.tokens for e in scored] == [5300, 5300]


def test_what_people_read_beside_the_data_is_in_the_bounds():
    c = config(rounds=1)
    curate, train = (
        next(bounds_of(c, job, World(num_parameters=10**9)) for job in plan(c, nothing) if job.stage == stage)
        for stage in ("curate", "train")
    )
    assert curate.bytes > 0 and train.bytes > 4 * 10**9 and train.files > 6


def test_steps_are_the_plan_without_shards():
    assert [s.job for s in QUICKSTART.stages] == list(chain(QUICKSTART))


def test_the_machine_is_what_the_cluster_file_says():
    here = this_machine(Local(cores=8, gpus=0))
    assert (here.cores, here.gpus, here.train_ranks) == (8, (), 2)
    gpus = this_machine(Local(cores=8, gpus=4))
    assert (gpus.device, gpus.slots, gpus.train_ranks) == ("cuda", 4, 4)
    assert this_machine(Local(cores=1, gpus=0)).train_ranks == 1
    with pytest.raises(ValueError, match="train_ranks 5: this machine has 4 GPUs; lower it"):
        this_machine(Local(gpus=4, train_ranks=5))


@pytest.mark.parametrize(
    ("told", "wanted", "gpus"),
    [
        ("4,5", None, ("4", "5")),
        (" 4, 5 ,6", 2, ("4", "5")),
        ("", None, ()),
        ("-1", None, ()),
        ("2,-1,3", None, ("2",)),
        ("GPU-1b2c,GPU-3d4e", None, ("GPU-1b2c", "GPU-3d4e")),
        ("MIG-77", None, ("MIG-77",)),
    ],
)
def test_the_gpus_are_those_that_are_given(monkeypatch, told, wanted, gpus):
    """All of the machine's used to be taken, and its users' choice overwritten."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert this_machine(Local(cores=8, gpus=wanted)).gpus == gpus


def test_more_gpus_than_are_given_are_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(ValueError, match="gpus 2: CUDA_VISIBLE_DEVICES gives 1"):
        this_machine(Local(cores=8, gpus=2))


def test_a_cluster_is_named_or_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"kind": "local", "cores": 3}))
    assert load_cluster(str(tmp_path / "mine.yaml")).cores == 3
    with pytest.raises(ValueError, match=r"clusters/locla\.yaml: no such file; did you mean local\.yaml"):
        load_cluster("locla")


def test_a_frozen_run_plans_as_its_configuration_did(run):
    assert plan(Run.open(run.root).config, nothing) == plan(run.config, nothing)


def test_a_cluster_file_that_a_run_keeps_means_what_it_meant():
    """What a stage does not say stays unsaid when it is written down; runs of before wrote nulls for that."""
    told = {"kind": "slurm", "data": "/d", "time_min": 60, "tasks_per_node": 3}
    told |= {"stages": {"train": {"nodes": 2, "extra": {"exclude": "n1"}}, "respond": {"tasks_per_node": 4}}}
    cluster = Slurm.model_validate_json(json.dumps(told))
    told["stages"]["train"] |= {"partition": None, "time_min": None}
    for again in (Slurm.model_validate_json(cluster.model_dump_json()), Slurm.model_validate_json(json.dumps(told))):
        for stage in QUICKSTART.stages:
            assert again.resources(stage) == cluster.resources(stage)
    own = {s.name: cluster.resources(s) for s in QUICKSTART.at(1)}
    assert (own["train"].nodes, own["train"].tasks_per_node, own["train"].time_min) == (2, 3, 60)
    assert (own["respond"].nodes, own["respond"].tasks_per_node, own["score"].tasks_per_node) == (1, 4, 1)
    assert own["curate"].gpus_per_node == 0 and own["score"].gpus_per_node == 1
