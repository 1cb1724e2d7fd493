"""How well self-play is, judged from a round's own data: its vitals, and the alarms that they raise. Pure:
the same data, the same verdict.

A vote can be wrong and sure. What betrays it is the anchors: seed problems with known answers that are voted
on in every round and never trained on. The other signs need no answers, and are weaker.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serl.config.rules import (
    Accuracy,
    Action,
    Conviction,
    Duplicates,
    Entropy,
    Length,
    Monotony,
    Safety,
    Silence,
)
from serl.records import Group

RuleName = Literal[
    "accuracy",
    "conviction",
    "silence",
    "monotony",
    "entropy",
    "length",
    "duplicates",
    "mismatch",
    "drift",
    "clipped",
]
FEWEST = 20  # anchors: a standard error from fewer is not to be trusted
FALLEN = 0.02  # agreement on the anchors that moves by less than this has neither risen nor fallen


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """A round in figures, means over its own questions unless said otherwise; they describe the policy that
    the round starts from.

    `leads` says of every anchor whose majority could be judged how far it leads, as a share of the answers:
    below 0 where it is wrong, 0 where there is no winner. `entropy` is that of the votes on a question, in
    nats; `monotony` the share of questions whose majority is the commonest one; `duplicates` the share of
    candidates that were known, None where nothing is proposed.
    """

    round: int
    leads: Mapping[str, float]
    anchor_agreement: float
    agreement: float
    margin: float
    entropy: float
    monotony: float
    unparsed: float
    truncated: float
    undecided: float
    length: float
    kept: float
    duplicates: float | None

    @property
    def accuracy(self) -> float | None:
        """The share of anchors whose majority is right; one without a winner is not."""
        return sum(lead > 0 for lead in self.leads.values()) / len(self.leads) if self.leads else None

    @property
    def conviction(self) -> float | None:
        """The mean lead on the anchors: 1 if all votes are unanimous and right, -1 if unanimous and wrong."""
        return sum(self.leads.values()) / len(self.leads) if self.leads else None

    @property
    def silent(self) -> float:
        """The share of answers that cast no vote."""
        return self.unparsed + self.truncated + self.undecided


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A rule that fired, and why, in a sentence and in figures."""

    rule: RuleName
    action: Action
    sentence: str
    figures: Mapping[str, float]

    @classmethod
    def change(cls, rule: RuleName, action: Action, sentence: str, before: float, now: float) -> "Alarm":
        """Of a figure that went too far from what it was."""
        return cls(rule=rule, action=action, sentence=sentence, figures={"before": before, "now": now})


def take_vitals(
    round: int,
    groups: Sequence[Group],
    kept: int,
    answers: Mapping[str, float],
    curated: Mapping[str, float] | None,
) -> Vitals:
    """`kept` of the round's own groups are trained on; `answers` and `curated` are the counts of respond and
    curate, summed over shards.
    """
    own = [g for g in groups if g.own]
    anchors = [g for g in groups if not g.own]
    completions = max(1.0, answers.get("completions", 0.0))
    majorities = Counter(g.majority for g in own if g.winner is not None)
    candidates = curated.get("candidates", 0.0) if curated else 0.0
    known = sum(curated.get(name, 0.0) for name in ("exact_duplicate", "near_duplicate")) if curated else 0.0
    return Vitals(
        round=round,
        leads={
            g.id: g.margin if g.winner_correct else -g.margin
            for g in anchors
            if g.winner is None or g.winner_correct is not None
        },
        anchor_agreement=_mean([g.agreement for g in anchors]),
        agreement=_mean([g.agreement for g in own]),
        margin=_mean([g.margin for g in own]),
        entropy=_mean([label_entropy(g.labels) for g in own]),
        monotony=max(majorities.values(), default=0) / max(1, len(own)),
        unparsed=answers.get("unparsed", 0.0) / completions,
        truncated=answers.get("truncated", 0.0) / completions,
        undecided=answers.get("undecided", 0.0) / completions,
        length=answers.get("tokens", 0.0) / completions,
        kept=kept / max(1, len(own)),
        duplicates=known / candidates if candidates else None,
    )


def label_entropy(labels: Sequence[int | None]) -> float:
    """Entropy of the votes on one question, in nats; those that cast none count for nothing."""
    sizes = Counter(k for k in labels if k is not None)
    total = sum(sizes.values())
    return sum(n / total * math.log(total / n) for n in sizes.values())


