"""Trials in lanes on Slurm: in each lane one trial after another, and nobody needed to start the next.

The first jobs of a trial wait with `afterany` for the last jobs of the trial before it in its lane, so the number of lanes bounds what runs at
once, wherever it was launched from. A trial scores its rounds one after another, so that at no time more than one scoring array and one other
job of it run: that makes a cap on tasks or GPUs a number of lanes. A job that gives up ends instead of holding itself, so that a failed trial
lets the next one pass; launching the sweep again takes up what failed, behind all that is still in its lane.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.chain.queue import Journal, Queued, Submission, ask_slurm, look_at_queue, max_array_size, recorded
from jobs.chain.slurm import Place, freeze_cluster, settled_queue, sort_queue, submit_missing
from jobs.chain.ticket import turn
from jobs.chain.window import RELAY, Relay, element, room_in_controller
from jobs.plan.chain import after_of, plan
from jobs.plan.cluster import Slurm
from jobs.sweeps.schema import Cap, Gpus, Lanes, Tasks
from serl.config.run import RunConfig
from serl.run.rundir import Run
from serl.stages.kind import Stage, stage_of


def count(cap: Cap, configs: Sequence[RunConfig], cluster: Slurm) -> int:
    """How many trials may be at work at once without exceeding the cap, the widest trial taken for all."""
    match cap:
        case Lanes(lanes=lanes):
            return min(lanes, max(1, len(configs)))
        case Tasks(tasks=tasks):
            return _fitting(tasks, "tasks", [_widest(c, cluster, gpus=False) for c in configs])
        case Gpus(gpus=gpus):
            return _fitting(gpus, "GPUs", [_widest(c, cluster, gpus=True) for c in configs])


def _fitting(cap: int, unit: str, widths: Sequence[int]) -> int:
    widest = max(widths, default=1)
    if widest > cap:
        raise ValueError(
            f"cap: {cap} {unit}: one trial uses up to {widest} at once; raise the cap, or lower array_limit, nodes or GPUs in the cluster file, "
            f"or the number of shards in the run file"
        )
    return min(cap // max(1, widest), len(widths)) or 1


def _widest(config: RunConfig, cluster: Slurm, *, gpus: bool) -> int:
    """The most that a trial holds at once: its widest job beside a scoring that is still at work."""
    scored = max((width(s, cluster, gpus=gpus) for s in config.stages if not _read(s, config)), default=0)
    own = [
        width(s, cluster, gpus=gpus) + (scored if s.round else 0) for s in config.stages if _read(s, config)
    ]
    return max([scored, *own])


def _read(stage: Stage, config: RunConfig) -> bool:
    """Whether a later stage waits for it; what nobody waits for may run beside what comes after."""
    return stage.kind.gives != "grades"


def width(stage: Stage, cluster: Slurm, *, gpus: bool) -> int:
    """Tasks (or GPUs) that a stage's job holds at once; a training is one task, on however many nodes."""
    own = cluster.resources(stage)
    return min(stage.num_shards, cluster.array_limit) * (own.nodes * own.gpus_per_node if gpus else 1)


def waits_in_lane(config: RunConfig) -> dict[str, str]:
    """Beside what the plan says: each scoring waits for the one before."""
    scored = [s.job for s in config.stages if s.kind.gives == "grades"]
    return dict(zip(scored[1:], scored, strict=False))


# ------------------------------------------------------------------------------------------------ submission
def submit(
    runs: Sequence[Run], num_lanes: int, cluster: Slurm, relay: Relay, *, note: Path | None = None
) -> list[Submission]:
    """Submit of each run what is neither done nor in the queue, run i in lane i % `num_lanes`; returns the new submissions.

    A relay has its place in the queue before anything else: it goes on with what Slurm has no room for, and with all of it should this process
    die. `note` is given by the relay itself, as to `jobs.chain.slurm.submit_missing`; the last submission is the relay's where something is left.
    """
    with turn(relay.folder) as renew:
        if note is None:
            for run in runs:
                freeze_cluster(run, cluster)
        return _Launch(
            runs=runs, num_lanes=num_lanes, cluster=cluster, relay=relay, note=note, renew=renew
        ).submit()


