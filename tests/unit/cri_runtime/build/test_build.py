"""Builds from text to image: files, owners, config, cache. Needs root: layers are unpacked."""

import io
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from cri_runtime.build.errors import BuildError, DockerfileError, StepFailed
from cri_runtime.build.execute import Builder, BuildRequest
from cri_runtime.images.errors import InvalidReference, UnsafeLayer
from cri_runtime.images.store import ImageStore

pytestmark = pytest.mark.root
Build = Callable[..., Any]
PASSWD = "root:x:0:0::/:\napp:x:1000:1000::/:\n"
FILES = {"etc/passwd": PASSWD, "etc/group": "staff:x:50:\n"}


@pytest.mark.parametrize(
    ("instruction", "files"),
    [
        ("COPY a /x", {"x": "A"}),
        ("COPY a x", {"x": "A"}),
        ("COPY a /x/", {"x": None, "x/a": "A"}),
        ("COPY a d/e /x/", {"x": None, "x/a": "A", "x/e": "E"}),
        ("COPY d /x", {"x": None, "x/e": "E", "x/f": None, "x/f/g": "G", "x/l": "-> e"}),
        ("COPY d/ /x/", {"x": None, "x/e": "E", "x/f": None, "x/f/g": "G", "x/l": "-> e"}),
        ("COPY ./d/../a /x", {"x": "A"}),
        ("COPY ../a /x", {"x": "A"}),
        ("COPY /a /x", {"x": "A"}),
        ("COPY d/l /x", {"x": "E"}),
        ("COPY d/* /x/", {"x": None, "x/e": "E", "x/l": "E", "x/g": "G"}),
        ("COPY a* /x", {"x": "A"}),
        ("COPY [a-b] /x/", {"x": None, "x/a": "A"}),
        ('COPY ["b c", "/x y"]', {"x y": "BC"}),
        ("COPY --exclude=f --exclude=d/l d /x", {"x": None, "x/e": "E", "x/f": None, "x/f/g": "G"}),
        ("COPY <<EOF /x\n$V \\$V\nEOF", {"x": "v $V\n"}),
        ("COPY <<'EOF' /x\n$V\nEOF", {"x": "$V\n"}),
        ("WORKDIR /w/x\nCOPY a .", {"w": None, "w/x": None, "w/x/a": "A"}),
        ("WORKDIR w\nWORKDIR x\nCOPY a b", {"w": None, "w/x": None, "w/x/b": "A"}),
        ("COPY $V /$V", {"v": "V"}),
    ],
)
async def test_where_files_go(build: Build, instruction: str, files: dict[str, Any]) -> None:
    context = {"a": "A", "b c": "BC", "v": "V", "d/": None, "d/e": "E", "d/f/": None, "d/f/g": "G", "d/l": "-> e"}
    result = await build(f"FROM scratch\nENV V=v\n{instruction}", context)
    assert await result.files() == files


async def test_owners_and_modes(build: Build) -> None:
    result = await build(
        "FROM scratch\nCOPY . /\nCOPY a /root\nCOPY --chown=app a /named\nCOPY --chown=app:staff a /d/group\n"
        "COPY --chown=5:6 --chmod=0750 a /numbers\nUSER app\nWORKDIR /home/app",
        {"a": "A", **FILES},
    )
    assert await result.stat("root") == (0o644, 0, 0)
    assert await result.stat("named") == (0o644, 1000, 1000)
    assert await result.stat("d/group") == (0o644, 1000, 50)
    assert await result.stat("d") == (0o755, 1000, 50)
    assert await result.stat("numbers") == (0o750, 5, 6)
    assert await result.stat("home/app") == (0o755, 1000, 1000)
    assert await result.stat("home") == (0o755, 0, 0)


async def test_a_copy_through_a_link_of_the_image_stays_inside(build: Build) -> None:
    result = await build(
        "FROM scratch\nCOPY d /\nCOPY a /door/x",
        {"a": "A", "d/": None, "d/door": "-> /../etc/real", "d/l": "-> /etc/passwd"},
    )
    assert await result.files() == {
        "door": "-> /../etc/real",
        "l": "-> /etc/passwd",
        "etc": None,
        "etc/real": None,
        "etc/real/x": "A",
    }
    with pytest.raises(StepFailed, match="not in the build context"):
        await build("FROM scratch\nCOPY d/l /x", {"d/": None, "d/l": "-> /etc/passwd"})


async def test_directories_of_the_image_keep_what_they_are(build: Build) -> None:
    files = {"d/": None, "d/s/": None, "d2/": None, "d2/s/": None, "d2/s/f": "F"}
    result = await build("FROM scratch\nCOPY --chown=7:7 d /x\nCOPY d2 /x", files)
    assert await result.stat("x/s") == (0o755, 7, 7)
    assert (await result.files())["x/s/f"] == "F"


