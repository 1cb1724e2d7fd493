"""The final answer of a response: what a model says its answer is, taken from the response alone.

A boxed answer wins, then the last phrase that announces one; text without either has no answer, so that a lucky number in
passing earns nothing. One pass over the text, whatever it contains.
"""

import re
from string import ascii_uppercase

from evaluation.forms import MAX_ANSWER_CHARS

_TAIL_CHARS = MAX_ANSWER_CHARS + 100

_TOKEN = re.compile(
    r"\\(?:boxed|fbox)\s{0,8}(?P<open>\{)|\\(?:boxed|fbox)(?![a-zA-Z])\s{0,8}(?P<bare>[^\s{}\\$]{1,64})|\\.|[{}]", re.DOTALL
)
_PHRASE = re.compile(
    r"\banswers?\b(?:\s{1,3}(?:to|of|for)\s[^\n.:=]{1,80}?)?[*_]{0,3}\s{0,3}(?:\bis\b|\bare\b|=|:)"
    r"|^ {0,3}####|^ {0,3}#{1,3} {1,3}(?:final )?answer\W{0,3}$",
    re.IGNORECASE | re.MULTILINE,
)
_OPENING = re.compile(r"(?:\s|\*|_(?=[_\s])|:|=|\bis\b|\bequal to\b|\btherefore\b|\bsimply\b){0,12}", re.IGNORECASE)
_MATHS = re.compile(r"\$\$(.+?)\$\$|\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_STOP = re.compile(
    r"\n|[;!?]|\.(?=\s|$|\*)|\*\*|,(?=\s+(?!and\b|or\b)[A-Za-z])|\s(?=(?:because|since|as|so|which|when|where|if|but|I)\b)|\s(?=(?:the )?(?:final )?answer\b)",
    re.IGNORECASE,
)
_LETTER_ANSWER = re.compile(
    r"(?:[*$ ]|\\text(?![a-z])){0,4}(?:\\(?:text|textbf|mathrm|mathbf|mbox) ?\{ ?)?(?:\(([A-Z])\)|([A-Z])(?:[).:]|[ }*$]*$)|(?:option|choice) \(?([A-Z])\b)",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"\(?([A-Z])\)(?:\W.*)?|([A-Z])\.\s.*", re.DOTALL)


def extract(response: str) -> str | None:
    """The final answer of a response, or None: the last closed box, else what the last final-answer phrase announces.

    An answer of more than `MAX_ANSWER_CHARS` characters is None; a box that is never closed is no box.
    """
    box = _last_box(response)
    answer = _announced(response) if box is None else box.strip()
    return answer if answer and len(answer) <= MAX_ANSWER_CHARS else None


def letter_of(answer: str, num_choices: int) -> str | None:
    """The letter that an answer to a question with choices names (`C`, `(C)`, `C. 5`, `\\text{C}`), or None if it names none."""
    found = _LETTER_ANSWER.match(answer.strip())
    letter = found and next(group for group in found.groups() if group)
    return letter if letter and letter in tuple(ascii_uppercase[:num_choices]) else None


def same(a: str, b: str) -> bool:
    """Whether two answers mean the same. Without any time limit: for worker processes and experiments; others use `Verifier`."""
    from evaluation import equivalence  # here, because it loads the computer algebra

    return equivalence.same(a, b)


def _last_box(response: str) -> str | None:
    """What is inside the balanced box that begins last, or None without one; escaped braces do not count."""
    start, end, stack = -1, -1, []
    for token in _TOKEN.finditer(response):
        text = token[0]
        if token["bare"] is not None and token.start("bare") > start:
            start, end = token.span("bare")
        elif token["open"] is not None:
            stack.append(token.end())
        elif text == "{":
            stack.append(-1)
        elif text == "}" and stack:
            opened = stack.pop()
            if opened > start:
                start, end = opened, token.start()
    return None if start < 0 else response[start:end]


def _announced(response: str) -> str | None:
    """What follows the last "the answer is" up to the end of its formula or sentence; an unclosed box there is no answer."""
    last = None
    for last in _PHRASE.finditer(response):
        pass
    if last is None:
        return None
    tail = response[last.end() : last.end() + _TAIL_CHARS]
    tail = tail[_OPENING.match(tail).end() :]
    choice = _CHOICE.fullmatch(tail.partition("\n")[0])
    if choice:
        return choice[1] or choice[2]
    maths = _MATHS.match(tail)
    if maths:
        answer = next(group for group in maths.groups() if group is not None)
    else:
        answer = _STOP.split(tail, maxsplit=1)[0].strip(" \t*_.,:")
    answer = answer.strip()
    return None if not any(map(str.isalnum, answer)) or "\\boxed" in answer or "\\fbox" in answer else answer
