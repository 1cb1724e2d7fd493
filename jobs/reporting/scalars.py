"""The figures of each round as rows: for `report.csv`, TensorBoard, and the tables by round."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.scores import Score
from jobs.reporting import policies
from jobs.reporting.found import Findings, RoundFindings
from jobs.reporting.render import Table, listing
from jobs.reporting.vitals import vital_facts

BEST = "best_on_validation"
VITALS = ("conviction", "anchor_agreement", "entropy", "monotony", "length", "duplicates")
SUMMARY = {
    "agreement": "agreement:.3f", "kept": "kept_share:.3f",
    "reward accuracy": "reward_accuracy/anchors|reward_accuracy/trained:±",
    "KL": "last_step/approx_kl:.2g", "seconds": "seconds:.0f",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Score):
    """One figure of one round; error bars and n only where it is a mean over problems or questions."""

    round: int
    benchmark: str = ""
    metric: str
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None

    @property
    def tag(self) -> str:
        return f"score/{self.benchmark}/{self.metric}" if self.benchmark else self.metric


def rows(findings: Findings) -> list[Row]:
    """Every figure of every round, in a fixed order; what is not known has no row."""
    found = [row for r in findings.rounds for row in (*_scores(r), *_votes(r), *_counts(r))]
    return found + list(_safety(findings)) + list(_best(findings))


def csv_table(found: Sequence[Row]) -> Table:
    return listing(found, "round | benchmark | metric | value | stderr | low | high | n")


def by_round(found: Sequence[Row], columns: Mapping[str, str], first: str = "round") -> Table:
    """A line for each round that has any of the figures; see `listing`, the keys being tags."""
    tags = {tag for where in columns.values() for tag in where.partition(":")[0].split("|")}
    lines: dict[int, dict[str, object]] = {}
    for row in sorted(found, key=lambda row: row.round):
        if row.tag in tags:
            lines.setdefault(row.round, {"": row.round})[row.tag] = row
    return listing(lines.values(), {first: ""} | dict(columns))


# ----------------------------------------------------------------------------------- tables of a run
def summary_table(findings: Findings, found: Sequence[Row]) -> Table:
    """One row per round that has begun: the table at the end of a launch."""
    scores = {
        name: f"score/{name}/{policies.first_metric(scored)}:±"
        for r in findings.rounds
        for name, scored in r.scores.items()
    }
    return by_round(found, scores | SUMMARY)


def all_turns(findings: Findings) -> list[dict]:
    """Every figure of every turn, as rows."""
    return [t | {"metric": k, "value": x} for t in findings.turns for k, x in t["figures"].items()]


# ----------------------------------------------------------------------------------- rows
def _told(
    round: int, figures: Mapping[str, Score | float], benchmark: str = "", n: int | None = None
) -> Iterator[Row]:
    for metric, x in figures.items():
        own = {"round": round, "benchmark": benchmark, "metric": metric}
        if not isinstance(x, Score):
            yield Row(**own, value=float(x), n=n)
        elif x.n:
            yield Row(**own, value=x.value, stderr=x.stderr, low=x.low, high=x.high, n=x.n)


def _scores(r: RoundFindings) -> Iterator[Row]:
    for name, found in (*r.scores.items(), *r.validation.items()):
        yield from _told(r.round, found.metrics, name)
        if (silent := policies.silent(found)) is not None:
            yield from _told(r.round, {"unparsed_share": silent}, name)
    for pair in r.comparisons:
        figures = {"gain_over_base": pair.found.difference, "p_value_against_base": pair.p}
        yield from _told(r.round, figures, pair.benchmark, pair.found.num_problems)


def _votes(r: RoundFindings) -> Iterator[Row]:
    if v := r.votes:
        right = {"reward_accuracy/" + kind.replace(" ", "_"): s for kind, s in v.right.items()}
        fates = {f"groups/{verdict}": n for verdict, n in sorted(v.fates.items())}
        yield from _told(r.round, {**v.means, **right, **fates})


def _counts(r: RoundFindings) -> Iterator[Row]:
    figures: dict[str, float] = {}
    for passage in r.funnel:
        figures[f"funnel/{passage.name}"] = passage.count
        figures |= {f"lost/{passage.name}/{why}": n for why, n in passage.lost.items()}
    figures |= r.figures
    for s in r.trainings:
        for word, course in (("last_step", s.steps), ("last_turn", s.turns)):
            last = course[max(course)] | {"number": max(course)} if course else {}
            figures |= {f"{s.prefix}{word}/{k}": v for k, v in last.items() if math.isfinite(v)}
    figures |= {"seconds": r.seconds} if r.started else {}
    for s in r.stages:
        if s.num_done:
            figures |= {f"seconds/{s.name}": s.longest_s, f"shard_seconds/{s.name}": s.total_s}
        figures |= {f"seconds/{s.name}/{name}": x for name, x in s.seconds.items()}
    yield from _told(r.round, figures)


def _safety(findings: Findings) -> Iterator[Row]:
    """The vitals that no other figure tells, and the alarms, of the rounds that safety has looked at."""
    for fact in vital_facts(findings.run):
        known = {f"safety/{name}": fact[name] for name in VITALS if fact[name] is not None}
        yield from _told(fact["round"], known | {"safety/alarms": len(fact["alarms"])})


def _best(findings: Findings) -> Iterator[Row]:
    """The round that is best on validation, and its turn where the policy was published within it."""
    if best := findings.chosen:
        yield from _told(best.round, {BEST: 1.0} | ({f"{BEST}/turn": best.turn} if best.turn else {}))
