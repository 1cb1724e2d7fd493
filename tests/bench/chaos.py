"""Chaos: a whole chain of two rounds on a real Slurm (`slurm/lab`), under random accidents, against the same run undisturbed.

`python tests/bench/chaos.py [--events 24] [--seed 0] [--folder DIR] [--window 6]` starts its own lab and prints what happened: events, how many
preempted jobs left at a safe point, seconds of work that had to be done again, and whether the data is the same, byte for byte. Training takes
longer than its time limit; with `--window` Slurm takes only so many jobs at once (a full lab, with accounting), and a relay submits the rest.
The engines are quick stand-ins (tests/flow/stand_in); stages, scheduling, Slurm and signals are real.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/flow")]

from deterministic import CONFIG as DETERMINISTIC
from lab import SCORE, Lab, Trial, new_trial, nodes_of, preempt, slurm, start_lab, wait_until

from jobs.chain.window import RELAY
from jobs.runs.queue import Journal, Queued
from serl.run.events import read_events

PAUSE_S = (0.5, 4.0)
PART_S, STEP_S = 0.8, 5.5
SETUP = (
    f"export SERL_TEST_CALL_S={PART_S} SERL_TEST_STEP_S={STEP_S} SERL_TEST_LOAD_S=0.5 SERL_TEST_IMPORT_S=0.5",
)
CONFIG = {"rounds": 2, "stages": [*DETERMINISTIC["stages"], "score"], "score": SCORE}
LIMITED = {
    "stages": {"train": {"nodes": 2, "time_min": 1}},
    "signal_s": 10,
}  # twelve steps take longer than that


@dataclass
class Chaos:
    """Accidents that happen to a trial; each returns whether there was something to happen to."""

    trial: Trial
    lab: Lab
    rng: random.Random
    others: tuple[str, ...]  # how those who take nodes away are charged: a window is ours alone
    seen: Counter[str] = field(default_factory=Counter)
    warned: set[Path] = field(
        default_factory=set
    )  # event files of attempts at work on a node that was taken away
    struck: set[Path] = field(
        default_factory=set
    )  # those of them that had not left yet when the next accident came

    def victim(self) -> Queued | None:
        running = self.trial.queue("RUNNING")
        return self.rng.choice(running) if running else None

    def preempted(self) -> bool:
        """A job that is at work: one that is still starting has nothing to save."""
        wait_until(
            lambda: bool(self._at_work()) or not self.trial.queue("RUNNING"),
            "an attempt to start",
            self.trial.explain,
        )
        if not (found := self._at_work()):
            return False
        node = self.rng.choice(nodes_of(self.rng.choice(list(found))))
        self.warned |= {e for job, events in found.items() if node in nodes_of(job) for e in events}
        preempt(node, *self.others)
        return True

    def _at_work(self) -> dict[Queued, set[Path]]:
        return {job: events for job in self.trial.queue("RUNNING") if (events := self._events(job))}

    def _events(self, job: Queued) -> set[Path]:
        """Of its attempt, while that has not left."""
        return {
            e
            for e in (self.trial.run.root / "events").glob(f"*-{job.id}-{_restarts(job.id)}-0.jsonl")
            if not ended(e)
        }

    def requeued(self) -> bool:
        return (job := self.victim()) is not None and _tried("scontrol", "requeue", job.id)

    def cancelled_and_resumed(self) -> bool:
        job = self.victim()
        if job is None:
            return False
        slurm("scancel", job.id)
        return self.resumed()

    def _resume(self) -> list[str]:
        place = ["--cluster", str(self.trial.cluster_file), "--data", str(self.trial.run.data_root)]
        return [sys.executable, "-m", "jobs.resume", self.trial.run.root.name, *place]

    def resumed(self) -> bool:
        self.launcher = subprocess.Popen(
            self._resume(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        _, error = self.launcher.communicate(timeout=180)
        assert self.launcher.returncode == 0, error
        return True

    def launcher_killed_and_resumed(self) -> bool:
        """Something is cancelled so that there is something to submit; the launcher dies somewhere in doing so; another finishes."""
        if (job := self.victim()) is None:
            return False
        slurm("scancel", job.id)
        launcher = subprocess.Popen(
            self._resume(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = self._journal()
        wait_until(lambda: launcher.poll() is not None or self._journal() > before, "the launcher to submit")
        time.sleep(self.rng.uniform(0, 0.3))
        launcher.kill()
        launcher.wait()
        return self.resumed()

    def _journal(self) -> int:
        return (self.trial.run.root / "slurm.jsonl").stat().st_size

    def rank_killed(self) -> bool:
        wait_until(
            lambda: bool(self.trial.tasks()) or not self.trial.queue("RUNNING"),
            "a task to start",
            self.trial.explain,
        )
        if not (tasks := self.trial.tasks()):
            return False
        os.kill(self.rng.choice(tasks).pid, signal.SIGKILL)
        return True

    def node_crashed(self) -> bool:
        if (job := self.victim()) is None:
            return False
        number = self.rng.choice(nodes_of(job))[1:]
        self.lab("crash-node", number)
        time.sleep(1)
        self.lab("start-node", number)
        return True

    def daemon_killed(self) -> bool:
        """The node's tasks live on as orphans while their job runs again elsewhere."""
        if (job := self.victim()) is None:
            return False
        node = self.rng.choice(nodes_of(job))
        self.lab("kill-node", node[1:])
        slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=chaos")
        self.lab("start-node", node[1:])
        return True

    def controller_restarted(self) -> bool:
        self.lab("restart-controller")
        return True

    def stuck(self) -> bool:
        """Nothing goes on by itself: a controller killed within seconds of a start forgets the job, drains its node and holds the job."""
        queue = self.trial.queue()
        return any(q.held for q in queue) or (not queue and not self.trial.done())

    def rescue(self) -> None:
        """What a person does then."""
        for node in slurm("sinfo", "--noheader", "--Node", "--states=drain", "--format=%N").split():
            _tried("scontrol", "update", f"NodeName={node}", "State=RESUME")
        self.resumed()
        self.seen["stuck, so resumed by hand"] += 1

    def once(self, accident: str) -> None:
        happen: Callable[[], bool] = getattr(self, accident)
        self.struck |= {events for events in self.warned if not ended(events)}
        try:
            self.seen[accident] += happen()
        except (subprocess.CalledProcessError, ProcessLookupError, FileNotFoundError):
            self.seen["too late"] += 1  # the victim had just gone


