"""Objects, lists, tables and errors as HTTP bodies, in the form that the client accepts."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from google.protobuf.message import Message

from control.api import errors
from control.api.codec import to_envelope, to_json, to_yaml
from control.api.encode import encode
from control.api.kinds import Kind
from control.api.status import to_status
from control.apiserver.reading import Listing
from control.apiserver.rest.negotiation import JSON, PROTOBUF, YAML, Form
from control.apiserver.rest.tables import partial, table
from protos.k8s.meta_v1_pb2 import Status

NO_CACHE = {"Cache-Control": "no-cache, private"}


def dumps(data: Any) -> bytes:
    """Compact JSON text."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def document(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON body."""
    return web.Response(body=dumps(data), status=status, content_type=JSON, headers={**NO_CACHE, **(headers or {})})


def failure(err: errors.ApiError) -> web.Response:
    """A Status body with the error's code; Retry-After when it says when."""
    headers = {}
    if err.details.retry_after_seconds:
        headers["Retry-After"] = str(err.details.retry_after_seconds)
    return document(status_json(err), err.code, headers)


def status_json(err: errors.ApiError) -> dict[str, Any]:
    """The Status of an error."""
    return {"kind": "Status", "apiVersion": "v1", **encode(to_status(err))}


def success(kind: Kind, name: str, uid: str = "", code: int = 200) -> web.Response:
    """The Status that says done."""
    status = Status(status="Success", code=code)
    status.details.name, status.details.group, status.details.kind = name, kind.group, kind.plural
    status.details.uid = uid
    return document(to_json(status), code)


def one(
    kind: Kind, obj: Message, form: Form, include: str, code: int = 200, warnings: Sequence[str] = ()
) -> web.Response:
    """One object. Warnings become headers."""
    if form.encoding == PROTOBUF:
        response = web.Response(body=to_envelope(obj), status=code, content_type=PROTOBUF)
    elif form.encoding == YAML:
        response = web.Response(body=to_yaml(obj).encode(), status=code, content_type=YAML)
    else:
        response = document(_object(kind, obj, form, include), code)
    for text in warnings:
        response.headers.add("Warning", f"299 - {json.dumps(text)}")
    return response


def _object(kind: Kind, obj: Any, form: Form, include: str) -> dict[str, Any]:
    if form.transform == "Table" and isinstance(obj, kind.message):
        version = {"resourceVersion": obj.metadata.resourceVersion}
        return table(kind, [obj], time.time(), include, version)
    return partial(obj) if form.transform else to_json(obj)


def listing(kind: Kind, found: Listing, form: Form, include: str) -> web.Response:
    """A list."""
    metadata: dict[str, Any] = {"resourceVersion": str(found.revision)}
    if found.continue_token:
        metadata["continue"] = found.continue_token
    if found.remaining:
        metadata["remainingItemCount"] = found.remaining
    if form.encoding == PROTOBUF:
        return web.Response(body=to_envelope(_list_message(kind, found)), content_type=PROTOBUF)
    if form.transform == "Table":
        return document(table(kind, found.items, time.time(), include, metadata))
    if form.transform:
        items = [partial(item) for item in found.items]
        named = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        return document({**named, "metadata": metadata, "items": items})
    named = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version}
    data = {**named, "metadata": metadata, "items": [encode(item) for item in found.items]}
    if form.encoding == YAML:
        return web.Response(body=to_yaml(data).encode(), content_type=YAML)
    return document(data)


def _list_message(kind: Kind, found: Listing) -> Any:
    message = kind.list_message()
    message.metadata.resourceVersion = str(found.revision)
    if found.continue_token:
        setattr(message.metadata, "continue", found.continue_token)
    if found.remaining:
        message.metadata.remainingItemCount = found.remaining
    message.items.extend(found.items)
    return message
