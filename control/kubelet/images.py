"""Images on the node: present or pulled by policy, one pull at a time per image, with back-off after failures.

Back-off is 10 s doubling to 5 min per image, as for containers; it lives in memory, so a restarted kubelet tries at
once.
"""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from control.kubelet.runtime import Runtime, RuntimeFailed
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)

BACKOFF_INITIAL_S, BACKOFF_MAX_S = 10.0, 300.0

Tell = Callable[[str, str, str], None]
"""(event type, reason, message)"""


class ImageProblem(Exception):
    """The image is not to be had now. ``reason`` is the waiting reason to show; ``retry_at`` when to try again."""

    def __init__(self, reason: str, message: str, retry_at: float) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry_at = reason, message, retry_at


@dataclass(frozen=True)
class Image:
    """An image that is there: what to create a container from, and who it runs as (uid, name, or None for unset)."""

    ref: str
    user: str | int | None = None


@dataclass
class _Backoff:
    delay_s: float
    until: float
    message: str


def pull_policy(spec: core.Container) -> str:
    """imagePullPolicy, or Kubernetes' default: Always for tag latest or no tag, else IfNotPresent."""
    if spec.imagePullPolicy:
        return spec.imagePullPolicy
    name = spec.image.rpartition("/")[2]
    tagless = ":" not in name and "@" not in spec.image
    return "Always" if tagless or name.endswith(":latest") else "IfNotPresent"


class Images:
    """The images of one runtime. ``now`` is the clock, seconds since the epoch."""

    def __init__(self, runtime: Runtime, now: Callable[[], float] = time.time) -> None:
        self._runtime, self._now = runtime, now
        self._pulls: dict[str, asyncio.Lock] = {}
        self._backoffs: dict[str, _Backoff] = {}

    async def ensure(self, spec: core.Container, auths: Iterable[cri.AuthConfig], tell: Tell) -> Image:
        """The image of ``spec``, pulled if its policy says so. Raises ImageProblem; RuntimeFailed if the runtime is
        down.
        """
        policy, name = pull_policy(spec), spec.image
        if policy != "Always":
            found = await self._find(name)
            if found is not None:
                tell("Normal", "Pulled", f'Container image "{name}" already present on machine')
                return found
        if policy == "Never":
            message = f'Container image "{name}" is not present with pull policy of Never'
            tell("Warning", "ErrImageNeverPull", message)
            raise ImageProblem("ErrImageNeverPull", message, self._now() + BACKOFF_INITIAL_S)
        async with self._pulls.setdefault(name, asyncio.Lock()):
            return await self._pull(name, policy, list(auths), tell)

    async def prefetch(self, spec: core.Container, auths: Iterable[cri.AuthConfig], tell: Tell) -> None:
        """Have the image ready early; a failure is told when the container itself needs it."""
        if pull_policy(spec) == "IfNotPresent" and await self._find(spec.image) is None:
            async with self._pulls.setdefault(spec.image, asyncio.Lock()):
                await self._pull(spec.image, "IfNotPresent", list(auths), tell)

    async def _find(self, name: str) -> Image | None:
        answer = await self._runtime.call("ImageStatus", cri.ImageStatusRequest(image=cri.ImageSpec(image=name)))
        return _image(answer.image) if answer.HasField("image") else None

    async def _pull(self, name: str, policy: str, auths: list[cri.AuthConfig], tell: Tell) -> Image:
        """Pull under the image's lock. With IfNotPresent another container may have pulled it while this one waited."""
        if policy == "IfNotPresent" and (found := await self._find(name)) is not None:
            tell("Normal", "Pulled", f'Container image "{name}" already present on machine')
            return found
        held = self._backoffs.get(name)
        if held is not None and held.until > self._now():
            raise ImageProblem("ErrImagePull", held.message, held.until)
        began = self._now()
        tell("Normal", "Pulling", f'Pulling image "{name}"')
        try:
            await self._pull_with(name, auths)
        except RuntimeFailed as err:
            if err.unavailable:
                raise
            raise self._failed(name, err, tell) from err
        self._backoffs.pop(name, None)
        found = await self._find(name)
        if found is None:
            raise ImageProblem("ErrImagePull", f"{name} was pulled but is not there", self._now() + BACKOFF_INITIAL_S)
        tell("Normal", "Pulled", f'Successfully pulled image "{name}" in {_duration(self._now() - began)}')
        return found

    async def _pull_with(self, name: str, auths: list[cri.AuthConfig]) -> None:
        """Try each credential, or none."""
        request = cri.PullImageRequest(image=cri.ImageSpec(image=name))
        for number, auth in enumerate(auths or [cri.AuthConfig()]):
            if auths:
                request.auth.CopyFrom(auth)
            try:
                await self._runtime.call("PullImage", request, timeout_s=None)
                return
            except RuntimeFailed:
                if number + 1 >= len(auths):
                    raise

    def _failed(self, name: str, err: RuntimeFailed, tell: Tell) -> ImageProblem:
        held = self._backoffs.get(name)
        delay = BACKOFF_INITIAL_S if held is None else min(2 * held.delay_s, BACKOFF_MAX_S)
        backoff = self._backoffs[name] = _Backoff(delay, self._now() + delay, str(err))
        tell("Warning", "Failed", f'Failed to pull image "{name}": {err}')
        tell("Warning", "Failed", "Error: ErrImagePull")
        log.info("image pull failed", extra={"image": name, "cause": str(err), "retry_s": delay})
        return ImageProblem("ErrImagePull", backoff.message, backoff.until)


def _image(image: cri.Image) -> Image:
    user: str | int | None = image.uid.value if image.HasField("uid") else image.username or None
    return Image(image.id, user)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.3f}s"


def credentials(image: str, secrets: Iterable[core.Secret]) -> list[cri.AuthConfig]:
    """The credentials for ``image`` in pull secrets of type dockerconfigjson or dockercfg."""
    found: list[cri.AuthConfig] = []
    for secret in secrets:
        for server, entry in _entries(secret).items():
            host = server.removeprefix("https://").removeprefix("http://").rstrip("/")
            if image == host or image.startswith(f"{host}/") or (_is_hub(host) and _on_hub(image)):
                found.append(_auth(server, entry))
    return found


def _entries(secret: core.Secret) -> Mapping[str, Mapping[str, str]]:
    try:
        if ".dockerconfigjson" in secret.data:
            entries = json.loads(secret.data[".dockerconfigjson"]).get("auths", {})
        else:
            entries = json.loads(secret.data.get(".dockercfg", b"{}"))
    except (ValueError, AttributeError):
        log.warning("pull secret is not readable", extra={"secret": secret.metadata.name})
        return {}
    return {server: entry for server, entry in entries.items() if isinstance(entry, dict)}


def _auth(server: str, entry: Mapping[str, str]) -> cri.AuthConfig:
    auth = cri.AuthConfig(server_address=server, username=entry.get("username", ""), password=entry.get("password", ""))
    if entry.get("auth") and not auth.username:
        user, _, password = base64.b64decode(entry["auth"]).decode(errors="replace").partition(":")
        auth.username, auth.password = user, password
    auth.identity_token = entry.get("identitytoken", "")
    return auth


def _is_hub(host: str) -> bool:
    return host.split("/")[0] in ("docker.io", "index.docker.io")


def _on_hub(image: str) -> bool:
    first = image.split("/")[0]
    return "/" not in image or not ("." in first or ":" in first or first == "localhost")
