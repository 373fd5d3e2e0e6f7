"""One pod's worker: look, decide, act, report; again whenever something changed. The latest pod wins.

Actions run beside the loop, so a container that takes its time to stop does not keep the pod from hearing a shorter
grace period. An action is never started while one with the same key runs, nor in the round whose look at the runtime
began before that one had ended: such a look is stale.
"""

import asyncio
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from control.api import meta
from control.client import errors
from control.kubelet import cgroups, qos
from control.kubelet.env import ConfigError
from control.kubelet.execute import Executor
from control.kubelet.images import ImageProblem
from control.kubelet.plan import (
    Action,
    Failure,
    FinishPod,
    PullImage,
    RemoveSandbox,
    RunSandbox,
    StartContainer,
    View,
    plan_pod,
)
from control.kubelet.podstatus import IMAGE_BACKOFF_SHOWS_AFTER_S, pod_status
from control.kubelet.probes import Prober
from control.kubelet.runtime import RuntimeFailed
from control.kubelet.services import Services, Subject
from control.kubelet.state import PodRuntime
from control.kubelet.volumes import wanted_objects
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

RETRY_S, RETRY_MAX_S = 1.0, 60.0
FORCED_GRACE_S = 1
MESSAGE_BYTES_MAX = 4096
REFRESH_S = 60.0
"""How often mounted ConfigMaps and Secrets are brought up to date, seconds."""


