"""The doctor's judgement on what several sites say about themselves, and on machines that can and cannot do their part."""

import errno
import json
import os
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from fake_slurm import install

from jobs.health import canary, node, site
from jobs.health.canary import Facts, Import
from jobs.health.checks import Check, check_lead_time, check_site, check_stages, requests
from jobs.health.machine_checks import check_machine
from jobs.plan.cluster import Slurm, load_cluster
from jobs.runs.queue import parse_settings
from serl.stages import kinds
from tests.conftest import ROOT

SITES = Path(__file__).parent / "sites"


def read_site(name: str) -> site.Site:
    """A fixture: a line that says what it is, then what each command printed, below its `$ command`."""
    sections = (SITES / f"{name}.txt").read_text().split("\n$ ")[1:]
    said = {command: text for command, _, text in (s.partition("\n") for s in sections)}
    qos = said.get(" ".join(site.LIST_QOS))
    return site.Site(
        settings=parse_settings(said["scontrol show config"]),
        partitions=site.parse_partitions(said[" ".join(site.SHOW_PARTITIONS)]),
        qos=None if qos is None else site.parse_qos(qos),
    )


def cluster(**changes: object) -> Slurm:
    base: dict[str, object] = {
        "data": "/data",
        "partition": "preempt",
        "account": "project",
        "time_min": 240,
        "gpus_per_node": 1,
        "mem_gb": 96,
    }
    return Slurm.model_validate(base | changes, strict=False)


def of_stages(found: site.Site, asked: Slurm, refusal: str = "") -> list[Check]:
    return [c for stages, own in requests(asked) for c in check_stages(found, own, stages, refusal)]


def judged(name: str, asked: Slurm, refusal: str = "") -> list[Check]:
    found = read_site(name)
    return [*check_site(found), check_lead_time(asked), *of_stages(found, asked, refusal)]


def ills(checks: list[Check]) -> dict[str, str]:
    return {c.subject: c.level for c in checks if c.level != "ok"}


def finding(checks: list[Check], subject: str) -> Check:
    return next(c for c in checks if c.subject.startswith(subject))


def test_a_site_as_it_should_be_has_no_ills():
    checks = judged("lustre_gpu", load_cluster("example"))
    assert ills(checks) == {}
    assert finding(checks, "job").found.endswith("min on preempt: Slurm takes it")
    assert finding(checks, "preemption").found == "requeued after 120 s of grace"


def test_the_lab_misses_accounting_and_grace_only():
    checks = judged("light", load_cluster("lab"))
    assert {s.split(" (")[0] for s in ills(checks)} == {"accounting", "preemption"}


def test_a_site_that_cancels_is_a_problem_unless_the_qos_requeues():
    common = {"partition": "batch", "account": "physics", "time_min": 60}
    checks = judged("qos_cancel", cluster(**common))
    bare = ", ".join(name for name, kind in kinds().items() if kind.engine == "cpu")
    heavy = ", ".join(name for name, kind in kinds().items() if kind.engine != "cpu")
    assert ills(checks) == {
        "Slurm version": "warning",
        f"preemption ({bare})": "problem", f"preemption ({heavy})": "problem",
    }  # fmt: skip
    checks = judged("qos_cancel", cluster(**common, qos="scavenger"))
    assert finding(checks, "preemption").found == "requeued after 60 s of grace"


@pytest.mark.parametrize(
    ("changes", "subject", "found", "remedy"),
    [
        ({"time_min": 1000}, "job", "time_min 1000 is over the limit of preempt", "720 or less"),
        ({"time_min": 1000, "partition": "gpu,preempt"}, "job", "limit of preempt", "720 or less"),
        (
            {"stages": {"train": {"gpus_per_node": 4, "tasks_per_node": 2}}},
            "job (train)",
            "2 tasks share 4 GPUs",
            "one for each GPU",
        ),
        ({"signal_s": 14400}, "signal_s", "240 min", "lower signal_s or raise time_min"),
        ({"signal_s": 20}, "signal_s", "20 s", "60 or more"),
    ],
)
def test_a_cluster_file_that_does_not_fit_the_site_is_told_how_it_would(changes, subject, found, remedy):
    checks = [c for c in judged("lustre_gpu", cluster(**changes)) if c.level != "ok"]
    assert any(c.subject.startswith(subject) and found in c.found and remedy in c.remedy for c in checks), (
        checks
    )


