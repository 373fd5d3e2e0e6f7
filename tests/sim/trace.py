"""What happened, readable, and cheap as long as nobody reads it."""

from collections import deque
from typing import Any

from raftstore.raft.message import Message


class Trace:
    """The last events of a run; text is made only when it is read."""

    def __init__(self, length: int) -> None:
        self._events: deque[tuple[float, int, str, Any]] = deque(maxlen=length)

    def note(self, time: float, member: int, what: str, about: Any = "") -> None:
        """``member`` (0: the world) did or suffered ``what``. ``about`` must not change afterwards."""
        self._events.append((time, member, what, about))

    def __str__(self) -> str:
        return "\n".join(
            f"{time:9.2f}  {member or '-':>3}  {what} {render(about)}" for time, member, what, about in self._events
        )


def render(about: Any) -> str:
    """A message as its fields by name; anything else as it is."""
    if not isinstance(about, Message):
        return str(about)
    names = [name for cls in type(about).__mro__ for name in getattr(cls, "__slots__", ())]
    fields = {name: getattr(about, name) for name in names if name not in ("to", "sender")}
    if "entries" in fields:
        entries = fields["entries"]
        fields["entries"] = f"[{entries[0].index}..{entries[-1].index}]" if entries else "[]"
    text = " ".join(f"{name}={value}" for name, value in fields.items())
    return f"{type(about).__name__} {about.sender}->{about.to} {text}"
