"""What is refused before anything is created: each with one sentence, and nothing left behind."""

import os

import pytest

from jobs import launch, sweep
from jobs.plan.cluster import Local, Slurm
from jobs.plan.preflight import check_engine, preflight
from jobs.runs.queue import SlurmError
from jobs.shell.command import load_run
from serl.config.files import ConfigError
from serl.config.run import RunConfig
from tests.conftest import ROOT, SMALL, run_config

SAFETENSORS = b"\x02" + bytes(7) + b"{}"


def config(**changes) -> RunConfig:
    return run_config(SMALL | changes)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "models/base"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "none", "max_position_embeddings": 512}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(SAFETENSORS)
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds/seeds.jsonl").write_text('{"question": "a?", "answer": "1"}\n' * 6)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        (
            {"propose": SMALL["propose"] | {"seed_shots": 7}},
            "propose.seed_shots 7: the configured source has 6 seed problems",
        ),
        (
            {"respond": SMALL["respond"] | {"anchors": 7}},
            "respond.anchors 7: the configured source has 6 seed problems",
        ),
        ({"engine": {"max_model_len": 513}}, "engine.max_model_len 513: .* has 512 positions"),
    ],
)
def test_more_than_there_is_is_refused(data, changes, message):
    if not message:
        return preflight(config(**changes), data, [])
    with pytest.raises(ValueError, match=message):
        preflight(config(**changes), data, [])


def test_a_choice_benchmark_has_its_own_worked_examples(data):
    score = {"shards": 1, "benchmarks": ["mmlu_pro"], "preamble": {"mmlu_pro": "1+1? 2"}, "max_tokens": 8}
    with pytest.raises(
        ValueError, match="score.preamble.mmlu_pro: a choice benchmark brings worked examples of its own"
    ):
        preflight(config(stages=[*SMALL["stages"], "score"], score=score), data, [])


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (Local(cores=2, gpus=0), "more than this machine's cores, 2"),
        (Local(gpus=2), "more than this machine's GPUs, 2"),
        (Slurm(data="x", gpus_per_node=2), "more than gpus_per_node of propose in the cluster file, 2"),
        (
            Slurm(data="x", gpus_per_node=4, stages={"respond": {"gpus_per_node": 1}}),
            "more than gpus_per_node of respond in the cluster file, 1",
        ),
        (Slurm(data="x", gpus_per_node=0, cpus_per_task=2), "more than cpus_per_task of propose"),
        (Slurm(data="x", gpus_per_node=4), ""),
        (
            Slurm(data="x", gpus_per_node=4, stages={"respond": {"tasks_per_node": 2}}),
            "more than gpus_per_node of respond in the cluster file for each of its 2 tasks, 2",
        ),
        (Slurm(data="x", gpus_per_node=4, tasks_per_node=4), ""),
        (Slurm(data="x", gpus_per_node=4, stages={"curate": {"gpus_per_node": 1}}), ""),
    ],
)
def test_an_engine_wider_than_its_task_is_refused_before_it_waits_in_a_queue(tmp_path, cluster, message):
    wide = config(engine={"max_model_len": 512, "tensor_parallel": 3})
    if not message:
        return check_engine(wide, cluster, tmp_path)
    with pytest.raises(ValueError, match=rf"engine\.tensor_parallel 3: {message}"):
        check_engine(wide, cluster, tmp_path)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "configs/sweeps/algorithms.yaml",
            "algorithms.yaml: this is a sweep file; give it to `python -m jobs.sweep`",
        ),
        ("configs/clusters/lab.yaml", "lab.yaml: this is a cluster file; give it to --cluster"),
    ],
)
def test_a_file_of_another_kind_is_told_by_its_name(file, message):
    with pytest.raises(ConfigError, match=message) as e:
        load_run(ROOT / file, [])
    assert "\n" not in str(e.value)


def test_a_run_file_is_neither_a_sweep_nor_a_cluster(tmp_path):
    run_file = str(ROOT / "configs/quickstart.yaml")
    with pytest.raises(ConfigError, match=r"this is a run file; start it with `python -m jobs\.launch`"):
        sweep.body([run_file, "--dry-run", "--data", str(tmp_path)])
    with pytest.raises(
        ConfigError, match="kind: missing, so this is another kind of file; choose one of 'local', 'slurm'"
    ):
        launch.body([run_file, "--dry-run", "--data", str(tmp_path), "--cluster", run_file])


def test_without_slurm_nothing_is_created(tmp_path, monkeypatch):
    """A run that stood there, begun by nobody, would be in the way of the same command a minute later."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    argv = ["--cluster", "lab", "--data", str(tmp_path / "data")]
    for verb, file in ((launch, "configs/quickstart.yaml"), (sweep, "configs/sweeps/algorithms.yaml")):
        with pytest.raises(
            SlurmError, match="scontrol: not found.*run this on a login node.*or use --cluster local"
        ):
            verb.body([str(ROOT / file), *argv])
        for kind in ("runs", "sweeps"):
            assert not (tmp_path / "data" / kind).exists() or not os.listdir(tmp_path / "data" / kind)
