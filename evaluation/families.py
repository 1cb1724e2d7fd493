"""Answers with a free integer in them: `k\\pi` and `n\\pi, n\\in\\mathbb{Z}` are one family, whatever the
integer is called.
"""

import re

from evaluation.forms import MARKUP

_MEMBER = r"(?P<member>[a-zA-Z]) ?\\in ?(?:\\math(?:bb|bf) ?\{?)? ?Z ?\}?"
_ANY = r"(?:(?:some|any|all|every|each|an|arbitrary) ){1,2}integers? (?P<any>[a-zA-Z])"
_IS = r"(?P<is>[a-zA-Z]) (?:is|being) (?:an? |any )?(?:arbitrary )?integer"
_CLAUSE = re.compile(
    rf"(?:[,; (:|]|\\mid\b){{0,3}}(?:where|for|with|and)?[, ]{{0,2}}(?:{_MEMBER}|{_ANY}|{_IS})[ )]{{0,2}}$"
)
_ELEMENT = re.compile(r"^[a-z] ?(?:\||:|\\mid\b) ?(?=[a-z] ?=)")
_LETTERS = "kmn"
"""Beside pi, one of these alone is an integer even where nobody says so."""


def renamed(key: str) -> tuple[str, str] | None:
    """An answer with a free integer: without the clause that says so, and with the integer called k; None
    where there is none.
    """
    flat = re.sub(" +", " ", MARKUP.sub(r" \1 ", key)).strip() if "nteger" in key or r"\in" in key else key
    flat = flat[2:-2].strip() if flat.startswith(r"\{") and flat.endswith(r"\}") else flat
    clause = _CLAUSE.search(flat)
    if clause and clause.start():
        body, letter = (
            _ELEMENT.sub("", flat[: clause.start()].rstrip(" ,;")),
            clause["member"] or clause["any"] or clause["is"],
        )
    else:
        present = [name for name in _LETTERS if _letter(name).search(key)]
        if len(present) != 1 or r"\pi" not in key:
            return None
        body, letter = key, present[0]
    if not _letter(letter).search(body) or (letter != "k" and _letter("k").search(body)):
        return None
    return body, _letter(letter).sub("k", body)


def _letter(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z\\]){name}(?![A-Za-z])")
