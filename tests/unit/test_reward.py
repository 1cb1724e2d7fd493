"""What answers earn."""

import random

from hypothesis import given
from hypothesis import strategies as st

from serl.randomness import rng_of, seed_of
from serl.rewards.kinds import rewards
from serl.rewards.spec import Majority, RandomReward, Verified

LABELS = st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=16)


@given(LABELS, st.none() | st.integers(0, 3))
def test_the_majority_reward_is_one_for_the_winners_class_and_never_for_no_answer(labels, winner):
    earned = rewards(
        Majority(), labels=labels, winner=winner, correct=[True] * len(labels), rng=random.Random(0)
    )
    assert earned == tuple(1.0 if winner is not None and label == winner else 0.0 for label in labels)


def test_the_verified_reward_is_for_what_is_known_to_be_right():
    assert rewards(
        Verified(), labels=[0, 0, None, 1], winner=0, correct=[True, False, None, True], rng=random.Random(0)
    ) == (1.0, 0.0, 0.0, 1.0)


def test_the_random_reward_is_a_fair_coin_that_its_seed_decides():
    one, two = (
        rewards(RandomReward(), labels=[0] * 4000, winner=0, correct=[None] * 4000, rng=rng_of(1, "reward"))
        for _ in "ab"
    )
    assert one == two
    assert set(one) == {0.0, 1.0}
    assert abs(sum(one) / 4000 - 0.5) < 0.05


def test_seeds_depend_on_every_part_and_on_where_the_parts_end():
    seeds = [seed_of(1, 2, "a"), seed_of(12, "a"), seed_of(1, "2a"), seed_of(1, 2, "b"), seed_of(2, 1, "a")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert seed_of(0, 1, "respond", "r001-000000") == seed_of(0, 1, "respond", "r001-000000")
