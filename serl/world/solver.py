"""What a question of the toy domain asks, read back from its text: how diagnostics judge the questions a
model made up.

Model text is only ever parsed, never evaluated; its size is bounded before it is looked at.
"""

import re

from serl.world.arithmetic import CHANGES, ENDINGS, STARTS, apply

MAX_CHARS = 1000


def _pattern(template: str) -> re.Pattern[str]:
    """A regular expression for one template: any word for a name, thing or place; the number is captured."""
    text = re.sub(r"\\\{[ab]\\\}", r"(\\d{1,6})", re.escape(template))
    return re.compile(re.sub(r"\\\{[nmtp]\\\}", "[A-Za-z]+", text), re.ASCII)


_STARTS = [_pattern(template) for template in STARTS]
_CHANGES = [
    (operator, _pattern(template)) for operator, templates in CHANGES.items() for template in templates
]
_ENDINGS = [_pattern(template) for template in ENDINGS]
_EXPRESSION = re.compile(r"(?:What is|Compute|Evaluate|Find the value of) ([\d ()+*-]{1,80})[.?]", re.ASCII)


def solve(question: str) -> int | None:
    """The answer to any well-formed question of the domain, of whatever numbers; None for other text and for
    negative values. For diagnostics only.
    """
    if len(question) > MAX_CHARS:
        return None
    expression = _EXPRESSION.fullmatch(question)
    value = _solve_expression(expression[1]) if expression else _solve_story(question)
    return value if value is not None and value >= 0 else None


def _solve_story(question: str) -> int | None:
    sentences = re.split(r"(?<=[.?]) ", question)
    first, changes, last = sentences[0], sentences[1:-1], sentences[-1]
    start = next((match for pattern in _STARTS if (match := pattern.fullmatch(first))), None)
    if start is None or not changes or not any(pattern.fullmatch(last) for pattern in _ENDINGS):
        return None
    value = int(start[1])
    for change in changes:
        step = next(
            ((operator, match) for operator, pattern in _CHANGES if (match := pattern.fullmatch(change))),
            None,
        )
        if step is None:
            return None
        value = apply(value, step[0], int(step[1][1]))
    return value


def _solve_expression(text: str) -> int | None:
    """Infix value by precedence climbing; None unless the text is one well-formed expression with an operator
    in it.
    """
    tokens = re.findall(r"\d+|[()+*-]", text)
    if (
        "".join(tokens) != text.replace(" ", "")
        or re.search(r"\d +\d", text)
        or not any(token in "+*-" for token in tokens)
    ):
        return None
    value, rest = _sum(tokens)
    return value if not rest else None


def _sum(tokens: list[str]) -> tuple[int | None, list[str]]:
    value, rest = _product(tokens)
    while value is not None and rest and rest[0] in "+-":
        right, after = _product(rest[1:])
        value, rest = (None if right is None else apply(value, rest[0], right)), after
    return value, rest


def _product(tokens: list[str]) -> tuple[int | None, list[str]]:
    value, rest = _atom(tokens)
    while value is not None and rest and rest[0] == "*":
        right, after = _atom(rest[1:])
        value, rest = (None if right is None else value * right), after
    return value, rest


def _atom(tokens: list[str]) -> tuple[int | None, list[str]]:
    match tokens:
        case ["(", *inside]:
            value, rest = _sum(inside)
            return (value, rest[1:]) if rest[:1] == [")"] else (None, rest)
        case [number, *rest] if number.isdecimal():
            return int(number), rest
        case _:
            return None, tokens
