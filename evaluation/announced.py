"""What a response announces as its answer in words: "the answer is 5", "Final Answer: $x=2$ and $x=3$", "####
42", "The correct option is C".

The last announcement that has an answer behind it counts; "I hope my answer is correct" has none. Every
pattern looks at a bounded stretch.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from evaluation.normal import MAX_ANSWER_CHARS

_TAIL_CHARS = MAX_ANSWER_CHARS + 100
_MAX_TRIES = 16
_MAX_ITEMS = 64

_VERB = (
    r"[=:]|\b(?:is|are|(?:must|should|would|will|has to|have to|ought to) be|equals|amounts to"
    r"|(?:comes|works) (?:out )?(?:to be|to|as)|turns out to be|remains|becomes)\b"
)
_PHRASE = re.compile(
    rf"\b(?P<noun>answers?|(?:final|correct|right) (?:result|solution|value|choice|option)s?|(?:best"
    rf"|correct|right|my|our) (?:choice|option|answer|statement))\b"
    r"(?:\s{1,3}(?:to|of|for)\s[^\n.:=]{1,80}?|,[^\n.:=,]{1,60},)?"
    rf"[*_]{{0,3}}\s{{0,3}}(?P<verb>{_VERB})"
    r"|^ {0,3}####|^ {0,3}(?:#{1,4} {1,3}\**|\*\*)(?:the )?(?:final )?answer\W{0,4}$",
    re.IGNORECASE | re.MULTILINE,
)
_CONCLUSION = re.compile(
    r"\b(?:solutions?|roots?|zeroe?s|values?|results?)\b"
    r"(?:\s{1,3}(?:to|of|for|in)\s[^\n.:=]{1,80}?)?(?P<noun>)"
    rf"[*_]{{0,3}}\s{{0,3}}(?P<verb>{_VERB})",
    re.IGNORECASE,
)
"""What announces an answer only where nothing is computed after it."""
_OPENING = re.compile(
    r"(?:[\s,*:=]|_(?=[_\s])|\b(?:is|be|equal to|therefore|thus|hence|so|then|still|indeed|just|now"
    r"|again|also|in fact|of course|given by"
    r"|found to be|simply|exactly|clearly|obviously|certainly|actually|definitely|finally|precisely"
    r"|probably|only|merely|really)\b){0,12}",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"(?:in)?(?:correct|accurate|valid)(?=\s*(?:[.!,;:\n]|$|and\b|because\b))"
    r"|(?:right|wrong|reasonable|helpful|useful|clear|obvious|unique|confirmed|verified|consistent"
    r"|simplified)(?=\s*(?:[.!,;:\n]|$|and\b|because\b|with\b))"
    r"|(?:given|shown|found|boxed|written|stated) (?:above|below|in|as)\b|already\b|as follows"
    r"|not (?!possible|defined|real|enough)|in (?!$)"
    r"|(?:of|to|the same)\s|an? (?:\w{1,12} )?(?:integer|number|multiple|fraction|value)\b",
    re.IGNORECASE,
)
_DUTY = re.compile(r"must|should|would|will|ha[sv]e? to|ought to")
_POINTED = re.compile(r"[-+$\\(\d]|\**\(?[A-Z]\b")
"""What "the answer must be" is followed by where an answer is named and not described."""
_HOPE = re.compile(
    r"\b(?:hope|if|whether|what|check(?:ing)?|verify|sure|think about|see) (?:that )?(?:the|my|our|this"
    r"|your)? ?(?:final |correct )?$",
    re.IGNORECASE,
)
_MATHS = re.compile(
    r"\$\$(.+?)\$\$|\$(.+?)(?<!\\)\$|\\{1,2}\((.+?)\\{1,2}\)|\\{1,2}\[(.+?)\\{1,2}\]", re.DOTALL
)
_AND = re.compile(r"\s{0,3}(?:[,;]\s{0,3}(?:and\b|or\b)?|and\b|or\b|&)\s{0,3}", re.IGNORECASE)
_STOP = re.compile(
    r"\n|[;!?]|\.(?=\s|$|\*|</)|\*\*|</?[a-z_]{2,12}>|,(?=\s{1,8}(?!and\b|or\b)[A-Za-z])"
    r"|\s(?=(?:because|since|as|so|which|when|where|if|but|I)\b)|\s(?=(?:the )?(?:final )?answer\b)",
    re.IGNORECASE,
)
_LOOSE_END = re.compile(r"[\s,]{1,4}(?:and|or|but|so)$", re.IGNORECASE)
_CHOICE = re.compile(r"\(?([A-Z])\)(?:\W.*)?|([A-Z])\.\s.*", re.DOTALL)
_SENTENCE = re.compile(r"(?:[^\n.!?$]|\.(?=\S)|\$[^$\n]{0,200}\$){0,300}")
_CLAUSE = re.compile(
    r"(?:so |thus |therefore |hence )?,? ?(?:the|there|it|she|he|we|they|you|this|that|these|those|an?"
    r"|[A-Z][a-z]+)\s[A-Za-z]|\$[^$\n]{1,40}\$\s[a-z]",
    re.IGNORECASE,
)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|equals|equal|be)\b(?: equal to| given by| exactly| approximately)?\s{1,3}"
)
_QUANTITY = re.compile(
    r"\$[^$\n]{1,200}\$|\\\([^\n]{1,200}?\\\)|[-+]?\\?\$?\d[\d,]*+(?:\.\d+)?(?:/\d+)?(?![A-Za-z])"
)
_TELLING = re.compile(
    r"\b(?:is|are|was|were|has|have|had|will|can|needs?|takes?|costs?|makes?|gets?|earns?|pays?|paid"
    r"|spends?|spent|remains?|left|sold|there)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z]{2,}")
_FIGURE = re.compile(r"\d|\\[a-zA-Z]+")
_PROSE = re.compile(r"(?<![\\{A-Za-z])(?!and\b)[A-Za-z]{3,}")
_OR = re.compile(r"\bor\b")
_OVER = re.compile(r"[^\d\\$]*+")
"""Nothing is computed any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """An announced answer, and where its announcement begins."""

    text: str
    start: int


