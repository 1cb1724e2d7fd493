"""Which of two answers is better, or how good one is: losses of scores and of log-ratios.

Pairs are neighbours: scores 2p and 2p+1 are the better and the worse answer of pair p, and `batch.plan_pairs`
keeps them in one micro-batch. Losses of log-probabilities find their sequences by the column `sequence` and
read a sequence's label at its first token. A sequence weighs what its tokens weigh together, a pair what its
two sequences do: weight 1/length makes every pair count alike. Shapes: T response tokens, S sequences (or
scores), P = S / 2 pairs. Statistics are sums over tokens, so their means are by token.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from serl.config.objectives import BradleyTerry, Dpo, Forecast, ImplicitReward
from serl.learning.advantage import sequence_sums
from serl.learning.objective import Columns, Loss, lengths


def cross_entropy(logit: Tensor, label: Tensor) -> Tensor:
    """-(l log sigmoid(x) + (1 - l) log sigmoid(-x)); the label may be any probability.

    Not log(sigmoid + eps), whose gradient vanishes where the model is most wrong.
    """
    return -(label * logsigmoid(logit) + (1 - label) * logsigmoid(-logit))


def bradley_terry(
    better_P: Tensor, worse_P: Tensor, label_P: Tensor, margin_P: Tensor, centre: float
) -> Tensor:
    """How badly two scores say that the first is better with probability `label_P`.

    Cross-entropy of their difference less a margin (Llama 2, arXiv 2307.09288, eq. 2), plus `centre` times
    their squared sum (arXiv 2312.09244), which the difference leaves free.
    """
    loss_P = cross_entropy(better_P - worse_P - margin_P, label_P)
    return loss_P + centre * (better_P + worse_P).square() if centre else loss_P


def dpo(better_P: Tensor, worse_P: Tensor, label_P: Tensor, beta: float, positive: float) -> Tensor:
    """DPO (arXiv 2305.18290, eq. 7) of the log-ratios log p / p_ref of whole answers.

    `positive` times what the better answer has lost against the reference is taken off their difference
    (DPO-positive, arXiv 2402.13228).
    """
    return cross_entropy(beta * (better_P - worse_P - positive * (-better_P).clamp(min=0)), label_P)


def nca(better_P: Tensor, worse_P: Tensor) -> Tensor:
    """Noise-contrastive alignment of one better and one worse answer's rewards (NCA, arXiv 2402.05369).

    Their values matter, not only which is larger.
    """
    return -logsigmoid(better_P) - (logsigmoid(-better_P) + logsigmoid(-worse_P)) / 2


def kto(reward_S: Tensor, label_S: Tensor, anchor_S: Tensor) -> Tensor:
    """KTO (arXiv 2402.01306): 1 - sigmoid of how far a reward is on its side of the anchor.

    That is above it for label 1 and below it for label 0.
    """
    return 1 - torch.sigmoid((2 * label_S - 1) * (reward_S - anchor_S))


def kto_anchor(reward_S: Tensor) -> float:
    """KTO's reference point: the mean reward, not below 0, of answers to questions that are not theirs."""
    return max(0.0, reward_S.double().mean().item())


