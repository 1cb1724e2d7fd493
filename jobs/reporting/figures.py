"""The plots of a run's report: scores, votes, the funnel, training, turns, and time."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from evaluation.summary import Summary
from jobs.reporting import along, plots
from jobs.reporting.found import Course, Findings, RoundFindings, StageFindings
from jobs.reporting.plots import GREY, INK, MIDDLE, PALE, Line, Plots, grid, legend
from serl.stages.kind import Kind
from serl.stages.read import band
from serl.stages.show import Passage, Show, show_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 6
MAX_BINS = 24
MAX_LOSSES = 4


def plots_of(f: Findings) -> Plots:
    """Every plot of a run, whether or not there are data for it."""
    return {
        "scores": lambda: scores(f, [(r.round, r.scores) for r in f.rounds]),
        "validation": lambda: scores(f, [(r.round, r.validation) for r in f.rounds]),
        "agreement": lambda: agreement(f),
        "accuracy": lambda: accuracy(f),
        "funnel": lambda: funnels(f),
        "training": lambda: training(f),
        "turns": lambda: turns(f),
        "along": lambda: along.figure(f),
        "base": lambda: base(f),
        "time": lambda: times(f),
    }


def scores(findings: Findings, rounds: Sequence[tuple[int, Mapping[str, Summary]]]) -> "Figure | None":
    """Greedy pass@1 and the majority of samples, one panel per benchmark, on the whole scale from 0 to 1."""
    panels: dict[str, list[Line]] = {}
    for name in dict.fromkeys(name for _, benchmarks in rounds for name in benchmarks):
        found = [(round, benchmarks[name].metrics) for round, benchmarks in rounds if name in benchmarks]
        metrics = dict.fromkeys(m for _, by_metric in found for m in by_metric)
        chosen = [m for m in metrics if m == "pass_at_1" or m.startswith("maj_at_")] or list(metrics)
        panels[name] = [
            Line(
                label="pass@1, greedy" if metric == "pass_at_1" else metric.replace("_at_", "@"),
                course=[(round, m[metric]) for round, m in found if metric in m],
            )
            for metric in chosen
        ]
    return plots.curves(panels, "share of problems solved", rounds=findings.run.config.rounds)


def accuracy(findings: Findings) -> "Figure | None":
    """Whether the majority is right where that is known, beside how sure of itself it is: the two must not
    part.
    """
    found = [(r.round, r.votes) for r in findings.rounds if r.votes]
    kinds = dict.fromkeys(kind for _, votes in found for kind in votes.right)
    if not kinds:
        return None
    lines = [
        Line(
            label=f"majority right: {kind}", course=[(n, v.right[kind]) for n, v in found if kind in v.right]
        )
        for kind in kinds
    ]
    own = [(n, v.agreement.value) for n, v in found if math.isfinite(v.agreement.value)]
    sure = Line(label="mean agreement (own questions)", course=own)
    return plots.curves({"": [*lines, sure]}, "share of questions", rounds=findings.run.config.rounds)


def agreement(findings: Findings) -> "Figure | None":
    """How many questions have k of N answers in their largest class; ties hatched; the band that is trained
    on marked.
    """
    shown = _spread([r for r in findings.rounds if r.votes and r.votes.num_groups])
    if not shown:
        return None
    figure, panels = grid(len(shown), height=2.7)
    config = findings.run.config
    for ax, r in zip(panels, shown):
        _spectrum(ax, r)
        shares, by_vote = band(config, r.round)
        if by_vote and config.judged(r.round):
            ax.axvspan(*shares, color="#f0e3c8", zorder=0, label="band that is trained on")
    top = max(ax.get_ylim()[1] for ax in panels)
    for ax in panels:
        ax.set_ylim(0, 1.05 * top)
    legend(figure, panels)
    return figure


def _spectrum(ax: "Axes", r: RoundFindings) -> None:
    assert r.votes is not None, "only rounds with votes are shown"
    n = r.votes.num_samples
    width = math.ceil((n + 1) / MAX_BINS)
    starts = range(0, n + 1, width)
    ties = [sum(r.votes.tied[k : k + width]) for k in starts]
    clear = [sum(r.votes.first[k : k + width]) - t for k, t in zip(starts, ties)]
    centres = [(k + (min(width, n + 1 - k) - 1) / 2) / n for k in starts]
    hatched = {"facecolor": "white", "edgecolor": INK, "hatch": "////", "linewidth": 0.5}
    ax.bar(centres, clear, 0.85 * width / n, color=INK, label="majority (at 0: no votes)")
    ax.bar(centres, ties, 0.85 * width / n, bottom=clear, label="tie", **hatched)
    ax.set(title=f"round {r.round}: mean {r.votes.agreement.value:.2f}", xlim=(-0.04, 1.04))
    ax.set(xlabel="share of the largest class", ylabel="questions")


def funnels(findings: Findings) -> "Figure | None":
    """Bars for each passage of a round, on a common scale, with the losses in words."""
    shown = _spread([r for r in findings.rounds if r.funnel])
    if not shown:
        return None
    most = max(p.count for r in shown for p in r.funnel) or 1
    tallest = max(len(r.funnel) for r in shown)
    figure, panels = grid(len(shown), columns=2, height=0.6 + 0.5 * tallest)
    for ax, r in zip(panels, shown):
        for i, passage in enumerate(r.funnel):
            colour = INK if passage is r.funnel[-1] else PALE
            ax.barh(i, passage.count, 0.5, color=colour, edgecolor=INK, linewidth=0.5)
            ax.text(passage.count + 0.01 * most, i, f"{passage.count:,}", va="center")
            ax.text(0.01 * most, i + 0.37, _losses(passage), va="center", fontsize=7, color="#444444")
        ax.set(title=f"round {r.round}", xlim=(0, 1.15 * most), ylim=(tallest - 0.3, -0.5))
        ax.set(xlabel="questions")
        ax.set_yticks(range(len(r.funnel)), [p.name for p in r.funnel])
        ax.grid(visible=False, axis="y")
    return figure


def _losses(passage: Passage) -> str:
    lost = sorted(((n, why) for why, n in passage.lost.items() if n), reverse=True)
    words = [f"{why.replace('_', ' ')} {n:,}" for n, why in lost[:MAX_LOSSES]]
    more = ["..."] if len(lost) > MAX_LOSSES else []
    return f"lost: {', '.join(words + more)}" if words else ""


# ----------------------------------------------------------------------------------- training
def training(findings: Findings) -> "Figure | None":
    """Curves of the optimizer, and means of each round placed over its steps."""
    return _courses(findings.rounds[1:], "step", lambda s: s.steps, lambda show: show.steps, ROUND_MEANS)


def turns(findings: Findings) -> "Figure | None":
    """The same of trainings that sample for themselves, by turn."""
    return _courses(findings.rounds[1:], "turn", lambda s: s.turns, lambda show: show.turns, {})


def _courses(
    rounds: Sequence[RoundFindings],
    unit: str,
    read: Callable[[StageFindings], Course],
    titles: Callable[[Show], Mapping[str, str]],
    means: Mapping[str, Callable[[RoundFindings], float | None]],
) -> "Figure | None":
    """A panel for each figure and each mean, in it a line for each training; rounds one after another."""
    taught = [(r, s) for r in rounds for s in r.trainings if read(s)]
    starts, ends = dict[tuple[int, str], int](), dict[str, int]()
    panels: dict[str, dict[str, list[plots.Points]]] = {}
    placed: dict[str, list[tuple[float, float]]] = {}
    for r, s in taught:
        start = starts[r.round, s.name] = ends.get(s.name, 0)
        ends[s.name] = start + max(read(s))
        for key, title in titles(show_of(s.of.kind)).items():
            if points := [(start + n, told[key]) for n, told in read(s).items() if key in told]:
                panels.setdefault(title, {}).setdefault(s.name, []).append(points)
        for title, mean in means.items():
            if s == r.trainings[0] and (value := mean(r)) is not None:
                placed.setdefault(title, []).append(((start + ends[s.name]) / 2, value))
    if not panels:
        return None
    figure, axes = grid(len(panels) + len(placed), columns=3, height=2.1)
    names = list(ends)
    for ax, (title, lines) in zip(axes, [*panels.items(), *((title, {}) for title in placed)]):
        for name, found in lines.items():
            plots.stretches(ax, names.index(name), name, found)
        if title in placed:
            ax.plot(*zip(*placed[title]), color=MIDDLE, marker="s", linestyle="--", markersize=4)
        plots.from_zero(ax)
        ax.set(title=title, xlabel=unit, xlim=(0, max(ends.values()) + 1))
        ax.ticklabel_format(axis="y", scilimits=(-3, 5))
        for at in {start for (_, name), start in starts.items() if name == names[0]} - {0}:
            ax.axvline(at + 0.5, color=GREY, linestyle=":", linewidth=0.8)
    if len(names) > 1:
        legend(figure, axes)
    return figure


def base(findings: Findings) -> "Figure | None":
    """Of a base model that was made from scratch."""
    return _courses(findings.rounds[:1], "step", lambda s: s.steps, lambda show: show.steps, {})


def times(findings: Findings) -> "Figure | None":
    """Seconds of each stage, stacked by round."""
    shown = [r for r in findings.rounds if r.started]
    if not shown:
        return None
    figure, (ax,) = grid(1, columns=1, height=0.9 + 0.32 * len(shown))
    left = [0.0] * len(shown)
    for name, kind in _in_order(findings.rounds).items():
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


def _in_order(rounds: Sequence[RoundFindings]) -> dict[str, Kind]:
    """Every stage's kind by name: what only the first round has, then as in the others."""
    later = {s.name: s.of.kind for r in rounds[1:] for s in r.of_round}
    return {s.name: s.of.kind for s in rounds[0].of_round if s.name not in later} | later


def _kept_reward(r: RoundFindings) -> float | None:
    return r.votes.kept_reward.value if r.votes and r.votes.kept_reward.n else None


ROUND_MEANS: dict[str, Callable[[RoundFindings], float | None]] = {
    "mean reward of trained groups": _kept_reward,
    "mismatch KL, trainer to sampler": lambda r: r.figures.get("mismatch_kl"),
    "tokens per response": lambda r: r.figures.get("response_tokens"),
}


def _spread(rounds: Sequence[RoundFindings]) -> list[RoundFindings]:
    """At most MAX_PANELS rounds, the first and the last among them, evenly between."""
    if len(rounds) <= MAX_PANELS:
        return list(rounds)
    return [rounds[i * (len(rounds) - 1) // (MAX_PANELS - 1)] for i in range(MAX_PANELS)]