@dataclass(slots=True, kw_only=True)
class _Launch:
    """One pass over the runs. `queue` is by token, `tails` are, by lane, the ids that the lane's next run waits for."""

    runs: Sequence[Run]
    num_lanes: int
    cluster: Slurm
    relay: Relay
    note: Path | None
    renew: Callable[[], None]
    queue: dict[str, list[Queued]] = field(default_factory=dict)
    tails: dict[int, set[str]] = field(default_factory=dict)

    def submit(self) -> list[Submission]:
        known = [recorded(run) for run in self.runs]
        for q in settled_queue(
            [s for own in known for s in own] + Journal(self.relay.folder).submissions(), self.renew
        ):
            self.queue.setdefault(q.token, []).append(q)
        drafts = [self._draft(run, own) for run, own in zip(self.runs, known, strict=True)]
        for number, draft in enumerate(drafts):
            self.tails.setdefault(number % self.num_lanes, set()).update(draft.tail(self.runs[number]))
        if not any(draft.missing for draft in drafts):
            self._dismiss()
            return []
        everything = [q for several in self.queue.values() for q in several]
        holder = None if self.note else self.relay.keep_place(everything, None)
        room, array_limit, waiting = (
            room_in_controller(),
            max_array_size(),
            [q.id for q in everything if not q.held],
        )
        new: list[Submission] = []
        for number, draft in enumerate(drafts):
            if not draft.missing:
                continue
            self.renew()
            run, lane = self.runs[number], number % self.num_lanes
            place = Place(
                behind=frozenset(self.tails[lane] - draft.tail(run)), chain=waits_in_lane(run.config), renewed=draft.renewed, fresh=frozenset(s.token for s in new),
                queue=self._of(recorded(run)), room=room, array_limit=array_limit, waiting=waiting, holder=holder,
            )  # fmt: skip
            done = submit_missing(run, self.cluster, note=self.note, relay=self.relay, place=place)
            new += done
            if done and done[-1].job == RELAY:
                return new
            self._follow(run, lane, done, place)
        self._dismiss()
        return new

    def _draft(self, run: Run, known: Sequence[Submission]) -> "_Draft":
        jobs = plan(run.config, run.done)
        kept, _ = sort_queue(jobs, known, self._of(known), replace_held=self.note is None)
        short = {job.name for job in jobs if len(kept[job.name]) < len(job.missing)}
        own = {
            name: {q.id.partition("_")[0] for q in found.values()}
            for name, found in kept.items()
            if found and name not in run.shared
        }
        return _Draft(missing=bool(short), renewed=frozenset(short & run.shared.keys()), ids=own)

    def _of(self, known: Sequence[Submission]) -> list[Queued]:
        return [q for s in known for q in self.queue.get(s.token, ())]

    def _follow(self, run: Run, lane: int, done: Sequence[Submission], place: Place) -> None:
        """The next run of the lane comes behind this one; the next that shares a stage finds its job in the queue."""
        ids: dict[str, set[str]] = {}
        for s in done:
            ids.setdefault(s.job, set()).add(s.id or "")
            self.queue[s.token] = [
                Queued(id=element(s, i), state="PENDING", held=False, where="", token=s.token)
                for i in range(len(s.shards))
            ]
        before = set() if place.waited else self.tails[lane]
        self.tails[lane] = before | _ends(run, ids)

    def _dismiss(self) -> None:
        """Nothing is left to the relay."""
        journal = Journal(self.relay.folder).submissions()
        tokens = {s.token for s in journal if s.job == RELAY}
        if self.note is None and (
            idle := [q.id for q in look_at_queue() if q.token in tokens and q.state == "PENDING"]
        ):
            ask_slurm(["scancel", *idle])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """What one look at the queue says of a run: whether anything has to be submitted, which of its shared stages, and the ids of its own jobs."""

    missing: bool
    renewed: frozenset[str]
    ids: Mapping[str, set[str]]

    def tail(self, run: Run) -> set[str]:
        return _ends(run, self.ids)


def _ends(run: Run, ids: Mapping[str, set[str]]) -> set[str]:
    """Of these jobs of a run, the ids of those that no other of them waits for."""
    chain = waits_in_lane(run.config)
    waited_for = {
        before for name in ids for before in (*after_of(run.config, *stage_of(name)), chain.get(name, ""))
    }
    return {id for name, own in ids.items() if name not in waited_for for id in own}
