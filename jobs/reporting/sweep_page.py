"""What the report of a sweep says, in order: the best setting and how sure that is, the evidence, the costs, and what is not finished."""

import math
from collections.abc import Iterator

from evaluation.scores import Score
from jobs.costs.accounting import Cost
from jobs.reporting import charts
from jobs.reporting.pages import interval
from jobs.reporting.render import Block, Heading, Paragraph, Table
from jobs.reporting.side_by_side_page import bare_p
from jobs.reporting.sweep_findings import Setting, SettingPair, SweepFindings, replicate_of, value_text

WORDS = ("done", "ended early", "running", "queued", "held", "stopped", "failed", "damaged", "not begun")
MAX_ROWS = 60  # of settings and pairs on the page; the CSV files have all
MAX_BARS = 24
MAX_LINES = 8
MAX_HEAT = 20
MAX_TRIALS = 200


def page(found: SweepFindings) -> list[Block]:
    """The whole report of a sweep."""
    plots = {p.name: p for p in charts.drawn(_pictures(found))}
    blocks: list[Block] = [Paragraph(sentence, "lead") for sentence in headline(found)]
    for title, names, tables in (
        ("Settings", ("settings",), _settings(found)),
        ("Which differences are shown", ("pairs",), _pairs(found)),
        ("Across the space", tuple(name for name in plots if name.startswith("space")), ()),
        ("Learning curves", ("curves",), ()),
        ("Cost", ("cost",), _costs(found)),
        ("Not finished", (), _unfinished(found)),
        ("Trials", (), _trials(found)),
    ):
        content = [plots[name] for name in names if name in plots] + list(tables)
        blocks += [Heading(title), *content] if content else []
    return blocks


def headline(found: SweepFindings) -> list[str]:
    """The best setting, and against how many others that is shown."""
    num = len(found.trials)
    words = {word: n for word in WORDS if (n := sum(t.word == word for t in found.trials))}
    sentences = [
        f"{num} trial{'s' * (num != 1)} of {len(found.settings)} setting{'s' * (len(found.settings) != 1)}: {_counted(words)}."
    ]
    best = next((s for s in found.settings if s.over), None)
    if best is None or not found.ranked_by:
        return sentences + ["No setting has a score yet."]
    told = "; ".join(f"{name} {over(best.seeds(name))}" for name in found.benchmarks if best.seeds(name).n)
    by = "validation" if found.validation else "the reported benchmarks themselves, which flatters the winner"
    tied = [
        s
        for s in found.settings
        if s is not best
        and len(s.over) == len(best.over)
        and s.rank(found.ranked_by) == best.rank(found.ranked_by)
    ]
    equal = f" (no better there than {len(tied)} other{'s' * (len(tied) != 1)})" if tied else ""
    sentences.append(
        f"Best by {by}{equal}: {best.label}, {len(best.over)} seed{'s' * (len(best.over) != 1)}: {told}."
    )
    for name in found.benchmarks:
        mine = [p for p in found.pairs if p.benchmark == name and best.label in (p.first, p.second)]
        shown = [p for p in mine if p.word == ("worse" if p.first == best.label else "better")]
        beaten = [p for p in mine if p.word == ("better" if p.first == best.label else "worse")]
        if mine:
            unlike = f", and worse than {len(beaten)}" if beaten else ""
            sentences.append(
                f"On {name} it is shown better than {len(shown)} of {len(mine)} other settings{unlike}."
            )
    return sentences


def _counted(words: dict[str, int]) -> str:
    return ", ".join(f"{n} {word}" for word, n in words.items())


def over(s: Score) -> str:
    """A mean with its interval, where there is one."""
    return interval(s) if math.isfinite(s.low) else f"{s.value:.3f}" if s.n else "-"


