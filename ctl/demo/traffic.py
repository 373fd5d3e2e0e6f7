"""HTTP requests to the demo's service: one by one, or without pause in the background."""

import http.client
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

TIMEOUT_S = 5.0
PAUSE_S = 0.02


def hit(host: str, port: int) -> str:
    """One request on a connection of its own; returns the body. Raises OSError, HTTPException."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read().decode().strip()
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
        return body
    finally:
        connection.close()


class Traffic:
    """Asks and asks while the block runs. ``answers`` counts bodies, ``failures`` what went wrong."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            began = time.strftime("%H:%M:%S")
            try:
                self.answers[hit(self._host, self._port)] += 1
            except (OSError, http.client.HTTPException) as err:
                self.failures.append(f"{began} {type(err).__name__}: {err}")
            self._over.wait(PAUSE_S)

    def settle(self, requests: int, deadline_s: float = 10.0) -> bool:
        """Wait until that many more requests are over. False when they are not in time."""
        aim, ends = self.total + requests, time.monotonic() + deadline_s
        while self.total < aim and time.monotonic() < ends:
            time.sleep(PAUSE_S)
        return self.total >= aim

    @property
    def total(self) -> int:
        """Requests made."""
        return sum(self.answers.values()) + len(self.failures)
