"""HTTP to verbs: who calls, what the path names, may they, and the registry's answer in the form they accept."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from control.api import errors
from control.api.codec import DecodeError, from_envelope, from_json
from control.api.kinds import Kind, by_name
from control.api.times import parse_rfc3339
from control.apiserver import pods
from control.apiserver.authorization import Attributes, authorize
from control.apiserver.identity import LOCAL, User, user_of_der
from control.apiserver.reading import select
from control.apiserver.registry import DeleteOptions, Registry
from control.apiserver.relay import NodeRelay
from control.apiserver.rest import answers, bodies, discovery, openapi, paths
from control.apiserver.rest.negotiation import PROTOBUF, Form, negotiate, wants_aggregated
from control.apiserver.rest.paths import Target
from control.apiserver.rest.streams import stream_channels
from control.apiserver.rest.watching import Renderer, stream_events
from control.apiserver.service import KUBERNETES
from protos.k8s import core_v1_pb2 as core
from protos.k8s import policy_v1_pb2 as policy
from protos.k8s.autoscaling_v1_pb2 import Scale
from protos.k8s.meta_v1_pb2 import DeleteOptions as DeleteOptionsMessage
from protos.knarr import stream_pb2 as stream

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 3 << 20
RETURNED_WHEN_GONE = {
    "pods",
    "persistentvolumeclaims",
    "persistentvolumes",
    "serviceaccounts",
    "services",
    "resourcequotas",
    "podtemplates",
}
PUBLIC = ("/version", "/healthz", "/livez", "/readyz")
PODS = by_name("pods")

# (HTTP method, level or subresource) to (verb, handler).
ROUTES: dict[tuple[str, str], tuple[str, str]] = {
    ("GET", "collection"): ("list", "_list"),
    ("POST", "collection"): ("create", "_create"),
    ("DELETE", "collection"): ("deletecollection", "_delete_collection"),
    ("GET", "object"): ("get", "_get"),
    ("PUT", "object"): ("update", "_update"),
    ("PATCH", "object"): ("patch", "_patch"),
    ("DELETE", "object"): ("delete", "_delete"),
    ("GET", "status"): ("get", "_get"),
    ("PUT", "status"): ("update", "_update"),
    ("PATCH", "status"): ("patch", "_patch"),
    ("PUT", "finalize"): ("update", "_update"),
    ("GET", "scale"): ("get", "_get_scale"),
    ("PUT", "scale"): ("update", "_update_scale"),
    ("PATCH", "scale"): ("patch", "_patch"),
    ("POST", "binding"): ("create", "_bind"),
    ("POST", "eviction"): ("create", "_evict"),
    ("GET", "log"): ("get", "_log"),
    ("GET", "exec"): ("create", "_exec"),
    ("GET", "attach"): ("create", "_attach"),
}


class NotAcceptable(errors.ApiError):
    """The Accept header asks for a form that is not served."""

    code, reason = 406, "NotAcceptable"


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def errors_as_status(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure with a Status body."""
    try:
        return await handler(request)
    except errors.ApiError as err:
        return answers.failure(err)
    except web.HTTPRequestEntityTooLarge:
        return answers.failure(errors.BadRequest(f"the body is larger than {BODY_BYTES_MAX} bytes"))
    except web.HTTPException as err:
        raise err


