"""Shots, lists, quality rules, and novelty against Google's `rouge-score` as the oracle."""

import json
import random
import time
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Indel
from rouge_score.rouge_scorer import RougeScorer

from evaluation.domain import ChoiceAnswers
from serl.config.engine import Quality
from serl.config.files import parse_yaml
from serl.text.prompts import one_line
from serl.text.selfinstruct import (
    Encoder,
    choose_shots,
    novel,
    parse_list,
    rejection,
    rouge_tokens,
    tidied,
    twins,
)
from tests.conftest import ROOT

MATH = Quality.model_validate_json(
    json.dumps(parse_yaml((ROOT / "configs/prompts/math.yaml").read_text(), "")["quality"])
)

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
STRANGE = [
    "Δx",
    "\\frac{1}{2}",
    "İstanbul",
    "K",
    "ﬁve",
    "naïve",
    "x_1",
    "3.14",
    "don't",
    "ABC",
    "中文",
    "٣",
    "½",
    "a-b",
    "\u00a0",
    "\u2028",
    "--",
    "😀",
    "ſ",
    "ß",
]


def words(rng: random.Random, low: int, high: int) -> str:
    vocabulary = [f"w{i}" for i in range(rng.choice([3, 12, 60]))] + STRANGE
    return rng.choice([" ", "  ", ", "]).join(rng.choices(vocabulary, k=rng.randint(low, high)))


def variant(text: str, rng: random.Random) -> str:
    """The text with a few words changed, dropped or moved: scores near any threshold occur."""
    parts = text.split()
    for _ in range(rng.randint(0, 6)):
        if parts:
            i = rng.randrange(len(parts))
            parts[i : i + 1] = rng.choice([[], ["w1"], ["w2", "new"], [parts[i].upper()]])
    return " ".join(parts)


def official(a: str, b: str) -> float:
    return SCORER.score(a, b)["rougeL"].fmeasure


def ours(a: str, b: str) -> float:
    encode = Encoder()
    x, y = encode(a), encode(b)
    return Indel.normalized_similarity(x, y) if x or y else 0.0


def test_rouge_l_equals_google_s_on_thousands_of_random_pairs():
    rng = random.Random(0)
    for _ in range(3000):
        a = words(rng, 0, 40)
        b = rng.choice([variant(a, rng), words(rng, 0, 40), a[::-1]])
        assert ours(a, b) == pytest.approx(official(a, b), abs=1e-12)


@given(st.text(max_size=60), st.text(max_size=60))
def test_rouge_l_equals_google_s_on_any_text(a, b):
    assert ours(a, b) == pytest.approx(official(a, b), abs=1e-12)


def slow_novel(texts: list[str], pool: list[str], limit: float) -> list[str | None]:
    """The definition, one pair at a time, with Google's score made an exact fraction of small numbers."""
    kept, seen, reasons = list(pool), {one_line(p) for p in pool}, []
    for text in texts:

        def exceeds(other: str, text: str = text) -> bool:
            total = len(rouge_tokens(text)) + len(rouge_tokens(other))
            return total > 0 and Fraction(round(official(other, text) * total), total) > Fraction(str(limit))

        if one_line(text) in seen:
            reasons.append("exact_duplicate")
            continue
        seen.add(one_line(text))
        near = any(exceeds(k) for k in kept)
        reasons.append("near_duplicate" if near else None)
        kept += [] if near else [text]
    return reasons


@pytest.mark.parametrize("limit", [0.0, 0.5, 0.6, 0.7, 1.0])
def test_novelty_is_its_slow_definition(limit, monkeypatch):
    monkeypatch.setattr("serl.text.selfinstruct._BLOCK", 7)  # many blocks and chunks
    seen: Counter[str | None] = Counter()
    for seed in range(12):
        rng = random.Random(seed)
        pool = [words(rng, 0, 15) for _ in range(rng.randint(0, 70))]
        texts = [words(rng, 0, 15) for _ in range(15)] + [
            variant(rng.choice(pool or ["w1 w2"]), rng) for _ in range(15)
        ]
        rng.shuffle(texts)
        texts += [variant(rng.choice(texts), rng) for _ in range(10)]
        expected = slow_novel(texts, pool, limit)
        assert novel(texts, pool, limit) == expected
        seen.update(expected)
    assert seen["exact_duplicate"] and seen[None]


def test_the_limit_itself_is_still_new():
    """7 of 10 tokens in common is F1 0.7 exactly; binary fractions would put it on either side."""
    pool = [" ".join(f"w{i}" for i in range(10))]
    seven = " ".join([f"w{i}" for i in range(7)] + ["x", "y", "z"])
    eight = " ".join([f"w{i}" for i in range(8)] + ["x", "y"])
    assert novel([seven], pool, 0.7) == [None]
    assert novel([eight], pool, 0.7) == ["near_duplicate"]


