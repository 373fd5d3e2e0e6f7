"""runtime.v1.RuntimeService: protocol only. What the rpcs do is in ``pod/``."""

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import grpc

from cri_runtime.pod.containers import Containers
from cri_runtime.pod.errors import InvalidConfig
from cri_runtime.pod.events import Kind
from cri_runtime.pod.execs import Execs
from cri_runtime.pod.machine import require_ready
from cri_runtime.pod.sandboxes import HANDLERS, Sandboxes
from cri_runtime.pod.stats import Stats
from cri_runtime.pod.world import Container, World
from cri_runtime.service import views
from cri_runtime.service.errors import translated
from cri_runtime.service.streaming import TOKEN_TTL_S, Session, StreamingServer
from protos.cri import runtime_pb2 as cri
from protos.cri.runtime_pb2_grpc import RuntimeServiceServicer
from protos.serving import unimplemented

API_VERSION = "v1"
KUBELET_API_VERSION = "0.1.0"


@dataclass(frozen=True)
class Parts:
    """What the service is composed of."""

    world: World
    sandboxes: Sandboxes
    containers: Containers
    execs: Execs
    stats: Stats
    streaming: StreamingServer
    config: dict[str, Any]
    """The daemon's settings, for Status when it is verbose."""


@unimplemented
class RuntimeService(RuntimeServiceServicer):
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._world = parts.world
        self._sandboxes = parts.sandboxes
        self._containers = parts.containers
        self._execs = parts.execs
        self._stats = parts.stats
        self._streaming = parts.streaming
        self._config = parts.config

    # --- the runtime itself

    async def Version(self, request: cri.VersionRequest, context: grpc.aio.ServicerContext) -> cri.VersionResponse:
        """Who answers."""
        return cri.VersionResponse(
            version=KUBELET_API_VERSION,
            runtime_name="knarr",
            runtime_version=metadata.version("knarr"),
            runtime_api_version=API_VERSION,
        )

    async def Status(self, request: cri.StatusRequest, context: grpc.aio.ServicerContext) -> cri.StatusResponse:
        """Ready or not, and what the runtime can do."""
        response = cri.StatusResponse()
        response.status.conditions.add(type="RuntimeReady", status=True)
        ready, reason, message = self._world.network.ready()
        response.status.conditions.add(type="NetworkReady", status=ready, reason=reason, message=message)
        for name in HANDLERS:
            handler = response.runtime_handlers.add(name=name)
            handler.features.recursive_read_only_mounts = True
        response.features.supplemental_groups_policy = True
        if request.verbose:
            response.info["config"] = json.dumps({**self._config, "cgroups": self._world.cgroups.version})
        return response

    async def RuntimeConfig(
        self, request: cri.RuntimeConfigRequest, context: grpc.aio.ServicerContext
    ) -> cri.RuntimeConfigResponse:
        """Which cgroup driver the kubelet must use."""
        return cri.RuntimeConfigResponse(linux=cri.LinuxRuntimeConfiguration(cgroup_driver=cri.CGROUPFS))

    async def UpdateRuntimeConfig(
        self, request: cri.UpdateRuntimeConfigRequest, context: grpc.aio.ServicerContext
    ) -> cri.UpdateRuntimeConfigResponse:
        """The pod CIDR is the daemon's flag; CRI allows to ignore the call."""
        return cri.UpdateRuntimeConfigResponse()

    # --- sandboxes

    @translated
    async def RunPodSandbox(
        self, request: cri.RunPodSandboxRequest, context: grpc.aio.ServicerContext
    ) -> cri.RunPodSandboxResponse:
        """Create and start a sandbox."""
        sandbox_id = await self._sandboxes.run(request.config, request.runtime_handler)
        return cri.RunPodSandboxResponse(pod_sandbox_id=sandbox_id)

    @translated
    async def StopPodSandbox(
        self, request: cri.StopPodSandboxRequest, context: grpc.aio.ServicerContext
    ) -> cri.StopPodSandboxResponse:
        """Kill its containers and take down its network."""
        await self._sandboxes.stop(request.pod_sandbox_id)
        return cri.StopPodSandboxResponse()

    @translated
    async def RemovePodSandbox(
        self, request: cri.RemovePodSandboxRequest, context: grpc.aio.ServicerContext
    ) -> cri.RemovePodSandboxResponse:
        """Remove it with all that is in it."""
        await self._sandboxes.remove(request.pod_sandbox_id)
        return cri.RemovePodSandboxResponse()

    @translated
    async def PodSandboxStatus(
        self, request: cri.PodSandboxStatusRequest, context: grpc.aio.ServicerContext
    ) -> cri.PodSandboxStatusResponse:
        """One sandbox, with its containers."""
        sandbox = self._world.sandbox(request.pod_sandbox_id)
        response = cri.PodSandboxStatusResponse(status=views.sandbox_status(sandbox.record), timestamp=time.time_ns())
        records = [container.record for container in self._world.containers_of(sandbox.record.id)]
        response.containers_statuses.extend(views.statuses(records))
        if request.verbose:
            pid = sandbox.supervisor.pid if sandbox.supervisor else 0
            state = str(self._world.sandbox_state(sandbox.record.id))
            response.info["info"] = json.dumps({"pid": pid, "state": state, "config": str(sandbox.record.message)})
        return response

    @translated
    async def ListPodSandbox(
        self, request: cri.ListPodSandboxRequest, context: grpc.aio.ServicerContext
    ) -> cri.ListPodSandboxResponse:
        """Sandboxes, stopped ones too."""
        records = [sandbox.record for sandbox in self._world.sandboxes.values()]
        items = [views.sandbox_item(record) for record in records if views.matches_sandbox(record, request.filter)]
        return cri.ListPodSandboxResponse(items=items)

    # --- containers

    @translated
    async def CreateContainer(
        self, request: cri.CreateContainerRequest, context: grpc.aio.ServicerContext
    ) -> cri.CreateContainerResponse:
        """Create a container in a ready sandbox."""
        container_id = await self._containers.create(request.pod_sandbox_id, request.config)
        return cri.CreateContainerResponse(container_id=container_id)

    @translated
    async def StartContainer(
        self, request: cri.StartContainerRequest, context: grpc.aio.ServicerContext
    ) -> cri.StartContainerResponse:
        """Start a created container."""
        await self._containers.start(request.container_id)
        return cri.StartContainerResponse()

    @translated
    async def StopContainer(
        self, request: cri.StopContainerRequest, context: grpc.aio.ServicerContext
    ) -> cri.StopContainerResponse:
        """Stop it, in time or by force."""
        await self._containers.stop(request.container_id, request.timeout)
        return cri.StopContainerResponse()

    @translated
    async def RemoveContainer(
        self, request: cri.RemoveContainerRequest, context: grpc.aio.ServicerContext
    ) -> cri.RemoveContainerResponse:
        """Remove it, by force if it runs."""
        await self._containers.remove(request.container_id)
        return cri.RemoveContainerResponse()

    @translated
    async def ListContainers(
        self, request: cri.ListContainersRequest, context: grpc.aio.ServicerContext
    ) -> cri.ListContainersResponse:
        """Containers, exited ones too."""
        records = [container.record for container in self._world.containers.values()]
        found = [views.container_item(record) for record in records if views.matches_container(record, request.filter)]
        return cri.ListContainersResponse(containers=found)

    @translated
    async def ContainerStatus(
        self, request: cri.ContainerStatusRequest, context: grpc.aio.ServicerContext
    ) -> cri.ContainerStatusResponse:
        """One container."""
        record = self._world.container(request.container_id).record
        response = cri.ContainerStatusResponse(status=views.container_status(record))
        if request.verbose:
            spec = (self._world.container_home(record.id) / "spec.json").read_text()
            info = {
                "pid": record.status.pid,
                "sandboxID": record.sandbox_id,
                "cgroup": record.cgroup,
                "spec": json.loads(spec),
            }
            response.info["info"] = json.dumps({**info, "status": asdict(record.status)})
        return response

    @translated
    async def UpdateContainerResources(
        self, request: cri.UpdateContainerResourcesRequest, context: grpc.aio.ServicerContext
    ) -> cri.UpdateContainerResourcesResponse:
        """Change limits."""
        await self._containers.update_resources(request.container_id, request.linux)
        return cri.UpdateContainerResourcesResponse()

    @translated
    async def ReopenContainerLog(
        self, request: cri.ReopenContainerLogRequest, context: grpc.aio.ServicerContext
    ) -> cri.ReopenContainerLogResponse:
        """Go on in a new log file."""
        await self._containers.reopen_log(request.container_id)
        return cri.ReopenContainerLogResponse()

    # --- commands and streams

    @translated
    async def ExecSync(self, request: cri.ExecSyncRequest, context: grpc.aio.ServicerContext) -> cri.ExecSyncResponse:
        """Run a command to its end."""
        result = await self._execs.sync(request.container_id, list(request.cmd), request.timeout)
        return cri.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    @translated
    async def Exec(self, request: cri.ExecRequest, context: grpc.aio.ServicerContext) -> cri.ExecResponse:
        """A URL to run a command with streams."""
        wanted = _streams(request)
        container_id = self._execs.require_running(_given(request.container_id, "container_id")).record.id
        if not request.cmd:
            raise InvalidConfig("cmd", "must name a program")

        async def opener() -> Session:
            return await self._execs.open(container_id, list(request.cmd), tty=request.tty, **wanted)

        return cri.ExecResponse(url=self._streaming.exec_url(opener, tty=request.tty, **wanted))

    @translated
    async def Attach(self, request: cri.AttachRequest, context: grpc.aio.ServicerContext) -> cri.AttachResponse:
        """A URL to a container's own streams. One that is CREATED may be attached to as well, for its outputs only."""
        wanted = _streams(request)
        container = self._world.container(_given(request.container_id, "container_id"))
        if container.record.status.state == "created" and not request.stdin:
            return self._attach_early(container, request)
        record = self._execs.require_running(request.container_id).record

        async def opener() -> Session:
            return await self._execs.attach(record.id, **wanted)

        return cri.AttachResponse(url=self._streaming.attach_url(opener, tty=request.tty, **wanted))

    def _attach_early(self, container: Container, request: cri.AttachRequest) -> cri.AttachResponse:
        session = self._execs.attach_early(container, stdout=request.stdout, stderr=request.stderr)
        forget = asyncio.get_running_loop().call_later(TOKEN_TTL_S, session.close)

        async def opener() -> Session:
            forget.cancel()
            return session

        wanted = {"stdin": False, "stdout": request.stdout, "stderr": request.stderr}
        return cri.AttachResponse(url=self._streaming.attach_url(opener, tty=request.tty, **wanted))

    @translated
    async def PortForward(
        self, request: cri.PortForwardRequest, context: grpc.aio.ServicerContext
    ) -> cri.PortForwardResponse:
        """A URL to the pod's ports."""
        sandbox = self._world.sandbox(_given(request.pod_sandbox_id, "pod_sandbox_id"))
        require_ready(sandbox.record)
        dialer = functools.partial(self._execs.dial, sandbox.record.id)
        return cri.PortForwardResponse(url=self._streaming.port_forward_url(dialer, list(request.port)))

    # --- numbers

    @translated
    async def ContainerStats(
        self, request: cri.ContainerStatsRequest, context: grpc.aio.ServicerContext
    ) -> cri.ContainerStatsResponse:
        """What one container uses."""
        container = self._world.container(request.container_id)
        return cri.ContainerStatsResponse(stats=await self._stats.container(container))

    @translated
    async def ListContainerStats(
        self, request: cri.ListContainerStatsRequest, context: grpc.aio.ServicerContext
    ) -> cri.ListContainerStatsResponse:
        """What running containers use."""
        wanted = cri.ContainerFilter(
            id=request.filter.id,
            pod_sandbox_id=request.filter.pod_sandbox_id,
            label_selector=request.filter.label_selector,
            state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING),
        )
        found = [c for c in self._world.containers.values() if views.matches_container(c.record, wanted)]
        return cri.ListContainerStatsResponse(stats=[await self._stats.container(container) for container in found])

    @translated
    async def PodSandboxStats(
        self, request: cri.PodSandboxStatsRequest, context: grpc.aio.ServicerContext
    ) -> cri.PodSandboxStatsResponse:
        """What one pod uses."""
        sandbox = self._world.sandbox(request.pod_sandbox_id)
        return cri.PodSandboxStatsResponse(stats=await self._stats.sandbox(sandbox))

    @translated
    async def ListPodSandboxStats(
        self, request: cri.ListPodSandboxStatsRequest, context: grpc.aio.ServicerContext
    ) -> cri.ListPodSandboxStatsResponse:
        """What ready pods use."""
        wanted = cri.PodSandboxFilter(
            id=request.filter.id,
            label_selector=request.filter.label_selector,
            state=cri.PodSandboxStateValue(state=cri.SANDBOX_READY),
        )
        found = [s for s in self._world.sandboxes.values() if views.matches_sandbox(s.record, wanted)]
        return cri.ListPodSandboxStatsResponse(stats=[await self._stats.sandbox(sandbox) for sandbox in found])

    # --- events

    @translated
    async def GetContainerEvents(
        self, request: cri.GetEventsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[cri.ContainerEventResponse]:
        """What happens from now on."""
        async for event in self._world.events.subscribe():
            response = cri.ContainerEventResponse(
                container_id=event.id,
                container_event_type=int(event.kind),  # type: ignore[arg-type]
                created_at=event.at,
            )
            sandbox = self._world.sandboxes.get(event.sandbox_id)
            if sandbox and not (event.kind is Kind.DELETED and event.id == event.sandbox_id):
                response.pod_sandbox_status.CopyFrom(views.sandbox_status(sandbox.record))
            records = [container.record for container in self._world.containers_of(event.sandbox_id)]
            response.containers_statuses.extend(views.statuses(records))
            yield response


def _streams(request: cri.ExecRequest | cri.AttachRequest) -> dict[str, bool]:
    """Which streams are wanted. Raises InvalidConfig."""
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidConfig("stdin, stdout, stderr", "at least one must be asked for")
    if request.tty and request.stderr:
        raise InvalidConfig("stderr", "a terminal has only one output: ask for stdout alone")
    return {"stdin": request.stdin, "stdout": request.stdout, "stderr": request.stderr}


def _given(value: str, field: str) -> str:
    if not value:
        raise InvalidConfig(field, "must be set")
    return value
