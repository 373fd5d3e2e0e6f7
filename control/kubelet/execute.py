"""Carrying out a plan's actions: what each one means in CRI calls, files and API requests. No decisions here."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from control.client import errors
from control.kubelet.config import Inputs, container_config, hostname_of, log_directory, sandbox_config
from control.kubelet.env import ConfigError, Sources, environment
from control.kubelet.hooks import HookFailed, run_hook
from control.kubelet.images import Image, credentials
from control.kubelet.plan import (
    Action,
    FinishPod,
    PullImage,
    RemoveContainer,
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
    grace_of,
)
from control.kubelet.services import Subject
from control.kubelet.volumes import wanted_objects
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

STOP_MARGIN_S = 30.0
"""How much longer than the grace period a StopContainer call may take, seconds."""

MIN_GRACE_S = 2
"""What a container gets at least after its preStop hook, seconds."""


class Executor:
    """Carries out the actions of one pod."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.services = subject, subject.services
        self._prefetched: set[str] = set()
        self._hooked: set[str] = set()

    async def execute(self, action: Action) -> None:
        """Do ``action``. Raises RuntimeFailed, ImageProblem, ConfigError, ApiError, OSError."""
        match action:
            case RunSandbox():
                await self._run_sandbox(action)
            case PullImage():
                await self._prefetch(action.name)
            case StartContainer():
                await self._start(action)
            case StopContainer():
                await self._stop(action)
            case RemoveContainer():
                await self._call("RemoveContainer", cri.RemoveContainerRequest(container_id=action.id))
                self.services.runtime.forget([action.id])
            case StopSandbox():
                await self._call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=action.id))
            case RemoveSandbox():
                await self._remove_sandbox(action.id)
            case FinishPod():
                await self._finish()

    async def _call(self, name: str, request: Any) -> Any:
        return await self.services.runtime.call(name, request)

    # -- sandboxes -----------------------------------------------------------------------------------------------

    async def _run_sandbox(self, action: RunSandbox) -> None:
        pod = self._pod()
        for sandbox_id in action.replaces:
            self.subject.event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
            await self._call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
        config = sandbox_config(pod, action.attempt, self.services.node)
        await asyncio.to_thread(Path(config.log_directory).mkdir, parents=True, exist_ok=True)
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=pod.spec.runtimeClassName)
        await self._call("RunPodSandbox", request)

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        await self._call("StopPodSandbox", cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id))
        await self._call("RemovePodSandbox", cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id))
        known = self.subject.runtime.containers if self.subject.runtime is not None else ()
        self.services.runtime.forget(c.id for c in known if c.sandbox_id == sandbox_id)

    # -- containers ----------------------------------------------------------------------------------------------

    async def _start(self, action: StartContainer) -> None:
        spec = self._spec(action.name)
        container_id = action.created or await self._create(self._pod(), spec, action)
        await self._call("StartContainer", cri.StartContainerRequest(container_id=container_id))
        self.subject.event("Normal", "Started", f"Started container {spec.name}", spec.name)
        if spec.lifecycle.HasField("postStart"):
            await self._after_start(spec, container_id)

    async def _create(self, pod: core.Pod, spec: core.Container, action: StartContainer) -> str:
        image, node = await self._image(pod, spec), self.services.node
        sources = await self._sources(pod)
        inputs = await asyncio.to_thread(self._inputs, pod, spec, action.attempt, image, sources)
        config = container_config(pod, spec, action.attempt, action.backoff_s, node, inputs)
        runtime = self.subject.runtime
        attempt = runtime.sandbox.attempt if runtime is not None and runtime.sandbox is not None else 0
        request = cri.CreateContainerRequest(
            pod_sandbox_id=action.sandbox_id, config=config, sandbox_config=sandbox_config(pod, attempt, node)
        )
        answer = await self._call("CreateContainer", request)
        self.subject.event("Normal", "Created", f"Created container: {spec.name}", spec.name)
        return str(answer.container_id)

    def _inputs(self, pod: core.Pod, spec: core.Container, attempt: int, image: Image, sources: Sources) -> Inputs:
        """Everything on disk that the container needs; runs in a thread."""
        volumes = self.services.volumes
        Path(log_directory(pod, self.services.node), spec.name).mkdir(parents=True, exist_ok=True)
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

    async def _stop(self, action: StopContainer) -> None:
        """The preStop hook, then the container, both within the grace period."""
        self.subject.event("Normal", "Killing", action.reason, action.name)
        grace_s, spec = action.grace_s, self.subject.spec(action.name)
        if spec is not None and spec.lifecycle.HasField("preStop") and grace_s > 0 and action.id not in self._hooked:
            self._hooked.add(action.id)
            grace_s = await self._before_stop(spec, action)
        request = cri.StopContainerRequest(container_id=action.id, timeout=grace_s)
        await self.services.runtime.call("StopContainer", request, grace_s + STOP_MARGIN_S)

    # -- hooks ---------------------------------------------------------------------------------------------------

    async def _after_start(self, spec: core.Container, container_id: str) -> None:
        """A container whose postStart hook fails is stopped, and its restart policy decides."""
        try:
            await self._hook(spec.lifecycle.postStart, spec, container_id)
        except HookFailed as err:
            self.subject.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {err}", spec.name)
            reason = f"Container {spec.name} failed its postStart hook"
            await self._stop(StopContainer(container_id, spec.name, grace_of(self._pod()), reason))

    async def _before_stop(self, spec: core.Container, action: StopContainer) -> int:
        """Run the preStop hook; returns what is left of the grace period."""
        began = self.services.now()
        try:
            async with asyncio.timeout(action.grace_s):
                await self._hook(spec.lifecycle.preStop, spec, action.id)
        except (HookFailed, TimeoutError) as err:
            message = f"PreStopHook failed: {err or 'out of time'}"
            self.subject.event("Warning", "FailedPreStopHook", message, spec.name)
        return max(action.grace_s - round(self.services.now() - began), MIN_GRACE_S)

    async def _hook(self, handler: core.LifecycleHandler, spec: core.Container, container_id: str) -> None:
        ip = next(iter(self.subject.ips), "127.0.0.1")
        await run_hook(handler, spec, container_id, ip, self.services.runtime, self.services.http)

    # -- images --------------------------------------------------------------------------------------------------

    async def _prefetch(self, name: str) -> None:
        spec = self._spec(name)
        auths = credentials(spec.image, await self._pull_secrets(self._pod()))
        self._prefetched.add(name)

        def tell(type_: str, reason: str, message: str) -> None:
            self.subject.event(type_, reason, message, name)

        await self.services.images.prefetch(spec, auths, tell)

    async def _image(self, pod: core.Pod, spec: core.Container) -> Image:
        def tell(type_: str, reason: str, message: str) -> None:
            if not (reason == "Pulled" and "already present" in message and spec.name in self._prefetched):
                self.subject.event(type_, reason, message, spec.name)

        auths = credentials(spec.image, await self._pull_secrets(pod))
        image = await self.services.images.ensure(spec, auths, tell)
        self._prefetched.discard(spec.name)
        return image

    async def _pull_secrets(self, pod: core.Pod) -> list[core.Secret]:
        names = {reference.name for reference in pod.spec.imagePullSecrets}
        found = await self._fetch(core.Secret, names, pod.metadata.namespace)
        return [secret for secret in found.values() if secret is not None]

    # -- the API -------------------------------------------------------------------------------------------------

    async def refresh_volumes(self) -> None:
        """Write mounted ConfigMaps and Secrets again as they are now. Raises ConfigError, ApiError, OSError."""
        pod = self._pod()
        sources = await self._sources(pod)
        await asyncio.to_thread(self.services.volumes.mount, pod, sources)

    async def _sources(self, pod: core.Pod) -> Sources:
        """Fetch the objects that the pod refers to."""
        maps, secrets = wanted_objects(pod)
        found_maps, found_secrets = await asyncio.gather(
            self._fetch(core.ConfigMap, maps, pod.metadata.namespace),
            self._fetch(core.Secret, secrets, pod.metadata.namespace),
        )
        node = self.services.node
        return Sources(
            config_maps=found_maps,
            secrets=found_secrets,
            services=self.services.service_list(),
            host_ip=node.ip,
            node_name=node.name,
            pod_ips=self.subject.ips,
            allocatable=self.services.allocatable,
        )

    async def _fetch(self, cls: type[Any], names: set[str], namespace: str) -> dict[str, Any]:
        async def one(name: str) -> Any:
            try:
                return await self.services.client.get(cls, name, namespace=namespace)
            except errors.NotFound:
                return None

        ordered = sorted(names)
        return dict(zip(ordered, await asyncio.gather(*(one(name) for name in ordered)), strict=True))

    async def _finish(self) -> None:
        pod = self._pod()
        try:
            await self.services.client.delete(
                core.Pod, pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0, uid=self.subject.uid
            )
        except (errors.NotFound, errors.Conflict):
            log.debug("pod already gone", extra={"pod": self.subject.key})

    def _pod(self) -> core.Pod:
        """The pod, as the action's plan saw it or newer."""
        pod = self.subject.pod or self.subject.last_pod
        if pod is None:
            raise ConfigError("the pod is gone")
        return pod

    def _spec(self, name: str) -> core.Container:
        spec = self.subject.spec(name)
        if spec is None:
            raise ConfigError(f"the pod has no container {name}")
        return spec
