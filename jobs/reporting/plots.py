"""How plots are drawn, as SVG: legible in grey, axes that start where the quantity does, gaps where there are
no data.

Each takes plain numbers and returns a figure, or None where there is nothing to draw; `drawn` makes pictures
of them. matplotlib is imported when something is drawn, and without pyplot: no global state, no display.
Labels are never parsed as mathematics.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from evaluation.scores import Score
from jobs.reporting.render import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "text.parse_math": False, "svg.hashsalt": "report", "font.size": 9.0, "axes.titlesize": 10.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "hatch.linewidth": 0.6,
}  # fmt: skip
INK, MIDDLE, PALE, GREY = "#1f3b57", "#c8602b", "#b9c6d1", "#888888"
COLOURS = (INK, MIDDLE, "#6b7f3a", "#8a5a9e", "#2f8f8f", "#b08a1e", "#a33b52", "#666666")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STROKES = ("-", "--", ":", "-.")
MAX_LABEL = 46
FEW = 60  # points of a line that are marked one by one

Points = Sequence[tuple[float, float]]
Plots = Mapping[str, "Callable[[], Figure | None]"]  # by name, how


class Bar(NamedTuple):
    """A value with its interval; nan where there is none."""

    label: str
    value: float
    low: float
    high: float
    bold: bool = False
    dotted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The course of one thing by round, with intervals where there are scores, and beside it every seed's
    own.
    """

    label: str
    course: Sequence[tuple[float, Score | float]]
    each: Sequence[Points] = ()


def drawn(plots: Plots) -> dict[str, Picture | None]:
    """A picture of each plot; None where there is nothing to draw."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return {
            name: Picture(name, _svg(figure)) if (figure := how()) else None for name, how in plots.items()
        }


def _svg(figure: "Figure") -> bytes:
    """The same bytes for the same figure."""
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()


def grid(num_panels: int, *, columns: int = 3, height: float = 2.9) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    columns = min(columns, num_panels)
    rows = math.ceil(num_panels / columns)
    figure = Figure(figsize=(9.6 if columns > 1 else 7.2, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[num_panels:]:
        unused.set_axis_off()
    return figure, axes[:num_panels]


def legend(figure: "Figure", axes: "Sequence[Axes]") -> None:
    """One legend below all panels, each label once; none where there is nothing to tell apart."""
    found = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        found |= {label: handle for handle, label in zip(handles, labels) if label not in found}
    if found:
        figure.legend(
            found.values(), found.keys(), loc="outside lower center", ncols=3 if len(axes) > 1 else 2
        )


def rounds_axis(ax: "Axes", most: int | None = None) -> None:
    from matplotlib.ticker import MaxNLocator

    if most is not None:
        ax.set_xlim(-0.3, max(1, most) + 0.4)
    ax.set_xlabel("round")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _look(i: int) -> dict[str, str]:
    """Of the i-th of several lines."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


# ----------------------------------------------------------------------------------- by round or step
def curves(
    panels: Mapping[str, Sequence[Line]], ylabel: str, *, rounds: int | None = None
) -> "Figure | None":
    """By round, a panel for each key. With `rounds` axes are whole: all rounds, and shares from 0 to 1."""
    if not panels:
        return None
    figure, axes = grid(len(panels), columns=3 if rounds else 2)
    for ax, (title, lines) in zip(axes, panels.items()):
        for i, line in enumerate(lines):
            line_of(ax, i, line)
        ax.set(title=title, ylabel=ylabel)
        rounds_axis(ax, rounds)
        if rounds is not None:
            ax.set_ylim(0, 1.02)
    legend(figure, axes)
    return figure


def line_of(ax: "Axes", i: int, line: Line) -> None:
    """The i-th of several."""
    look = _look(i) | {"linestyle": STROKES[i % len(STROKES)], "label": short(line.label)}
    for course in line.each if len(line.each) > 1 else ():
        ax.plot(*zip(*course), color=look["color"], linewidth=0.6, alpha=0.45)
    scores = [(x, y) for x, y in line.course if isinstance(y, Score)]
    if scores:
        ends = [[max(0.0, s.value - s.low), max(0.0, s.high - s.value)] for _, s in scores]
        moved = [x + 0.08 * i for x, _ in scores]  # lest intervals lie on each other
        values = [s.value for _, s in scores]
        ax.errorbar(moved, values, yerr=list(zip(*ends)), capsize=3, markersize=5, linewidth=1.3, **look)
    elif line.course:
        ax.plot(*zip(*line.course), markersize=5, linewidth=1.6, **look)


def stretches(ax: "Axes", i: int, label: str, found: Sequence[Points]) -> None:
    """A line for each stretch of one thing; single points stay visible."""
    style = {"color": COLOURS[i % len(COLOURS)], "linestyle": STROKES[i % len(STROKES)], "linewidth": 1.1}
    for number, points in enumerate(found):
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        if finite:
            marker = "." if len(finite) <= FEW else ""
            ax.plot(*zip(*finite), marker=marker, label=label if number == 0 else None, **style)


def from_zero(ax: "Axes") -> None:
    """Begin the axis at zero where nothing is below it."""
    values = [y for line in ax.lines for y in line.get_ydata()]
    if values and min(values) >= 0:
        ax.set_ylim(0, 1.08 * max(values) or 1.0)


