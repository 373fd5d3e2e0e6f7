"""Garbage collection while the registry serves: nothing stops, nothing that is used is lost.

First each repository loses the blobs that none of its manifests speaks of (and, where asked for, the manifests that no
tag leads to), if nobody linked or asked for them during the grace period: a client pushes blobs before their manifest.
A manifest cannot slip in between, as its repository is locked for that moment. Then blobs without any link go; what is
being linked meanwhile is spared (see :meth:`Repositories.linking`).

A client that needs longer than the grace period between blob and manifest is told MANIFEST_BLOB_UNKNOWN and pushes
again; a stored manifest never loses what it speaks of.
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from cri_runtime.images.digest import Digest
from cri_runtime.registry.manifests import Reading, read_manifest
from cri_runtime.registry.repositories import Repositories, Repository

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Policy:
    """When to collect, and what."""

    interval_s: float = 3600.0
    """0: never by itself."""
    grace_s: float = 3600.0
    untagged: bool = False
    """Also manifests that neither a tag, nor a tagged index, nor a subject leads to."""


@dataclass(frozen=True)
class Collected:
    """What a collection took away."""

    manifests: int = 0
    links: int = 0
    freed_bytes: int = 0


class Collector:
    """Collects the garbage of one storage."""

    def __init__(self, repositories: Repositories, policy: Policy) -> None:
        self._repositories = repositories
        self._policy = policy
        self._readings: dict[Digest, Reading] = {}

    async def run(self) -> None:
        """Collect at every interval until cancelled; does nothing when there is none."""
        while self._policy.interval_s:
            await asyncio.sleep(self._policy.interval_s)
            await self.collect()

    async def collect(self) -> Collected:
        """Collect once. Raises OSError."""
        manifests = links = 0
        async with self._repositories.sweeping() as sweep:
            for repository in await asyncio.to_thread(lambda: [*self._repositories.all()]):
                async with self._repositories.locks(repository.name):
                    gone = await asyncio.to_thread(self._thin, repository)
                manifests, links = manifests + gone[0], links + gone[1]
            freed = await asyncio.to_thread(sweep)
        self._readings.clear()
        collected = Collected(manifests, links, freed)
        log.info("garbage collected", extra=vars(collected))
        return collected

    def _thin(self, repository: Repository) -> tuple[int, int]:
        """Drop what a repository does not need: numbers of manifests and of blob links."""
        before = time.time() - self._policy.grace_s
        readings = {digest: self._read(repository, digest) for digest in repository.manifests()}
        reachable = _reachable(repository, readings) if self._policy.untagged else set(readings)
        dropped = 0
        for digest in set(readings) - reachable:
            if repository.manifest_time(digest) < before:
                repository.delete_manifest(digest, readings[digest].subject)
                del readings[digest]
                dropped += 1
        used = {blob for reading in readings.values() for blob in reading.blobs}
        unused = [d for d in repository.blobs() if d not in used and repository.blob_time(d) < before]
        return dropped, sum(repository.unlink_blob(digest) for digest in unused)

    def _read(self, repository: Repository, digest: Digest) -> Reading:
        if digest not in self._readings:
            data = self._repositories.blobs.read(digest)
            self._readings[digest] = read_manifest(data, repository.media_type(digest))
        return self._readings[digest]


def _reachable(repository: Repository, readings: dict[Digest, Reading]) -> set[Digest]:
    """Manifests that a tag leads to: by name, through an index, or as referrers of one that is reached."""
    referrers: dict[Digest, list[Digest]] = {}
    for digest, reading in readings.items():
        if reading.subject is not None:
            referrers.setdefault(reading.subject, []).append(digest)
    todo = [repository.resolve(tag) for tag in repository.tags()]
    reached: set[Digest] = set()
    while todo:
        digest = todo.pop()
        if digest in readings and digest not in reached:
            reached.add(digest)
            todo += [*readings[digest].manifests, *referrers.get(digest, ())]
    return reached
