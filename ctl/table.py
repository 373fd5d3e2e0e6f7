"""Columns as kubectl aligns them: three spaces apart, left, nothing after the last cell. Pure."""

from collections.abc import Sequence

GAP = 3


def render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table as text, each line ended by a newline; an empty ``header`` prints none.

    As kubectl's tab writer, cells of the last column but one are padded although the last one may be empty.
    """
    lines = [header, *rows] if header else list(rows)
    return "".join(line + "\n" for line in align(lines, GAP))


def align(lines: Sequence[Sequence[str]], gap: int) -> list[str]:
    """Pad every cell but a line's last to its column's width plus ``gap``."""
    columns = max((len(line) for line in lines), default=0)
    widths = [max((len(line[i]) for line in lines if len(line) > i + 1), default=0) + gap for i in range(columns)]
    return ["".join([*(cell.ljust(widths[i]) for i, cell in enumerate(line[:-1])), *line[-1:]]) for line in lines]
