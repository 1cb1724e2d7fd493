"""Submission to Slurm without one: texts, records, and the queue's words; `sbatch`, `squeue` and `scontrol` are small scripts on the PATH."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import submitit
from fake_slurm import install
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission, JobPaths, UncompletedJobError
from submitit.slurm.slurm import SlurmJobEnvironment, _make_sbatch_string

from jobs.chain.batch import PREVIEW, log_folder, sbatch_text
from jobs.chain.cancel import cancel, live
from jobs.chain.gate import Gate
from jobs.chain.slurm import sort_queue, submit_missing
from jobs.chain.task import Task
from jobs.chain.window import room_in_controller
from jobs.plan.chain import plan
from jobs.plan.cluster import Slurm
from jobs.runs.failures import failure, fruitless, record_failure, tries_path
from jobs.runs.queue import EXIT_REQUEUE, Journal, Queued, Submission, _parse_queue, at_work
from serl.run.attempt import Attempt
from serl.run.rundir import Run
from serl.run.signals import Stop
from tests.conftest import ROOT, run_config

GOLDEN = Path(__file__).with_name("sbatch.golden")
CLUSTER = {
    "kind": "slurm", "data": "/data", "partition": "gpu", "account": "lab", "python": "/env/bin/python", "gpus_per_node": 4, "signal_s": 180,
    "setup": ["module load cuda"], "extra": {"exclude": "n13"},
    "stages": {"train": {"nodes": 2, "tasks_per_node": 4, "time_min": 600}, "curate": {"partition": "cpu", "cpus_per_task": 16},
               "respond": {"tasks_per_node": 4}},
}  # fmt: skip
FAKES = {
    "sbatch": '#!/bin/bash\ncp "$1" $FAKE/script-$(ls $FAKE | wc -l)\necho "Submitted batch job $((100 + $(ls $FAKE | wc -l)))"\n',
    "squeue": "#!/bin/bash\n[ ! -e $FAKE/queue ] || cat $FAKE/queue\n",
    "scontrol": "#!/bin/bash\necho MaxArraySize = ${FAKE_ARRAY:-1001}\n",
    "scancel": '#!/bin/bash\necho "$@" >> $FAKE/cancelled\n',
    "srun": "#!/bin/bash\n",
}


@pytest.fixture
def cluster() -> Slurm:
    return Slurm.model_validate(CLUSTER, strict=False)


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Path:
    """A Slurm that accepts everything and runs nothing; its folder keeps each script that sbatch got."""
    return install(tmp_path, monkeypatch, FAKES)


def scripts(fake: Path) -> list[str]:
    return [p.read_text() for p in sorted(fake.glob("script-*"), key=lambda p: int(p.name.partition("-")[2]))]


def in_queue(fake: Path, run: Run, *lines: tuple[str, str, str, int]) -> None:
    """The queue: (id, job name, state, priority) of jobs that the run recorded."""
    tokens = {s.job: s.token for s in Journal(run.root).submissions()}
    rows = [
        f"{id}\t{state}\t{priority}\tn0\t" + json.dumps({"token": tokens[job]})
        for id, job, state, priority in lines
    ]
    (fake / "queue").write_text("".join(row + "\n" for row in rows))


def test_the_script_of_every_stage_is_the_golden_one(cluster, small_tree):
    config = run_config(small_tree | {"rounds": 1, "name": "small"})
    text = "".join(
        f"\n## {job.name}\n{sbatch_text(Path('/data/runs/small'), 'DIGEST', cluster, job)}\n"
        for job in plan(config, lambda s: False)
    )
    if os.environ.get("SERL_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_the_queue_is_told_by_priority_and_token_not_by_words():
    rows = [
        "12_3\tPENDING\t0\t(job requeued in held state)\t" + json.dumps({"run": "a", "token": "abc"}),
        "12_4\tRUNNING\t42\tn[0-1]\t" + json.dumps({"token": "abc"}),
        "7\tPENDING\t42\t(Dependency)\tsome\twords",
        "8\tPENDING\t42\t(Priority)\t(null)",
        '9\tPENDING\t42\t(Priority)\t["token"]',
        "of two lines\t1",
    ]
    held, running, *others = _parse_queue(rows)
    assert (held.id, held.position, held.held, held.token) == ("12_3", 3, True, "abc")
    assert (running.state, running.held, running.where) == ("RUNNING", False, "n[0-1]")
    assert [(q.token, q.position, q.held) for q in others] == [("", 0, False)] * 3


def test_a_journal_survives_torn_lines_and_keeps_the_latest_word(tmp_path):
    journal = Journal(tmp_path)
    assert not journal and journal.submissions() == []
    intent = Submission(token="a", job="r001-propose", shards=(0, 1))
    journal.add(intent)
    with open(tmp_path / "slurm.jsonl", "ab") as f:
        f.write(b'{"token": "a", "job": "r001-pro')
    journal.add(Submission(token="b", job="r001-curate", shards=(0,), id="8"))
    assert [(s.token, s.id) for s in journal.submissions()] == [("a", None), ("b", "8")]
    journal.add(Submission(token="a", job="r001-propose", shards=(0, 1), id="7"))
    assert [(s.token, s.id) for s in journal.submissions()] == [("a", "7"), ("b", "8")]


def queued(id: str, token: str, *, held: bool = False) -> Queued:
    return Queued(id=id, state="PENDING" if held else "RUNNING", held=held, where="", token=token)


def test_what_waits_for_a_renewed_job_is_renewed_with_it(run):
    """Once the held job is cancelled, Slurm would start its children at once."""
    jobs = plan(run.config, lambda s: s.round == 1 and s.stage == "propose")
    submissions = [
        Submission(token=job.name, job=job.name, shards=tuple(s.index for s in job.missing), id=str(n))
        for n, job in enumerate(jobs, 1)
        if job.missing
    ]
    everything = [queued(f"{s.id}_{i}", s.token) for s in submissions for i in range(len(s.shards))]
    kept, useless = sort_queue(jobs, submissions, everything)
    assert useless == [] and sum(map(len, kept.values())) == len(everything) == len(
        at_work(submissions, everything)
    )

    held = [queued(q.id, q.token, held=q.token == "r001-train") for q in everything]
    kept, useless = sort_queue(jobs, submissions, held)
    assert len(kept["r001-respond"]) == 3 and kept["r001-train"] == {}
    assert set(useless) == {q.id for q in everything if q.token == "r001-train" or q.token.startswith("r002")}

    done = [queued(q.id, q.token, held=q.token == "r001-curate") for q in everything]
    later = plan(run.config, lambda s: s.round == 1 and s.stage in ("propose", "curate"))
    kept, useless = sort_queue(later, submissions, done, replace_held=False)
    assert useless == [q.id for q in done if q.held], (
        "a controller that forgot it may hold a job that has done its shard, and all behind it"
    )

    crashed = [
        s if s.job != "r002-respond" else Submission(token=s.token, job=s.job, shards=s.shards)
        for s in submissions
    ]
    kept, useless = sort_queue(jobs, crashed, everything)
    assert set(useless) == {q.id for q in everything if q.token in ("r002-respond", "r002-train")}, (
        "an unrecorded job may have no pickle to run"
    )


def test_resume_submits_what_left_the_queue_and_cancels_nothing_else(run, cluster, fake):
    first = submit_missing(run, cluster)
    assert [s.job for s in first] == [job.name for job in plan(run.config, run.done)]
    in_queue(
        fake,
        run,
        ("103_0", "r001-respond", "RUNNING", 9),
        ("103_2", "r001-respond", "PENDING", 9),
        ("1", "r001-propose", "PENDING", 9),
    )
    again = submit_missing(run, cluster)
    assert [(s.job, s.shards) for s in again[:3]] == [
        ("r001-propose", (1,)),
        ("r001-curate", (0,)),
        ("r001-respond", (0, 1, 2)),
    ]
    assert (fake / "cancelled").read_text().split() == ["103_0", "103_2"], (
        "they waited for a job that is renewed"
    )


def test_cancel_ends_only_jobs_with_a_token_of_the_run(run, cluster, fake):
    """An id that a forgetful controller gave out again is somebody else's."""
    submit_missing(run, cluster)
    in_queue(fake, run, ("103_0", "r001-respond", "RUNNING", 9), ("103_1", "r001-respond", "PENDING", 9))
    with open(fake / "queue", "a") as f:
        f.write("101\tRUNNING\t9\tn0\t(null)\n")
    assert len(live(run)) == 2 and cancel(run) == 2
    assert (fake / "cancelled").read_text().split() == ["103"]