class Gateway:
    """The HTTP application. ``insecure`` listeners take everybody for system:masters, as the gRPC ones do."""

    def __init__(self, registry: Registry, relay: NodeRelay) -> None:
        self._registry, self._relay = registry, relay
        self._etag = openapi.digest("api/v1")

    def application(self) -> web.Application:
        """The aiohttp application: fixed documents by route, everything else by path."""
        app = web.Application(middlewares=[errors_as_status], client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        return app

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = "/" + request.path.strip("/")
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if path == "/version":
            return answers.document(version())
        user = user_of_request(request)
        if request.method in ("GET", "HEAD"):
            fixed = self._fixed(path, request)
            if fixed is not None:
                return fixed
        target = paths.parse(path)
        if target is None:
            raise errors.NotFound("the server could not find the requested resource")
        return await self._resource(request, target, user)

    # -- documents -----------------------------------------------------------------------------------------------

    def _fixed(self, path: str, request: web.Request) -> web.Response | None:
        """Discovery and OpenAPI; None for any other path."""
        if path in ("/api", "/apis"):
            return self._discovery(path == "/api", request)
        if path == "/openapi/v2":
            return web.Response(body=b"", content_type=openapi.V2_PROTOBUF)
        if path == "/openapi/v3":
            return answers.document(openapi.index())
        if path.startswith("/openapi/v3/"):
            return _openapi(path.removeprefix("/openapi/v3/"), request)
        parts = path.strip("/").split("/")
        found: dict[str, Any] | None = None
        if parts[0] == "api" and len(parts) == 2:
            found = discovery.api_resource_list("", parts[1])
        elif parts[0] == "apis" and len(parts) == 2:
            found = discovery.api_group(parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found = discovery.api_resource_list(parts[1], parts[2])
        return answers.document(found) if found else None

    def _discovery(self, core_group: bool, request: web.Request) -> web.Response:
        version = wants_aggregated(request.headers.get("Accept", ""))
        if not version:
            return answers.document(discovery.api_versions() if core_group else discovery.api_group_list())
        etag = f'"{self._etag}-{version}"'
        if request.headers.get("If-None-Match") == etag:
            # A 304 must not say another type than the answer that the client has kept.
            return web.Response(status=304, headers={"ETag": etag, "Vary": "Accept"})
        response = web.Response(body=answers.dumps(discovery.aggregated(core_group, version)))
        response.headers["Content-Type"] = (
            f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
        )
        response.headers.update({"ETag": etag, "Vary": "Accept", "Cache-Control": "public"})
        return response

    # -- resources -----------------------------------------------------------------------------------------------

    async def _resource(self, request: web.Request, target: Target, user: User) -> web.StreamResponse:
        verb, handler = self._route(request, target)
        kind = target.kind
        resource = f"{kind.plural}/{target.subresource}" if target.subresource else kind.plural
        authorize(user, Attributes(verb, resource, kind.group, target.namespace, target.name))
        return await handler(request, target, user)

    def _route(self, request: web.Request, target: Target) -> tuple[str, Callable[..., Awaitable[Any]]]:
        """(verb, handler) of a request. Raises MethodNotAllowed, NotFound for an unknown subresource."""
        watching = request.method == "GET" and request.query.get("watch") in ("true", "1", "")
        if watching and not target.subresource:
            return "watch", self._watch
        level = target.subresource if target.subresource else "object" if target.name else "collection"
        found = ROUTES.get((request.method, level))
        known = target.subresource in ("", *target.kind.subresources)
        if found is None and not (target.subresource and known):
            raise errors.NotFound("the server could not find the requested resource") if not known else _no_method()
        if found is None:
            raise errors.NotImplementedYet(
                f"{target.kind.resource}/{target.subresource} is not served over REST by this knarr version: "
                f"use ctl {target.subresource}"
            )
        if not known:
            raise errors.NotFound("the server could not find the requested resource")
        return found[0], getattr(self, found[1])

    async def _get(self, request: web.Request, target: Target, user: User) -> web.Response:
        obj = await self._registry.get(target.kind, target.namespace, target.name)
        return _one(request, target.kind, obj)

    async def _list(self, request: web.Request, target: Target, user: User) -> web.Response:
        query = request.query
        if query.get("sendInitialEvents"):
            raise errors.invalid(
                target.kind,
                "",
                [errors.Cause("FieldValueForbidden", "Forbidden: only for watches", "sendInitialEvents")],
            )
        version = query.get("resourceVersion", "")
        found = await self._registry.list(
            _selection(request, target), _number(request, "limit"), query.get("continue", ""), version
        )
        return answers.listing(target.kind, found, _form(request), query.get("includeObject", ""))

    async def _watch(self, request: web.Request, target: Target, user: User) -> web.StreamResponse:
        query = request.query
        events = self._registry.watch(
            _selection(request, target),
            query.get("resourceVersion", ""),
            query.get("allowWatchBookmarks", "") in ("true", "1"),
            query.get("sendInitialEvents", "") in ("true", "1"),
        )
        renderer = Renderer(target.kind, _form(request), query.get("includeObject", ""))
        return await stream_events(request, events, renderer, _number(request, "timeoutSeconds"))

    async def _create(self, request: web.Request, target: Target, user: User) -> web.Response:
        body = await _body(request, target.kind, target.kind.message)
        dry_run = bodies.is_dry_run(request.query)
        obj = await self._registry.create(body.obj, target.namespace, user, dry_run)
        return _one(request, target.kind, obj, 201, body.warnings)

    async def _update(self, request: web.Request, target: Target, user: User) -> web.Response:
        body = await _body(request, target.kind, target.kind.message)
        _check_name(target, body.obj)
        dry_run = bodies.is_dry_run(request.query)
        obj = await self._registry.update(body.obj, target.subresource, user, dry_run, target.namespace)
        return _one(request, target.kind, obj, 200, body.warnings)

    async def _patch(self, request: web.Request, target: Target, user: User) -> web.Response:
        patch_type, body = bodies.decode_patch(await request.read(), request.headers.get("Content-Type", ""))
        dry_run = bodies.is_dry_run(request.query)
        obj = await self._registry.patch(
            target.kind, target.namespace, target.name, patch_type, body, target.subresource, user, dry_run
        )
        return _one(request, target.kind, obj)

    async def _delete(self, request: web.Request, target: Target, user: User) -> web.Response:
        options = await _delete_options(request)
        obj, gone = await self._registry.delete(target.kind, target.namespace, target.name, options, user)
        if gone and target.kind.plural not in RETURNED_WHEN_GONE:
            return answers.success(target.kind, target.name, obj.metadata.uid)
        return _one(request, target.kind, obj)

    async def _delete_collection(self, request: web.Request, target: Target, user: User) -> web.Response:
        options = await _delete_options(request)
        found = await self._registry.delete_collection(_selection(request, target), options, user)
        return answers.listing(target.kind, found, _form(request), request.query.get("includeObject", ""))

    async def _get_scale(self, request: web.Request, target: Target, user: User) -> web.Response:
        scale = await self._registry.get_scale(target.kind, target.namespace, target.name)
        return _one(request, target.kind, scale)

    async def _update_scale(self, request: web.Request, target: Target, user: User) -> web.Response:
        body = await _body(request, target.kind, Scale)
        _check_name(target, body.obj)
        body.obj.metadata.namespace = target.namespace
        scale = await self._registry.update_scale(target.kind, body.obj, user, bodies.is_dry_run(request.query))
        return _one(request, target.kind, scale)

    async def _bind(self, request: web.Request, target: Target, user: User) -> web.Response:
        binding: core.Binding = (await _body(request, target.kind, core.Binding)).obj
        await pods.bind(self._registry, target.namespace, target.name, binding.target.name, binding.metadata.uid, user)
        return answers.success(target.kind, target.name, code=201)

    async def _evict(self, request: web.Request, target: Target, user: User) -> web.Response:
        eviction: policy.Eviction = (await _body(request, target.kind, policy.Eviction)).obj
        await pods.evict(self._registry, target.namespace, target.name, _options(eviction.deleteOptions), user)
        return answers.success(target.kind, target.name, code=201)

    async def _exec(self, request: web.Request, target: Target, user: User) -> web.WebSocketResponse:
        container = _container_ref(request, target)
        start = stream.ExecStart(target=container, command=request.query.getall("command", []), **_wanted(request))
        await self._relay.check(target.namespace, target.name, container.container)
        first = stream.ExecRequest(start=start)
        return await stream_channels(request, stream.ExecRequest, lambda rest: self._relay.exec(first, rest))

    async def _attach(self, request: web.Request, target: Target, user: User) -> web.WebSocketResponse:
        container = _container_ref(request, target)
        await self._relay.check(target.namespace, target.name, container.container)
        first = stream.AttachRequest(start=stream.AttachStart(target=container, **_wanted(request)))
        return await stream_channels(request, stream.AttachRequest, lambda rest: self._relay.attach(first, rest))

    async def _log(self, request: web.Request, target: Target, user: User) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        async for chunk in self._relay.log(_log_request(request, target)):
            if not response.prepared:
                await response.prepare(request)
            await response.write(chunk.data)
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response


def _no_method() -> errors.MethodNotAllowed:
    return errors.MethodNotAllowed("the server does not allow this method on the requested resource")


def user_of_request(request: web.Request) -> User:
    """Who calls: the client certificate's user over TLS, the local one without. Raises Unauthorized."""
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport is not None else None
    if tls is None:
        return LOCAL
    certificate = tls.getpeercert(binary_form=True)
    if not certificate:
        raise errors.Unauthorized("Unauthorized")
    return user_of_der(certificate)


def version() -> dict[str, str]:
    """GET /version."""
    major, minor = KUBERNETES.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{KUBERNETES}.0+knarr",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": "linux/amd64",
    }


def _openapi(path: str, request: web.Request) -> web.Response | None:
    body = openapi.document(path)
    if body is None:
        return None
    etag = f'"{openapi.digest(path)}"'
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers={"ETag": etag})
    headers = {"ETag": etag, "Vary": "Accept-Encoding"}
    if request.query.get("hash"):
        headers["Cache-Control"] = "public, immutable"
        headers["Expires"] = "Fri, 31 Dec 2099 00:00:00 GMT"
    response = web.Response(body=body, content_type="application/json", headers=headers)
    response.enable_compression()
    return response


