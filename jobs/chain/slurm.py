"""The chain on Slurm: one array for each stage of each round, all submitted at once, and then nobody is
needed.

A job waits for its predecessors with `afterany` and looks at their manifests when it starts: `afterok` would
judge a predecessor that is preempted and requeued by its first end, and leave this one in the queue for ever.
Whether a shard is done is never asked of Slurm.

`python -m jobs.chain.slurm RUN NOTE`, in a run's relay job, goes on with what its launch had to leave
(`jobs.chain.window`); people have `jobs.resume`.
"""

import contextlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.chain.launched import freeze_cluster, launched
from jobs.chain.sbatch import submit_shards
from jobs.chain.ticket import turn
from jobs.chain.window import (
    RELAY,
    Relay,
    Room,
    WindowFull,
    aim,
    come_back,
    element,
    middle,
    one_turn,
    room_in_controller,
)
from jobs.plan.chain import Job, plan
from jobs.plan.cluster import Slurm
from jobs.runs.failures import BLOCKED, forget_failures, record_failure
from jobs.runs.queue import (
    Queued,
    SlurmError,
    Submission,
    ask_slurm,
    at_work,
    look_at_queue,
    recorded,
    settled_queue,
)
from serl.run.rundir import Run, Shard

RUNS_HERE = Submission(token="", job=RELAY, shards=())


@dataclass(slots=True, kw_only=True)
class Place:
    """What a run finds in the queue: its own place alone, or one among runs that are submitted together, in
    lanes (`jobs.sweeps.lanes`).

    `waiting` are the jobs in the queue, in the plan's order; `holder` is the relay, once it has a place. In a
    lane: `behind` are ids of jobs that the run's first jobs wait for (`waited`: whether any does), `chain`
    names jobs that wait for one more than the plan says, `renewed` shared stages that were missing when the
    pass began, `fresh` the tokens of what it has submitted for runs before this one.
    """

    queue: list[Queued]
    room: Room
    waiting: list[str] = field(default_factory=list)
    holder: Submission | None = None
    hold: bool = (
        True  # whether a job that gives up holds itself; in a lane it ends, for others wait behind it
    )
    behind: frozenset[str] = frozenset()
    chain: Mapping[str, str] = field(default_factory=dict)
    renewed: frozenset[str] = frozenset()
    fresh: frozenset[str] = frozenset()
    waited: bool = False


def submit_missing(
    run: Run,
    cluster: Slurm,
    *,
    note: Path | None = None,
    relay: Relay | None = None,
    place: Place | None = None,
) -> list[Submission]:
    """Submit what is neither done nor in the queue; returns the new submissions. Whatever of them Slurm has
    no room for is left to `relay`, by default the run's own; then the relay's submission
    is the last one returned.

    `note` is given by a relay only: where to write what to wait for if something is left again. A relay tries
    what was never tried; what was and failed, or was cancelled or held, is for people to resume.
    """
    with turn(run.root) as renew:
        if note is None:
            freeze_cluster(run, cluster)
        place = place or Place(queue=settled_queue(recorded(run), renew), room=room_in_controller())
        relay = relay or _own_relay(run, cluster)
        return _Launch(run=run, cluster=cluster, relay=relay, note=note, renew=renew, place=place).submit()


def _own_relay(run: Run, cluster: Slurm) -> Relay:
    arguments = ("-m", "jobs.chain.slurm", str(run.root))
    return Relay(
        folder=run.root, name=run.root.name, cluster=cluster, code=run.root / "code", arguments=arguments
    )


