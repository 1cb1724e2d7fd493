"""Short answers in words: their normal form, and how much of one is in another.

The rules are those of SQuAD (Rajpurkar et al., arXiv 1606.05250): case, punctuation and articles do not
count.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from evaluation.forms import MARKUP

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NOT_A_WORD = re.compile(r"[^\w\s]|_")


def normal(text: str) -> str:
    """The words that count, in order. A text of nothing but articles and signs keeps what it has."""
    plain = unicodedata.normalize("NFKC", MARKUP.sub(r"\1", text)).casefold()
    bare = " ".join(_ARTICLES.sub(" ", _NOT_A_WORD.sub(" ", plain)).split())
    return bare or " ".join(plain.split())


def token_f1(answer: str, golds: Iterable[str]) -> float:
    """2PR/(P+R) over the words that answer and gold share, as often as both have them; of the best gold."""
    return max((_f1(normal(answer).split(), normal(gold).split()) for gold in golds), default=0.0)


def _f1(ours: list[str], theirs: list[str]) -> float:
    shared = (Counter(ours) & Counter(theirs)).total()
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0
