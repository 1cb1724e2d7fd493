"""Plots that set several models or settings beside each other, as SVG: what belongs to no single run.

Each takes plain numbers and returns a figure; `drawn` makes pictures of them in the style of the other plots.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.reporting.figures import INK, MIDDLE, STYLE, Picture, grid, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_LABEL = 46
COLOURS = (INK, MIDDLE, "#6b7f3a", "#8a5a9e", "#2f8f8f", "#b08a1e", "#a33b52", "#666666")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STROKES = ("-", "--", ":", "-.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A value with its interval; nan where there is none."""

    label: str
    value: float
    low: float
    high: float
    bold: bool = False
    dotted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The course of one setting: x and mean, and beside it every seed's own course."""

    label: str
    mean: Sequence[tuple[float, float]]
    each: Sequence[Sequence[tuple[float, float]]]


def drawn(kinds: Sequence[tuple[str, str, str, Callable[[], "Figure | None"]]]) -> list[Picture]:
    """(name, title, caption, how) of each picture; what has no figure is left out."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return [
            Picture(name=name, title=title, caption=caption, svg=to_svg(figure))
            for name, title, caption, how in kinds
            if (figure := how())
        ]


def intervals(panels: Mapping[str, Sequence[Bar]], xlabel: str, *, zero: bool = False) -> "Figure | None":
    """One panel per key, a row per bar from the top down; `zero` marks the value of no difference."""
    if not panels:
        return None
    tallest = max(map(len, panels.values()))
    figure, axes = grid(len(panels), columns=2, height=0.9 + 0.28 * tallest)
    common = (
        min(bar.low for bars in panels.values() for bar in bars),
        max(bar.high for bars in panels.values() for bar in bars),
    )
    labelled = [bar.label for bar in next(iter(panels.values()))]
    for i, (ax, (title, bars)) in enumerate(zip(axes, panels.items())):
        for y, bar in enumerate(bars):
            colour = MIDDLE if bar.bold else INK
            if math.isfinite(bar.low):
                ax.plot(
                    [bar.low, bar.high],
                    [y, y],
                    color=colour,
                    linewidth=1.4,
                    linestyle=":" if bar.dotted else "-",
                )
            ax.plot(
                [bar.value],
                [y],
                color=colour,
                marker="o" if not bar.bold else "D",
                markersize=5,
                linestyle="",
            )
        if zero:
            ax.axvline(0.0, color="#888888", linestyle=":", linewidth=1.0)
            ax.set_xlim(min(0.0, common[0]) - 0.02, max(0.0, common[1]) + 0.02)
        hide = i % 2 == 1 and [bar.label for bar in bars] == labelled
        ax.set_yticks(range(len(bars)), [] if hide else [short(bar.label) for bar in bars])
        ax.set(title=title, ylim=(tallest - 0.4, -0.6), xlabel=xlabel)
        ax.grid(visible=False, axis="y")
    return figure


def curves(panels: Mapping[str, Sequence[Line]], ylabel: str) -> "Figure | None":
    """By round: the mean of each setting as a line with marks, its seeds as thin lines."""
    from matplotlib.ticker import MaxNLocator

    if not panels:
        return None
    figure, axes = grid(len(panels), columns=2, height=3.2)
    for ax, (title, lines) in zip(axes, panels.items()):
        for i, line in enumerate(lines):
            colour = COLOURS[i % len(COLOURS)]
            for course in line.each if len(line.each) > 1 else ():
                ax.plot(
                    [x for x, _ in course], [y for _, y in course], color=colour, linewidth=0.6, alpha=0.45
                )
            ax.plot(
                [x for x, _ in line.mean], [y for _, y in line.mean], color=colour, marker=MARKERS[i % len(MARKERS)], markersize=5, linewidth=1.6,
                linestyle=STROKES[i // len(COLOURS) % len(STROKES)], label=short(line.label),
            )  # fmt: skip
        ax.set(title=title, xlabel="round", ylabel=ylabel)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def points(groups: Mapping[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str) -> "Figure | None":
    """A cloud per group."""
    if not groups:
        return None
    figure, (ax,) = grid(1, columns=1, height=3.4)
    for i, (label, found) in enumerate(groups.items()):
        ax.plot(
            [x for x, _ in found],
            [y for _, y in found],
            linestyle="",
            marker=MARKERS[i % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            label=short(label),
        )
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_xlim(left=0)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def heat(
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
    values: Sequence[Sequence[float]],
    title: str,
) -> "Figure":
    """Two axes as a table of shades with the figures written in them; an empty cell is a setting without a score."""
    import numpy as np

    row_name, row_labels = rows
    column_name, column_labels = columns
    figure, (ax,) = grid(1, columns=1, height=1.3 + 0.45 * len(row_labels))
    values_RC = np.array(values, dtype=float)
    image = ax.imshow(np.ma.masked_invalid(values_RC), cmap="Blues", aspect="auto")
    low, high = np.nanmin(values_RC), np.nanmax(values_RC)
    for (r, c), value in np.ndenumerate(values_RC):
        if math.isfinite(value):
            ax.text(
                c,
                r,
                f"{value:.3f}",
                ha="center",
                va="center",
                color="white" if high > low and (value - low) / (high - low) > 0.6 else "#1a1a1a",
            )
    ax.set_xticks(range(len(column_labels)), [short(label) for label in column_labels])
    ax.set_yticks(range(len(row_labels)), [short(label) for label in row_labels])
    ax.set(xlabel=column_name, ylabel=row_name, title=title)
    ax.grid(visible=False)
    figure.colorbar(image, ax=ax, shrink=0.9)
    return figure


def parallel(axes: Mapping[str, Sequence[float | str]], scores: Sequence[float], score_name: str) -> "Figure":
    """A line for each setting through its values, one upright axis per key, shaded by its score on the last; the best is drawn bold."""
    from matplotlib import colormaps

    figure, (ax,) = grid(1, columns=1, height=3.8)
    columns = {**{key: _placed(values) for key, values in axes.items()}, score_name: _placed(list(scores))}
    heights = [height for height, _ in columns.values()]
    best = max(range(len(scores)), key=lambda i: scores[i])
    shades = heights[-1]
    for i in sorted(range(len(scores)), key=lambda i: scores[i]):
        colour = MIDDLE if i == best else colormaps["Blues"](0.25 + 0.7 * shades[i])
        ax.plot(
            range(len(heights)),
            [h[i] for h in heights],
            color=colour,
            linewidth=2.4 if i == best else 1.0,
            alpha=1.0 if i == best else 0.8,
        )
    for x, (_, marks) in enumerate(columns.values()):
        ax.axvline(x, color="#888888", linewidth=0.8)
        for height, text in marks:
            ax.text(
                x + 0.02,
                height,
                text,
                fontsize=7,
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
            )
    ax.set_xticks(range(len(columns)), [short(key, 24) for key in columns])
    ax.set(ylim=(-0.06, 1.06), xlim=(-0.2, len(columns) - 0.6))
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    return figure


def _placed(values: Sequence[float | str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1, and the marks of the axis: numbers by size, by their logarithm where they span decades; anything else in its order."""
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        numbers = [float(v) for v in values]
        logarithmic = min(numbers) > 0 and max(numbers) / min(numbers) >= 20
        scaled = [math.log(v) if logarithmic else v for v in numbers]
        low, span = min(scaled), (max(scaled) - min(scaled)) or 1.0
        heights = [(v - low) / span for v in scaled]
        distinct = sorted(set(zip(heights, numbers, strict=True)))
        shown = (
            distinct
            if len(distinct) <= 6
            else [distinct[round(i * (len(distinct) - 1) / 4)] for i in range(5)]
        )
        return heights, [(height, f"{value:.4g}") for height, value in shown]
    order = list(dict.fromkeys(str(v) for v in values))
    step = 1 / max(1, len(order) - 1)
    return [order.index(str(v)) * step for v in values], [
        (i * step, short(text, 24)) for i, text in enumerate(order)
    ]


def short(text: str, limit: int = MAX_LABEL) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
