"""Blocks of a page to HTML and Markdown. The only place where text becomes markup, so the only place where it is escaped, all of it.

Text may come from a model: what is not to be shown as it is goes through `visible` first.
"""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from rich.table import Table as RichTable
from rich.text import Text

from jobs.reporting.figures import Picture
from jobs.reporting.visible import MAX_LONG, visible, visible_lines

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&!:@])")
_WWW = re.compile(r"www\.", re.IGNORECASE)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
p.lead { font-size: 1.1rem; font-weight: 600; } p.note { color: #555; margin-top: .2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; margin: .6rem 0; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; overflow-wrap: break-word; max-width: 24rem; }
th { border-bottom: 2px solid #888; overflow-wrap: normal; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #555; font-size: .9rem; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .82rem; } bdi { unicode-bidi: isolate; }
"""


@dataclass(frozen=True, slots=True)
class Heading:
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as text; columns whose cells are figures (`numeric`) are set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Code:
    text: str


Block = Heading | Paragraph | Table | Code | Picture


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """A page that needs nothing but itself and may run nothing: its policy forbids scripts and the network."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="viewport" content="width=device-width">'
    body = "\n".join(_html(b) for b in blocks)
    head += f"<title>{_h(title)}</title><style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><h1>{_h(title)}</h1>\n{body}\n</body></html>\n'


def _h(text: str) -> str:
    return html.escape(visible(text, MAX_LONG))


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{_h(text)}</h2>"
        case Paragraph(text, tone):
            return f'<p class="{_h(tone)}">{_h(text)}</p>'
        case Table():
            return _html_table(block)
        case Code(text):
            return f"<pre>{html.escape(visible_lines(text))}</pre>"
        case Picture():
            data = base64.b64encode(block.svg).decode("ascii")
            image = f'<img alt="{_h(block.title)}" src="data:image/svg+xml;base64,{data}">'
            return f"<figure>{image}<figcaption>{_h(block.caption)}</figcaption></figure>"
        case _:
            assert_never(block)


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        marked = (f'<{tag} class="number"' if i in table.numeric else f"<{tag}" for i in range(len(cells)))
        return (
            "<tr>"
            + "".join(f"{start}><bdi>{_h(cell)}</bdi></{tag}>" for start, cell in zip(marked, cells))
            + "</tr>"
        )

    return (
        '<div class="scroll"><table>'
        + row(table.header, "th")
        + "\n".join(row(r, "td") for r in table.rows)
        + "</table></div>"
    )


def to_terminal(table: Table, caption: str) -> RichTable:
    """A table for a terminal. Text objects throughout: nothing in a name or a figure is taken for markup."""
    shown = RichTable(
        box=None, pad_edge=False, caption=Text(visible(caption, MAX_LONG)), caption_justify="left"
    )
    for i, name in enumerate(table.header):
        shown.add_column(Text(visible(name)), justify="right" if i in table.numeric else "left")
    for cells in table.rows:
        shown.add_row(*(Text(visible(c)) for c in cells))
    return shown


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same page without its pictures."""
    parts = [f"# {_m(title)}"] + [text for b in blocks if (text := _markdown(b))]
    return "\n\n".join(parts) + "\n"


def _m(text: str) -> str:
    return _WWW.sub(lambda m: m.group()[:3] + "\\.", _MARKDOWN.sub(r"\\\1", visible(text, MAX_LONG)))


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_m(text)}"
        case Paragraph(text, tone):
            return f"**{_m(text)}**" if tone == "lead" else _m(text)
        case Table():
            rule = ["---:" if i in block.numeric else "---" for i in range(len(block.header))]
            lines = [[_m(c) for c in block.header], rule] + [[_m(c) for c in r] for r in block.rows]
            return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        case Code(text):
            shown = visible_lines(text)
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
            return f"{fence}\n{shown}\n{fence}"
        case Picture():
            return ""
        case _:
            assert_never(block)
