"""As much HTTP/1.1 as a server needs that only upgrades connections: read one request's head, answer it.

Source: RFC 9112. A library's server would own the socket, and the upgrade to SPDY needs it.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

HEAD_BYTES = 64 << 10
"""The longest head that is read: the connection's read limit, see :func:`asyncio.start_server`."""


class BadRequest(Exception):
    """The bytes are no HTTP/1.1 request."""


@dataclass(frozen=True)
class Request:
    """A request's head. Header names are lower case; a repeated header keeps all its lines."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]]

    def values(self, name: str) -> list[str]:
        """The elements of a list header, over all its lines."""
        lines = [value for header, value in self.headers if header == name]
        return [element.strip() for line in lines for element in line.split(",") if element.strip()]

    def value(self, name: str) -> str:
        """The last value of a header, or the empty string."""
        return next((value for header, value in reversed(self.headers) if header == name), "")

    def has(self, name: str, token: str) -> bool:
        """Whether a list header has ``token``, whatever its case."""
        return token.lower() in (value.lower() for value in self.values(name))


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request's head; None when the client left without one. Raises BadRequest."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as err:
        raise BadRequest("the request's head is too long") from err
    return parse_head(head)


def parse_head(head: bytes) -> Request:
    """Decode a request line and its headers. Raises BadRequest."""
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    try:
        method, target, version = first.split(" ")
        headers = [_header(line) for line in lines]
    except ValueError as err:
        raise BadRequest("malformed request line or header") from err
    if not version.startswith("HTTP/1."):
        raise BadRequest(f"{version} is not HTTP/1.1")
    return Request(method, target.partition("?")[0], headers)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise ValueError(line)
    return name.lower(), value.strip()


def response(status: int, headers: Iterable[tuple[str, str]] = (), body: str = "") -> bytes:
    """An answer. One that does not switch protocols closes the connection."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if status != HTTPStatus.SWITCHING_PROTOCOLS:
        lines += ["Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body.encode())}"]
        lines += ["Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
