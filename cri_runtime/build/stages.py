"""The stages of a plan, one after the other: each instruction applied, each action a layer or the cache's.

Nothing here decides what instructions mean (that is :mod:`.state`) nor which files a COPY takes (:mod:`.copy`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cri_runtime.build import copy, parser, plan
from cri_runtime.build.archives import unpack_archive
from cri_runtime.build.cache import BuildCache, Record
from cri_runtime.build.diff import write_changes
from cri_runtime.build.errors import BuildError, PlanError, StepFailed
from cri_runtime.build.instructions import Instruction, read
from cri_runtime.build.owners import resolve_owner
from cri_runtime.build.request import BuildRequest, Report, Tools
from cri_runtime.build.runner import RunError
from cri_runtime.build.state import Action, CopyFiles, MakeDirectory, RunCommand, StageState, apply, begin
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import ImageError
from cri_runtime.images.layer import LayerWriter, WrittenLayer
from cri_runtime.images.manifest import (
    EPOCH,
    Descriptor,
    HistoryEntry,
    ImageConfig,
    Platform,
    chain_ids,
)
from cri_runtime.images.store import Image
from cri_runtime.images.tree import Stack, Tree

_NO_RUN = "this runtime serves images only, and runs nothing: RUN needs python -m cri_runtime"
_LAST_LINES = 10
_EPOCH_ARG = "SOURCE_DATE_EPOCH"


@dataclass
class _Built:
    """A stage as far as it is built."""

    state: StageState
    layers: list[Descriptor]
    """Lowest first, one per diff id of the config."""

    @property
    def chain(self) -> list[Digest]:
        return chain_ids(self.state.config.diff_ids)


class Stages:
    """One build under way."""

    def __init__(
        self,
        tools: Tools,
        request: BuildRequest,
        arrangement: plan.Plan,
        context: Tree,
        hold: Callable[[Iterable[Digest]], None],
        report: Report,
        platform: Platform,
        escape: str,
    ) -> None:
        self._tools = tools
        self._store = tools.store
        self._request = request
        self._plan = arrangement
        self._context = context
        self._hold = hold
        self._report = report
        self._platform = platform
        self._escape = escape
        self._built: dict[int, _Built] = {}
        self._step = 0
        self._steps = sum(1 + len(stage.instructions) for stage in arrangement.stages)
        self._now = _timestamp(request.build_args.get(_EPOCH_ARG))

    async def finish(self, names: Sequence[str]) -> Image:
        """Build all stages and add the last one's image."""
        if self._plan.unused_args:
            self._report("", "warning", f"no ARG takes the build arguments {', '.join(self._plan.unused_args)}")
        for stage in self._plan.stages:
            self._built[stage.number] = await self._stage(stage)
        last = self._built[self._plan.stages[-1].number]
        config = last.state.config
        config = replace(config, labels={**config.labels, **self._request.labels})
        return await self._store.add_config(self._dated(config), last.layers, names)

    def _dated(self, config: ImageConfig) -> ImageConfig:
        """When it was made: when an image of just this content was first made, so that a repeated build is the same."""
        key = BuildCache.key("image", Digest.of(config.to_bytes()))
        record = self._tools.cache.get(key) if self._may_use_cache else None
        record = record or Record(self._now)
        self._tools.cache.put(key, record)
        history = tuple(
            replace(entry, created=record.created) if entry.created == EPOCH else entry for entry in config.history
        )
        return replace(config, created=record.created, history=history)

    @property
    def _may_use_cache(self) -> bool:
        return self._request.use_cache and _EPOCH_ARG not in self._request.build_args

    async def _stage(self, stage: plan.Stage) -> _Built:
        built = await self._begin(stage)
        instructions = [*self._triggers(stage, built.state.config), *stage.instructions]
        built.state = begin(built.state)
        for instruction in instructions:
            await self._instruction(built, instruction)
        return built

    async def _begin(self, stage: plan.Stage) -> _Built:
        self._announce("running", f"FROM {self._title(stage.base)}" + (f" AS {stage.name}" if stage.name else ""))
        if isinstance(stage.base, int):
            base = self._built[stage.base]
            state = self._state(base.state.config)
            return _Built(state, [*base.layers])
        if stage.base == plan.SCRATCH:
            config = ImageConfig(os=self._platform.os, architecture=self._platform.architecture)
            return _Built(self._state(config), [])
        image = await self._image(stage.base, stage.line, stage.platform)
        return _Built(self._state(image.config), [layer.descriptor for layer in image.layers])

    def _title(self, base: int | str) -> str:
        if isinstance(base, str):
            return base
        return next(stage.title for stage in self._plan.stages if stage.number == base)

    def _state(self, config: ImageConfig) -> StageState:
        automatic = plan.platform_args(self._platform)
        given = {**automatic, **self._request.build_args}
        return StageState(config, given, self._plan.global_args, self._escape)

    async def _image(self, reference: str, line: int, platform: str = "") -> Image:
        try:
            wanted = Platform.parse(platform) if platform else self._platform
            image = await self._tools.base(reference, wanted, self._request.pull)
        except ImageError as err:
            raise BuildError(line, f"{reference}: {err}") from err
        self._hold(d for layer in image.layers for d in (layer.descriptor.digest, layer.chain_id))
        await self._store.lower_dirs(image.id)
        return image

    def _triggers(self, stage: plan.Stage, config: ImageConfig) -> Sequence[Instruction]:
        """What the base image's ONBUILD asks for."""
        if not config.on_build:
            return ()
        text = "\n".join(("FROM scratch", *config.on_build)).encode()
        triggered = read(parser.Dockerfile(parser.parse(text).nodes, self._escape))[1:]
        self._steps += len(triggered)
        return [replace(instruction, line=stage.line) for instruction in triggered]

    def _announce(self, status: str, text: str) -> None:
        if status == "running":
            self._step += 1
        self._report(f"{self._step}/{self._steps}", status, text)

    async def _instruction(self, built: _Built, instruction: Instruction) -> None:
        self._announce("running", instruction.text)
        built.state, action = apply(built.state, instruction)
        record = None
        if action is not None:
            try:
                record = await self._perform(built, action)
            except BuildError:
                raise
            except (ImageError, OSError) as err:
                raise StepFailed(instruction.line, f"{instruction.text}: {err}") from err
        created = record.created if record else EPOCH
        entry = HistoryEntry(created, instruction.text, empty_layer=record is None)
        built.state = built.state.change(history=(*built.state.config.history, entry))

    async def _perform(self, built: _Built, action: Action) -> Record | None:
        """Do an action. Returns the record of its layer, None when it needed none."""
        match action:
            case RunCommand():
                return await self._run(built, action)
            case MakeDirectory():
                return await self._make_directory(built, action)
            case CopyFiles():
                return await self._copy(built, action)

    async def _make_directory(self, built: _Built, action: MakeDirectory) -> Record | None:
        with ExitStack() as opened:
            stage = self._open_stage(opened, built.chain)
            owner = resolve_owner(action.owner, stage, action.line) or (0, 0)
            items = copy.plan_directory(action.path, stage, owner)
            return await self._layer_of(built, items) if items else None

    async def _copy(self, built: _Built, action: CopyFiles) -> Record:
        with ExitStack() as opened:
            stage = self._open_stage(opened, built.chain)
            owner = resolve_owner(action.owner, stage, action.line)
            source = await self._source(opened, action)
            items = await asyncio.to_thread(copy.plan_copy, action, source, stage, owner)
            if action.extract:
                items = await self._extract(opened, action, items, stage, owner)
            return await self._layer_of(built, items)

    async def _run(self, built: _Built, action: RunCommand) -> Record | None:
        chain = built.chain
        what = (action.argv, sorted(action.environment.items()), action.working_dir, action.user)
        key = BuildCache.key("run", chain[-1:], what)
        record = self._cached(key)
        if record is None:
            record = await self._run_anew(action, chain, built.state.config.diff_ids)
            self._tools.cache.put(key, record)
        if record.layer is None:
            return None
        await self._push_layer(built, record)
        return record

    async def _run_anew(self, action: RunCommand, chain: Sequence[Digest], diff_ids: Sequence[Digest]) -> Record:
        """Run a command; the record of what it changed, without layer when that is nothing."""
        if self._tools.runner is None:
            raise StepFailed(action.line, _NO_RUN)
        lower = [self._store.snapshots.path(chain_id) for chain_id in reversed(chain)]
        if not lower:
            raise StepFailed(action.line, "RUN in an empty image: there is nothing to run; COPY a program first")
        last: list[str] = []

        def output(line: str) -> None:
            last[:] = [*last[-_LAST_LINES + 1 :], line]
            self._report(f"{self._step}/{self._steps}", "output", line)

        try:
            async with self._tools.runner.run(action, lower, output) as ran:
                if ran.exit_code:
                    raise StepFailed(action.line, _exit_text(action, ran.exit_code, last))
                return await asyncio.to_thread(self._write_changes, ran.upper, lower, diff_ids)
        except RunError as err:
            raise StepFailed(action.line, f"cannot run {_shown(action)}: {err}") from err

    def _write_changes(self, upper: Path, lower: Sequence[Path], diff_ids: Sequence[Digest]) -> Record:
        epoch = self._request.build_args.get(_EPOCH_ARG)
        with ExitStack() as opened, LayerWriter(self._store.blobs) as writer:
            stack = Stack([opened.enter_context(Tree(path)) for path in lower])
            changed = opened.enter_context(Tree(upper))
            layer = write_changes(changed, stack, writer, int(epoch) if epoch else None)
        if layer is None:
            return Record(self._now)
        return Record(self._now, layer.descriptor, layer.diff_id, chain_ids([*diff_ids, layer.diff_id])[-1])

    def _cached(self, key: str) -> Record | None:
        """The cache's record, if it may be used and its layer is there; says so."""
        record = self._tools.cache.get(key) if self._request.use_cache else None
        if record is None or (record.layer is not None and record.layer.digest not in self._store.blobs):
            return None
        self._report(f"{self._step}/{self._steps}", "cached", "")
        return record

    def _open_stage(self, opened: ExitStack, chain: Sequence[Digest]) -> Stack:
        paths = [self._store.snapshots.path(chain_id) for chain_id in reversed(chain)]
        return Stack([opened.enter_context(Tree(path)) for path in paths])

    async def _source(self, opened: ExitStack, action: CopyFiles) -> copy.Source:
        if not action.from_:
            return copy.Source(Stack([self._context]), "the build context", keeps_owner=False)
        stages = {stage.number: stage for stage in self._plan.stages}
        current = next(s for s in self._plan.stages if s.number not in self._built)
        number = plan.find_stage(action.from_, current, stages)
        if number is not None:
            return copy.Source(
                self._open_stage(opened, self._built[number].chain), f"stage {action.from_}", keeps_owner=True
            )
        image = await self._image(action.from_, action.line)
        chain = [layer.chain_id for layer in image.layers]
        return copy.Source(self._open_stage(opened, chain), f"image {action.from_}", keeps_owner=True)

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

    async def _layer_of(self, built: _Built, items: Sequence[copy.Item]) -> Record:
        """The layer of these items on the stage: the cache's, or a new one."""
        chain = built.chain
        key = BuildCache.key("layer", chain[-1:], await asyncio.to_thread(copy.fingerprint, items))
        record = self._cached(key)
        if record is None:
            layer = await asyncio.to_thread(self._write, items)
            record = Record(
                self._now, layer.descriptor, layer.diff_id, chain_ids([*built.state.config.diff_ids, layer.diff_id])[-1]
            )
            self._tools.cache.put(key, record)
        await self._push_layer(built, record)
        return record

    def _write(self, items: Sequence[copy.Item]) -> WrittenLayer:
        with LayerWriter(self._store.blobs) as writer:
            return copy.write_layer(items, writer)

    async def _push_layer(self, built: _Built, record: Record) -> None:
        if record.layer is None or record.diff_id is None or record.chain_id is None:
            raise ValueError("a record without a layer")  # callers have looked
        self._hold([record.layer.digest, record.chain_id])
        built.layers.append(record.layer)
        built.state = built.state.change(diff_ids=(*built.state.config.diff_ids, record.diff_id))
        await self._store.snapshots.ensure(record.layer.digest, record.diff_id, built.chain)


def _shown(action: RunCommand) -> str:
    """The command for people: the shell's text, or the words."""
    return f'"{action.argv[-1] if action.shell else " ".join(action.argv)}"'


def _exit_text(action: RunCommand, code: int, last: Sequence[str]) -> str:
    said = "".join(f"\n    {line}" for line in last)
    return f"{_shown(action)} ended with exit code {code}{'; its last output:' if said else ''}{said}"


def _timestamp(epoch: str | None) -> str:
    if epoch is not None and not epoch.isdecimal():
        raise PlanError(0, f'{_EPOCH_ARG} is a number of seconds, not "{epoch}"')
    seconds = int(epoch) if epoch is not None else time.time()
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
