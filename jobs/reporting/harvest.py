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

    group: Group
    fate: Fate
    answers: tuple[tuple[str | None, int], ...]

    @property
    def id(self) -> str:
        return self.group.id

    @property
    def majority_correct(self) -> bool | None:
        return self.group.winner_correct


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
    judged = [(g, fate(g, low, high, voted=by_vote)) for g in groups]
    own, anchors = [(g, f) for g, f in judged if g.own], [(g, f) for g, f in judged if not g.own]
    kept = [g for g, f in own if f == "kept"]
    right = {
        "anchors": _right([g for g, _ in anchors]),
        "anchors in the band": _right([g for g, f in anchors if f == "kept"]),
        "trained": _right(kept),
    }
    num_samples = len(groups[0].labels)
    return Votes(
        num_samples=num_samples,
        num_groups=len(own),
        first=_spectrum([g for g, _ in own], num_samples),
        tied=_spectrum([g for g, _ in own if g.tie], num_samples),
        fates=Counter(f for _, f in own),
        agreement=score([g.agreement for g, _ in own]),
        margin=score([g.margin for g, _ in own]),
        reward=score([g.mean_reward for g, _ in own]),
        kept_reward=score([g.mean_reward for g in kept]),
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
    return tuple(Example(group=g, fate=f, answers=tuple(_answers(g))) for g, f in chosen)


def _answers(group: Group) -> list[tuple[str | None, int]]:
    found = classes(group.labels)
    return [(next(iter(spellings(group.answers, mine)), None), len(mine)) for _, mine in found]


def classes(labels: Sequence[int | None]) -> list[tuple[int | None, list[int]]]:
    """The classes of a group with the places of their answers, the largest first; those that cast no vote
    come last.
    """
    places: dict[int | None, list[int]] = {}
    for i, label in enumerate(labels):
        places.setdefault(label, []).append(i)
    return sorted(places.items(), key=lambda item: (item[0] is None, -len(item[1]), item[0] or 0))


def spellings(answers: Sequence[str | None], places: Sequence[int]) -> list[str]:
    """How the answers of a class are written, the shortest first."""
    found = {text for i in places if (text := answers[i]) is not None}
    return sorted(found, key=lambda text: (len(text), text))