def test_what_a_rejected_text_resembles_does_not_reject_others():
    """Chains: b is near a, c is near b but not near a, so c is kept."""
    a, b, c = (
        "q1 q2 q3 q4 q5 q6 q7 q8 q9 q10",
        "q1 q2 q3 q4 q5 q6 q7 q8 z1 z2",
        "q1 q2 q3 q4 q5 q6 y1 y2 z1 z2",
    )
    assert novel([a, b, c], [], 0.7) == [None, "near_duplicate", None]


def test_the_first_of_equal_texts_is_kept_and_white_space_does_not_make_a_text_new():
    assert novel(["a b c d", "a  b\nc d", "A b c d"], [], 0.7) == [None, "exact_duplicate", "near_duplicate"]
    assert novel(["a b  c d"], ["a b c d "], 0.7) == ["exact_duplicate"]


def test_texts_without_words_are_near_nothing():
    assert novel(["?!", "...", "?!"], ["---"], 0.7) == [None, None, "exact_duplicate"]


def test_a_collapsed_model_is_no_slower():
    """A thousand variations of one sentence: every pair is near, which must not cost a Python step each."""
    rng = random.Random(0)
    texts = [
        " ".join(
            ["the", "same", "question", "again", "and", "again", "with", "number", str(rng.randrange(10**6))]
        )
        for _ in range(2000)
    ]
    start = time.process_time()
    reasons = novel(texts, texts[:1], 0.7)
    assert time.process_time() - start < 5.0
    assert reasons.count(None) == 0


# ------------------------------------------------------------------------------------------------ lists
@pytest.mark.parametrize(
    ("text", "items"),
    [
        (" First\n9. Second\n10. Third", ["First", "Second", "Third"]),
        (" First\n9) Second\n10: Third", ["First", "Second", "Third"]),
        (" First\n**9.** Second\n**10. Third**", ["First", "Second", "Third"]),
        (" First\n# 9. Second\n### 10. Third", ["First", "Second", "Third"]),
        (" First\nQuestion 9: Second\nProblem 10. Third", ["First", "Second", "Third"]),
        (" First, which has\ntwo lines\n  9. Second", ["First, which has two lines", "Second"]),
        (
            " It costs 3.5 dollars\n3.5 is not a marker\n9. Second",
            ["It costs 3.5 dollars 3.5 is not a marker", "Second"],
        ),
        (" First\n9. Second\n10.", ["First", "Second"]),
        (" First\n9.\n10. Third", ["First", "Third"]),
        (" First\r\n9. Second\r\n", ["First", "Second"]),
        (" Only one", ["Only one"]),
        ("", []),
        ("9. Second", ["Second"]),
        (" First\n1234. Not a marker", ["First 1234. Not a marker"]),
        (" First\n٩. Second", ["First", "Second"]),
        (
            " Let ABC be \\Delta and x_1\n9. If $A \\subset B$",
            ["Let ABC be \\Delta and x_1", "If $A \\subset B$"],
        ),
    ],
)
def test_a_numbered_list_is_read_item_by_item_in_its_own_case(text, items):
    assert parse_list(text, continues=True, truncated=False) == items


def test_the_item_that_the_token_limit_cut_is_left_out():
    assert parse_list(" First\n9. Second\n10. Thi", continues=True, truncated=True) == ["First", "Second"]
    assert parse_list(" Fir", continues=True, truncated=True) == []


def test_talk_before_the_list_is_no_item_of_a_chat():
    assert parse_list("Sure! Here are some:\n1. First\n2. Second", continues=False, truncated=False) == [
        "First",
        "Second",
    ]
    assert parse_list("A single question?", continues=False, truncated=False) == ["A single question?"]


@given(st.text(max_size=200), st.booleans(), st.booleans())
def test_any_text_gives_one_line_items_of_its_own_words(text, continues, truncated):
    for item in parse_list(text, continues=continues, truncated=truncated):
        assert item == one_line(item) != ""
        assert one_line(item) in one_line(text)


@pytest.mark.parametrize(
    "unit",
    [
        " ",
        "\n",
        "#",
        "*",
        "1",
        "1. ",
        "\n1. ",
        "**9.",
        "Question ",
        "question 1 ",
        "solution",
        "answer: ",
        "\\boxed",
        "\t1",
        "problem 1\n",
        "\u2028",
        "\x00",
        "-",
        "go to ",
        "٣",
        "# 1",
    ],
)
def test_a_million_hostile_characters_take_bounded_time(unit):
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    start = time.process_time()
    items = parse_list(text, continues=True, truncated=False)
    for item in [*items[:1000], text]:
        rejection(item, Quality(min_words=0, max_words=10**7))
    novel(
        [item[:20_000] for item in items[:3]], [text[:20_000]], 0.7
    )  # quadratic by nature; `max_words` and the sampler's limit bound it
    assert time.process_time() - start < 5.0


