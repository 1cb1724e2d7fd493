"""What state runs are in, and who is at work on them: for status, gc and every verb's JSON.

Manifests say what is done, events what is at work, the queue what will be, failure records what went wrong.
One look at the queue serves any number of runs, since squeue asks the controller.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.runs.failures import BLOCKED, failures
from jobs.runs.find import list_runs
from jobs.runs.processes import Process, launcher_of
from jobs.runs.progress import Look, StageState, run_eta_s
from jobs.runs.queue import Queued, SlurmError, look_at_queue, recorded
from jobs.runs.stillborn import stillborn
from jobs.shell.visible import visible_lines
from serl.run.rundir import Run, RunError
from serl.safety.checkup import halted, message

BEHIND = "(Dependency)"  # where nothing runs and something is held, what waits for others waits for that
Word = Literal["done", "running", "queued", "held", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Who is at work on a run: a launcher here, jobs in Slurm's queue, both, or nobody.

    `silence`: why the queue is unknown.
    """

    launcher: Process | None
    queued: tuple[Queued, ...]
    silence: str = ""

    def __bool__(self) -> bool:
        return self.launcher is not None or bool(self.queued)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A run at one moment."""

    run: Run
    stages: tuple[StageState, ...]
    activity: Activity
    failed: tuple[Mapping[str, str | int | float], ...]
    halt: str = ""  # why the run's own rules say that it must not go on

    @property
    def done(self) -> bool:
        return all(s.done for s in self.stages)

    @property
    def word(self) -> Word:
        """held and failed: as far as the run goes by itself, and no further; somebody has to look."""
        if self.done:
            return "done"
        held = any(q.held for q in self.activity.queued)
        able = [q for q in self.activity.queued if not q.held]
        if self.activity.launcher or any(q.state != "PENDING" for q in able):
            return "running"
        if any(not (held and q.where == BEHIND) for q in able) and not self.failed:
            return "queued"
        if self.halt or held:
            return "held"
        return "failed" if self.failed else "stopped"

    @property
    def shards_done(self) -> int:
        return sum(s.shards_done for s in self.stages)

    @property
    def num_shards(self) -> int:
        return sum(s.num_shards for s in self.stages)

    @property
    def fraction(self) -> float:
        """Share of the shards' work that is done."""
        return sum(s.fraction * s.num_shards for s in self.stages) / max(1, self.num_shards)

    def eta_s(self, now: float) -> float | None:
        return run_eta_s(self.stages, now) if self.word == "running" else None

    def causes(self) -> list[str]:
        """What went wrong, without all that only waited for it, if anything did.

        Fit for a terminal, since an exception may quote a model.
        """
        own = [f for f in self.failed if not str(f["reason"]).startswith(BLOCKED)] or list(self.failed)
        shards: dict[str, list[str]] = {}
        for f in own:
            shards.setdefault(_alike(f), []).append(f"{f['shard']}: {f['reason']}")
        said = [told[0] + (f" ({len(told) - 1} more alike)" if told[1:] else "") for told in shards.values()]
        if len(own) < len(self.failed):
            said.append(f"{len(self.failed) - len(own)} shards that need them gave up waiting")
        if self.halt and not any(self.halt in line for line in said):
            said.append(self.halt)
        return [visible_lines(line) for line in said]

    def facts(self) -> dict[str, object]:
        """As JSON; `jobs.status` documents the fields."""
        from jobs.reporting.vitals import vital_facts

        now, queued = time.time(), self.activity.queued
        return {
            "run": self.run.root.name,
            "folder": str(self.run.root),
            "digest": self.run.digest,
            "state": self.word,
            "fraction": round(self.fraction, 4),
            "eta_s": _rounded(self.eta_s(now)),
            "stages": [_stage_facts(s, now) for s in self.stages],
            "queue": dict(Counter(q.state for q in queued)),
            "held": [q.id for q in queued if q.held],
            "failures": [f"{f['shard']}: {f['reason']}" for f in self.failed],
            "halted": self.halt or None,
            "queue_unknown": self.activity.silence or None,
            "safety": vital_facts(self.run),
        }


def _alike(failed: Mapping[str, str | int | float]) -> str:
    """What two failures share that are one: a cause that stopped many jobs before they began is told once."""
    return str(failed["alike"] if "alike" in failed else f"{failed['shard']} {failed['reason']}")


def _stage_facts(s: StageState, now: float) -> dict[str, object]:
    own = {k: getattr(s, k) for k in ("name", "shards_done", "num_shards", "seconds")}
    return own | {"fraction": round(s.fraction, 4), "eta_s": _rounded(s.eta_s(now)), "counts": dict(s.counts)}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


class Looks:
    """Successive looks at runs: manifests once seen are not read again. `ask`: Slurm, too, how a job ended
    whose log does not tell.
    """

    def __init__(self, *, ask: bool = False) -> None:
        self._looks: dict[Path, Look] = {}
        self._ask = ask

    def __call__(self, runs: Sequence[Run]) -> list[State]:
        """The state of each run, from one look at the queue."""
        return [self._state(run, activity) for run, activity in zip(runs, activities(runs))]

    def everything(self, data: Path) -> tuple[list[State], dict[Path, RunError]]:
        """Of all runs under a data root, and why some cannot be read: these must not hide the others."""
        runs: list[Run] = []
        faults: dict[Path, RunError] = {}
        for root in list_runs(data):
            try:
                run = Run.open(root)
                self.learn(run)
                runs.append(run)
            except RunError as e:
                faults[root] = e
        return self(runs), faults

    def learn(self, run: Run) -> None:
        """Read its manifests; raises RunError where it is damaged."""
        self._of(run)(live=False)

    def _of(self, run: Run) -> Look:
        return self._looks.setdefault(run.root, Look(run))

    def _state(self, run: Run, activity: Activity) -> State:
        stages = tuple(self._of(run)(live=bool(activity)))
        failed: tuple = () if all(s.done for s in stages) else tuple(failures(run))
        if not all(s.done for s in stages) and not activity.silence:
            born = stillborn(run, recorded(run), activity.queued, ask=self._ask)
            failed += tuple(b.record() for b in born)
        halt = message(run, at) if (at := halted(run)) else ""
        return State(run=run, stages=stages, activity=activity, failed=failed, halt=halt)


def state_of(run: Run) -> State:
    """Of one run, as it stands."""
    return Looks(ask=True)([run])[0]


def activities(runs: Sequence[Run]) -> list[Activity]:
    """Who is at work on each run. A controller that does not answer hides the queue, not the runs."""
    tokens = [{s.token for s in recorded(run)} for run in runs]
    queue, silence = queue_or_silence() if any(tokens) else ([], "")
    return [
        Activity(
            launcher=launcher_of(run.root),
            queued=tuple(q for q in queue if q.token in mine),
            silence=silence if mine else "",
        )
        for run, mine in zip(runs, tokens)
    ]


def queue_or_silence() -> tuple[list[Queued], str]:
    """This user's queue, and why it is not known where it is not."""
    try:
        return look_at_queue(), ""
    except SlurmError as e:
        return [], str(e)
