"""Jobs of a plan as loads for the simulator: what is known of a model on a cluster, applied to a
configuration that need not be the one measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.costs.calibration import Calibration, cluster_label, load_calibration, model_label
from jobs.costs.simulate import JobLoad, TaskLoad, World
from jobs.plan.chain import Job
from jobs.plan.cluster import Local, Room, Slurm, room_of, this_machine
from jobs.plan.preflight import world_of
from serl.config.run import RunConfig
from serl.stages.cost import cost_of
from serl.stages.kind import Stage

STRAGGLE = 0.05  # log-normal sigma of the pace of a shard beside its siblings


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Turns jobs of a plan into loads. To the kinds it is `serl.stages.cost.Known`."""

    config: RunConfig
    cluster: Local | Slurm
    known: Calibration
    rows: Mapping[str, int]  # of benchmark files, by name

    @classmethod
    def of(
        cls, config: RunConfig, cluster: Local | Slurm, data: Path, known: Calibration | None = None
    ) -> "Planner":
        known = known or load_calibration(data, cluster_label(cluster), model_label(config))
        return cls(config=config, cluster=cluster, known=known, rows=world_of(config, data).rows)

    def world(self) -> World:
        """What may happen to jobs there: as much as happened to the runs before."""
        local = isinstance(self.cluster, Local)
        return World(
            slots=this_machine(self.cluster).slots if local else None,
            array_limit=None if local else self.cluster.array_limit,
            preempt_per_hour=self.known.preempt_per_hour, requeue_s=self.known.requeue_s,
            doubt=self.known.doubt,
        )  # fmt: skip

    def unknown(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """Stages that were never measured there."""
        return tuple(dict.fromkeys(j.of.listed for j in jobs if not self.known.knows(j.stage, j.round)))

    def rate(self, stage: Stage, top: str, bottom: str, otherwise: float = 0.0) -> float:
        found = self.known.of(stage.name, stage.round).share(stage.round, top, bottom)
        return otherwise if found is None else found

    def load(self, job: Job) -> JobLoad:
        """What is left of a job."""
        times, wait_s = self.known.of(job.stage, job.round), self.known.waited_s(job.stage, job.round)
        room = room_of(self.cluster, self.config, job.of)
        here_s = (
            wait_s if isinstance(self.cluster, Local) else 0.0
        )  # the wait for a slot's last process to go
        start_s, end_s = (times.median(name) or 0.0 for name in ("start_s", "end_s"))
        bare = TaskLoad(start_s=here_s + start_s, unit_s=0.0, units=1.0, end_s=end_s)
        if job.of.kind.array:
            tasks = self._generating(job, bare, room)
        elif job.of.kind.ranks:
            tasks = [self._training(job, bare, room)]
        else:
            items = cost_of(job.of.kind).items(job.of, self.config, self)
            tasks = [replace(bare, unit_s=times.seconds(items))]
        return JobLoad(
            name=job.name, after=job.after, tasks=tuple(tasks[: len(job.missing)]), width=room.slots,
            gpus=room.gpus, straggle=STRAGGLE, wait_s=wait_s - here_s,
        )  # fmt: skip

    def _generating(self, job: Job, bare: TaskLoad, room: Room) -> list[TaskLoad]:
        times, reckon = self.known.of(job.stage, job.round), cost_of(job.of.kind)
        per_item = reckon.samples(job.of.section) * reckon.length(job.of, self)
        items, part = int(reckon.items(job.of, self.config, self)), job.of.section.part_prompts
        tasks: dict[int, TaskLoad] = {}
        counts = [items // job.num_shards + (i < items % job.num_shards) for i in range(job.num_shards)]
        for count in set(counts):
            full, rest = divmod(count, part)
            unit_s = times.seconds((part if full else rest) * per_item)
            seconds = full * unit_s + (times.seconds(rest * per_item) if rest else 0.0)
            seconds /= max(1, min(room.ranks, full + bool(rest)))  # engines divide the parts
            tasks[count] = replace(bare, unit_s=unit_s, units=seconds / unit_s if unit_s else 0.0)
        return [tasks[c] for c in counts]

    def _training(self, job: Job, bare: TaskLoad, room: Room) -> TaskLoad:
        times, reckon = self.known.of(job.stage, job.round), cost_of(job.of.kind)
        lesson = reckon.lesson(job.of, self.config, self)
        return replace(
            bare, units=lesson.steps, unit_s=times.seconds(lesson.step_tokens / room.ranks),
            keep_every=reckon.keeps_every(job.of.section), save_s=times.median("save_s") or 0.0,
        )  # fmt: skip
