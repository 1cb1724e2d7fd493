"""What the report of settings beside each other shows, of a sweep and of several models, and the same as
rows: the evidence, the costs, and what is not finished. `templates/contest.md` puts it in order.
"""

import json
from collections.abc import Sequence

from jobs.costs.accounting import Cost
from jobs.reporting.board import Scalar, Session
from jobs.reporting.policies import Contest, Pair, Tried
from jobs.reporting.render import Table, interval, table
from jobs.reporting.sweep_findings import is_number, replicate_of, value_text

WORDS = ("done", "ended early", "running", "queued", "held", "stopped", "failed", "damaged", "not begun")
MAX_ROWS = 60  # of settings and pairs on the page; the CSV files have all
MAX_TRIALS = 200


def headline(found: Contest) -> list[str]:
    """The best setting, and against how many others that is shown."""
    trials, settings = len(found.trials), len(found.settings)
    words = {word: n for word in WORDS if (n := sum(t.word == word for t in found.trials))}
    counted = ", ".join(f"{n} {word}" for word, n in words.items())
    sentences = [f"{_some(trials, 'trial')} of {_some(settings, 'setting')}: {counted}."]
    best = next((s for s in found.settings if s.over), None)
    if best is None or not found.ranked_by:
        return [*sentences, "No setting has a score yet."]
    by = "validation" if found.validation else "the reported benchmarks themselves, which flatters the winner"
    top = best.rank(found.ranked_by)
    equal = [s for s in found.settings if len(s.over) == len(best.over) and s.rank(found.ranked_by) == top]
    tied = f" (no better there than {_some(len(equal) - 1, 'other')})" if len(equal) > 1 else ""
    told = "; ".join(f"{n} {interval(best.seeds(n))}" for n in found.benchmarks if best.seeds(n).n)
    sentences.append(f"Best by {by}{tied}: {best.label}, {_some(len(best.over), 'seed')}: {told}.")
    for name in found.benchmarks:
        mine = [p for p in found.pairs if p.benchmark == name and best.label in (p.first, p.second)]
        gains = [p.word if p.second == best.label else _opposite(p.word) for p in mine]
        worse = gains.count("worse")
        unlike = f", and worse than {worse}" if worse else ""
        shown = f"shown better than {gains.count('better')} of {len(mine)} other settings{unlike}"
        sentences += [f"On {name} it is {shown}."] if mine else []
    return sentences


