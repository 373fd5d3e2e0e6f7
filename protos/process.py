"""What every knarr process shares, whatever it serves: flags, logs, signals and exit codes.

No gRPC here, so that a process without it does not load it.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterable
from typing import Any

log = logging.getLogger("knarr")

DRAIN_S = 5.0
"""How long a stopping server lets running calls finish, seconds."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that every service has."""
    parser.add_argument(
        "--log-format", choices=["text", "json"], default="text", help="one line of text or of JSON per event"
    )
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="least severe event that is logged",
    )


def configure_logging(component: str, log_format: str = "text", level: str = "info") -> None:
    """Log to stderr, one line per event, fields of ``extra=`` after the message. ``component`` names the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter(component) if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("pyroute2").setLevel(logging.WARNING)


_STANDARD = set(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.123Z INFO raftstore.member became leader member=1 term=4``"""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname} {record.name} {record.getMessage()}"
        line += "".join(f" {key}={_plain(value)}" for key, value in _fields(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: Any) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c.isspace() or c in '"=' for c in text) else text


class JSONFormatter(logging.Formatter):
    """One JSON object per line: ts, level, component, logger, msg and the event's fields."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        event = {
            "ts": record.created,
            "level": record.levelname.lower(),
            "component": self.component,
            "logger": record.name,
            "msg": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


def run(service: Coroutine[Any, Any, None]) -> None:
    """Run a ``serve`` coroutine as this process's whole work.

    Exits 0 after SIGTERM or SIGINT, 1 with one line on stderr when the service cannot start or fails.
    """
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signalled(service))
    except OSError as err:
        sys.exit(f"error: {err}")
    except BaseExceptionGroup as group:
        errors = [err for err in _leaves(group) if isinstance(err, OSError)]
        if not errors or len(errors) != len(list(_leaves(group))):
            raise
        sys.exit("error: " + "; ".join(str(err) for err in errors))


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for err in group.exceptions:
        if isinstance(err, BaseExceptionGroup):
            yield from _leaves(err)
        else:
            yield err


async def _until_signalled(service: Coroutine[Any, Any, None]) -> None:
    work = asyncio.ensure_future(service)
    loop = asyncio.get_running_loop()
    stopped = False

    def stop(name: str) -> None:
        nonlocal stopped
        stopped = True
        log.info("stopping", extra={"signal": name})
        work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    try:
        await work
    except asyncio.CancelledError:
        if not stopped:
            raise


def require_root(program: str) -> None:
    """Exit with a sentence unless this process is root."""
    if os.geteuid() != 0:
        sys.exit(f"error: {program} needs root (namespaces, mounts, cgroups and network devices): run it with sudo")
