"""Answers as steps: where they begin, as positions in token ids, whatever the tokens are."""

import random

import pytest
from pydantic import ValidationError

from serl.config.objectives import Lines, Pattern, Sentences, Vine
from serl.text.steps import Pieces, cuts


def steps(text: str, how, tokens: list[str] | None = None) -> list[str]:
    """The text of each step, of an answer whose tokens are characters if nothing else is said."""
    pieces = list(text) if tokens is None else tokens
    found = cuts(pieces, how)
    return ["".join(pieces[a:b]) for a, b in zip(found, [*found[1:], len(pieces)])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\nb = 2\n\nc", ["a = 1\n", "b = 2\n\n", "c"]),
        ("one line", ["one line"]),
        ("\n\nfirst\nsecond\n", ["\n\nfirst\n", "second\n"]),
        ("", [""]),
    ],
)
def test_a_step_is_a_line(text, expected):
    assert steps(text, Lines()) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            " Step by step: 3 + 4 = 7. 7 - 2 = 5. \\boxed{5}",
            [" Step by step: 3 + 4 = 7.", " 7 - 2 = 5.", " \\boxed{5}"],
        ),
        ("It is 3.5 m. Is it? Yes! So", ["It is 3.5 m.", " Is it?", " Yes!", " So"]),
        ("We get\n\\[\nx = 1. y\n\\].\nThen", ["We get\n", "\\[\nx = 1. y\n\\].", "\nThen"]),
        ("So $$a = 2. b$$ and $c. d$ end. Now", ["So $$a = 2. b$$", " and $c. d$ end.", " Now"]),
        ("It costs $5. He has $6. Then", ["It costs $5.", " He has $6.", " Then"]),
        ("1. Add them.\n2. Halve.", ["1. Add them.", "\n2. Halve."]),
    ],
)
def test_a_step_is_a_sentence_or_ends_with_a_displayed_formula(text, expected):
    assert steps(text, Sentences()) == expected


def test_a_step_ends_where_the_pattern_matched():
    assert steps("a</step>b</step>c", Pattern(pattern="</step>")) == ["a</step>", "b</step>", "c"]


@pytest.mark.parametrize(
    "how", [Lines(), Sentences(), Sentences(min_tokens=3), Lines(most=2), Pattern(pattern="a+")]
)
def test_steps_are_whole_tokens_in_order_whatever_the_tokens_are(how):
    rng = random.Random(0)
    for _ in range(200):
        pieces = [
            "".join(rng.choices("ab. \n$\\[]1", k=rng.randint(0, 4))) for _ in range(rng.randint(1, 30))
        ]
        found = cuts(pieces, how)
        assert found[0] == 0 and list(found) == sorted(set(found)) and found[-1] < len(pieces)
        assert len(found) <= how.most
        lengths = [b - a for a, b in zip(found, [*found[1:], len(pieces)])]
        assert len(found) == 1 or min(lengths) >= how.min_tokens
        texts = ["".join(pieces[a:b]) for a, b in zip(found, [*found[1:], len(pieces)])]
        assert len(found) == 1 or all(t.strip() for t in texts), "no step is blank"


def test_a_token_in_which_a_step_ends_belongs_to_it_whole():
    assert steps("", Lines(), ["a", "\nb", "c\n", "d"]) == ["a\nb", "c\n", "d"]


def test_short_steps_join_the_one_before_and_the_last_has_what_follows():
    assert steps("a\nb\nlong line\nc", Lines(min_tokens=4)) == ["a\nb\n", "long line\nc"]
    assert steps("a\nb\nc\nd", Lines(most=2)) == ["a\n", "b\nc\nd"]


class Metaspace:
    """A tokenizer as SentencePiece's: a word's token has a space in front, which is not there at the start."""

    words = ("", "▁Hello", "▁world", ".", "▁Bye", "</s>")

    def decode(self, token_ids, *, skip_special_tokens):
        words = [self.words[i] for i in token_ids if not (skip_special_tokens and i == 5)]
        return "".join(words).replace("▁", " ").removeprefix(" ")


def test_the_pieces_of_tokens_are_what_they_add_to_the_text():
    pieces = Pieces(Metaspace()).of([1, 2, 3, 4, 3, 5])
    assert pieces == ["Hello", " world", ".", " Bye", ".", ""]
    assert cuts(pieces, Sentences()) == (0, 3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Pattern(pattern="("), "is no regular expression"),
        (lambda: Pattern(pattern="x*"), "matches the empty text, so that every token would end a step"),
        (lambda: Vine(rollouts=0), "greater than or equal to 1"),
        (lambda: Lines(most=0), "greater than or equal to 1"),
    ],
)
def test_what_could_find_no_steps_is_refused(make, sentence):
    with pytest.raises(ValidationError, match=sentence):
        make()


def test_the_bound_on_what_is_sampled_on_is_that_of_steps_as_short_as_they_may_be():
    kind = Vine(rollouts=3, steps=Lines(min_tokens=4, most=5))
    assert kind.most_tokens(18) == 3 * sum(18 - cut for cut in (0, 4, 8, 12))
    assert kind.most_tokens(100) == 3 * sum(100 - cut for cut in (0, 4, 8, 12, 16))
