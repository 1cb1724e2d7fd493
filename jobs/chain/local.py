"""The chain on this machine: submitit's local executor under a scheduler of slots, one per GPU or core.

Whether a shard is done is decided by its manifest alone; a process that ended without one failed, was
stopped, or was killed.
"""

import contextlib
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import submitit

from jobs.chain.batch import python_path
from jobs.chain.task import FAULTY, Task
from jobs.plan.chain import Job, plan
from jobs.plan.cluster import Local, Machine
from jobs.plan.memory import Share, share_here
from jobs.runs.processes import Process
from serl.run.rundir import Run, Shard, ending
from serl.run.signals import Stop
from serl.safety.checkup import halted, message
from serl.stages.kind import job_name

TICK_S = 0.1
LOOK_S = 1.0
GRACE_S = 60.0
LOG_TAIL = 15
FOREVER_MIN = 60 * 24 * 365


class Stopped(Exception):
    """The launcher was asked to stop; what is committed is kept."""


class ShardFailed(Exception):
    """A shard's process raised or kept dying; the message carries the end of its log."""


class Halted(ShardFailed):
    """The self-play went wrong by the run's own rules; the message says how, and what a person can do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A live attempt and the slots it holds."""

    shard: Shard
    job: submitit.Job
    slots: tuple[int, ...]
    folder: Path


class LocalChain:
    """Runs what is missing of a run, as many shards at once as fit, in the order of the plan."""

    def __init__(self, run: Run, cluster: Local, machine: Machine, stop: Stop):
        self.run, self.cluster, self.machine, self.stop = run, cluster, machine, stop
        self.running: list[Running] = []
        self._killed: Counter[Shard] = Counter()
        self._faulty: dict[Shard, set[int]] = {}  # the slots of a GPU that failed it
        self._forbidden: set[str] = set()  # trainings, by safety
        self._done: set[Shard] = set()
        self._number = 0
        self._free = set(range(machine.slots))
        self._shares: dict[str, Share | None] = {}
        self._environment = {"PYTHONPATH": python_path(run.root / "code"), "PYTHONSAFEPATH": "1"}
        if machine.device == "cpu":
            self._environment |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}

    def finish(self, tick: Callable[[], None]) -> None:
        """Run until all is done; raises Stopped, ShardFailed or Halted with no process left behind."""
        todo, look_at = self._todo(), time.monotonic() + LOOK_S
        try:
            while todo or self.running:
                if self.stop.requested:
                    raise Stopped
                self._start_ready(todo)
                ended = [r for r in self.running if r.job.done()]
                for r in ended:
                    self.running.remove(r)
                    self._free |= set(r.slots)
                    self._settle(r)
                if ended or time.monotonic() > look_at:  # a training publishes along the way, too
                    todo, look_at = self._todo(), time.monotonic() + LOOK_S
                tick()
                time.sleep(TICK_S)
        finally:
            end_processes([int(r.job.job_id) for r in self.running], GRACE_S)
        if checkup := halted(self.run):
            raise Halted(message(self.run, checkup))

    def _todo(self) -> list[Job]:
        """The jobs with something missing, as it is now; without what needs a policy that safety forbids, and
        what comes after the end of a run that was ended early.
        """
        early, lost, there = ending(self.run.root), set(self._forbidden), self.run.survey()

        def done(shard: Shard) -> bool:
            if shard not in self._done and there(shard):
                self._done.add(shard)
            return shard in self._done

        jobs = [job for job in plan(self.run.config, done) if job.missing]
        lost |= {job.name for job in jobs if early and job.round > early["round"]}
        for job in jobs:
            if lost & set(job.after):
                lost.add(job.name)
        return [job for job in jobs if job.name not in lost]

    def _start_ready(self, todo: Sequence[Job]) -> None:
        unfinished, busy = {job.name for job in todo}, {r.shard for r in self.running}
        for job in todo:
            if job.along or unfinished & set(job.after):
                continue
            for shard in job.missing:
                if shard not in busy and (slots := self._slots_for(job, shard)):
                    self._start(job, shard, slots)

    def _slots_for(self, job: Job, shard: Shard) -> tuple[int, ...]:
        """Free ones, as many as it takes; without those of a GPU that failed it, where there are others."""
        kind, most = job.of.kind, self.machine.slots
        wanted = self.machine.train_ranks if kind.ranks else 1
        if kind.array:
            wanted = kind.held(job.of.section, self.run.config).tensor_parallel
        if not kind.ranks and (share := self._share(job)) and share.scarce:
            wanted = max(wanted, most // share.engines)
        wanted, faulty = min(wanted, most), self._faulty.get(shard, set())
        free = sorted(self._free - faulty if most - len(faulty) >= wanted else self._free)
        return tuple(free[:wanted]) if len(free) >= wanted else ()

    def _share(self, job: Job) -> Share | None:
        """Of this machine's memory, looked at once for a stage: later, others of its engines are in it."""
        if job.name not in self._shares:
            self._shares[job.name] = share_here(job.of, self.run.config, self.machine, self.run.data_root)
        return self._shares[job.name]

    def _start(self, job: Job, shard: Shard, slots: tuple[int, ...]) -> None:
        self._free -= set(slots)
        folder = self._new_folder(job, shard)
        gpus = [self.machine.gpus[s] for s in slots] if self.machine.gpus else []
        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(
            timeout_min=FOREVER_MIN, stderr_to_stdout=True,
            tasks_per_node=self.machine.train_ranks if job.of.kind.ranks else 1,
        )  # fmt: skip
        cores = self.machine.cores if job.of.kind.bare else max(1, self.machine.cores // self.machine.slots)
        task = Task(
            root=str(self.run.root),
            shard=shard,
            submission=self._number,
            device=self.machine.device,
            cores=cores,
            folder=str(folder),
            launcher=Process.of(os.getpid()),
            hang_s=self.cluster.hang_s,
            gpus=len(gpus),
            devices=tuple(gpus),
            cache_gib=share.cache_gib if (share := self._share(job)) else None,
        )
        submitted = self._submit(executor, task)
        self.running.append(Running(shard=shard, job=submitted, slots=slots, folder=folder))

    def _new_folder(self, job: Job, shard: Shard) -> Path:
        """Of the next attempt; earlier launchers have left theirs."""
        while True:
            self._number += 1
            folder = self.run.root / "logs" / job.name / f"{shard.name}.a{self._number}"
            if not folder.exists():
                return folder

    def _submit(self, executor: submitit.LocalExecutor, task: Task) -> submitit.Job:
        """Children start in the folder of the code, and ignore Ctrl-C, which a terminal sends to all: the
        launcher stops them in order.
        """
        before = {key: os.environ.get(key) for key in self._environment}
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.environ.update(self._environment)
        try:
            with contextlib.chdir(self.run.root / "code"):
                return executor.submit(task)
        finally:
            signal.signal(signal.SIGINT, handler)
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})

    def _settle(self, ended: Running) -> None:
        """Decide what a process that ended means: done, to be tried again, given up, or a failure."""
        shard, early = ended.shard, ending(self.run.root)
        if self.run.done(shard) or (early and shard.round > early["round"]):
            return
        ranks = self.run.config.stage(shard.round, shard.stage).kind.ranks
        if ranks and (checkup := halted(self.run)) and checkup.vitals.round == shard.round:
            self._forbidden.add(job_name(shard.round, shard.stage))
            return
        end = how_it_ended(ended.job)
        self._killed[shard] += end == "killed"
        how = f"was killed {self._killed[shard]} times without finishing" if end == "killed" else "failed"
        again = end == "killed" and self._killed[shard] < self.cluster.max_attempts
        if end == "faulty" and shard not in self._faulty:  # a GPU that fails is no fault of the shard
            self._faulty[shard], again = set(ended.slots), True
        if end != "stopped" and not again:
            log = f"{log_tail(ended.folder)}\n\nwhole log: {ended.folder}"
            raise ShardFailed(f"{shard} {how}; the end of its log:\n\n{log}")


