"""The work of one stage: each action a layer, the cache's or a new one.

Which files a COPY takes is for :mod:`.copy`, how a command runs for the runner.
"""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cri_runtime.build import copy
from cri_runtime.build.archives import unpack_archive
from cri_runtime.build.cache import BuildCache, Record
from cri_runtime.build.diff import write_changes
from cri_runtime.build.download import is_url
from cri_runtime.build.errors import BuildError, StepFailed
from cri_runtime.build.explain import BELOW, FILE, TEXT, why
from cri_runtime.build.mounts import Bound, RunMount
from cri_runtime.build.owners import resolve_owner
from cri_runtime.build.request import BuildRequest, Tools
from cri_runtime.build.runner import RunError
from cri_runtime.build.state import Action, CopyFiles, MakeDirectory, RunCommand
from cri_runtime.images.digest import Digest
from cri_runtime.images.layer import LayerWriter, WrittenLayer
from cri_runtime.images.manifest import chain_ids
from cri_runtime.images.tree import Rel, Stack, Tree, split

_NO_RUN = "this runtime serves images only, and runs nothing: RUN needs python -m cri_runtime"
_LAST_LINES = 10
_FILES_NOTED_MAX = 2000


class Step(Protocol):
    """The instruction whose action is performed."""

    @property
    def text(self) -> str:
        """The instruction."""

    @property
    def place(self) -> str:
        """Names its place in the Dockerfile, the same in the next build."""

    def say(self, status: str, text: str) -> None:
        """Report about it."""


