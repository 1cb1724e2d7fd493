"""What a run used, and what of that was lost: for every attempt of every shard, its time, what came of it, and why it ended.

Every attempt has an event file, so this works everywhere, also for attempts that were killed and left no last word: their last event or
heartbeat tells. Where Slurm keeps accounts, one call of sacct for the whole run gives exact ends and causes. Work that survived its attempt,
as a committed part or in a checkpoint that another attempt went on from, is not lost. used = kept + lost, always. Nothing is changed here.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jobs.chain.queue import Journal, recorded
from jobs.costs.sacct import Record, by_attempt, split_attempt
from jobs.costs.tries import Told, Try, attempt_files, eventless, heartbeats, judge, read_rank, silent, tell
from jobs.plan.chain import job_name
from serl.run.rundir import Run

NOTHING_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds of tasks (one task of an array, or one rank of a training) and hours of GPUs: used, and lost by cause."""

    used_s: float = 0.0
    gpu_hours: float = 0.0
    lost_s: Mapping[str, float] = field(default_factory=dict)
    lost_gpu_hours: Mapping[str, float] = field(default_factory=dict)
    wait_s: float = 0.0
    attempts: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            used_s=self.used_s + other.used_s, gpu_hours=self.gpu_hours + other.gpu_hours, wait_s=self.wait_s + other.wait_s,
            attempts=self.attempts + other.attempts, lost_s=Counter(self.lost_s) + Counter(other.lost_s),
            lost_gpu_hours=Counter(self.lost_gpu_hours) + Counter(other.lost_gpu_hours),
        )  # fmt: skip

    @property
    def all_lost_s(self) -> float:
        return sum(self.lost_s.values())

    def facts(self) -> dict:
        """For --json and for files."""
        return {
            "attempts": self.attempts, "used_s": round(self.used_s, 1), "lost_s": round(self.all_lost_s, 1), "queue_wait_s": round(self.wait_s, 1),
            "lost_s_by_cause": {k: round(v, 1) for k, v in sorted(self.lost_s.items())}, "gpu_hours": round(self.gpu_hours, 4),
            "lost_gpu_hours": round(sum(self.lost_gpu_hours.values()), 4),
            "lost_gpu_hours_by_cause": {k: round(v, 4) for k, v in sorted(self.lost_gpu_hours.items())},
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The costs of a run by (round, stage), and whether Slurm's own records went into them."""

    costs: Mapping[tuple[int, str], Cost]
    tries: tuple[Try, ...]
    by_slurm: bool

    @property
    def total(self) -> Cost:
        return sum(self.costs.values(), Cost())

    def facts(self) -> dict:
        stages = {job_name(round, stage): cost.facts() for (round, stage), cost in self.costs.items()}
        return self.total.facts() | {
            "source": "events and sacct" if self.by_slurm else "events",
            "stages": stages,
        }

    def sentence(self) -> str:
        """One line for status."""
        total = self.total
        if not total.attempts:
            return "nothing used yet"
        gpus = f", {total.gpu_hours:.2f} GPU-hours" if total.gpu_hours else ""
        told = f"used {duration(total.used_s)} of tasks{gpus} in {total.attempts} attempts; "
        if not total.all_lost_s:
            return told + "lost nothing"
        causes = ", ".join(
            f"{cause} {duration(s)}" for cause, s in sorted(total.lost_s.items(), key=lambda item: -item[1])
        )
        lost_gpus = f", {sum(total.lost_gpu_hours.values()):.2f} GPU-hours" if total.gpu_hours else ""
        return f"{told}lost {duration(total.all_lost_s)}{lost_gpus} ({total.all_lost_s / total.used_s:.1%}): {causes}"


def account(
    run: Run,
    *,
    live: bool = False,
    now: float | None = None,
    slurm: Callable[[Sequence[str]], Sequence[Record]] | None = None,
) -> Account:
    """Costs of all attempts so far. `live`: what has no end is at work, not dead. `slurm` is how sacct is asked, for runs that have Slurm jobs."""
    folder = run.root / "events"
    files = attempt_files(folder)
    submitted = {
        s.id: s for s in recorded(run) if s.id is not None and s.shards
    }  # a relay (`jobs.chain.window`) does no shard
    own = {
        s.id for s in Journal(run.root).submissions()
    }  # of the jobs of a shared stage, attempts without events may be another run's
    records = (
        by_attempt(slurm(sorted(submitted)), [id for *_, id in files])
        if slurm is not None and submitted
        else {}
    )
    beats = heartbeats(run.root / "logs")
    told: dict[tuple[int, str, int], list[Told]] = defaultdict(list)
    for (stage, round, index, id), path in files.items():
        if events := read_rank(path):
            one = tell(
                id, events, records.pop(split_attempt(id), None), beats.get(id), scheduled=bool(submitted)
            )
            cut_off = one.ended == "failed" and any(
                silent(folder / f"{path.stem[:-1]}{rank}.jsonl") for rank in range(1, one.ranks)
            )
            told[round, stage, index].append(replace(one, ended="killed") if cut_off else one)
    found: dict[tuple[int, str], list[Try]] = {}
    for of_run in run.config.stages:
        round, stage = of_run.round, of_run.name
        found[round, stage] = []
        for shard in run.shards(round, stage) if any(key[:2] == (round, stage) for key in told) else ():
            found[round, stage] += judge(
                shard, told[round, stage, shard.index], run.manifest(shard), kind=of_run.kind, live=live,
                now=now or time.time(),
            )  # fmt: skip
    for (job, _), record in records.items():
        of = submitted.get(job.partition("_")[0])
        if (
            of is not None
            and of.id in own
            and record.end is not None
            and int(job.partition("_")[2] or 0) < len(of.shards)
        ):
            t = eventless(job, record, of)
            found[t.round, t.stage].append(t)
    costs = {key: sum((_cost(t) for t in tries), Cost()) for key, tries in found.items()}
    return Account(
        costs=costs,
        tries=tuple(t for tries in found.values() for t in tries),
        by_slurm=any(t.exact for ts in found.values() for t in ts),
    )


def _cost(t: Try) -> Cost:
    """A try's time, with what was lost told apart: its start-up if another's was the one that counted, and what it did not keep."""
    lost: Counter[str] = Counter()
    if t.ended == "done":
        lost["duplicate"] = t.seconds - t.kept_s
    elif t.ended != "at work":
        lost["start-up repeated"] = t.startup_s if t.repeated else 0.0
        lost[t.ended] = t.seconds - t.kept_s - t.startup_s
    lost_s = {cause: s * t.ranks for cause, s in lost.items() if s > NOTHING_S}
    return Cost(
        used_s=t.seconds * t.ranks, gpu_hours=t.seconds * t.gpus / 3600, wait_s=t.wait_s, attempts=1, lost_s=lost_s,
        lost_gpu_hours={cause: s * t.gpus / 3600 for cause, s in lost.items() if s > NOTHING_S and t.gpus},
    )  # fmt: skip


def duration(seconds: float, digits: int = 0) -> str:
    """In the unit that suits it; minutes to so many digits."""
    return (
        f"{seconds:.0f} s"
        if seconds < 600
        else f"{seconds / 60:.{digits}f} min"
        if seconds < 36000
        else f"{seconds / 3600:.1f} h"
    )