def _form(request: web.Request) -> Form:
    form = negotiate(request.headers.get("Accept", ""))
    if form is None:
        raise NotAcceptable(
            "only the following media types are accepted: application/json, application/yaml, "
            "application/vnd.kubernetes.protobuf"
        )
    return form


def _one(
    request: web.Request, kind: Kind, obj: Any, code: int = 200, warnings: list[str] | None = None
) -> web.Response:
    return answers.one(kind, obj, _form(request), request.query.get("includeObject", ""), code, warnings or [])


def _selection(request: web.Request, target: Target) -> Any:
    query = request.query
    fields = query.get("fieldSelector", "")
    if target.name:
        fields = f"{fields},metadata.name={target.name}".lstrip(",")
    return select(target.kind, target.namespace, query.get("labelSelector", ""), fields)


def _number(request: web.Request, name: str) -> int:
    text = request.query.get(name) or "0"
    if not text.isascii() or not text.isdigit():
        raise errors.BadRequest(f"query parameter {name} must be a whole number, got {text!r}")
    return int(text)


async def _body(request: web.Request, kind: Kind, message: type[Any]) -> bodies.Body:
    return bodies.decode_object(
        kind,
        message,
        await request.read(),
        request.headers.get("Content-Type", ""),
        request.query.get("fieldValidation", "Warn"),
    )


