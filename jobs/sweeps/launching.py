"""From a sweep file to its runs: all is checked before anything is made, and making it twice makes it once.

The trials' code is frozen once for all of them, in the sweep's folder, and each run's `code` is a link to it.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from jobs.chain.drive import run_here as run_one_here
from jobs.chain.local import ShardFailed, Stopped
from jobs.plan.chain import Job, bounds_of, plan
from jobs.plan.cluster import Local
from jobs.plan.preflight import check_space, distinct, preflight, world_of
from jobs.runs.code import code_version, freeze_code, frozen_digest, packages_of
from jobs.runs.differ import leaves
from jobs.runs.shared import Outside, shared_keys
from jobs.shell.screen import say
from jobs.sweeps.schema import SweepConfig, load_sweep_file
from jobs.sweeps.trials import Sweep, Trial, configs_of, load_sweep, save_sweep, sweep_dir, trials_of
from serl.config.run import RunConfig
from serl.run.rundir import Run, RunError, ending
from serl.run.signals import Stop
from serl.stages.kind import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A sweep file, resolved. Nothing of it exists yet, or all may."""

    data: Path
    config: SweepConfig
    trials: tuple[Trial, ...]
    configs: tuple[RunConfig, ...]  # of each trial
    keys: tuple[Mapping[str, str], ...]  # of what each trial shares, by the job's name

    def root(self, trial: Trial) -> Path:
        return self.data / "runs" / trial.run

    def chain(self, number: int) -> list[Job]:
        """The jobs of a trial, as it stands now."""
        run = self.trials[number].opened(self.data)
        return plan(run.config, run.survey()) if run else plan(self.configs[number], lambda shard: False)


def draft_sweep(path: Path, data: Path) -> Draft:
    """Reads and checks the file and every trial of it; writes nothing."""
    config = load_sweep_file(path)
    trials = trials_of(config)
    configs = configs_of(path, config, trials)
    outside = Outside(data)
    keys = [shared_keys(c, outside) if config.share else {} for c in configs]
    draft = Draft(data=data, config=config, trials=tuple(trials), configs=tuple(configs), keys=tuple(keys))
    for problem in _incoherences(draft):
        raise ValueError(f"{path}: {problem}")
    return draft


def _incoherences(draft: Draft) -> Iterator[str]:
    rule = draft.config.early_stop
    seen: dict[str, Trial] = {}
    for trial, config in zip(draft.trials, draft.configs, strict=True):
        twin = seen.setdefault(json.dumps(config.model_dump(mode="json", exclude={"name"})), trial)
        if twin is not trial:
            same = "their configurations are equal; take one out"
            yield f"trial {trial} is the same run as trial {twin}: {same}"
        if rule and not any(s.kind.gives == "grades" for s in config.stages):
            yield f"early_stop: trial {trial} has no score section to compare by"
        if rule and rule.after_round >= config.rounds:
            many = f"trial {trial} has {config.rounds} rounds; stop after an earlier one"
            yield f"early_stop.after_round {rule.after_round}: {many}"


def prepare(draft: Draft, *, at_once: int = 1) -> list[Run]:
    """Check, record, create missing runs, in an order that no crash can spoil. `at_once` trials work."""
    for trial, config in zip(draft.trials, draft.configs, strict=True):
        if run := trial.opened(draft.data):
            _check_same(run, trial, config)
    _preflight(draft, at_once)
    _record(draft)
    code = code_of(draft)
    code.parent.mkdir(exist_ok=True)
    freeze_code(code, list(dict.fromkeys(p for config in draft.configs for p in packages_of(config))))
    version = code_version()
    return [_run(draft, i, code, version) for i in range(len(draft.trials))]


def code_of(draft: Draft) -> Path:
    """Where the code of this launch lies, for all of the sweep's runs that it creates."""
    return sweep_dir(draft.data, draft.config.name) / "code" / frozen_digest()


def _preflight(draft: Draft, at_once: int) -> None:
    """Each set of inputs once, and the space for all that is to do: what is shared once."""
    done: set[str] = set()
    sizes: dict[str, World] = {}
    lasting, passing = 0, []
    for number, (config, keys) in enumerate(zip(draft.configs, draft.keys, strict=True)):
        jobs = [job for job in draft.chain(number) if job.missing and keys.get(job.name) not in done]
        own = _inputs(config)
        if jobs and own not in sizes:
            preflight(config, draft.data, ())
            sizes[own] = world_of(config, draft.data)
        bounds = [bounds_of(config, job, sizes[own]) for job in jobs]
        lasting += sum(b.bytes for b in bounds)
        passing.append(max((b.temporary_bytes for b in bounds), default=0))
        done |= set(keys.values())
    check_space(draft.data, lasting + sum(sorted(passing)[-at_once:]))


def _inputs(config: RunConfig) -> str:
    """All that names what lies outside the run, as text: equal texts need one look."""
    stages = {s.job: s.section.model_dump(mode="json") for s in distinct(config) if not s.role}
    return json.dumps([config.model_dump(mode="json", include={"base", "seeds"}), stages], sort_keys=True)


def _check_same(run: Run, trial: Trial, config: RunConfig) -> None:
    """A trial that was launched keeps its configuration: results of two must not stand under one id."""
    wanted = config.cut(run.config.rounds) if ending(run.root) else config
    if run.config != wanted:
        old, new = (dict(leaves(c.model_dump(mode="json"))) for c in (run.config, wanted))
        keys = ", ".join(key for key in {**old, **new} if old.get(key) != new.get(key))
        raise RunError(
            f"{run.root}: trial {trial} was launched with another configuration (it differs in {keys}): the "
            "base file has changed since; restore it, or give the sweep another name"
        )


def _record(draft: Draft) -> None:
    """Trials that the file no longer names stay in the record, whole, and are left as they are."""
    name, trials = draft.config.name, {t.id: t for t in draft.trials}
    try:
        earlier = load_sweep(draft.data, name)
        kept = [trials.pop(t.id, None) or t.whole(earlier.config.overrides) for t in earlier.trials]
    except RunError:
        kept = []  # the first launch, or a record of another version, which is written anew
    save_sweep(draft.data, Sweep(name=name, config=draft.config, trials=(*kept, *trials.values())))


def _run(draft: Draft, number: int, code: Path, version: str) -> Run:
    """Created if need be. One that was cut off before its code was linked gets it now, if it is the same."""
    root, keys = draft.root(draft.trials[number]), draft.keys[number]
    if not root.exists():
        Run.create(root, draft.configs[number], version, shared=keys, sweep=draft.config.name)
    run = Run.open(root)
    if not (root / "code").exists():
        if dict(run.shared) != dict(keys):
            raise RunError(
                f"{root}: its launch died before its code was frozen, and the code or its inputs changed "
                "since; remove the folder and launch again"
            )
        os.symlink(os.path.relpath(code, root), root / "code")
    return run


def run_here(draft: Draft, runs: Sequence[Run], cluster: Local, console: Console) -> int:
    """One trial after another here; returns how many failed, which does not keep the others from running."""
    stop, failed = Stop(), 0
    for number, (trial, run) in enumerate(zip(draft.trials, runs, strict=True), 1):
        if not any(job.missing for job in plan(run.config, run.done)):
            continue
        head = f"\ntrial {number} of {len(runs)}, {run.root.name}: {trial}"
        say(head, style="bold", console=console)
        try:
            run_one_here(run, cluster, stop)
        except (ShardFailed, RunError) as e:  # also: damaged, or being run by somebody else
            say(str(e), style="red", console=console)
            failed += 1
        if stop.requested:
            raise Stopped
    return failed