def how_it_ended(job: submitit.Job) -> Literal["raised", "stopped", "killed", "faulty"]:
    """By every rank's result file: one without was killed, and took its peers' collectives with it."""
    paths = [rank.paths.result_pickle for rank in (job._sub_jobs or [job])]
    if not all(path.exists() for path in paths):
        return "killed"
    results = [pickle.loads(path.read_bytes()) for path in paths]
    if any(kind == "error" for kind, _ in results):
        return "raised"
    return "faulty" if any(outcome == FAULTY for _, outcome in results) else "stopped"


def log_tail(folder: Path) -> str:
    """The last lines of the rank that failed first, by the time its log was last written."""
    logs = sorted(folder.glob("*_log.out"), key=lambda p: p.stat().st_mtime)
    failed = [p for p in logs if "Traceback" in p.read_text(errors="replace")] or logs
    if not failed:
        return "(no log)"
    lines = failed[0].read_text(errors="replace").splitlines()
    return "\n".join(line[:400] for line in lines[-LOG_TAIL:])


def end_processes(leaders: list[int], grace_s: float) -> None:
    """Ask process trees to stop at a safe point, wait, kill what is left. Leaders pass SIGTERM on."""
    trees = [p for pid in leaders for p in _tree(pid)]
    for pid in leaders:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue  # it ended by itself
    _, alive = psutil.wait_procs(trees, timeout=grace_s)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=10)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end_leftovers(run: Run, grace_s: float) -> int:
    """End processes of this run that outlived their launcher; returns how many there were. Each is known by
    the folder of its attempt, which its command line ends with.
    """
    logs = (run.root / "logs").resolve()
    found = ((p.pid, p.info["cmdline"] or [""]) for p in psutil.process_iter(["cmdline"]))
    left = [
        pid
        for pid, command in found
        if any(word.startswith("submitit.") for word in command)
        and Path(command[-1]).resolve().is_relative_to(logs)
    ]
    end_processes(left, grace_s)
    return len(left)
