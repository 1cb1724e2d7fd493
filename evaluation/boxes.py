"""The boxes of a response: which one is the answer, and which stand side by side and are one answer together.
One pass, whatever the text.
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"\\{1,4}(?:boxed|fbox)\s{0,8}(?P<open>\{)|\\{1,4}(?:boxed"
    r"|fbox)(?![a-zA-Z])\s{0,8}(?P<bare>[^\s{}\\$]{1,64})|\\.|[{}]",
    re.DOTALL,
)
_NAME = r"\\?[A-Za-z]{1,8}(?:_(?:\w|\{\w{1,4}\}))?"
_BULLET = re.compile(r"\n\s{0,4}[-*] ")
_MATHS_ENDS = re.compile(r"\s+|\$|\\[()\[\],;: ]|\\q?quad(?![a-z])|[*&.]")
_BETWEEN = re.compile(
    rf" ?(?:[,;]|[,;]? ?(?:and|or)|\\text ?\{{ ?,? ?(?:and|or) ?\}}) ?(?:(?P<name>{_NAME}) ?= ?)?"
)
_NAMED = re.compile(rf"(?<![A-Za-z\\_])({_NAME})\s?=\s?$")
MAX_GAP = 60
MAX_BOXES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What is in a box, where `\\boxed` begins, and where it ends."""

    text: str
    start: int
    end: int


def boxes(response: str) -> list[Box]:
    """Every closed box that has something in it and no other box inside, by where it begins; escaped braces
    do not count.
    """
    found: list[Box] = []
    stack: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(response):
        text = token[0]
        if token["bare"] is not None:
            found.append(Box(text=token["bare"], start=token.start(), end=token.end()))
        elif token["open"] is not None:
            stack.append((token.start(), token.end()))
        elif text == "{":
            stack.append((-1, -1))
        elif text == "}" and stack:
            start, inside = stack.pop()
            content = (
                response[inside : token.start()].strip()
                if start >= 0 and not (found and found[-1].start > start)
                else ""
            )
            if content:
                found.append(Box(text=content, start=start, end=token.end()))
    return found


def last(response: str) -> Box | None:
    """The last box, together with those right before it that only a comma or an "and" parts from it; None
    without a box.
    """
    found = boxes(response)
    if not found:
        return None
    together, names = [found[-1]], []
    for box in reversed(found[-MAX_BOXES:-1]):
        between = _between(response, box.end, together[0].start)
        if between is None or ("%" in box.text) != (
            "%" in together[0].text
        ):  # 0.5 or 50% are one answer twice
            break
        names.insert(0, between["name"])
        together.insert(0, box)
    if len(together) == 1:
        return found[-1]
    before = _NAMED.search(response, max(0, together[0].start - MAX_GAP), together[0].start)
    names.insert(0, before and before[1])
    each = (
        [f"{name}={box.text}" for name, box in zip(names, together, strict=True)]
        if all(names)
        else [box.text for box in together]
    )
    return Box(text=", ".join(each), start=together[0].start, end=together[-1].end)


def _between(response: str, start: int, end: int) -> re.Match[str] | None:
    """What stands between two boxes, if it only joins them: a comma, an "and", the next item of a list, and
    the name of the next one.
    """
    if end - start > MAX_GAP:
        return None
    gap = re.sub(" +", " ", _MATHS_ENDS.sub(" ", _BULLET.sub(";", response[start:end])))
    return _BETWEEN.fullmatch(gap)