def test_what_slurm_would_refuse_is_told_in_its_words_with_what_there_is_instead():
    words = "sbatch --parsable: sbatch: error: invalid partition specified: gpus"
    checks = judged("lustre_gpu", cluster(partition="gpus"), words)
    assert (finding(checks, "job").level, finding(checks, "job").found) == ("problem", words)
    assert "gpu, preempt, cpu, maint" in finding(checks, "job").remedy
    assert not any(c.subject.startswith("preemption") for c in checks), "there is no such partition"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("allocation failure: Requested node configuration\nis not available", "node configuration is not"),
        ("sbatch: error: AssocMaxSubmitJobLimit", ""),
        ("", ""),
    ],
)
def test_slurm_is_asked_without_a_job_and_a_full_window_is_no_refusal(tmp_path, monkeypatch, error, said):
    script = f'#!/bin/bash\necho "$@" > {tmp_path}/asked; cp "${{!#}}" {tmp_path}/script\n'
    install(tmp_path, monkeypatch, {"sbatch": script + (f"echo '{error}' >&2; exit 1\n" if error else "")})
    asked = cluster(stages={"train": {"nodes": 2}}).resources_of(kinds()["train"])
    found = site.refusal(cluster(), asked)
    assert said in found and bool(said) == bool(found)
    assert "--test-only" in (tmp_path / "asked").read_text()
    text = (tmp_path / "script").read_text()
    for line in ("--nodes=2", "--ntasks-per-node=1", "--partition=preempt", "--time=240", "--mem=96GB"):
        assert f"#SBATCH {line}\n" in text


def test_a_partition_without_grace_or_that_suspends_is_a_warning():
    text = (SITES / "lustre_gpu.txt").read_text()
    for change, words in ((("GraceTime=120", "GraceTime=0"), "without grace"), (("GraceTime=120", "GraceTime=5"), "after 5 s"),
                          (("PreemptMode=REQUEUE State", "PreemptMode=GANG,SUSPEND State"), "suspended")):  # fmt: skip
        partitions = site.parse_partitions(text.replace(*change))
        changed = replace(read_site("lustre_gpu"), partitions=partitions)
        check = finding(of_stages(changed, cluster()), "preemption")
        assert (check.level, words in check.found) == ("warning", True), check


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("2-00:00:00", 2880),
        ("12:00:00", 720),
        ("30:00", 30),
        ("UNLIMITED", None),
        ("INFINITE", None),
        ("1-12:30:59", 2190),
        ("", None),
    ],
)
def test_times_in_slurms_notation(text, minutes):
    assert site.minutes(text) == minutes


# ------------------------------------------------------------------------------------------------------------- machines
NODE = Facts(
    host="g001", time=1000.0, imports=(Import(name="torch", seconds=9.0, fault=""),), gpus=("NVIDIA H100",),
    scontrol=True, end_time=1600.0, caches="/tmp/serl-1/gpu-0/vllm", caches_free_bytes=10**11, data="/data", free_bytes=10**13,
    free_inodes=10**8, fault="", publish_ms=20.0,
)  # fmt: skip


def machine_ills(facts: Facts, *, node: bool = True) -> list[tuple[str, str]]:
    checks = check_machine(facts, cluster().resources_of(kinds()["respond"]) if node else None)
    assert all(c.remedy for c in checks if c.level != "ok")
    return [(c.level, c.subject) for c in checks if c.level != "ok"]


def test_a_good_node_has_no_ills():
    assert machine_ills(NODE) == []
    assert machine_ills(NODE, node=False) == []


@pytest.mark.parametrize(
    ("changes", "ill"),
    [
        ({"fault": "Operation not supported (EOPNOTSUPP)"}, ("problem", "g001: publication in /data")),
        ({"publish_ms": 5000.0}, ("warning", "g001: publication in /data")),
        ({"free_bytes": 10**9}, ("warning", "g001: free space")),
        ({"free_inodes": 100}, ("warning", "g001: free space")),
    ],
)
def test_a_file_system_that_does_not_serve(changes, ill):
    assert machine_ills(replace(NODE, **changes)) == [ill]


@pytest.mark.parametrize(
    ("changes", "ill"),
    [
        (
            {"imports": (Import(name="vllm", seconds=3.0, fault="ImportError: libcudart.so.13"),)},
            ("problem", "g001: import vllm"),
        ),
        ({"imports": (Import(name="vllm", seconds=200.0, fault=""),)}, ("warning", "g001: import vllm")),
        ({"gpus": ()}, ("problem", "g001: GPUs")),
        ({"scontrol": False}, ("problem", "g001: scontrol")),
        ({"end_time": None}, ("warning", "g001: end of the job's time")),
        ({"caches": ""}, ("warning", "g001: caches of compiled kernels")),
        ({"caches_free_bytes": 10**8}, ("warning", "g001: caches of compiled kernels")),
    ],
)
def test_a_node_that_does_not_serve(changes, ill):
    assert machine_ills(replace(NODE, **changes)) == [ill]


