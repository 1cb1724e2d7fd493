"""train: curves of optimizer steps, and of the turns of a training that samples for itself."""

from typing import ClassVar

from serl.stages.kind import Stage
from serl.stages.show import Counts, Show


class TrainShow(Show):
    colour, hatch = "#1f3b57", ""
    steps: ClassVar = {
        "loss": "loss",
        "approx_kl": "KL from the round's first weights",
        "clip_fraction": "clipped tokens (share)",
        "entropy": "surprise per token (nats)",
        "ref_kl": "KL to the reference",
        "pair_accuracy": "pairs in the right order (share)",
        "reward_gap": "reward of the better less that of the worse answer",
        "grad_norm": "gradient norm",
        "tokens_per_s": "tokens per second",
        "lr": "learning rate",
    }
    last = ("loss", "approx_kl", "clip_fraction", "grad_norm", "tokens_per_s")
    turns: ClassVar = {
        "reward": "mean reward",
        "agreement": "agreement",
        "kept": "kept groups (share)",
        "refill": "questions asked for each wanted",
        "silent": "answers without a vote (share)",
        "monotony": "questions with the commonest majority",
        "entropy": "entropy of the votes (nats)",
        "kl": "KL within the turn",
        "kl_ref": "KL to the reference",
        "clip_fraction": "clipped tokens (share)",
        "mismatch_kl": "mismatch KL, trainer to sampler",
        "correction_outside": "tokens outside the correction's bounds (share)",
        "length": "tokens per response",
        "value_error": "squared error of the critic's values",
        "value_clip_fraction": "values that the clip holds (share)",
        "kl_weight": "weight of the KL",
        "states": "states valued by rollouts",
        "whole": "answers without steps",
        "proposal_reward": "mean reward of proposals",
        "proposals_valid": "valid proposals (share)",
        "sample_s": "sampling, s",
        "vote_s": "votes, s",
        "logprob_s": "log-probabilities, s",
        "step_s": "steps, s",
        "branch_s": "rollouts of states, s",
        "transfer_s": "transfer, s",
    }

    def figures(self, stage: Stage, counts: Counts) -> dict[str, float]:
        told = ("steps", "samples", "turns", "asked", "proposals", "valid")
        begun = ("mismatch_", "correction_", "turn_")
        return {name: n for name, n in counts.items() if name.startswith(begun) or name in told}


SHOW = TrainShow()
