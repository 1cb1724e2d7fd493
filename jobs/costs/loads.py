"""Jobs of a plan as loads for the simulator: what is known of a model on a cluster, applied to a configuration that need not be the one measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.costs.calibration import Calibration, Measure, cluster_label
from jobs.costs.tasks import JobLoad, TaskLoad
from jobs.plan.chain import Job
from jobs.plan.cluster import Local, Machine, Slurm, this_machine
from serl.config.run import RunConfig
from serl.stages.cost import Rate, cost_of
from serl.stages.kind import Stage

NOTHING = Measure(0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a cluster file means to the simulator. A slot is a core or GPU of this machine, or a node: as much as the widest task takes of one.

    `paid` is what a task holds of what is paid for: GPUs, or cores where no stage has any (`unit`).
    """

    label: str
    slots: int | None
    array_limit: int | None
    widths: Mapping[str, int]
    ranks: int
    gpus: Mapping[str, int]
    paid: Mapping[str, int]

    @property
    def unit(self) -> Literal["GPU-hours", "core-hours"]:
        return "GPU-hours" if any(self.gpus.values()) else "core-hours"


def site_of(cluster: Local | Slurm, config: RunConfig) -> Site:
    stages = {s.name: s for s in config.stages}
    match cluster:
        case Local():
            machine = this_machine(cluster)
            widths = {name: _slots(s, config, machine) for name, s in stages.items()}
            return Site(
                label=cluster_label(cluster),
                slots=machine.slots,
                array_limit=None,
                widths=widths,
                ranks=machine.train_ranks,
                gpus=widths if machine.gpus else dict.fromkeys(stages, 0),
                paid=widths,
            )
        case Slurm():
            own = {name: cluster.resources(s) for name, s in stages.items()}
            gpus = {name: r.nodes * r.gpus_per_node for name, r in own.items()}
            cores = {name: r.nodes * r.tasks_per_node * r.cpus_per_task for name, r in own.items()}
            return Site(
                label=cluster_label(cluster),
                slots=None,
                array_limit=cluster.array_limit,
                widths={name: r.nodes for name, r in own.items()},
                ranks=max((own[name].ranks for name, s in stages.items() if s.kind.ranks), default=1),
                gpus=gpus,
                paid=gpus if any(gpus.values()) else cores,
            )


def _slots(stage: Stage, config: RunConfig, machine: Machine) -> int:
    """Of this machine, for a task of a stage."""
    if stage.kind.ranks:
        return min(machine.train_ranks, machine.slots)
    held = stage.kind.held(stage.section, config)
    return 1 if stage.kind.bare else min(held.tensor_parallel, machine.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Turns jobs of a plan into loads for the simulator, by what is known of their stages; `rows` are those of benchmark
    files, by name.
    """

    config: RunConfig
    known: Calibration
    site: Site
    rows: Mapping[str, int]

    def rate(self, stage: Stage, top: str, bottom: str, otherwise: float) -> Rate:
        """See `serl.stages.cost.Known`."""
        found = self.known.share(stage.name, stage.round, top, bottom)
        return Rate(value=found.value, sigma=found.sigma) if found else Rate(value=otherwise, sigma=0.0)

    def load(self, job: Job, **changes: int) -> JobLoad:
        """`changes`, for what-if: `shards` of a generating stage, its `part` size, or `checkpoint_every` of a training."""
        pace = self.known.pace(job.stage, job.round)
        if job.of.kind.array:
            shards = changes.get("shards", job.num_shards)
            tasks, spread = self._generating(job, shards, changes.get("part"))
        elif job.of.kind.ranks:
            tasks, spread = self._training(job, changes.get("checkpoint_every"))
        else:
            tasks, spread = [self._task(job, pace(self.items(job)), 1.0)], pace.job_sigma
        tasks = tasks[: len(job.missing)] if not changes else tasks
        waited = self.known.waited(job.stage, job.round)
        return JobLoad(
            name=job.name, after=job.after, tasks=tuple(tasks), width=self.site.widths[job.stage], spread=spread,
            straggle=pace.task_sigma, start_spread=self.known.started(job.stage, job.round).sigma,
            wait_s=0.0 if self.site.slots else waited.value, wait_spread=waited.sigma,
        )  # fmt: skip

    def _task(
        self,
        job: Job,
        unit_s: float,
        units: float,
        *,
        more_s: float = 0.0,
        keep_every: int = 1,
        save_s: float = 0.0,
    ) -> TaskLoad:
        """Here, the wait is for the slot's last process to go."""
        here_s = self.known.waited(job.stage, job.round).value if self.site.slots else 0.0
        start_s = here_s + self.known.started(job.stage, job.round).value + more_s
        end_s = self.known.ended(job.stage, job.round).value
        return TaskLoad(
            start_s=start_s, unit_s=unit_s, units=units, keep_every=keep_every, save_s=save_s, end_s=end_s
        )

    def _generating(self, job: Job, shards: int, part: int | None) -> tuple[list[TaskLoad], float]:
        reckon, section = cost_of(job.of.kind), job.of.section
        pace, length = self.known.pace(job.stage, job.round), reckon.length(job.of, self)
        items, per_item = self.items(job), reckon.samples(section) * length.value
        part = part or section.part_prompts
        tasks: dict[int, TaskLoad] = {}
        counts = [int(items // shards) + (i < items % shards) for i in range(shards)]
        for count in set(counts):
            whole, rest = divmod(count, part)
            unit_s = pace((part if whole else rest) * per_item)
            seconds = whole * unit_s + (pace(rest * per_item) if rest else 0.0)
            tasks[count] = self._task(job, unit_s, seconds / unit_s if unit_s else 0.0)
        return [tasks[c] for c in counts], math.hypot(pace.job_sigma, length.sigma)

    def _training(self, job: Job, checkpoint_every: int | None) -> tuple[list[TaskLoad], float]:
        lesson = cost_of(job.of.kind).lesson(job.of, self.config, self)
        before = self.known.share(job.stage, job.round, "logp_s", "tokens") or NOTHING
        pace = self.known.pace(job.stage, job.round)
        task = self._task(
            job, pace(lesson.step_tokens / self.site.ranks), lesson.steps,
            more_s=before.value * lesson.tokens if job.round else 0.0,
            keep_every=checkpoint_every or job.of.section.checkpoint_every,
            save_s=self.known.saved(job.stage, job.round).value,
        )  # fmt: skip
        return [task], math.hypot(pace.job_sigma, lesson.sigma)

    def items(self, job: Job) -> float:
        """Prompts, questions, problems ... of a whole stage."""
        return cost_of(job.of.kind).items(job.of, self.config, self)

    def tokens(self, job: Job) -> int:
        if not job.of.kind.array:
            return 0
        reckon, share = cost_of(job.of.kind), len(job.missing) / job.num_shards
        length = reckon.length(job.of, self).value
        return int(self.items(job) * reckon.samples(job.of.section) * length * share)

    def bytes(self, job: Job) -> int:
        if job.of.kind.array:
            per_token = self.known.share(job.stage, job.round, "bytes", "tokens") or NOTHING
            return int(per_token.value * self.tokens(job))
        reckon, share = cost_of(job.of.kind), len(job.missing) / job.num_shards
        per = self.known.share(job.stage, job.round, "bytes", reckon.per) or NOTHING
        return int(per.value * share * reckon.given(job.of, self.config, self))

    def files(self, job: Job) -> int:
        rows = self.known.of(job.stage, job.round)
        return round(sum(r.files for r in rows) / len(rows)) * len(job.missing) if rows else 0
