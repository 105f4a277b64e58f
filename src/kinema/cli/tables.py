"""Tables of results, as wide as the terminal: columns that matter least are left out where there is no room."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

GAP = 2  # characters between columns
SHORTEST, READABLE = 20, 50  # characters of a column that is cut: at least, and before others are left out


def show(
    columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], spare: Sequence[str], cut: bool = False
) -> None:
    """Prints rows under columns, each a title and "left" or "right".

    `spare`: columns that may be left out, the first one first; `cut`: the last column, of words, may be shortened.
    Where stdout is no terminal all is there.
    """
    console, titles = Console(), [title for title, _ in columns]
    room = console.width if sys.stdout.isatty() else None
    widths = widths_of(titles, rows)
    wanted = [*widths[:-1], min(widths[-1], READABLE)] if cut else widths
    left_out = fitting(titles, wanted, spare, room)
    kept = [i for i, title in enumerate(titles) if title not in left_out]
    if cut and room is not None:
        rest = max(room - sum(widths[i] + GAP for i in kept[:-1]), SHORTEST)
        rows = [(*row[:-1], textwrap.shorten(row[-1], rest, placeholder=" ...")) for row in rows]
        widths = widths_of(titles, rows)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    for i in kept:
        table.add_column(columns[i][0], justify=columns[i][1], no_wrap=True, min_width=widths[i])  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(escape(row[i]) for i in kept))
    Console(width=max(sum(widths) + GAP * len(widths), console.width)).print(table, crop=False)
    if left_out:
        print(f"without {', '.join(left_out)}: the terminal is too narrow")


def widths_of(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(titles, *rows, strict=True)]


def fitting(titles: Sequence[str], widths: Sequence[int], spare: Sequence[str], room: int | None) -> list[str]:
    """Which columns to leave out, so that the others fit into so many characters; none where `room` is None."""
    needed = dict(zip(titles, widths, strict=True))
    left_out: list[str] = []
    for title in spare:
        if room is None or sum(needed.values()) + GAP * (len(needed) - 1) <= room:
            break
        left_out.append(title)
        del needed[title]
    return left_out
