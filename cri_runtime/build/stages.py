"""The stages of a plan, at once where they do not need one another: each instruction applied, its action performed.

Nothing here decides what instructions mean (that is :mod:`.state`) nor how an action is done (:mod:`.perform`).
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cri_runtime.build import parser, plan
from cri_runtime.build.cache import BuildCache, Record
from cri_runtime.build.errors import BuildError, PlanError, StepFailed
from cri_runtime.build.instructions import Instruction, read
from cri_runtime.build.perform import Performer
from cri_runtime.build.request import BuildRequest, Report, Tools
from cri_runtime.build.state import StageState, apply, begin
from cri_runtime.images.digest import Digest
from cri_runtime.images.errors import ImageError
from cri_runtime.images.gather import gather
from cri_runtime.images.manifest import (
    EPOCH,
    Descriptor,
    HistoryEntry,
    ImageConfig,
    Platform,
    chain_ids,
)
from cri_runtime.images.store import Image
from cri_runtime.images.tree import Tree

_EPOCH_ARG = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True)
class _Step:
    """One instruction under way."""

    text: str
    place: str
    number: str
    """``2/7``, counted as steps begin."""
    report: Report

    def say(self, status: str, text: str) -> None:
        """Report about it."""
        self.report(self.number, status, text)


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
        self._built: dict[int, asyncio.Future[_Built]] = {}
        self._begun = 0
        self._steps = sum(1 + len(stage.instructions) for stage in arrangement.stages)
        epoch = request.build_args.get(_EPOCH_ARG)
        self._now = _timestamp(epoch)
        self._epoch = int(epoch) if epoch else None

    async def finish(self, names: Sequence[str]) -> Image:
        """Build all stages and add the last one's image."""
        if self._plan.unused_args:
            self._report("", "warning", f"no ARG takes the build arguments {', '.join(self._plan.unused_args)}")
        loop = asyncio.get_running_loop()
        self._built = {stage.number: loop.create_future() for stage in self._plan.stages}
        await gather([self._finish(stage) for stage in self._plan.stages])
        last = self._built[self._plan.stages[-1].number].result()
        config = last.state.config
        config = replace(config, labels={**config.labels, **self._request.labels})
        return await self._store.add_config(self._dated(config), last.layers, names)

    async def _finish(self, stage: plan.Stage) -> None:
        """Build a stage; those that wait for it go on. The first that fails ends all."""
        self._built[stage.number].set_result(await self._stage(stage))

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

        async def source(name: str, line: int) -> Sequence[Digest]:
            return await self._source(stage, name, line)

        performer = Performer(self._tools, self._request, self._context, self._now, self._epoch, source)
        for position, instruction in enumerate(instructions):
            place = " ".join([*self._request.tags[:1], self._request.target, stage.title, str(position)])
            await self._instruction(built, instruction, performer, self._announce(instruction.text, place))
        return built

    async def _source(self, stage: plan.Stage, name: str, line: int) -> Sequence[Digest]:
        """The chain ids of what ``--from=name`` means in a stage."""
        stages = {other.number: other for other in self._plan.stages}
        number = plan.find_stage(name, stage, stages)
        if number is not None:
            return (await self._built[number]).chain
        image = await self._image(name, line)
        return [layer.chain_id for layer in image.layers]

    async def _begin(self, stage: plan.Stage) -> _Built:
        self._announce(f"FROM {self._title(stage.base)}" + (f" AS {stage.name}" if stage.name else ""))
        if isinstance(stage.base, int):
            base = await self._built[stage.base]
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

    def _announce(self, text: str, place: str = "") -> _Step:
        self._begun += 1
        step = _Step(text, place, f"{self._begun}/{self._steps}", self._report)
        step.say("running", text)
        return step

    async def _instruction(self, built: _Built, instruction: Instruction, performer: Performer, step: _Step) -> None:
        built.state, action = apply(built.state, instruction)
        record = Record(EPOCH)
        if action is not None:
            try:
                record = await performer.perform(step, action, built.state.config.diff_ids)
                await self._push_layer(built, record)
            except StepFailed:
                raise
            except (ImageError, OSError) as err:
                if isinstance(err, BuildError) and err.line:
                    raise
                raise StepFailed(instruction.line, f"{instruction.text}: {err}") from err
        empty = record.layer is None
        entry = HistoryEntry(EPOCH if empty else record.created, instruction.text, empty_layer=empty)
        built.state = built.state.change(history=(*built.state.config.history, entry))

    async def _push_layer(self, built: _Built, record: Record) -> None:
        if record.layer is None or record.diff_id is None or record.chain_id is None:
            return
        self._hold([record.layer.digest, record.chain_id])
        built.layers.append(record.layer)
        built.state = built.state.change(diff_ids=(*built.state.config.diff_ids, record.diff_id))
        await self._store.snapshots.ensure(record.layer.digest, record.diff_id, built.chain)


def _timestamp(epoch: str | None) -> str:
    if epoch is not None and not epoch.isdecimal():
        raise PlanError(0, f'{_EPOCH_ARG} is a number of seconds, not "{epoch}"')
    seconds = int(epoch) if epoch is not None else time.time()
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