def test_arrays_are_split_at_the_clusters_limit(run, cluster, fake, monkeypatch):
    monkeypatch.setenv("FAKE_ARRAY", "2")
    assert room_in_controller().array == 2
    new = submit_missing(run, cluster)
    assert [s.shards for s in new if s.job == "r001-respond"] == [(0, 1), (2,)]
    train = next(text for text in scripts(fake) if "r001-train" in text.split("job-name=")[1].split()[0])
    ids = [s.id for s in new if s.job == "r001-respond"]
    assert f"--dependency=afterany:{':'.join(sorted(ids))}" in train


def test_a_thousand_shards_and_ten_rounds_take_one_sbatch_for_each_stage(
    tmp_path, small_tree, cluster, fake, capsys
):
    small_tree["rounds"] = 10
    small_tree["propose"] |= {"shards": 500, "prompts": 4000}
    small_tree["respond"]["shards"] = 500
    small_tree["curate"]["max_instructions"] = 4000
    run = Run.create(tmp_path / "runs" / "large", run_config(small_tree), "test")
    start, begun = time.perf_counter(), time.process_time()
    jobs = plan(run.config, run.done)
    planned_s = time.process_time() - begun  # of this process: others are none of the plan's business
    assert sum(len(job.missing) for job in jobs) == 10_020 and planned_s < 2
    new = submit_missing(run, cluster)
    with capsys.disabled():
        print(
            f"\n10,020 shards planned in {planned_s:.2f} s, submitted with {len(new)} sbatch calls in {time.perf_counter() - start:.1f} s"
        )
    assert len(scripts(fake)) == len(new) == len(jobs) == 40