def test_a_login_node_does_without_gpus_and_scontrol():
    assert machine_ills(replace(NODE, gpus=(), scontrol=False), node=False) == []


def test_this_machine_can_be_measured_and_told_as_json(tmp_path):
    facts = canary.measure(tmp_path, ("json", "no_such_package"))
    assert facts.fault == "" and facts.publish_ms > 0
    assert [i.fault for i in facts.imports][-2:] == [
        "",
        "ModuleNotFoundError: No module named 'no_such_package'",
    ]
    assert canary.from_json(json.dumps(asdict(facts))) == facts
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_links_and_renames_that_misbehave_are_found(tmp_path, monkeypatch):
    assert canary.publication_fault(tmp_path) == ""
    (tmp_path / "a").mkdir()
    with monkeypatch.context() as m:
        m.setattr(os, "link", lambda source, target: Path(target).write_bytes(Path(source).read_bytes()))
        assert "link does not refuse" in canary.publication_fault(tmp_path / "a")

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    (tmp_path / "b").mkdir()
    monkeypatch.setattr(os, "link", refuse)
    assert canary.publication_fault(tmp_path / "b") == "", "publication can do without"
    (tmp_path / "c").mkdir()
    monkeypatch.setattr(os, "rename", refuse)
    assert "Operation not supported" in canary.publication_fault(tmp_path / "c")


# --------------------------------------------------------------------------------------------------------------- the job
def test_one_small_job_for_each_kind_of_node():
    asked = node.kinds_of_node(load_cluster("example"))
    assert sorted((k.partition, k.gpus_per_node, k.nodes, k.tasks_per_node, k.time_min) for k in asked) == [
        ("cpu", 0, 1, 1, 15), ("preempt", 0, 1, 1, 15), ("preempt", 1, 1, 1, 15),
    ]  # fmt: skip


def test_the_job_asks_for_what_a_stage_asks_for(tmp_path):
    example = load_cluster("example")
    (on_gpus,) = [k for k in node.kinds_of_node(example) if k.gpus_per_node]
    text = node.job_script(example, on_gpus, tmp_path, Path("/lustre/my data"), ("torch",))
    for line in (
        "--partition=preempt",
        "--account=project",
        "--gpus-per-node=1",
        "--mem=96GB",
        "--exclude=node013",
        "--cpus-per-task=8",
    ):
        assert f"#SBATCH {line}\n" in text
    spaced = node.job_script(example, on_gpus, tmp_path / "my data", Path("/x"), ())
    assert f"#SBATCH --output='{tmp_path}/my data/log'\n" in spaced
    assert "module load cuda/13.0\nexport NCCL_SOCKET_IFNAME=ib0\nsource slurm/env.sh\n" in text
    assert (
        f"srun --export=ALL /lustre/project/serl/venv/bin/python -m jobs.health.canary '/lustre/my data' {tmp_path}/facts.json torch\n"
        in text
    )
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_env_keeps_caches_on_the_node_and_what_was_set(tmp_path):
    def env(**given: str) -> dict[str, str]:
        script = 'source "$0"; env'
        given = {"PATH": os.environ["PATH"], "SERL_LOCAL": str(tmp_path)} | given
        done = subprocess.run(
            ["bash", "-euc", script, str(ROOT / "slurm/env.sh")],
            env=given,
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    alone = env(
        SLURM_JOB_GPUS="2,3", SLURM_JOB_NUM_NODES="1", SLURM_CPUS_PER_TASK="6", TRITON_CACHE_DIR="/mine"
    )
    assert alone["VLLM_CACHE_ROOT"].startswith(f"{tmp_path}/serl-") and alone["VLLM_CACHE_ROOT"].endswith(
        "/gpu-2-3/vllm"
    )
    assert (alone["TRITON_CACHE_DIR"], alone["OMP_NUM_THREADS"]) == ("/mine", "6")
    many = env(SLURM_JOB_GPUS="0", SLURM_JOB_NUM_NODES="2")
    assert "/job-" in many["VLLM_CACHE_ROOT"] and many["OMP_NUM_THREADS"] == "1"
    assert not Path(many["VLLM_CACHE_ROOT"]).parent.exists(), "a job's own caches go with it"
    assert Path(alone["VLLM_CACHE_ROOT"]).parent.is_dir(), "a GPU's caches stay"


@pytest.mark.parametrize(
    "script",
    [
        "lab",
        "lab.sacct",
        "lab.accounting",
        "python",
        "env.sh",
        "build_env.sbatch",
        "stage_data.sbatch",
    ],
)
def test_shell_scripts_parse(script):
    subprocess.run(["bash", "-n", str(ROOT / "slurm" / script)], check=True)
