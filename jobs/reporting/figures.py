"""The plots of a report, as SVG: legible in grey, axes that start where the quantity does, gaps where there are no data.

matplotlib is imported when something is drawn, and without pyplot: no global state, no display. Labels are never parsed as mathematics.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.scores import Score
from jobs.reporting.findings import Benchmark, Findings, RoundFindings
from jobs.reporting.harvest import band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = {
    "text.parse_math": False, "svg.hashsalt": "report", "font.size": 9.0, "axes.titlesize": 10.0, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "hatch.linewidth": 0.6,
}  # fmt: skip
INK, MIDDLE, PALE = "#1f3b57", "#c8602b", "#b9c6d1"
LINES = ((INK, "o", "-"), (MIDDLE, "s", "--"), ("#6b7f3a", "^", ":"))
FILLS = {
    "corpus": ("#ffffff", ""), "propose": ("#d5dee6", ""), "curate": ("#ffffff", "xxx"),
    "respond": ("#9fb3c4", "///"), "train": (INK, ""), "score": ("#ffffff", "..."),
}  # fmt: skip
MAX_PANELS = 6
MAX_BINS = 24
CURVES = (
    ("loss", "loss"), ("approx_kl", "KL from the round's first weights"), ("clip_fraction", "clipped tokens (share)"), ("entropy", "surprise per token (nats)"),
    ("ref_kl", "KL to the reference"), ("grad_norm", "gradient norm"), ("tokens_per_s", "tokens per second"), ("lr", "learning rate"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A plot, and in words what it shows."""

    name: str
    title: str
    caption: str
    svg: bytes


def draw(findings: Findings) -> list[Picture]:
    """Every plot for which there are data."""
    import matplotlib

    kinds: tuple[tuple[str, str, str, Callable[[Findings], Figure | None]], ...] = (
        (
            "score",
            "Score per round",
            "Bars are 95 % intervals over problems; round 0 is the base model.",
            scores,
        ),
        (
            "validation",
            "Validation score per round",
            "Problems to choose a round by; bars are 95 % intervals over problems.",
            validation,
        ),
        ("agreement", "Agreement of the answers", _agreement_caption(findings), agreement),
        (
            "funnel",
            "From proposed questions to trained ones",
            "Below each bar: why questions did not reach it.",
            funnels,
        ),
        (
            "accuracy",
            "How right the vote is",
            "The reward's accuracy where answers are known, with 95 % intervals; anchors are never trained on.",
            accuracy,
        ),
        (
            "training",
            "Self-play training",
            "By optimizer step over all rounds; dotted lines separate rounds. Squares are means of a round.",
            training,
        ),
        (
            "base",
            "Making the base model",
            "Next-token loss on the generated corpus, by optimizer step.",
            base,
        ),
        (
            "time",
            "Time",
            "The slowest shard of each stage: their sum is a round's duration if shards run side by side.",
            times,
        ),
    )
    with matplotlib.rc_context(STYLE):
        return [
            Picture(name=name, title=title, caption=caption, svg=to_svg(figure))
            for name, title, caption, kind in kinds
            if (figure := kind(findings))
        ]


def to_svg(figure: "Figure") -> bytes:
    """The same bytes for the same figure; to be called where STYLE holds."""
    sink = io.BytesIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    return sink.getvalue()


def scores(findings: Findings) -> "Figure | None":
    return _scores(findings, [(r.round, r.scores) for r in findings.rounds])


def validation(findings: Findings) -> "Figure | None":
    return _scores(findings, [(r.round, r.validation) for r in findings.rounds])


def _scores(findings: Findings, rounds: Sequence[tuple[int, Mapping[str, Benchmark]]]) -> "Figure | None":
    """Greedy pass@1 and the majority of samples, one panel per benchmark, on the whole scale from 0 to 1."""
    names = list(dict.fromkeys(name for _, benchmarks in rounds for name in benchmarks))
    if not names:
        return None
    figure, panels = grid(len(names))
    for ax, name in zip(panels, names):
        found = [(round, benchmarks[name].metrics) for round, benchmarks in rounds if name in benchmarks]
        metrics = dict.fromkeys(m for _, by_metric in found for m in by_metric)
        chosen = [m for m in metrics if m == "pass_at_1" or m.startswith("maj_at_")] or list(metrics)
        for i, metric in enumerate(chosen):
            label = "pass@1, greedy" if metric == "pass_at_1" else metric.replace("_at_", "@")
            _intervals(ax, [(round + 0.08 * i, m[metric]) for round, m in found if metric in m], label, i)
        ax.set(title=name, ylim=(0, 1.02), xlabel="round", ylabel="share of problems solved")
        _rounds_axis(ax, findings)
        ax.legend(loc="best")
    return figure


