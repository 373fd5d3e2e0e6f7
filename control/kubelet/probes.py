"""Liveness, readiness and startup probes. ``Streak`` is pure; ``Prober`` asks.

Startup first: until it has succeeded once the others wait. A liveness or startup probe that fails
``failureThreshold`` times in a row wants the container restarted; readiness goes both ways.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from control.kubelet.http import Http, http_error
from control.kubelet.plan import Probed
from control.kubelet.runtime import Runtime, RuntimeFailed
from control.kubelet.state import Container
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core
from protos.k8s.intstr_pb2 import IntOrString

log = logging.getLogger(__name__)

OUTPUT_MAX = 1024

Tell = Callable[[core.Container, str, str], None]
"""(container, kind of probe, message): a probe failed."""


@dataclass(frozen=True)
class Streak:
    """A result that changes only after enough equal answers in a row."""

    result: bool
    successes: int = 0
    failures: int = 0

    def after(self, ok: bool, success_threshold: int, failure_threshold: int) -> "Streak":
        """The streak after one more answer."""
        successes, failures = (self.successes + 1, 0) if ok else (0, self.failures + 1)
        result = self.result
        if successes >= success_threshold:
            result = True
        elif failures >= failure_threshold:
            result = False
        return Streak(result, successes, failures)


@dataclass(frozen=True)
class Answer:
    """What one probe said."""

    ok: bool
    message: str = ""


class Prober:
    """Asks the probes of running containers; one task per container."""

    def __init__(self, runtime: Runtime, http: Http, changed: Callable[[], None], tell: Tell) -> None:
        self._runtime, self._http, self._changed, self._tell = runtime, http, changed, tell
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.results: dict[str, Probed] = {}

    def sync(self, pod: core.Pod, running: Mapping[str, Container], ip: str, tasks: asyncio.TaskGroup) -> None:
        """Probe exactly the containers in ``running`` (by name)."""
        live = {container.id for container in running.values()}
        for container_id in [known for known in self._tasks if known not in live]:
            self._tasks.pop(container_id).cancel()
            self.results.pop(container_id, None)
        for spec in (*pod.spec.initContainers, *pod.spec.containers):
            container = running.get(spec.name)
            if container is not None and container.id not in self._tasks and _has_probe(spec):
                self.results[container.id] = _first(pod, spec, container)
                probing = self._probe(spec, container, ip)
                self._tasks[container.id] = tasks.create_task(probing, name=f"probe-{spec.name}")

    def stop(self) -> None:
        """Ask no more."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _probe(self, spec: core.Container, container: Container, ip: str) -> None:
        waits = spec.HasField("startupProbe") and not self.results[container.id].started
        if waits and not await self._until_started(spec, container, ip):
            return
        async with asyncio.TaskGroup() as both:
            if spec.HasField("livenessProbe"):
                both.create_task(self._follow(spec, container, ip, "Liveness", spec.livenessProbe))
            if spec.HasField("readinessProbe"):
                both.create_task(self._follow(spec, container, ip, "Readiness", spec.readinessProbe))

    async def _until_started(self, spec: core.Container, container: Container, ip: str) -> bool:
        probe, streak = spec.startupProbe, Streak(False)
        await asyncio.sleep(probe.initialDelaySeconds)
        while True:
            answer = await self._ask(spec, container, ip, probe)
            streak = streak.after(answer.ok, 1, probe.failureThreshold or 3)
            if streak.result:
                self._set(container, started=True)
                return True
            self._tell(spec, "Startup", answer.message)
            if streak.failures >= (probe.failureThreshold or 3):
                self._set(container, failed="startup", grace_s=_grace(probe))
                return False
            await asyncio.sleep(probe.periodSeconds or 10)

    async def _follow(self, spec: core.Container, container: Container, ip: str, kind: str, probe: core.Probe) -> None:
        readiness = kind == "Readiness"
        streak = Streak(self.results[container.id].ready if readiness else True)
        await asyncio.sleep(probe.initialDelaySeconds)
        while True:
            answer = await self._ask(spec, container, ip, probe)
            streak = streak.after(answer.ok, probe.successThreshold or 1, probe.failureThreshold or 3)
            if not answer.ok:
                self._tell(spec, kind, answer.message)
            if readiness:
                self._set(container, ready=streak.result)
            elif not streak.result:
                self._set(container, failed="liveness", grace_s=_grace(probe))
                return
            await asyncio.sleep(probe.periodSeconds or 10)

    def _set(self, container: Container, **changes: object) -> None:
        old = self.results.get(container.id)
        if old is not None:
            new = replace(old, **changes)  # type: ignore[arg-type]
            if new != old:
                self.results[container.id] = new
                self._changed()

    async def _ask(self, spec: core.Container, container: Container, ip: str, probe: core.Probe) -> Answer:
        timeout_s, handler = probe.timeoutSeconds or 1, probe.handler
        try:
            async with asyncio.timeout(timeout_s + (1 if handler.HasField("exec") else 0)):
                if handler.HasField("exec"):
                    return await self._exec(container, list(handler.exec.command), timeout_s)
                if handler.HasField("httpGet"):
                    return await self._http_get(spec, handler.httpGet, ip)
                if handler.HasField("tcpSocket"):
                    return await _tcp(handler.tcpSocket.host or ip, port_number(spec, handler.tcpSocket.port))
                return await _grpc_health(ip, handler.grpc)
        except TimeoutError:
            return Answer(False, f"probe timed out after {timeout_s}s")
        except (OSError, http_error()) as err:
            return Answer(False, str(err))

    async def _exec(self, container: Container, command: list[str], timeout_s: int) -> Answer:
        request = cri.ExecSyncRequest(container_id=container.id, cmd=command, timeout=timeout_s)
        try:
            answer = await self._runtime.call("ExecSync", request, timeout_s + 1)
        except RuntimeFailed as err:
            return Answer(err.unavailable, str(err))
        output = (answer.stdout + answer.stderr)[:OUTPUT_MAX].decode(errors="replace").strip()
        return Answer(answer.exit_code == 0, output or f"exit code {answer.exit_code}")

    async def _http_get(self, spec: core.Container, action: core.HTTPGetAction, ip: str) -> Answer:
        url = http_url(action, ip, port_number(spec, action.port))
        headers = {header.name: header.value for header in action.httpHeaders}
        headers.setdefault("User-Agent", "kube-probe/1.36")
        async with self._http.get(url, headers=headers, allow_redirects=False, ssl=False) as response:
            ok = 200 <= response.status < 400
            return Answer(ok, "" if ok else f"HTTP probe failed with statuscode: {response.status}")


