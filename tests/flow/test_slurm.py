"""The chain on a real Slurm under every single accident, with quick stand-ins for the engines; `tests/bench/chaos.py` mixes them all."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime

import pytest
from lab import CLUSTER, ROOT, SCORE, STAND_IN, new_trial, nodes_of, preempt, running_lab, slurm, wait_until

from jobs.chain.cancel import cancel
from jobs.runs.queue import Journal
from serl.run.events import read_events

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def trial(lab, tmp_path):
    def new(**kwargs):
        made.append(new_trial(tmp_path / f"t{len(made)}", **{"config": {"rounds": 1}} | kwargs))
        return made[-1]

    made = []
    yield new
    for t in made:
        cancel(t.run)
    wait_until(lambda: not any(t.queue() for t in made), "the queue to be empty")


@pytest.fixture(scope="module")
def quiet(lab, tmp_path_factory):
    """Runs of one round that disturb no other, all at once: most of their time is Slurm's."""
    folder = tmp_path_factory.mktemp("quiet")
    trials = {
        "calm": new_trial(folder / "calm", config={"rounds": 1}),
        "limit": new_trial(
            folder / "limit", config={"rounds": 1}, cluster={"time_min": 1, "signal_s": 10}, setup=("export SERL_TEST_STEP_S=5",)
        ),
        "failing": new_trial(
            folder / "failing", config={"rounds": 2}, setup=(f"export SERL_TEST_FAIL=$(cat {folder}/failing/failing 2> /dev/null)",)
        ),
        "held": new_trial(folder / "held", config={"rounds": 1}, cluster={"max_attempts": 2}),
        "child": new_trial(folder / "child", config={"rounds": 1}),
        "blind": new_trial(folder / "blind", config={"rounds": 1}, cluster={"python": "/nowhere/python"}),
        "engines": new_trial(
            folder / "engines", config={"rounds": 1},
            cluster={"stages": CLUSTER.get("stages", {}) | {"respond": {"tasks_per_node": 2}}},
        ),
        "slow": new_trial(
            folder / "slow", config={"rounds": 1}, cluster={"stragglers": {"factor": 1.5, "min_done": 0.4}},
            setup=(f"export SERL_TEST_CALL_S=0.5 SERL_TEST_LOAD_S=0 SERL_TEST_SLOW={folder}/slow/slow",),
        ),
    }  # fmt: skip
    (folder / "failing/failing").write_text("yes")
    curate = trials["held"].run.root / "code/serl/stages/curate/run.py"
    curate.with_suffix(".whole").write_text(whole := curate.read_text())
    curate.write_text(
        whole.replace(
            "def run(work: Work) -> Manifest:",
            "def run(work: Work) -> Manifest:\n    import os; os.kill(os.getpid(), 9)",
        )
    )
    for t in trials.values():
        t.submit()
    train = next(s.id for s in Journal(trials["child"].run.root).submissions() if s.job == "r001-train")
    slurm("scontrol", "update", f"JobId={train}", "Dependency=")
    yield trials
    for t in trials.values():
        cancel(t.run)


@pytest.fixture(scope="module")
def calm(quiet):
    """The undisturbed run: the digests of its data, and its calls."""
    t = quiet["calm"]
    digests = t.finish()
    assert set(t.noted("end").values()) == set(t.noted("step").values()) == {1}
    return digests, t.noted("end")