@dataclass(slots=True, kw_only=True)
class _Launch:
    """One pass over the plan. `full`: the rest is the relay's."""

    run: Run
    cluster: Slurm
    relay: Relay
    note: Path | None
    renew: Callable[[], None]
    place: Place
    own: set[str] = field(default_factory=set)
    new: list[Submission] = field(default_factory=list)
    full: bool = False

    def submit(self) -> list[Submission]:
        """Of what Slurm refuses somebody is told, so that no relay is to try it again and again."""
        try:
            return self._leave(self._walk())
        except SlurmError:
            if self.note is None:
                with contextlib.suppress(SlurmError):
                    self.relay.dismiss(look_at_queue())
            raise

    def _walk(self) -> int:
        """Through the plan; returns how many shards are left."""
        run, queue, known, first = self.run, self.place.queue, recorded(self.run), self.note is None
        jobs = plan(run.config, run.survey())  # after the look at the queue: what left it has its manifest
        from jobs.costs.forecast import freeze_forecast

        freeze_forecast(run, self.cluster, jobs)
        gone = set() if first else gone_for_good(jobs, launched(run).since(known), queue)
        renewed, fresh = self.place.renewed, self.place.fresh
        kept, useless = sort_queue(jobs, known, queue, replace_held=first, renewed=renewed, fresh=fresh)
        self.own = {name for name, mine in kept.items() if mine and name not in run.shared}
        useless += [q.id for q in self.relay.queued(queue) if q.held and first]
        if useless:
            ask_slurm(["scancel", *useless])
        ids = {name: {q.id.partition("_")[0] for q in mine.values()} for name, mine in kept.items()}
        spoiled, wanted = set[str](), 0
        for job in jobs:
            if job.along:
                ids[job.name] = ids[job.of.maker] if job.missing else set()
                spoiled |= {job.name} if job.of.maker in spoiled else set()
                continue
            mine = kept[job.name]
            self.place.waiting += [q.id for _, q in sorted(mine.items()) if not q.held]
            shards = [s for s in job.missing if s.index not in mine and (job.name, s.index) not in gone]
            if spoiled & set(job.after):
                _give_up(run, shards, job.after)
                shards = []
            if len(shards) + len(mine) < len(job.missing):
                spoiled.add(job.name)
            if first:
                forget_failures(run, shards)
            wanted += len(shards)
            if shards and not self.full:
                ids[job.name] |= self._fit(job, shards, self._after(job, ids))
                self.own.add(job.name)
        return wanted - sum(len(s.shards) for s in self.new)

    def _after(self, job: Job, ids: Mapping[str, set[str]]) -> list[str]:
        """Those that bring what it reads; in a lane, where none of them is this run's, the run before too."""
        after = {id for name in job.after for id in ids[name]}
        after |= ids.get(self.place.chain.get(job.name, ""), set())
        if self.place.behind and not self.own & set(job.after):
            after |= self.place.behind
            self.place.waited = True
        return sorted(after)

    def _fit(self, job: Job, shards: Sequence[Shard], after: Sequence[str]) -> set[str]:
        """Submit what Slurm takes of these shards, in as few arrays as may be; the ids they got. The relay's
        place comes before any: it takes the rest of the window, and goes on should this process die.
        """
        if self.note is None and self.place.holder is None:
            try:
                self.place.holder = self.relay.keep_place(self.place.queue, None)
            except WindowFull as refusal:
                raise self._too_small(refusal) from None
        ids: set[str] = set()
        while shards and (size := self.place.room.offer(len(shards))):
            self.renew()
            try:
                new = submit_shards(self.run, self.cluster, job, shards[:size], after, hold=self.place.hold)
            except WindowFull:
                self.place.room.refused(size)
                continue
            self.place.room.took(size)
            shards = shards[size:]
            ids.add(new.id or "")
            self.new.append(new)
            self.place.waiting += [element(new, i) for i in range(size)]
        self.full = bool(shards)
        return ids

    def _too_small(self, refusal: WindowFull) -> SlurmError:
        return SlurmError(
            f"{refusal}; what was submitted stays; when there is room for two jobs or more, `python -m "
            f"jobs.resume {self.run.root.name}` goes on"
        )

    def _leave(self, left: int) -> list[Submission]:
        """Tell the relay what to wait for, or that it is not needed."""
        new, after = [s for s in self.new if s.shards], middle(self.place.waiting)
        if left and self.note is not None:
            come_back(self.note, after)
            return [*new, RUNS_HERE]
        if left:
            assert self.place.holder is not None, "whatever does not fit is somebody's"
            if not self.place.waiting and len(look_at_queue()) < 2:
                raise self._too_small(WindowFull("Slurm takes a single job of yours at a time"))
            aim(self.place.holder, after)
            return [*new, self.place.holder]
        if self.note is None and self.relay.folder == self.run.root:
            self.relay.dismiss(look_at_queue() if new else self.place.queue)
        return new


def gone_for_good(
    jobs: Sequence[Job], tried: Sequence[Submission], queue: Sequence[Queued]
) -> set[tuple[str, int]]:
    """Submitted since the launch, neither done nor in the queue: it failed or was cancelled."""
    submitted = {(s.job, index) for s in tried if s.id is not None for index in s.shards}
    missing = {(job.name, s.index) for job in jobs for s in job.missing}
    return (submitted & missing) - at_work(tried, queue).keys()


def _give_up(run: Run, shards: Sequence[Shard], after: Sequence[str]) -> None:
    """A failure spreads as a record to what was never submitted, as it does to what waits in the queue."""
    why = f"{BLOCKED} {' or '.join(after)} not done, and no job in the queue will do that"
    for shard in shards:
        record_failure(run, shard, "relay-0", why)


def sort_queue(
    jobs: Sequence[Job],
    recorded: Sequence[Submission],
    queue: Sequence[Queued],
    *,
    replace_held: bool = True,
    renewed: Collection[str] = (),
    fresh: Collection[str] = (),
) -> tuple[dict[str, dict[int, Queued]], list[str]]:
    """What of the queue is kept, by job name and shard, and the ids of what is in the way of its own
    replacement.

    That is: what is held, if it is to be replaced, and in any case if its shard is done; what a launcher
    submitted and did not live to record, since it may have no pickle to run; and what waits for such a job,
    or for one that is not in the queue at all, since Slurm would start it too early.
    """
    kept: dict[str, dict[int, Queued]] = {}
    useless: list[str] = []
    anew, work = set(renewed), at_work(recorded, queue)
    unrecorded = {s.token for s in recorded if s.id is None}
    for job in jobs:
        if job.along:
            kept[job.name] = {}
            anew |= {job.name} if job.missing and job.of.maker in anew else set()
            continue
        mine = {s.index: q for s in job.missing if (q := work.get((job.name, s.index)))}
        stale = bool(anew & set(job.after))
        kept[job.name] = {
            i: q
            for i, q in mine.items()
            if q.token in fresh or not (stale or (q.held and replace_held) or q.token in unrecorded)
        }
        if len(kept[job.name]) < len(job.missing):
            anew.add(job.name)
        useless += [q.id for i, q in mine.items() if i not in kept[job.name]]
    missing = {(job.name, s.index) for job in jobs for s in job.missing}
    return kept, useless + [q.id for work_of, q in work.items() if q.held and work_of not in missing]


if __name__ == "__main__":
    opened, left = Run.open(Path(sys.argv[1])), Path(sys.argv[2])
    sys.exit(one_turn(left, lambda: submit_missing(opened, launched(opened).cluster, note=left)))
