"""Shards of equal expected work, and the literal prompts of other evaluations."""

from hypothesis import given
from hypothesis import strategies as st

from evaluation.balance import expected_work, shards
from evaluation.protocols import PROTOCOLS


@given(st.lists(st.floats(1, 1000), max_size=60), st.integers(1, 8))
def test_every_position_is_in_one_shard_and_no_shard_is_far_above_the_rest(work, count):
    taken = shards(work, count)
    assert sorted(i for positions in taken for i in positions) == list(range(len(work)))
    loads = [sum(work[i] for i in positions) for positions in taken]
    assert max(loads) - min(loads) <= max(work, default=0.0) + 1e-6
    assert taken == shards(work, count) and all(positions == sorted(positions) for positions in taken)


def test_more_responses_and_longer_prompts_are_more_work():
    assert expected_work(100, 300, 5) > expected_work(100, 300, 1) > expected_work(100, 200, 1)
    assert expected_work(9000, 300, 1) > expected_work(100, 300, 1)


def test_the_official_prompts_are_literal():
    assert PROTOCOLS["serl"].prompt(" What is {x}? ") == "What is {x}?\n"
    assert "\n\n\n" in PROTOCOLS["serl"].stop
    qwen = PROTOCOLS["qwen25_math"].prompt("1+1?")
    assert qwen.startswith("<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n")
    assert qwen.endswith("<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n")