def summary_table(found: SweepFindings) -> Table:
    """A row per setting, best first: its seeds, and means with intervals over seeds."""
    columns = [*found.validation, *found.benchmarks]
    rows = [
        [s.label, f"{len(s.over)}/{len(s.trials)}", *(over(s.seeds(name)) for name in columns), f"{_used(s).used_s / 3600:.2f}"]
        for s in found.settings[:MAX_ROWS]
    ]  # fmt: skip
    header = ["setting", "seeds", *columns, "task-hours"]
    return Table(header=header, rows=rows, numeric=frozenset(range(1, len(header))))


def _settings(found: SweepFindings) -> Iterator[Block]:
    """A table for each benchmark, to be read downwards."""
    any_rows = False
    for name in (*found.validation, *found.benchmarks):
        rows = [
            _setting_row(number, s, name)
            for number, s in enumerate(found.settings[:MAX_ROWS], 1)
            if s.seeds(name).n
        ]
        if rows:
            any_rows = True
            header = [
                "",
                f"{name} (validation)" if name in found.validation else name,
                "seeds",
                "mean [over seeds]",
                "over problems",
                "base model",
                "rounds",
            ]
            yield Table(header=header, rows=rows, numeric=frozenset({0, 2, 3, 4, 5, 6}))
    if any_rows:
        chosen = "the best round on validation" if found.validation else "the last scored round"
        more = (
            f" Only the first {MAX_ROWS} of {len(found.settings)} settings are shown; settings.csv has all."
            if len(found.settings) > MAX_ROWS
            else ""
        )
        yield Paragraph(
            f"Greedy pass@1 of each trial's policy: that of {chosen}. 95 % intervals: over seeds, Student's, which says how well the setting works; over "
            f"problems, each problem's seeds averaged first, which says only how well these very policies were measured.{more}", "note"
        )  # fmt: skip


def _setting_row(number: int, s: Setting, benchmark: str) -> list[str]:
    within, base = s.problems(benchmark), s.seeds(benchmark, at=0)
    rounds = sorted({t.chosen for t in s.over.values() if t.chosen is not None})
    seeds = s.seeds(benchmark)
    told = f"[{within.low:.3f}, {within.high:.3f}]"
    return [
        str(number),
        s.label,
        str(seeds.n),
        over(seeds),
        told,
        f"{base.value:.3f}" if base.n else "-",
        ", ".join(map(str, rounds)),
    ]


def _pairs(found: SweepFindings) -> Iterator[Block]:
    if not found.pairs:
        return
    pairs = sorted(found.pairs, key=lambda p: (found.benchmarks.index(p.benchmark), p.p_holm, p.found.p))
    first = {p.first for p in pairs}
    all_pairs = len(first) > 1
    header = [
        "benchmark",
        "setting",
        *(["against"] if all_pairs else []),
        "verdict",
        "difference",
        "seeds, problems",
        "p",
        "p (Holm)",
    ]
    rows = [
        [p.benchmark, p.second, *([p.first] if all_pairs else []), p.word, _difference(p), f"{p.found.num_seeds}, {p.found.num_problems}",
         bare_p(p.found.p), bare_p(p.p_holm)]
        for p in pairs[:MAX_ROWS]
    ]  # fmt: skip
    if not all_pairs:
        yield Paragraph(f"Against the best, {min(first)}:")
    yield Table(header=header, rows=rows, numeric=frozenset(range(len(header) - 4, len(header))))
    yield Paragraph(
        "Two-sided tests, paired over seeds and problems at once: a two-way random-effects analysis of the paired differences (Hillis' degrees of freedom), "
        "so that it speaks of other seeds and other problems; with one seed McNemar's exact test, which says nothing of other seeds. Holm's adjustment over "
        f"all {len(pairs)} tests" + (f", of which the first {MAX_ROWS} are shown; pairs.csv has all." if len(pairs) > MAX_ROWS else "."), "note"
    )  # fmt: skip


def _difference(p: SettingPair) -> str:
    return f"{p.found.difference:+.3f} [{p.found.low:+.3f}, {p.found.high:+.3f}]"


