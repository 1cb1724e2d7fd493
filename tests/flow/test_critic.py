"""A policy and its critic on the real DeepSpeed, as one process and as two, against plain torch and PPO's formulas in loops;
saved together and loaded anew, they go on bit by bit.
"""

import math
from pathlib import Path

import critic_ranks as job
import pytest
import torch
import train_ranks
from test_trainer import base, run_ranks  # noqa: F401 (a fixture)
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from serl.engines.scores import first_head
from serl.learning.schedule import learning_rate

STAGES = ("zero_0", "zero_1", "zero_3")


@pytest.fixture(scope="module", params=[1, 2], ids=["one_rank", "two_ranks"])
def seen(request, base, tmp_path_factory) -> tuple[list[dict], Path]:  # noqa: F811
    out = tmp_path_factory.mktemp("critic") / "out"
    return run_ranks(request.param, base, out, script="critic_ranks.py"), out


def logps(lm, sample) -> torch.Tensor:
    """log p of each response token."""
    logits = lm(sample.token_L[None]).logits[0].log_softmax(-1)
    at = torch.arange(sample.num_prompt - 1, len(sample.token_L) - 1)
    return logits[at, sample.token_L[sample.num_prompt :]]


def states(critic, sample) -> torch.Tensor:
    """The head's number before each response token."""
    hidden = critic.model(sample.token_L[None]).last_hidden_state[0]
    return critic.score(hidden)[sample.num_prompt - 1 : len(sample.token_L) - 1, 0]


def credited(reward: float, old: list[float], value: list[float]) -> tuple[list[float], list[float]]:
    """Advantages and returns of one answer: a reward of -kl k3 a token, the outcome at the last, and GAE by recursion."""
    kind, n = job.KIND, len(old)
    k3 = math.exp(-0.1) - 1 + 0.1
    r = [-0.2 * k3 + (reward if t == n - 1 else 0.0) for t in range(n)]
    advantage, ahead = [0.0] * n, 0.0
    for t in reversed(range(n)):
        delta = r[t] + kind.gamma * (value[t + 1] if t + 1 < n else 0.0) - value[t]
        advantage[t] = ahead = delta + kind.gamma * kind.lam * ahead
    return advantage, [a + v for a, v in zip(advantage, value)]


def adam_of(lm, lr: float):
    matrices, others = [p for p in lm.parameters() if p.ndim > 1], [p for p in lm.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=train_ranks.OPTIMIZER.betas)


def oracle(folder: Path) -> dict:
    """Everything in plain torch and loops, from the folder that ranks began with."""
    policy = AutoModelForCausalLM.from_pretrained(folder)
    critic = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    critic.score.weight.data.copy_(first_head(critic.config.hidden_size, train_ranks.SEED)[None])
    samples, reward = job.samples(), job.rewards().flatten().tolist()
    with torch.no_grad():
        old, value = [logps(policy, s) for s in samples], [states(critic, s) for s in samples]
    made = [credited(r, o.tolist(), v.tolist()) for r, o, v in zip(reward, old, value)]
    flat = torch.tensor([a for advantage, _ in made for a in advantage], dtype=torch.float64)
    mean, deviation = flat.mean().item(), flat.std(correction=0).item()
    adams = [adam_of(policy, 1.0), adam_of(critic, 1.0)]
    rates = [train_ranks.OPTIMIZER, train_ranks.OPTIMIZER.model_copy(update={"lr": job.KIND.critic.lr})]
    steps = []
    for number, mine in enumerate(job.BATCHES):
        tokens = sum(samples[i].num_response for i in mine)
        losses = [0.0, 0.0]
        for i in mine:
            for t, (logp, v) in enumerate(zip(logps(policy, samples[i]), states(critic, samples[i]))):
                a, ratio = (made[i][0][t] - mean) / deviation, (logp - old[i][t]).exp()
                losses[0] -= torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a) / tokens
                held = value[i][t] + (v - value[i][t]).clamp(-0.2, 0.2)
                losses[1] += torch.maximum((v - made[i][1][t]) ** 2, (held - made[i][1][t]) ** 2) / 2 / tokens
        told = []
        for lm, adam, loss, rate in zip((policy, critic), adams, losses, rates):
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(lm.parameters(), rate.grad_clip).item()
            for group in adam.param_groups:
                group["lr"] = learning_rate(number, job.NUM_STEPS, rate)
            adam.step()
            adam.zero_grad()
            told += [loss.item(), norm]
        steps.append(told)
    with torch.no_grad():
        after = [
            torch.cat([logps(policy, s) for s in samples]),
            torch.cat([states(critic, s) for s in samples]),
        ]
    return {
        "old": torch.cat(old).tolist(), "value": torch.cat(value).tolist(), "steps": steps,
        "advantage": ((flat - mean) / deviation).tolist(), "after": [x.tolist() for x in after],
    }  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_policy_and_critic_follow_the_formulas_in_plain_torch(seen, stage):
    ranks, out = seen
    mine, expected = ranks[0][stage], oracle(out / f"start_{stage[-1]}")
    for name in ("old", "value", "advantage"):
        assert mine[name] == pytest.approx(expected[name], abs=2e-5), name
    for step, plain in zip(mine["steps"], expected["steps"], strict=True):
        assert step == pytest.approx(plain, rel=1e-3, abs=1e-5)
    for side, plain in zip(mine["after"], expected["after"], strict=True):
        assert side == pytest.approx(plain, abs=2e-3)
    assert all(r[stage] == mine for r in ranks), "ranks know the same"


@pytest.mark.parametrize("stage", ["zero_1", "zero_3"])
def test_the_plan_says_what_a_rank_keeps_at_least(seen, stage):
    """What is found has answers in flight in it, and at stage 3 the layers that are whole at the time."""
    promised, found = seen[0][0]["kept"][stage]
    assert promised <= found < 1.15 * promised


@pytest.mark.parametrize("stage", STAGES)
def test_both_go_on_from_one_checkpoint_bit_by_bit(seen, stage):
    mine = seen[0][0][stage]
    assert mine["again"] == mine["steps"][job.SAVED_AT :]
    assert mine["after_again"] == mine["after"]
    assert mine["after"][1] != mine["value"], "the critic has moved"


def test_the_controller_steers_the_weight_of_the_next_turn(seen):
    mine, lengths = seen[0][0]["zero_1"], [s.num_response for s in job.samples()]
    measured = 0.1 * sum(lengths) / len(lengths)  # the reference is 0.1 below at every token
    error = max(-0.2, min(0.2, measured / 6.0 - 1.0))
    assert mine["kl"] == pytest.approx(0.2 * (1 + error * len(lengths) / 50))
