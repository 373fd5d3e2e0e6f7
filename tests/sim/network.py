"""The network between members: it loses, delays, duplicates and reorders, and is cut in one or both directions."""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from raftstore.raft.message import Message, MsgProp


@dataclass
class Weather:
    """How bad it is. Delays are in ticks."""

    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.1
    straggling: float = 0.0
    """Share of messages that take very long, and so overtake none and are overtaken by many."""


class Network:
    """Directed links between all members."""

    def __init__(self, dice: random.Random, later: Callable[..., None], counts: "Counter[str]") -> None:
        self.weather = Weather()
        self._dice = dice
        self._later = later
        self._counts = counts
        self._cut: set[tuple[int, int]] = set()

    def cut(self, senders: Iterable[int], receivers: Iterable[int]) -> None:
        """Let nothing through from ``senders`` to ``receivers``."""
        receivers = list(receivers)
        self._cut |= {(sender, receiver) for sender in senders for receiver in receivers if sender != receiver}

    def heal(self) -> None:
        """Let everything through again."""
        self._cut.clear()

    def send(self, sender: int, message: Message, deliver: Callable[[Message], Any]) -> bool:
        """Take ``message`` from ``sender``; whether it will arrive. It may arrive even if its receiver is down then."""
        dice, weather = self._dice, self.weather
        if (sender, message.to) in self._cut:
            self._counts["message cut off"] += 1
            return False
        if dice.random() < weather.loss:
            self._counts["message lost"] += 1
            return False
        self._later(self._delay(), deliver, message)
        if dice.random() < weather.duplication and type(message) is not MsgProp:
            self._counts["message duplicated"] += 1
            self._later(self._delay(), deliver, message)
        return True

    def _delay(self) -> float:
        dice, weather = self._dice, self.weather
        if dice.random() < weather.straggling:
            self._counts["message delayed for long"] += 1
            return dice.random() * 40
        return dice.random() * weather.delay
