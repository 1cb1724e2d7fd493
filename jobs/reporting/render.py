"""Tables and pages: one description of each for HTML, Markdown, terminals and CSV. The only place where text
becomes markup, so the only place where it is escaped, all of it: whatever a template prints that is not
markup already.

A page is a template of `templates/`, written once for both formats with the words of `words.html` and
`words.md`. Text may come from a model: what is not to be shown as it is goes through `visible` first.
"""

import base64
import csv
import io
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape
from rich.table import Table as RichTable
from rich.text import Text

from evaluation.scores import Score
from jobs.shell import screen
from jobs.shell.visible import MAX_LONG, visible, visible_lines

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&!:@])")
_FIGURE = re.compile(r"(p )?[-+±\d.,:%/<=\[\]() e]*( of \d+)?")
_WWW = re.compile(r"www\.", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as values; columns whose cells all are figures are set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    @property
    def right(self) -> frozenset[int]:
        columns = [[cell(value) for value in column] for column in zip(*self.rows)]
        return frozenset(
            i for i, texts in enumerate(columns) if any(texts) and all(map(_FIGURE.fullmatch, texts))
        )

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot; what it shows, the page says."""

    name: str
    svg: bytes

    @property
    def source(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


# ----------------------------------------------------------------------------------- tables
def listing(items: Iterable[object], columns: str | Mapping[str, str]) -> Table:
    """A row for each item. A column says where in the item its value is, and after a colon how it is shown
    (see `shown`): attributes, keys or places with dots between, or of a mapping the first key that is there
    of several with bars between. As text: columns with bars between, `header = where` or where both are one.
    """
    if isinstance(columns, str):
        told = [column.partition(" = ") for column in columns.split(" | ")]
        columns = {name.strip(): where.strip() or name.strip() for name, _, where in told}
    places = [where.partition(":") for where in columns.values()]
    return Table(list(columns), [[shown(_at(item, path), how) for path, _, how in places] for item in items])


def _at(item: object, path: str) -> object:
    name, _, rest = path.partition(".")
    match item:
        case None:
            return None
        case Mapping():
            if found := [key for key in path.split("|") if key in item]:
                return item[found[0]]
            inner = item.get(name)
        case tuple() if name.isdigit():
            inner = item[int(name)]
        case _:
            inner = getattr(item, name)
    return _at(inner, rest) if rest else inner


def shown(value: object, how: str = "") -> object:
    """A value as a column wants it. A score as its interval alone ("ends"), with it ("[]"), with its farther
    end ("±": near 0 and 1 an interval is not symmetric), or only its number ("n"); a time as a "date", a name
    in "words"; or in any format of Python's.
    """
    if value is None or not how:
        return value
    if isinstance(value, Score):
        match how:
            case "n":
                return str(value.n)
            case "ends":
                return f"[{value.low:.3f}, {value.high:.3f}]"
            case "[]":
                return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}] of {value.n}"
            case "±":
                return f"{value.value:.3f}±{max(value.high - value.value, value.value - value.low):.3f}"
        return f"{value.value:{how}}"
    match how:
        case "date":
            return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(value))
        case "words":
            return value.replace("_", " ")
    return f"{value:{how}}"


def cell(value: object) -> str:
    """A value as pages show it: means with their intervals, nothing for what is not there."""
    match value:
        case None:
            return ""
        case Markup():
            return value
        case Score():
            return interval(value)
        case float():
            return f"{value:.3f}"
        case _:
            return str(value)


def interval(score: Score) -> str:
    """A mean with its interval, where there is one."""
    if not score.n:
        return ""
    ends = f" [{score.low:.3f}, {score.high:.3f}]" if math.isfinite(score.low) else ""
    return f"{score.value:.3f}{ends}"


def to_terminal(told: Table, caption: str) -> RichTable:
    """A table for a terminal: nothing in a name or a figure is taken for markup."""
    header = [f"{'>' if i in told.right else ''}{visible(name)}" for i, name in enumerate(told.header)]
    made = screen.table(header, ([visible(cell(value)) for value in row] for row in told.rows))
    made.caption, made.caption_justify = Text(visible(caption, MAX_LONG)), "left"
    return made


def to_csv(told: Table) -> bytes:
    """Values in full; nothing where there is none."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(told.header)
    writer.writerows(told.rows)
    return sink.getvalue().encode("utf-8")


# ----------------------------------------------------------------------------------- pages
def page(body: str, suffix: str, facts: Mapping[str, object]) -> str:
    """As HTML it needs nothing but itself and may run nothing: it forbids scripts and the network. As
    Markdown (`md`) it is the same page without its pictures.
    """
    return environment(suffix).get_template(f"page.{suffix}").render(facts, body=body)


def sentences(template: str, **facts: object) -> list[str]:
    """What a template of plain text says, a sentence a paragraph."""
    text = environment("txt").get_template(template).render(facts)
    return [" ".join(told.split()) for told in text.split("\n\n") if told.strip()]


@cache
def environment(suffix: str) -> "Environment":
    """Whatever a template prints is made visible and escaped for its format, unless it is markup already."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=suffix != "txt", undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, 
        extensions=["jinja2.ext.do"], finalize=_markdown if suffix == "md" else _visible,
        keep_trailing_newline=True,
    )  # fmt: skip
    made.globals |= {"words": f"words.{suffix}", "listing": listing}
    made.filters |= {"cell": cell, "shown": shown, "visible": visible}
    made.filters["code"] = _fenced if suffix == "md" else lambda text: escape(visible_lines(text))
    return made


def _visible(value: object) -> str:
    return value if isinstance(value, Markup) else visible(str(value), MAX_LONG)


def _markdown(value: object) -> Markup:
    if isinstance(value, Markup):
        return value
    escaped = _MARKDOWN.sub(r"\\\1", visible(str(value), MAX_LONG))
    return Markup(_WWW.sub(lambda m: m.group()[:3] + "\\.", escaped))


def _fenced(text: str) -> Markup:
    """In a fence longer than any in it."""
    told = visible_lines(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", told)), default=0))
    return Markup(f"{fence}\n{told}\n{fence}")