def implicit_rewards(logp_T: Tensor, ref_logp_T: Tensor, beta: float) -> Tensor:
    """beta log(p / p_ref) of each token (arXiv 2412.01981).

    Summed over a step it is the step's process reward, over an answer the answer's reward.
    """
    return beta * (logp_T - ref_logp_T)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePairLoss:
    """Bradley-Terry. Columns, one number per score: weight; label and margin, those of a pair's first."""

    centre: float

    def __call__(self, score_S: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        better_P, worse_P = pairs(score_S)
        label_P, margin_P = pairs(column["label"])[0], pairs(column["margin"])[0]
        loss_P = bradley_terry(better_P, worse_P, label_P, margin_P, self.centre)
        weight_P = pair_sums(column["weight"])
        return (weight_P * loss_P).sum(), _statistics(better_P, worse_P, torch.full_like(better_P, 2.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastLoss:
    """A score as a probability. Columns, one number per score: weight, label."""

    def __call__(self, score_S: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        loss_S = cross_entropy(score_S, column["label"])
        sums = {"brier": (score_S.detach().sigmoid() - column["label"]).square().sum()}
        return (column["weight"] * loss_S).sum(), sums


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoLoss:
    """DPO, DPO-positive. Columns: weight, ref_logp, sequence; label: the pair's first is the better one."""

    beta: float
    positive: float

    def __call__(self, logp_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        length_S = lengths(column["sequence"])
        better_P, worse_P = pairs(sequence_sums(logp_T - column["ref_logp"], length_S))
        label_P = pairs(firsts(column["label"], length_S))[0]
        loss_P = dpo(better_P, worse_P, label_P, self.beta, self.positive)
        weight_P = pair_sums(sequence_sums(column["weight"], length_S))
        sums = _statistics(self.beta * better_P, self.beta * worse_P, pair_sums(length_S))
        return (weight_P * loss_P).sum(), sums


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitRewardLoss:
    """Columns: weight, ref_logp, sequence; label (not nca), anchor (kto), the same at all tokens of one."""

    form: Literal["cross_entropy", "nca", "kto"]
    beta: float

    def __call__(self, logp_T: Tensor, column: Columns) -> tuple[Tensor, dict[str, Tensor]]:
        length_S = lengths(column["sequence"])
        reward_S = sequence_sums(implicit_rewards(logp_T, column["ref_logp"], self.beta), length_S)
        weight_S = sequence_sums(column["weight"], length_S)
        sums = {"reward": (reward_S.detach() * length_S).sum()}
        match self.form:
            case "cross_entropy":
                loss = cross_entropy(reward_S, firsts(column["label"], length_S))
            case "kto":
                loss = kto(reward_S, firsts(column["label"], length_S), firsts(column["anchor"], length_S))
            case "nca":
                loss, weight_S = nca(*pairs(reward_S)), pair_sums(weight_S)
            case _:
                assert_never(self.form)
        return (weight_S * loss).sum(), sums


def preference_loss(kind: BradleyTerry | Forecast | Dpo | ImplicitReward) -> Loss:
    """The loss of one optimizer step: of scores for the first two, of log-probabilities for the others."""
    match kind:
        case BradleyTerry(centre=centre):
            return ScorePairLoss(centre=centre)
        case Forecast():
            return ForecastLoss()
        case Dpo(beta=beta, positive=positive):
            return DpoLoss(beta=beta, positive=positive)
        case ImplicitReward(form=form, beta=beta):
            return ImplicitRewardLoss(form=form, beta=beta)
        case _:
            assert_never(kind)


def reads_pairs(kind: BradleyTerry | Forecast | Dpo | ImplicitReward) -> bool:
    """Whether samples come two by two, and must stay together."""
    match kind:
        case BradleyTerry() | Dpo():
            return True
        case Forecast():
            return False
        case ImplicitReward(form=form):
            return form == "nca"
        case _:
            assert_never(kind)


def pairs(value_S: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second of each pair."""
    assert len(value_S) % 2 == 0, "a pair was split: plan its micro-batches with plan_pairs"
    return value_S[0::2], value_S[1::2]


def pair_sums(value_S: Tensor) -> Tensor:
    """The sum over the two of each pair."""
    first_P, second_P = pairs(value_S)
    return first_P + second_P


def firsts(value_T: Tensor, length_S: Tensor) -> Tensor:
    """Each sequence's number, from a column that repeats it at every token."""
    return value_T[length_S.cumsum(dim=0) - length_S]


@torch.no_grad()
def _statistics(better_P: Tensor, worse_P: Tensor, tokens_P: Tensor) -> dict[str, Tensor]:
    return {
        "pair_accuracy": ((better_P > worse_P) * tokens_P).sum(),
        "reward_gap": ((better_P - worse_P) * tokens_P).sum(),
        "better_reward": (better_P * tokens_P).sum(),
    }
