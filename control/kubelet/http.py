"""The node's HTTP client, for probes, hooks and the runtime's streams: made at its first use.

Most nodes run long before they need one, and the library is the largest part of a kubelet that does not.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import aiohttp


class Http:
    """An HTTP client without limits, pooling or decompression. An async context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def get(self, url: str, **options: Any) -> Any:
        """See aiohttp's ClientSession. Raises http_error(), OSError."""
        return self._opened().get(url, **options)

    def ws_connect(self, url: str, **options: Any) -> Any:
        """See aiohttp's ClientSession. Raises http_error(), OSError."""
        return self._opened().ws_connect(url, **options)

    def _opened(self) -> "aiohttp.ClientSession":
        import aiohttp

        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session


def http_error() -> type[Exception]:
    """What the client raises, for an except clause; evaluated only when something was raised."""
    import aiohttp

    return aiohttp.ClientError
