"""Pages as HTML and Markdown, and tables for terminals and CSV, too. The only place where text becomes
markup, so the only place where it is escaped, all of it: whatever a template prints that is not markup
already.

A page is a template of `templates/`, written once for both formats with the words of `words.html` and
`words.md`. Text may come from a model: what is not to be shown as it is goes through `visible` first.
"""

import base64
import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape
from rich.table import Table as RichTable
from rich.text import Text

from evaluation.scores import Score
from jobs.reporting.visible import MAX_LONG, visible, visible_lines

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&!:@])")
_FIGURE = re.compile(r"(p )?[-+±\d.,:%/<=\[\] e]*( of \d+)?")
_WWW = re.compile(r"www\.", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Heading:
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """`tone` is "lead", "note" or nothing."""

    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as values. Columns of figures are set to the right: those of `numeric`, or those whose cells all
    are.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    numeric: frozenset[int] | None = None

    @property
    def right(self) -> frozenset[int]:
        if self.numeric is not None:
            return self.numeric
        columns = [[cell(value) for value in column] for column in zip(*self.rows)]
        return frozenset(
            i for i, texts in enumerate(columns) if any(texts) and all(map(_FIGURE.fullmatch, texts))
        )

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass(frozen=True, slots=True)
class Code:
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot; what it shows, the page says."""

    name: str
    svg: bytes

    @property
    def source(self) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


Block = Heading | Paragraph | Table | Code | Picture


def table(header: str | Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table whose header may be written as one text with bars."""
    return Table(header=header.split(" | ") if isinstance(header, str) else header, rows=list(rows))


def cell(value: object) -> str:
    """A value as pages show it: means with their intervals, nothing for what is not there."""
    match value:
        case None:
            return ""
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


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


# ----------------------------------------------------------------------------------- formats
def to_html(title: str, blocks: Sequence[Block]) -> str:
    """A page of blocks; see `html_page`."""
    return html_page("blocks.md", {"title": title, "content": blocks})


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    return markdown_page("blocks.md", {"title": title, "content": blocks})


def html_page(body: str, facts: Mapping[str, object]) -> str:
    """A page that needs nothing but itself and may run nothing: it forbids scripts and the network."""
    return _environment("html").get_template("page.html").render(facts, body=body)


def markdown_page(body: str, facts: Mapping[str, object]) -> str:
    """The same page without its pictures."""
    return _environment("md").get_template("page.md").render(facts, body=body)


def to_terminal(shown: Table, caption: str) -> RichTable:
    """A table for a terminal. Text objects throughout: nothing in a name or a figure is taken for markup."""
    text = Text(visible(caption, MAX_LONG))
    made = RichTable(box=None, pad_edge=False, caption=text, caption_justify="left")
    for i, name in enumerate(shown.header):
        made.add_column(Text(visible(name)), justify="right" if i in shown.right else "left")
    for row in shown.rows:
        made.add_row(*(Text(visible(cell(value))) for value in row))
    return made


def to_csv(told: Table) -> bytes:
    """Values in full; nothing where there is none."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(told.header)
    writer.writerows(told.rows)
    return sink.getvalue().encode("utf-8")


# ----------------------------------------------------------------------------------- escaping
@cache
def _environment(suffix: str) -> "Environment":
    """Whatever a template prints is made visible and escaped for its format, unless it is markup already."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_FINAL[suffix], keep_trailing_newline=True,
    )  # fmt: skip
    made.globals |= {"words": f"words.{suffix}", "cell": cell}
    made.filters |= {"code": _CODE[suffix], "type": lambda block: type(block).__name__}
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
    shown = visible_lines(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return Markup(f"{fence}\n{shown}\n{fence}")


_FINAL = {"html": _visible, "md": _markdown}
_CODE = {"html": lambda text: escape(visible_lines(text)), "md": _fenced}