@pytest.mark.parametrize(
    ("instruction", "says"),
    [
        ("COPY nosuch /x", '"nosuch" is not in the build context'),
        ("COPY nosuch* /x", '"nosuch*" is not in the build context'),
        ("COPY ../../etc/passwd /x", "paths outside the context"),
        ("COPY a d /x", "a target that is a directory ends in /"),
        ("COPY d /x\nCOPY a /x/e/y", "is no directory in the image"),
        ("COPY a /x\nCOPY d /x", "is no directory in the image"),
        ("COPY d /x\nCOPY a /x", None),
        ("COPY --chown=nobody a /x", 'no user "nobody"'),
        ("COPY --chmod=rwx a /x", "octal mode"),
        ("RUN true", "serves images only"),
        ("EXPOSE 99999", "EXPOSE takes ports"),
        ("COPY --from=nosuch a b", "no such image here"),
        ("COPY ${X:?needed} /", "X: needed"),
    ],
)
async def test_failures_name_line_and_cause(
    build: Build, store: ImageStore, instruction: str, says: str | None
) -> None:
    text = f"FROM scratch\n{instruction}"
    files = {"a": "A", "d/": None, "d/e": "E"}
    if says is None:
        await build(text, files)
        return
    with pytest.raises(BuildError) as caught:
        await build(text, files, tags=["x"])
    assert says in str(caught.value)
    assert caught.value.line == 1 + len(instruction.split("\n"))
    assert store.images() == []


async def test_the_config_is_dockers(build: Build) -> None:
    text = """FROM scratch
COPY etc /etc
ARG VERSION=1
LABEL version=$VERSION "a b"='c d'
ENV A=1 B="two words" PATH=/bin
ENV C=$A-$B
EXPOSE 80 53/udp 7000-7001
VOLUME /data
USER app:staff
WORKDIR /srv
STOPSIGNAL SIGINT
HEALTHCHECK CMD ["true"]
SHELL ["/bin/bash", "-c"]
CMD a b
ENTRYPOINT ["x"]
MAINTAINER me
ONBUILD COPY . /
"""
    result = await build(text, FILES, build_args={"VERSION": "2"}, labels={"extra": "y"})
    config = result.image.config
    assert config.labels == {"version": "2", "a b": "c d", "extra": "y"}
    assert config.environment == {"A": "1", "B": "two words", "PATH": "/bin", "C": "1-two words"}
    assert config.exposed_ports == ("53/udp", "7000/tcp", "7001/tcp", "80/tcp")
    assert (config.volumes, config.user, config.working_dir) == (("/data",), "app:staff", "/srv")
    assert (config.stop_signal, config.healthcheck) == ("SIGINT", {"Test": ["CMD", "true"]})
    assert (config.cmd, config.entrypoint) == (("/bin/bash", "-c", "a b"), ("x",))
    assert (config.author, config.on_build) == ("me", ("COPY . /",))
    assert [h.empty_layer for h in config.history].count(False) == len(config.diff_ids)


async def test_a_new_entrypoint_resets_the_bases_command(build: Build) -> None:
    await build("FROM scratch\nCMD old", tags=["base"])
    assert (await build('FROM base\nENTRYPOINT ["x"]')).image.config.cmd is None
    assert (await build('FROM base\nCMD new\nENTRYPOINT ["x"]')).image.config.cmd == ("/bin/sh", "-c", "new")
    assert (await build("FROM base")).image.config.cmd == ("/bin/sh", "-c", "old")


async def test_arguments(build: Build) -> None:
    text = """ARG G=global
FROM scratch
ARG G
ARG N=default
ARG E=x
ENV E=env
LABEL g=$G n=$N e=$E u=$UNKNOWN a=$TARGETOS
ARG TARGETOS
LABEL b=$TARGETOS
"""
    labels = (await build(text, build_args={"N": "given"})).image.config.labels
    assert labels == {"g": "global", "n": "given", "e": "env", "u": "", "a": "", "b": "linux"}


async def test_stages(build: Build) -> None:
    text = """FROM scratch AS one
COPY --chown=7:8 a /out/a
FROM scratch AS unneeded
COPY nosuch /
FROM one AS two
COPY b /out/b
FROM scratch
COPY --from=two /out /got
COPY --from=0 /out/a /zero
"""
    result = await build(text, {"a": "A", "b": "B"})
    assert await result.files() == {"got": None, "got/a": "A", "got/b": "B", "zero": "A"}
    assert await result.stat("got/a") == (0o644, 7, 8)
    assert len(result.image.layers) == 2


async def test_triggers_of_the_base_run_first(build: Build) -> None:
    await build("FROM scratch\nONBUILD COPY a /from-trigger\nONBUILD LABEL x=y", tags=["base"])
    result = await build("FROM base\nCOPY a /b", {"a": "A"})
    assert await result.files() == {"from-trigger": "A", "b": "A"}
    assert result.image.config.labels == {"x": "y"}
    assert result.image.config.on_build == ()


