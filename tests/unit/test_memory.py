"""What a machine, or the control group that this process is in, has: cores and memory, and how engines share them."""

import json
import os
from pathlib import Path

import psutil
import pytest

from jobs.plan import limits
from jobs.plan.cluster import Local, Machine, Slurm, this_machine
from jobs.plan.memory import share_here, share_on_node
from jobs.plan.preflight import check_engine
from serl.engines.room import GIB, USUAL_BYTES, Size, kept_numbers
from tests.conftest import SMALL, run_config

SIZE = {
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "hidden_size": 3072,
    "head_dim": 128,
}


def group(tmp_path: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    groups, mount = tmp_path / "cgroup", tmp_path / "fs"
    groups.write_text(line)
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text)
    return groups, mount


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
        ("0::/../../host/path\n", {"cpu.max": "300000 100000\n"}, 3),
        ("4:cpu,cpuacct:/job\n", {"cpu,cpuacct/job/cpu.cfs_quota_us": "400000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu,cpuacct:/job\n", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu:/job\n", {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, 64),
        ("", {}, 64),
    ],
)  # fmt: skip
def test_cores_are_those_that_the_control_group_leaves(tmp_path, monkeypatch, line, files, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert limits.cores(*group(tmp_path, line, files)) == cores


def test_memory_is_what_the_control_group_leaves_pages_of_files_not_counted(tmp_path):
    free = psutil.virtual_memory().available
    told = {
        "a/memory.max": f"{3 * GIB}\n",
        "a/memory.current": f"{2 * GIB}",
        "a/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
    }
    assert limits.memory_bytes(*group(tmp_path, "0::/a/b\n", told)) == min(1.5 * GIB, free)
    older = {"memory/j/memory.limit_in_bytes": f"{GIB}", "memory/j/memory.usage_in_bytes": "0"}
    (tmp_path / "old").mkdir()
    assert limits.memory_bytes(*group(tmp_path / "old", "7:memory:/j\n", older)) == min(GIB, free)
    unlimited = {
        "memory/j/memory.limit_in_bytes": "9223372036854771712",
        "memory/j/memory.usage_in_bytes": "0",
    }
    (tmp_path / "none").mkdir()
    assert limits.memory_bytes(*group(tmp_path / "none", "7:memory:/j\n", unlimited)) > 0.5 * free


def test_the_machine_of_a_cluster_file_is_within_those_limits(monkeypatch):
    monkeypatch.setattr(limits, "cores", lambda: 3)
    monkeypatch.setattr(limits, "memory_bytes", lambda: 7 * GIB)
    machine = this_machine(Local(gpus=0))
    assert (machine.cores, machine.slots, machine.memory_bytes) == (3, 3, 7 * GIB)
    assert this_machine(Local(gpus=0, cores=5)).cores == 5  # what a person says goes before


def test_keys_and_values_are_counted_in_any_familys_words():
    assert kept_numbers(SIZE) == 2 * 28 * 8 * 128
    assert kept_numbers({"n_layer": 12, "n_head": 12, "n_embd": 768}) == 2 * 12 * 768
    assert kept_numbers({"model_type": "mystery"}) == 0


@pytest.fixture
def score(tmp_path):
    """A run that scores a model of a billion weights in so many shards."""
    folder = tmp_path / "models/base"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(SIZE | {"model_type": "llama"}))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [10**9], "data_offsets": [0, 2 * 10**9]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    def make(engine: dict, shards: int = 8):
        section = {"shards": shards, "benchmarks": ["aime24"], "max_tokens": 64}
        phases = {"evaluation": {"rounds": 0, "stages": ["score"], "score": section}}
        tree = {key: SMALL[key] for key in ("base", "prompts")} | {"name": "sized", "phases": phases}
        made = run_config(tree | {"engine": {"max_model_len": 4096} | engine})
        return made, made.stages[0]

    return make, tmp_path


def machine(gib: float, cores: int = 8) -> Machine:
    return Machine(cores=cores, gpus=(), train_ranks=1, memory_bytes=int(gib * GIB))


def test_engines_that_run_at_once_share_the_memory_and_fewer_run_where_it_is_short(score):
    """Each used to ask for nine tenths of the machine, and died."""
    make, data = score
    config, stage = make({})
    longest = kept_numbers(SIZE) * 4 * 4096 / GIB
    fixed = 4 * 10**9 / GIB + 1.5
    roomy = share_here(stage, config, machine(200), data)
    assert (roomy.engines, roomy.cache_gib) == (8, USUAL_BYTES / GIB)
    short = share_here(stage, config, machine(20), data)
    assert short.engines == int(20 // (fixed + longest)) == 3
    assert longest <= short.cache_gib and short.engines * (fixed + short.cache_gib) <= 20
    assert short.scarce and not roomy.scarce
    alone = share_here(*make({}, shards=1)[::-1], machine(200), data)
    assert alone.engines == 1 and not alone.scarce, "one shard takes one slot, and leaves the others free"
    assert share_here(*make({}, shards=1)[::-1], machine(20), data).engines == 1
    assert share_here(*make({"dtype": "bfloat16"})[::-1], machine(20), data).engines > 3


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (
            {"kv_cache_gib": 64.0},
            r"engine\.kv_cache_gib \(64\): an engine of score needs 69\.2 GiB .*has 20\.0 GiB free",
        ),
        ({"max_model_len": 400000}, r"engine\.kv_cache_gib \(not given, so one text of engine\.max_model_len"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused_by_the_plan(score, monkeypatch, engine, words):
    make, data = score
    monkeypatch.setattr(limits, "memory_bytes", lambda: 20 * GIB)
    with pytest.raises(ValueError, match=words):
        check_engine(make(engine)[0], Local(gpus=0), data)


def test_gpus_and_what_a_configuration_says_are_left_alone(score):
    make, data = score
    config, stage = make({})
    assert (
        share_here(stage, config, Machine(cores=8, gpus=("0",), train_ranks=1, memory_bytes=GIB), data)
        is None
    )
    assert share_here(stage, config, machine(0), data) is None  # not known
    own = Slurm(data="/d", gpus_per_node=0, mem_gb=None).resources(stage)
    assert share_on_node(stage, config, own, data) is None
    own = Slurm(data="/d", gpus_per_node=0, mem_gb=32, stages={"score": {"tasks_per_node": 2}}).resources(
        stage
    )
    assert share_on_node(stage, config, own, data).cache_gib == Size(
        weights=10**9, kept_numbers=kept_numbers(SIZE)
    ).cache_gib(config.engine, 16 * GIB)
