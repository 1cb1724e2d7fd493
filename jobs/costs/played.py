"""What what-if plays: the jobs of a run, or of all trials of a sweep in their lanes, as loads for the simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from jobs.costs.calibration import Calibration, load_calibration, model_label
from jobs.costs.loads import Planner, site_of
from jobs.costs.tasks import JobLoad
from jobs.plan.chain import Job, plan
from jobs.plan.cluster import Local, Slurm
from jobs.plan.preflight import world_of
from jobs.shell.command import load_run
from jobs.sweeps import lanes
from jobs.sweeps.launching import draft_sweep
from serl.config.run import RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What is to be played: the loads of one run or of all trials; one trial's own jobs stand for all in the tables of shards and checkpoints."""

    name: str
    config: RunConfig
    jobs: tuple[Job, ...]
    loads: tuple[JobLoad, ...]
    planner: Planner
    gpus: Mapping[str, int]


def chain_of(path: Path, overrides: Sequence[str], cluster: Local | Slurm, data: Path) -> Chain:
    """Of a run file or a sweep file. Refuses what was never measured on the cluster."""
    if _is_sweep(path):
        if overrides:
            raise ValueError(f"{path}: overrides are for run files; a sweep file has its own `overrides`")
        return _sweep_chain(path, cluster, data)
    config = load_run(path, overrides)
    planner = _planner(config, cluster, data, {})
    jobs = tuple(plan(config, lambda shard: False))
    loads = tuple(planner.load(job) for job in jobs)
    return Chain(
        name=config.name,
        config=config,
        jobs=jobs,
        loads=loads,
        planner=planner,
        gpus={j.name: planner.site.gpus[j.stage] for j in jobs},
    )


def _is_sweep(path: Path) -> bool:
    """A sweep file has a space; `load` says what is wrong with a file that cannot be read."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and "space" in content


def _planner(
    config: RunConfig, cluster: Local | Slurm, data: Path, calibrations: dict[str, Calibration]
) -> Planner:
    """`calibrations`, by model, keeps what was read for one trial for the next."""
    site, model = site_of(cluster, config), model_label(config, data)
    if model not in calibrations:
        calibrations[model] = load_calibration(data, site.label, model)
    _check_known(config, calibrations[model])
    return Planner(config=config, known=calibrations[model], site=site, rows=world_of(config, data).rows)


def _check_known(config: RunConfig, known: Calibration) -> None:
    unknown = dict.fromkeys(
        job.stage for job in plan(config, lambda shard: False) if not known.knows(job.stage, job.round)
    )
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: never measured with {known.model} on {known.cluster}, so there is nothing to play; launch a small run there "
            "(like rounds=1) and write its report: `python -m jobs.report RUN`"
        )


def _sweep_chain(path: Path, cluster: Local | Slurm, data: Path) -> Chain:
    """All trials, each lane's one after another; a stage that several share is played once."""
    draft = draft_sweep(path, data)
    num_lanes = lanes.count(draft.config.cap, draft.configs, cluster) if isinstance(cluster, Slurm) else 1
    calibrations: dict[str, Calibration] = {}
    loads: dict[str, JobLoad] = {}
    gpus: dict[str, int] = {}
    tails: dict[int, tuple[str, ...]] = {}
    first: tuple[Planner, tuple[Job, ...]] | None = None
    for number, (config, keys) in enumerate(zip(draft.configs, draft.keys, strict=True)):
        planner = _planner(config, cluster, data, calibrations)
        jobs = tuple(plan(config, lambda shard: False))
        first = first or (planner, jobs)
        names = {job.name: keys.get(job.name) or f"{config.name}/{number}/{job.name}" for job in jobs}
        lane, scored = number % num_lanes, lanes.waits_in_lane(config) if isinstance(cluster, Slurm) else {}
        for job in jobs:
            if names[job.name] not in loads:
                before = (*job.after, scored[job.name]) if job.name in scored else job.after
                turn = () if job.name in keys or any(n not in keys for n in before) else tails.get(lane, ())
                loads[names[job.name]] = replace(
                    planner.load(job), name=names[job.name], after=(*(names[n] for n in before), *turn)
                )
                gpus[names[job.name]] = planner.site.gpus[job.stage]
        own = {n for job in jobs for n in (names[a] for a in job.after)}
        tails[lane] = tuple(n for n in names.values() if n not in own)
    assert first is not None, "a sweep has a trial"
    planner, jobs = first
    return Chain(
        name=draft.config.name,
        config=planner.config,
        jobs=jobs,
        loads=tuple(loads.values()),
        planner=planner,
        gpus=gpus,
    )
