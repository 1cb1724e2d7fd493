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


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """The votes of a round over its own questions, and over those with gold answers.

    `first[k]` counts the questions whose largest class holds k of the N answers, `tied[k]` those of them
    where two classes do. `means` are over questions, by the name of the figure. `right` says how often a
    majority that exists equals the gold answer: of the anchors, of the anchors that the difficulty filter
    would keep, and of the questions trained on, where they have gold answers.
    """

    num_samples: int
    first: tuple[int, ...]
    tied: tuple[int, ...]
    fates: Mapping[Fate, int]
    means: Mapping[str, Score]
    right: Mapping[str, Score]

    @property
    def num_groups(self) -> int:
        return sum(self.first)


def votes(config: RunConfig, round: int, groups: Sequence[Group]) -> Votes:
    """The votes of a round that was answered; a round that does not train has no filter, and keeps everything
    that has a winner.
    """
    (low, high), by_vote = band(config, round)
    fates = [fate(g, low, high, voted=by_vote) for g in groups]
    own = [g for g in groups if g.own]
    anchors = [g for g in groups if not g.own]
    passed = [g for g, f in zip(groups, fates) if f == "kept"]
    kept = [g for g in passed if g.own]
    means = {
        "agreement": [g.agreement for g in own],
        "margin": [g.margin for g in own],
        "reward_mean": [g.mean_reward for g in own],
        "kept_reward_mean": [g.mean_reward for g in kept],
        "kept_share": [float(f == "kept") for g, f in zip(groups, fates) if g.own],
        "anchor_agreement": [g.agreement for g in anchors],
    }
    right = {"anchors": anchors, "anchors in the band": [g for g in passed if not g.own], "trained": kept}
    num_samples = len(groups[0].labels)
    return Votes(
        num_samples=num_samples,
        first=_spectrum(own, num_samples),
        tied=_spectrum([g for g in own if g.tie], num_samples),
        fates=Counter(f for g, f in zip(groups, fates) if g.own),
        means={name: score(values) for name, values in means.items()},
        right={name: found for name, some in right.items() if (found := _right(some)).n},
    )


def _right(groups: Sequence[Group]) -> Score:
    """Of the groups whose majority could be compared with a gold answer, the share where it is right."""
    return score([float(g.winner_correct) for g in groups if g.winner_correct is not None])


def _spectrum(groups: Sequence[Group], num_samples: int) -> tuple[int, ...]:
    sizes = Counter(round(g.agreement * num_samples) for g in groups)
    return tuple(sizes[k] for k in range(num_samples + 1))