ACCIDENTS = {
    "preempted": 6, "requeued": 3, "cancelled_and_resumed": 3, "launcher_killed_and_resumed": 2, "rank_killed": 4, "node_crashed": 2, "daemon_killed": 2,
    "controller_restarted": 2,
}  # fmt: skip


def ended(events: Path) -> bool:
    """Whether the attempt left by itself: at a safe point, or done."""
    return any(
        json.loads(line)["kind"] in ("stopped", "done")
        for line in events.read_text().splitlines()
        if line.endswith("}")
    )


def _restarts(job: str) -> str:
    return slurm("scontrol", "show", "job", job).partition("Restarts=")[2].split()[0]


def _tried(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def disturb(chaos: Chaos, events: int) -> None:
    """Accidents at random times until there were enough of them, as long as there is something to disturb."""
    deck: list[str] = []
    while sum(chaos.seen[name] for name in ACCIDENTS) < events and not chaos.trial.done():
        if not deck:
            deck = [name for name, times in ACCIDENTS.items() for _ in range(times)]
            chaos.rng.shuffle(deck)
        time.sleep(chaos.rng.uniform(*PAUSE_S))
        wait_until(
            lambda: bool(chaos.trial.queue("RUNNING")) or chaos.stuck(), "a job to run", chaos.trial.explain
        )
        if chaos.stuck():
            chaos.rescue()
        else:
            chaos.once(deck.pop())
        print(f"{time.strftime('%H:%M:%S')} {dict(chaos.seen)}", flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--events", type=int, default=24)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--folder", type=Path, default=None)
    p.add_argument("--port", default=None)
    p.add_argument("--window", type=int, default=None)
    args = p.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp())
    full = ["--full", "--set", "AccountingStorageEnforce=associations,limits,qos"] if args.window else []
    lab = start_lab(folder / "lab", *full, *(["--port", args.port] if args.port else []))
    try:
        if args.window:
            limit_jobs(args.window)
        others = ("--account=others",) if args.window else ()
        calm, chaotic = (
            new_trial(folder / "calm", config=CONFIG),
            new_trial(folder / "chaos", config=CONFIG, cluster=LIMITED, setup=SETUP),
        )
        calm.submit()
        expected = calm.finish()
        chaos = Chaos(chaotic, lab, random.Random(args.seed), others)
        begun = time.monotonic()
        chaotic.submit()
        disturb(chaos, args.events)
        while not chaotic.done():  # as patiently as a busy machine needs
            wait_until(
                lambda: not chaotic.queue() or chaos.stuck(),
                "the queue to be empty",
                chaotic.explain,
                patience_s=1800,
            )
            if chaos.stuck():
                chaos.rescue()
        assert chaotic.finish() == expected, "the data differs from the undisturbed run's"
        report(chaos, calm, time.monotonic() - begun)
    finally:
        lab("stop")


def limit_jobs(number: int) -> None:
    me = slurm("id", "-un").strip()
    for account in ("serl", "others"):
        slurm("sacctmgr", "-i", "add", "account", account)
        slurm("sacctmgr", "-i", "add", "user", me, f"account={account}")
    slurm("sacctmgr", "-i", "modify", "user", me, "set", "DefaultAccount=serl")
    slurm("sacctmgr", "-i", "modify", "user", me, "where", "account=serl", "set", f"MaxSubmitJobs={number}")


def report(chaos: Chaos, calm: Trial, seconds: float) -> None:
    t = chaos.trial
    manifests = list(t.run.root.glob("round_*/*/shard_*.json"))
    kinds = Counter(e["kind"] for e in read_events(t.run.root / "events"))
    again = {what: t.noted(what).total() - calm.noted(what).total() for what in ("start", "step")}
    print(f"accidents: {sum(n for k, n in chaos.seen.items() if k in ACCIDENTS)} {dict(chaos.seen)}")
    alone = chaos.warned - chaos.struck
    print(
        f"saves/preemptions of attempts at work: {sum(map(ended, alone))}/{len(alone)}; {len(chaos.struck)} more met another accident before they had left"
    )
    print(f"attempts {kinds['start']}, left at a safe point {kinds['stopped']}, done {kinds['done']}")
    print(
        f"{len(manifests)} manifests of {len(calm.noted('end'))} parts; data identical to the undisturbed run; jobs left {len(t.queue())}"
    )
    lost_s = PART_S * again["start"] + STEP_S * again["step"]
    print(
        f"work done again: {again['start']} parts of {PART_S} s and {again['step']} steps of {STEP_S} s = {lost_s:.0f} s; {seconds:.0f} s in all"
    )
    relays = sum(s.job == RELAY and s.id is not None for s in Journal(t.run.root).submissions())
    print(f"arrays submitted {len(list(t.run.root.glob('logs/r*/*')))}, relays {relays}")


if __name__ == "__main__":
    main()
