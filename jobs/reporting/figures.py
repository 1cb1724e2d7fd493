"""The plots of a run's report (scores, votes, training, turns, time), and of settings beside each
other.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from evaluation.summary import Summary
from jobs.reporting.contest import Contest, Setting
from jobs.reporting.found import Course, Findings, RoundFindings, StageFindings
from jobs.reporting.plots import INK, Bar, Line, Plots, curves, grid, intervals, legend
from serl.stages.read import band
from serl.stages.show import Show, show_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOLVED = "share of problems solved"
MAX_PANELS = 6
MAX_BARS = 24
MAX_LINES = 8


def of_run(f: Findings) -> Plots:
    """Every plot of a run, whether or not there are data for it."""
    after, first = f.rounds[1:], f.rounds[:1]
    return {
        "scores": lambda: scores([(r.round, r.scores) for r in f.rounds]),
        "validation": lambda: scores([(r.round, r.validation) for r in f.rounds]),
        "agreement": lambda: agreement(f),
        "accuracy": lambda: accuracy(f),
        "training": lambda: courses(after, "step", lambda s: s.steps, lambda show: show.steps),
        "turns": lambda: courses(after, "turn", lambda s: s.turns, lambda show: show.turns),
        "along": lambda: along(f),
        "base": lambda: courses(first, "step", lambda s: s.steps, lambda show: show.steps),
        "time": lambda: times(f),
    }


def scores(rounds: Sequence[tuple[int, Mapping[str, Summary]]]) -> "Figure | None":
    """Greedy pass@1 and the majority of samples, one panel per benchmark, on the whole scale from 0 to 1."""
    panels: dict[str, list[Line]] = {}
    for name in dict.fromkeys(name for _, benchmarks in rounds for name in benchmarks):
        found = [(round, benchmarks[name].metrics) for round, benchmarks in rounds if name in benchmarks]
        metrics = dict.fromkeys(m for _, by_metric in found for m in by_metric)
        chosen = [m for m in metrics if m == "pass_at_1" or m.startswith("maj_at_")] or list(metrics)
        panels[name] = [
            Line(label=metric.replace("_at_", "@"), course=[(r, m[metric]) for r, m in found if metric in m])
            for metric in chosen
        ]
    return curves(panels, "round", shares=SOLVED)


def accuracy(f: Findings) -> "Figure | None":
    """Whether the majority is right where that is known, beside how sure of itself it is: the two must not
    part.
    """
    found = [(r.round, r.votes) for r in f.rounds if r.votes]
    kinds = dict.fromkeys(kind for _, votes in found for kind in votes.right)
    lines = [
        Line(
            label=f"majority right: {kind}", course=[(n, v.right[kind]) for n, v in found if kind in v.right]
        )
        for kind in kinds
    ]
    own = [(n, v.means["agreement"].value) for n, v in found if v.num_groups]
    lines.append(Line(label="mean agreement (own questions)", course=own))
    return curves({"": lines}, "round", shares="share of questions") if kinds else None


def along(f: Findings) -> "Figure | None":
    """Policies that were published along the way, between the last ones of the rounds."""
    panels: dict[str, list[tuple]] = {}
    for policy, benchmark, score in f.along:
        panels.setdefault(benchmark, []).append((policy.turns, score))
    lines = {name: [Line(label="", course=course)] for name, course in panels.items()}
    return curves(lines, "turn", shares=SOLVED, marks=[p.turns for p in f.policies if not p.turn])


def courses(
    rounds: Sequence[RoundFindings],
    unit: str,
    read: Callable[[StageFindings], Course],
    titles: Callable[[Show], Mapping[str, str]],
) -> "Figure | None":
    """Curves of the optimizer by step or turn: a panel for each figure, in it a line for each training, that
    breaks where one round ends and the next begins.
    """
    ends: dict[str, int] = {}
    marks: dict[str, list[float]] = {}
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for s in (s for r in rounds for s in r.trainings if read(s)):
        start = ends.get(s.name, 0)
        ends[s.name] = start + max(read(s))
        marks.setdefault(s.name, []).append(start + 0.5)
        for key, title in titles(show_of(s.of.kind)).items():
            if points := [(start + n, told[key]) for n, told in read(s).items() if key in told]:
                panels.setdefault(title, {}).setdefault(s.name, []).extend([(start + 0.5, math.nan), *points])
    labels = {name: name if len(ends) > 1 else "" for name in ends}
    lines = {
        title: [Line(label=labels[name], course=found.get(name, [])) for name in ends]
        for title, found in panels.items()
    }
    return curves(lines, unit, marks=next(iter(marks.values()), [])[1:], height=2.1)


def agreement(f: Findings) -> "Figure | None":
    """How many questions have k of N answers in their largest class; ties hatched; the band that is trained
    on marked.
    """
    shown = _spread([r for r in f.rounds if r.votes and r.votes.num_groups])
    if not shown:
        return None
    figure, panels = grid(len(shown), height=2.7)
    for ax, r in zip(panels, shown):
        _spectrum(ax, r)
        shares, by_vote = band(f.run.config, r.round)
        if by_vote and f.run.config.judged(r.round):
            ax.axvspan(*shares, color="#f0e3c8", zorder=0, label="band that is trained on")
    top = max(ax.get_ylim()[1] for ax in panels)
    for ax in panels:
        ax.set_ylim(0, 1.05 * top)
    legend(figure, panels)
    return figure


def _spectrum(ax: "Axes", r: RoundFindings) -> None:
    assert r.votes is not None, "only rounds with votes are shown"
    n, ties = r.votes.num_samples, r.votes.tied
    shares = [k / n for k in range(n + 1)]
    clear = [found - tied for found, tied in zip(r.votes.first, ties)]
    hatched = {"facecolor": "white", "edgecolor": INK, "hatch": "////", "linewidth": 0.5}
    ax.bar(shares, clear, 0.85 / n, color=INK, label="majority (at 0: no votes)")
    ax.bar(shares, ties, 0.85 / n, bottom=clear, label="tie", **hatched)
    ax.set(title=f"round {r.round}: mean {r.votes.means['agreement'].value:.2f}", xlim=(-0.04, 1.04))
    ax.set(xlabel="share of the largest class", ylabel="questions")


def times(f: Findings) -> "Figure | None":
    """Seconds of each stage, stacked by round: what the first round alone has, then as in the others."""
    shown = [r for r in f.rounds if r.started]
    if not shown:
        return None
    figure, (ax,) = grid(1, columns=1, height=0.9 + 0.32 * len(shown))
    later = {s.name: s.of.kind for r in f.rounds[1:] for s in r.of_round}
    first = {s.name: s.of.kind for s in f.rounds[0].of_round if s.name not in later}
    left = [0.0] * len(shown)
    for name, kind in (first | later).items():
        seconds = [sum(s.longest_s for s in r.of_round if s.name == name) for r in shown]
        if any(seconds):
            show = show_of(kind)
            look = {"color": show.colour, "hatch": show.hatch, "edgecolor": INK, "linewidth": 0.5}
            ax.barh(range(len(shown)), seconds, 0.65, left=left, label=name, **look)
            left = [a + b for a, b in zip(left, seconds)]
    ax.set_yticks(range(len(shown)), [f"round {r.round}" for r in shown])
    ax.invert_yaxis()
    ax.set(xlabel="seconds")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _spread(rounds: Sequence[RoundFindings]) -> list[RoundFindings]:
    """At most MAX_PANELS rounds, the first and the last among them, evenly between."""
    if len(rounds) <= MAX_PANELS:
        return list(rounds)
    return [rounds[i * (len(rounds) - 1) // (MAX_PANELS - 1)] for i in range(MAX_PANELS)]


# ----------------------------------------------------------------------------------- settings
def of_contest(found: Contest) -> Plots:
    return {"settings": lambda: _bars(found), "curves": lambda: _curves(found)}


def _bars(found: Contest) -> "Figure | None":
    """The first in orange."""
    shown = [(n, s) for n, s in enumerate(found.settings, 1) if s.over][:MAX_BARS]
    panels: dict[str, list[Bar]] = {}
    for name in found.columns:
        for number, s in shown:
            v = s.told(name)
            if v.n:
                bar = Bar(f"{number}: {s.label}", v.value, v.low, v.high, bold=number == shown[0][0])
                panels.setdefault(name, []).append(bar)
    return intervals(panels, SOLVED)


def _curves(found: Contest) -> "Figure | None":
    trained = [(n, s) for n, s in enumerate(found.settings, 1) if any(len(t.means) > 1 for t in s.trials)]
    panels = {
        name: [_course(f"{number}: {s.label}", s, name) for number, s in trained[:MAX_LINES]]
        for name in found.benchmarks
    }
    return curves({name: lines for name, lines in panels.items() if lines}, "round", shares=SOLVED)


def _course(label: str, s: Setting, benchmark: str) -> Line:
    """The mean where all seeds have come, and each of them."""
    each = [{r: m[benchmark] for r, m in sorted(t.means.items()) if benchmark in m} for t in s.trials]
    each = [course for course in each if course]
    rounds = sorted(set.intersection(*(set(c) for c in each))) if each else []
    mean = [(r, sum(c[r] for c in each) / len(each)) for r in rounds]
    return Line(label=label, course=mean, each=[list(c.items()) for c in each])
