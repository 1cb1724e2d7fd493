"""One rank of the test of PPO's learning: policy and critic take steps together, save, are loaded anew and go on.

Started by `test_critic.py` through `test_trainer.run_ranks`; importable for the data both sides use.
"""

import gc
import json
import os
import sys
from pathlib import Path

import torch
import train_ranks as job

from serl.config.objectives import AdaptiveKl, Ppo
from serl.config.objectives import Critic as CriticSection
from serl.engines.model import load_tokenizer
from serl.engines.ranks import join_ranks
from serl.engines.trainer import Trainer
from serl.learning.algorithms import LogProbs
from serl.learning.batch import Sample, attach
from serl.learning.objective import ImitationLoss
from serl.stages.train import credit
from serl.stages.train.critic import Critic
from serl.stages.train.section import Rollout, Train

KIND = Ppo(
    gamma=0.95,
    lam=0.9,
    kl=0.2,
    kl_estimate="k3",
    adaptive=AdaptiveKl(horizon=50),
    critic=CriticSection(lr=6e-3),
)
BATCHES = (range(8), range(8, 16), range(16, 24))
NUM_STEPS, SAVED_AT = 3, 2


def settings(zero: int) -> Train:
    how = {"prompts": 4, "samples": 6, "sampling": {"temperature": 1.0, "max_tokens": 24}}
    how["problems"] = {"per_round": 4, "source": {"kind": "jsonl", "path": "some.jsonl"}}
    plain = job.settings(zero).model_dump()
    return Train.model_validate(
        {**plain, "objective": KIND.model_dump(), "rollout": Rollout.model_validate(how)}
    )


def rewards() -> torch.Tensor:
    return torch.randint(0, 2, (4, 6), generator=torch.Generator().manual_seed(6)).float()


def samples() -> list[Sample]:
    return [Sample(token_L=s.token_L, num_prompt=s.num_prompt, column={}) for s in job.make_samples()]


def made(zero: int, base: Path, folder: Path, ranks) -> tuple[Trainer, Critic]:
    policy = Trainer(folder, settings(zero), ranks=ranks, horizon=NUM_STEPS, seed=job.SEED)
    return policy, Critic(folder, settings(zero), policy)


def learn(policy: Trainer, critic: Critic, rows: list[Sample], steps: range) -> list[list[float]]:
    seen = []
    for number in steps:
        mine = [rows[i] for i in BATCHES[number]]
        stats, values = policy.step(mine, credit.policy_loss(policy.settings, 0.2)), critic.step(mine)
        seen.append([stats.loss, stats.grad_norm, values.loss, values.grad_norm])
    return seen


def train(zero: int, base: Path, out: Path, ranks) -> dict:
    folder = out / f"start_{zero}"
    Trainer(job.make_model(base), job.settings(0), ranks=ranks, horizon=1, seed=1).export(
        folder, load_tokenizer(base)
    )
    policy, critic = made(zero, base, folder, ranks)
    bare = samples()
    old_T, value_T = torch.cat(policy.logprobs(bare)), critic.values(bare)
    length_S = torch.tensor([s.num_response for s in bare])
    logp = LogProbs(old_T=old_T, ref_T=old_T - 0.1, behaviour_T=old_T, length_S=length_S)
    groups = [Rewarded(row.tolist()) for row in rewards()]
    columns = credit.columns(policy.settings, groups, (), value_T, logp, 0.2)
    rows = attach(bare, columns)
    seen = {"old": old_T.tolist(), "value": value_T.tolist(), "advantage": columns["advantage"].tolist()}
    seen["kl"] = credit.next_kl(policy.settings, 0.2, logp)
    seen["steps"] = learn(policy, critic, rows, range(SAVED_AT))
    policy.save(out / f"checkpoints_{zero}", {})
    seen["steps"] += learn(policy, critic, rows, range(SAVED_AT, NUM_STEPS))
    seen["after"] = [torch.cat(policy.logprobs(bare)).tolist(), critic.values(bare).tolist()]

    again, of_critic = made(zero, base, folder, ranks)
    again.load(out / f"checkpoints_{zero}")
    assert (again.step_index, of_critic.trainer.step_index) == (SAVED_AT, SAVED_AT)
    seen["again"] = learn(again, of_critic, rows, range(SAVED_AT, NUM_STEPS))
    seen["after_again"] = [torch.cat(again.logprobs(bare)).tolist(), of_critic.values(bare).tolist()]
    return seen


class Rewarded:
    """Of a group, what credit is made from."""

    def __init__(self, rewards: list[float]):
        self.rewards = rewards


def measured(zero: int, base: Path, out: Path, ranks) -> list[float]:
    """Bytes a weight that policy and critic keep at the end of a backward pass, promised and found."""
    job.SHAPE = job.SHAPE.model_copy(update={"hidden": 512, "layers": 4, "intermediate": 1024})
    folder, how = out / f"large_{zero}", settings(zero).model_copy(update={"dtype": "bfloat16"})
    lm = job.make_model(base)
    num_weights = sum(p.numel() for p in lm.parameters())
    Trainer(lm, job.settings(0), ranks=ranks, horizon=1, seed=1).export(folder, load_tokenizer(base))
    lm, before, found = None, _held(), []

    def look(logp_T, column):
        found.append(_held() - before)
        return ImitationLoss()(logp_T, column)

    policy = Trainer(folder, how, ranks=ranks, horizon=1, seed=1)
    critic = Critic(folder, how, policy)
    for loss in (ImitationLoss(), look):
        for trainer in (policy, critic.trainer):
            trainer.step(job.make_samples()[:4], loss)
    return [2 * how.kept_bytes(ranks.size, gpu=False), max(found) / num_weights]


def _held() -> int:
    """Bytes of all tensors that there are."""
    gc.collect()
    tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def main(base: Path, out: Path) -> None:
    torch.set_num_threads(1)
    ranks = join_ranks("cpu", timeout_s=300)
    seen = {f"zero_{zero}": train(zero, base, out, ranks) for zero in (0, 1, 3)}
    seen["kept"] = {f"zero_{zero}": measured(zero, base, out, ranks) for zero in (1, 3)}
    (out / f"rank_{ranks.rank}.json").write_text(json.dumps(seen))
    ranks.leave()
    os._exit(0)  # gloo's threads outlive their group


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
