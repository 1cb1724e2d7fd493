"""The chain on Slurm: one array for each stage of each round, all submitted at once, and then nobody is
needed.

A job waits for its predecessors with `afterany` and looks at their manifests when it starts: `afterok` would
judge a predecessor that is preempted and requeued by its first end, and leave this one in the queue for ever.
Whether a shard is done is never asked of Slurm.
"""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.chain.failures import forget_failures, record_failure
from jobs.chain.queue import (
    Journal,
    Queued,
    SlurmError,
    Submission,
    ask_slurm,
    at_work,
    look_at_queue,
    max_array_size,
    recorded,
)
from jobs.chain.sbatch import journal_of, submit_shards
from jobs.chain.task import BLOCKED
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
    room_in_controller,
    take_back,
    wait_for_place,
)
from jobs.plan.chain import Job, plan
from jobs.plan.cluster import Slurm
from jobs.runs.shared import users
from serl.run.files import write_atomic
from serl.run.rundir import Run, Shard, shared_dir

SETTLE_S = 60.0
LAUNCHED = "launched.json"


@dataclass(slots=True, kw_only=True)
class Place:
    """A run's place among runs that are submitted together, in lanes (`jobs.sweeps.lanes`), and what they
    have in common.

    `behind` are ids of jobs that the run's first jobs wait for (`waited`: whether any does), `chain` names
    jobs that wait for one more than the plan says, `renewed` shared stages that were missing when the pass
    began, `fresh` the tokens of what it has submitted for runs before this one. The queue is looked at once
    for all; `holder` is their relay.
    """

    behind: frozenset[str]
    chain: Mapping[str, str]
    renewed: frozenset[str]
    fresh: frozenset[str]
    queue: list[Queued]
    room: Room
    array_limit: int
    waiting: list[str]
    holder: Submission | None
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
    no room for is left to `relay`, by default the run's own (`jobs.chain.relay`); then the relay's submission
    is the last one returned.

    `note` is given by a relay only: where to write what to wait for if something is left again. A relay tries
    what was never tried; what was and failed, or was cancelled or held, is for people to resume.
    """
    with turn(run.root) as renew:
        if note is None:
            freeze_cluster(run, cluster)
        launch = _Launch(
            run=run, cluster=cluster, relay=relay or _own_relay(run, cluster), note=note, renew=renew,
            room=place.room if place else room_in_controller(),
            array_limit=place.array_limit if place else max_array_size(),
            place=place, waiting=place.waiting if place else [],
        )  # fmt: skip
        return launch.submit()


@dataclass(slots=True, kw_only=True)
class _Launch:
    """One pass over the plan. `waiting` are the jobs in the queue, in the plan's order; `holder` is the
    relay, once something is left to it.
    """

    run: Run
    cluster: Slurm
    relay: Relay
    note: Path | None
    renew: Callable[[], None]
    room: Room
    array_limit: int
    place: Place | None = None
    own: set[str] = field(default_factory=set)
    queue: list[Queued] = field(default_factory=list)
    new: list[Submission] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    holder: Submission | None = None

    def submit(self) -> list[Submission]:
        known = recorded(self.run)
        self.queue = self.place.queue if self.place else settled_queue(known, self.renew)
        jobs = plan(
            self.run.config, self.run.survey()
        )  # after the look at the queue: what left it by then has its manifest
        from jobs.costs.forecast import freeze_forecast

        freeze_forecast(self.run, self.cluster, jobs)
        gone = (
            gone_for_good(jobs, since_launch(self.run, known), self.queue)
            if self.note
            else set[tuple[str, int]]()
        )
        renewed, fresh = (self.place.renewed, self.place.fresh) if self.place else (frozenset(), frozenset())
        kept, useless = sort_queue(
            jobs, known, self.queue, replace_held=self.note is None, renewed=renewed, fresh=fresh
        )
        self.own = {name for name, mine in kept.items() if mine and name not in self.run.shared}
        if self.note is None:
            useless += [q.id for q in self.relay.queued(self.queue) if q.held]
        if useless:
            ask_slurm(["scancel", *useless])
        ids = {name: {q.id.partition("_")[0] for q in mine.values()} for name, mine in kept.items()}
        spoiled, wanted = set[str](), 0
        for job in jobs:
            self.waiting += [q.id for _, q in sorted(kept[job.name].items()) if not q.held]
            shards = [
                s for s in job.missing if s.index not in kept[job.name] and (job.name, s.index) not in gone
            ]
            if spoiled & set(job.after):
                _give_up(self.run, shards, job.after)
                shards = []
            if len(shards) + len(kept[job.name]) < len(job.missing):
                spoiled.add(job.name)
            if self.note is None:
                forget_failures(self.run, shards)
            wanted += len(shards)
            if shards and self.holder is None:
                ids[job.name] |= self._fit(job, shards, self._after(job, ids))
                self.own.add(job.name)
        return self._leave(wanted - sum(len(s.shards) for s in self.new))

    def _after(self, job: Job, ids: Mapping[str, set[str]]) -> list[str]:
        """What a job waits for: the jobs that bring what it reads; in a lane, if none of them is this run's
        own, also for the run before.
        """
        after = {id for name in job.after for id in ids[name]}
        if self.place:
            after |= ids.get(self.place.chain.get(job.name, ""), set())
            if not self.own & set(job.after) and self.place.behind:
                after |= self.place.behind
                self.place.waited = True
        return sorted(after)

    def _fit(self, job: Job, shards: Sequence[Shard], after: Sequence[str]) -> set[str]:
        """Submit what Slurm takes of these shards, in as few arrays as may be; the ids they got."""
        ids: set[str] = set()
        start = 0
        while start < len(shards) and (size := self.room.offer(min(self.array_limit, len(shards) - start))):
            self.renew()
            try:
                submission = submit_shards(
                    self.run, self.cluster, job, shards[start : start + size], after, hold=self.place is None
                )
            except WindowFull as refusal:
                self.room.refused(size)
                self._take_place(refusal)
                continue
            self.room.took(size)
            start += size
            ids.add(submission.id or "")
            self.new.append(submission)
            self.waiting += [element(submission, i) for i in range(size)]
        if start < len(shards):
            self._take_place(WindowFull("MaxJobCount is reached"))
        return ids

    def _take_place(self, refusal: WindowFull) -> None:
        """The relay's, before the rest of the window is filled; where no place is left, that of the job that
        came last.
        """
        if self.holder is not None:
            return
        if self.note is not None:
            self.holder = Submission(token="", job=RELAY, shards=())  # it runs here
            return
        if self.place and self.place.holder:
            self.holder = self.place.holder
            return

        def keep() -> Submission:
            return self.relay.keep_place(self.queue, middle(self.waiting))

        try:
            try:
                self.holder = keep()
            except WindowFull:
                if len(self.waiting) < 2 or not self.new:
                    raise
                self.room = Room(0)
                self.waiting.pop()
                self.new[-1] = take_back(journal_of(self.run, self.new[-1].job), self.new[-1])
                self.holder = wait_for_place(keep)
        except WindowFull:
            raise self._too_small(refusal) from None

    def _too_small(self, refusal: WindowFull) -> SlurmError:
        remedy = (
            "what was submitted stays; when there is room for two jobs or more, `python -m jobs.resume "
            f"{self.run.root.name}` goes on"
        )
        return SlurmError(f"{refusal}; {remedy}")

    def _leave(self, left: int) -> list[Submission]:
        """Tell the relay what to wait for, or that it is not needed."""
        new = [s for s in self.new if s.shards]
        after = middle(self.waiting)
        if self.note is not None:
            if left:
                come_back(self.note, after)
        elif left and self.holder is not None:
            if not self.waiting and len(look_at_queue()) < 2:
                ask_slurm(["scancel", str(self.holder.id)])
                raise self._too_small(WindowFull("Slurm takes a single job of yours at a time"))
            aim(self.holder, after)
        elif (
            self.place is None
            and self.relay.folder == self.run.root
            and (idle := [q.id for q in self.relay.queued(self.queue) if q.state == "PENDING"])
        ):
            ask_slurm(["scancel", *idle])
        return [*new, self.holder] if left and self.holder else new


def gone_for_good(
    jobs: Sequence[Job], tried: Sequence[Submission], queue: Sequence[Queued]
) -> set[tuple[str, int]]:
    """What was submitted since the launch, is not done, and is not in the queue any more: it failed or was
    cancelled.
    """
    submitted = {(s.job, index) for s in tried if s.id is not None for index in s.shards}
    return (submitted & {(job.name, s.index) for job in jobs for s in job.missing}) - at_work(
        tried, queue
    ).keys()


def _give_up(run: Run, shards: Sequence[Shard], after: Sequence[str]) -> None:
    """A failure spreads as a record to what was never submitted, as it does to what waits in the queue."""
    for shard in shards:
        record_failure(
            run,
            shard,
            "relay-0",
            f"{BLOCKED} {' or '.join(after)} not done, and no job in the queue will do that",
            "",
        )


def freeze_cluster(run: Run, cluster: Slurm) -> None:
    """What a relay has to know of a launch: where to submit to, and which submissions came before it."""
    known = {"before": [s.token for s in recorded(run)], "cluster": cluster.model_dump(mode="json")}
    write_atomic(run.root / LAUNCHED, json.dumps(known).encode())


def frozen_cluster(run: Run) -> Slurm:
    return Slurm.model_validate_json(json.dumps(json.loads((run.root / LAUNCHED).read_bytes())["cluster"]))


def last_cluster(run: Run) -> Slurm | None:
    """The cluster that a run was last submitted to; None where it never was."""
    return frozen_cluster(run) if (run.root / LAUNCHED).exists() else None


def since_launch(run: Run, known: Sequence[Submission]) -> list[Submission]:
    before = set(json.loads((run.root / LAUNCHED).read_bytes())["before"])
    return [s for s in known if s.token not in before]


def _own_relay(run: Run, cluster: Slurm) -> Relay:
    return Relay(
        folder=run.root,
        name=run.root.name,
        cluster=cluster,
        code=run.root / "code",
        arguments=("-m", "jobs.chain.relay", str(run.root)),
    )


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
    anew = set(renewed)
    work = at_work(recorded, queue)
    unrecorded = {s.token for s in recorded if s.id is None}
    for job in jobs:
        mine = {s.index: work[job.name, s.index] for s in job.missing if (job.name, s.index) in work}
        stale = bool(anew & set(job.after))
        good = {
            i: q
            for i, q in mine.items()
            if q.token in fresh or not (stale or (q.held and replace_held) or q.token in unrecorded)
        }
        if len(good) < len(job.missing):
            anew.add(job.name)
        kept[job.name] = good
        useless += [q.id for i, q in mine.items() if i not in good]
    missing = {(job.name, s.index) for job in jobs for s in job.missing}
    return kept, useless + [q.id for work_of, q in work.items() if q.held and work_of not in missing]


def settled_queue(known: Sequence[Submission], renew: Callable[[], None]) -> list[Queued]:
    """Our jobs once none is on its way out of the queue, or back into it: until then nobody can tell which.
    The turn is renewed meanwhile.
    """
    tokens = {s.token for s in known}
    deadline = time.monotonic() + SETTLE_S
    while True:
        ours = [q for q in look_at_queue() if q.token in tokens]
        if all(q.state != "COMPLETING" for q in ours) or time.monotonic() > deadline:
            return [q for q in ours if q.state != "COMPLETING"]
        renew()
        time.sleep(1)


def live(run: Run) -> list[Queued]:
    """The jobs of this run that are in the queue, recorded or not, with those of the stages that it shares:
    one squeue call.
    """
    tokens = {s.token for s in recorded(run)}
    return [q for q in look_at_queue() if q.token in tokens] if tokens else []


def cancel(run: Run) -> int:
    """Cancel the jobs of this run, and no others; returns how many were in the queue.

    A relay that is submitting just now is waited for, and until it has gone nobody else has the turn: what it
    submitted is cancelled, too.
    """
    relays = {s.token for s in Journal(run.root).submissions() if s.job == RELAY and s.id is not None}
    if not relays:
        return cancel_runs([run])
    with turn(run.root) as renew:
        number = cancel_runs([run])
        deadline = time.monotonic() + SETTLE_S
        while any(q.token in relays for q in look_at_queue()) and time.monotonic() < deadline:
            renew()
            time.sleep(1)
    return number


def cancel_runs(runs: Sequence[Run], *, also: Collection[str] = ()) -> int:
    """Cancel the jobs of these runs in the queue, and those with tokens in `also`. A shared stage's job stays
    while other runs wait for it.
    """
    own = {s.token for run in runs for s in Journal(run.root).submissions()} | set(also)
    keys = {key for run in runs for key in run.shared.values()}
    if not own and not keys:
        return 0
    queue, names = look_at_queue(), {run.root.name for run in runs}
    if keys:
        others = {
            key: [user for user in found if user not in names]
            for key, found in users(runs[0].data_root).items()
            if key in keys
        }
        busy = {q.token for q in queue}
        waiting = {
            name
            for found in others.values()
            for name in found
            if _has_jobs(runs[0].data_root / "runs" / name, busy)
        }
        free = [key for key in keys if not waiting & set(others.get(key, []))]
        own |= {s.token for key in free for s in Journal(shared_dir(runs[0].data_root, key)).submissions()}
    jobs = [q for q in queue if q.token in own]
    if jobs:
        ask_slurm(["scancel", *sorted({q.id.partition("_")[0] for q in jobs})])
    return len(jobs)


def _has_jobs(root: Path, tokens: Collection[str]) -> bool:
    return any(s.token in tokens for s in Journal(root).submissions())
