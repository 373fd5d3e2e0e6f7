"""The REST gateway: documents, negotiation, writes, watches and errors, as clients see them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from control.api.codec import from_envelope, to_envelope
from control.apiserver.rest import negotiation, openapi, paths
from protos.k8s import core_v1_pb2 as core

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def store_kind() -> str:
    return "etcd"


@pytest.fixture
async def http(store: Any, make_server: Any, free_port: int) -> AsyncIterator[aiohttp.ClientSession]:
    server = make_server(store.url, rest_listen=f"127.0.0.1:{free_port}")
    await server.start()
    await server.stop()
    await server.start()  # again, so that there is a past which its watch caches do not have
    async with aiohttp.ClientSession(f"http://127.0.0.1:{free_port}") as session:
        yield session
    await server.stop()


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i"}], **spec},
    }


async def call(http: aiohttp.ClientSession, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """(status, JSON) of a request."""
    data = None if body is None else json.dumps(body)
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with http.request(method, path, data=data, headers=sent) as response:
        return response.status, await response.json(content_type=None)


async def test_an_object_lives_a_life_over_http(http: aiohttp.ClientSession) -> None:
    status, made = await call(http, "POST", PODS, pod("web"))
    assert status == 201 and made["metadata"]["uid"] and made["kind"] == "Pod"
    status, listed = await call(http, "GET", f"{PODS}?labelSelector=app%3Dweb&limit=500")
    assert status == 200 and listed["kind"] == "PodList" and len(listed["items"]) == 1
    made["metadata"]["labels"]["x"] = "y"
    status, updated = await call(http, "PUT", f"{PODS}/web", made)
    assert status == 200 and updated["metadata"]["labels"]["x"] == "y"
    status, failed = await call(http, "PUT", f"{PODS}/web", made)
    assert (status, failed["reason"], failed["details"]["kind"]) == (409, "Conflict", "pods")
    patch = {"metadata": {"labels": {"x": None}}}
    status, patched = await call(
        http, "PATCH", f"{PODS}/web", patch, Content_Type="application/strategic-merge-patch+json"
    )
    assert status == 200 and "x" not in patched["metadata"]["labels"]
    status, gone = await call(http, "DELETE", f"{PODS}/web", {"propagationPolicy": "Background"})
    assert status == 200 and gone["kind"] == "Pod"
    status, missing = await call(http, "GET", f"{PODS}/web")
    assert status == 404
    assert missing == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'pods "web" not found',
        "reason": "NotFound",
        "details": {"name": "web", "kind": "pods"},
        "code": 404,
    }


async def test_unknown_fields_are_refused_warned_of_or_ignored_as_asked(http: aiohttp.ClientSession) -> None:
    bad = pod("web", restartPolcy="Never")
    status, failed = await call(http, "POST", f"{PODS}?fieldValidation=Strict", bad)
    assert status == 400 and 'strict decoding error: unknown field "spec.restartPolcy"' in failed["message"]
    async with http.post(PODS, json=bad) as response:
        assert response.status == 201
        assert response.headers["Warning"] == r'299 - "unknown field \"spec.restartPolcy\""'
    bad["metadata"]["name"] = "other"
    async with http.post(f"{PODS}?fieldValidation=Ignore", json=bad) as response:
        assert response.status == 201 and "Warning" not in response.headers
    status, failed = await call(http, "POST", PODS, pod("Bad_Name"))
    assert (status, failed["reason"], failed["details"]["kind"]) == (422, "Invalid", "Pod")
    assert failed["details"]["causes"][0]["field"] == "metadata.name"


async def test_protobuf_bodies_are_read_and_answered(http: aiohttp.ClientSession) -> None:
    config = core.ConfigMap()
    config.metadata.name = "c"
    config.data["a"] = "b"
    proto = {"Content-Type": negotiation.PROTOBUF, "Accept": f"{negotiation.PROTOBUF},application/json"}
    async with http.post(MAPS, data=to_envelope(config), headers=proto) as response:
        assert response.status == 201 and response.content_type == "application/json"
    async with http.get(f"{MAPS}/c", headers={"Accept": negotiation.PROTOBUF}) as response:
        assert from_envelope(await response.read()).data == {"a": "b"}
    async with http.get(MAPS, headers={"Accept": negotiation.PROTOBUF}) as response:
        assert [item.metadata.name for item in from_envelope(await response.read()).items] == ["c"]


async def test_tables_carry_columns_cells_and_metadata(http: aiohttp.ClientSession) -> None:
    await call(http, "POST", PODS, pod("web"))
    _, table = await call(http, "GET", PODS, Accept=TABLE)
    assert table["kind"] == "Table"
    assert [c["name"] for c in table["columnDefinitions"] if not c["priority"]] == [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
    ]
    row = table["rows"][0]
    assert row["cells"][:3] == ["web", "0/1", "Pending"]
    assert row["object"]["kind"] == "PartialObjectMetadata" and row["object"]["metadata"]["name"] == "web"
    _, table = await call(http, "GET", f"{PODS}/web?includeObject=Object", Accept=TABLE)
    assert table["rows"][0]["object"]["spec"]["containers"][0]["image"] == "i"


async def test_a_watch_streams_lines_and_tells_an_expired_version(http: aiohttp.ClientSession) -> None:
    _, listed = await call(http, "GET", PODS)
    version = listed["metadata"]["resourceVersion"]
    async with http.get(f"{PODS}?watch=true&resourceVersion={version}&timeoutSeconds=30") as response:
        await call(http, "POST", PODS, pod("web"))
        await call(http, "DELETE", f"{PODS}/web")
        async with asyncio.timeout(10):
            events = [json.loads(await response.content.readline()) for _ in range(2)]
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [("ADDED", "web"), ("DELETED", "web")]
    async with http.get(f"{PODS}?watch=true&resourceVersion=1") as response:
        event = json.loads(await response.content.readline())
    assert (event["type"], event["object"]["reason"], event["object"]["code"]) == ("ERROR", "Expired", 410)
    await call(http, "POST", PODS, pod("web"))
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with http.get(f"{PODS}?{query}") as response:
        events = [json.loads(await response.content.readline()) for _ in range(2)]
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_pages_continue(http: aiohttp.ClientSession) -> None:
    for index in range(3):
        await call(http, "POST", MAPS, {"metadata": {"name": f"c{index}"}})
    _, page = await call(http, "GET", f"{MAPS}?limit=2")
    assert page["metadata"]["remainingItemCount"] == 1
    _, rest = await call(http, "GET", f"{MAPS}?limit=2&continue={page['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c2"]
    assert rest["metadata"]["resourceVersion"] == page["metadata"]["resourceVersion"]


async def test_scale_binding_and_dry_run(http: aiohttp.ClientSession) -> None:
    rc = {
        "metadata": {"name": "rc"},
        "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}},
    }
    controllers = "/api/v1/namespaces/default/replicationcontrollers"
    assert (await call(http, "POST", f"{controllers}?dryRun=All", rc))[0] == 201
    assert (await call(http, "GET", f"{controllers}/rc"))[0] == 404
    await call(http, "POST", controllers, rc)
    status, scale = await call(
        http, "PATCH", f"{controllers}/rc/scale", {"spec": {"replicas": 4}}, Content_Type="application/merge-patch+json"
    )
    assert (status, scale["kind"], scale["spec"]["replicas"]) == (200, "Scale", 4)
    await call(http, "POST", PODS, pod("web"))
    target = {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "n1"}}
    assert (await call(http, "POST", f"{PODS}/web/binding", target))[0] == 201
    assert (await call(http, "GET", f"{PODS}/web"))[1]["spec"]["nodeName"] == "n1"
    assert (await call(http, "POST", f"{PODS}/web/eviction", {"metadata": {"name": "web"}}))[0] == 201


async def test_requests_that_cannot_be_answered_say_why(http: aiohttp.ClientSession) -> None:
    for method, path, headers, code in (
        ("GET", "/api/v1/nothing", {}, 404),
        ("GET", "/apis/nothing/v1", {}, 404),
        ("POST", f"{PODS}/web", {}, 405),
        ("GET", f"{PODS}/web/nothing", {}, 404),
        ("POST", f"{PODS}/web/exec", {}, 501),
        ("GET", f"{PODS}/web/exec", {}, 404),
        ("GET", f"{PODS}/web/portforward", {}, 501),
        ("GET", PODS, {"Accept": "text/html"}, 406),
        ("POST", PODS, {"Content-Type": "text/plain"}, 415),
        ("PATCH", f"{PODS}/web", {"Content-Type": "application/json"}, 415),
        ("GET", f"{PODS}?limit=x", {}, 400),
        ("GET", f"{PODS}?fieldSelector=spec.color%3Dred", {}, 400),
        ("DELETE", "/api/v1/namespaces/default", {}, 403),
    ):
        sent = {name.replace("-", "_"): value for name, value in headers.items()}
        status, failed = await call(http, method, path, None if method in ("GET", "DELETE") else {}, **sent)
        assert (status, failed["kind"]) == (code, "Status"), (method, path, failed)


async def test_discovery_in_both_forms_and_openapi(http: aiohttp.ClientSession) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    async with http.get("/apis", headers={"Accept": accept}) as response:
        assert "as=APIGroupDiscoveryList" in response.headers["Content-Type"]
        groups = await response.json(content_type=None)
        etag = response.headers["ETag"]
    apps = next(item for item in groups["items"] if item["metadata"]["name"] == "apps")
    deployments = next(r for r in apps["versions"][0]["resources"] if r["resource"] == "deployments")
    assert {s["subresource"] for s in deployments["subresources"]} == {"status", "scale"}
    async with http.get("/apis", headers={"Accept": accept, "If-None-Match": etag}) as response:
        assert response.status == 304 and "Content-Type" not in response.headers
    _, plain = await call(http, "GET", "/api/v1/")
    names = {resource["name"] for resource in plain["resources"]}
    assert {"pods", "pods/status", "pods/log", "pods/eviction", "services"} <= names
    assert (await call(http, "GET", "/apis/apps"))[1]["preferredVersion"]["groupVersion"] == "apps/v1"
    assert (await call(http, "GET", "/api"))[1]["versions"] == ["v1"]
    _, index = await call(http, "GET", "/openapi/v3")
    _, spec = await call(http, "GET", index["paths"]["api/v1"]["serverRelativeURL"])
    schema = spec["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]
    assert schema["containers"]["x-kubernetes-patch-merge-key"] == "name"
    async with http.get("/openapi/v2") as response:
        assert response.headers["Content-Type"] == openapi.V2_PROTOBUF and await response.read() == b""
    assert (await call(http, "GET", "/version"))[1]["minor"].isdigit()
    async with http.get("/readyz") as response:
        assert await response.text() == "ok"


async def test_over_tls_the_certificate_names_the_user(
    store: Any, make_server: Any, authority: Any, free_port: int
) -> None:
    import ssl

    server = make_server(
        store.url, authority.issue("kube-apiserver", "system:masters"), rest_listen=f"127.0.0.1:{free_port}"
    )
    await server.start()
    for tls, code in (
        (authority.issue("kubernetes-admin", "system:masters"), 200),
        (authority.issue("alice"), 403),
        (None, 401),
    ):
        context = ssl.create_default_context(cafile=str(server.tls.ca))
        if tls is not None:
            context.load_cert_chain(tls.cert, tls.key)
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{free_port}", connector=connector) as session:
            status, answer = await call(session, "GET", PODS)
            assert status == code, answer
    await server.stop()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/api/v1/pods", ("Pod", "", "", "")),
        ("/api/v1/namespaces/a/pods", ("Pod", "a", "", "")),
        ("/api/v1/namespaces/a/pods/b/log", ("Pod", "a", "b", "log")),
        ("/api/v1/namespaces", ("Namespace", "", "", "")),
        ("/api/v1/namespaces/a", ("Namespace", "", "a", "")),
        ("/api/v1/namespaces/a/status", ("Namespace", "", "a", "status")),
        ("/apis/apps/v1/namespaces/a/deployments/b", ("Deployment", "a", "b", "")),
        ("/api/v1/nodes/n", ("Node", "", "n", "")),
        ("/api/v1/pods/b", None),
        ("/api/v1/namespaces/a/nodes", None),
        ("/api/v2/pods", None),
        ("/apis/apps/v1", None),
    ],
)
def test_paths(path: str, told: Any) -> None:
    target = paths.parse(path)
    found = target and (target.kind.kind, target.namespace, target.name, target.subresource)
    assert found == told
