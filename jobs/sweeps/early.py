"""Early stop of a sweep's trials, by a paired comparison; off unless the sweep file asks for it.

Once a trial has graded the round that the sweep names, every job of its later rounds first looks at the
trials of the same replicate that have graded that round too. If this trial is significantly worse than the
best of them it is ended there, with the reason in `ended.json`: after the last round that is whole, for a
rival may come to that round when this trial is far beyond it. Nobody watches from outside. The verdict
depends on which trials have come that far, so early stop trades repeatability of *which* trials go on for
their cost; no trial's data depends on it.
"""

from collections.abc import Mapping

import numpy as np

from evaluation.compare import by_problem
from evaluation.scores import paired
from evaluation.seeds import holm
from jobs.sweeps.trials import Sweep, load_sweep
from serl.run.rundir import Run, RunError, Shard, end_after
from serl.stages.exams import asked, round_grades, scored_rounds

Answers = Mapping[str, float]  # by problem: the share of correct answers


def ends_here(run: Run, shard: Shard) -> bool:
    """Whether the trial is ended before this shard, by this look or an earlier one."""
    if not run.sweep or shard.round < 2 or not _may_end(run, shard):
        return False
    sweep = load_sweep(run.data_root, run.sweep)
    rule = sweep.config.early_stop
    if rule is None or shard.round <= rule.after_round or (mine := answers(run, rule.after_round)) is None:
        return False
    reason = verdict(run.root.name, {run.root.name: mine} | _rivals(sweep, run, rule.after_round), rule.alpha)
    if reason:
        end_after(run.root, shard.round - 1, f"by the scores of round {rule.after_round} {reason}")
    return bool(reason)


def _may_end(run: Run, shard: Shard) -> bool:
    """A training's ranks must not each decide for themselves, and what was trained is graded."""
    stage = run.config.stage(shard.round, shard.stage)
    return not stage.kind.ranks and stage.kind.gives != "grades"


def verdict(trial: str, scored: Mapping[str, Answers], alpha: float) -> str:
    """Why `trial` is to be ended, or nothing: all against the best, paired over problems, after Holm."""
    common = sorted(set.intersection(*(set(found) for found in scored.values())))
    if len(scored) < 2 or not common:
        return ""
    vectors = {name: [found[id] for id in common] for name, found in scored.items()}
    means = {name: float(np.mean(values)) for name, values in vectors.items()}
    best = min(means, key=lambda name: (-means[name], name))
    if means[trial] >= means[best]:
        return ""
    p = {name: paired(vectors[best], vectors[name]).p for name in vectors if name != best}
    adjusted = dict(zip(p, holm(list(p.values()))))[trial]
    if adjusted >= alpha:
        return ""
    return (
        f"significantly worse than {best}: {means[trial]:.3f} to {means[best]:.3f} on {len(common)} "
        f"problems, p {adjusted:.2g} after Holm's correction over {len(p)} trials"
    )


def answers(run: Run, round: int) -> Answers | None:
    """What it got right of the validation benchmarks, else of all; None before it is graded."""
    if round not in scored_rounds(run):
        return None
    reported, apart = asked(run.config)
    found = by_problem([row for row in round_grades(run, round) if row.benchmark in (apart or reported)])
    return {f"{name}/{id}": share for name, problems in found.items() for id, share in problems.items()}


def _rivals(sweep: Sweep, run: Run, round: int) -> dict[str, Answers]:
    """Other trials of its replicate that have graded the round; one that cannot be read has no say."""
    replicates = {t.run: t.overrides.get(sweep.config.replicate) for t in sweep.trials}
    mine = replicates.pop(run.root.name)
    found = {}
    for name, replicate in replicates.items():
        if replicate == mine:
            try:
                theirs = answers(Run.open(run.data_root / "runs" / name), round)
            except RunError:
                continue
            found |= {} if theirs is None else {name: theirs}
    return found