def _used(s: Setting) -> Cost:
    return sum((t.cost for t in s.trials), Cost())


def _costs(found: SweepFindings) -> Iterator[Block]:
    costs = [(s, _used(s)) for s in found.settings]
    if not any(c.attempts for _, c in costs):
        return
    total = sum((c for _, c in costs), Cost())
    rows = [[s.label, *_cost_cells(c, len(s.trials))] for s, c in costs[:MAX_ROWS]] + [
        ["all", *_cost_cells(total, len(found.trials))]
    ]
    header = ["setting", "trials", "task-hours", "per trial", "lost", "GPU-hours", "per trial"]
    yield Table(header=header, rows=rows, numeric=frozenset(range(1, 7)))
    yield Paragraph(
        "Task-hours: the time of all attempts of all tasks (a training's ranks each); a stage that trials share is counted once, with the trial that computed "
        "it. Lost: of that, what no result came of.", "note"
    )  # fmt: skip


def _cost_cells(c: Cost, trials: int) -> list[str]:
    hours = c.used_s / 3600
    gpus = [f"{c.gpu_hours:.2f}", f"{c.gpu_hours / trials:.2f}"] if c.gpu_hours else ["-", "-"]
    return [
        str(trials),
        f"{hours:.3f}",
        f"{hours / trials:.3f}",
        f"{c.all_lost_s / c.used_s:.1%}" if c.used_s else "-",
        *gpus,
    ]


def _unfinished(found: SweepFindings) -> Iterator[Block]:
    rows = [[t.trial.run, str(t.trial), t.word, t.reason or "-"] for t in found.trials if t.word != "done"]
    if rows:
        yield Table(header=["run", "trial", "state", "reason"], rows=rows[:MAX_TRIALS])
        yield Paragraph(
            "A trial that was ended early counts with the score it had; the others here do not count. Launching the sweep file again goes on.",
            "note",
        )


def _trials(found: SweepFindings) -> Iterator[Block]:
    key = found.sweep.config.replicate
    columns = [*found.validation, *found.benchmarks]
    rows = []
    for s in found.settings:
        for t in s.trials:
            means = t.means.get(t.chosen, {}) if t.chosen is not None else {}
            cells = [f"{means[name]:.3f}" if name in means else "-" for name in columns]
            replicate = replicate_of(t.trial, key) if key in t.trial.overrides else "-"
            rows.append(
                [t.trial.run, s.label, replicate, t.word, "-" if t.chosen is None else str(t.chosen), *cells, f"{t.cost.used_s / 3600:.3f}",
                 f"{t.cost.gpu_hours:.2f}" if t.cost.gpu_hours else "-"]
            )  # fmt: skip
    header = ["run", "setting", key, "state", "round", *columns, "task-hours", "GPU-hours"]
    yield Table(header=header, rows=rows[:MAX_TRIALS], numeric=frozenset({2, *range(4, len(header))}))


# ------------------------------------------------------------------------------------------------ pictures
def _pictures(found: SweepFindings):
    how = "Diamond: the best. Bars are 95 % intervals over seeds (Student's); dotted ones, of settings with one seed, are over problems alone."
    yield "settings", "Settings", how, lambda: _bars(found)
    yield (
        "curves",
        "Learning curves",
        "Means over seeds by round, thin lines single seeds; round 0 is the base model.",
        lambda: _curves(found),
    )
    yield "cost", "Cost and score", "One point per trial.", lambda: _cost_points(found)
    yield from _space(found)


def _bars(found: SweepFindings) -> "charts.Figure | None":
    shown = [s for s in found.settings if s.over][:MAX_BARS]
    panels = {
        name: [
            _bar(f"{number}: {s.label}", s, name, best=number == 1)
            for number, s in enumerate(shown, 1)
            if s.seeds(name).n
        ]
        for name in (*found.validation, *found.benchmarks)
    }
    return charts.intervals({name: bars for name, bars in panels.items() if bars}, "share of problems solved")


