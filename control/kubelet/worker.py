"""One pod's worker: look, decide, act, report; again whenever something changed. The latest pod wins.

Actions run beside the loop, so a container that takes its time to stop does not keep the pod from hearing a shorter
grace period. An action is never started while one with the same key runs, nor in the round whose look at the runtime
began before that one had ended: such a look is stale.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from control.api import meta
from control.client import Client, errors
from control.client.events import EventRecorder
from control.kubelet import cgroups, qos
from control.kubelet.config import Inputs, Node, container_config, hostname_of, log_directory, sandbox_config
from control.kubelet.env import ConfigError, Sources, environment
from control.kubelet.images import Image, ImageProblem, Images, credentials
from control.kubelet.plan import (
    Action,
    Failure,
    FinishPod,
    PullImage,
    RemoveContainer,
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
    View,
    plan_pod,
    specs,
)
from control.kubelet.podstatus import pod_status
from control.kubelet.probes import Prober
from control.kubelet.runtime import Runtime, RuntimeFailed
from control.kubelet.state import PodRuntime
from control.kubelet.volumes import Volumes, wanted_objects
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

RETRY_S, RETRY_MAX_S = 1.0, 60.0
FORCED_GRACE_S = 1
MESSAGE_BYTES_MAX = 4096
STOP_MARGIN_S = 30.0


@dataclass
class Services:
    """What all pods of a node share."""

    client: Client
    runtime: Runtime
    images: Images
    volumes: Volumes
    node: Node
    recorder: EventRecorder
    http: aiohttp.ClientSession
    service_list: Callable[[], list[core.Service]]
    runtime_name: str = "knarr"
    allocatable: dict[str, str] = field(default_factory=dict)
    now: Callable[[], float] = time.time


class PodWorker:
    """Runs one pod until nothing of it is left, neither in the API nor in the runtime."""

    def __init__(self, services: Services, uid: str) -> None:
        self.services, self.uid = services, uid
        self.pod: core.Pod | None = None
        self.last_pod: core.Pod | None = None
        self.runtime: PodRuntime | None = None
        self._forced = False
        self._wake = asyncio.Event()
        self._busy: set[tuple[str, ...]] = set()
        # How often an action was carried out since the runtime last looked different, and when it may be again.
        self._tried: dict[Action, tuple[int, float]] = {}
        self._failures: dict[str, Failure] = {}
        self._delays: dict[str, float] = {}
        self._prefetched: set[str] = set()
        self._told_backoff: set[tuple[str, float]] = set()
        self._prober = Prober(services.runtime, services.http, self.poke, self._tell_probe)

    # -- hearing -------------------------------------------------------------------------------------------------

    def update(self, pod: core.Pod) -> None:
        """The API has this version of the pod; an older one than we know is ignored."""
        if self.pod is None or _version(pod) >= _version(self.pod):
            self.pod = self.last_pod = pod
            self.poke()

    def gone(self) -> None:
        """The API has no such pod any more."""
        self._forced = self.pod is not None
        self.pod = None
        self.poke()

    def poke(self) -> None:
        """Look again: something may have changed."""
        self._wake.set()

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until nothing is left. What it raises is a bug or a broken node, and ends the kubelet."""
        async with asyncio.TaskGroup() as tasks:
            wake_at: float | None = None
            while True:
                await self._sleep(wake_at)
                wake_at = await self._round(tasks)
                if self.pod is None and self.runtime is not None and self.runtime.empty and not self._busy:
                    break
            self._prober.stop()
        await asyncio.to_thread(self._clean)

    async def _sleep(self, wake_at: float | None) -> None:
        delay = None if wake_at is None else max(0.0, wake_at - self.services.now())
        try:
            async with asyncio.timeout(delay):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _round(self, tasks: asyncio.TaskGroup) -> float | None:
        """Look, decide, start what is to be done, report; returns when to look again."""
        stale = set(self._busy)
        now = self.services.now()
        try:
            runtime = await self._observe()
        except RuntimeFailed as err:
            log.warning("runtime does not answer", extra={"pod": self._name(), "cause": str(err)})
            return now + RETRY_S
        if runtime != self.runtime:
            self._tried.clear()
        self.runtime, pod = runtime, self.pod
        self._sync_probes(pod, runtime, tasks)
        view = View(self._prober.results, self._failures)
        plan = plan_pod(pod, runtime, view, now)
        idle = [action for action in plan.actions if action.key not in stale | self._busy]
        fresh = [action for action in idle if self._may_try(action, now)]
        destroys = any(isinstance(action, RemoveSandbox | FinishPod) for action in fresh)
        if pod is not None and destroys:
            await self._report(pod, runtime, view, now)
        for action in fresh:
            self._busy.add(action.key)
            tasks.create_task(self._perform(action), name=" ".join(action.key))
        if pod is not None and not destroys:
            await self._report(pod, runtime, view, now)
        held = [self._tried[action][1] for action in idle if action not in fresh]
        return self._earliest([*held, *([] if plan.wake_at is None else [plan.wake_at])], now)

    def _may_try(self, action: Action, now: float) -> bool:
        """False for an action that was carried out without effect, until its back-off is over: whatever the runtime
        does, this loop never spins."""
        times, again_at = self._tried.get(action, (0, 0.0))
        if now < again_at:
            return False
        self._tried[action] = (times + 1, now + min(RETRY_S * 2**times, RETRY_MAX_S))
        return True

    async def _observe(self) -> PodRuntime:
        runtime = await self.services.runtime.observe(self.uid)
        ended = [c for c in runtime.containers if c.over and c.message_path and not c.message]
        if ended:
            messages = await asyncio.to_thread(lambda: {c.id: _last_words(c.message_path) for c in ended})
            containers = tuple(replace(c, message=messages.get(c.id, c.message)) for c in runtime.containers)
            runtime = replace(runtime, containers=containers)
        return replace(runtime, grace_s=FORCED_GRACE_S) if self._forced else runtime

    def _sync_probes(self, pod: core.Pod | None, runtime: PodRuntime, tasks: asyncio.TaskGroup) -> None:
        sandbox = runtime.sandbox
        if pod is None or meta.is_deleting(pod) or sandbox is None:
            self._prober.stop()
            return
        running = {c.name: c for c in reversed(runtime.containers) if c.running}
        ip = sandbox.ips[0] if sandbox.ips else self.services.node.ip or "127.0.0.1"
        self._prober.sync(pod, running, ip, tasks)

    def _earliest(self, wakes: list[float], now: float) -> float | None:
        """The first of ``wakes``, or sooner the moment at which a failed pull shows as back-off."""
        shows = [f.at + 1.0 for f in self._failures.values() if f.reason == "ErrImagePull" and f.at + 1.0 > now]
        return min([*shows, *wakes], default=None)

    # -- acting --------------------------------------------------------------------------------------------------

    async def _perform(self, action: Action) -> None:
        name = action.name if isinstance(action, StartContainer | PullImage) else ""
        try:
            await self._act(action)
            if isinstance(action, StartContainer | RunSandbox):
                self._failures.pop(name, None)
                self._delays.pop(name, None)
        except ImageProblem as err:
            self._fail(name, err.reason, err.message, err.retry_at)
        except ConfigError as err:
            self._event("Warning", "Failed", f"Error: {err}", name)
            self._fail(name, "CreateContainerConfigError", str(err))
        except (RuntimeFailed, OSError) as err:
            self._failed(action, name, err)
        except errors.ApiError as err:
            log.info("apiserver refused", extra={"pod": self._name(), "action": action.key[0], "cause": err.message})
        finally:
            self._busy.discard(action.key)
            self.poke()

    def _failed(self, action: Action, name: str, err: RuntimeFailed | OSError) -> None:
        facts = {"pod": self._name(), "action": " ".join(action.key), "cause": str(err)}
        log.warning("action failed", extra=facts)
        if isinstance(action, RunSandbox):
            self._event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {err}")
            self._fail("", "FailedCreatePodSandBox", str(err))
        elif isinstance(action, StartContainer):
            self._event("Warning", "Failed", f"Error: {err}", name)
            self._fail(name, "CreateContainerError", str(err))

    def _fail(self, name: str, reason: str, message: str, retry_at: float | None = None) -> None:
        now = self.services.now()
        if retry_at is None:
            delay = self._delays[name] = min(2 * self._delays.get(name, RETRY_S / 2), RETRY_MAX_S)
            retry_at = now + delay
        held = self._failures.get(name)
        at = held.at if held is not None and held.reason == reason and held.retry_at == retry_at else now
        self._failures[name] = Failure(reason, message, at, retry_at)

    def _later(self, delay_s: float) -> None:
        asyncio.get_running_loop().call_later(delay_s, self.poke)

    async def _act(self, action: Action) -> None:
        call = self.services.runtime.call
        match action:
            case RunSandbox():
                await self._run_sandbox(action)
            case PullImage():
                await self._prefetch(action.name)
            case StartContainer():
                await self._start(action)
            case StopContainer():
                self._event("Normal", "Killing", action.reason, action.name)
                request = cri.StopContainerRequest(container_id=action.id, timeout=action.grace_s)
                await call("StopContainer", request, action.grace_s + STOP_MARGIN_S)
            case RemoveContainer():
                await call("RemoveContainer", cri.RemoveContainerRequest(container_id=action.id))
                self.services.runtime.forget([action.id])
            case StopSandbox():
                await call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=action.id))
            case RemoveSandbox():
                await call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=action.id))
                await call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=action.id))
                if self.runtime is not None:
                    self.services.runtime.forget(c.id for c in self.runtime.containers if c.sandbox_id == action.id)
            case FinishPod():
                await self._finish()

    async def _run_sandbox(self, action: RunSandbox) -> None:
        pod = self._needed_pod()
        call = self.services.runtime.call
        for sandbox_id in action.replaces:
            self._event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
            await call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
        config = sandbox_config(pod, action.attempt, self.services.node)
        await asyncio.to_thread(Path(config.log_directory).mkdir, parents=True, exist_ok=True)
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=pod.spec.runtimeClassName)
        await call("RunPodSandbox", request)

    async def _prefetch(self, name: str) -> None:
        pod = self._needed_pod()
        spec = next(spec for spec in specs(pod) if spec.name == name)
        auths = credentials(spec.image, await self._pull_secrets(pod))
        self._prefetched.add(name)
        await self.services.images.prefetch(
            spec, auths, lambda kind, reason, text: self._event(kind, reason, text, name)
        )

    async def _start(self, action: StartContainer) -> None:
        pod = self._needed_pod()
        spec = next(spec for spec in specs(pod) if spec.name == action.name)
        container_id = action.created or await self._create(pod, spec, action)
        await self.services.runtime.call("StartContainer", cri.StartContainerRequest(container_id=container_id))
        self._event("Normal", "Started", f"Started container {spec.name}", spec.name)

    async def _create(self, pod: core.Pod, spec: core.Container, action: StartContainer) -> str:
        image = await self._image(pod, spec)
        sources = await self._sources(pod)
        node = self.services.node
        (log_root := Path(log_directory(pod, node), spec.name)).mkdir(parents=True, exist_ok=True)
        log.debug("creating container", extra={"pod": self._name(), "container": spec.name, "logs": str(log_root)})
        inputs = await asyncio.to_thread(self._inputs, pod, spec, action.attempt, image, sources)
        config = container_config(pod, spec, action.attempt, action.backoff_s, node, inputs)
        sandbox_attempt = self.runtime.sandbox.attempt if self.runtime is not None and self.runtime.sandbox else 0
        request = cri.CreateContainerRequest(
            pod_sandbox_id=action.sandbox_id, config=config, sandbox_config=sandbox_config(pod, sandbox_attempt, node)
        )
        answer = await self.services.runtime.call("CreateContainer", request)
        self._event("Normal", "Created", f"Created container: {spec.name}", spec.name)
        return str(answer.container_id)

    async def _image(self, pod: core.Pod, spec: core.Container) -> Image:
        def tell(type_: str, reason: str, message: str) -> None:
            if not (reason == "Pulled" and "already present" in message and spec.name in self._prefetched):
                self._event(type_, reason, message, spec.name)

        auths = credentials(spec.image, await self._pull_secrets(pod))
        image = await self.services.images.ensure(spec, auths, tell)
        self._prefetched.discard(spec.name)
        return image

    def _inputs(self, pod: core.Pod, spec: core.Container, attempt: int, image: Image, sources: Sources) -> Inputs:
        """Everything on disk that the container needs; runs in a thread."""
        volumes = self.services.volumes
        mounts = []
        if not pod.spec.hostNetwork:
            hosts = volumes.hosts_file(pod, hostname_of(pod), sources.pod_ips)
            mounts.append(cri.Mount(container_path="/etc/hosts", host_path=str(hosts)))
        message = volumes.message_file(pod, spec.name, attempt)
        target = spec.terminationMessagePath or "/dev/termination-log"
        mounts.append(cri.Mount(container_path=target, host_path=str(message)))
        return Inputs(
            environment=environment(pod, spec, sources),
            volumes=volumes.mount(pod, sources),
            image_ref=image.ref,
            image_user=image.user,
            mounts=mounts,
            message_path=str(message),
        )

    async def _sources(self, pod: core.Pod) -> Sources:
        """Fetch the objects that the pod refers to."""
        maps, secrets = wanted_objects(pod)
        found_maps, found_secrets = await asyncio.gather(
            self._fetch(core.ConfigMap, maps, pod.metadata.namespace),
            self._fetch(core.Secret, secrets, pod.metadata.namespace),
        )
        sandbox = self.runtime.sandbox if self.runtime is not None else None
        node = self.services.node
        ips = (node.ip,) if pod.spec.hostNetwork else sandbox.ips if sandbox is not None else ()
        return Sources(
            found_maps, found_secrets, self.services.service_list(), node.ip, node.name, ips, self.services.allocatable
        )

    async def _pull_secrets(self, pod: core.Pod) -> list[core.Secret]:
        names = {reference.name for reference in pod.spec.imagePullSecrets}
        found = await self._fetch(core.Secret, names, pod.metadata.namespace)
        return [secret for secret in found.values() if secret is not None]

    async def _fetch(self, cls: type[Any], names: set[str], namespace: str) -> dict[str, Any]:
        async def one(name: str) -> Any:
            try:
                return await self.services.client.get(cls, name, namespace=namespace)
            except errors.NotFound:
                return None

        ordered = sorted(names)
        return dict(zip(ordered, await asyncio.gather(*(one(name) for name in ordered)), strict=True))

    async def _finish(self) -> None:
        pod = self._needed_pod()
        try:
            await self.services.client.delete(
                core.Pod, pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0, uid=self.uid
            )
        except (errors.NotFound, errors.Conflict):
            log.debug("pod already gone", extra={"pod": self._name()})

    # -- reporting -----------------------------------------------------------------------------------------------

    async def _report(self, pod: core.Pod, runtime: PodRuntime, view: View, now: float) -> None:
        """Write the pod's status if it differs from what the API has. A conflict means a newer pod: look again."""
        services = self.services
        status = pod_status(pod, runtime, view, now, services.node.ip, services.runtime_name)
        self._tell_backoff(pod, status)
        if status == pod.status:
            return
        changed: core.Pod = meta.copy_of(pod)
        changed.status.CopyFrom(status)
        try:
            self._accept(await services.client.update_status(changed))
        except errors.Conflict:
            await self._refresh(pod)
        except errors.NotFound:
            log.debug("pod is gone", extra={"pod": self._name()})
        except errors.ApiError as err:
            log.info("status not reported", extra={"pod": self._name(), "cause": err.message})
            self._later(RETRY_S)

    async def _refresh(self, pod: core.Pod) -> None:
        try:
            newest = await self.services.client.get(core.Pod, pod.metadata.name, namespace=pod.metadata.namespace)
        except errors.ApiError as err:
            log.debug("pod not read", extra={"pod": self._name(), "cause": err.message})
            self._later(RETRY_S)
            return
        if newest.metadata.uid == self.uid:
            self._accept(newest)
        self.poke()

    def _accept(self, pod: core.Pod) -> None:
        """A version that we wrote or read ourselves; only while the API is known to have the pod."""
        if self.pod is not None and _version(pod) >= _version(self.pod):
            self.pod = self.last_pod = pod

    def _tell_backoff(self, pod: core.Pod, status: core.PodStatus) -> None:
        for container in (*status.initContainerStatuses, *status.containerStatuses):
            reason = container.state.waiting.reason
            if reason in ("CrashLoopBackOff", "ImagePullBackOff"):
                key = (container.containerID + reason + container.name, float(container.restartCount))
                if key not in self._told_backoff:
                    self._told_backoff.add(key)
                    self._event("Warning", "BackOff", _backoff_text(pod, container), container.name)

    def _tell_probe(self, spec: core.Container, kind: str, message: str) -> None:
        self._event("Warning", "Unhealthy", f"{kind} probe failed: {message}", spec.name)

    def _event(self, type_: str, reason: str, message: str, container: str = "") -> None:
        if self.last_pod is None:
            return
        init = {spec.name for spec in self.last_pod.spec.initContainers}
        part = "initContainers" if container in init else "containers"
        path = f"spec.{part}{{{container}}}" if container else ""
        tell = self.services.recorder.normal if type_ == "Normal" else self.services.recorder.warning
        tell(self.last_pod, reason, message, path)

    # -- small things --------------------------------------------------------------------------------------------

    def _needed_pod(self) -> core.Pod:
        """The pod, as the action's plan saw it or newer."""
        pod = self.pod or self.last_pod
        if pod is None:
            raise ConfigError("the pod is gone")
        return pod

    @property
    def pod_name(self) -> str:
        """The pod's name, for messages."""
        return self.last_pod.metadata.name if self.last_pod is not None else self.uid

    def _name(self) -> str:
        if self.last_pod is not None:
            return meta.key(self.last_pod)
        return f"{self.runtime.namespace}/{self.runtime.name}" if self.runtime is not None else self.uid

    def _clean(self) -> None:
        """Remove what the node kept for the pod: volumes, cgroup, logs."""
        self.services.volumes.remove(self.uid)
        for directory in Path(self.services.node.log_root).glob(f"*_{self.uid}"):
            shutil.rmtree(directory, ignore_errors=True)
        if not self.services.node.systemd_cgroups:
            for tier in ("", "burstable/", "besteffort/"):
                cgroups.remove(f"/{qos.CGROUP_ROOT}/{tier}pod{self.uid}", cgroups.hierarchies())


def _backoff_text(pod: core.Pod, container: core.ContainerStatus) -> str:
    if container.state.waiting.reason == "ImagePullBackOff":
        return f'Back-off pulling image "{container.image}"'
    where = f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"
    return f"Back-off restarting failed container {container.name} in pod {where}"


def _version(pod: core.Pod) -> int:
    return int(pod.metadata.resourceVersion or 0)


def _last_words(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(MESSAGE_BYTES_MAX).decode(errors="replace")
    except OSError:
        return ""