class PodWorker:
    """Runs one pod until nothing of it is left, neither in the API nor in the runtime."""

    def __init__(self, services: Services, uid: str) -> None:
        self.services, self.uid = services, uid
        self.subject = Subject(services, uid)
        self._executor = Executor(self.subject)
        self._forced = False
        self._wake = asyncio.Event()
        self._busy: set[tuple[str, ...]] = set()
        # How often an action was carried out since the runtime last looked different, and when it may be again.
        self._tried: dict[Action, tuple[int, float]] = {}
        self._failures: dict[str, Failure] = {}
        self._delays: dict[str, float] = {}
        self._told_backoff: set[tuple[str, str, int]] = set()
        self._prober = Prober(services.runtime, services.http, self.poke, self._tell_probe)

    # -- hearing -------------------------------------------------------------------------------------------------

    def update(self, pod: core.Pod) -> None:
        """The API has this version of the pod; an older one than we know is ignored."""
        if self.subject.accept(pod):
            self.poke()

    def gone(self) -> None:
        """The API has no such pod any more."""
        self._forced = self.subject.pod is not None
        self.subject.pod = None
        self.poke()

    def poke(self) -> None:
        """Look again: something may have changed."""
        self._wake.set()

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until nothing is left. What it raises is a bug or a broken node, and ends the kubelet."""
        async with asyncio.TaskGroup() as tasks:
            refreshing = tasks.create_task(self._refresh_volumes(), name="refresh-volumes")
            wake_at: float | None = None
            while not self._finished():
                await self._sleep(wake_at)
                wake_at = await self._round(tasks)
            self._prober.stop()
            refreshing.cancel()
        await asyncio.to_thread(self._clean)

    def _finished(self) -> bool:
        runtime = self.subject.runtime
        return self.subject.pod is None and runtime is not None and runtime.empty and not self._busy

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
            log.debug("runtime does not answer", extra={"pod": self.subject.key, "cause": str(err)})
            return now + RETRY_S
        if runtime != self.subject.runtime:
            self._tried.clear()
        self.subject.runtime, pod = runtime, self.subject.pod
        self._sync_probes(pod, runtime, tasks)
        view = View(self._prober.results, self._failures)
        plan = plan_pod(pod, runtime, view, now)
        idle = [action for action in plan.actions if action.key not in stale | self._busy]
        fresh = [action for action in idle if self._may_try(action, now)]
        # What is about to be destroyed is reported first: afterwards nobody knows how it ended.
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
        if pod is None or meta.is_deleting(pod) or runtime.sandbox is None:
            self._prober.stop()
            return
        running = {c.name: c for c in reversed(runtime.containers) if c.running}
        self._prober.sync(pod, running, next(iter(self.subject.ips), "127.0.0.1"), tasks)

    def _earliest(self, wakes: list[float], now: float) -> float | None:
        """The first of ``wakes``, or sooner the moment at which a failed pull shows as back-off."""
        shows = [f.at + IMAGE_BACKOFF_SHOWS_AFTER_S for f in self._failures.values() if f.reason == "ErrImagePull"]
        return min([*wakes, *(at for at in shows if at > now)], default=None)

    async def _refresh_volumes(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            pod = self.subject.pod
            if pod is None or meta.is_deleting(pod) or not any(wanted_objects(pod)) or self.subject.runtime is None:
                continue
            if any(container.running for container in self.subject.runtime.containers):
                try:
                    await self._executor.refresh_volumes()
                except (ConfigError, errors.ApiError, OSError) as err:
                    log.info("volumes not refreshed", extra={"pod": self.subject.key, "cause": str(err)})

    # -- acting --------------------------------------------------------------------------------------------------

    async def _perform(self, action: Action) -> None:
        name = action.name if isinstance(action, StartContainer | PullImage) else ""
        try:
            await self._executor.execute(action)
            if isinstance(action, StartContainer | RunSandbox):
                self._failures.pop(name, None)
                self._delays.pop(name, None)
        except ImageProblem as err:
            self._fail(name, err.reason, err.message, err.retry_at)
        except (ConfigError, ValueError) as err:  # ValueError: a field that validation let pass
            self.subject.event("Warning", "Failed", f"Error: {err}", name)
            self._fail(name, "CreateContainerConfigError", str(err))
        except (RuntimeFailed, OSError) as err:
            self._failed(action, name, err)
        except errors.ApiError as err:
            facts = {"pod": self.subject.key, "action": action.key[0], "cause": err.message}
            log.info("apiserver refused", extra=facts)
        finally:
            self._busy.discard(action.key)
            self.poke()

    def _failed(self, action: Action, name: str, err: RuntimeFailed | OSError) -> None:
        facts = {"pod": self.subject.key, "action": " ".join(action.key), "cause": str(err)}
        log.warning("action failed", extra=facts)
        if isinstance(action, RunSandbox):
            self.subject.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {err}")
            self._fail("", "FailedCreatePodSandBox", str(err))
        elif isinstance(action, StartContainer):
            self.subject.event("Warning", "Failed", f"Error: {err}", name)
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
            self._wrote(await services.client.update_status(changed))
        except errors.Conflict:
            await self._reread(pod)
        except errors.NotFound:
            log.debug("pod is gone", extra={"pod": self.subject.key})
        except errors.ApiError as err:
            log.info("status not reported", extra={"pod": self.subject.key, "cause": err.message})
            self._later(RETRY_S)

    async def _reread(self, pod: core.Pod) -> None:
        try:
            newest = await self.services.client.get(core.Pod, pod.metadata.name, namespace=pod.metadata.namespace)
        except errors.ApiError as err:
            log.debug("pod not read", extra={"pod": self.subject.key, "cause": err.message})
            self._later(RETRY_S)
            return
        newer = newest.metadata.resourceVersion != pod.metadata.resourceVersion
        if newest.metadata.uid == self.uid and newer:
            self._wrote(newest)
            self.poke()
        else:
            self._later(RETRY_S)

    def _wrote(self, pod: core.Pod) -> None:
        """A version that we wrote or read ourselves; only while the API is known to have the pod."""
        if self.subject.pod is not None:
            self.subject.accept(pod)

    def _tell_backoff(self, pod: core.Pod, status: core.PodStatus) -> None:
        for container in (*status.initContainerStatuses, *status.containerStatuses):
            reason = container.state.waiting.reason
            key = (container.name, reason, container.restartCount)
            if reason in ("CrashLoopBackOff", "ImagePullBackOff") and key not in self._told_backoff:
                self._told_backoff.add(key)
                self.subject.event("Warning", "BackOff", _backoff_text(pod, container), container.name)

    def _tell_probe(self, spec: core.Container, kind: str, message: str) -> None:
        self.subject.event("Warning", "Unhealthy", f"{kind} probe failed: {message}", spec.name)

    def _clean(self) -> None:
        """Remove what the node kept for the pod: volumes, logs, cgroup."""
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


def _last_words(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(MESSAGE_BYTES_MAX).decode(errors="replace")
    except OSError:
        return ""
