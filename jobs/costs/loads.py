"""Jobs of a plan as loads for the simulator: what is known of a model on a cluster, applied to a configuration that need not be the one measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jobs.costs.calibration import Calibration, Measure, cluster_label
from jobs.costs.tasks import JobLoad, TaskLoad
from jobs.plan.chain import Job, num_problems
from jobs.plan.cluster import Local, Slurm, this_machine
from serl.config.base import Scratch
from serl.config.run import RunConfig, StageName

NOTHING = Measure(0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a cluster file means to the simulator. A slot is a core or GPU of this machine, or a node: as much as the widest task takes of one.

    `paid` is what a task holds of what is paid for: GPUs, or cores where no stage has any (`unit`).
    """

    label: str
    slots: int | None
    array_limit: int | None
    widths: Mapping[StageName, int]
    ranks: int
    gpus: Mapping[StageName, int]
    paid: Mapping[StageName, int]

    @property
    def unit(self) -> Literal["GPU-hours", "core-hours"]:
        return "GPU-hours" if any(self.gpus.values()) else "core-hours"


def site_of(cluster: Local | Slurm, config: RunConfig) -> Site:
    stages: tuple[StageName, ...] = ("corpus", "propose", "curate", "respond", "train", "score")
    match cluster:
        case Local():
            machine = this_machine(cluster)
            wide = {"train": min(machine.train_ranks, machine.slots), "corpus": 1, "curate": 1}
            widths = {s: wide.get(s, min(config.engine.tensor_parallel, machine.slots)) for s in stages}
            gpus = widths if machine.gpus else dict.fromkeys(stages, 0)
            return Site(
                label=cluster_label(cluster),
                slots=machine.slots,
                array_limit=None,
                widths=widths,
                ranks=machine.train_ranks,
                gpus=gpus,
                paid=widths,
            )
        case Slurm():
            own = {s: cluster.resources(s) for s in stages}
            widths = {s: r.nodes for s, r in own.items()}
            gpus = {s: r.nodes * r.gpus_per_node for s, r in own.items()}
            cores = {s: r.nodes * r.tasks_per_node * r.cpus_per_task for s, r in own.items()}
            return Site(
                label=cluster_label(cluster), slots=None, array_limit=cluster.array_limit, widths=widths, ranks=own["train"].ranks, gpus=gpus,
                paid=gpus if any(gpus.values()) else cores,
            )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Turns jobs of a plan into loads for the simulator, by what is known of their stages; `rows` as for `jobs.plan.chain.num_problems`."""

    config: RunConfig
    known: Calibration
    site: Site
    rows: Mapping[str, int]

    def load(self, job: Job, **changes: int) -> JobLoad:
        """`changes`, for what-if: `shards` of a generating stage, its `part` size, or `checkpoint_every` of a training."""
        match job.stage:
            case "propose" | "respond" | "score":
                tasks, spread = self._generating(
                    job, changes.get("shards", job.num_shards), changes.get("part")
                )
            case "train":
                tasks, spread = self._training(job, changes.get("checkpoint_every"))
            case "corpus" | "curate":
                size = (
                    self.config.base.corpus.documents
                    if isinstance(self.config.base, Scratch) and job.stage == "corpus"
                    else self.candidates(job.round)
                )
                tasks, spread = (
                    [self._task(job, self.known.pace(job.stage, job.round)(size), 1.0)],
                    self.known.pace(job.stage, job.round).job_sigma,
                )
        tasks = tasks[: len(job.missing)] if not changes else tasks
        waited = self.known.waited(job.stage, job.round)
        return JobLoad(
            name=job.name, after=job.after, tasks=tuple(tasks), width=self.site.widths[job.stage], spread=spread,
            straggle=self.known.pace(job.stage, job.round).task_sigma, start_spread=self.known.started(job.stage, job.round).sigma,
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
        here_s = (
            self.known.waited(job.stage, job.round).value if self.site.slots else 0.0
        )  # here the wait is for the slot's last process to go
        start_s = here_s + self.known.started(job.stage, job.round).value + more_s
        end_s = self.known.ended(job.stage, job.round).value
        return TaskLoad(
            start_s=start_s, unit_s=unit_s, units=units, keep_every=keep_every, save_s=save_s, end_s=end_s
        )

    def _generating(self, job: Job, shards: int, part: int | None) -> tuple[list[TaskLoad], float]:
        section = getattr(self.config, job.stage)
        pace, length = self.known.pace(job.stage, job.round), self.length(job.stage, job.round)
        items, per_item = self.items(job.stage, job.round), self.samples_per_item(job.stage) * length.value
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
        steps, size, tokens, sigma = self.lesson(job.round)
        settings = (
            self.config.base.train
            if job.round == 0 and isinstance(self.config.base, Scratch)
            else self.config.train
        )
        assert settings is not None, "a train job is planned only for runs that train"
        before = self.known.share("train", job.round, "logp_s", "tokens") or NOTHING
        pace = self.known.pace("train", job.round)
        task = self._task(
            job, pace(size / self.site.ranks), steps, more_s=before.value * tokens if job.round else 0.0,
            keep_every=checkpoint_every or settings.checkpoint_every, save_s=self.known.saved("train", job.round).value,
        )  # fmt: skip
        return [task], math.hypot(pace.job_sigma, sigma)

    def lesson(self, round: int) -> tuple[int, float, float, float]:
        """Optimizer steps of a training, tokens in each, tokens in all once, and how unsure that is."""
        base = self.config.base
        if round == 0 and isinstance(base, Scratch):
            per_document = self.known.share("corpus", 0, "tokens", "documents") or NOTHING
            tokens = per_document.value * base.corpus.documents
            return (
                max(1, math.ceil(tokens * base.train.epochs / base.train.batch_tokens)),
                float(base.train.batch_tokens),
                tokens,
                per_document.sigma,
            )
        train, respond = self.config.train, self.config.respond
        assert train is not None and respond is not None, "a run that trains responds"
        kept = self.known.share("train", round, "kept", "groups") or Measure(1.0, 0.0)
        length = self.length("respond", round)
        samples = (self.items("respond", round) - respond.anchors) * kept.value * respond.samples
        most = train.max_groups(respond.samples)
        learned = samples if most is None else min(samples, most * respond.samples)
        steps = max(1, math.ceil(learned / train.batch_samples)) * train.epochs
        return (
            min(steps, train.max_steps or steps),
            learned * train.epochs / steps * length.value,
            learned * length.value,
            math.hypot(kept.sigma * (learned == samples), length.sigma),
        )

    def items(self, stage: StageName, round: int) -> float:
        """Prompts, questions or problems of a whole generating stage."""
        c = self.config
        match stage:
            case "propose" if c.propose:
                return c.propose.prompts
            case "respond" if c.respond:
                own = c.respond.problems.per_round if c.respond.problems else self.kept_instructions(round)
                return own + c.respond.anchors
            case _:
                return num_problems(c, self.rows)

    def candidates(self, round: int) -> float:
        accepted = self.known.share("propose", round, "accepted", "samples") or Measure(1.0, 0.0)
        return self.config.propose.prompts * accepted.value if self.config.propose else 0.0

    def kept_instructions(self, round: int) -> float:
        novel = self.known.share("curate", round, "novel", "candidates") or Measure(1.0, 0.0)
        most = self.config.curate.max_instructions if self.config.curate else 0
        return float(min(most, math.floor(self.candidates(round) * novel.value)))

    def samples_per_item(self, stage: StageName) -> int:
        c = self.config
        return (
            c.respond.samples
            if stage == "respond" and c.respond
            else 1 + c.score.samples
            if stage == "score" and c.score
            else 1
        )

    def length(self, stage: StageName, round: int) -> Measure:
        """Tokens of a sample; at most what may be sampled."""
        c = self.config
        most = c.score.max_tokens if stage == "score" and c.score else getattr(c, stage).sampling.max_tokens
        known = self.known.share(stage, round, "tokens", "samples")
        return Measure(min(known.value, most), known.sigma) if known else Measure(most, 0.0)

    def tokens(self, job: Job) -> int:
        if job.stage not in ("propose", "respond", "score"):
            return 0
        share = len(job.missing) / job.num_shards
        return int(
            self.items(job.stage, job.round)
            * self.samples_per_item(job.stage)
            * self.length(job.stage, job.round).value
            * share
        )

    def bytes(self, job: Job) -> int:
        share = len(job.missing) / job.num_shards
        if job.stage in ("propose", "respond", "score"):
            per_token = self.known.share(job.stage, job.round, "bytes", "tokens") or NOTHING
            return int(per_token.value * self.tokens(job))
        below = {"corpus": "documents", "curate": "kept", "train": "policies"}[job.stage]
        per = self.known.share(job.stage, job.round, "bytes", below) or NOTHING
        documents = self.config.base.corpus.documents if isinstance(self.config.base, Scratch) else 0
        return int(
            per.value
            * share
            * {"corpus": documents, "curate": self.kept_instructions(job.round), "train": 1}[job.stage]
        )

    def files(self, job: Job) -> int:
        rows = self.known.of(job.stage, job.round)
        return round(sum(r.files for r in rows) / len(rows)) * len(job.missing) if rows else 0
