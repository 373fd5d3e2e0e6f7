"""The typed client of the cluster API: one method per verb, objects in, objects out, ApiErrors raised."""

import builtins
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from control.api.errors import Unavailable
from control.api.kinds import by_message
from control.client.config import read_target
from control.client.wire import to_api_error
from protos.k8s.autoscaling_v1_pb2 import Scale
from protos.knarr import cluster_pb2 as pb
from protos.knarr.cluster_pb2_grpc import ClusterStub
from protos.knarr.stream_pb2 import LogChunk, LogRequest
from protos.serving import TLS, open_channel

T = TypeVar("T", bound=Message)

TIMEOUT_S = 30.0
"""How long a unary call may take, seconds."""

PATCH_TYPES = {
    "json": pb.PatchRequest.JSON,
    "merge": pb.PatchRequest.MERGE,
    "strategic": pb.PatchRequest.STRATEGIC,
    "apply": pb.PatchRequest.APPLY,
}
PROPAGATION = {
    "": pb.DeleteOptions.PROPAGATION_UNSPECIFIED,
    "Background": pb.DeleteOptions.BACKGROUND,
    "Foreground": pb.DeleteOptions.FOREGROUND,
    "Orphan": pb.DeleteOptions.ORPHAN,
}


@dataclass
class Page(Generic[T]):
    """One answer of list. Watch from ``resource_version``; ``continue_token`` asks for the next page."""

    items: list[T]
    resource_version: str
    continue_token: str = ""
    remaining_item_count: int = 0


@dataclass
class WatchEvent(Generic[T]):
    """One change. ``type``: ADDED, MODIFIED, DELETED, or BOOKMARK (no object, everything up to the version was sent).

    ``initial_events_end`` marks the bookmark after the existing objects, when those were asked for.
    """

    type: str
    object: T
    resource_version: str
    initial_events_end: bool = field(default=False)


