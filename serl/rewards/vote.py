"""The majority vote: what N answers say, whatever their order."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serl.records import Group

Fate = Literal["kept", "no_votes", "tie", "too_hard", "too_easy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """`agreement` is the winner's share of all N answers, `margin` the lead over the runner-up as a share of
    N; both 0 without votes.

    A tie for the first place has no winner: to name one would reward whichever answer came first.
    """

    winner: int | None
    tie: bool
    agreement: float
    margin: float


def vote(labels: Sequence[int | None]) -> Vote:
    """`labels[i]` is the equivalence class of answer i, None where it casts no vote."""
    ranked = Counter(k for k in labels if k is not None).most_common()
    if not ranked:
        return Vote(winner=None, tie=False, agreement=0.0, margin=0.0)
    first = ranked[0][1]
    second = ranked[1][1] if len(ranked) > 1 else 0
    tie = first == second
    return Vote(
        winner=None if tie else ranked[0][0],
        tie=tie,
        agreement=first / len(labels),
        margin=(first - second) / len(labels),
    )


def fate(group: Group, low: float, high: float, *, voted: bool) -> Fate:
    """Why a group is or is not trained on: kept iff its rewards are informative, neither nearly unanimous nor
    noise.

    `voted`: the reward came from the vote, so a group without a winner has no reward at all. A mean reward
    beyond [0, 1] counts as the nearer end: all shares are within [0, 1].
    """
    if voted and group.winner is None:
        return "tie" if group.tie else "no_votes"
    share = min(1.0, max(0.0, group.mean_reward))
    if share < low:
        return "too_hard"
    return "too_easy" if share > high else "kept"
