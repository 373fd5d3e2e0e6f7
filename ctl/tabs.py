"""Elastic tab stops, as Go's text/tabwriter lays out what kubectl describes. Pure.

A cell is text ended by a tab. A column is a run of consecutive lines that have a cell there, and is as wide as its
widest cell plus a gap; so blocks of lines align among themselves and not with the rest.
"""

from collections.abc import Sequence

GAP = 2


def layout(lines: Sequence[str]) -> str:
    """The lines with their tabs turned into blanks, each ended by a newline."""
    cells = [line.split("\t") for line in lines]
    widths: list[list[int]] = [[] for _ in cells]
    _measure(cells, widths, 0, len(cells), 0)
    return "".join(_line(row, widths[at]) + "\n" for at, row in enumerate(cells))


def _measure(cells: Sequence[list[str]], widths: list[list[int]], start: int, end: int, column: int) -> None:
    """Find the blocks of ``column`` in lines [start, end), and in each the blocks of the next column."""
    at = start
    while at < end:
        if len(cells[at]) - 1 <= column:
            at += 1
            continue
        stop = at
        while stop < end and len(cells[stop]) - 1 > column:
            stop += 1
        width = max(len(cells[line][column]) for line in range(at, stop)) + GAP
        for line in range(at, stop):
            widths[line].append(width)
        _measure(cells, widths, at, stop, column + 1)
        at = stop


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1]
