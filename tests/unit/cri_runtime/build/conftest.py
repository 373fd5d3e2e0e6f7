"""Builds in a store of their own."""

import io
import itertools
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.build.execute import Builder, BuildRequest
from cri_runtime.images.errors import NotInRegistry
from cri_runtime.images.manifest import Platform
from cri_runtime.images.store import Image, ImageStore
from cri_runtime.images.tree import Stack, Tree

Build = Callable[..., Awaitable["Result"]]


class Result:
    """A built image, its merged tree, and what was reported."""

    def __init__(self, store: ImageStore, image: Image, steps: list[tuple[str, str, str]]) -> None:
        self.store = store
        self.image = image
        self.steps = steps

    @property
    def cached(self) -> int:
        """How many steps the cache answered."""
        return sum(status == "cached" for _, status, _ in self.steps)

    async def files(self) -> dict[str, Any]:
        """Path to content, link target (``-> x``), or None for a directory."""
        trees = [Tree(path) for path in await self.store.lower_dirs(self.image.id)]
        stack, found = Stack(trees), {}

        def walk(at: tuple[str, ...]) -> None:
            for name in stack.listdir(at):
                place = (*at, name)
                entry = stack.lookup(place)
                assert entry is not None
                path = entry.tree.path.joinpath(*place)
                if entry.is_dir:
                    found["/".join(place)] = None
                    walk(place)
                else:
                    found["/".join(place)] = f"-> {path.readlink()}" if entry.is_link else path.read_text()

        walk(())
        for tree in trees:
            tree.close()
        return found

    async def stat(self, path: str) -> tuple[int, int, int]:
        """Mode, uid and gid."""
        for folder in await self.store.lower_dirs(self.image.id):
            if (folder / path).exists():
                st = (folder / path).stat()
                return st.st_mode & 0o7777, st.st_uid, st.st_gid
        raise FileNotFoundError(path)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """An empty image store."""
    return ImageStore(tmp_path / "store")


@pytest.fixture
def builder(store: ImageStore) -> Builder:
    """Builds into the store; no registry has anything."""

    async def fetch(reference: str, platform: Platform) -> Image:
        raise NotInRegistry("registry.example", f"{reference}: not in registry.example/{reference}")

    return Builder(store, fetch)


@pytest.fixture
def build(store: ImageStore, builder: Builder, tmp_path: Path) -> Build:
    """``await build(dockerfile_text, {path: content}, **request_fields)``; a ``-> x`` content is a link."""

    number = itertools.count()

    async def run(dockerfile: str, files: dict[str, Any] | None = None, **fields: Any) -> Result:
        context = tmp_path / f"context{next(number)}.tar"
        write_tar(context, files or {})
        steps: list[tuple[str, str, str]] = []
        request = BuildRequest(dockerfile.encode(), context, **fields)
        image = await builder.build(request, lambda *step: steps.append(step))
        return Result(store, image, steps)

    return run


def write_tar(path: Path, files: dict[str, Any]) -> None:
    """A context."""
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode, info.uid, info.gid, info.mtime = 0o644, 1234, 1234, 1_000_000
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str) and content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:]
            data = content if isinstance(content, bytes) else (content or "").encode()
            info.size = len(data) if info.type == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