def _check_name(target: Target, obj: Any) -> None:
    if not obj.metadata.name:
        obj.metadata.name = target.name
    if obj.metadata.name != target.name:
        raise errors.BadRequest(
            f"the name of the object ({obj.metadata.name}) does not match the name on the URL ({target.name})"
        )


async def _delete_options(request: web.Request) -> DeleteOptions:
    """Options from the body, or else from the query. Raises BadRequest."""
    data = await request.read()
    if not data:
        return _query_options(request)
    type_ = bodies.media_type(request.headers.get("Content-Type", ""))
    try:
        if type_ == PROTOBUF:
            return _options(from_envelope(data, DeleteOptionsMessage))
        body = bodies.plain(data, type_)
        if isinstance(body, dict):
            body.pop("apiVersion", None)
        return _options(from_json(body, DeleteOptionsMessage, unknown=[]))
    except DecodeError as err:
        raise errors.BadRequest(f"the delete options cannot be read: {err}") from err


def _query_options(request: web.Request) -> DeleteOptions:
    grace = request.query.get("gracePeriodSeconds")
    return DeleteOptions(
        grace_s=_number(request, "gracePeriodSeconds") if grace else None,
        propagation=request.query.get("propagationPolicy", ""),
        dry_run=bodies.is_dry_run(request.query),
    )


def _options(message: DeleteOptionsMessage) -> DeleteOptions:
    propagation = message.propagationPolicy
    if not propagation and message.HasField("orphanDependents"):
        propagation = "Orphan" if message.orphanDependents else "Background"
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        raise errors.BadRequest(f"propagationPolicy {propagation!r}: use Background, Foreground or Orphan")
    return DeleteOptions(
        grace_s=message.gracePeriodSeconds if message.HasField("gracePeriodSeconds") else None,
        propagation=propagation,
        uid=message.preconditions.uid,
        resource_version=message.preconditions.resourceVersion,
        dry_run=list(message.dryRun) == ["All"],
    )


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "") in ("true", "1")


def _container_ref(request: web.Request, target: Target) -> stream.ContainerRef:
    container = request.query.get("container", "")
    return stream.ContainerRef(namespace=target.namespace, pod=target.name, container=container)


def _wanted(request: web.Request) -> dict[str, bool]:
    """Which streams an exec or attach opens."""
    return {name: _flag(request, name) for name in ("stdin", "stdout", "stderr", "tty")}


def _log_request(request: web.Request, target: Target) -> stream.LogRequest:
    query = request.query
    wanted = stream.LogRequest(
        target=_container_ref(request, target),
        follow=_flag(request, "follow"),
        previous=_flag(request, "previous"),
        timestamps=_flag(request, "timestamps"),
        since_seconds=_number(request, "sinceSeconds"),
        limit_bytes=_number(request, "limitBytes"),
    )
    if query.get("tailLines"):
        wanted.tail_lines = _number(request, "tailLines")
    if query.get("sinceTime"):
        try:
            seconds, nanos = parse_rfc3339(query["sinceTime"])
        except ValueError as err:
            raise errors.BadRequest(f"sinceTime: {err}") from err
        wanted.since_time_ns = seconds * 10**9 + nanos
    return wanted


@asynccontextmanager
async def serving_rest(gateway: Gateway, listen: str, tls: Any | None) -> AsyncIterator[None]:
    """Serve the gateway on ``listen`` (``host:port``) for the length of the block. Raises OSError."""
    runner = web.AppRunner(gateway.application(), access_log=None, shutdown_timeout=2.0, handler_cancellation=True)
    await runner.setup()
    host, _, port = listen.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port), ssl_context=tls).start()
        yield
    finally:
        await runner.cleanup()
