"""VinePPO's step advantages against definitions and numbers worked by hand."""

import random

import pytest
import torch

from serl.config.objectives import Vine
from serl.learning.advantage import spread, whiten
from serl.learning.algorithms import LogProbs
from serl.learning.objective import divergence
from serl.learning.vine import columns, policy_loss, step_advantages
from serl.records import Walk


def walk(cuts: list[int], values: list[float]) -> Walk:
    return Walk(cuts=tuple(cuts), values=tuple(values))


def some(seed: int) -> tuple[list[Walk], torch.Tensor, torch.Tensor]:
    """Answers of random steps: their walks, rewards and lengths."""
    rng = random.Random(seed)
    walks, lengths = [], []
    for _ in range(6):
        lengths.append(rng.randint(1, 12))
        cuts = sorted({0, *rng.sample(range(lengths[-1]), rng.randint(0, lengths[-1] - 1))})
        walks.append(walk(cuts, [rng.randint(0, 9) / 9 for _ in cuts]))
    return walks, torch.tensor([float(rng.randint(0, 1)) for _ in walks]), torch.tensor(lengths)


def test_a_tree_of_three_steps_worked_by_hand():
    # V(s0) = 1/3, V(s1) = 2/3, V(s2) = 0, and the answer came out right: 1/3, -2/3, 1 for 2, 1 and 3 tokens
    made = step_advantages([walk([0, 2, 3], [1 / 3, 2 / 3, 0.0])], torch.tensor([1.0]), torch.tensor([6]))
    assert made.tolist() == pytest.approx([1 / 3, 1 / 3, -2 / 3, 1.0, 1.0, 1.0])


def test_an_answer_of_one_step_earns_what_it_is_better_than_its_question():
    made = step_advantages([walk([0], [0.25])], torch.tensor([1.0]), torch.tensor([3]))
    assert made.tolist() == [0.75] * 3


@pytest.mark.parametrize("seed", range(5))
def test_the_steps_of_an_answer_add_up_to_its_reward_less_the_value_of_its_question(seed):
    walks, reward_S, length_S = some(seed)
    parts = step_advantages(walks, reward_S, length_S).split(length_S.tolist())
    for one, reward, part in zip(walks, reward_S.tolist(), parts):
        firsts = part[list(one.cuts)]
        assert firsts.sum().item() == pytest.approx(reward - one.values[0])
        for a, b in zip(one.cuts, [*one.cuts[1:], len(part)]):
            assert len(set(part[a:b].tolist())) == 1, "the tokens of a step have its advantage"


def test_with_a_step_for_each_token_it_is_the_generalised_advantage_without_lambda():
    """A value before each token, and lambda 0: eq. 16 of arXiv 1506.02438 with V from rollouts."""
    from serl.learning.ppo import at_the_end, gae

    lengths, g = [5, 1, 8], torch.Generator().manual_seed(3)
    value_T = torch.rand(sum(lengths), generator=g, dtype=torch.float64)
    reward_S, length_S = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64), torch.tensor(lengths)
    walks = [walk(list(range(len(v))), v.tolist()) for v in value_T.split(lengths)]
    expected = gae(at_the_end(reward_S, length_S), value_T, length_S, gamma=1.0, lam=0.0)
    torch.testing.assert_close(step_advantages(walks, reward_S, length_S), expected)


def test_what_the_loss_reads_is_whitened_over_the_turn_and_its_kl_is_k3():
    walks, reward_S, length_S = some(9)
    old_T = -torch.rand(int(length_S.sum()))
    logp = LogProbs(old_T=old_T, ref_T=old_T - 0.3, behaviour_T=old_T, length_S=length_S)
    kind = Vine(kl=0.5)
    made = columns(kind, walks, reward_S, logp, "sequence", None)
    plain_T = step_advantages(walks, reward_S, length_S)
    assert torch.equal(made["advantage"], whiten(plain_T).float())
    assert torch.equal(made["weight"], spread(1.0 / length_S.float(), length_S))
    bare = columns(kind.model_copy(update={"whiten": False}), walks, reward_S, logp, "token", None)
    assert torch.equal(bare["advantage"], plain_T.float())
    loss, free = policy_loss(kind)(old_T, made)[0], policy_loss(Vine(kl=0.0))(old_T, made)[0]
    expected = 0.5 * (made["weight"] * divergence(old_T, old_T - 0.3, "k3")).sum()
    assert (loss - free).item() == pytest.approx(expected.item(), rel=1e-5)