# ------------------------------------------------------------------------------------------------ quality
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("How many sheep are there?", None),
        ("\\Delta ABC is a right triangle?", None),
        ("$x$ is two times three?", None),
        ("Is it one", "too_short"),
        ("word " * 151, "too_long"),
        ("Look at the Image and count apples", "banned_word"),
        ("Please GO TO the shop and count", "banned_word"),
        ("Consider the paragraph and imagery of graphite", None),
        ("Write a program that counts sheep", "banned_start"),
        ("¿How many sheep are there?", "odd_start"),
        ("中 文 问 题 啊", "odd_start"),
        ("How many sheep? Answer: there are 3", "contains_solution"),
        ("How many sheep? \\boxed{3} of them", "contains_solution"),
        ("How many sheep? Question 2: how many cows?", "several_problems"),
    ],
)
def test_a_rejection_has_the_name_of_its_rule(text, reason):
    assert rejection(text, MATH) == reason


def test_rules_can_be_switched_off():
    off = Quality(min_words=0, banned_words=(), banned_starts=(), ascii_start=False)
    for text in ("an image", "Write a program", "中"):
        assert rejection(text, off) is None


# ------------------------------------------------------------------------------------------------ shots
def test_shots_are_a_function_of_their_seed():
    seeds, kept = [f"s{i}" for i in range(50)], [f"k{i}" for i in range(20)]
    one, two, three = (choose_shots(seeds, kept, 6, 2, random.Random(s)) for s in (1, 1, 2))
    assert one == two != three
    assert Counter(t[0] for t in one) == {"s": 6, "k": 2}
    assert len(set(one)) == 8


def test_seeds_stand_in_for_kept_shots_that_do_not_exist_yet():
    seeds = [f"s{i}" for i in range(50)]
    assert Counter(t[0] for t in choose_shots(seeds, ["k1"], 6, 2, random.Random(0))) == {"s": 7, "k": 1}
    assert sorted(choose_shots(seeds[:3], [], 6, 2, random.Random(0))) == seeds[:3]


def test_shots_are_shuffled():
    seeds, kept = [f"s{i}" for i in range(50)], [f"k{i}" for i in range(20)]
    places = {
        i
        for s in range(60)
        for i, t in enumerate(choose_shots(seeds, kept, 6, 2, random.Random(s)))
        if t[0] == "k"
    }
    assert places == set(range(8))


def test_what_is_not_new_names_the_first_text_that_it_repeats_or_comes_too_near_to():
    pool = ["How many apples are in seven boxes of three?", "something else entirely"]
    texts = [
        "How many apples are in eight boxes of three?",
        "something  else entirely",
        "brand new words here",
        "brand new words there",
    ]
    near, same, fresh, inside = twins(texts, pool, 0.7)
    assert (near.reason, near.like, near.rouge_l) == ("near_duplicate", pool[0], round(16 / 18, 3))
    assert (same.reason, same.like, same.rouge_l) == ("exact_duplicate", pool[1], 1.0)
    assert fresh is None and (inside.like, inside.rouge_l) == ("brand new words here", 0.75)


# ------------------------------------------------------------------------------------------------ options
FOUR = ChoiceAnswers(options=4)


@pytest.mark.parametrize(
    "written",
    [
        "Which gas do plants take in? A. oxygen B. carbon dioxide C. helium D. neon",
        "Which gas do plants take in? (A) oxygen (B) carbon dioxide (C) helium (D) neon",
        "Which gas do plants take in?\nA) oxygen\nB) carbon dioxide\nC) helium\nD) neon",
    ],
)
def test_a_question_carries_its_options_however_they_were_written(written):
    asked = tidied(written, FOUR)
    assert asked == "Which gas do plants take in?\nA. oxygen\nB. carbon dioxide\nC. helium\nD. neon"
    assert rejection(asked, Quality(), FOUR) is None
    assert tidied(asked, FOUR) == tidied(one_line(asked), FOUR) == asked  # as a shot, and back


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("Which gas do plants take in?", "no_options"),
        ("Which gas do plants take in? A. oxygen B. neon C. helium", "wrong_number_of_options"),
        ("Which gas do plants take in? A. oxygen B. neon C. Oxygen D. helium", "equal_options"),
        ("Which gas do plants take in? A. oxygen B. neon C. D. helium", "equal_options"),
        ("Which gas do plants take in? A. oxygen B. neon C. argon D. helium Answer: B", "contains_solution"),
    ],
)
def test_a_choice_that_is_none_is_rejected(written, reason):
    assert rejection(tidied(written, FOUR), Quality(), FOUR) == reason