class Performer:
    """Performs actions of one stage. ``source(name, line)`` gives the chain ids of a stage or image."""

    def __init__(
        self,
        tools: Tools,
        request: BuildRequest,
        context: Tree,
        now: str,
        epoch: int | None,
        source: Callable[[str, int], Awaitable[Sequence[Digest]]],
    ) -> None:
        self._tools = tools
        self._store = tools.store
        self._request = request
        self._context = context
        self._now = now
        self._epoch = epoch
        self._source_chain = source

    async def perform(self, step: Step, action: Action, diff_ids: Sequence[Digest]) -> Record:
        """Do an action on the layers of ``diff_ids``. Returns the record of its layer; without layer: it needs none.

        Raises BuildError, other ImageErrors, OSError.
        """
        match action:
            case RunCommand():
                return await self._run(step, action, diff_ids)
            case MakeDirectory():
                return await self._make_directory(step, action, diff_ids)
            case CopyFiles():
                return await self._copy(step, action, diff_ids)

    # --- directories and files

    async def _make_directory(self, step: Step, action: MakeDirectory, diff_ids: Sequence[Digest]) -> Record:
        with ExitStack() as opened:
            stage = self._open(opened, chain_ids(diff_ids))
            owner = resolve_owner(action.owner, stage, action.line) or (0, 0)
            items = copy.plan_directory(action.path, stage, owner)
            return await self._layer_of(step, items, diff_ids) if items else Record(self._now)

    async def _copy(self, step: Step, action: CopyFiles, diff_ids: Sequence[Digest]) -> Record:
        with ExitStack() as opened:
            stage = self._open(opened, chain_ids(diff_ids))
            owner = resolve_owner(action.owner, stage, action.line)
            urls = [source for source in action.sources if is_url(source)] if action.extract else []
            local = tuple(source for source in action.sources if source not in urls)
            items: list[copy.Item] = []
            if local or action.documents:
                part = replace(action, sources=local)
                source = await self._source(opened, action)
                items = await asyncio.to_thread(copy.plan_copy, part, source, stage, owner)
                if action.extract:
                    items = await self._extract(opened, part, items, stage, owner)
            for url in urls:
                items = await self._add_url(opened, action, url, items, stage, owner)
            return await self._layer_of(step, items, diff_ids)

    async def _source(self, opened: ExitStack, action: CopyFiles) -> copy.Source:
        if not action.from_:
            return copy.Source(Stack([self._context]), "the build context", keeps_owner=False)
        chain = await self._source_chain(action.from_, action.line)
        return copy.Source(self._open(opened, chain), f"--from={action.from_}", keeps_owner=True)

    async def _add_url(
        self,
        opened: ExitStack,
        action: CopyFiles,
        url: str,
        items: list[copy.Item],
        stage: Stack,
        owner: copy.Owner | None,
    ) -> list[copy.Item]:
        """ADD from the net: a file of mode 0600 named as in the URL; not unpacked."""
        found = await self._tools.download(url, action.checksum)
        if not found.name and action.target.endswith("/"):
            raise StepFailed(action.line, f"{url} has no file name: say one in the target")
        folder = self._store.blobs.scratch()
        folder.mkdir(mode=0o700)
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        os.link(self._store.blobs.path(found.digest), folder / "file")
        tree = opened.enter_context(Tree(folder))
        target = action.target + found.name if action.target.endswith("/") else action.target
        mode = 0o600 if action.mode is None else action.mode
        single = replace(action, sources=("file",), documents=(), target=target, mode=mode, exclude=())
        source = copy.Source(Stack([tree]), url, keeps_owner=False)
        planned = await asyncio.to_thread(copy.plan_copy, single, source, stage, owner)
        dated = [replace(i, mtime_ns=found.mtime_s * 10**9) if i.kind == "file" else i for i in planned]
        merged = {item.target: item for item in [*items, *dated]}
        return [merged[target] for target in sorted(merged)]

    async def _extract(
        self, opened: ExitStack, action: CopyFiles, items: list[copy.Item], stage: Stack, owner: copy.Owner | None
    ) -> list[copy.Item]:
        """ADD: in place of each archive that was named, its contents."""
        named = {source.rpartition("/")[2] for source in action.sources}
        kept: dict[tuple[str, ...], copy.Item] = {}
        for item in items:
            inside = None
            if item.kind == "file" and item.source is not None and item.source[1][-1] in named:
                scratch = self._store.blobs.scratch()
                inside = await asyncio.to_thread(unpack_archive, item, scratch, opened)
            if inside is None:
                kept[item.target] = item
                continue
            whole = replace(action, sources=("/",), target=action.target.rstrip("/") + "/", extract=False)
            source = copy.Source(Stack([inside]), "the archive", keeps_owner=True)
            kept |= {i.target: i for i in await asyncio.to_thread(copy.plan_copy, whole, source, stage, owner)}
        return [kept[target] for target in sorted(kept)]

    async def _layer_of(self, step: Step, items: Sequence[copy.Item], diff_ids: Sequence[Digest]) -> Record:
        """The layer of these items on the stage: the cache's, or a new one."""
        if self._epoch is not None:
            items = [replace(item, mtime_ns=min(item.mtime_ns, self._epoch * 10**9)) for item in items]
        chain = chain_ids(diff_ids)
        prints = await asyncio.to_thread(copy.fingerprints, items)
        key = self._key("layer", chain, copy.fingerprint(prints))
        files = {f"{FILE}/{path}": digest for path, digest in [*prints.items()][:_FILES_NOTED_MAX]}
        record = self._cached(step, key, {BELOW: "".join(chain[-1:]), TEXT: step.text, **files})
        if record is None:
            record = self._recorded(await asyncio.to_thread(self._write, items), diff_ids)
            self._tools.cache.put(key, record)
        return record

    def _write(self, items: Sequence[copy.Item]) -> WrittenLayer:
        with LayerWriter(self._store.blobs) as writer:
            return copy.write_layer(items, writer)

    # --- commands

    async def _run(self, step: Step, action: RunCommand, diff_ids: Sequence[Digest]) -> Record:
        chain = chain_ids(diff_ids)
        network = self._network(action)
        async with AsyncExitStack() as used:
            mounts, marks, variables = await self._mounts(used, action)
            what = {
                "command": repr(action.argv) + action.script,
                "directory": action.working_dir,
                "user": action.user,
                **{f"variable {name}": value for name, value in action.environment.items()},
                **{f"mount {mount.target}": mark for mount, mark in zip(action.mounts, marks, strict=True)},
            }
            key = self._key("run", chain, sorted(what.items()))
            record = self._cached(step, key, {BELOW: "".join(chain[-1:]), TEXT: step.text, **what})
            if record is None:
                action = replace(action, network=network, environment={**action.environment, **variables})
                record = await self._run_anew(step, action, chain, diff_ids, mounts)
                self._tools.cache.put(key, record)
            return record

    def _network(self, action: RunCommand) -> str:
        wanted = action.network if action.network != "default" else self._request.network
        if wanted == "host" and self._request.network != "host":
            raise StepFailed(action.line, "--network=host is only for builds that are given --network host")
        return wanted

    async def _mounts(
        self, used: AsyncExitStack, action: RunCommand
    ) -> tuple[list[Bound], list[str], Mapping[str, str]]:
        """What to mount, what the cache compares of each, and variables that secrets make."""
        bounds, marks, variables = [], [], {}
        for mount in action.mounts:
            if mount.kind == "secret":
                secret = self._secret(mount, action.line)
                marks.append(f"secret {mount.id}")  # never its content: nothing may tell it
                if secret is not None and mount.env:
                    variables[mount.env] = secret.decode("utf-8", "surrogateescape")
                if secret is not None and mount.target:
                    owner = (mount.uid, mount.gid)
                    bounds.append(Bound(mount.target, readonly=True, content=secret, mode=mount.mode, owner=owner))
                continue
            if mount.kind == "bind":
                bound, mark = await self._bind(mount, action.line)
            elif mount.kind == "cache":
                place = await used.enter_async_context(self._tools.cache_mounts.use(mount))
                bound, mark = Bound(mount.target, place, readonly=mount.readonly), f"cache {mount.id}"
            else:
                bound, mark = Bound(mount.target, tmpfs_bytes=mount.size_bytes), f"tmpfs {mount.size_bytes}"
            bounds.append(bound)
            marks.append(mark)
        return bounds, marks, variables

    def _secret(self, mount: RunMount, line: int) -> bytes | None:
        if mount.required and mount.id not in self._request.secrets:
            raise StepFailed(line, f'the secret "{mount.id}" is required: give it with --secret id={mount.id},src=FILE')
        return self._request.secrets.get(mount.id)

    async def _bind(self, mount: RunMount, line: int) -> tuple[Bound, str]:
        """A path of the context, a stage or an image. The context is compared by content, others by what they are."""
        with ExitStack() as opened:
            chain: Sequence[Digest] = ()
            if mount.from_:
                chain = await self._source_chain(mount.from_, line)
                stack, layers = self._open(opened, chain), tuple(self._paths(chain))
            else:
                stack, layers = Stack([self._context]), (self._context.path,)
            place = stack.resolve(split(mount.source), follow_last=True)
            if stack.lookup(place) is None and place:
                raise StepFailed(line, f'--mount: "{mount.source}" is not in {mount.from_ or "the build context"}')
            mark = f"{''.join(chain[-1:])} {mount.source}"
            if not mount.from_:
                mark = await asyncio.to_thread(copy.fingerprint_of, stack, place)
            return Bound(mount.target, layers=layers, inside="/".join(place), readonly=mount.readonly), mark

    async def _run_anew(
        self,
        step: Step,
        action: RunCommand,
        chain: Sequence[Digest],
        diff_ids: Sequence[Digest],
        mounts: Sequence[Bound],
    ) -> Record:
        """Run a command; the record of what it changed, without layer when that is nothing."""
        if self._tools.runner is None:
            raise StepFailed(action.line, _NO_RUN)
        lower = self._paths(chain)
        if not lower:
            raise StepFailed(action.line, "RUN in an empty image: there is nothing to run; COPY a program first")
        last: list[str] = []

        def output(line: str) -> None:
            last[:] = [*last[-_LAST_LINES + 1 :], line]
            step.say("output", line)

        try:
            async with self._tools.runner.run(action, lower, output, mounts) as ran:
                if ran.exit_code:
                    raise StepFailed(action.line, _exit_text(action, ran.exit_code, last))
                targets = [mount.target for mount in mounts]
                layer = await asyncio.to_thread(self._write_changes, ran.upper, lower, targets)
        except RunError as err:
            raise StepFailed(action.line, f"cannot run {_shown(action)}: {err}") from err
        return Record(self._now) if layer is None else self._recorded(layer, diff_ids)

    def _write_changes(self, upper: Path, lower: Sequence[Path], targets: Sequence[str]) -> WrittenLayer | None:
        with ExitStack() as opened, LayerWriter(self._store.blobs) as writer:
            stack = Stack([opened.enter_context(Tree(path)) for path in lower])
            changed = opened.enter_context(Tree(upper))
            mounted: list[Rel] = [stack.resolve(split(target), follow_last=True) for target in targets]
            return write_changes(changed, stack, writer, self._epoch, mounted)

    # --- shared

    def _key(self, kind: str, chain: Sequence[Digest], what: object) -> str:
        epoch = [] if self._epoch is None else [self._epoch]  # it changes the times inside the layer
        return BuildCache.key(kind, chain[-1:], what, *epoch)

    def _recorded(self, layer: WrittenLayer, diff_ids: Sequence[Digest]) -> Record:
        return Record(self._now, layer.descriptor, layer.diff_id, chain_ids([*diff_ids, layer.diff_id])[-1])

    def _cached(self, step: Step, key: str, parts: Mapping[str, str]) -> Record | None:
        """The cache's record, if it may be used and its layer is there; says so, or why not."""
        before = self._tools.cache.note(step.place, _shortened(parts))
        record = self._tools.cache.get(key) if self._request.use_cache else None
        if record is None or (record.layer is not None and record.layer.digest not in self._store.blobs):
            step.say("missed", why(before, _shortened(parts), self._request.use_cache))
            return None
        step.say("cached", "")
        return record

    def _paths(self, chain: Sequence[Digest]) -> list[Path]:
        """The layers' directories, topmost first."""
        return [self._store.snapshots.path(chain_id) for chain_id in reversed(chain)]

    def _open(self, opened: ExitStack, chain: Sequence[Digest]) -> Stack:
        return Stack([opened.enter_context(Tree(path)) for path in self._paths(chain)])


def _shortened(parts: Mapping[str, str]) -> dict[str, str]:
    """Parts to note: values of variables and commands by their digest, as they may be secret or long."""
    return {
        key: value if key == TEXT else Digest.of(value.encode("utf-8", "surrogateescape"))
        for key, value in parts.items()
    }


def _shown(action: RunCommand) -> str:
    """The command for people: the shell's text, or the words."""
    return f'"{action.argv[-1] if action.shell else " ".join(action.argv)}"'


def _exit_text(action: RunCommand, code: int, last: Sequence[str]) -> str:
    said = "".join(f"\n    {line}" for line in last)
    return f"{_shown(action)} ended with exit code {code}{'; its last output:' if said else ''}{said}"


__all__ = ["BuildError", "Performer", "Step"]
