"""What a job's shell and its first moments do: signals held, caches on the node, a folder of its own, and nothing passed on to other jobs."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.chain.batch import PREVIEW, by_the_script, sbatch_text
from jobs.chain.gate import node
from jobs.chain.slurm import submit_missing
from jobs.chain.spares import late
from jobs.chain.window import Relay
from jobs.plan.chain import plan
from jobs.plan.cluster import Stragglers
from jobs.runs import queue, state
from jobs.runs.code import freeze_code
from jobs.runs.queue import Journal, Queued, SlurmError, Submission, ask_slurm, at_work
from serl.run.attempt import Attempt
from serl.run.rundir import Run
from tests.conftest import ROOT
from tests.unit.test_submission import cluster, fake, scripts  # noqa: F401  (fixtures)

LOCAL = (
    "VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "FLASHINFER_WORKSPACE_BASE", "DG_JIT_CACHE_DIR",
    "TILELANG_CACHE_DIR", "CUDA_CACHE_PATH", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "PYTORCH_KERNEL_CACHE_PATH", "XDG_CACHE_HOME", "SERL_WEIGHTS",
)  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_in_the_first_moments_of_a_task_is_held_and_not_lost(number, tmp_path):
    """Between python's first line and `Stop.listen` half a second of imports goes by; python would die of the signal there."""
    program = (
        "import os, sys, time; import jobs.chain.start; os.kill(os.getpid(), int(sys.argv[1])); time.sleep(0.2)\n"
        "import submitit; from jobs.chain.task import Task; from serl.run.signals import Stop\n"
        "stop = Stop(); assert not stop.requested; stop.listen(); print(stop.requested)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(int(number))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_signals_are_held_before_anything_that_takes_time_is_imported():
    heavy = "import sys, jobs.chain.start; print([m for m in ('submitit', 'numpy', 'serl', 'pydantic', 'asyncio') if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


def test_every_cache_of_compiled_code_is_on_the_node_wherever_home_is(tmp_path):
    node, home = tmp_path / "node", tmp_path / "lustre/home"
    given = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SERL_LOCAL": str(node),
        "SLURM_TMPDIR": str(node),
        "XDG_CACHE_HOME": str(home / ".cache"),
    }
    text = subprocess.run(
        ["bash", "-euc", f"source {ROOT}/slurm/env.sh; env"],
        env=given,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    assert {k: found[k] for k in LOCAL if not found[k].startswith(f"{node}/serl-")} == {} and found[
        "TMPDIR"
    ] == str(node)
    assert found["HF_HOME"] == str(home / ".cache/huggingface"), "models that lie there are still found"


def test_jobs_start_in_the_code_that_was_frozen_wherever_the_launcher_was(
    run, cluster, fake, monkeypatch, tmp_path
):  # noqa: F811
    """`source slurm/env.sh` used to mean the launcher's folder, and failed in any other, or once the clone had gone."""
    freeze_code(run.root / "code")
    monkeypatch.chdir(tmp_path)
    submit_missing(run, cluster.model_copy(update={"setup": ("source slurm/env.sh",)}))
    folder = {
        line.partition("=")[2]
        for text in scripts(fake)
        for line in text.splitlines()
        if line.startswith("#SBATCH --chdir")
    }
    assert folder == {str(run.root / "code")}
    subprocess.run(
        ["bash", "-euc", "source slurm/env.sh"],
        cwd=run.root / "code",
        env={"PATH": os.environ["PATH"], "SERL_LOCAL": str(tmp_path)},
        check=True,
    )


def test_what_a_job_submits_inherits_the_launchers_environment_and_not_the_jobs(tmp_path):
    """A cache folder that ends with this job, its number of tasks, and its memory are none of the next one's business."""
    shell = subprocess.Popen(
        ["sleep", "60"],
        env={
            "SLURM_JOB_ID": "7",
            "SLURM_CONF": "/etc/lab.conf",
            "MINE": "1",
            "SLURM_MEM_PER_NODE": "5",
            "PATH": "/bin",
        },
    )
    before = dict(os.environ)
    try:
        os.environ |= {
            "SLURM_JOB_ID": "7",
            "SLURM_CONF": "/etc/lab.conf",
            "SERL_SHELL": str(shell.pid),
            "VLLM_CACHE_ROOT": "/tmp/job-7",
        }
        deadline = time.monotonic() + 10
        while b"sleep" not in Path(f"/proc/{shell.pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline
        with by_the_script():
            assert dict(os.environ) == {"SLURM_CONF": "/etc/lab.conf", "MINE": "1", "PATH": "/bin"}
        assert os.environ["VLLM_CACHE_ROOT"] == "/tmp/job-7"
        os.environ["SERL_SHELL"] = "0"
        with by_the_script():
            assert "SLURM_JOB_ID" not in os.environ and os.environ["SLURM_CONF"] == "/etc/lab.conf", (
                "elsewhere than on the script's node"
            )
    finally:
        shell.kill()
        shell.wait()
        os.environ.clear()
        os.environ.update(before)
    os.environ |= {"SBATCH_PARTITION": "gpu", "SBATCH_NO_REQUEUE": "1"}
    with by_the_script():
        assert dict(os.environ) == before, "at the login node, only what would go over the script's own lines"
    assert os.environ.pop("SBATCH_PARTITION") and os.environ.pop("SBATCH_NO_REQUEUE")


def test_what_a_dry_run_prints_is_what_sbatch_gets(run, cluster, fake):  # noqa: F811
    """But for what the submission makes up: its token, and the ids that it waits for."""
    names, jobs = {}, {job.name: job for job in plan(run.config, run.done)}
    for submission, script in zip(submit_missing(run, cluster), scripts(fake), strict=True):
        job = jobs[submission.job]
        after = ":".join(sorted(id for id, name in names.items() if name in job.after))
        shown = sbatch_text(run.root, run.digest, cluster, job).replace(PREVIEW, submission.token)
        assert script.strip() == shown.replace("afterany:" + ":".join(job.after), f"afterany:{after}").strip()
        names[submission.id] = job.name


def test_gpus_are_asked_for_once_and_in_the_sites_own_words_where_it_has_some(run, cluster):  # noqa: F811
    """Slurm refuses --gres=gpu:h100:4 beside --gpus-per-node=4."""
    (job, *_) = plan(run.config, run.done)
    for extra, lines in (
        ({}, ["gpus-per-node=4"]),
        ({"gres": "gpu:h100:4"}, ["gres=gpu:h100:4"]),
        ({"gpus-per-node": "h100:4", "get_user_env": False}, ["gpus-per-node=h100:4"]),
        ({"gres": "scratch:100"}, ["gpus-per-node=4", "gres=scratch:100"]),
    ):
        text = sbatch_text(run.root, "d", cluster.model_copy(update={"extra": extra}), job)
        assert [line[10:] for line in text.splitlines() if line.startswith(("#SBATCH --g",))] == lines


@pytest.mark.parametrize(
    ("extra", "lines"),
    [
        ({}, ["#SBATCH --mem=64GB"]),
        ({"mem_per_cpu": "500M"}, ["#SBATCH --mem-per-cpu=500M"]),
        ({"mem-per-gpu": "60G"}, ["#SBATCH --mem-per-gpu=60G"]),
        ({"mem": 0}, ["#SBATCH --mem=0"]),
        ({"mem": False}, []),
    ],
)
def test_memory_is_asked_for_once_and_in_the_sites_own_words_where_it_has_some(run, cluster, extra, lines):  # noqa: F811
    """Slurm refuses two at once: "--mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive"."""
    told = cluster.model_copy(update={"extra": extra, "mem_gb": 64})
    job = plan(run.config, run.done)[0]
    text = sbatch_text(run.root, "d", told, job)
    assert [line for line in text.splitlines() if line.startswith("#SBATCH --mem")] == lines
    without = told.model_copy(update={"mem_gb": None})
    text = sbatch_text(run.root, "d", without, job) + Relay(
        folder=run.root, name="n", cluster=without, code=run.root / "code", arguments=()
    ).text("t", None)
    asked = {line for line in text.splitlines() if line.startswith("#SBATCH --mem")}
    assert asked == (set(lines) if extra else set())


def test_a_colon_in_the_data_root_does_not_make_two_paths_of_the_codes(run, cluster):  # noqa: F811
    """Jobs said "No module named 'jobs'"; they start in the folder of the code, which "." is for Python."""
    job = plan(run.config, run.done)[0]
    for name, path in (("as:is", "."), ("plain", str(run.root / "plain/code"))):
        text = sbatch_text(run.root / name, "d", cluster, job)
        assert f"export PYTHONPATH={path} PYTHONSAFEPATH=1" in text
        assert f"#SBATCH --chdir={shlex.quote(str(run.root / name / 'code'))}" in text


def test_a_step_gets_what_the_script_has_set_whatever_the_users_environment_says(run, cluster):  # noqa: F811
    """`SLURM_EXPORT_ENV=NONE`, or `--export=NONE`, would leave it without the code's place."""
    text = sbatch_text(run.root, "d", cluster, plan(run.config, run.done)[0])
    (step,) = [line for line in text.splitlines() if line.startswith("srun ")]
    assert " --export=ALL " in step


def test_a_data_root_that_slurm_would_read_otherwise_is_refused(run, cluster):  # noqa: F811
    for name in ("100%", "a\\b"):
        with pytest.raises(SlurmError, match="choose a data root without"):
            sbatch_text(run.root / name, "d", cluster, plan(run.config, run.done)[0])


def test_slurm_is_asked_the_same_whatever_its_user_likes_to_see(fake, monkeypatch):  # noqa: F811
    """With SQUEUE_STATES=all, jobs that have ended would be taken for jobs at work, and never be submitted again."""
    monkeypatch.setenv("SQUEUE_STATES", "all")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    (fake / "queue").write_text("")
    assert not {"SQUEUE_STATES", "SLURM_TIME_FORMAT"} & set(ask_slurm(["env"]).replace("=", "\n").split())


def test_a_refusal_for_want_of_nodes_tells_of_those_left_out_after_hangs(run, cluster, fake, monkeypatch):  # noqa: F811
    monkeypatch.setenv(
        "SLURMD_NODENAME", "n7"
    )  # a machine may call itself n7.cluster.org, which Slurm does not know
    for attempt in ("7-0", "7-1"):
        (run.root / "suspects").mkdir(exist_ok=True)
        (run.root / "suspects" / f"{attempt}.json").write_text(json.dumps({"hosts": [node()]}))
    (fake.parent / "bin/sbatch").write_text(
        '#!/bin/bash\n[ "$1" != --parsable ] || { echo 99; exit; }; grep exclude "$1" >&2; exit 1\n'
    )
    with pytest.raises(
        SlurmError, match=r"(?s)--exclude=n13,n7.*without n7, where it hung; remove .*suspects"
    ):
        submit_missing(run, cluster)


def test_status_asks_slurm_once_for_one_run_and_once_for_all(run, cluster, fake, small_tree, monkeypatch):  # noqa: F811
    runs = [run, *(Run.create(run.root.with_name(f"other{i}"), run.config, "test") for i in range(3))]
    for r in runs[:3]:
        submit_missing(r, cluster)
    asked: list[list[str]] = []
    monkeypatch.setattr(
        queue.subprocess,
        "run",
        lambda command, real=subprocess.run, **kwargs: asked.append(command) or real(command, **kwargs),
    )
    for some in (runs[:1], runs):
        asked.clear()
        state.Looks()(some)
        assert [command[0] for command in asked] == ["squeue"], asked
    asked.clear()
    state.Looks()(runs[3:])
    assert asked == [], "a run that was never submitted is not asked for"


def test_stragglers_are_what_is_beyond_the_median_of_enough_siblings():
    rule = Stragglers(factor=3.0, min_done=0.5)
    assert late(rule, 40, [100.0] * 19, {30: 999.0}) == {}, "too few are done to tell"
    assert late(rule, 40, [100.0] * 20, {30: 301.0, 31: 299.0}) == {30: 0.0}
    assert late(rule, 40, [100.0] * 38, {30: 120.0, 31: 280.0}) == {30: 180.0, 31: 20.0}, (
        "nobody may come by again: for when they are late"
    )
    assert late(rule, 2, [100.0], {1: 100.0}) == {1: 200.0}
    assert late(rule, 4, [], {}) == {} and late(Stragglers(min_done=0.0), 4, [], {1: 5.0}) == {}


def test_elapsed_times_are_read_as_slurm_writes_them():
    assert [
        queue.seconds(t) for t in ("0:05", "12:00", "1:00:01", "2-03:04:05", "3-00:00:00", "INVALID", "")
    ] == [5, 720, 3601, 183845, 259200, 0, 0]


def test_a_spare_counts_as_the_shards_job_only_where_the_first_is_gone(tmp_path):
    first, spare = (
        Submission(token="a", job="r001-respond", shards=(0, 1), id="5", array=True),
        Submission(token="b", job="r001-respond", shards=(1,), id="9", spare=True),
    )
    in_queue = [
        Queued(id=i, state="RUNNING", held=False, where="", token=t)
        for i, t in (("5_0", "a"), ("5_1", "a"), ("9", "b"))
    ]
    assert {k: q.id for k, q in at_work([first, spare], in_queue).items()} == {
        ("r001-respond", 0): "5_0",
        ("r001-respond", 1): "5_1",
    }
    assert at_work([first, spare], in_queue[2:])["r001-respond", 1].id == "9"
    journal = Journal(tmp_path)
    journal.add(spare)
    (tmp_path / "slurm.jsonl").open("a").write(
        json.dumps({"token": "old", "job": "r001-train", "shards": [0], "id": "1"}) + "\n"
    )
    assert journal.submissions()[0] == spare and not journal.submissions()[1].spare, (
        "lines of before there were spares"
    )


def test_a_survey_knows_what_is_done_and_opens_nothing_that_is_not_there(run, monkeypatch):
    """Ten thousand shards that are not done used to cost a launch as many failing opens, several times over."""
    everything = [s for job in plan(run.config, lambda shard: False) for s in job.missing]
    for shard in everything[:3]:
        Attempt(run, shard, id="1", inputs={}).publish_bytes(".jsonl", b"", 0)
    opened = []
    monkeypatch.setattr(
        Path, "read_bytes", lambda path, real=Path.read_bytes: opened.append(path.name) or real(path)
    )
    done = run.survey()
    assert [done(s) for s in everything] == [True] * 3 + [False] * (len(everything) - 3)
    assert opened == [f"{s.name}.json" for s in everything[:3]]