# ------------------------------------------------------------------------------- where plain submitit does the wrong thing, and this does not


@pytest.fixture
def on_node(run, tmp_path, monkeypatch, fake):
    """A job of the run's first shard, which is done already: what a task looks like on a node."""
    shard = run.shards(1, "propose")[0]
    Attempt(run, shard, id="0", inputs={}).publish_bytes(".jsonl", b"", 0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "job"
    folder.mkdir()
    return folder, Task(
        root=str(run.root),
        shard=shard,
        submission=0,
        device="cpu",
        cores=1,
        folder=str(folder),
        launcher=None,
        gate=Gate(stages=()),
    )


def submitted(folder: Path, function) -> JobPaths:
    delayed = DelayedSubmission(function)
    delayed.set_timeout(5, 3)
    paths = JobPaths(folder, "7", 0)
    delayed.dump(paths.submitted_pickle)
    return paths


def start(folder: Path) -> int:
    return subprocess.run(
        [sys.executable, "-m", "submitit.core._submit", str(folder)],
        cwd=folder,
        capture_output=True,
        timeout=60,
        check=False,
    ).returncode


def test_a_result_torn_by_a_kill_does_not_fail_the_next_attempt(on_node):
    folder, task = on_node
    for function, expected in ((os.getcwd, 1), (task, 0)):
        torn = submitted(folder, function).result_pickle.with_suffix(".pkl.save_tmp")
        torn.write_bytes(b"half")
        assert start(folder) == expected
        torn.unlink(missing_ok=True)


def test_a_signal_before_ours_is_in_place_asks_for_a_requeue_and_touches_no_pickle(on_node):
    """Under a limit of ten minutes submitit takes every preemption for a timeout; and its checkpoints fail for ever after one that was torn."""
    folder, task = on_node
    for function, expected in ((os.getcwd, UncompletedJobError), (task, SystemExit)):
        paths = submitted(folder, function)
        before = paths.submitted_pickle.read_bytes()
        with pytest.raises(expected) as raised:
            SignalHandler(
                SlurmJobEnvironment(), paths, DelayedSubmission.load(paths.submitted_pickle)
            ).checkpoint_and_try_requeue(12)
        assert paths.submitted_pickle.read_bytes() == before
    assert raised.value.code == EXIT_REQUEUE


def test_the_script_asks_for_requeue_which_submitit_leaves_out(cluster, run):
    job = plan(run.config, run.done)[0]
    assert "--requeue" not in _make_sbatch_string(command="x", folder="/f")
    assert "#SBATCH --requeue\n" in sbatch_text(run.root, "d", cluster, job)


@pytest.mark.parametrize(
    ("code", "where", "expected"),
    [
        (0, "n0@RUNNING", ""),
        (1, "n0@RUNNING", ""),
        (EXIT_REQUEUE, "n0@RUNNING", "requeue 7_3"),
        (137, "n0@RUNNING", "requeue 7_3"),
        (
            140,
            "n0@SIGNALING",
            "requeue 7_3",
        ),  # while Slurm is still handing out the warning that made it leave
        (EXIT_REQUEUE, "n0@COMPLETING", ""),  # scancel, or requeued by Slurm itself
        (EXIT_REQUEUE, "n/a@PENDING", ""),
        (137, "n1@RUNNING", ""),  # an orphan: the job is at work elsewhere
    ],
)
def test_the_script_requeues_a_job_only_while_it_is_its_own(run, cluster, tmp_path, code, where, expected):
    """Whatever a site's lines tell the shell to do about errors, and whatever an earlier attempt, since released by hand, had wished for."""
    job = plan(run.config, run.done)[0]
    (tmp_path / "script").write_text(
        sbatch_text(run.root, "d", cluster.model_copy(update={"setup": ("set -euo pipefail",)}), job)
    )
    old = log_folder(run.root, job, PREVIEW) / "wish-7_3"
    old.parent.mkdir(parents=True)
    old.write_text("requeuehold")
    for name, body in (
        ("srun", f"exit {code}"),
        ("squeue", f'case "$*" in *%e*) echo N/A ;; *) echo {where} ;; esac'),
        ("scontrol", f'echo "$@" >> {tmp_path}/asked'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    ours = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "9",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "3",
        "SLURMD_NODENAME": "n0",
    }
    assert subprocess.run(["bash", tmp_path / "script"], env=ours, timeout=20, check=False).returncode == code
    asked = tmp_path / "asked"
    assert (asked.read_text().strip() if asked.exists() else "") == expected


def test_an_error_left_by_another_rank_or_attempt_does_not_undo_a_manifest(on_node, run):
    folder, task = on_node
    paths = submitted(folder, task)
    paths.result_pickle.write_bytes(pickle.dumps(("error", "connection closed by peer")))
    with pytest.raises(submitit.core.utils.FailedJobError):
        submitit.SlurmJob(folder=folder, job_id="7").result()
    assert task.shard not in plan(run.config, run.done)[0].missing
    assert start(folder) == 0


def test_what_outlasts_the_time_limit_asks_for_a_requeue_before_slurm_kills_it():
    program = (
        "import threading, time; from jobs.chain import task; from serl.run.signals import Stop;"
        "threading.Thread(target=task._leave_in_time, args=(Stop(end=time.time() + task.LAST_MOMENT_S + 0.2),), daemon=True).start(); time.sleep(60)"
    )
    begun = time.monotonic()
    assert (
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False).returncode
        == EXIT_REQUEUE
    )
    assert time.monotonic() - begun < 30


# ------------------------------------------------------------------------------------------------------------------------ what a task decides


def test_attempts_count_as_fruitless_until_one_leaves_something(run):
    shard = run.shards(1, "respond")[1]
    assert [fruitless(run, shard) for _ in range(3)] == [1, 2, 3]
    Attempt(run, shard, id="1", inputs={}).commit(0, b"part")
    assert [fruitless(run, shard) for _ in range(2)] == [1, 2]
    tries_path(run, shard).unlink()
    assert fruitless(run, shard) == 1


def test_what_an_attempt_leaves_that_dies_in_a_save_or_an_export_is_no_progress(run):
    """It is named after the attempt: a training that runs out of memory there would be tried for ever, at a new name each time."""
    (shard,) = run.shards(1, "train")
    tries = []
    for number in range(3):
        tries.append(fruitless(run, shard))
        for name in (
            f"policy.7-{number}/config.json",
            f"checkpoints.k/.step_000004.{number}.partial/rank_00000.safetensors",
        ):
            path = tries_path(run, shard).parent / name
            path.parent.mkdir(parents=True)
            path.write_text("{}")
    assert tries == [1, 2, 3]
    (path.parent.parent / "step_000004").mkdir()
    assert fruitless(run, shard) == 1


def test_the_first_failure_of_an_attempt_is_the_cause(run):
    shard = run.shards(1, "train")[0]
    record_failure(run, shard, "7-0", "ValueError: the cause", "")
    record_failure(run, shard, "7-0", "RuntimeError: connection closed by peer", "")
    assert (failure(run, shard)["reason"], failure(run, shard)["times"]) == ("ValueError: the cause", 1)
    record_failure(run, shard, "7-1", "OSError: another day", "")
    assert (failure(run, shard)["reason"], failure(run, shard)["times"]) == ("OSError: another day", 2)
    record_failure(run, shard, "8-0", "OSError: another job", "")
    assert failure(run, shard)["times"] == 1


def test_a_gate_waits_while_somebody_in_the_queue_brings_what_is_missing(run, cluster, fake, monkeypatch):
    submit_missing(run, cluster)
    gate = Gate(stages=((1, "respond"),))
    in_queue(
        fake,
        run,
        ("103_0", "r001-respond", "RUNNING", 9),
        ("103_1", "r001-respond", "PENDING", 0),
        ("103_2", "r001-respond", "COMPLETING", 9),
    )
    assert [s.index for s in gate.lost(run)] == [1], "a held job brings nothing"
    Attempt(run, run.shards(1, "respond")[1], id="x", inputs={}).publish_bytes(".parquet", b"", 0)
    assert gate.lost(run) == [] and len(gate.missing(run)) == 2
    monkeypatch.setenv("PATH", "/nowhere")
    assert gate.lost(run) == [], "without an answer from Slurm it waits"


def test_the_deadline_leaves_room_for_the_next_piece_of_work():
    stop = Stop(end=time.time() + 30)
    assert not stop.due(10) and stop.due(25)
    assert not Stop().due(1e9)


def test_shards_of_a_submission_are_told_by_their_place_in_the_array():
    s = Submission(token="t", job="r001-respond", shards=(4, 7), id="5")
    assert at_work([s], [queued("5_1", "t")]).keys() == {("r001-respond", 7)}
    assert at_work(
        [Submission(token="t", job="r001-train", shards=(0,), id="5")], [queued("5", "t")]
    ).keys() == {("r001-train", 0)}
