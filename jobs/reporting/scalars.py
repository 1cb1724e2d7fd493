"""The figures of each round as rows: for `report.csv`, TensorBoard, the trackers, and the tables by round."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.scores import Score
from jobs.reporting import policies
from jobs.reporting.findings import Findings, RoundFindings, StageFindings
from jobs.reporting.render import Table, table
from jobs.reporting.vitals import vital_facts

BEST = "best_on_validation"
VITALS = ("conviction", "anchor_agreement", "entropy", "monotony", "length", "duplicates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of one round; error bars and n only where it is a mean over problems or questions."""

    round: int
    benchmark: str = ""
    metric: str
    value: float
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def tag(self) -> str:
        return f"score/{self.benchmark}/{self.metric}" if self.benchmark else self.metric

    def shown(self, how: str) -> str:
        """As its value in a format, with its interval ("[]"), with its farther end ("±"), or only its number
        ("n").
        """
        match how:
            case "n":
                return str(self.n)
            case "[]":
                return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.n}"
            case "±":  # near 0 and 1 an interval is not symmetric
                return f"{self.value:.3f}±{max(self.high - self.value, self.value - self.low):.3f}"
            case _:
                return f"{self.value:{how}}"


def rows(findings: Findings) -> list[Row]:
    """Every figure of every round, in a fixed order; what is not known has no row."""
    found = [row for r in findings.rounds for row in (*_scores(r), *_votes(r), *_counts(r))]
    return found + list(_safety(findings)) + list(_hygiene(findings))


def csv_table(found: Sequence[Row]) -> Table:
    return table([f.name for f in dataclasses.fields(Row)], map(dataclasses.astuple, found))


def by_round(found: Sequence[Row], columns: Mapping[str, tuple[str, ...]], first: str = "round") -> Table:
    """A line for each round that has any of the figures. A column is the tags of which the first that is
    there is shown, and after them how.
    """
    known = {(row.round, row.tag): row for row in found}
    tags = {tag for *tags, _ in columns.values() for tag in tags}
    lines = []
    for round in sorted({row.round for row in found if row.tag in tags}):
        cells = (
            next((known[round, tag].shown(how) for tag in tags if (round, tag) in known), None)
            for *tags, how in columns.values()
        )
        lines.append((round, *cells))
    return table((first, *columns), lines)


def _means(round: int, scores: Mapping[str, Score], benchmark: str = "") -> Iterator[Row]:
    for metric, s in scores.items():
        if s.n:
            ends = {"stderr": s.stderr, "low": s.low, "high": s.high}
            yield Row(round=round, benchmark=benchmark, metric=metric, value=s.value, n=s.n, **ends)


def _plain(
    round: int, figures: Mapping[str, float], benchmark: str = "", n: int | None = None
) -> Iterator[Row]:
    for metric, value in figures.items():
        yield Row(round=round, benchmark=benchmark, metric=metric, value=float(value), n=n)


def _scores(r: RoundFindings) -> Iterator[Row]:
    for name, found in (*r.scores.items(), *r.validation.items()):
        yield from _means(r.round, found.metrics, name)
        if (silent := policies.silent(found)) is not None:
            yield from _plain(r.round, {"unparsed_share": silent}, name)
    for pair in r.comparisons:
        figures = {"gain_over_base": pair.found.difference, "p_value_against_base": pair.p}
        yield from _plain(r.round, figures, pair.benchmark, pair.found.num_problems)


def _votes(r: RoundFindings) -> Iterator[Row]:
    if v := r.votes:
        means = {
            "agreement": v.agreement,
            "margin": v.margin,
            "reward_mean": v.reward,
            "kept_reward_mean": v.kept_reward,
            "kept_share": v.kept_share,
            "anchor_agreement": v.anchor_agreement,
        }
        right = {"reward_accuracy/" + kind.replace(" ", "_"): s for kind, s in v.right.items()}
        yield from _means(r.round, means | right)
        yield from _plain(r.round, {f"groups/{verdict}": n for verdict, n in sorted(v.fates.items())})


def _counts(r: RoundFindings) -> Iterator[Row]:
    for passage in r.funnel:
        yield from _plain(r.round, {f"funnel/{passage.name}": passage.count})
        yield from _plain(r.round, {f"lost/{passage.name}/{why}": n for why, n in passage.lost.items()})
    yield from _plain(r.round, r.figures)
    for s in r.trainings:
        for word, course in (("last_step", s.steps), ("last_turn", s.turns)):
            last = course[max(course)] | {"number": max(course)} if course else {}
            yield from _plain(
                r.round, {f"{s.prefix}{word}/{k}": v for k, v in last.items() if math.isfinite(v)}
            )
    yield from _plain(r.round, {"seconds": r.seconds} if r.started else {})
    for s in r.stages:
        if s.num_done:
            yield from _plain(
                r.round, {f"seconds/{s.name}": s.longest_s, f"shard_seconds/{s.name}": s.total_s}
            )
        yield from _plain(r.round, {f"seconds/{s.name}/{name}": x for name, x in s.seconds.items()})


def turns(findings: Findings) -> Table:
    """Every figure of every turn; `at` counts the turns of a stage through all rounds."""
    found, before = [], dict[str, int]()
    for r in findings.rounds:
        for s in r.trainings:
            first = before.get(s.name, 0)
            for turn, figures in s.turns.items():
                figures = figures | _scored_along(r, s, turn)
                found += [(r.round, s.name, turn, first + turn, name, x) for name, x in figures.items()]
            before[s.name] = first + max(s.turns, default=0)
    return table("round | stage | turn | at | metric | value", found)


def _scored_along(r: RoundFindings, training: StageFindings, turn: int) -> dict[str, float]:
    """The scores of what the policy's training published after a turn."""
    if training.prefix:
        return {}
    return {
        f"score/{name}/{metric}": score.value
        for m in r.milestones
        if m.turn == turn
        for name, found in m.scores.items()
        for metric, score in found.metrics.items()
    }


def _safety(findings: Findings) -> Iterator[Row]:
    """The vitals that no other figure tells, and the alarms, of the rounds that safety has looked at."""
    for fact in vital_facts(findings.run):
        known = {f"safety/{name}": fact[name] for name in VITALS if fact[name] is not None}
        yield from _plain(fact["round"], known | {"safety/alarms": len(fact["alarms"])})


def _hygiene(findings: Findings) -> Iterator[Row]:
    """The best round by validation, and overlaps: of instructions with the last round that has any, else with
    round 0.
    """
    if best := findings.chosen:
        yield from _plain(best.round, {BEST: 1.0} | ({f"{BEST}/turn": best.turn} if best.turn else {}))
    last = max((r.round for r in findings.rounds if r.done("problems")), default=0)
    for o in findings.overlap.overlaps:
        name, s = o.name.replace(" ", "_"), o.shared
        counts = {f"overlap/{name}/exact": s.exact_ours, f"overlap/{name}/13_words": s.runs_ours}
        yield from _plain(last if o.name == "instructions" else 0, counts, o.benchmark, s.num_ours)
