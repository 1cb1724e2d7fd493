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
INK, MIDDLE, GREY = "#1f3b57", "#c8602b", "#888888"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The course of one thing, by round, step or turn, with intervals where there are scores, and beside it
    every seed's own.
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


def curves(
    panels: Mapping[str, Sequence[Line]],
    xlabel: str,
    *,
    shares: str = "",
    marks: Sequence[float] = (),
    height: float = 2.9,
) -> "Figure | None":
    """A panel for each key, the i-th line of each in the i-th colour. `shares` says what they are shares of,
    on the whole scale from 0 to 1; `marks` are where rounds end.
    """
    from matplotlib.ticker import MaxNLocator

    if not panels:
        return None
    figure, axes = grid(len(panels), height=height)
    for ax, (title, lines) in zip(axes, panels.items()):
        for i, line in enumerate(lines):
            _line(ax, i, line)
        for at in marks:
            ax.axvline(at, color=GREY, linestyle=":", linewidth=0.8)
        ax.set(title=title, xlabel=xlabel, ylabel=shares)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if shares:
            ax.set_ylim(0, 1.02)
        elif 0 <= ax.dataLim.ymin < math.inf:
            ax.set_ylim(0, 1.08 * ax.dataLim.ymax or 1.0)
    legend(figure, axes)
    return figure


def _line(ax: "Axes", i: int, line: Line) -> None:
    colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
    look = {"color": colour, "linestyle": STROKES[i % len(STROKES)], "label": short(line.label)}
    for course in line.each if len(line.each) > 1 else ():
        ax.plot(*zip(*course), color=colour, linewidth=0.6, alpha=0.45)
    scores = [(x, y) for x, y in line.course if isinstance(y, Score)]
    if scores:
        ends = [[max(0.0, s.value - s.low), max(0.0, s.high - s.value)] for _, s in scores]
        moved = [x + 0.08 * i for x, _ in scores]  # lest intervals lie on each other
        look |= {"capsize": 3, "markersize": 5, "linewidth": 1.3, "marker": marker}
        ax.errorbar(moved, [s.value for _, s in scores], yerr=list(zip(*ends)), **look)
    elif line.course:
        few = len(line.course) <= FEW
        ax.plot(*zip(*line.course), marker=marker if few else "", markersize=3.5, linewidth=1.2, **look)


def intervals(panels: Mapping[str, Sequence[Bar]], xlabel: str) -> "Figure | None":
    """One panel per key, a row per bar from the top down."""
    if not panels:
        return None
    tallest = max(map(len, panels.values()))
    figure, axes = grid(len(panels), columns=2, height=0.9 + 0.28 * tallest)
    for ax, (title, bars) in zip(axes, panels.items()):
        for y, bar in enumerate(bars):
            colour = MIDDLE if bar.bold else INK
            ax.plot([bar.low, bar.high], [y, y], color=colour, linewidth=1.4)
            ax.plot([bar.value], [y], color=colour, marker="D" if bar.bold else "o", markersize=5)
        ax.set_yticks(range(len(bars)), [short(bar.label) for bar in bars])
        ax.set(title=title, ylim=(tallest - 0.4, -0.6), xlabel=xlabel)
        ax.grid(visible=False, axis="y")
    return figure


def short(text: str) -> str:
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 3]}..."