class Client:
    """A connection to the apiserver.

    Args:
        server: ``host:port``.
        tls: our certificate, key and the cluster's CA; None for plaintext.
        timeout_s: limit of each unary call.
        field_manager: who writes, for managedFields.

    Every method raises ``control.client.errors.ApiError``; Unavailable when nothing answers.
    """

    def __init__(
        self, server: str, tls: TLS | None = None, timeout_s: float = TIMEOUT_S, field_manager: str = ""
    ) -> None:
        self.server = server
        self._timeout_s = timeout_s
        self._field_manager = field_manager
        self._channel = open_channel(server, tls)
        self._stub = ClusterStub(self._channel)

    @classmethod
    def from_config(cls, path: Path, context: str | None = None) -> Self:
        """A client for a context of a config file. Raises ConfigError, OSError."""
        target = read_target(path, context)
        return cls(target.server, target.tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; running calls and watches end."""
        await self._channel.close()

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, cls: type[T], name: str, namespace: str = "") -> T:
        """One object. Raises NotFound."""
        request = pb.GetRequest(type=_type(cls), namespace=namespace, name=name)
        answer = await self._call(self._stub.Get, request)
        return _unpack(cls, answer.object)

    async def list(
        self,
        cls: type[T],
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
    ) -> Page[T]:
        """The objects of a kind in key order; ``namespace`` None or "" means all. Raises Expired for an old token."""
        request = pb.ListRequest(
            type=_type(cls),
            namespace=namespace or "",
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            continue_token=continue_token,
            resource_version=resource_version,
        )
        answer = await self._call(self._stub.List, request)
        return _page(cls, answer)

    async def watch(
        self,
        cls: type[T],
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        allow_bookmarks: bool = True,
        send_initial_events: bool = False,
        timeout_seconds: int = 0,
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Changes after ``resource_version``; without one, every existing object first. Ends when the server ends it.

        Leave early with ``contextlib.aclosing``, so that the call ends at once. Raises Expired: list again.
        """
        request = pb.WatchRequest(
            type=_type(cls),
            namespace=namespace or "",
            label_selector=label_selector,
            field_selector=field_selector,
            resource_version=resource_version,
            allow_bookmarks=allow_bookmarks,
            send_initial_events=send_initial_events,
            timeout_seconds=timeout_seconds,
        )
        async for event in self._stream(self._stub.Watch(request)):
            yield _event(cls, event)

    # -- writing -------------------------------------------------------------------------------------------------

    async def create(self, obj: T, dry_run: bool = False, namespace: str = "") -> T:
        """Store a new object and return it as stored. Raises AlreadyExists, Invalid."""
        request = pb.CreateRequest(
            object=_pack(obj), namespace=namespace, dry_run=dry_run, field_manager=self._field_manager
        )
        return _unpack(type(obj), (await self._call(self._stub.Create, request)).object)

    async def update(self, obj: T, dry_run: bool = False) -> T:
        """Replace an object. Raises Conflict when its resourceVersion is no longer the current one."""
        return await self._update(obj, "", dry_run)

    async def update_status(self, obj: T, dry_run: bool = False) -> T:
        """Replace only the status of an object. Raises Conflict likewise."""
        return await self._update(obj, "status", dry_run)

    async def _update(self, obj: T, subresource: str, dry_run: bool) -> T:
        request = pb.UpdateRequest(
            object=_pack(obj), subresource=subresource, dry_run=dry_run, field_manager=self._field_manager
        )
        return _unpack(type(obj), (await self._call(self._stub.Update, request)).object)

    async def patch(
        self,
        cls: type[T],
        name: str,
        patch: Any,
        namespace: str = "",
        patch_type: str = "merge",
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> T:
        """Change part of an object. ``patch`` is a dict, or for "json" a list of operations.

        ``patch_type``: merge (RFC 7386), json (RFC 6902), strategic, apply. ``subresource``: "", status or scale.
        """
        request = pb.PatchRequest(
            type=_type(cls),
            namespace=namespace,
            name=name,
            subresource=subresource,
            patch_type=PATCH_TYPES[patch_type],
            patch=json.dumps(patch).encode(),
            dry_run=dry_run,
            field_manager=field_manager or self._field_manager,
            force=force,
        )
        answer = await self._call(self._stub.Patch, request)
        return _unpack(Scale if subresource == "scale" else cls, answer.object)  # type: ignore[return-value]

    async def delete(
        self,
        cls: type[T],
        name: str,
        namespace: str = "",
        grace_period_seconds: int | None = None,
        propagation: str = "",
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> T:
        """Delete an object; returns it marked for deletion or as it was last. Raises NotFound, Conflict."""
        options = _delete_options(grace_period_seconds, propagation, uid, resource_version, dry_run)
        request = pb.DeleteRequest(type=_type(cls), namespace=namespace, name=name, options=options)
        return _unpack(cls, (await self._call(self._stub.Delete, request)).object)

    async def delete_collection(
        self,
        cls: type[T],
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        grace_period_seconds: int | None = None,
        propagation: str = "",
    ) -> Page[T]:
        """Delete everything that a list with the same selectors returns; returns what was deleted or marked."""
        request = pb.DeleteCollectionRequest(
            type=_type(cls),
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            options=_delete_options(grace_period_seconds, propagation),
        )
        answer = await self._call(self._stub.DeleteCollection, request)
        return _page(cls, answer)

    # -- subresources --------------------------------------------------------------------------------------------

    async def get_scale(self, cls: type[Message], name: str, namespace: str = "") -> Scale:
        """How many replicas a workload wants and has."""
        request = pb.GetRequest(type=_type(cls), namespace=namespace, name=name, subresource="scale")
        return _unpack(Scale, (await self._call(self._stub.Get, request)).object)

    async def update_scale(self, cls: type[Message], scale: Scale, dry_run: bool = False) -> Scale:
        """Set spec.replicas of the workload that ``scale.metadata`` names. Raises Conflict."""
        request = pb.UpdateRequest(
            object=_pack(scale),
            subresource="scale",
            type=_type(cls),
            dry_run=dry_run,
            field_manager=self._field_manager,
        )
        return _unpack(Scale, (await self._call(self._stub.Update, request)).object)

    async def bind(self, namespace: str, pod: str, node: str, uid: str = "") -> None:
        """Assign a pod to a node. Raises Conflict when it has one, or is another pod than ``uid``."""
        await self._call(self._stub.Bind, pb.BindRequest(namespace=namespace, pod=pod, uid=uid, node=node))

    async def evict(self, namespace: str, pod: str, grace_period_seconds: int | None = None) -> None:
        """Delete a pod if its disruption budgets allow. Raises TooManyRequests if they do not now."""
        options = _delete_options(grace_period_seconds)
        await self._call(self._stub.Evict, pb.EvictRequest(namespace=namespace, pod=pod, options=options))

    async def log(self, request: LogRequest) -> AsyncGenerator[LogChunk, None]:
        """A container's log, in chunks as they come (``chunk.data``)."""
        async for chunk in self._stream(self._stub.Log(request)):
            yield chunk

    def exec(self) -> Any:
        """A grpc stream-stream call of ExecRequest and StreamResponse; its failures are grpc's, see ``api_error``."""
        return self._stub.Exec()

    def attach(self) -> Any:
        """A grpc stream-stream call of AttachRequest and StreamResponse."""
        return self._stub.Attach()

    def port_forward(self) -> Any:
        """A grpc stream-stream call of PortForwardRequest and PortForwardResponse: one TCP connection."""
        return self._stub.PortForward()

    def api_error(self, err: grpc.aio.AioRpcError) -> Exception:
        """The ApiError of a failed exec, attach or port_forward call."""
        return to_api_error(err, self.server)

    # -- the server ----------------------------------------------------------------------------------------------

    async def resources(self) -> "builtins.list[pb.Resource]":
        """The kinds this server serves."""
        return list((await self._call(self._stub.Resources, pb.ResourcesRequest())).resources)

    async def version(self) -> pb.VersionResponse:
        """The server's version."""
        return await self._call(self._stub.Version, pb.VersionRequest())

    # -- calls ---------------------------------------------------------------------------------------------------

    async def _call(self, method: Any, request: Message) -> Any:
        try:
            call: Awaitable[Any] = method(request, timeout=self._timeout_s)
            return await call
        except grpc.aio.AioRpcError as err:
            raise to_api_error(err, self.server) from err
        except grpc.aio.UsageError as err:
            raise Unavailable(f"the client of {self.server} is closed") from err

    async def _stream(self, call: Any) -> AsyncIterator[Any]:
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as err:
            raise to_api_error(err, self.server) from err
        finally:
            call.cancel()


def _type(cls: type[Message]) -> pb.TypeRef:
    kind = by_message(cls)
    return pb.TypeRef(api_version=kind.api_version, kind=kind.kind)


def _pack(obj: Message) -> AnyMessage:
    return AnyMessage(
        type_url=f"type.googleapis.com/{obj.DESCRIPTOR.full_name}", value=obj.SerializeToString(deterministic=True)
    )


def _unpack(cls: type[T], packed: AnyMessage) -> T:
    return cls.FromString(packed.value)


def _page(cls: type[T], answer: pb.ListResponse) -> Page[T]:
    items = [_unpack(cls, item) for item in answer.items]
    return Page(items, answer.resource_version, answer.continue_token, answer.remaining_item_count)


def _event(cls: type[T], event: pb.WatchEvent) -> WatchEvent[T]:
    name = pb.WatchEvent.Type.Name(event.type)
    return WatchEvent(name, _unpack(cls, event.object), event.resource_version, event.initial_events_end)


def _delete_options(
    grace_period_seconds: int | None,
    propagation: str = "",
    uid: str = "",
    resource_version: str = "",
    dry_run: bool = False,
) -> pb.DeleteOptions:
    return pb.DeleteOptions(
        grace_period_seconds=grace_period_seconds,
        propagation=PROPAGATION[propagation],
        uid=uid,
        resource_version=resource_version,
        dry_run=dry_run,
    )