def announced(response: str) -> Announced | None:
    """The last answer that is announced; an unclosed box there is no answer, and ends the search. Where
    nothing calls itself the answer, the solutions, values or result that a response ends with are.
    """
    for start, tail in tails(response):
        text = said(tail)
        return None if text is None else Announced(text=text, start=start)
    return _concluded(response)


def _concluded(response: str) -> Announced | None:
    """What the last sentence with a number in it says the solution is, if that is all it says: formulas or
    numbers to its end. Values with "or" between them are what may be, not what is.
    """
    phrase = None
    for phrase in _CONCLUSION.finditer(response):
        pass
    if phrase is None or len(response) > phrase.end() + _TAIL_CHARS:
        return None
    tail = response[phrase.end() :]
    tail = tail[_OPENING.match(tail).end() :]
    text, sentence = said(tail), _SENTENCE.match(tail)[0]
    if not text or _PROSE.search(text) or ("value" in phrase[0].lower() and _OR.search(sentence)):
        return None
    whole = _FIGURE.findall(text) == _FIGURE.findall(sentence) != []
    return (
        Announced(text=text, start=phrase.start())
        if whole and _OVER.fullmatch(tail[len(sentence) :])
        else None
    )


def tails(response: str) -> Iterator[tuple[int, str]]:
    """What follows each announcement, the last one first, and where that begins; those that announce no
    answer are left out.
    """
    phrases = [found for found in _PHRASE.finditer(response) if not _hoped(response, found)]
    for phrase in reversed(phrases[-_MAX_TRIES:]):
        tail = response[phrase.end() : phrase.end() + _TAIL_CHARS]
        tail = tail[_OPENING.match(tail).end() :]
        described = phrase["verb"] and _DUTY.match(phrase["verb"]) and not _POINTED.match(tail)
        if not described and not _NO_ANSWER.match(tail):
            yield phrase.start(), tail


def said(tail: str) -> str | None:
    """The answer at the beginning of a text: a choice, formulas that belong together, or words up to the end
    of their sentence.
    """
    choice = _CHOICE.fullmatch(tail.partition("\n")[0])
    if choice:
        return choice[1] or choice[2]
    answer = _formulas(tail) or _stated(tail) or _STOP.split(tail, maxsplit=1)[0].strip(" \t*_.,:")
    answer = _LOOSE_END.sub("", answer.strip())
    return None if not any(map(str.isalnum, answer)) or "\\boxed" in answer or "\\fbox" in answer else answer


def _hoped(response: str, phrase: re.Match[str]) -> bool:
    return (
        phrase["noun"] is not None
        and _HOPE.search(response, max(0, phrase.start() - 40), phrase.start()) is not None
    )


def _formulas(tail: str) -> str | None:
    """The formulas at the beginning, where only commas and "and" stand between them."""
    found = _MATHS.match(tail)
    items: list[str] = []
    while found and len(items) < _MAX_ITEMS:
        items.append(next(group for group in found.groups() if group is not None).strip())
        joint = _AND.match(tail, found.end())
        found = _MATHS.match(tail, joint.end()) if joint else None
    return ", ".join(items) if items else None


def _stated(tail: str) -> str | None:
    """What a whole sentence says the answer is: behind its last "is", or its only number or formula. None
    where there is no sentence.
    """
    sentence = _SENTENCE.match(tail)[0]
    if not _CLAUSE.match(sentence):
        return None
    quantities = list(_QUANTITY.finditer(sentence))
    copula = None
    for copula in _COPULA.finditer(sentence):
        pass
    if copula and any(quantity.start() == copula.end() for quantity in quantities):
        rest = tail[copula.end() :]
        return _formulas(rest) or _STOP.split(rest, maxsplit=1)[0].strip(" \t*_.,:")
    if len(quantities) == 1 and len(_WORD.findall(sentence)) >= 3 and _TELLING.search(sentence):
        return quantities[0][0].strip("$").removeprefix("\\(").removesuffix("\\)").rstrip(",").strip()
    return None
