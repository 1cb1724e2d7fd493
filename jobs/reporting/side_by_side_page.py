"""What the report of several models says, in order, and the same as rows."""

import csv
import io
from collections.abc import Iterator, Sequence

from evaluation.scores import Score
from jobs.reporting import charts
from jobs.reporting.pages import interval, p_value
from jobs.reporting.render import Block, Heading, Paragraph, Table
from jobs.reporting.side_by_side import MAX_ALL_PAIRS, Pair, SideBySide


def page(found: SideBySide) -> list[Block]:
    blocks: list[Block] = [Paragraph(sentence, "lead") for sentence in headlines(found)]
    pictures = charts.drawn(
        (
            (
                "scores",
                "Scores",
                "Bars are 95 % intervals over problems; the diamond is the model that the others are compared with.",
                lambda: _scores(found),
            ),
            (
                "gains",
                "Differences",
                f"Against {found.models[0].name}, on the same problems: 95 % bootstrap intervals.",
                lambda: _gains(found),
            ),
        )
    )
    blocks += [Heading("Scores"), *pictures[:1], summary_table(found)]
    blocks.append(
        Paragraph(
            "Greedy pass@1 where it was measured, with 95 % intervals over problems; a dash: not asked.",
            "note",
        )
    )
    if found.pairs:
        blocks += [Heading("Differences"), *pictures[1:], *_pair_tables(found)]
    blocks += [Paragraph(f"Not compared: {sentence}.", "note") for sentence in found.unpaired]
    blocks += _apart(found)
    return blocks + list(_origin(found))


def headlines(found: SideBySide) -> list[str]:
    """One sentence per other model: where it is better than the first, where worse, and where neither is shown."""
    first, *others = found.models
    if not others:
        return [f"{first.name} alone: nothing to compare it with."]
    sentences = []
    for model in others:
        told = [_told(p) for p in found.pairs if (p.first, p.second) == (first.name, model.name)]
        sentences.append(f"{model.name} against {first.name}: {'; '.join(told) or 'no benchmark in common'}.")
    return sentences


def _told(p: Pair) -> str:
    word = {"better": "better", "worse": "worse", "not shown": "not shown better"}[p.word]
    return f"{word} on {p.benchmark}, {100 * p.paired.difference:+.1f} points ({p.paired.n} problems, adjusted {p_value(p.p_holm)})"


def summary_table(found: SideBySide) -> Table:
    """A row per benchmark, a column per model."""
    rows = []
    for name in found.benchmarks:
        scores = [m.main(name) for m in found.models]
        rows.append([name, str(max(s.n for s in scores if s)), *(interval(s) if s else "-" for s in scores)])
    return Table(
        header=["benchmark", "problems", *(m.name for m in found.models)],
        rows=rows,
        numeric=frozenset(range(1, 2 + len(found.models))),
    )


def _scores(found: SideBySide) -> "charts.Figure | None":
    panels = {}
    for name in found.benchmarks:
        scored = [(m.name, s) for m in found.models if (s := m.main(name))]
        panels[name] = [
            charts.Bar(label=n, value=s.value, low=s.low, high=s.high, bold=n == found.models[0].name)
            for n, s in scored
        ]
    return charts.intervals(panels, "share of problems solved")


def _gains(found: SideBySide) -> "charts.Figure | None":
    first = found.models[0].name
    panels = {}
    for model in found.models[1:]:
        pairs = [p for p in found.pairs if (p.first, p.second) == (first, model.name)]
        if pairs:
            panels[model.name] = [
                charts.Bar(
                    label=p.benchmark,
                    value=p.paired.difference,
                    low=p.paired.low,
                    high=p.paired.high,
                    bold=p.word != "not shown",
                )
                for p in pairs
            ]
    return charts.intervals(panels, "difference (orange: shown)", zero=True)


