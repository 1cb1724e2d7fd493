"""Trials in lanes on Slurm: in each lane one trial after another, and nobody needed to start the next.

The first jobs of a trial wait with `afterany` for the last jobs of the trial before it in its lane, so the
number of lanes bounds what runs at once, wherever it was launched from. A trial grades its rounds one after
another, so that at no time more than one grading array and one other job of it run: that makes a cap on tasks
or GPUs a number of lanes. A job that gives up ends instead of holding itself, so that a failed trial lets the
next one pass; launching the sweep again takes up what failed, behind all that is still in its lane.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.chain.launched import freeze_cluster
from jobs.chain.slurm import Place, sort_queue, submit_missing
from jobs.chain.ticket import turn
from jobs.chain.window import RELAY, Relay, element, room_in_controller
from jobs.plan.chain import after_of, plan
from jobs.plan.cluster import Slurm
from jobs.runs.queue import Journal, Queued, Submission, look_at_queue, recorded, settled_queue
from jobs.sweeps.schema import Cap
from serl.config.run import RunConfig
from serl.run.rundir import Run
from serl.stages.kind import Stage, stage_of


def count(cap: Cap, configs: Sequence[RunConfig], cluster: Slurm) -> int:
    """How many trials may be at work at once without exceeding the cap, the widest trial taken for all."""
    fitting = [len(configs), cap.lanes or len(configs)]
    for most, unit in ((cap.tasks, "tasks"), (cap.gpus, "GPUs")):
        widest = max((_widest(c, cluster, gpus=unit == "GPUs") for c in configs if most), default=0)
        if most and widest > most:
            raise ValueError(
                f"cap: {most} {unit}: one trial uses up to {widest} at once; raise the cap, or lower "
                "array_limit, nodes or GPUs in the cluster file, or the number of shards in the run file"
            )
        fitting += [most // widest] if most and widest else []
    return max(1, min(fitting))


def _widest(config: RunConfig, cluster: Slurm, *, gpus: bool) -> int:
    """Held at once at most: the widest job beside a grading, for which nobody in the trial waits."""
    widths = [(s, width(s, cluster, gpus=gpus)) for s in config.stages]
    grading = max((w for s, w in widths if _grades(s)), default=0)
    return max([grading, *(w + (grading if s.round else 0) for s, w in widths if not _grades(s))])


def _grades(stage: Stage) -> bool:
    return stage.kind.gives == "grades"


def width(stage: Stage, cluster: Slurm, *, gpus: bool) -> int:
    """Tasks (or GPUs) that a stage's job holds at once; a training is one task, on however many nodes."""
    own = cluster.resources(stage)
    return min(stage.num_shards, cluster.array_limit) * (own.nodes * own.gpus_per_node if gpus else 1)


def waits_in_lane(config: RunConfig) -> dict[str, str]:
    """Beside what the plan says: each grading waits for the one before."""
    grading = [s.job for s in config.stages if _grades(s)]
    return dict(zip(grading[1:], grading))


# ---------------------------------------------------------------------------------------- submission
def submit(
    runs: Sequence[Run], num_lanes: int, cluster: Slurm, relay: Relay, *, note: Path | None = None
) -> list[Submission]:
    """Submit of each run what is neither done nor in the queue, run i in lane i % `num_lanes`; returns the
    new submissions.

    A relay has its place in the queue before anything else: it goes on with what Slurm has no room for, and
    with all of it should this process die. `note` is given by the relay itself, as to
    `jobs.chain.slurm.submit_missing`; the last submission is the relay's where something is left.
    """
    with turn(relay.folder) as renew:
        for run in runs if note is None else ():
            freeze_cluster(run, cluster)
        return _Launch(runs, num_lanes, cluster, relay, note=note, renew=renew).submit()


@dataclass(slots=True)
class _Launch:
    """One pass. `queue` is by token; `tails`, by lane, are ids that the lane's next run waits for."""

    runs: Sequence[Run]
    num_lanes: int
    cluster: Slurm
    relay: Relay
    note: Path | None
    renew: Callable[[], None]
    queue: dict[str, list[Queued]] = field(default_factory=lambda: defaultdict(list))
    tails: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def submit(self) -> list[Submission]:
        known = [recorded(run) for run in self.runs]
        journal = Journal(self.relay.folder).submissions()
        for q in settled_queue([*itertools.chain(*known), *journal], self.renew):
            self.queue[q.token].append(q)
        drafts = [self._draft(run, own) for run, own in zip(self.runs, known, strict=True)]
        for number, draft in enumerate(drafts):
            self.tails[number % self.num_lanes] |= draft.tail
        if not any(draft.missing for draft in drafts):
            return self._dismissed([])
        everything = [q for several in self.queue.values() for q in several]
        of_all = {
            "holder": None if self.note else self.relay.keep_place(everything, None),
            "room": room_in_controller(),
            "waiting": [q.id for q in everything if not q.held],
            "hold": False,
        }
        new: list[Submission] = []
        for number, (run, draft) in enumerate(zip(self.runs, drafts)):
            if not draft.missing:
                continue
            self.renew()
            tail = self.tails[number % self.num_lanes]
            place = Place(
                behind=frozenset(tail - draft.tail), chain=waits_in_lane(run.config), renewed=draft.renewed,
                fresh=frozenset(s.token for s in new), queue=self._of(recorded(run)), **of_all,
            )  # fmt: skip
            done = submit_missing(run, self.cluster, note=self.note, relay=self.relay, place=place)
            new += done
            if done and done[-1].job == RELAY:
                return new
            self._follow(number, done, waited=bool(place.waited))
        return self._dismissed(new)

    def _draft(self, run: Run, known: Sequence[Submission]) -> "_Draft":
        jobs = plan(run.config, run.done)
        kept, _ = sort_queue(jobs, known, self._of(known), replace_held=self.note is None)
        short = {j.name for j in jobs if len(kept[j.name]) < len(j.missing) and not j.along}
        own = {
            name: {q.id.partition("_")[0] for q in found.values()}
            for name, found in kept.items()
            if found and name not in run.shared
        }
        return _Draft(missing=bool(short), renewed=frozenset(short & run.shared.keys()), tail=_ends(run, own))

    def _of(self, known: Sequence[Submission]) -> list[Queued]:
        return [q for s in known for q in self.queue.get(s.token, ())]

    def _follow(self, number: int, done: Sequence[Submission], *, waited: bool) -> None:
        """The lane's next run comes behind this one; who shares a stage finds its job in the queue."""
        run, lane, ids = self.runs[number], number % self.num_lanes, defaultdict(set)
        for s in done:
            ids[s.job].add(s.id or "")
            self.queue[s.token] = [
                Queued(id=element(s, i), state="PENDING", held=False, where="", token=s.token)
                for i in range(len(s.shards))
            ]
        self.tails[lane] = (set() if waited else self.tails[lane]) | _ends(run, ids)

    def _dismissed(self, new: list[Submission]) -> list[Submission]:
        if self.note is None:
            self.relay.dismiss(look_at_queue())
        return new


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """Of a run, by the queue: whether something is missing, which shared stages are, its last jobs' ids."""

    missing: bool
    renewed: frozenset[str]
    tail: set[str]


def _ends(run: Run, ids: Mapping[str, set[str]]) -> set[str]:
    """Of these jobs of a run, the ids of those that no other of them waits for."""
    chain = waits_in_lane(run.config)
    waited_for = {chain[name] for name in ids if name in chain}
    waited_for.update(*(after_of(run.config, *stage_of(name)) for name in ids))
    return {id for name, own in ids.items() if name not in waited_for for id in own}
