"""A table as text, within a width: narrower gaps first, then long texts go on below. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pool.printable import printable

GAP, NARROW_GAP = 2, 1  # characters between columns
LEAST_OF_AN_ID = 16  # characters
IDS = frozenset({"response"})  # long and typed by nobody: the beginning tells them apart


def lines_of(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None) -> Iterator[str]:
    """Give the lines of a table; `width` in characters, None: as wide as it is.

    Numbers stand at the right. Where it is too wide, texts are folded, the longest first, and ids are cut off.
    """
    console = Console(width=width, color_system=None, highlight=False, force_terminal=False)
    table = _table(columns, rows, GAP)
    natural = _natural(table, console)
    if width is None:
        console.width = natural
    elif natural > width:
        table = _table(columns, rows, NARROW_GAP)
        over = _natural(table, console) - width
        for index, column in enumerate(table.columns):
            if columns[index] in IDS:  # it makes room before anything else is folded
                longest = max((len(str(row[index])) for row in rows), default=0)
                column.max_width = max(LEAST_OF_AN_ID, longest - over)
    for line in console.render_lines(table, pad=False):
        yield "".join(segment.text for segment in line).rstrip()


def _natural(table: Table, console: Console) -> int:
    """Return how wide a table is when nothing is folded."""
    return table.__rich_measure__(console, console.options.update(max_width=100_000)).maximum


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], gap: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="")
    for index, name in enumerate(columns):
        number = all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(
            Text(printable(name)),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="ellipsis" if name in IDS else "fold",
        )
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    # Some of it is a client's, the name of a model for instance: it is not to move the operator's cursor.
    return printable(str(value))
