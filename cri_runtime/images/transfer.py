"""Progress of pulls and pushes, as values for whoever shows it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What happens to one blob, or to the whole when ``id`` is empty."""

    id: str
    status: str
    """``downloading``, ``unpacking``, ``exists``, ``done``, ``pushing``, ``mounted``."""
    current_bytes: int = 0
    total_bytes: int = 0


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report to nobody."""
