"""What-if: a run, or all trials of a sweep in their lanes, on other nodes and with other shards, parts and
checkpoint intervals, as lines of tables.

Of shards, parts and checkpoints those of the last round of one run alone are tried; a sweep's first trial
stands for all. What is `wasted_s` is start-ups, the tasks' own and the repeated ones, lost work, and what
smaller parts or more saves cost.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from jobs.costs.calibration import load_calibration, model_label
from jobs.costs.loads import Planner, site_of
from jobs.costs.simulate import check, study
from jobs.costs.tasks import JobLoad, TaskLoad, World, daly_interval_s, expected_s
from jobs.plan.chain import Job, own_work, plan
from jobs.plan.cluster import Local, Slurm
from jobs.shell.command import load_run
from jobs.sweeps import lanes
from jobs.sweeps.launching import draft_sweep
from serl.config.files import read
from serl.config.run import RunConfig

HIGH = 0.9
SHARDS = (1, 2, 4, 8, 16, 32, 64, 128)
INTERVALS = (0.25, 0.5, 1.0, 2.0, 4.0)
Line = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """All loads; `jobs` and `planner` are of one trial."""

    name: str
    jobs: tuple[Job, ...]
    loads: tuple[JobLoad, ...]
    planner: Planner

    def last(self) -> Iterator[Job]:
        """The jobs of the last round."""
        last = max(job.round for job in self.jobs)
        return (job for job in self.jobs if job.round == last)

    def lone(self, job: Job, world: World) -> float:
        """How often an hour a task of the job alone is taken away."""
        return world.preempt_per_hour * self.planner.site.widths[job.stage]


def chain_of(path: Path, overrides: Sequence[str], cluster: Local | Slurm, data: Path) -> Chain:
    """Of a run file or a sweep file. Refuses what was never measured on the cluster."""
    if "space" not in read(path).tree:
        config = load_run(path, overrides)
        return _chain(config.name, cluster, data, [config], [{}], 1)
    if overrides:
        raise ValueError(f"{path}: overrides are for run files; a sweep file has its own `overrides`")
    draft = draft_sweep(path, data)
    num_lanes = lanes.count(draft.config.cap, draft.configs, cluster) if isinstance(cluster, Slurm) else 1
    return _chain(draft.config.name, cluster, data, draft.configs, draft.keys, num_lanes)


def _chain(
    name: str,
    cluster: Local | Slurm,
    data: Path,
    configs: Sequence[RunConfig],
    keys: Sequence[Mapping[str, str]],
    num_lanes: int,
) -> Chain:
    """All runs, each lane's one after another; a stage that several share is played once."""
    known = cache(lambda model: load_calibration(data, site_of(cluster, configs[0]).label, model))
    planners = [Planner.of(c, cluster, data, known(model_label(c, data))) for c in configs]
    chains = [tuple(own_work(plan(c, lambda shard: False))) for c in configs]
    loads: dict[str, JobLoad] = {}
    tails: dict[int, tuple[str, ...]] = {}
    for number, (config, planner, jobs, shared) in enumerate(zip(configs, planners, chains, keys)):
        _check_known(planner, jobs)
        names = {job.name: shared.get(job.name) or f"{config.name}/{job.name}" for job in jobs}
        if len(configs) == 1:
            names = {job.name: job.name for job in jobs}
        lane, turns = number % num_lanes, len(configs) > 1 and isinstance(cluster, Slurm)
        chained = lanes.waits_in_lane(config) if turns else {}
        for job in jobs:
            if (own := names[job.name]) in loads:
                continue
            before = (*job.after, *([chained[job.name]] if job.name in chained else []))
            alone = job.name not in shared and all(n in shared for n in before)
            after = (*(names[n] for n in before), *(tails.get(lane, ()) if alone else ()))
            loads[own] = replace(planner.load(job), name=own, after=after)
        waited_for = {names[n] for job in jobs for n in job.after}
        tails[lane] = tuple(n for n in names.values() if n not in waited_for)
    return Chain(name=name, jobs=chains[0], loads=tuple(loads.values()), planner=planners[0])


