"""What a build is asked for, and what it works with."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cri_runtime.build.cache import BuildCache, CacheMounts
from cri_runtime.build.runner import Runner
from cri_runtime.images.digest import Digest
from cri_runtime.images.manifest import Platform
from cri_runtime.images.store import Image, ImageStore

Report = Callable[[str, str, str], None]
"""Called with a step ("2/3"), a status (running, cached, missed, output, warning) and a line for people."""


@dataclass(frozen=True)
class BuildRequest:
    """One build."""

    dockerfile: bytes | None
    """Its text; None: it lies in the context at ``dockerfile_path``."""
    context: Path | None
    """A tar file; None: an empty context."""
    dockerfile_path: str = "Dockerfile"
    tags: Sequence[str] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    platform: str = ""
    use_cache: bool = True
    pull: bool = False
    """Ask the registry for base images that are here already."""
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """For ``RUN --mount=type=secret``, by id."""
    network: str = "default"
    """Of each RUN that does not say: ``default``, ``none`` or ``host``. With ``host`` a RUN may also say ``host``."""


@dataclass(frozen=True)
class Download:
    """A file from the net, as a blob of the store."""

    name: str
    digest: Digest
    mtime_s: int
    """When its server says it was changed; 0: it does not say."""


@dataclass(frozen=True)
class Tools:
    """What building needs of the runtime."""

    store: ImageStore
    cache: BuildCache
    runner: Runner | None
    """Who carries out RUN; None: nobody."""
    base: Callable[[str, Platform, bool], Awaitable[Image]]
    """The image of a name: the store's, else its registry's; with True the registry is asked first."""
    download: Callable[[str, str], Awaitable[Download]]
    """Fetches a URL, whose content must have the digest unless that is empty."""
    cache_mounts: CacheMounts
