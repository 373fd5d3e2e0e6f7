"""Columns as kubectl aligns them: three spaces apart, left, nothing after the last cell. Pure."""

from collections.abc import Sequence

GAP = 3
CELL_MIN = 6
"""Least width of a column, its gap included."""


def render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as text, each line ended by a newline; an empty ``header`` prints none.

    As kubectl's tab writer, cells of the last column but one are padded although the last one may be empty.
    """
    lines = [header, *rows] if header else list(rows)
    return "".join(line + "\n" for line in align(lines, GAP))


def align(lines: Sequence[Sequence[str]], gap: int) -> list[str]:
    """Pad every cell but a line's last to its column's width plus ``gap``, at least to CELL_MIN."""
    columns = max((len(line) for line in lines), default=0)
    content = [max((len(line[i]) for line in lines if len(line) > i + 1), default=0) for i in range(columns)]
    widths = [max(width + gap, CELL_MIN) for width in content]
    return ["".join([*(cell.ljust(widths[i]) for i, cell in enumerate(line[:-1])), *line[-1:]]) for line in lines]