def agreement(findings: Findings) -> "Figure | None":
    """How many questions have k of N answers in their largest class; ties hatched; the band that is trained on marked."""
    shown = _spread([r for r in findings.rounds if r.votes and r.votes.num_groups])
    if not shown:
        return None
    figure, panels = grid(len(shown), height=2.7)
    config = findings.run.config
    for ax, r in zip(panels, shown):
        assert r.votes is not None
        shares, by_vote = band(config, r.round)
        n = r.votes.num_samples
        width = math.ceil((n + 1) / MAX_BINS)
        starts = range(0, n + 1, width)
        ties = [sum(r.votes.tied[k : k + width]) for k in starts]
        clear = [sum(r.votes.first[k : k + width]) - t for k, t in zip(starts, ties)]
        centres = [(k + (min(width, n + 1 - k) - 1) / 2) / n for k in starts]
        ax.bar(centres, clear, 0.85 * width / n, color=INK, label="majority (at 0: no votes)")
        ax.bar(
            centres,
            ties,
            0.85 * width / n,
            bottom=clear,
            facecolor="white",
            edgecolor=INK,
            hatch="////",
            linewidth=0.5,
            label="tie",
        )
        if by_vote and config.judged(r.round):
            ax.axvspan(*shares, color="#f0e3c8", zorder=0, label="band that is trained on")
        ax.set(
            title=f"round {r.round}: mean {r.votes.agreement.value:.2f}",
            xlim=(-0.04, 1.04),
            xlabel="share of the largest class",
            ylabel="questions",
        )
    top = max(ax.get_ylim()[1] for ax in panels)
    for ax in panels:
        ax.set_ylim(0, 1.05 * top)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def funnels(findings: Findings) -> "Figure | None":
    """Bars for each passage of a round, on a common scale, with the losses in words."""
    shown = _spread([r for r in findings.rounds if r.funnel])
    if not shown:
        return None
    most = max(p.count for r in shown for p in r.funnel)
    tallest = max(len(r.funnel) for r in shown)
    figure, panels = grid(len(shown), columns=2, height=0.6 + 0.5 * tallest)
    for ax, r in zip(panels, shown):
        for i, passage in enumerate(r.funnel):
            ax.barh(
                i,
                passage.count,
                0.5,
                color=INK if passage.name == "trainable" else PALE,
                edgecolor=INK,
                linewidth=0.5,
            )
            ax.text(passage.count + 0.01 * most, i, f"{passage.count:,}", va="center")
            lost = sorted(((n, reason) for reason, n in passage.lost.items() if n), reverse=True)
            words = ", ".join(f"{reason.replace('_', ' ')} {n:,}" for n, reason in lost[:4]) + (
                ", ..." if len(lost) > 4 else ""
            )
            ax.text(
                0.01 * most,
                i + 0.37,
                f"lost: {words}" if words else "",
                va="center",
                fontsize=7,
                color="#444444",
            )
        ax.set(
            title=f"round {r.round}", xlim=(0, 1.15 * most), ylim=(tallest - 0.3, -0.5), xlabel="questions"
        )
        ax.set_yticks(range(len(r.funnel)), [p.name for p in r.funnel])
        ax.grid(visible=False, axis="y")
    return figure


def accuracy(findings: Findings) -> "Figure | None":
    """Whether the majority is right where that is known, beside how sure of itself it is: the two must not part."""
    found = [r for r in findings.rounds if r.votes]
    kinds = dict.fromkeys(kind for r in found if r.votes for kind in r.votes.right)
    if not kinds:
        return None
    figure, (ax,) = grid(1, columns=1)
    for i, kind in enumerate(kinds):
        points = [
            (r.round + 0.08 * i, r.votes.right[kind]) for r in found if r.votes and kind in r.votes.right
        ]
        _intervals(ax, points, f"majority right: {kind}", i)
    agreement = [r.votes.agreement.value for r in found if r.votes]
    ax.plot(
        [r.round for r in found],
        agreement,
        color="#777777",
        marker="x",
        linestyle="-.",
        label="mean agreement (own questions)",
    )
    ax.set(ylim=(0, 1.02), xlabel="round", ylabel="share of questions")
    _rounds_axis(ax, findings)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def training(findings: Findings) -> "Figure | None":
    """Curves of the optimizer, and means of each round placed over its steps."""
    taught = [r for r in findings.rounds if r.round and r.steps]
    if not taught:
        return None
    curves = [(key, title) for key, title in CURVES if any(key in s.numbers for r in taught for s in r.steps)]
    means = [
        (title, [(r, value) for r in taught if (value := read(r)) is not None]) for title, read in ROUND_MEANS
    ]
    means = [(title, points) for title, points in means if points]
    figure, panels = grid(len(curves) + len(means), columns=3, height=2.1)
    first: dict[int, int] = {}
    total = 0
    for r in taught:
        first[r.round] = total
        total += r.steps[-1].step
    for ax, (key, title) in zip(panels, curves):
        _curve(
            ax,
            [
                [(first[r.round] + s.step, s.numbers[key]) for s in r.steps if key in s.numbers]
                for r in taught
            ],
            title,
        )
    for ax, (title, points) in zip(panels[len(curves) :], means):
        ax.plot(
            [first[r.round] + r.steps[-1].step / 2 for r, _ in points],
            [v for _, v in points],
            color=MIDDLE,
            marker="s",
            linestyle="--",
            markersize=4,
        )
        ax.set(title=title, xlabel="step")
        ax.set_ylim(0, 1.15 * max(v for _, v in points) or 1.0)
    for ax in panels:
        ax.set_xlim(0, total + 1)
        ax.ticklabel_format(axis="y", scilimits=(-3, 5))
        for offset in list(first.values())[1:]:
            ax.axvline(offset + 0.5, color="#888888", linestyle=":", linewidth=0.8)
    return figure