# ----------------------------------------------------------------------------------- settings
def intervals(panels: Mapping[str, Sequence[Bar]], xlabel: str, *, zero: bool = False) -> "Figure | None":
    """One panel per key, a row per bar from the top down; `zero` marks the value of no difference."""
    if not panels:
        return None
    tallest = max(map(len, panels.values()))
    figure, axes = grid(len(panels), columns=2, height=0.9 + 0.28 * tallest)
    ends = [end for bars in panels.values() for bar in bars for end in (bar.low, bar.high)]
    labelled = [bar.label for bar in next(iter(panels.values()))]
    for i, (ax, (title, bars)) in enumerate(zip(axes, panels.items())):
        for y, bar in enumerate(bars):
            _bar(ax, y, bar)
        if zero:
            ax.axvline(0.0, color=GREY, linestyle=":", linewidth=1.0)
            ax.set_xlim(min(0.0, *ends) - 0.02, max(0.0, *ends) + 0.02)
        hide = i % 2 == 1 and [bar.label for bar in bars] == labelled
        ax.set_yticks(range(len(bars)), [] if hide else [short(bar.label) for bar in bars])
        ax.set(title=title, ylim=(tallest - 0.4, -0.6), xlabel=xlabel)
        ax.grid(visible=False, axis="y")
    return figure


def _bar(ax: "Axes", y: int, bar: Bar) -> None:
    colour = MIDDLE if bar.bold else INK
    if math.isfinite(bar.low):
        stroke = ":" if bar.dotted else "-"
        ax.plot([bar.low, bar.high], [y, y], color=colour, linewidth=1.4, linestyle=stroke)
    ax.plot([bar.value], [y], color=colour, marker="D" if bar.bold else "o", markersize=5, linestyle="")


def points(groups: Mapping[str, Points], xlabel: str, ylabel: str) -> "Figure | None":
    """A cloud per group."""
    if not groups:
        return None
    figure, (ax,) = grid(1, columns=1, height=3.4)
    for i, (label, found) in enumerate(groups.items()):
        ax.plot(*zip(*found), linestyle="", label=short(label), **_look(i))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_xlim(left=0)
    legend(figure, [ax])
    return figure


def heat(
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
    values: Sequence[Sequence[float]],
    title: str,
) -> "Figure":
    """Two axes as a table of shades with the figures written in them; an empty cell is a setting without a
    score.
    """
    import numpy as np

    figure, (ax,) = grid(1, columns=1, height=1.3 + 0.45 * len(rows[1]))
    values_RC = np.array(values, dtype=float)
    image = ax.imshow(np.ma.masked_invalid(values_RC), cmap="Blues", aspect="auto")
    low, high = np.nanmin(values_RC), np.nanmax(values_RC)
    for (r, c), value in np.ndenumerate(values_RC):
        if math.isfinite(value):
            dark = high > low and (value - low) / (high - low) > 0.6
            ax.text(c, r, f"{value:.3f}", ha="center", va="center", color="white" if dark else "#1a1a1a")
    ax.set_xticks(range(len(columns[1])), [short(label) for label in columns[1]])
    ax.set_yticks(range(len(rows[1])), [short(label) for label in rows[1]])
    ax.set(xlabel=columns[0], ylabel=rows[0], title=title)
    ax.grid(visible=False)
    figure.colorbar(image, ax=ax, shrink=0.9)
    return figure


def parallel(axes: Mapping[str, Sequence[float | str]], scores: Sequence[float], score_name: str) -> "Figure":
    """A line for each setting through its values, one upright axis per key, shaded by its score on the last;
    the best is drawn bold.
    """
    from matplotlib import colormaps

    figure, (ax,) = grid(1, columns=1, height=3.8)
    columns = {**{key: _placed(values) for key, values in axes.items()}, score_name: _placed(scores)}
    heights = [height for height, _ in columns.values()]
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    for i in order:
        best = i == order[-1]
        colour = MIDDLE if best else colormaps["Blues"](0.25 + 0.7 * heights[-1][i])
        width, alpha = (2.4, 1.0) if best else (1.0, 0.8)
        ax.plot(range(len(heights)), [h[i] for h in heights], color=colour, linewidth=width, alpha=alpha)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
    for x, (_, marks) in enumerate(columns.values()):
        ax.axvline(x, color=GREY, linewidth=0.8)
        for height, text in marks:
            ax.text(x + 0.02, height, text, fontsize=7, va="center", bbox=box)
    ax.set_xticks(range(len(columns)), [short(key, 24) for key in columns])
    ax.set(ylim=(-0.06, 1.06), xlim=(-0.2, len(columns) - 0.6))
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    return figure


def _placed(values: Sequence[float | str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1, and the marks of the axis: numbers by size, by their logarithm where they span
    decades; anything else in its order.
    """
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        numbers = [float(v) for v in values]
        logarithmic = min(numbers) > 0 and max(numbers) / min(numbers) >= 20
        scaled = [math.log(v) if logarithmic else v for v in numbers]
        low, span = min(scaled), (max(scaled) - min(scaled)) or 1.0
        heights = [(v - low) / span for v in scaled]
        distinct = sorted(set(zip(heights, numbers, strict=True)))
        some = [distinct[round(i * (len(distinct) - 1) / 4)] for i in range(5)]
        return heights, [
            (height, f"{value:.4g}") for height, value in (distinct if len(distinct) <= 6 else some)
        ]
    order = list(dict.fromkeys(str(v) for v in values))
    step = 1 / max(1, len(order) - 1)
    marks = [(i * step, short(text, 24)) for i, text in enumerate(order)]
    return [order.index(str(v)) * step for v in values], marks


def short(text: str, limit: int = MAX_LABEL) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
