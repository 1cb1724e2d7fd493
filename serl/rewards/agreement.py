"""What answers earn by how many others say the same, beyond the majority's 0 or 1; `labels` as in `vote`."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from serl.config.rewards import Scrl

Labels = Sequence[int | None]


def class_shares(labels: Labels) -> tuple[float, ...]:
    """Each answer's class as a share of all answers (EMPO, arXiv 2504.05812).

    0 without an answer, and everywhere if no two agree.
    """
    count = Counter(k for k in labels if k is not None)
    if max(count.values(), default=0) < 2:
        return (0.0,) * len(labels)
    return tuple(0.0 if k is None else count[k] / len(labels) for k in labels)


def scrl_winner(settings: Scrl, labels: Labels) -> int | None:
    """The class that is given a positive label: frequent, and clearly ahead of the next if there is one."""
    ranked = Counter(k for k in labels if k is not None).most_common(2)
    if not ranked or ranked[0][1] / len(labels) < settings.positive:
        return None
    lead = (ranked[0][1] - ranked[1][1]) / len(labels) if len(ranked) > 1 else 1.0
    return ranked[0][0] if lead > settings.margin or len(ranked) == 1 else None


def scrl_rewards(settings: Scrl, labels: Labels, entropy: Sequence[float]) -> tuple[float, ...]:
    """SCRL (arXiv 2603.19880); `entropy[i]` is answer i's mean entropy per token.

    Where it is the mean -log p of the sampled tokens, that is an unbiased estimate of it over all answers at
    the sampling temperature; of a rare class it is too high, as what is rarely drawn was improbable.

    With p the share of its class and H the class's mean entropy, an answer earns -entropy * (H - mean H of
    the question), plus p if its class is the winner, less (negative - p) if its class is rare and H not below
    the mean.
    """
    winner, count, mean = scrl_winner(settings, labels), Counter(labels), fmean(entropy)
    earned: dict[int | None, float] = {None: settings.unreadable}
    for k in count.keys() - {None}:
        share = count[k] / len(labels)
        doubt = fmean(h for h, label in zip(entropy, labels, strict=True) if label == k) - mean
        earned[k] = -settings.entropy * doubt
        if k == winner:
            earned[k] += share
        elif share < settings.negative and doubt >= 0:
            earned[k] -= settings.negative - share
    return tuple(earned[k] for k in labels)