def archive(mode: str) -> bytes:
    """A tar with a file of uid 9, compressed as ``mode`` says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}") as tar:
        info = tarfile.TarInfo("inside/f")
        info.size, info.uid = 1, 9
        tar.addfile(info, io.BytesIO(b"F"))
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["", "gz", "bz2", "xz"])
async def test_add_unpacks_local_archives(build: Build, mode: str) -> None:
    files = {"x.tar": archive(mode), "plain": "not an archive"}
    result = await build("FROM scratch\nADD x.tar plain /d/\nCOPY x.tar /kept", {**files})
    found = await result.stat("d/inside/f")
    assert found == (0o644, 9, 0)
    assert (await result.stat("kept"))[1] == 0


async def test_a_hostile_archive_is_refused(build: Build) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"))
    with pytest.raises(StepFailed, match="leads out"):
        await build("FROM scratch\nADD x.tar /", {"x.tar": buffer.getvalue()})


async def test_a_hostile_context_is_refused(builder: Builder, tmp_path: Any) -> None:
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"))
    with pytest.raises(UnsafeLayer):
        await builder.build(BuildRequest(b"FROM scratch", tmp_path / "c.tar"))
    assert not list((tmp_path / "store/ingest").iterdir())


async def test_a_repeated_build_is_the_same_image(build: Build) -> None:
    text = "FROM scratch\nCOPY a /a\nCMD x"
    first = await build(text, {"a": "A"}, tags=["one"])
    again = await build(text, {"a": "A"}, tags=["one"])
    assert again.image.id == first.image.id
    assert (first.cached, again.cached) == (0, 1)
    changed = await build(text, {"a": "B"})
    assert (changed.cached, changed.image.id == first.image.id) == (0, False)
    other = await build(text + "\nLABEL a=b", {"a": "A"})
    assert other.cached == 1
    anew = await build(text, {"a": "A"}, use_cache=False)
    assert anew.cached == 0
    assert anew.image.layers == first.image.layers


async def test_a_fixed_epoch_gives_one_digest_everywhere(build: Build, store: ImageStore, tmp_path: Any) -> None:
    text = "FROM scratch\nCOPY a /a\nCMD x"
    first = await build(text, {"a": "A"}, build_args={"SOURCE_DATE_EPOCH": "1"}, use_cache=False)
    other = Builder(ImageStore(tmp_path / "other"), builder_fetch)
    image = await other.build(
        BuildRequest(text.encode(), tmp_path / "context0.tar", build_args={"SOURCE_DATE_EPOCH": "1"})
    )
    assert image.id == first.image.id
    assert image.config.created == "1970-01-01T00:00:01Z"


async def builder_fetch(reference: str, platform: Any) -> Any:
    """No registry."""
    raise AssertionError(reference)


async def test_the_cache_survives_a_restart_and_the_loss_of_its_layer(
    build: Build, store: ImageStore, builder: Builder
) -> None:
    text = "FROM scratch\nCOPY a /a"
    first = await build(text, {"a": "A"}, tags=["one"])
    await store.remove("one")
    assert first.image.layers[0].descriptor.digest in store.blobs  # the cache holds it
    assert (await build(text, {"a": "A"})).cached == 1
    builder.cache.clear()
    await store.prune(unused=True)
    assert store.usage().used_bytes == 0


async def test_wrong_requests_are_named(build: Build, builder: Builder, tmp_path: Any) -> None:
    with pytest.raises(InvalidReference):
        await build("FROM scratch", tags=["Bad Tag"])
    with pytest.raises(BuildError, match="Dockerfile:1: nosuch: no such image here, and nosuch: not in registry"):
        await build("FROM nosuch")
    with pytest.raises(BuildError, match='no "Dockerfile" in the build context'):
        await builder.build(BuildRequest(None, None))
    with pytest.raises(DockerfileError, match="Dockerfile:2: unknown instruction RNU; did you mean RUN"):
        await build("FROM scratch\nRNU x")


async def test_two_builds_of_one_tag_at_once(build: Build, store: ImageStore) -> None:
    import asyncio

    results = await asyncio.gather(*(build("FROM scratch\nCOPY a /a", {"a": "A"}, tags=["t"]) for _ in range(4)))
    assert len({result.image.layers for result in results}) == 1
    assert store.get("t").id in {result.image.id for result in results}


async def test_a_new_directory_is_0755_whatever_the_context_itself_has(build: Build) -> None:
    result = await build("FROM scratch\nCOPY . /all\nCOPY . /b/\nCOPY d /like", {"d/": None, "d/f": "F"})
    assert [(await result.stat(path))[0] for path in ("all", "b", "like")] == [0o755, 0o755, 0o755]
