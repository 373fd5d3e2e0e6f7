"""What a build is asked for, and what it works with."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cri_runtime.build.cache import BuildCache
from cri_runtime.build.runner import Runner
from cri_runtime.images.manifest import Platform
from cri_runtime.images.store import Image, ImageStore

Report = Callable[[str, str, str], None]
"""Called with a step ("2/3"), a status (running, cached, output, warning) and a line for people."""


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


@dataclass(frozen=True)
class Tools:
    """What building needs of the runtime."""

    store: ImageStore
    cache: BuildCache
    runner: Runner | None
    """Who carries out RUN; None: nobody."""
    base: Callable[[str, Platform, bool], Awaitable[Image]]
    """The image of a name: the store's, else its registry's; with True the registry is asked first."""
