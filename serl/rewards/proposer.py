"""What a proposed question earns: a closed union over the proposer's rewards.

Proposals from one prompt are a group: their baseline is each other, as for the answers to one question.
"""

from typing import assert_never

from serl.config.rewards import Difficulty, Informative, Learnability, Uncertainty


def proposer_reward(
    reward: Learnability | Difficulty | Uncertainty | Informative, share: float | None
) -> float:
    """`share` of the question's answers are right, by gold or by vote; None says that the proposal is no
    valid question.
    """
    if share is None:
        return reward.invalid
    match reward:
        case Learnability():
            return 4.0 * share * (1.0 - share)
        case Difficulty(unsolved=unsolved):
            return 1.0 - share if share > 0 else unsolved
        case Uncertainty():
            return min(share, 1.0 - share)
        case Informative():
            return float(0.0 < share < 1.0)
        case _:
            assert_never(reward)
