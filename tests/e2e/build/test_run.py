"""RUN in real containers: what commands change becomes a layer, and nothing is left behind. Needs root."""

import asyncio
import io
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cri_runtime.build.errors import StepFailed
from cri_runtime.build.execute import Builder, BuildRequest
from cri_runtime.build.pod_runner import PodRunner
from cri_runtime.cgroups import Limits, detect
from cri_runtime.images.host.pack import from_host
from cri_runtime.images.store import Image, ImageStore
from cri_runtime.network.types import Attachment, PodIdentity, PortMapping
from cri_runtime.pod.client import Zygote
from cri_runtime.pod.records import Records
from cri_runtime.pod.world import World

pytestmark = pytest.mark.root
PROGRAMS = ("sh", "rm", "mv", "mkdir", "ln", "touch", "chmod", "chown", "id", "cat", "ls", "sleep", "grep", "tr")
Build = Callable[..., Awaitable[Image]]


class NoNetwork:
    """Pods with a loopback device only."""

    attached: set[str]

    def __init__(self) -> None:
        self.attached = set()

    async def attach(
        self, sandbox_id: str, netns: Path, pod: PodIdentity, port_mappings: Iterable[PortMapping] = ()
    ) -> Attachment:
        """Remember it."""
        assert netns.exists()
        self.attached.add(sandbox_id)
        return Attachment(["10.0.0.1"], "eth0", "02:00:00:00:00:01")

    async def detach(self, sandbox_id: str, netns: Path | None = None) -> None:
        """Forget it."""
        self.attached.discard(sandbox_id)


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="knarr-") as path:
        yield Path(path)


@pytest.fixture
async def world(base: Path) -> AsyncIterator[World]:
    """A node without network, and the check that builds leave nothing on it."""
    zygote = Zygote()
    zygote.start()
    records, store, network = Records(base / "root"), ImageStore(base / "root/images"), NoNetwork()
    world = World(base / "root", base / "state", records, detect(), store, network, zygote)  # type: ignore[arg-type]
    try:
        yield world
        assert network.attached == set()
        assert not [p for folder in ("root/containers", "state/pods") for p in (base / folder).glob("*")]
        assert str(base) not in Path("/proc/self/mounts").read_text()
        runner = PodRunner(world)
        assert not world.cgroups.children(runner.cgroup)
        assert not any(runner.cgroup in path for path, _, _ in os.walk("/sys/fs/cgroup"))
    finally:
        zygote.close()
        records.close()


@pytest.fixture
async def build(world: World, base: Path) -> Build:
    """``await build(text, {path: content}, lines, **request)`` on a base image with a shell and some programs."""

    async def fetch(reference: str, platform: Any) -> Image:
        raise AssertionError(reference)

    store: Any = world.images
    builder = Builder(store, fetch)
    builder.runner = PodRunner(world)
    await from_host(store, PROGRAMS, "base", search=os.environ["PATH"])

    async def run(
        text: str, files: dict[str, str] | None = None, lines: list[str] | None = None, **fields: Any
    ) -> Image:
        with tarfile.open(base / "context.tar", "w") as tar:
            for name, content in (files or {}).items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))

        def report(step: str, status: str, line: str) -> None:
            if lines is not None and status in ("output", "cached"):
                lines.append(line or status)

        return await builder.build(BuildRequest(text.encode(), base / "context.tar", **fields), report)

    return run


async def names_in(store: Any, image: Image) -> list[list[str]]:
    """What each layer above the base has, lowest first."""
    layers = []
    for layer in image.layers[1:]:
        with store.blobs.open(layer.descriptor.digest) as blob, tarfile.open(fileobj=blob) as tar:
            layers.append(tar.getnames())
    return layers


