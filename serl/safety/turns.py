"""How well a training that samples for itself is, judged turn by turn: its figures, and the alarms that they
raise. Pure.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from serl.config.rules import Safety
from serl.records import Group
from serl.safety.vitals import Alarm, label_entropy

WINDOW = 3  # turns that are averaged: a turn has few questions


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFigures:
    """A turn in figures: of its answers, and of the optimizer steps on them.

    `refill` is questions asked for each of the `prompts` wanted; `kl` between the turn's first weights and
    those of its steps, `kl_ref` between the policy and the reference; `silent` the share of answers that cast
    no vote, `monotony` that of questions with the commonest majority; `correction_...` what the
    engine's numerics weigh.
    """

    turn: int
    reward: float
    agreement: float
    kept: float
    refill: float
    length: float
    silent: float
    monotony: float
    entropy: float
    kl: float = 0.0
    kl_ref: float = 0.0
    clip_fraction: float = 0.0
    mismatch_kl: float = 0.0
    mismatch_max: float = 0.0
    correction_mean: float = 1.0
    correction_outside: float = 0.0

    @classmethod
    def of(cls, turn: int, groups: Sequence[Group], kept: int, asked: int, prompts: int) -> "TurnFigures":
        answers = [label for g in groups for label in g.labels]
        majorities = Counter(g.majority for g in groups if g.winner is not None)
        lengths = [len(c.token_ids) for g in groups for c in g.completions]
        return cls(
            turn=turn,
            reward=_mean([g.mean_reward for g in groups]),
            agreement=_mean([g.agreement for g in groups]),
            kept=kept / max(1, len(groups)),
            refill=asked / prompts,
            length=_mean(lengths),
            silent=sum(label is None for label in answers) / max(1, len(answers)),
            monotony=max(majorities.values(), default=0) / max(1, len(groups)),
            entropy=_mean([label_entropy(g.labels) for g in groups]),
        )

    def numbers(self) -> dict[str, float]:
        """All but the turn's number."""
        return {name: value for name, value in asdict(self).items() if name != "turn"}


def examine_turn(turns: Sequence[TurnFigures], rules: Safety) -> tuple[Alarm, ...]:
    """The alarms of the newest turn, given those before; the first ones are what later ones are measured
    by.
    """
    now = turns[-1]
    fired = [_mismatch(now, rules), _drift(now, rules), _clipped(turns, rules)]
    if len(turns) >= 2 * WINDOW:
        first, last = _window(turns[:WINDOW]), _window(turns[-WINDOW:])
        fired += [_silence(first, last, rules), _monotony(first, last, rules), _entropy(first, last, rules)]
        fired += [_length(first, last, rules)]
    return tuple(alarm for alarm in fired if alarm is not None and alarm.action != "ignore")


def _mismatch(now: TurnFigures, rules: Safety) -> Alarm | None:
    rule = rules.mismatch
    if now.mismatch_kl <= rule.limit:
        return None
    sentence = (
        f"in turn {now.turn} the sampling engine and the trainer disagree: mismatch_kl "
        f"{now.mismatch_kl:.3g}, more than "
        f"{rule.limit:g}"
    )
    return Alarm(rule="mismatch", action=rule.action, sentence=sentence, figures={"now": now.mismatch_kl})


def _drift(now: TurnFigures, rules: Safety) -> Alarm | None:
    rule = rules.drift
    if now.kl_ref <= rule.limit:
        return None
    sentence = (
        f"in turn {now.turn} the policy is {now.kl_ref:.3g} nats a token from the reference, more than "
        f"{rule.limit:g}"
    )
    return Alarm(rule="drift", action=rule.action, sentence=sentence, figures={"now": now.kl_ref})


def _clipped(turns: Sequence[TurnFigures], rules: Safety) -> Alarm | None:
    rule = rules.clipped
    last = turns[-rule.turns :]
    if len(last) < rule.turns or min(t.clip_fraction for t in last) <= rule.share:
        return None
    sentence = (
        f"for {rule.turns} turns more than {rule.share:.0%} of the tokens were clipped "
        f"({last[-1].clip_fraction:.1%} in turn "
        f"{last[-1].turn}): the steps are too large, or too many for one batch of answers"
    )
    figures = {"now": last[-1].clip_fraction}
    return Alarm(rule="clipped", action=rule.action, sentence=sentence, figures=figures)


def _silence(first: dict[str, float], last: dict[str, float], rules: Safety) -> Alarm | None:
    if last["silent"] <= first["silent"] + rules.silence.rise:
        return None
    sentence = f"{last['silent']:.1%} of the answers cast no vote, {first['silent']:.1%} in the first turns"
    return Alarm.change("silence", rules.silence.action, sentence, first["silent"], last["silent"])


def _monotony(first: dict[str, float], last: dict[str, float], rules: Safety) -> Alarm | None:
    if last["monotony"] <= first["monotony"] + rules.monotony.rise:
        return None
    sentence = (
        f"{last['monotony']:.1%} of the questions have one and the same majority answer, "
        f"{first['monotony']:.1%} in the "
        "first turns"
    )
    return Alarm.change("monotony", rules.monotony.action, sentence, first["monotony"], last["monotony"])


def _entropy(first: dict[str, float], last: dict[str, float], rules: Safety) -> Alarm | None:
    if last["entropy"] >= first["entropy"] * rules.entropy.factor:
        return None
    sentence = (
        f"the votes on a question have {last['entropy']:.2f} nats of entropy, {first['entropy']:.2f} in "
        "the first turns: "
        "hardly an answer differs"
    )
    return Alarm.change("entropy", rules.entropy.action, sentence, first["entropy"], last["entropy"])


def _length(first: dict[str, float], last: dict[str, float], rules: Safety) -> Alarm | None:
    if not (first["length"] and last["length"]):
        return None
    if abs(math.log(last["length"] / first["length"])) <= math.log(rules.length.factor):
        return None
    sentence = f"answers have {last['length']:.0f} tokens, {first['length']:.0f} in the first turns"
    return Alarm.change("length", rules.length.action, sentence, first["length"], last["length"])


def _window(turns: Sequence[TurnFigures]) -> dict[str, float]:
    rows = [t.numbers() for t in turns]
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