def _pair_tables(found: SideBySide) -> Iterator[Block]:
    rows = [
        [p.benchmark, p.second, p.first, _difference(p), str(p.paired.n), bare_p(p.p), bare_p(p.p_holm), p.word] for p in found.pairs
    ]  # fmt: skip
    yield Table(
        header=["benchmark", "model", "against", "difference", "problems", "p", "p (Holm)", "verdict"],
        rows=rows,
        numeric=frozenset({3, 4, 5, 6}),
    )
    few = "every pair of models" if len(found.models) <= MAX_ALL_PAIRS else "each model against the first"
    yield Paragraph(
        f"Paired by problem, {few}: McNemar's exact test, two-sided, where an answer is right or wrong, else the bootstrap's; Holm's adjustment over all "
        "rows of this table. Intervals are bootstrap intervals and unadjusted.", "note"
    )  # fmt: skip


def bare_p(p: float) -> str:
    """For a column that says in its head that it holds p-values."""
    return p_value(p).removeprefix("p = ").removeprefix("p ")


def _difference(p: Pair) -> str:
    return f"{p.paired.difference:+.3f} [{p.paired.low:+.3f}, {p.paired.high:+.3f}]"


def _apart(found: SideBySide) -> Iterator[Block]:
    """What is not the headline: other metrics, validation sets, and differences in the asking."""
    rows = []
    for name in found.benchmarks:
        metrics = list(
            dict.fromkeys(
                metric for m in found.models if name in m.scores for metric in m.scores[name].metrics
            )
        )
        for metric in metrics:
            cells = [m.scores[name].metrics.get(metric) if name in m.scores else None for m in found.models]
            rows.append([name, metric, *(interval(s) if s else "-" for s in cells)])
    names = [m.name for m in found.models]
    yield Heading("Every metric")
    yield Table(
        header=["benchmark", "metric", *names], rows=rows, numeric=frozenset(range(2, 2 + len(names)))
    )
    if found.validation:
        validation = [
            [name, *(interval(s) if (s := m.main(name)) else "-" for m in found.models)]
            for name in found.validation
        ]
        yield Heading("Validation")
        yield Table(
            header=["benchmark", *names], rows=validation, numeric=frozenset(range(1, 1 + len(names)))
        )
        yield Paragraph("Problems to choose by, in at least one of the runs: no result.", "note")
    if found.asked_differently:
        yield Heading("Asked differently")
        yield Table(
            header=["setting", *names],
            rows=[[key, *values] for key, values in found.asked_differently.items()],
        )
        yield Paragraph(
            "These scores differ by more than their models: the settings above are not the same.", "note"
        )


def _origin(found: SideBySide) -> Iterator[Block]:
    yield Heading("Where this comes from")
    rows = [[m.name, m.run.root.name, str(m.round), m.run.digest, m.run.code] for m in found.models]
    yield Table(
        header=["model", "run", "round", "configuration digest", "code"], rows=rows, numeric=frozenset({2})
    )


def scores_csv(found: SideBySide) -> bytes:
    """Every score of every model, tidy."""
    rows: list[Sequence[object]] = [
        ("run", "round", "benchmark", "role", "metric", "value", "stderr", "low", "high", "n")
    ]
    for m in found.models:
        for name, summary in m.scores.items():
            role = "validation" if name in found.validation else "headline"
            for metric, s in summary.metrics.items():
                rows.append((m.run.root.name, m.round, name, role, metric, *_numbers(s)))
    return to_csv(rows)


def pairs_csv(found: SideBySide) -> bytes:
    rows: list[Sequence[object]] = [
        ("benchmark", "first", "second", "difference", "low", "high", "n", "p", "p_holm", "verdict")
    ]
    rows += [
        (p.benchmark, p.first, p.second, p.paired.difference, p.paired.low, p.paired.high, p.paired.n, p.p, p.p_holm, p.word) for p in found.pairs
    ]  # fmt: skip
    return to_csv(rows)


def _numbers(s: Score) -> tuple[float | int, ...]:
    return s.value, s.stderr, s.low, s.high, s.n


def to_csv(rows: Sequence[Sequence[object]]) -> bytes:
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator="\n").writerows(rows)
    return sink.getvalue().encode("utf-8")
