"""skopeo and umoci agree with us, both ways: registry, archives, layers."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from protos.knarr import images_pb2 as pb

pytestmark = pytest.mark.root
Call = Callable[..., Awaitable[Any]]
FILES = {"a": b"A", "b": b"B" * 100_000}
DOCKERFILE = 'FROM scratch\nCOPY a /d/a\nCOPY b /d/b\nCOPY a /gone\nUSER 5\nENV X=y\nENTRYPOINT ["/d/a"]\n'


async def pull(runtime: Any, name: str) -> str:
    """Pull over the socket; returns the id."""
    return str([message async for message in runtime.images.Pull(pb.PullRequest(image=name))][-1].result)


async def push(runtime: Any, name: str, target: str) -> str:
    """Push over the socket; returns the digest."""
    return str([m async for m in runtime.images.Push(pb.PushRequest(image=name, target=target))][-1].result)


async def test_skopeo_reads_what_we_pushed(runtime: Any, registry: str, build: Call, tool: Call) -> None:
    await build("x", DOCKERFILE, FILES)
    digest = await push(runtime, "x", f"{registry}/x:v1")
    done = await tool("skopeo", "inspect", "--tls-verify=false", f"docker://{registry}/x:v1")
    seen = json.loads(done.out)
    assert (seen["Digest"], len(seen["Layers"]), seen["Env"][-1]) == (digest, 3, "X=y")
    done = await tool("skopeo", "list-tags", "--tls-verify=false", f"docker://{registry}/x")
    assert json.loads(done.out)["Tags"] == ["v1"]


@pytest.mark.parametrize(
    ("form", "compression"), [("oci", "gzip"), ("oci", "zstd"), ("oci", "none"), ("v2s2", "gzip"), ("v2s2", "none")]
)
async def test_what_skopeo_pushed_comes_back_as_it_was(
    runtime: Any, registry: str, build: Call, tool: Call, tmp_path: Path, form: str, compression: str
) -> None:
    image_id = await build("x", DOCKERFILE, FILES)
    lower = [sorted(p.name for p in path.rglob("*")) for path in await runtime.room.store.lower_dirs(image_id)]
    await push(runtime, "x", f"{registry}/x:v1")
    options = ["--dest-compress", f"--dest-compress-format={compression}"] if compression != "none" else []
    options = options or ["--dest-decompress"]
    await tool("skopeo", "copy", "--src-tls-verify=false", *options, f"docker://{registry}/x:v1", f"dir:{tmp_path}/d")
    await tool(
        "skopeo",
        "copy",
        "--dest-tls-verify=false",
        "-f",
        form,
        f"dir:{tmp_path}/d",
        f"docker://{registry}/again:{form}",
    )
    await runtime.images.Remove(pb.RemoveRequest(image="x", force=True))
    await runtime.images.Prune(pb.PruneRequest(all=True))
    pulled = await pull(runtime, f"{registry}/again:{form}")
    image = runtime.room.store.get(pulled)
    assert (image.config.user, image.config.environment["X"], image.config.entrypoint) == ("5", "y", ("/d/a",))
    assert [sorted(p.name for p in path.rglob("*")) for path in await runtime.room.store.lower_dirs(pulled)] == lower


async def test_umoci_unpacks_what_we_built(runtime: Any, build: Call, tool: Call, tmp_path: Path) -> None:
    await build("x", DOCKERFILE, FILES)
    data = b"".join([c.data async for c in runtime.images.Save(pb.SaveRequest(images=["x"], format=1))])
    (tmp_path / "x.tar").write_bytes(data)
    await tool("skopeo", "copy", f"oci-archive:{tmp_path}/x.tar", f"oci:{tmp_path}/oci:x")
    await tool("umoci", "unpack", "--image", f"{tmp_path}/oci:x", f"{tmp_path}/bundle")
    assert (tmp_path / "bundle/rootfs/d/b").read_bytes() == FILES["b"]


async def test_whiteouts_of_umoci_hide_files(
    runtime: Any, registry: str, build: Call, tool: Call, tmp_path: Path
) -> None:
    await build("x", DOCKERFILE, FILES)
    await push(runtime, "x", f"{registry}/x:v1")
    layout, bundle = f"{tmp_path}/oci:x", f"{tmp_path}/bundle"
    await tool("skopeo", "copy", "--src-tls-verify=false", f"docker://{registry}/x:v1", f"oci:{layout}")
    await tool("umoci", "unpack", "--image", layout, bundle)
    (Path(bundle) / "rootfs/gone").unlink()
    (Path(bundle) / "rootfs/d/new").write_text("new")
    await tool("umoci", "repack", "--image", layout, bundle)
    await tool("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{registry}/x:v2")
    top = (await runtime.room.store.lower_dirs(await pull(runtime, f"{registry}/x:v2")))[0]
    assert (top / "gone").is_char_device()
    assert (top / "d/new").read_text() == "new"


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
async def test_archives_both_ways(runtime: Any, build: Call, tool: Call, tmp_path: Path, kind: str) -> None:
    image_id = await build("x", DOCKERFILE, FILES)
    form = pb.SaveRequest.DOCKER_ARCHIVE if kind == "docker-archive" else pb.SaveRequest.OCI_ARCHIVE
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    data = b"".join([c.data async for c in runtime.images.Save(pb.SaveRequest(images=["x"], format=form))])
    ours.write_bytes(data)
    await tool("skopeo", "copy", f"{kind}:{ours}", f"{kind}:{theirs}:y/z:v1")
    await runtime.images.Remove(pb.RemoveRequest(image="x"))

    async def chunks() -> Any:
        yield pb.Chunk(data=theirs.read_bytes())

    loaded = await runtime.images.Load(chunks())
    assert list(loaded.images) == ["docker.io/y/z:v1"]
    image = runtime.room.store.get("y/z:v1")
    assert image.config.entrypoint == ("/d/a",)
    assert image.config.diff_ids == runtime.room.store.get(image.id).config.diff_ids
    assert kind == "docker-archive" or image.id == image_id


async def test_skopeo_deletes_and_mirrors(runtime: Any, registry: str, build: Call, tool: Call, tmp_path: Path) -> None:
    await build("x", DOCKERFILE, FILES)
    await push(runtime, "x", f"{registry}/a/b/x:v1")
    (tmp_path / "sync").mkdir()
    source, target = f"{registry}/a/b/x", tmp_path / "sync"
    await tool("skopeo", "sync", "--src-tls-verify=false", "--src", "docker", "--dest", "dir", source, target)
    assert list(target.rglob("manifest.json"))
    await tool("skopeo", "delete", "--tls-verify=false", f"docker://{registry}/a/b/x:v1")
    with pytest.raises(Exception, match="not found in registry"):
        await pull(runtime, f"{registry}/a/b/x:v1")