async def test_what_a_command_changes_is_the_layer(build: Build, world: World) -> None:
    text = """FROM base
COPY a /d/a
COPY b /d/b
RUN echo new > /d/new && rm /d/a && chmod 0700 /d/b && ln /d/new /d/hard && ln -s new /d/soft
RUN rm -r /d && mkdir /d && echo again > /d/again
RUN true
RUN id -u > /who
"""
    image = await build(text, {"a": "A", "b": "B"})
    assert await names_in(world.images, image) == [
        ["d", "d/a"],
        ["d/b"],
        ["d", "d/.wh.a", "d/b", "d/hard", "d/new", "d/soft"],
        ["d", "d/.wh..wh..opq", "d/again"],
        ["who"],
    ]
    assert [entry.empty_layer for entry in image.config.history[-4:]] == [False, False, True, False]
    again = await build("FROM scratch\nCOPY --from=base / /\n", tags=["copy"])
    assert again.layers


async def test_environment_user_directory_and_shells(build: Build) -> None:
    lines: list[str] = []
    text = """FROM base
ENV A=env
ARG B=arg
WORKDIR /work
RUN echo $A $B $PWD $HOME
RUN ["sh", "-c", "echo $0 exec", "form"]
USER nobody
RUN id -un; cat /etc/hostname
SHELL ["/bin/sh", "-e", "-c"]
RUN false; echo not here
"""
    with pytest.raises(StepFailed, match='Dockerfile:10: "false; echo not here" ended with exit code 1'):
        await build(text, lines=lines)
    assert lines == ["env arg /work /root", "form exec", "nobody", "build"]


async def test_here_documents(build: Build) -> None:
    lines: list[str] = []
    text = """FROM base
RUN <<EOF
echo one
echo $((1+1))
EOF
RUN cat <<A && cat <<B
a
A
b
B
RUN tr a b <<'EOF'
aaa
EOF
"""
    await build(text, lines=lines)
    assert lines == ["one", "2", "a", "b", "bbb"]


async def test_a_document_may_name_its_interpreter(build: Build, world: World) -> None:
    lines: list[str] = []
    image = await build("FROM base\nUSER nobody\nRUN <<EOF\n#!/bin/cat\nhello\nEOF\n", lines=lines)
    assert lines == ["#!/bin/cat", "hello"]
    assert await names_in(world.images, image) == []


async def test_mounts_of_every_kind(build: Build, world: World) -> None:
    lines: list[str] = []
    text = """FROM base AS made
RUN mkdir /out && echo made > /out/file && rm /etc/group
FROM base
ARG WHERE=/in/context
RUN --mount=target=$WHERE,source=dir --mount=from=made,source=/out,target=/in/made,rw \\
    cat /in/context/a /in/made/file && echo thrown away > /in/made/new
RUN --mount=from=made,target=/whole ls /whole/etc
RUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/x && cat /t/x && grep -c ' /t tmpfs .*size=1024k' /proc/mounts
RUN --mount=type=secret,id=s,env=SECRET,target=/run/s --mount=type=secret,id=none cat /run/s && echo $SECRET
RUN --mount=type=cache,target=/c,mode=0700 ls /c && echo kept > /c/kept
RUN --mount=type=cache,id=/c,target=/other cat /other/kept
RUN --mount=target=/in/context ! touch /in/context/no
"""
    image = await build(text, {"dir/a": "context\n"}, lines, secrets={"s": b"hidden"})
    assert lines == [
        *("context", "made", "nsswitch.conf", "passwd", "x", "1", "hiddenhidden", "kept"),
        "touch: cannot touch '/in/context/no': Read-only file system",
    ]
    assert await names_in(world.images, image) == []  # no trace, not even of mount points
    assert not any(b"hidden" in path.read_bytes() for path in world.root.rglob("*") if path.is_file())


async def test_mounts_take_part_in_the_cache_by_content(build: Build) -> None:
    lines: list[str] = []
    text = "FROM base\nRUN --mount=target=/c,source=a --mount=type=secret,id=s cat /c"
    await build(text, {"a": "1\n"}, lines, secrets={"s": b"1"})
    await build(text, {"a": "1\n"}, lines, secrets={"s": b"2"})
    await build(text, {"a": "2\n"}, lines)
    assert lines == ["1", "cached", "2"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--mount=source=none,target=/x", '"none" is not in the build context'),
        ("--mount=type=secret,id=s,required", 'the secret "s" is required'),
        ("--network=host", "only for builds that are given --network host"),
    ],
)
async def test_what_is_not_given_is_named(build: Build, flag: str, message: str) -> None:
    with pytest.raises(StepFailed, match=message) as caught:
        await build(f"FROM base\nRUN {flag} true")
    assert caught.value.line == 2


