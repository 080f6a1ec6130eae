"""Tables in the form of Keras' summaries: heavy lines round the header, fixed columns, long cells wrapped or cut.

Keras draws its tables with rich; where its rules matter (how columns share a width, where a cell breaks) they are
repeated here. tabulate draws the boxes.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence

from tabulate import SEPARATING_LINE, DataRow, Line, TableFormat, tabulate

__all__ = ["column_widths", "draw_table"]

# tabulate draws a line between all rows or, as here, only between given ones: a row may be several lines high.
_HEADER = TableFormat(
    lineabove=Line("┏", "━", "┳", "┓"),
    linebelowheader=None,
    linebetweenrows=None,
    linebelow=Line("┡", "━", "╇", "┩"),
    headerrow=None,
    datarow=DataRow("┃", "┃", "┃"),
    padding=1,
    with_header_hide=None,
)
_BODY = TableFormat(
    lineabove=None,
    linebelowheader=Line("├", "─", "┼", "┤"),
    linebetweenrows=None,
    linebelow=Line("└", "─", "┴", "┘"),
    headerrow=None,
    datarow=DataRow("│", "│", "│"),
    padding=1,
    with_header_hide=None,
)
_PADDING = 2


def column_widths(line_length: int, ends: Sequence[float]) -> list[int]:
    """How many characters the text of each column gets.

    Args:
        line_length: the width of the whole table, lines and padding included.
        ends: where the columns end: fractions of `line_length`, or, if any is greater than 1, characters: then the
            table is as wide as the last says.

    Raises:
        ValueError: a column would be too narrow, or `ends` do not grow.
    """
    if any(end > 1 for end in ends):
        # The first column has the table's left line besides.
        padded = [int(end) - int(start) - 1 for start, end in itertools.pairwise([1, *ends])]
    else:
        asked = [end - start for start, end in itertools.pairwise([0, *(int(end * line_length) for end in ends)])]
        room = line_length - len(asked) - 1
        padded = _share([width + _PADDING for width in asked], room) if min(asked) >= 4 else [0]
    if min(padded) <= _PADDING:
        raise ValueError(
            f"A table {line_length} characters wide is too narrow for {len(ends)} columns that end at {list(ends)}. "
            "Give a larger `line_length`, or `positions` that leave each column at least 4 characters."
        )
    return [width - _PADDING for width in padded]


def _share(widths: Sequence[int], total: int) -> list[int]:
    """Change widths so that they sum to `total`, as rich does: even cuts when too wide, shares when too narrow."""
    excess, shared = sum(widths) - total, []
    left, weight = abs(excess), len(widths) if excess > 0 else sum(widths)
    for width in widths:
        if excess > 0:
            change, own = -min(width, round(left / weight)), 1
        else:
            change, own = math.ceil(width * left / weight), width
        shared.append(width + change)
        left, weight = left - abs(change), weight - own
    return shared


def draw_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int], alignment: Sequence[str]
) -> str:
    """A table with lines.

    Args:
        header: the columns' titles.
        rows: the cells. One that does not fit wraps between words; a word that does not fit is cut, with "…".
        widths: the characters in a line of each column's cells.
        alignment: "left", "right" or "center", for each column.
    """
    aligned = [_ALIGNERS[side] for side in alignment]
    lines: list[list[str] | str] = []
    for row in rows:
        if lines:
            lines.append(SEPARATING_LINE)
        lines.extend(_row_lines(row, widths, aligned))
    top = tabulate(
        _row_lines(header, widths, aligned, bottom=True),
        tablefmt=_HEADER,
        disable_numparse=True,
        preserve_whitespace=True,
    )
    if not lines:
        return f"{top}\n└{'┴'.join('─' * (width + _PADDING) for width in widths)}┘"
    body = tabulate(lines, tablefmt=_BODY, disable_numparse=True, preserve_whitespace=True)
    return f"{top}\n{body}"


def _row_lines(
    cells: Sequence[str], widths: Sequence[int], aligned: Sequence[Callable[[str, int], str]], bottom: bool = False
) -> list[list[str]]:
    """The lines of a row, each a list of cells of exactly the columns' widths."""
    wrapped = [_wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(len(lines) for lines in wrapped)
    filled = [
        [""] * (height - len(lines)) + lines if bottom else lines + [""] * (height - len(lines)) for lines in wrapped
    ]
    return [
        [align(text, width) for text, width, align in zip(line, widths, aligned, strict=True)]
        for line in zip(*filled, strict=True)
    ]


def _wrap(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


def _center(text: str, width: int) -> str:
    # An odd space goes to the right; str.center puts it now here, now there.
    return (" " * ((width - len(text)) // 2) + text).ljust(width)


_ALIGNERS: dict[str, Callable[[str, int], str]] = {"left": str.ljust, "right": str.rjust, "center": _center}