def _bar(label: str, s: Setting, benchmark: str, *, best: bool) -> charts.Bar:
    seeds = s.seeds(benchmark)
    shown = seeds if seeds.n > 1 else s.problems(benchmark)
    return charts.Bar(
        label=label, value=seeds.value, low=shown.low, high=shown.high, bold=best, dotted=seeds.n == 1
    )


def _curves(found: SweepFindings) -> "charts.Figure | None":
    panels = {}
    for name in found.benchmarks:
        lines = []
        for number, s in [
            (n, s) for n, s in enumerate(found.settings, 1) if any(len(t.means) > 1 for t in s.trials)
        ][:MAX_LINES]:
            courses = [
                [(float(r), means[name]) for r, means in sorted(t.means.items()) if name in means]
                for t in s.trials
            ]
            courses = [c for c in courses if c]
            rounds = sorted({x for c in courses for x, _ in c})
            at = {x: [y for c in courses for r, y in c if r == x] for x in rounds}
            lines.append(
                charts.Line(
                    label=f"{number}: {s.label}",
                    mean=[(x, sum(ys) / len(ys)) for x, ys in at.items() if len(ys) == len(courses)],
                    each=courses,
                )
            )
        if lines:
            panels[name] = lines
    return charts.curves(panels, "share of problems solved")


def _cost_points(found: SweepFindings) -> "charts.Figure | None":
    name = (found.ranked_by or ("",))[0]
    points = {
        f"{number}: {s.label}": [
            (t.cost.used_s / 3600, t.means[t.chosen][name])
            for t in s.over.values()
            if t.chosen is not None and name in t.means[t.chosen] and t.cost.used_s
        ]
        for number, s in enumerate(found.settings[:MAX_LINES], 1)
    }
    return charts.points({label: p for label, p in points.items() if p}, "task-hours of a trial", name)


def _space(found: SweepFindings):
    """Two axes as shades, where most of their table is filled; more axes as parallel coordinates."""
    axes = found.axes
    able = [i for i, s in enumerate(found.settings) if s.over]
    if len(axes) < 2 or len(able) < 3:
        return
    texts = {key: [value_text(key, v) for v in values] for key, values in axes.items()}
    labels = {key: _ordered(key, [axes[key][i] for i in able]) for key in axes}
    sizes = [len(column) for column in labels.values()]
    if len(axes) == 2 and max(sizes) <= MAX_HEAT and 2 * len(able) >= math.prod(sizes):
        for name in (*found.validation, *found.benchmarks):
            yield (
                f"space {name}",
                name,
                f"{name}: means over seeds, by the two keys that the settings differ in.",
                _heat(found, able, texts, labels, name),
            )
    else:
        caption = f"A line per setting through its values, dark where {' and '.join(found.ranked_by)} is high; the best in orange."
        yield "space", "Parallel coordinates", caption, lambda: charts.parallel(
            {found.names[key]: [v if isinstance(v := axes[key][i], int | float) and not isinstance(v, bool) else texts[key][i] for i in able] for key in axes},
            [found.settings[i].rank(found.ranked_by) for i in able], "score",
        )  # fmt: skip


def _heat(
    found: SweepFindings,
    able: list[int],
    texts: dict[str, list[str]],
    labels: dict[str, list[str]],
    name: str,
):
    def figure() -> "charts.Figure":
        row, column = labels
        names = found.names
        cells = {(texts[row][i], texts[column][i]): found.settings[i].seeds(name).value for i in able}
        values = [[cells.get((r, c), math.nan) for c in labels[column]] for r in labels[row]]
        return charts.heat((names[row], labels[row]), (names[column], labels[column]), values, name)

    return figure


def _ordered(key: str, values: list) -> list[str]:
    """The texts of an axis, numbers by size, others in the order of the settings."""
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return list(
        dict.fromkeys(
            value_text(key, v)
            for v in (sorted(values) if numbers else sorted(values, key=lambda v: value_text(key, v)))
        )
    )
