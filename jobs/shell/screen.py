"""What verbs show on a terminal: lines that are taken as they are, and tables without boxes."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def say(text: str, *, style: str | None = None, markup: bool = False) -> None:
    """One line, however long: a terminal folds it, a pipe gets it whole. Brackets are text unless `markup`."""
    Console(soft_wrap=True).print(text, style=style, markup=markup, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Columns as wide as their words; a name that begins with > stands right."""
    found = Table(box=None, pad_edge=False)
    for name in columns:
        right, shown = name.startswith(">"), Text(name.removeprefix(">"))
        found.add_column(shown, justify="right" if right else "left", overflow="fold", no_wrap=right)
    for cells in rows:
        found.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return found
