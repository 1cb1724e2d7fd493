"""The tables of settings beside each other, of a sweep and of several models: for CSV whole, and for the
page, which `templates/contest.md` puts in order.
"""

import json
from collections.abc import Mapping

from jobs.costs.accounting import Cost
from jobs.reporting.board import Scalar, Session
from jobs.reporting.policies import Contest, Setting, Tried
from jobs.reporting.render import Table, listing
from jobs.reporting.sweep_findings import is_number, replicate_of, value_text

MAX_ROWS = 60  # of settings and pairs on the page; the CSV files have all
MAX_TRIALS = 200
PAIRS = (
    "benchmark | first | second | difference = found.difference | low = found.low | high = found.high"
    " | seeds = found.num_seeds | problems = found.num_problems | p = found.p | p_holm = p | verdict = word"
)
SETTINGS = (
    "rank | setting = label | benchmark | role | seeds = seeds.n | trials | mean = seeds.value"
    " | stderr = seeds.stderr | low = seeds.low | high = seeds.high | problems_low = problems.low"
    " | problems_high = problems.high | base = base.value | overrides"
)
TRIALS = (
    "trial = id | run = name | setting | replicate | state = word | round = at.round | chosen = at.chosen"
    " | benchmark = at.benchmark | role = at.role | score = at.mean | used_s = cost.used_s"
    " | lost_s = cost.all_lost_s | gpu_hours = cost.gpu_hours | reason"
)
SCORES = (
    "run | round | benchmark | role | metric | value = mean.value | stderr = mean.stderr | low = mean.low"
    " | high = mean.high | n = mean.n"
)


def files(found: Contest) -> dict[str, Table]:
    """The CSV files beside the page: models have their scores, trials what they are and came to."""
    pairs = {"pairs.csv": listing(found.pairs, PAIRS)}
    if any(t.scores for t in found.trials):
        return {"report.csv": listing(_scores(found), SCORES)} | pairs
    settings = listing(standings(found), SETTINGS)
    return {"report.csv": listing(_by_round(found), TRIALS), "settings.csv": settings} | pairs


def facts(found: Contest) -> dict[str, object]:
    """What the page's template is told."""
    own = {"found": found, "trials": trials(found), "standings": standings(found), "costs": costs(found)}
    order = sorted(found.pairs, key=lambda p: (found.benchmarks.index(p.benchmark), p.p, p.found.p))
    return own | {"pairs": order, "metrics": _metrics(found), "most": MAX_ROWS, "most_trials": MAX_TRIALS}


def summary_table(found: Contest) -> Table:
    """A row per setting, best first: its seeds, and means with intervals over seeds."""
    shown = [
        {"label": s.label, "seeds": f"{len(s.over)}/{len(s.trials)}", "hours": s.cost.used_s / 3600}
        | {f"score/{name}": s.told(name) for name in found.columns}
        for s in found.settings[:MAX_ROWS]
    ]
    scores = {name: f"score/{name}" for name in found.columns}
    return listing(shown, {"setting": "label", "seeds": "seeds"} | scores | {"task-hours": "hours:.2f"})


def standings(found: Contest) -> list[dict]:
    """Each setting on each benchmark that anything is known of: over seeds, and over problems."""
    return [
        {"rank": rank, "label": s.label, "benchmark": name, "role": found.role(name), "seeds": seeds}
        | {"trials": len(s.trials), "problems": s.problems(name), "base": s.base(name)}
        | {"rounds": ", ".join(map(str, sorted({t.chosen for t in s.over.values()})))}
        | {"overrides": json.dumps(s.overrides, sort_keys=True)}
        for rank, s in enumerate(found.settings, 1)
        for name in found.columns
        if (seeds := s.seeds(name)).n
    ]


def trials(found: Contest) -> list[dict]:
    """What each came to, and where it comes from."""
    return [_trial(found, s, t) for s in found.settings for t in s.trials]


def _trial(found: Contest, s: Setting, t: Tried) -> dict:
    known = {name: getattr(t, name) for name in ("id", "name", "word", "reason", "run", "chosen", "cost")}
    own = {"setting": s.label, "replicate": replicate_of(t, found.replicate), "means": t.means}
    scores = {f"score/{name}": value for name, value in t.counts.items()}
    repeats = own["replicate"] if found.replicate in t.overrides else None
    costs = {"hours": t.cost.used_s / 3600, "gpu_hours": t.cost.gpu_hours or None}
    return known | own | scores | costs | {"repeats": repeats}


def _by_round(found: Contest) -> list[dict]:
    """A row for each trial, round and benchmark, and one without them for a trial that has no score."""
    rows: list[dict] = []
    for t in trials(found):
        scores = [
            {"round": r, "chosen": int(r == t["chosen"]), "benchmark": n, "role": found.role(n), "mean": x}
            for r, means in sorted(t["means"].items())
            for n, x in means.items()
        ]
        rows += [t | {"at": score} for score in scores or [{}]]
    return rows


def costs(found: Contest) -> list[dict]:
    """Of each setting, and of all."""
    all_of_them = sum((s.cost for s in found.settings), Cost())
    told = [(s.label, s.cost, len(s.trials)) for s in found.settings[:MAX_ROWS]]
    return [
        {"setting": label, "trials": n, "hours": c.used_s / 3600, "each": c.used_s / 3600 / n}
        | {"lost": c.all_lost_s / c.used_s if c.used_s else None}
        | ({"gpu_hours": c.gpu_hours, "gpu_each": c.gpu_hours / n} if c.gpu_hours else {})
        for label, c, n in (*told, ("all", all_of_them, len(found.trials)))
        if all_of_them.attempts
    ]


def _scores(found: Contest) -> list[dict]:
    return [
        {"run": t.run.root.name, "round": t.chosen, "benchmark": name, "role": found.role(name)}
        | {"metric": metric, "mean": score}
        for t in found.trials
        for name, summary in t.scores.items()
        for metric, score in summary.metrics.items()
    ]


def _metrics(found: Contest) -> Table:
    """Every metric of every benchmark that is reported, a column for each model."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for t in found.trials:
        for name in (n for n in found.benchmarks if n in t.scores):
            for metric, score in t.scores[name].metrics.items():
                rows.setdefault((name, metric), {"": name, ".": metric})[t.name] = score
    models = {t.name: t.name for t in found.trials}
    return listing(rows.values(), {"benchmark": "", "metric": "."} | models)


# ----------------------------------------------------------------------------------- for TensorBoard
def sessions(found: Contest) -> list[Session]:
    """Each trial that has a score. A key of which some value is no number has texts throughout."""
    keys = dict.fromkeys(key for t in found.trials for key in t.overrides)
    words = {k for k in keys if not all(is_number(t.overrides[k]) for t in found.trials if k in t.overrides)}
    return [_session(t, words) for t in found.trials if t.chosen is not None]


def _session(t: Tried, words: set[str]) -> Session:
    texts = {key: value_text(key, t.overrides.get(key)) for key in words}
    scores = [
        Scalar(f"score/{name}", r, x) for r, means in sorted(t.means.items()) for name, x in means.items()
    ]
    final = [Scalar(f"final/{name}", t.chosen, x) for name, x in t.counts.items()]
    end = "success" if t.over else "failure" if t.word == "failed" else "running"
    settings: Mapping = {**t.overrides, **texts}
    return Session(t.name, t.id, settings, [*scores, *final], end)