async def test_networks(build: Build, world: World) -> None:
    lines: list[str] = []
    text = (
        "FROM base\nRUN --network=none grep -c : /proc/net/dev\nRUN --network=host ls -i /proc/self/ns/net >/dev/null"
    )
    await build(text, lines=lines, network="host")
    assert lines == ["1"]
    assert world.network.attached == set()  # type: ignore[attr-defined]


async def test_a_cache_that_is_locked_is_used_by_one_at_a_time(build: Build) -> None:
    lines: list[str] = []
    run = "RUN --mount=type=cache,target=/c,sharing=locked [ ! -e /c/x ] && echo > /c/x && sleep 0.2 && rm /c/x"
    await build(
        f"FROM base AS a\n{run}\nFROM base AS b\nENV B=1\n{run}\nFROM base\nCOPY --from=a / /\nCOPY --from=b / /",
        lines=lines,
    )


async def test_a_failed_command_tells_its_line_code_and_last_words(build: Build, world: World) -> None:
    with pytest.raises(StepFailed) as caught:
        await build("FROM base\n\nRUN echo out; echo err >&2; exit 42", tags=["x"])
    assert caught.value.line == 3
    assert str(caught.value) == (
        'Dockerfile:3: "echo out; echo err >&2; exit 42" ended with exit code 42; its last output:\n    out\n    err'
    )
    with pytest.raises(StepFailed, match=r'Dockerfile:2: cannot run "/no/such": .*no such program'):
        await build('FROM base\nRUN ["/no/such"]')
    with pytest.raises(StepFailed, match="no user"):
        await build("FROM base\nUSER ghost\nRUN true")
    with pytest.raises(StepFailed, match="nothing to run"):
        await build("FROM scratch\nRUN true")


async def test_the_cache_remembers_commands(build: Build) -> None:
    lines: list[str] = []
    first = await build("FROM base\nRUN echo x; echo y > /y\nRUN true", lines=lines)
    again = await build("FROM base\nRUN echo x; echo y > /y\nRUN true", lines=lines)
    assert again.id == first.id
    assert lines == ["x", "cached", "cached"]
    await build("FROM base\nENV CHANGED=1\nRUN echo x; echo y > /y", lines=lines)
    assert lines[3:] == ["x"]


async def test_a_fixed_epoch_makes_commands_reproducible(build: Build) -> None:
    text = "FROM base\nRUN echo x > /x && mkdir -p /a/b"
    options: dict[str, Any] = {"build_args": {"SOURCE_DATE_EPOCH": "1000"}, "use_cache": False}
    first = await build(text, **options)
    assert (await build(text, **options)).id == first.id


async def test_commands_are_contained(build: Build) -> None:
    lines: list[str] = []
    status = "/proc/self/status"
    text = f"FROM base\nRUN echo pid $$; grep CapEff {status}; grep Seccomp: {status}; ls -d /proc/[0-9]*"
    await build(text, lines=lines)
    assert lines[0] == "pid 1"
    assert lines[1].split() == ["CapEff:", "00000000a80425fb"]  # docker's and containerd's default set
    assert lines[2].split() == ["Seccomp:", "2"]
    assert lines[3:] == ["/proc/1"]  # no other process is in sight


async def test_a_cancelled_build_leaves_nothing(build: Build, world: World) -> None:
    lines: list[str] = []
    task = asyncio.create_task(build("FROM base\nRUN echo started; sleep 1000", lines=lines))
    while not lines:
        assert not task.done(), task.result()
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_flood_of_output_arrives_whole(build: Build) -> None:
    lines: list[str] = []
    await build(
        "FROM base\nRUN i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo -n last", lines=lines
    )
    assert lines == [*(f"line {n}" for n in range(20000)), "last"]


async def test_what_a_killed_daemons_build_left_is_removed(world: World) -> None:
    runner = PodRunner(world)
    world.cgroups.create(f"{runner.cgroup}/left", Limits())
    PodRunner.after_recovery(world)
    assert not world.cgroups.children(runner.cgroup)
