"""Jobs of a plan as loads for the simulator: what is known of a model on a cluster, applied to a
configuration that need not be the one measured.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.costs.calibration import Calibration, cluster_label, load_calibration, model_label
from jobs.costs.tasks import JobLoad, TaskLoad, World
from jobs.plan.chain import Job
from jobs.plan.cluster import Local, Machine, Slurm, this_machine
from jobs.plan.preflight import world_of
from serl.config.run import RunConfig
from serl.stages.cost import Rate, cost_of
from serl.stages.kind import Bounds, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a cluster file means to the simulator. A slot is a core or GPU of this machine, or a node: as much
    as the widest task takes of one. What a task holds of what is `paid` for are GPUs, or cores where no stage
    has any (`unit`).
    """

    label: str
    slots: int | None
    array_limit: int | None
    widths: Mapping[str, int]
    ranks: Mapping[str, int]
    paid: Mapping[str, int]
    unit: str

    def gpus(self, stage: str) -> int:
        return self.paid[stage] if self.unit == "GPU-hours" else 0

    def world(self, known: Calibration) -> World:
        """What may happen to jobs there: as much as happened to the runs before."""
        return World(
            slots=self.slots, array_limit=self.array_limit, doubt=known.doubt, requeue_s=known.requeue_s,
            preempt_per_hour=known.taken.mean if known.taken else 0.0, learned=known.taken,
        )  # fmt: skip


def site_of(cluster: Local | Slurm, config: RunConfig) -> Site:
    stages = {s.name: s for s in config.stages}
    slots = array_limit = None
    match cluster:
        case Local():
            machine = this_machine(cluster)
            slots, gpus = machine.slots, bool(machine.gpus)
            ranks = {name: machine.train_ranks if s.kind.ranks else 1 for name, s in stages.items()}
            widths = paid = {name: _slots(s, config, machine) for name, s in stages.items()}
        case Slurm():
            own = {name: cluster.resources(s) for name, s in stages.items()}
            array_limit, gpus = cluster.array_limit, any(r.gpus_per_node for r in own.values())
            ranks = {name: r.ranks for name, r in own.items()}
            widths = {name: r.nodes for name, r in own.items()}
            paid = {
                n: r.nodes * r.gpus_per_node if gpus else r.ranks * r.cpus_per_task for n, r in own.items()
            }
    return Site(
        label=cluster_label(cluster), slots=slots, array_limit=array_limit, widths=widths, ranks=ranks,
        paid=paid, unit="GPU-hours" if gpus else "core-hours",
    )  # fmt: skip


