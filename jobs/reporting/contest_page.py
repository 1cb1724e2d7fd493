"""The tables of settings beside each other, of a sweep and of several models: for CSV whole, and for the
page, which `templates/contest.md` puts in order.
"""

import json
from collections.abc import Iterator

from pydantic import JsonValue

from jobs.reporting.board import Scalar, Session
from jobs.reporting.contest import Contest, Tried
from jobs.reporting.render import Table, listing
from jobs.sweeps.trials import Trial

MAX_ROWS = 60  # of settings and pairs on the page; the CSV files have all
MAX_TRIALS = 200
PAIRS = (
    "benchmark | first | second | difference = found.difference | low = found.low | high = found.high"
    " | seeds = found.num_seeds | problems = found.num_problems | p = found.p | p_holm = p | verdict = word"
)
SETTINGS = (
    "rank | setting = of.label | benchmark | role | seeds = seeds.n | trials | mean = seeds.value"
    " | stderr = seeds.stderr | low = seeds.low | high = seeds.high | problems_low = problems.low"
    " | problems_high = problems.high | overrides"
)
TRIALS = (
    "trial = 0.id | run = 0.name | setting = 0.setting | replicate = 0.replicate | state = 0.word | round = 1"
    " | chosen = 2 | benchmark = 3 | role = 4 | score = 5 | used_s = 0.cost.used_s"
    " | lost_s = 0.cost.all_lost_s | gpu_hours = 0.cost.gpu_hours | reason = 0.reason"
)
SCORES = (
    "run = 0.run.root.name | round = 0.chosen | benchmark = 1 | role = 2 | metric = 3 | value = 4.value"
    " | stderr = 4.stderr | low = 4.low | high = 4.high | n = 4.n"
)


def files(found: Contest) -> dict[str, Table]:
    """The CSV files beside the page: models have their scores, trials what they are and came to."""
    pairs = {"pairs.csv": listing(found.pairs, PAIRS)}
    scores = [
        (t, name, found.role(name), metric, score)
        for t in found.trials
        for name, summary in t.scores.items()
        for metric, score in summary.metrics.items()
    ]
    if scores:
        return {"report.csv": listing(scores, SCORES)} | pairs
    trials = [row for t in found.trials for row in _by_round(found, t)]
    return {
        "report.csv": listing(trials, TRIALS),
        "settings.csv": listing(standings(found), SETTINGS),
    } | pairs


def _by_round(found: Contest, t: Tried) -> list[tuple]:
    """A row for each round and benchmark, or one without them for a trial that has no score."""
    rows = [(t, r, int(r == t.chosen), name, found.role(name), x) for r, name, x in t.course]
    return rows or [(t, *[None] * 5)]


def facts(found: Contest) -> dict[str, object]:
    """What the page's template is told."""
    order = sorted(found.pairs, key=lambda p: (found.benchmarks.index(p.benchmark), p.p, p.found.p))
    told = {"found": found, "standings": standings(found), "pairs": order}
    return told | {"most": MAX_ROWS, "most_trials": MAX_TRIALS}


def summary_table(found: Contest) -> Table:
    """A row per setting, best first: its seeds, and means with intervals over seeds."""
    shown = [
        {
            "setting": s.label,
            "seeds": f"{len(s.over)}/{len(s.trials)}",
            "hours": sum(t.hours for t in s.trials),
        }
        | {f"score/{name}": s.told(name) for name in found.columns}
        for s in found.settings[:MAX_ROWS]
    ]
    scores = {name: f"score/{name}" for name in found.columns}
    return listing(shown, {"setting": "setting", "seeds": "seeds"} | scores | {"task-hours": "hours:.2f"})


def standings(found: Contest) -> list[dict]:
    """Each setting on each benchmark that anything is known of: over seeds, and over problems."""
    return [
        {"rank": rank, "of": s, "benchmark": name, "role": found.role(name), "seeds": seeds}
        | {"trials": len(s.trials), "problems": s.problems(name)}
        | {"rounds": ", ".join(map(str, sorted({t.chosen for t in s.over.values()})))}
        | {"overrides": json.dumps(s.overrides, sort_keys=True)}
        for rank, s in enumerate(found.settings, 1)
        for name in found.columns
        if (seeds := s.seeds(name)).n
    ]


def sessions(found: Contest) -> Iterator[Session]:
    """For TensorBoard: each trial that has a score. A key of which some value is no number has texts
    throughout.
    """
    words = {k for t in found.trials for k, v in t.overrides.items() if type(v) not in (int, float)}
    for t in (t for t in found.trials if t.chosen is not None):
        known = {k: _text(k, v) if k in words else v for k, v in t.overrides.items()}
        final = [Scalar(f"final/{name}", t.chosen, x) for name, x in t.counts.items()]
        scalars = [*(Scalar(f"score/{name}", r, x) for r, name, x in t.course), *final]
        yield Session(t.name, t.id, known, scalars)


def _text(key: str, value: JsonValue) -> str:
    """A value as the sweep's own table shows it."""
    return str(Trial(id="", overrides={key: value}, run="")).removeprefix(f"{key}=")
