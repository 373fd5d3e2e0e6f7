"""What a printer is: column names and a function from an object to its cells."""

from collections.abc import Callable, Sequence
from typing import Any

Cells = Callable[[Any, float], Sequence[str]]
"""(object, now in seconds since 1970) to one cell per column, the wide ones included."""


class Printer:
    """The columns of one kind. ``columns`` is ``"NAME|READY|+IP"``: a plus marks those of ``-o wide`` only."""

    def __init__(self, columns: str, cells: Cells) -> None:
        names = columns.split("|")
        self.names = [name.removeprefix("+") for name in names]
        self.narrow = [index for index, name in enumerate(names) if not name.startswith("+")]
        self.cells = cells

    def header(self, wide: bool) -> list[str]:
        """The column names that are shown."""
        return self._shown(self.names, wide)

    def row(self, obj: Any, now_s: float, wide: bool) -> list[str]:
        """The cells that are shown."""
        return self._shown(self.cells(obj, now_s), wide)

    def _shown(self, cells: Sequence[str], wide: bool) -> list[str]:
        return list(cells) if wide else [cells[index] for index in self.narrow]