def _slots(stage: Stage, config: RunConfig, machine: Machine) -> int:
    """Of this machine, for a task of a stage."""
    if stage.kind.ranks:
        return min(machine.train_ranks, machine.slots)
    held = stage.kind.held(stage.section, config)
    return 1 if stage.kind.bare else min(held.tensor_parallel, machine.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Turns jobs of a plan into loads. To the kinds it is `serl.stages.cost.Known`."""

    config: RunConfig
    known: Calibration
    site: Site
    rows: Mapping[str, int]  # of benchmark files, by name

    @classmethod
    def of(
        cls, config: RunConfig, cluster: Local | Slurm, data: Path, known: Calibration | None = None
    ) -> "Planner":
        site = site_of(cluster, config)
        known = known or load_calibration(data, site.label, model_label(config, data))
        return cls(config=config, known=known, site=site, rows=world_of(config, data).rows)

    def unknown(self, jobs: Sequence[Job]) -> tuple[str, ...]:
        """Stages that were never measured there."""
        return tuple(dict.fromkeys(j.of.listed for j in jobs if not self.known.knows(j.stage, j.round)))

    def rate(self, stage: Stage, top: str, bottom: str, otherwise: float = 0.0) -> Rate:
        found = self.known.of(stage.name, stage.round).share(stage.round, top, bottom)
        return found or Rate(value=otherwise, sigma=0.0)

    def items(self, job: Job) -> float:
        """Prompts, questions, problems ... of a whole stage."""
        return cost_of(job.of.kind).items(job.of, self.config, self)

    def load(self, job: Job, *, shards: int | None = None, part: int | None = None) -> JobLoad:
        """What is left of a job; with what-if's changes to shards or parts, the whole of it."""
        times, wait_s = self.known.of(job.stage, job.round), self.known.waited_s(job.stage, job.round)
        here_s = wait_s if self.site.slots else 0.0  # here, the wait is for a slot's last process to go
        bare = TaskLoad(start_s=here_s + times.started_s, unit_s=0.0, units=1.0, end_s=times.ended_s)
        if job.of.kind.array:
            tasks, sigma = self._generating(job, bare, shards or job.num_shards, part)
        elif job.of.kind.ranks:
            tasks, sigma = self._training(job, bare)
        else:
            tasks, sigma = [replace(bare, unit_s=times.pace(self.items(job)))], 0.0
        left = tasks if shards or part else tasks[: len(job.missing)]
        return JobLoad(
            name=job.name, after=job.after, tasks=tuple(left), width=self.site.widths[job.stage],
            gpus=self.site.gpus(job.stage), spread=math.hypot(times.pace.job_sigma, sigma),
            straggle=times.pace.task_sigma, wait_s=wait_s - here_s,
        )  # fmt: skip

    def _generating(
        self, job: Job, bare: TaskLoad, shards: int, part: int | None
    ) -> tuple[list[TaskLoad], float]:
        pace, length = self.known.of(job.stage, job.round).pace, cost_of(job.of.kind).length(job.of, self)
        per_item = cost_of(job.of.kind).samples(job.of.section) * length.value
        items, part = int(self.items(job)), part or job.of.section.part_prompts
        tasks: dict[int, TaskLoad] = {}
        counts = [items // shards + (i < items % shards) for i in range(shards)]
        for count in set(counts):
            full, rest = divmod(count, part)
            unit_s = pace((part if full else rest) * per_item)
            seconds = full * unit_s + (pace(rest * per_item) if rest else 0.0)
            seconds /= max(1, min(self.site.ranks[job.stage], full + bool(rest)))  # engines divide the parts
            tasks[count] = replace(bare, unit_s=unit_s, units=seconds / unit_s if unit_s else 0.0)
        return [tasks[c] for c in counts], length.sigma

    def _training(self, job: Job, bare: TaskLoad) -> tuple[list[TaskLoad], float]:
        times, reckon = self.known.of(job.stage, job.round), cost_of(job.of.kind)
        lesson = reckon.lesson(job.of, self.config, self)
        before_s = self.rate(job.of, "logp_s", "tokens").value * lesson.tokens if job.round else 0.0
        task = replace(
            bare, start_s=bare.start_s + before_s, units=lesson.steps, save_s=times.saved_s,
            unit_s=times.pace(lesson.step_tokens / self.site.ranks[job.stage]),
            keep_every=reckon.keeps_every(job.of.section),
        )  # fmt: skip
        return [task], lesson.sigma

    def amounts(self, job: Job) -> Bounds:
        """What is left of a job samples and writes, as it can be expected."""
        share, reckon = len(job.missing) / job.num_shards, cost_of(job.of.kind)
        rows = self.known.of(job.stage, job.round).rows
        files = round(statistics.fmean(r.files for r in rows)) * len(job.missing)
        if not job.of.kind.array:
            given = reckon.given(job.of, self.config, self) * share
            return Bounds(files=files, bytes=int(self.rate(job.of, "bytes", reckon.per).value * given))
        each = reckon.samples(job.of.section) * reckon.length(job.of, self).value
        tokens = int(self.items(job) * each * share)
        return Bounds(
            tokens=tokens, files=files, bytes=int(self.rate(job.of, "bytes", "tokens").value * tokens)
        )