def base(findings: Findings) -> "Figure | None":
    """The loss of a base model that was made from scratch."""
    steps = [s for r in findings.rounds if r.round == 0 for s in r.steps if "loss" in s.numbers]
    if not steps:
        return None
    figure, (ax,) = grid(1, columns=1, height=2.4)
    _curve(ax, [[(s.step, s.numbers["loss"]) for s in steps]], "loss per token (nats)")
    return figure


def times(findings: Findings) -> "Figure | None":
    """Seconds of each stage, stacked by round."""
    shown = [r for r in findings.rounds if r.started]
    if not shown:
        return None
    figure, (ax,) = grid(1, columns=1, height=0.9 + 0.32 * len(shown))
    left = [0.0] * len(shown)
    for stage, (colour, hatch) in FILLS.items():
        seconds = [sum(s.longest_s for s in r.stages if s.stage == stage) for r in shown]
        if any(seconds):
            ax.barh(
                range(len(shown)),
                seconds,
                0.65,
                left=left,
                color=colour,
                hatch=hatch,
                edgecolor=INK,
                linewidth=0.5,
                label=stage,
            )
            left = [a + b for a, b in zip(left, seconds)]
    ax.set_yticks(range(len(shown)), [f"round {r.round}" for r in shown])
    ax.invert_yaxis()
    ax.set(xlabel="seconds")
    ax.grid(visible=False, axis="y")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _mean_tokens(r: RoundFindings) -> float | None:
    counts = r.counts("groups")
    return counts["tokens"] / counts["completions"] if counts.get("completions") else None


ROUND_MEANS: tuple[tuple[str, Callable[[RoundFindings], float | None]], ...] = (
    (
        "mean reward of trained groups",
        lambda r: r.votes.kept_reward.value if r.votes and r.votes.kept_reward.n else None,
    ),
    ("mismatch KL, trainer to sampler", lambda r: r.counts("weights").get("mismatch_kl")),
    ("tokens per response", _mean_tokens),
)


def _agreement_caption(findings: Findings) -> str:
    n = max((r.votes.num_samples for r in findings.rounds if r.votes), default=0)
    return f"Questions by how many of their {n} answers the largest class holds; a tie has no winner and is never trained on by majority vote."


def _spread(rounds: Sequence[RoundFindings]) -> list[RoundFindings]:
    """At most MAX_PANELS rounds, the first and the last among them, evenly between."""
    if len(rounds) <= MAX_PANELS:
        return list(rounds)
    return [rounds[i * (len(rounds) - 1) // (MAX_PANELS - 1)] for i in range(MAX_PANELS)]


def grid(num_panels: int, *, columns: int = 3, height: float = 2.9) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    columns = min(columns, num_panels)
    rows = math.ceil(num_panels / columns)
    figure = Figure(figsize=(9.6 if columns > 1 else 7.2, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in axes[num_panels:]:
        unused.set_axis_off()
    return figure, axes[:num_panels]


def _intervals(ax: "Axes", points: Sequence[tuple[float, Score]], label: str, kind: int) -> None:
    """Values with their 95 % intervals."""
    colour, marker, line = LINES[kind % len(LINES)]
    values = [s.value for _, s in points]
    errors = [[max(0.0, s.value - s.low) for _, s in points], [max(0.0, s.high - s.value) for _, s in points]]
    ax.errorbar(
        [x for x, _ in points],
        values,
        yerr=errors,
        color=colour,
        marker=marker,
        linestyle=line,
        capsize=3,
        markersize=5,
        linewidth=1.3,
        label=label,
    )


def _curve(ax: "Axes", stretches: Sequence[Sequence[tuple[int, float]]], title: str) -> None:
    """A line for each stretch; single points stay visible. The axis starts at zero where nothing is below it."""
    ax.set(title=title, xlabel="step")
    finite = [[(x, y) for x, y in points if math.isfinite(y)] for points in stretches]
    for points in finite:
        ax.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=INK,
            linewidth=1.1,
            marker="." if len(points) <= 60 else "",
        )
    values = [y for points in finite for _, y in points]
    if values and min(values) >= 0:
        ax.set_ylim(0, 1.08 * max(values) or 1.0)


def _rounds_axis(ax: "Axes", findings: Findings) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(-0.3, max(1, findings.run.config.rounds) + 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
