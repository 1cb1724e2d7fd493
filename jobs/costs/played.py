"""What what-if plays: the jobs of a run, or of all trials of a sweep in their lanes, as loads for the
simulator.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.costs.calibration import Calibration, load_calibration, model_label
from jobs.costs.loads import Planner, site_of
from jobs.costs.tasks import JobLoad
from jobs.plan.chain import Job, plan
from jobs.plan.cluster import Local, Slurm
from jobs.plan.preflight import world_of
from jobs.shell.command import load_run
from jobs.sweeps import lanes
from jobs.sweeps.launching import draft_sweep
from serl.config.files import read
from serl.config.run import RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """All loads, and the GPUs of a task of each; `jobs` are of one trial, which stands for all in some
    tables.
    """

    name: str
    jobs: tuple[Job, ...]
    loads: tuple[JobLoad, ...]
    planner: Planner
    gpus: Mapping[str, int]

    def last(self) -> Iterator[Job]:
        """The jobs of the last round."""
        last = max(job.round for job in self.jobs)
        return (job for job in self.jobs if job.round == last)


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
    calibrations: dict[str, Calibration] = {}
    loads: dict[str, JobLoad] = {}
    gpus: dict[str, int] = {}
    tails: dict[int, tuple[str, ...]] = {}
    first: tuple[Planner, tuple[Job, ...]] | None = None
    for number, (config, shared) in enumerate(zip(configs, keys, strict=True)):
        planner = _planner(config, cluster, data, calibrations)
        jobs = tuple(plan(config, lambda shard: False))
        first = first or (planner, jobs)
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
            gpus[own] = planner.site.gpus(job.stage)
        waited_for = {names[n] for job in jobs for n in job.after}
        tails[lane] = tuple(n for n in names.values() if n not in waited_for)
    assert first is not None, "there is a run"
    planner, jobs = first
    return Chain(name=name, jobs=jobs, loads=tuple(loads.values()), planner=planner, gpus=gpus)


def _planner(
    config: RunConfig, cluster: Local | Slurm, data: Path, calibrations: dict[str, Calibration]
) -> Planner:
    """`calibrations`, by model, keeps what was read for one trial for the next."""
    site, model = site_of(cluster, config), model_label(config, data)
    if model not in calibrations:
        calibrations[model] = load_calibration(data, site.label, model)
    known = calibrations[model]
    unknown = dict.fromkeys(s.name for s in config.stages if not known.knows(s.name, s.round))
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: never measured with {known.model} on {known.cluster}, so there is "
            "nothing to play; launch a small run there (like rounds=1) and write its report: "
            "`python -m jobs.report RUN`"
        )
    return Planner(config=config, known=known, site=site, rows=world_of(config, data).rows)
