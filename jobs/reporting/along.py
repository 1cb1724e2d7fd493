"""The learning curve within rounds: the policies that trainings published along the way, between the rounds'
last ones, by turn and by answers trained on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.scores import Score
from evaluation.summary import Summary
from jobs.reporting import plots, policies
from jobs.reporting.found import Findings, RoundFindings
from jobs.reporting.plots import GREY, Line, grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A policy's score on a benchmark; turns and answers trained on are those of all rounds until then.
    `turn` is 0 where the policy is its round's last.
    """

    round: int
    turn: int
    turns: int
    answers: int
    benchmark: str
    score: Score

    @property
    def told(self) -> int | str:
        return self.turn or "last"


def curve(findings: Findings) -> list[Point]:
    """By policy in the order in which they came; empty where nothing was published along the way."""
    if not any(r.milestones for r in findings.rounds):
        return []
    found: list[Point] = []
    turns = answers = 0
    for r in findings.rounds:
        for m in r.milestones:
            found += _points(r.round, m.turn, turns + m.turn, answers + m.answers, m.scores.items())
        own_turns, own_answers = _learned(findings, r)
        turns, answers = turns + own_turns, answers + own_answers
        found += _points(r.round, 0, turns, answers, [*r.scores.items(), *r.validation.items()])
    return found


def _points(
    round: int, turn: int, turns: int, answers: int, scores: Sequence[tuple[str, Summary]]
) -> Iterator[Point]:
    for name, summary in scores:
        score = policies.main_score(summary)
        yield Point(round=round, turn=turn, turns=turns, answers=answers, benchmark=name, score=score)


def _learned(findings: Findings, r: RoundFindings) -> tuple[int, int]:
    """Turns of the training that the milestones of a round are of, and the answers it was trained on."""
    training = findings.run.config.training(r.round) if r.round else None
    counts = next((s.counts for s in r.stages if s.of == training), {})
    return int(counts.get("turns", 0)), int(counts.get("samples", 0))


def figure(findings: Findings) -> "Figure | None":
    """A row of panels for each benchmark that policies along the way were asked: over turns, and over
    answers.
    """
    found = curve(findings)
    names = dict.fromkeys(p.benchmark for p in found if p.turn)
    if not names:
        return None
    drawn, axes = grid(2 * len(names), columns=2, height=2.6)
    ends = {p.round: p for p in found if not p.turn}
    for row, name in enumerate(names):
        mine = [p for p in found if p.benchmark == name]
        for ax, key, label in zip(axes[2 * row :], ("turns", "answers"), ("turn", "answers trained on")):
            plots.line_of(ax, 0, Line(label="", course=[(getattr(p, key), p.score) for p in mine]))
            for end in ends.values():
                ax.axvline(getattr(end, key), color=GREY, linestyle=":", linewidth=0.8)
            ax.set(title=name, xlabel=label, ylabel="share solved", ylim=(0, 1.02))
    return drawn


def told(findings: Findings) -> list[Point]:
    """Every policy that is drawn, without the base model."""
    found = curve(findings)
    asked = {p.benchmark for p in found if p.turn}
    return [p for p in found if p.benchmark in asked and (p.turn or p.round)]