def _some(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _opposite(word: str) -> str:
    return {"better": "worse", "worse": "better"}.get(word, word)


# ----------------------------------------------------------------------------------- tables
def summary_table(found: Contest) -> Table:
    """A row per setting, best first: its seeds, and means with intervals over seeds."""
    rows = []
    for s in found.settings[:MAX_ROWS]:
        hours = f"{s.cost.used_s / 3600:.2f}"
        rows.append((s.label, f"{len(s.over)}/{len(s.trials)}", *map(s.told, found.columns), hours))
    return table(("setting", "seeds", *found.columns, "task-hours"), rows)


def settings(found: Contest, names: Sequence[str]) -> list[Table]:
    """For each benchmark that anything is known of, to be read downwards."""
    return [shown for name in names if (shown := _setting(found, name))]


def _setting(found: Contest, name: str) -> Table:
    rows = []
    for number, s in enumerate(found.settings[:MAX_ROWS], 1):
        if (seeds := s.seeds(name)).n:
            within, base = s.problems(name), s.base(name)
            rounds = ", ".join(map(str, sorted({t.chosen for t in s.over.values()})))
            told = f"[{within.low:.3f}, {within.high:.3f}]"
            rows.append((number, s.label, seeds.n, seeds, told, base.value if base.n else None, rounds))
    return table(("", name, "seeds", "mean [over seeds]", "over problems", "base model", "rounds"), rows)


def costs(found: Contest) -> Table:
    costs = [(s.label, s.cost, len(s.trials)) for s in found.settings]
    total = ("all", sum((c for _, c, _ in costs), Cost()), len(found.trials))
    rows = [(label, *_cost_cells(c, n)) for label, c, n in (*costs[:MAX_ROWS], total)]
    header = "setting | trials | task-hours | per trial | lost | GPU-hours | per trial"
    return table(header, rows if total[1].attempts else [])


def _cost_cells(c: Cost, trials: int) -> tuple[object, ...]:
    hours, gpus = c.used_s / 3600, c.gpu_hours
    lost = f"{c.all_lost_s / c.used_s:.1%}" if c.used_s else None
    by_gpu = (f"{gpus:.2f}", f"{gpus / trials:.2f}") if gpus else (None, None)
    return trials, hours, hours / trials, lost, *by_gpu


def unfinished(found: Contest) -> Table:
    rows = [
        (t.name, s.label, _replicate(found, t), t.word, t.reason)
        for s in found.settings
        for t in s.trials
        if t.word != "done"
    ]
    return table(("run", "setting", found.replicate, "state", "reason"), rows[:MAX_TRIALS])


def _replicate(found: Contest, t: Tried) -> str | None:
    return replicate_of(t, found.replicate) if found.replicate in t.overrides else None


def trials(found: Contest) -> Table:
    """What counts of each, and where it comes from."""
    rows = []
    for s in found.settings:
        for t in s.trials:
            scores = map(t.means.get(t.chosen, {}).get, found.columns)
            gpus = f"{t.cost.gpu_hours:.2f}" if t.cost.gpu_hours else None
            origin = (t.run.digest, t.run.code) if t.run else (None, None)
            start = (t.name, s.label, _replicate(found, t), t.word, t.chosen)
            rows.append((*start, *scores, t.cost.used_s / 3600, gpus, *origin))
    first, last = (
        ("run", "setting", found.replicate, "state", "round"),
        ("task-hours", "GPU-hours", "digest", "code"),
    )
    return table((*first, *found.columns, *last), rows[:MAX_TRIALS])


# ----------------------------------------------------------------------------------- for other programs
def pair_table(found: Contest) -> Table:
    """Tests for a reader, the surest first."""
    order = sorted(found.pairs, key=lambda p: (found.benchmarks.index(p.benchmark), p.p, p.found.p))
    rows = []
    for p in order[:MAX_ROWS]:
        d = p.found
        told = (f"{d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}]", f"{d.num_seeds}, {d.num_problems}")
        rows.append((p.benchmark, p.second, p.first, p.word, *told, f"{d.p:.2g}", f"{p.p:.2g}"))
    header = "benchmark | setting | against | verdict | difference | seeds, problems | p | p (Holm)"
    return table(header, rows)


def pair_rows(pairs: Sequence[Pair]) -> Table:
    """The same for programs."""
    return table(
        "benchmark | first | second | difference | low | high | seeds | problems | p | p_holm | verdict",
        (
            (p.benchmark, p.first, p.second, d.difference, d.low, d.high, d.num_seeds, d.num_problems, d.p,
             p.p, p.word)
            for p in pairs for d in (p.found,)
        ),
    )  # fmt: skip


def trial_rows(found: Contest) -> Table:
    """A row for each trial, round and benchmark, and one without them for a trial that has no score."""
    key, rows = found.replicate, []
    for s in found.settings:
        for t in s.trials:
            start = (t.id, t.name, s.label, replicate_of(t, key), t.word)
            scores = [
                (r, int(r == t.chosen), name, found.role(name), value)
                for r, means in sorted(t.means.items())
                for name, value in means.items()
            ]
            end = (t.cost.used_s, t.cost.all_lost_s, t.cost.gpu_hours, t.reason)
            rows += [(*start, *score, *end) for score in scores or [(None,) * 5]]
    header = "trial | run | setting | replicate | state | round | chosen | benchmark | role | score"
    return table(f"{header} | used_s | lost_s | gpu_hours | reason", rows)


def setting_rows(found: Contest) -> Table:
    """A row for each setting and benchmark: over seeds and over problems."""
    rows = []
    for rank, s in enumerate(found.settings, 1):
        overrides = json.dumps(s.overrides, sort_keys=True)
        for name in found.columns:
            if (v := s.seeds(name)).n:
                within = s.problems(name)
                seeds = (v.n, len(s.trials), v.value, v.stderr, v.low, v.high)
                ends = (within.low, within.high, s.base(name).value, overrides)
                rows.append((rank, s.label, name, found.role(name), *seeds, *ends))
    header = "rank | setting | benchmark | role | seeds | trials | mean | stderr | low | high"
    return table(f"{header} | problems_low | problems_high | base | overrides", rows)


def sessions(found: Contest) -> list[Session]:
    """For TensorBoard: each trial that has a score. A key of which some value is no number has texts
    throughout.
    """
    keys = dict.fromkeys(key for t in found.trials for key in t.overrides)
    words = {k for k in keys if not all(is_number(t.overrides[k]) for t in found.trials if k in t.overrides)}
    made = []
    for t in found.trials:
        if t.chosen is not None:
            texts = {key: value_text(key, t.overrides.get(key)) for key in keys if key in words}
            by_round = [(r, name, x) for r, means in sorted(t.means.items()) for name, x in means.items()]
            scores = [Scalar(f"score/{name}", round, value) for round, name, value in by_round]
            final = [Scalar(f"final/{name}", t.chosen, value) for name, value in t.means[t.chosen].items()]
            end = "success" if t.over else "failure" if t.word == "failed" else "running"
            made.append(Session(t.name, t.id, {**t.overrides, **texts}, [*scores, *final], end))
    return made
