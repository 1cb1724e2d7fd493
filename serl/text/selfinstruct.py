"""Self-instruction without a model: choosing shots, reading lists, judging form and novelty."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from evaluation import choices
from evaluation.domain import Answers, ChoiceAnswers, MathAnswers
from serl.config.engine import Quality
from serl.text.prompts import one_line

_MARKER = re.compile(
    r"^[ \t]*(?:\*\*|#+ )?(?:(?:Question|Problem) )?\d{1,3}[.):](?:\*\*)?(?=\s|\Z)", re.MULTILINE
)
_SOLUTION = re.compile(r"\\boxed|^\s*(?:solution|answer)\s*:|\b(?:solution|answer):\s", re.IGNORECASE)
_SECOND = re.compile(r"\b(?:question|problem)\s+\d+\s*[:.]", re.IGNORECASE)
_NON_WORD = re.compile(r"[^a-z0-9]+")
_BLOCK = 512


def choose_shots(
    seeds: Sequence[str], kept: Sequence[str], num_seeds: int, num_kept: int, rng: random.Random
) -> list[str]:
    """`num_kept` kept instructions (fewer if there are fewer) and seeds for the rest, shuffled."""
    chosen = rng.sample(kept, min(num_kept, len(kept)))
    wanted = num_seeds + num_kept - len(chosen)
    chosen = chosen + rng.sample(seeds, min(wanted, len(seeds)))
    rng.shuffle(chosen)
    return chosen


def parse_list(text: str, *, continues: bool, truncated: bool) -> list[str]:
    """The items of a numbered list.

    `continues`: the text goes on after a number that stood in the prompt, so what precedes the first marker
    is an item too. `truncated`: the last item was cut by the token limit and is left out.
    """
    markers = list(_MARKER.finditer(text))
    head = text[: markers[0].start()] if markers else text
    bounds = [m.start() for m in markers[1:]] + [len(text)]
    items = [text[m.end() : end] for m, end in zip(markers, bounds)]
    if continues or not markers:
        items.insert(0, head)
    if truncated:
        items = items[:-1]
    return [clean for item in items if (clean := one_line(item).strip("*").strip())]


def tidied(text: str, answers: Answers) -> str:
    """An instruction as it is asked: in one line, but for the options of a choice, which get a line each."""
    if isinstance(answers, ChoiceAnswers):
        question, options = choices.parted(text)
        return choices.listed(one_line(question), options)
    return one_line(text)


def rejection(text: str, rules: Quality, answers: Answers = MathAnswers()) -> str | None:
    """The name of the first quality rule that `text` breaks, or None."""
    num_words = len(text.split())
    if num_words < rules.min_words:
        return "too_short"
    if num_words > rules.max_words:
        return "too_long"
    lower = text.lower()
    if any(re.search(rf"\b{re.escape(word)}\b", lower) for word in rules.banned_words):
        return "banned_word"
    if text.startswith(rules.banned_starts):
        return "banned_start"
    if rules.ascii_start and not re.match(r"[A-Za-z0-9$\\]", text):
        return "odd_start"
    if _SOLUTION.search(text):
        return "contains_solution"
    if _SECOND.search(text):
        return "several_problems"
    return _options_fault(text, answers.options) if isinstance(answers, ChoiceAnswers) else None


def _options_fault(text: str, wanted: int | None) -> str | None:
    _, options = choices.parted(text)
    if not options:
        return "no_options"
    if wanted is not None and len(options) != wanted:
        return "wrong_number_of_options"
    return None if choices.distinct(options) else "equal_options"


def rouge_tokens(text: str) -> list[str]:
    """Google's `rouge_score` tokens without stemming: lower-case runs of ASCII letters and digits."""
    return _NON_WORD.sub(" ", text.lower()).split()


class Encoder:
    """Token lists as strings of one character per distinct token, so that string distances compare tokens."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return "".join(self._codes.setdefault(t, _character(len(self._codes))) for t in rouge_tokens(text))


def _character(n: int) -> str:
    code = n + 1 if n + 1 < 0xD800 else n + 1 + 0x800  # surrogates are not characters
    if code > 0x10FFFF:
        raise ValueError("more than 1,112,063 distinct words: propose fewer instructions in a round")
    return chr(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """Why a text is not new: `like` is the first text found that it repeats or comes too near to, `rouge_l`
    their F1.
    """

    reason: Literal["exact_duplicate", "near_duplicate"]
    like: str
    rouge_l: float


def novel(texts: Sequence[str], pool: Sequence[str], max_rouge_l: float) -> list[str | None]:
    """Why each text is not new, or None where it is; see `twins`."""
    return [twin and twin.reason for twin in twins(texts, pool, max_rouge_l)]


def twins(texts: Sequence[str], pool: Sequence[str], max_rouge_l: float) -> list[Twin | None]:
    """What makes each text not new, or None where it is, given `pool` and the new texts before it.

    Near: ROUGE-L F1 above `max_rouge_l` with any of them. F1 = 2*LCS/(m+n) is the normalised Indel similarity
    of the token sequences; the comparison itself is exact, in integers. Memory is bounded: one block of texts
    against all others at a time.
    """
    encode = Encoder()
    known = list(dict.fromkeys(map(one_line, pool)))
    others = [encode(t) for t in known]
    seen = set(known)
    limit = Fraction(str(max_rouge_l)).limit_denominator(10**6)
    found: list[Twin | None] = []
    for start in range(0, len(texts), _BLOCK):
        block = [one_line(t) for t in texts[start : start + _BLOCK]]
        codes = [encode(t) for t in block]
        near = np.full(len(codes), -1)  # the first of `others` that each is too near to
        for other in range(0, len(others), 8 * _BLOCK):
            nearer = _nearer(codes, others[other : other + 8 * _BLOCK], limit)
            near = np.where((near < 0) & nearer.any(axis=1), other + nearer.argmax(axis=1), near)
        inside = _nearer(codes, codes, limit)
        accepted: list[int] = []
        for i, text in enumerate(block):
            if text in seen:
                found.append(Twin(reason="exact_duplicate", like=text, rouge_l=1.0))
                continue
            seen.add(text)
            like = (
                (others[near[i]], known[near[i]])
                if near[i] >= 0
                else next(((codes[j], block[j]) for j in accepted if inside[i, j]), None)
            )
            found.append(
                like
                and Twin(
                    reason="near_duplicate",
                    like=like[1],
                    rouge_l=round(Indel.normalized_similarity(codes[i], like[0]), 3),
                )
            )
            if like is None:
                accepted.append(i)
        others += [codes[i] for i in accepted]
        known += [block[i] for i in accepted]
    return found


def _nearer(codes: Sequence[str], others: Sequence[str], limit: Fraction) -> NDArray[np.bool_]:
    """Whether 2*LCS/(m+n) > limit, for each of `codes` with each of `others`.

    2*LCS = similarity * (m+n) is an integer, so the comparison is exact. Two empty texts have no tokens in
    common.
    """
    cutoff = max(0.0, float(limit) - 1e-6)
    similarity = cdist(
        codes, others, scorer=Indel.normalized_similarity, score_cutoff=cutoff, dtype=np.float64
    )
    total = np.add.outer([len(c) for c in codes], [len(o) for o in others])
    return np.rint(similarity * total).astype(np.int64) * limit.denominator > limit.numerator * total