def verb(name: str, t, *arguments: str) -> str:
    command = [
        sys.executable,
        "-m",
        f"jobs.{name}",
        t.run.root.name,
        "--cluster",
        str(t.cluster_file),
        "--data",
        str(t.run.data_root),
        *arguments,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def attempts_that(kind: str, t) -> set[str]:
    return {f"{e['stage']}/{e['shard']}" for e in read_events(t.run.root / "events") if e["kind"] == kind}


def test_a_child_that_starts_before_its_parent_is_done_waits_in_the_queue(quiet, calm):
    assert quiet["child"].finish() == calm[0]
    train = next(s.id for s in Journal(quiet["child"].run.root).submissions() if s.job == "r001-train")
    assert "Restarts=0" not in slurm("scontrol", "show", "job", train)


def test_several_engines_of_a_job_divide_the_parts_of_its_shard(quiet, calm):
    """The data are those of one engine, every call was made once, and both had a share in them."""
    t = quiet["engines"]
    assert (t.finish(), t.noted("end")) == calm
    told = [e for e in read_events(t.run.root / "events") if e["kind"] == "start" and e["stage"] == "respond"]
    assert told and {e["ranks"] for e in told} == {2}
    workers = {
        p.stem[-1] for p in (t.run.root / "events").glob("respond-*.jsonl") if " part " in p.read_text()
    }
    assert workers == {"0", "1"}


def test_a_job_without_progress_holds_itself_says_why_and_resume_replaces_it(quiet, calm):
    t = quiet["held"]
    wait_until(lambda: any(q.held for q in t.queue()), "the job to hold itself", t.explain)
    text = verb("status", t)
    assert "2 attempts without progress" in text and "will not start" in text
    curate = t.run.root / "code/serl/stages/curate/run.py"
    curate.with_suffix(".whole").rename(curate)
    said = verb("resume", t)
    assert "r001-propose" not in said and "r001-respond" in said, (
        "those that waited for the held job are renewed with it"
    )
    assert t.finish() == calm[0]


def test_a_permanent_failure_spreads_as_a_record_and_leaves_nothing_in_the_queue(quiet, calm):
    """The last rank fails, not the first; after the cause is mended, resume does the rest."""
    t = quiet["failing"]
    wait_until(lambda: not t.queue(), "the chain to stop", t.explain)
    said, text = json.loads(verb("status", t, "--json")), verb("status", t)
    assert any("the loss is not finite" in f for f in said["failures"]), said
    assert "gave up waiting" in text and "the loss is not finite" in text
    (t.run.data_root / "failing").unlink()
    assert "r001-train" in verb("resume", t)
    (train,) = t.run.shards(1, "train")
    wait_until(lambda: t.run.done(train) or not t.queue(), "the mended job", t.explain)
    assert [f.sha256 for f in t.run.manifest(train).files] == calm[0][str(train)]
    assert json.loads(verb("status", t, "--json"))["failures"] == []
    cancel(t.run)


def test_jobs_whose_python_is_not_there_say_so_in_every_verb(quiet):
    """Nothing of ours ever ran: Slurm's own log and the exit code are all there is."""
    t, why = quiet["blind"], "ended before its Python began: execve(): /nowhere/python"
    wait_until(lambda: not t.queue(), "the chain to end", t.explain)
    said = json.loads(verb("status", t, "--json"))
    assert said["state"] == "failed" and len(said["failures"]) == 6
    assert all(why in f and f.endswith("(exit code 2)") for f in said["failures"]), said
    assert f"{why}: No such file or directory (exit code 2) (5 more alike)" in verb("status", t)
    told = json.loads(verb("logs", t, "--json"))["attempts"]
    assert len(told) == 6 and all(why in a["how"] for a in told), told


def test_jobs_longer_than_their_time_limit_continue(quiet, calm):
    """Slurm looks at time limits every 30 s; a job leaves by itself before."""
    t = quiet["limit"]
    assert t.finish() == calm[0]
    assert "train/0" in attempts_that("stopped", t)
    assert t.noted("end") == calm[1] and set(t.noted("step").values()) == {1}


def test_preemption_in_every_phase_loses_no_finished_part(trial, calm):
    """A high-priority job takes the node while modules are imported, parts are generated, instructions are compared, and two nodes train."""
    t = trial(setup=("export SERL_TEST_CALL_S=0.6 SERL_TEST_STEP_S=0.6 SERL_TEST_IMPORT_S=1.5",))
    curate = t.run.root / "code/serl/stages/curate/run.py"
    slow = "import time; from serl.engines.generator import note; note('curate', 0); time.sleep(3)"
    curate.write_text(
        curate.read_text().replace(
            "def run(work: Work) -> Manifest:", f"def run(work: Work) -> Manifest:\n    {slow}"
        )
    )
    t.submit()
    job = t.wait_for("propose", "import")
    preempt(nodes_of(job)[0])
    job = t.wait_for("curate", "curate")
    preempt(nodes_of(job)[0])
    job = t.wait_for("respond", "start")
    preempt(nodes_of(job)[0])
    job = t.wait_for("train", "step")
    preempt(nodes_of(job)[-1])
    assert t.finish() == calm[0]
    assert t.noted("end") == calm[1], "every part was computed once"
    assert set(t.noted("step").values()) == {1}, "training lost no step"
    assert t.noted("curate").total() == 1, "it was done within the grace time, and is not done again"
    assert {name.partition("/")[0] for name in attempts_that("stopped", t)} == {"propose", "respond", "train"}


def test_kill_9_of_a_task_and_of_a_rank_and_requeue_from_outside_change_nothing(trial, calm):
    t = trial()
    t.submit()
    t.wait_for("propose", "start")
    t.tasks("propose")[0].kill()
    job = t.wait_for("respond", "start")
    slurm("scontrol", "requeue", job.id)
    t.wait_for("train", "step")
    ranks = t.tasks("train")
    assert len(ranks) == 2
    ranks[-1].kill()
    assert t.finish() == calm[0]
    assert json.loads(verb("status", t, "--json"))["failures"] == [], "what went on is not reported as failed"


def test_what_a_training_publishes_along_the_way_is_scored_while_it_goes_on_whoever_is_killed(trial):
    """And who waits for a milestone comes when it is there, not before, and not only after the training."""
    rollout = {"prompts": 2, "samples": 4, "turns": 12, "publish_every": 4}
    rollout["sampling"] = {"temperature": 1.0, "max_tokens": 60}
    config = {
        "rounds": 1, "stages": [*STAND_IN["stages"], "score"], "score": SCORE | {"shards": 1},
        "train": STAND_IN["train"] | {"rollout": rollout},
    }  # fmt: skip
    calm, killed = (trial(config=config, setup=("export SERL_TEST_STEP_S=4",)) for _ in range(2))
    for t in (calm, killed):
        t.submit()
    (first,) = killed.run.shards(1, "train@4")
    wait_until(lambda: killed.run.done(first), "the first milestone", killed.explain)
    killed.tasks("r001-train")[-1].kill()
    assert killed.finish() == calm.finish()
    assert set(killed.noted("end").values()) == {1}, "every part was computed once"
    for t in (calm, killed):
        made = {
            name: t.run.manifest(t.run.shards(1, name)[0])
            for name in ("train@4", "score@4", "train@8", "train")
        }
        assert made["train@4"].created < made["score@4"].created < made["train"].created
        begun = [
            e["time"]
            for e in read_events(t.run.root / "events")
            if e["kind"] == "start" and e["stage"] == "score@8"
        ]
        assert made["train@8"].created < begun[0]


def test_a_cancelled_job_stays_dead_until_resume_submits_exactly_what_is_missing(trial, calm):
    """A shell that requeues whatever left at a safe point would raise a cancelled job from the dead."""
    t = trial(
        setup=("export SERL_TEST_CALL_S=1 SERL_TEST_STEP_S=1",)
    )  # a verb takes its time on a busy machine
    t.submit()
    t.wait_for("respond", "start")
    assert "cancelled" in verb("cancel", t)
    said = verb("resume", t)  # at once: jobs on their way out are not taken for jobs at work
    assert "r001-propose" not in said and "r001-respond" in said and "r001-train" in said
    assert t.finish() == calm[0]
    t.submit()
    assert not t.queue(), "nothing is left to submit"


def test_a_crashed_node_and_one_whose_daemon_died_leave_one_manifest_each(trial, calm, lab):
    """A slurmd killed alone leaves its tasks alive: the requeued job and the orphan are both at work on the same shard."""
    t = trial()
    t.submit()
    node = nodes_of(t.wait_for("propose", "start"))[0]
    orphans = t.tasks("propose")
    for p in orphans + t.tasks("propose", program="srun"):
        p.suspend()  # cut off like the rest of the node, srun does not hear that its job is over
    lab("kill-node", node[1:])
    slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    wait_until(
        lambda: any(n > 1 for n in t.noted("start").values()), "a second attempt at the same part", t.explain
    )
    for p in orphans:
        p.resume()
    crashed = nodes_of(t.wait_for("train", "step"))[0]
    lab("crash-node", crashed[1:])
    assert t.finish() == calm[0]
    for number in (node[1:], crashed[1:]):
        lab("crash-node", number)  # what is left of it
        lab("start-node", number)
    manifests = list(t.run.root.glob("round_*/*/shard_*.json"))
    assert len(manifests) == len(calm[0])


def test_a_controller_that_restarts_while_a_job_leaves_costs_nothing(trial, calm, lab):
    t = trial(setup=("export SERL_TEST_CALL_S=0.6 SERL_TEST_STEP_S=1.5",))
    t.submit()
    job = t.wait_for("train", "step")
    # A controller killed before it has written down a start, which it does every five seconds, forgets it, and Slurm then holds the job.
    begun = datetime.fromisoformat(
        slurm("squeue", "--noheader", f"--jobs={job.id}", "--format=%S").strip()
    ).timestamp()
    written = lab.folder / "controller/job_state"
    wait_until(
        lambda: written.stat().st_mtime >= begun + 1 or time.time() > begun + 8,
        "the controller to write down the start",
    )
    os.kill(int((lab.folder / "run/slurmctld.pid").read_text()), signal.SIGKILL)
    for p in t.tasks("train"):
        p.send_signal(signal.SIGUSR2)
    wait_until(lambda: "train/0" in attempts_that("stopped", t), "the ranks to leave")
    time.sleep(3)
    lab("restart-controller")
    assert t.finish() == calm[0]
    assert set(t.noted("step").values()) == {1}


def test_a_launcher_killed_between_sbatch_and_its_record_doubles_and_loses_nothing(trial, monkeypatch):
    t = trial()

    class Killed(BaseException):
        pass

    def add(self, submission, written=Journal.add):
        if submission.id and submission.job == "r001-respond":
            raise Killed
        written(self, submission)

    monkeypatch.setattr(Journal, "add", add)
    with pytest.raises(Killed):
        t.submit()
    assert [q for q in t.queue() if q.token == Journal(t.run.root).submissions()[-1].token], (
        "cancel and status see it too"
    )
    monkeypatch.undo()
    t.submit()
    wait_until(lambda: not t.queue("COMPLETING"), "the lost job to go")
    tokens = {s.token: s.job for s in Journal(t.run.root).submissions()}
    at_work = sorted(tokens[q.token] for q in t.queue())
    assert (
        at_work.count("r001-respond") == 2
        and at_work.count("r001-train") == 1
        and at_work.count("r001-curate") <= 1
    )


def test_a_shard_far_beyond_its_siblings_is_done_by_whoever_is_faster(quiet, calm):
    """The first process to load its engine is ten times slower than all others; the slow one ends when the spare has published."""
    t = quiet["slow"]
    assert t.finish() == calm[0]
    (spare,) = [s for s in Journal(t.run.root).submissions() if s.spare]
    (note,) = (t.run.root / "spares").iterdir()
    assert spare.job == "r001-propose" and note.name == f"r001-propose-{spare.shards[0]:05d}.json"
    assert attempts_that("overtaken", t) == {f"propose/{spare.shards[0]}"}
    winner = t.run.manifest(t.run.shards(1, "propose")[spare.shards[0]])
    assert winner.attempt.startswith(f"{spare.id}-")
