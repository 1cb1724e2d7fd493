"""How a round's votes fell, and how often they were right.

Pure: groups without their completions in, frozen values out. Nothing here escapes text; renderers do.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.scores import Score, score
from serl.config.run import RunConfig
from serl.records import Group
from serl.rewards.vote import Fate, fate
from serl.stages.read import band

EXAMPLE_FATES: tuple[Fate, ...] = ("kept", "kept", "too_easy", "too_hard", "tie", "no_votes")
Judged = Sequence[tuple[Group, Fate]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One group as a reader sees it: `answers` are the classes with their sizes, largest first; None stands
    for answers that cast no vote.
    """

    id: str
    role: str
    question: str
    gold: str | None
    fate: Fate
    majority: str | None
    majority_correct: bool | None
    agreement: float
    answers: tuple[tuple[str | None, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """The votes of a round over its own questions, and over those with gold answers.

    `first[k]` counts the questions whose largest class holds k of the N answers, `tied[k]` those of them
    where two classes do. `right` says how often a majority that exists equals the gold answer: of the
    anchors, of the anchors that the difficulty filter would keep, and of the questions trained on, where they
    have gold answers.
    """

    num_samples: int
    num_groups: int
    first: tuple[int, ...]
    tied: tuple[int, ...]
    fates: Mapping[Fate, int]
    agreement: Score
    margin: Score
    reward: Score
    kept_reward: Score
    kept_share: Score
    anchor_agreement: Score
    right: Mapping[str, Score]
    examples: tuple[Example, ...]


def votes(config: RunConfig, round: int, groups: Sequence[Group]) -> Votes:
    """The votes of a round that was answered; a round that does not train has no filter, and keeps everything
    that has a winner.
    """
    (low, high), by_vote = band(config, round)
    fates = [fate(g, low, high, voted=by_vote) for g in groups]
    own = [(g, f) for g, f in zip(groups, fates) if g.own]
    anchors = [(g, f) for g, f in zip(groups, fates) if not g.own]
    num_samples = len(groups[0].labels)
    right = {
        "anchors": _right([g for g, _ in anchors]),
        "anchors in the band": _right([g for g, f in anchors if f == "kept"]),
        "trained": _right([g for g, f in own if f == "kept"]),
    }
    return Votes(
        num_samples=num_samples,
        num_groups=len(own),
        first=_spectrum([g for g, _ in own], num_samples),
        tied=_spectrum([g for g, _ in own if g.tie], num_samples),
        fates=Counter(f for _, f in own),
        agreement=score([g.agreement for g, _ in own]),
        margin=score([g.margin for g, _ in own]),
        reward=score([g.mean_reward for g, _ in own]),
        kept_reward=score([g.mean_reward for g, f in own if f == "kept"]),
        kept_share=score([float(f == "kept") for _, f in own]),
        anchor_agreement=score([g.agreement for g, _ in anchors]),
        right={name: result for name, result in right.items() if result.n},
        examples=_examples(own, anchors),
    )


def _right(groups: Sequence[Group]) -> Score:
    """Of the groups whose majority could be compared with a gold answer, the share where it is right."""
    return score([float(g.winner_correct) for g in groups if g.winner_correct is not None])


def _spectrum(groups: Sequence[Group], num_samples: int) -> tuple[int, ...]:
    sizes = Counter(round(g.agreement * num_samples) for g in groups)
    return tuple(sizes[k] for k in range(num_samples + 1))


def _examples(own: Judged, anchors: Judged) -> tuple[Example, ...]:
    """A few groups, the first of each fate in the round's order, and the first anchor whose majority is
    wrong: chosen by rule, not by taste.
    """
    chosen = []
    for wanted in dict.fromkeys(EXAMPLE_FATES):
        chosen += [(g, f) for g, f in own if f == wanted][: EXAMPLE_FATES.count(wanted)]
    chosen += [(g, f) for g, f in anchors if g.winner_correct is False][:1]
    return tuple(_example(g, f) for g, f in chosen)


def _example(group: Group, verdict: Fate) -> Example:
    texts: dict[int, str] = {}
    for answer, label in zip(group.answers, group.labels):
        if answer is not None and label is not None:
            texts[label] = min(texts.get(label, answer), answer, key=lambda text: (len(text), text))
    sizes = Counter(group.labels)
    ranked = sorted(sizes.items(), key=lambda item: (item[0] is None, -item[1], item[0] or 0))
    return Example(
        id=group.id, role=group.role, question=group.question, gold=group.gold, fate=verdict,
        majority=group.majority, majority_correct=group.winner_correct, agreement=group.agreement,
        answers=tuple((texts.get(label), n) for label, n in ranked),
    )  # fmt: skip
