"""A watch as HTTP: one JSON event per line, flushed one by one, until the time is over or the client goes."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from control.api import errors
from control.api.codec import to_json
from control.api.kinds import Kind
from control.apiserver.reading import Event
from control.apiserver.rest.answers import dumps, status_json
from control.apiserver.rest.negotiation import JSON, Form
from control.apiserver.rest.tables import partial, table

LIMIT_S_MIN, LIMIT_S_MAX = 1800.0, 3600.0
INITIAL_END = {"k8s.io/initial-events-end": "true"}


class Renderer:
    """Turns the events of one watch into JSON; a table's columns are told once."""

    def __init__(self, kind: Kind, form: Form, include: str) -> None:
        self._kind, self._form, self._include, self._columns = kind, form, include, True

    def render(self, event: Event) -> dict[str, Any]:
        """``{"type", "object"}`` of an event."""
        if event.type == "BOOKMARK":
            return {"type": "BOOKMARK", "object": self._bookmark(event)}
        obj = event.initial
        if event.change is not None:
            obj = event.change.last() if event.type == "DELETED" else event.change.now
        return {"type": event.type, "object": self._object(obj)}

    def _bookmark(self, event: Event) -> dict[str, Any]:
        metadata: dict[str, Any] = {"resourceVersion": str(event.revision), "creationTimestamp": None}
        if event.initial_end:
            metadata["annotations"] = INITIAL_END
        return {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": metadata}

    def _object(self, obj: Any) -> dict[str, Any]:
        if self._form.transform == "Table":
            metadata = {"resourceVersion": obj.metadata.resourceVersion}
            told, self._columns = self._columns, False
            return table(self._kind, [obj], time.time(), self._include, metadata, columns=told)
        return partial(obj) if self._form.transform else to_json(obj)


async def stream_events(
    request: web.Request, events: AsyncGenerator[Event, None], renderer: Renderer, timeout_s: float
) -> web.StreamResponse:
    """Answer ``request`` with ``events``; a failure on the way is the last event, type ERROR."""
    response = web.StreamResponse(headers={"Content-Type": JSON, "Cache-Control": "no-cache, private"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        limit_s = timeout_s or random.uniform(LIMIT_S_MIN, LIMIT_S_MAX)
        async with asyncio.timeout(limit_s), aclosing(events) as stream:
            async for event in stream:
                await response.write(dumps(renderer.render(event)) + b"\n")
    except TimeoutError:
        pass
    except errors.ApiError as err:
        await response.write(dumps({"type": "ERROR", "object": status_json(err)}) + b"\n")
    except ConnectionResetError:
        return response
    await response.write_eof()
    return response
