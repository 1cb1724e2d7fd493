"""What verbs show on a terminal: lines that are taken as they are, and tables without boxes."""

from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

Cell = str | Text


def say(text: str, *, style: str | None = None, markup: bool = False, console: Console | None = None) -> None:
    """One line, however long: a terminal folds it, a pipe gets it whole."""
    (console or Console()).print(text, style=style, markup=markup, highlight=False, soft_wrap=True)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str | None = None,
    folds: Collection[str] | None = None,
) -> Table:
    """A name that begins with > stands right. On a narrow terminal those of `folds`, or else all, fold."""
    found = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in columns:
        justify, whole = "right" if name.startswith(">") else "left", folds is not None and name not in folds
        found.add_column(Text(name.removeprefix(">")), justify=justify, overflow="fold", no_wrap=whole)
    for cells in rows:
        found.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return found


def cut(text: str, style: str = "") -> Text:
    """A cell that a narrow terminal cuts, where its column may fold."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
