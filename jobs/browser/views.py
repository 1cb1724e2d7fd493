"""What pages show, as plain values, and the templates that show it.

Whatever a template prints is first made one harmless line (`harmless`) and then escaped, unless it is markup
already: no text of a run can be more than text. Addresses are relative to the page's folder, so that the
secret part of the address stands in no page.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from jobs.shell.visible import visible

TEMPLATES = Path(__file__).parent / "templates"
MAX_LINE = 240
MAX_BLOCK = 50_000
NUM_COLOURS = 8
SOFT = ("anchor", "surplus")


# ------------------------------------------------------------------------------------------------ templates
def render(template: str, **values: object) -> bytes:
    return _environment().get_template(template).render(**values).encode()


@cache
def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=harmless,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    env.filters |= {"cut": cut, "caption": caption, "lines": lines, "num": "{:,}".format}
    env.filters |= {"spaced": lambda word: word.replace("_", " "), "tone": tone}
    css, keys = ((TEMPLATES / name).read_text() for name in ("style.css", "keys.js"))
    env.globals |= {"address": address, "css": Markup(css), "keys": Markup(keys), "most_votes": 0}
    env.globals["mean"] = fmean
    env.globals["p"] = env.get_template("_parts.html").module
    return env


def harmless(value: object) -> object:
    """One line of what a template prints; nothing for None."""
    if value is None:
        return ""
    return visible(value, MAX_LINE) if isinstance(value, str) and not isinstance(value, Markup) else value


def cut(text: str | None, limit: int) -> Markup:
    return escape(visible(text or "", limit))


def caption(text: str, limit: int = MAX_LINE) -> Markup:
    """One line that is to be pressed, so never nothing."""
    return cut(text, limit) if text.strip() else Markup("(blank)")


def lines(text: str) -> Markup:
    """Several lines, as they were written."""
    shown = Markup("\n").join(escape(visible(line, MAX_BLOCK)) for line in text[:MAX_BLOCK].split("\n"))
    return shown + (f"\n... ({len(text) - MAX_BLOCK:,} more characters)" if len(text) > MAX_BLOCK else "")


def address(page: str, query: Mapping[str, object], more: Mapping[str, object]) -> Markup:
    return escape(f"{page}?{urlencode({k: v for k, v in {**query, **more}.items() if v != ''})}")


def tone(fate: str) -> str:
    if fate == "kept":
        return "kept"
    return "soft" if fate in SOFT or fate.endswith("_yet") else "dropped"


# ------------------------------------------------------------------------------------------------ values
def classes(row: Mapping) -> list[dict]:
    """The classes of a group by size, those without a vote last, with what tells them apart on a page."""
    found = enumerate(_by_size(row["labels"]))
    return [_class(row, label, rank, mine) for rank, (label, mine) in found]


def _by_size(labels: Sequence[int | None]) -> list[tuple[int | None, list[int]]]:
    """Each class with the places of its answers, the largest first; those that cast no vote come last."""
    places: dict[int | None, list[int]] = {}
    for i, label in enumerate(labels):
        places.setdefault(label, []).append(i)
    return sorted(places.items(), key=lambda item: (item[0] is None, -len(item[1]), item[0] or 0))


def _spellings(answers: Sequence[str | None], places: Sequence[int]) -> list[str]:
    """How the answers of a class are written, the shortest first."""
    found = {text for i in places if (text := answers[i]) is not None}
    return sorted(found, key=lambda text: (len(text), text))


def _class(row: Mapping, label: int | None, rank: int, mine: Sequence[int]) -> dict:
    silent = label is None
    spelled = "  |  ".join(_spellings(row["answers"], mine))
    return {
        "mine": mine,
        "n": len(mine),
        "words": f"{len(mine)} silent" if silent else str(len(mine)),
        "colour": "none" if silent else f"c{rank % NUM_COLOURS}",
        "shown": "no vote: unread, cut off or undecided" if silent else spelled,
        "reward": fmean(row["rewards"][i] for i in mine),
        "won": "majority" if not silent and label == row["winner"] else "",
    }


def group_row(row: Mapping) -> dict:
    """A group with its classes. The majority is the shortest spelling of the answer that won."""
    won = [i for i, k in enumerate(row["labels"]) if k is not None and k == row["winner"]]
    majority = next(iter(_spellings(row["answers"], won)), "")
    right = {True: "correct", False: "wrong", None: ""}[row["winner_correct"]]
    return {**row, "classes": classes(row), "majority": majority, "right": right}
