"""The prompts of a turn among ranks: every prompt once, in order, near-even shares, one voice an engine."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serl.engines.ranks import Ranks
from serl.engines.resident import check_groups
from serl.engines.shares import gathered, share_of


@given(num=st.integers(0, 50), engines=st.integers(1, 9), tensor_parallel=st.integers(1, 4))
def test_every_prompt_is_answered_by_one_engine_in_order(num, engines, tensor_parallel):
    size = engines * tensor_parallel
    shares = [share_of(num, rank=r, size=size, tensor_parallel=tensor_parallel) for r in range(size)]
    speakers = shares[::tensor_parallel]
    assert [i for share in speakers for i in share] == list(range(num))
    assert max(map(len, speakers)) - min(map(len, speakers)) <= 1
    assert all(share == shares[r - r % tensor_parallel] for r, share in enumerate(shares))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told(Ranks):
    """A rank among others whose words are known."""

    words: tuple[list[str], ...]

    def gather(self, value):
        return [value if r == self.rank else word for r, word in enumerate(self.words)]


def test_of_a_tensor_parallel_group_the_first_rank_speaks():
    words = (["a", "b"], [], ["c"], [])
    for rank, mine in enumerate((["a", "b"], ["a", "b"], ["c"], ["c"])):
        told = Told(rank=rank, size=4, device=torch.device("cpu"), words=words)
        assert gathered(told, mine, tensor_parallel=2) == ["a", "b", "c"]


def test_an_engine_stays_inside_a_node():
    check_groups(["n1", "n1", "n2", "n2"], 2, cuda=True)
    with pytest.raises(ValueError, match="ranks 2 to 3 are on n1 and n2"):
        check_groups(["n1", "n1", "n1", "n2"], 2, cuda=True)
    with pytest.raises(ValueError, match="3 ranks that train do not divide"):
        check_groups(["n1", "n1", "n1"], 2, cuda=True)


def test_on_cpus_an_engine_is_one_ranks():
    check_groups(["n1", "n1"], 1, cuda=False)
    with pytest.raises(ValueError, match="1 on CPUs"):
        check_groups(["n1", "n1"], 2, cuda=False)
