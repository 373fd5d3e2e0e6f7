"""The gRPC service ``knarr.cluster.v1.Cluster``: who calls, may they, and the registry's answer. Protocol only."""

import asyncio
import functools
import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message

from control.api import errors
from control.api.decode import class_of
from control.api.kinds import KINDS, Kind, UnknownKind, by_kind, by_message, by_name
from control.apiserver import pods
from control.apiserver.authorization import Attributes, authorize
from control.apiserver.cache import pack
from control.apiserver.identity import User, user_of
from control.apiserver.reading import Event, Listing, select
from control.apiserver.registry import DeleteOptions, Registry
from control.apiserver.relay import NodeRelay
from control.apiserver.wire import abort
from protos.k8s.autoscaling_v1_pb2 import Scale
from protos.knarr import cluster_pb2 as pb
from protos.knarr import stream_pb2 as stream
from protos.knarr.cluster_pb2_grpc import ClusterServicer

log = logging.getLogger(__name__)

SERVICE = "knarr.cluster.v1.Cluster"
KUBERNETES = "v1.36"
WATCH_S_MIN, WATCH_S_MAX = 1800.0, 3600.0
PODS = by_name("pods")

PATCH_TYPES = {
    pb.PatchRequest.JSON: "json",
    pb.PatchRequest.MERGE: "merge",
    pb.PatchRequest.STRATEGIC: "strategic",
    pb.PatchRequest.APPLY: "apply",
}
PROPAGATION = {
    pb.DeleteOptions.PROPAGATION_UNSPECIFIED: "",
    pb.DeleteOptions.BACKGROUND: "Background",
    pb.DeleteOptions.FOREGROUND: "Foreground",
    pb.DeleteOptions.ORPHAN: "Orphan",
}
EVENT_TYPES: dict[str, Any] = {
    name: pb.WatchEvent.Type.Value(name) for name in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")
}


def knarr_version() -> str:
    """The installed distribution's version."""
    try:
        return version("knarr")
    except PackageNotFoundError:
        return "0"


Handler = Callable[[Any, Any, grpc.aio.ServicerContext], Awaitable[Any]]


