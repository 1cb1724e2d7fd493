"""Records survive their files unchanged, and no text of a model breaks a line."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serl.records import Candidate, Completion, Group, Problem, from_jsonl, groups_from_parquet, groups_to_parquet, share, to_jsonl

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
FLOAT32 = st.floats(-100, 0, width=32)


@st.composite
def groups(draw) -> Group:
    n = draw(st.integers(1, 3))

    def each(of: st.SearchStrategy) -> tuple:
        return tuple(draw(of) for _ in range(n))

    ids = st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple)
    completion = st.builds(
        Completion,
        token_ids=ids,
        logprobs=st.lists(FLOAT32, max_size=4).map(tuple),
        text=TEXT,
        finish_reason=st.sampled_from(["stop", "length"]),
    )
    return Group(
        id=draw(TEXT), role="train", question=draw(TEXT), gold=draw(st.none() | TEXT), prompt_ids=draw(ids), completions=each(completion),
        answers=each(st.none() | TEXT), labels=each(st.none() | st.integers(0, 3)), winner=draw(st.none() | st.integers(0, 3)), tie=draw(st.booleans()),
        undecided=draw(st.integers(0, 3)), agreement=draw(st.floats(0, 1)), margin=draw(st.floats(0, 1)), winner_correct=draw(st.none() | st.booleans()),
        rewards=each(st.floats(0, 1)),
    )  # fmt: skip


@given(st.lists(groups(), max_size=3))
def test_groups_survive_parquet_exactly_and_equal_groups_give_equal_bytes(made):
    data = groups_to_parquet(made)
    assert groups_from_parquet(data) == made
    assert groups_to_parquet(groups_from_parquet(data)) == data


@given(st.lists(groups(), max_size=3))
def test_votes_are_read_without_text_and_tokens(made):
    light = groups_from_parquet(groups_to_parquet(made), completions=False)
    assert [(g.id, g.answers, g.labels, g.rewards, g.mean_reward) for g in light] == [
        (g.id, g.answers, g.labels, g.rewards, g.mean_reward) for g in made
    ]
    assert all(g.completions == () == g.prompt_ids for g in light)


def test_log_probabilities_are_kept_to_single_precision():
    one = Completion(token_ids=(1, 2), logprobs=(-0.1, -1e-8), text="", finish_reason="stop")
    group = Group(
        id="", role="train", question="", gold=None, prompt_ids=(), completions=(one,), answers=(None,), labels=(None,), winner=None, tie=False,
        undecided=0, agreement=0.0, margin=0.0, winner_correct=None, rewards=(0.0,),
    )  # fmt: skip
    assert groups_from_parquet(groups_to_parquet([group]))[0].completions[0].logprobs == tuple(float(np.float32(x)) for x in one.logprobs)


@given(st.lists(st.builds(Candidate, prompt=st.integers(0, 9), item=st.integers(0, 9), text=st.text(max_size=30))))
def test_a_text_never_breaks_its_line(candidates):
    data = to_jsonl(candidates)
    assert data.isascii() and data.count(b"\n") == len(candidates) and b"\r" not in data and b"\x1b" not in data
    assert [Candidate(**row) for row in from_jsonl(data)] == candidates


def test_plain_rows_and_records_are_written_alike():
    problem = Problem(id="1", question="q", gold=None)
    assert to_jsonl([problem]) == to_jsonl([{"id": "1", "question": "q", "gold": None}])
    with pytest.raises(ValueError):
        to_jsonl([{"x": float("nan")}])
    assert json.loads(to_jsonl([problem])) == {"id": "1", "question": "q", "gold": None}


@given(st.integers(0, 100), st.integers(1, 12))
def test_shares_cover_everything_once_in_order_and_evenly(n, count):
    shares = [share(range(n), i, count) for i in range(count)]
    assert [x for s in shares for x in s] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_majority_is_the_shortest_then_first_of_its_class():
    group = Group(
        id="", role="train", question="", gold=None, prompt_ids=(), completions=(), answers=("0.50", "1/2", "0.5", None, "7"), labels=(0, 0, 0, None, 1),
        winner=0, tie=False, undecided=0, agreement=0.6, margin=0.4, winner_correct=None, rewards=(1.0, 1.0, 1.0, 0.0, 0.0),
    )  # fmt: skip
    assert group.majority == "0.5"
