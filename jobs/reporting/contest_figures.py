"""The plots of settings beside each other, and of the space that a sweep went through."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from jobs.reporting import plots
from jobs.reporting.plots import Bar, Line, Plots
from jobs.reporting.policies import Contest, Setting
from jobs.reporting.sweep_findings import is_number, value_text
from jobs.sweeps.trials import short_keys

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BARS = 24
MAX_LINES = 8
MAX_HEAT = 20


def plots_of(found: Contest) -> Plots:
    return {
        "settings": lambda: _bars(found),
        "gains": lambda: _gains(found),
        "curves": lambda: _curves(found),
        "cost": lambda: _cost_points(found),
    }


def _bars(found: Contest) -> "Figure | None":
    """The first in orange; those of one seed dotted where others have several."""
    shown = [(n, s) for n, s in enumerate(found.settings, 1) if s.over][:MAX_BARS]
    panels: dict[str, list[Bar]] = {}
    for name in found.columns:
        several = any(s.seeds(name).n > 1 for _, s in shown)
        for number, s in shown:
            v = s.told(name)
            if v.n:
                label, dotted = f"{number}: {s.label}", several and s.seeds(name).n == 1
                bar = Bar(label, v.value, v.low, v.high, bold=number == shown[0][0], dotted=dotted)
                panels.setdefault(name, []).append(bar)
    return plots.intervals(panels, "share of problems solved")


def _gains(found: Contest) -> "Figure | None":
    """Of the others over the first."""
    panels: dict[str, list[Bar]] = {}
    for p in found.pairs:
        if p.first == found.settings[0].label:
            bar = Bar(p.benchmark, p.found.difference, p.found.low, p.found.high, bold=p.word != "not shown")
            panels.setdefault(p.second, []).append(bar)
    return plots.intervals(dict(list(panels.items())[:MAX_LINES]), "difference (orange: shown)", zero=True)


def _curves(found: Contest) -> "Figure | None":
    trained = [(n, s) for n, s in enumerate(found.settings, 1) if any(len(t.means) > 1 for t in s.trials)]
    panels = {
        name: [_course(f"{number}: {s.label}", s, name) for number, s in trained[:MAX_LINES]]
        for name in found.benchmarks
    }
    return plots.curves({name: lines for name, lines in panels.items() if lines}, "share of problems solved")


def _course(label: str, s: Setting, benchmark: str) -> Line:
    """The mean where all seeds have come, and each of them."""
    each = [{r: m[benchmark] for r, m in sorted(t.means.items()) if benchmark in m} for t in s.trials]
    each = [course for course in each if course]
    rounds = sorted(set.intersection(*(set(c) for c in each))) if each else []
    mean = [(r, sum(c[r] for c in each) / len(each)) for r in rounds]
    return Line(label=label, course=mean, each=[list(c.items()) for c in each])


def _cost_points(found: Contest) -> "Figure | None":
    name = (found.ranked_by or ("",))[0]
    clouds = {}
    for number, s in enumerate(found.settings[:MAX_LINES], 1):
        able = [t for t in s.over.values() if name in t.means[t.chosen] and t.cost.used_s]
        if able:
            clouds[f"{number}: {s.label}"] = [(t.cost.used_s / 3600, t.means[t.chosen][name]) for t in able]
    return plots.points(clouds, "task-hours of a trial", name)


def space(found: Contest) -> Plots:
    """By caption: two axes as shades where most of their table is filled, more as parallel coordinates."""
    able = [(i, s) for i, s in enumerate(found.settings) if s.over]
    axes = {key: [values[i] for i, _ in able] for key, values in found.axes.items()}
    if len(axes) < 2 or len(able) < 3:
        return {}
    labels = {key: _ordered(key, values) for key, values in axes.items()}
    sizes = [len(column) for column in labels.values()]
    if len(axes) == 2 and max(sizes) <= MAX_HEAT and 2 * len(able) >= math.prod(sizes):
        told = "means over seeds, by the two keys that the settings differ in."
        return {f"{n}: {told}": lambda n=n: _heat(found, axes, labels, n) for n in found.columns}
    names = short_keys(list(axes))
    shown = {
        names[key]: [v if is_number(v) else value_text(key, v) for v in values]
        for key, values in axes.items()
    }
    ranks = [s.rank(found.ranked_by) for _, s in able]
    by = " and ".join(found.ranked_by)
    told = f"Parallel coordinates: a line per setting, dark where {by} is high; the best in orange."
    return {told: lambda: plots.parallel(shown, ranks, "mean score")}


def _heat(
    found: Contest, axes: dict[str, list[JsonValue]], labels: dict[str, list[str]], name: str
) -> "Figure":
    row, column = labels
    names = short_keys(list(axes))
    places = zip(*([value_text(key, v) for v in values] for key, values in axes.items()))
    cells = {place: s.seeds(name).value for place, s in zip(places, (s for s in found.settings if s.over))}
    values = [[cells.get((r, c), math.nan) for c in labels[column]] for r in labels[row]]
    return plots.heat((names[row], labels[row]), (names[column], labels[column]), values, name)


def _ordered(key: str, values: Sequence[JsonValue]) -> list[str]:
    """The texts of an axis, numbers by size, others in their own order."""
    numbers = all(is_number(v) for v in values)
    order = sorted(values) if numbers else sorted(values, key=lambda v: value_text(key, v))
    return list(dict.fromkeys(value_text(key, v) for v in order))