def _check_known(planner: Planner, jobs: Sequence[Job]) -> None:
    if unknown := planner.unknown(jobs):
        raise ValueError(
            f"{', '.join(unknown)}: never measured with {planner.known.model} on {planner.known.cluster}, so "
            "there is nothing to play; launch a small run there (like rounds=1) and write its report: "
            "`python -m jobs.report RUN`"
        )


def possible(chain: Chain, worlds: Sequence[World]) -> tuple[list[World], dict[str, str]]:
    """Worlds in which the chain can run at all, and by their nodes why not in others; refuses if in none."""
    fine: list[World] = []
    refused: dict[str, str] = {}
    for world in worlds:
        try:
            check(chain.loads, world)
            fine.append(world)
        except ValueError as e:
            refused[str(world.slots)] = str(e)
    if not fine:
        raise ValueError(next(iter(refused.values())))
    return fine, refused


def played(chain: Chain, world: World, histories: int) -> Line:
    result = study(chain.loads, world, histories=histories)
    figures = {"median_s": result.quantile(0.5), "high_s": result.quantile(HIGH)}
    figures |= {name: result.mean(name) for name in ("used_s", "lost_s", "repeated_s", "preemptions")}
    line = {"nodes": world.slots, "array_limit": world.array_limit}
    line |= {name: round(x, 1) for name, x in figures.items()}
    return line | {"gpu_hours": round(result.mean("gpu_hours"), 3)}


def shards(chain: Chain, world: World, histories: int) -> Iterator[Line]:
    """Generating stages alone, with other numbers of shards."""
    for job in chain.last():
        most = min(max(2 * job.num_shards, 8), chain.planner.items(job)) if job.of.kind.array else 0
        for count in sorted(n for n in {*SHARDS, job.num_shards} if n <= most):
            load = replace(chain.planner.load(job, shards=count), after=())
            result = study([load], world, histories=histories)
            wasted_s = result.mean("lost_s") + result.mean("repeated_s")
            wasted_s += sum(t.start_s for t in load.tasks) * load.width
            yield {
                "stage": job.stage, "round": job.round, "shards": count,
                "seconds": round(result.quantile(0.5), 1), "used_s": round(result.mean("used_s"), 1),
                "wasted_s": round(wasted_s, 1), "now": count == job.num_shards,
            }  # fmt: skip


def parts(chain: Chain, world: World) -> Iterator[Line]:
    """Generating stages with other sizes of parts; exact, without grace."""
    for job in (job for job in chain.last() if job.of.kind.array):
        now: int = job.of.section.part_prompts
        rate = chain.lone(job, world)
        ideal_s = min(t.work_s for part in (now, 4 * now) for t in chain.planner.load(job, part=part).tasks)
        for part in sorted({max(1, round(f * now)) for f in INTERVALS}):
            tasks = chain.planner.load(job, part=part).tasks
            wasted_s = sum(expected_s(t, rate) - t.end_s - ideal_s for t in tasks)
            yield {
                "stage": job.stage, "round": job.round, "part": part, "seconds": round(tasks[0].unit_s, 1),
                "wasted_s": round(wasted_s, 1), "now": part == now,
            }  # fmt: skip


def checkpoints(chain: Chain, world: World) -> Iterator[Line]:
    """Trainings with other intervals between saves, around the one that theory knows; without grace."""
    for job in (job for job in chain.last() if job.of.kind.ranks):
        rate = chain.lone(job, world)
        (now,) = chain.planner.load(job).tasks
        for every in sorted(_intervals(now, rate)):
            task = replace(now, keep_every=every)
            yield {
                "round": job.round, "every_steps": every, "minutes": round(every * now.unit_s / 60, 2),
                "wasted_s": round(expected_s(task, rate) - task.work_s - task.end_s, 1),
                "now": every == now.keep_every,
            }  # fmt: skip


def _intervals(now: TaskLoad, rate: float) -> set[int]:
    best = round(daly_interval_s(now.save_s, rate) / now.unit_s) if rate and now.save_s and now.unit_s else 0
    tried = {max(1, round(f * (best or now.keep_every))) for f in INTERVALS} | {now.keep_every}
    return {every for every in tried if every <= max(now.units, now.keep_every)}