def answering(handler: Handler) -> Handler:
    """Turn the ApiErrors of a unary handler into answers; anything else is logged and answered INTERNAL."""

    @functools.wraps(handler)
    async def answer(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await handler(self, request, context)
        except errors.ApiError as err:
            await abort(context, err)

    return answer


def streaming(handler: Callable[[Any, Any, grpc.aio.ServicerContext], AsyncGenerator[Any, None]]) -> Any:
    """The same for a handler that streams."""

    @functools.wraps(handler)
    async def answer(self: Any, request: Any, context: grpc.aio.ServicerContext) -> AsyncGenerator[Any, None]:
        try:
            async with aclosing(handler(self, request, context)) as messages:
                async for message in messages:
                    yield message
        except errors.ApiError as err:
            await abort(context, err)

    return answer


class Cluster(ClusterServicer):
    """See protos/knarr/cluster.proto, which is the contract."""

    def __init__(self, registry: Registry, relay: NodeRelay) -> None:
        self._registry, self._relay = registry, relay

    @answering
    async def Get(self, request: pb.GetRequest, context: grpc.aio.ServicerContext) -> pb.Object:
        """One object or its Scale."""
        kind = _kind(request.type)
        _authorized(context, "get", kind, request.namespace, request.name, request.subresource)
        if request.subresource == "scale":
            return _object(await self._registry.get_scale(kind, request.namespace, request.name))
        if request.subresource not in ("", "status"):
            raise errors.MethodNotAllowed(f"{kind.resource}/{request.subresource} cannot be read with Get")
        return _object(await self._registry.get(kind, request.namespace, request.name))

    @answering
    async def List(self, request: pb.ListRequest, context: grpc.aio.ServicerContext) -> pb.ListResponse:
        """Objects of a kind."""
        kind = _kind(request.type)
        _authorized(context, "list", kind, request.namespace)
        if request.limit < 0:
            raise errors.BadRequest(f"limit must not be negative, got {request.limit}")
        chosen = select(kind, request.namespace, request.label_selector, request.field_selector)
        return _listing(
            await self._registry.list(chosen, request.limit, request.continue_token, request.resource_version)
        )

    @streaming
    async def Watch(
        self, request: pb.WatchRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[pb.WatchEvent, None]:
        """Changes of a kind, until the time is over."""
        kind = _kind(request.type)
        _authorized(context, "watch", kind, request.namespace)
        chosen = select(kind, request.namespace, request.label_selector, request.field_selector)
        limit_s = float(request.timeout_seconds) or random.uniform(WATCH_S_MIN, WATCH_S_MAX)
        events = self._registry.watch(
            chosen, request.resource_version, request.allow_bookmarks, request.send_initial_events
        )
        try:
            async with asyncio.timeout(limit_s), aclosing(events) as stream_of_events:
                async for event in stream_of_events:
                    yield _watch_event(event)
        except TimeoutError:
            return

    @answering
    async def Create(self, request: pb.CreateRequest, context: grpc.aio.ServicerContext) -> pb.Object:
        """A new object."""
        obj, kind = _unpacked(request.object)
        namespace = request.namespace or obj.metadata.namespace
        user = _authorized(context, "create", kind, namespace, obj.metadata.name)
        return _object(await self._registry.create(obj, request.namespace, user, request.dry_run))

    @answering
    async def Update(self, request: pb.UpdateRequest, context: grpc.aio.ServicerContext) -> pb.Object:
        """An object, its status or its scale replaced."""
        if request.subresource == "scale":
            return await self._update_scale(request, context)
        obj, kind = _unpacked(request.object)
        name, namespace = obj.metadata.name, obj.metadata.namespace
        user = _authorized(context, "update", kind, namespace, name, request.subresource)
        return _object(await self._registry.update(obj, request.subresource, user, request.dry_run))

    async def _update_scale(self, request: pb.UpdateRequest, context: grpc.aio.ServicerContext) -> pb.Object:
        kind, scale = _kind(request.type), Scale()
        if not request.object.Unpack(scale):
            raise errors.BadRequest(f"subresource scale takes an autoscaling/v1 Scale, got {request.object.type_url!r}")
        user = _authorized(context, "update", kind, scale.metadata.namespace, scale.metadata.name, "scale")
        return _object(await self._registry.update_scale(kind, scale, user, request.dry_run))

    @answering
    async def Patch(self, request: pb.PatchRequest, context: grpc.aio.ServicerContext) -> pb.Object:
        """Part of an object changed."""
        kind = _kind(request.type)
        user = _authorized(context, "patch", kind, request.namespace, request.name, request.subresource)
        patch_type = PATCH_TYPES.get(request.patch_type)
        if patch_type is None:
            raise errors.BadRequest("patch_type is not set: use JSON, MERGE or STRATEGIC")
        try:
            body = json.loads(request.patch)
        except ValueError as err:
            raise errors.BadRequest(f"the patch is not JSON: {err}") from err
        return _object(
            await self._registry.patch(
                kind, request.namespace, request.name, patch_type, body, request.subresource, user, request.dry_run
            )
        )

    @answering
    async def Delete(self, request: pb.DeleteRequest, context: grpc.aio.ServicerContext) -> pb.DeleteResponse:
        """An object removed, or marked."""
        kind = _kind(request.type)
        user = _authorized(context, "delete", kind, request.namespace, request.name)
        options = _options(request.options)
        obj, gone = await self._registry.delete(kind, request.namespace, request.name, options, user)
        return pb.DeleteResponse(object=pack(obj), gone=gone)

    @answering
    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListResponse:
        """Every object that the selectors choose."""
        kind = _kind(request.type)
        user = _authorized(context, "deletecollection", kind, request.namespace)
        chosen = select(kind, request.namespace, request.label_selector, request.field_selector)
        return _listing(await self._registry.delete_collection(chosen, _options(request.options), user))

    @answering
    async def Bind(self, request: pb.BindRequest, context: grpc.aio.ServicerContext) -> pb.BindResponse:
        """A pod assigned to a node."""
        user = _authorized(context, "create", PODS, request.namespace, request.pod, "binding")
        await pods.bind(self._registry, request.namespace, request.pod, request.node, request.uid, user)
        return pb.BindResponse()

    @answering
    async def Evict(self, request: pb.EvictRequest, context: grpc.aio.ServicerContext) -> pb.EvictResponse:
        """A pod deleted, if its budgets allow."""
        user = _authorized(context, "create", PODS, request.namespace, request.pod, "eviction")
        await pods.evict(self._registry, request.namespace, request.pod, _options(request.options), user)
        return pb.EvictResponse()

    @streaming
    async def Log(
        self, request: stream.LogRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[stream.LogChunk, None]:
        """A container's log, from its node."""
        target = request.target
        _authorized(context, "get", PODS, target.namespace, target.pod, "log")
        async for chunk in self._relay.log(request):
            yield chunk

    @streaming
    async def Exec(
        self, request_iterator: AsyncIterator[stream.ExecRequest], context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[stream.StreamResponse, None]:
        """A command in a container, on its node."""
        first = await _first(request_iterator, "start")
        target = first.start.target
        _authorized(context, "create", PODS, target.namespace, target.pod, "exec")
        async for message in self._relay.exec(first, request_iterator):
            yield message

    @streaming
    async def Attach(
        self, request_iterator: AsyncIterator[stream.AttachRequest], context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[stream.StreamResponse, None]:
        """The first process of a container, on its node."""
        first = await _first(request_iterator, "start")
        target = first.start.target
        _authorized(context, "create", PODS, target.namespace, target.pod, "attach")
        async for message in self._relay.attach(first, request_iterator):
            yield message

    @streaming
    async def PortForward(
        self, request_iterator: AsyncIterator[stream.PortForwardRequest], context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[stream.PortForwardResponse, None]:
        """One TCP connection to a pod, through its node."""
        first = await _first(request_iterator, "start")
        _authorized(context, "create", PODS, first.start.namespace, first.start.pod, "portforward")
        async for message in self._relay.port_forward(first, request_iterator):
            yield message

    @answering
    async def Resources(self, request: pb.ResourcesRequest, context: grpc.aio.ServicerContext) -> pb.ResourcesResponse:
        """The kinds table."""
        user_of(context.auth_context())
        return pb.ResourcesResponse(resources=[_resource(kind) for kind in KINDS])

    @answering
    async def Version(self, request: pb.VersionRequest, context: grpc.aio.ServicerContext) -> pb.VersionResponse:
        """Ours, and Kubernetes'."""
        user_of(context.auth_context())
        return pb.VersionResponse(version=knarr_version(), kubernetes=KUBERNETES)


def _authorized(
    context: grpc.aio.ServicerContext, verb: str, kind: Kind, namespace: str, name: str = "", subresource: str = ""
) -> User:
    """The caller, who may do this. Raises Unauthorized, Forbidden."""
    user = user_of(context.auth_context())
    resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
    authorize(user, Attributes(verb, resource, kind.group, namespace, name))
    return user


def _kind(type_: pb.TypeRef) -> Kind:
    try:
        return by_kind(type_.api_version, type_.kind)
    except UnknownKind as err:
        raise errors.BadRequest(str(err)) from err


def _unpacked(packed: AnyMessage) -> tuple[Any, Kind]:
    """The object in an Any, and its kind. Raises BadRequest."""
    name = packed.type_url.rpartition("/")[2]
    try:
        obj = class_of(name).FromString(packed.value)
        return obj, by_message(obj)
    except KeyError as err:
        raise errors.BadRequest(f"the object has unknown type {packed.type_url!r}; Resources lists the types") from err
    except UnknownKind as err:
        raise errors.BadRequest(str(err)) from err
    except ProtobufError as err:
        raise errors.BadRequest(f"the object is not a {name}: {err}") from err


def _object(obj: Message) -> pb.Object:
    return pb.Object(object=pack(obj))


def _listing(listing: Listing) -> pb.ListResponse:
    return pb.ListResponse(
        items=[pack(item) for item in listing.items],
        resource_version=str(listing.revision),
        continue_token=listing.continue_token,
        remaining_item_count=listing.remaining,
    )


def _watch_event(event: Event) -> pb.WatchEvent:
    packed = None
    if event.change is not None:
        packed = event.change.packed(deleted=event.type == "DELETED")
    elif event.initial is not None:
        packed = pack(event.initial)
    return pb.WatchEvent(
        type=EVENT_TYPES[event.type],
        object=packed,
        resource_version=str(event.revision),
        initial_events_end=event.initial_end,
    )


def _options(options: pb.DeleteOptions) -> DeleteOptions:
    return DeleteOptions(
        grace_s=options.grace_period_seconds if options.HasField("grace_period_seconds") else None,
        propagation=PROPAGATION.get(options.propagation, ""),
        uid=options.uid,
        resource_version=options.resource_version,
        dry_run=options.dry_run,
    )


def _resource(kind: Kind) -> pb.Resource:
    return pb.Resource(
        type=pb.TypeRef(api_version=kind.api_version, kind=kind.kind),
        plural=kind.plural,
        singular=kind.singular,
        short_names=kind.short_names,
        namespaced=kind.namespaced,
        subresources=kind.subresources,
        categories=kind.categories,
        message=kind.message.DESCRIPTOR.full_name,
    )


async def _first(requests: AsyncIterator[Any], member: str) -> Any:
    """The first message of a stream, which must be its start. Raises BadRequest."""
    async for request in requests:
        if request.WhichOneof("message") == member:
            return request
        break
    raise errors.BadRequest("the first message of the stream must be start")