def _has_probe(spec: core.Container) -> bool:
    return any(spec.HasField(name) for name in ("livenessProbe", "readinessProbe", "startupProbe"))


def _first(pod: core.Pod, spec: core.Container, container: Container) -> Probed:
    """What holds before the first answer: not ready, unless this very instance was reported ready by an earlier
    kubelet.
    """
    reported = (*pod.status.initContainerStatuses, *pod.status.containerStatuses)
    known = next((s for s in reported if s.containerID.endswith(container.id)), None)
    return Probed(
        ready=not spec.HasField("readinessProbe") or (known is not None and known.ready),
        started=not spec.HasField("startupProbe") or (known is not None and known.started),
    )


def _grace(probe: core.Probe) -> int | None:
    return probe.terminationGracePeriodSeconds if probe.HasField("terminationGracePeriodSeconds") else None


def http_url(action: core.HTTPGetAction, ip: str, port: int) -> str:
    """The URL that an httpGet action asks for, on the pod's address unless it names another host."""
    host = action.host or ip
    shown = f"[{host}]" if ":" in host else host
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    return f"{(action.scheme or 'HTTP').lower()}://{shown}:{port}{path}"


def port_number(spec: core.Container, port: IntOrString) -> int:
    """A probe's port: a number, or the name of one of the container's ports. Raises OSError for an unknown name."""
    if port.type == 0:
        return port.intVal
    found = next((p.containerPort for p in spec.ports if p.name == port.strVal), None)
    if found is None and not port.strVal.isdigit():
        raise OSError(f"couldn't find port: {port.strVal} in container {spec.name}")
    return int(port.strVal) if found is None else found


async def _tcp(host: str, port: int) -> Answer:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return Answer(True)


async def _grpc_health(ip: str, action: core.GRPCAction) -> Answer:
    async with grpc.aio.insecure_channel(f"{ip}:{action.port}") as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=action.service)
            )
        except grpc.aio.AioRpcError as err:
            return Answer(False, err.details() or err.code().name)
    ok = answer.status == health_pb2.HealthCheckResponse.SERVING
    return Answer(ok, "" if ok else "service unhealthy (responded with status not SERVING)")
