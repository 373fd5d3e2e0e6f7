"""The CRI client: calls on a runtime's socket, and the state of pods read back from it. Works on any CRI v1 runtime."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from control.kubelet.state import POD_UID, Container, PodRuntime, Sandbox, container_of, named, pod_runtime, sandbox_of
from protos.cri import runtime_pb2 as cri
from protos.cri.runtime_pb2_grpc import ImageServiceStub, RuntimeServiceStub
from protos.serving import open_channel

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 120.0
"""Limit of a call that should be quick, seconds (Kubernetes' runtime request timeout is two minutes)."""


class RuntimeFailed(Exception):
    """A CRI call failed; the text is the runtime's. Retry after looking again.

    ``missing``: what the call names does not exist. ``unavailable``: nobody answered.
    """

    def __init__(self, call: str, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail or f"{call}: {code.name}")
        self.call, self.code, self.detail = call, code, detail
        self.missing = code is grpc.StatusCode.NOT_FOUND
        self.unavailable = code is grpc.StatusCode.UNAVAILABLE


class RuntimeSilent(RuntimeFailed):
    """The runtime does not offer this call (UNIMPLEMENTED)."""


@dataclass(frozen=True)
class Found:
    """One pod that the runtime knows, by its sandboxes' labels."""

    uid: str
    name: str
    namespace: str


class Runtime:
    """A CRI runtime at ``endpoint`` (``unix:///...``). Every method raises RuntimeFailed."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._channel = open_channel(endpoint)
        self._runtime = RuntimeServiceStub(self._channel)
        self._images = ImageServiceStub(self._channel)
        # Exited containers never change: their status is asked for once.
        self._exited: dict[str, cri.ContainerStatus] = {}

    async def aclose(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def call(self, name: str, request: Any, timeout_s: float | None = CALL_TIMEOUT_S) -> Any:
        """Call rpc ``name`` of RuntimeService, or of ImageService if it is there. ``timeout_s`` None waits for ever."""
        stub: Any = self._images if hasattr(self._images, name) else self._runtime
        try:
            return await getattr(stub, name)(request, timeout=timeout_s, wait_for_ready=False)
        except grpc.aio.AioRpcError as err:
            kind = RuntimeSilent if err.code() is grpc.StatusCode.UNIMPLEMENTED else RuntimeFailed
            raise kind(name, err.code(), err.details() or "") from err

    async def version(self) -> cri.VersionResponse:
        """Name and version of the runtime."""
        return await self.call("Version", cri.VersionRequest(version="v1"), 5.0)

    async def status(self) -> cri.StatusResponse:
        """Its conditions: RuntimeReady and NetworkReady."""
        return await self.call("Status", cri.StatusRequest(), 10.0)

    async def systemd_cgroups(self) -> bool:
        """True if cgroup parents are systemd slices. Runtimes that do not say take cgroupfs paths."""
        try:
            answer = await self.call("RuntimeConfig", cri.RuntimeConfigRequest(), 5.0)
        except RuntimeSilent:
            return False
        return answer.HasField("linux") and answer.linux.cgroup_driver == cri.SYSTEMD

    async def pods(self) -> dict[str, Found]:
        """Every pod with a sandbox, by uid."""
        answer = await self.call("ListPodSandbox", cri.ListPodSandboxRequest())
        found = (item.metadata for item in answer.items if item.metadata.uid)
        return {meta.uid: Found(meta.uid, meta.name, meta.namespace) for meta in found}

    async def fingerprint(self) -> dict[str, int]:
        """A number per pod uid that changes when the state of any of its sandboxes or containers does: a cheap
        relist.
        """
        sandboxes, containers = await asyncio.gather(
            self.call("ListPodSandbox", cri.ListPodSandboxRequest()),
            self.call("ListContainers", cri.ListContainersRequest()),
        )
        facts: dict[str, set[tuple[str, int]]] = {}
        for item in sandboxes.items:
            facts.setdefault(item.metadata.uid, set()).add((item.id, item.state))
        for item in containers.containers:
            facts.setdefault(item.labels.get(POD_UID, ""), set()).add((item.id, item.state))
        return {uid: hash(frozenset(known)) for uid, known in facts.items()}

    async def observe(self, uid: str) -> PodRuntime:
        """Everything the runtime has of pod ``uid``."""
        labels = {POD_UID: uid}
        sandboxes, containers = await asyncio.gather(
            self.call("ListPodSandbox", cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels))),
            self.call("ListContainers", cri.ListContainersRequest(filter=cri.ContainerFilter(label_selector=labels))),
        )
        found_sandboxes, found_containers = await asyncio.gather(
            asyncio.gather(*(self._sandbox(item) for item in sandboxes.items)),
            asyncio.gather(*(self._container(item) for item in containers.containers)),
        )
        runtime = pod_runtime(uid, _present(found_sandboxes), _present(found_containers))
        if sandboxes.items:
            newest = max(sandboxes.items, key=lambda item: item.metadata.attempt)
            runtime = named(runtime, dict(newest.labels), dict(newest.annotations))
        return runtime

    async def _sandbox(self, item: cri.PodSandbox) -> Sandbox | None:
        if item.state != cri.SANDBOX_READY:
            return sandbox_of(item, None)
        try:
            answer = await self.call("PodSandboxStatus", cri.PodSandboxStatusRequest(pod_sandbox_id=item.id))
        except RuntimeFailed as err:
            if err.missing:
                return None
            raise
        return sandbox_of(item, answer.status)

    async def _container(self, item: cri.Container) -> Container | None:
        known = self._exited.get(item.id)
        if known is not None:
            return container_of(item, known)
        try:
            answer = await self.call("ContainerStatus", cri.ContainerStatusRequest(container_id=item.id))
        except RuntimeFailed as err:
            if err.missing:
                return None
            raise
        if answer.status.state == cri.CONTAINER_EXITED:
            self._exited[item.id] = answer.status
        return container_of(item, answer.status)

    def forget(self, container_ids: Iterable[str]) -> None:
        """Drop what is remembered of removed containers."""
        for container_id in container_ids:
            self._exited.pop(container_id, None)

    async def events(self) -> AsyncIterator[cri.ContainerEventResponse]:
        """Container events as they happen, until the stream ends. Raises RuntimeSilent where there are none."""
        stream = self._runtime.GetContainerEvents(cri.GetEventsRequest())
        try:
            async for event in stream:
                yield event
        except grpc.aio.AioRpcError as err:
            kind = RuntimeSilent if err.code() is grpc.StatusCode.UNIMPLEMENTED else RuntimeFailed
            raise kind("GetContainerEvents", err.code(), err.details() or "") from err
        finally:
            stream.cancel()


def _present(found: "Iterable[Any]") -> list[Any]:
    return [item for item in found if item is not None]