def fewer_right(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[int, int, float]:
    """(lost, won, p): anchors that were right and are wrong, the reverse, and the probability of so many
    losses if both were as likely.

    The exact one-sided sign test: of two samples of one policy, each anchor that differs is as likely to
    differ one way as the other.
    """
    shared = before.keys() & after.keys()
    lost = sum(before[i] > 0 >= after[i] for i in shared)
    won = sum(after[i] > 0 >= before[i] for i in shared)
    n = lost + won
    return lost, won, sum(math.comb(n, k) for k in range(lost, n + 1)) / 2**n


def mean_change(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, float]:
    """(change, z) over the anchors that both have: the mean change, and in how many of its standard errors it
    is.
    """
    changes = [after[i] - before[i] for i in sorted(before.keys() & after.keys())]
    if len(changes) < 2:
        return 0.0, 0.0
    change, error = statistics.fmean(changes), statistics.stdev(changes) / math.sqrt(len(changes))
    return change, change / error if error else math.copysign(math.inf, change) if change else 0.0


def examine(now: Vitals, earlier: Sequence[Vitals], rules: Safety) -> tuple[Alarm, ...]:
    """The alarms of a round, given those before it; `earlier[0]` is what it is measured by, and without one
    nothing can be said.
    """
    if not earlier:
        return ()
    first = earlier[0]
    fired = (
        _accuracy(now, earlier, rules.accuracy),
        _conviction(now, first, rules.conviction),
        _silence(now, first, rules.silence),
        _monotony(now, first, rules.monotony),
        _entropy(now, first, rules.entropy),
        _length(now, first, rules.length),
        _duplicates(now, rules.duplicates),
    )
    return tuple(alarm for alarm in fired if alarm is not None and alarm.action != "ignore")


def _accuracy(now: Vitals, earlier: Sequence[Vitals], rule: Accuracy) -> Alarm | None:
    """Fires whatever agreement does, since an accuracy that falls is never good; the sentence tells the two
    ways apart.
    """
    p, before, lost, won = min(
        (
            (min(1.0, len(earlier) * p), v, lost, won)
            for v in earlier
            for lost, won, p in (fewer_right(v.leads, now.leads),)
        ),
        key=lambda found: (found[0], found[1].round),
    )
    if p >= rule.p or before.accuracy is None or now.accuracy is None:
        return None
    sentence = (
        f"the votes on {len(now.leads)} anchors are right in {now.accuracy:.1%}, {before.accuracy:.1%} in "
        f"round {before.round} "
        f"({lost} lost, {won} won, p = {p:.2g}), while {_agreement(now, before)}"
    )
    figures = {
        "before": before.accuracy,
        "now": now.accuracy,
        "lost": lost,
        "won": won,
        "p": p,
        "against_round": before.round,
    }
    return Alarm(rule="accuracy", action=rule.action, sentence=sentence, figures=figures)


def _conviction(now: Vitals, first: Vitals, rule: Conviction) -> Alarm | None:
    """A late round's wrong votes may grow surer where all right ones are unanimous already: so this is
    measured by the first round alone.
    """
    if len(first.leads.keys() & now.leads.keys()) < FEWEST:
        return None
    lead, lead_z = mean_change(first.leads, now.leads)
    margin, margin_z = mean_change(*({i: abs(x) for i, x in v.leads.items()} for v in (first, now)))
    fell_p, surer_p = statistics.NormalDist().cdf(lead_z), statistics.NormalDist().cdf(-margin_z)
    if (
        first.conviction is None
        or now.conviction is None
        or not (fell_p < rule.p or (surer_p < rule.p and lead <= 0.0))
    ):
        return None
    moved = f"{first.conviction:+.3f} in round {first.round} to {now.conviction:+.3f}"
    sentence = (
        f"the right answers' lead in the votes on {len(now.leads)} anchors fell from {moved} (p = "
        f"{fell_p:.2g}), while {_agreement(now, first)}"
        if fell_p < rule.p
        else f"the votes on {len(now.leads)} anchors lead by {margin:.3f} more than in round "
        f"{first.round} (p = {surer_p:.2g}), but the right "
        f"answers' lead did not rise with that ({moved}): the votes grow surer of what is wrong"
    )
    figures = {
        "before": first.conviction,
        "now": now.conviction,
        "change": lead,
        "p": fell_p,
        "margin_change": margin,
        "margin_p": surer_p,
    }
    return Alarm(rule="conviction", action=rule.action, sentence=sentence, figures=figures)


def _agreement(now: Vitals, before: Vitals) -> str:
    """What agreement did meanwhile, and what that means."""
    change = now.anchor_agreement - before.anchor_agreement
    how = f"from {before.anchor_agreement:.2f} to {now.anchor_agreement:.2f}"
    if change < -FALLEN:
        return f"agreement on them fell {how}: training is undoing the policy"
    return (
        f"agreement on them {'rose' if change > FALLEN else 'went'} {how}: the votes are no less sure of "
        "what is wrong"
    )


def _silence(now: Vitals, first: Vitals, rule: Silence) -> Alarm | None:
    if now.silent <= first.silent + rule.rise:
        return None
    parts = f"{now.unparsed:.1%} unparsed, {now.truncated:.1%} truncated, {now.undecided:.1%} undecided"
    sentence = (
        f"{now.silent:.1%} of the answers cast no vote, {first.silent:.1%} in round {first.round} ({parts})"
    )
    return Alarm.change("silence", rule.action, sentence, first.silent, now.silent)


def _monotony(now: Vitals, first: Vitals, rule: Monotony) -> Alarm | None:
    if now.monotony <= first.monotony + rule.rise:
        return None
    sentence = (
        f"{now.monotony:.1%} of the questions have one and the same majority answer, "
        f"{first.monotony:.1%} in round {first.round}"
    )
    return Alarm.change("monotony", rule.action, sentence, first.monotony, now.monotony)


def _entropy(now: Vitals, first: Vitals, rule: Entropy) -> Alarm | None:
    if now.entropy >= first.entropy * rule.factor:
        return None
    sentence = (
        f"the votes on a question have {now.entropy:.2f} nats of entropy, {first.entropy:.2f} in round "
        f"{first.round}: hardly an answer differs"
    )
    return Alarm.change("entropy", rule.action, sentence, first.entropy, now.entropy)


def _length(now: Vitals, first: Vitals, rule: Length) -> Alarm | None:
    if first.length / rule.factor <= now.length <= first.length * rule.factor:
        return None
    sentence = f"answers have {now.length:.0f} tokens on average, {first.length:.0f} in round {first.round}"
    return Alarm.change("length", rule.action, sentence, first.length, now.length)


def _duplicates(now: Vitals, rule: Duplicates) -> Alarm | None:
    if now.duplicates is None or now.duplicates <= rule.share:
        return None
    sentence = (
        f"{now.duplicates:.1%} of the proposed instructions are duplicates: self-instruction repeats itself"
    )
    return Alarm(rule="duplicates", action=rule.action, sentence=sentence, figures={"now": now.duplicates})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
