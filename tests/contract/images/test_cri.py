"""CRI's image service, by the sentences of the CRI and what its validation suite asserts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from protos.cri import runtime_pb2 as cri
from protos.knarr import images_pb2 as pb

pytestmark = pytest.mark.root
Call = Callable[..., Awaitable[Any]]


def spec(name: str) -> cri.ImageSpec:
    """An image by name."""
    return cri.ImageSpec(image=name)


@pytest.fixture
async def pushed(runtime: Any, registry: str, build: Call) -> dict[str, str]:
    """Images in the registry, not in the store: name to id."""
    ids = {}
    for name, user in (("root", ""), ("uid", "USER 1002:x\n"), ("name", "USER www-data:x\n")):
        image_id = await build(name, f"FROM scratch\nCOPY f /f\n{user}", {"f": name.encode()})
        target = f"{registry}/test/{name}:v1"
        async for message in runtime.images.Push(pb.PushRequest(image=name, target=target)):
            ids["digest:" + name] = message.result
        ids[target] = ids[name] = image_id
    await runtime.images.Prune(pb.PruneRequest(all=True))
    return ids


async def test_pull_status_list_remove(runtime: Any, registry: str, pushed: dict[str, str]) -> None:
    name = f"{registry}/test/root:v1"
    pulled = await runtime.cri.PullImage(cri.PullImageRequest(image=spec(name)))
    assert pulled.image_ref == pushed[name]
    by_digest = f"{registry}/test/root@{pushed['digest:root']}"
    for reference in (name, pulled.image_ref, pulled.image_ref[:20], by_digest):
        image = (await runtime.cri.ImageStatus(cri.ImageStatusRequest(image=spec(reference)))).image
        assert (image.id, list(image.repo_tags), list(image.repo_digests)) == (pulled.image_ref, [name], [by_digest])
        assert image.size > 0
    listed = await runtime.cri.ListImages(cri.ListImagesRequest(filter=cri.ImageFilter(image=spec(name))))
    assert [i.id for i in listed.images] == [pulled.image_ref]
    streamed = [i.id async for page in runtime.cri.StreamImages(cri.StreamImagesRequest()) for i in page.images]
    assert streamed == [pulled.image_ref]
    await asyncio.gather(*(runtime.cri.RemoveImage(cri.RemoveImageRequest(image=spec(name))) for _ in range(3)))
    assert not (await runtime.cri.ImageStatus(cri.ImageStatusRequest(image=spec(name)))).HasField("image")
    assert not (await runtime.cri.ListImages(cri.ListImagesRequest())).images


async def test_by_digest_there_is_no_tag(runtime: Any, registry: str, pushed: dict[str, str]) -> None:
    name = f"{registry}/test/root@{pushed['digest:root']}"
    await runtime.cri.PullImage(cri.PullImageRequest(image=spec(name)))
    (image,) = (await runtime.cri.ListImages(cri.ListImagesRequest())).images
    assert (list(image.repo_tags), list(image.repo_digests)) == ([], [name])


async def test_the_user_is_a_number_or_a_name(runtime: Any, registry: str, pushed: dict[str, str]) -> None:
    images = {}
    for name in ("root", "uid", "name"):
        await runtime.cri.PullImage(cri.PullImageRequest(image=spec(f"{registry}/test/{name}:v1")))
        images[name] = (await runtime.cri.ImageStatus(cri.ImageStatusRequest(image=spec(pushed[name])))).image
    assert (images["uid"].uid.value, images["uid"].username) == (1002, "")
    assert (images["name"].HasField("uid"), images["name"].username) == (False, "www-data")
    assert (images["root"].HasField("uid"), images["root"].username) == (False, "")


async def test_verbose_status_has_the_config(runtime: Any, build: Call) -> None:
    await build("x", "FROM scratch\nLABEL a=b")
    answer = await runtime.cri.ImageStatus(cri.ImageStatusRequest(image=spec("x"), verbose=True))
    assert '"imageSpec"' in answer.info["info"]


async def test_the_file_system_is_told(runtime: Any, build: Call) -> None:
    await build("x", "FROM scratch\nCOPY f /f", {"f": b"x" * 1000})
    (filesystem,) = (await runtime.cri.ImageFsInfo(cri.ImageFsInfoRequest())).image_filesystems
    assert filesystem.timestamp > 0
    assert filesystem.used_bytes.value > 1000
    assert filesystem.inodes_used.value > 0
    assert filesystem.fs_id.mountpoint == str(runtime.room.store.root)


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("", grpc.StatusCode.INVALID_ARGUMENT, "empty"),
        ("Bad Name", grpc.StatusCode.INVALID_ARGUMENT, "invalid image name"),
        ("127.0.0.1:1/x", grpc.StatusCode.UNKNOWN, "RegistryUnavailable: 127.0.0.1:1/x:latest: registry 127.0.0.1:1"),
        ("REGISTRY/nosuch", grpc.StatusCode.NOT_FOUND, "not found in registry"),
    ],
)
async def test_failed_pulls(runtime: Any, registry: str, name: str, code: grpc.StatusCode, says: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await runtime.cri.PullImage(cri.PullImageRequest(image=spec(name.replace("REGISTRY", registry))))
    assert caught.value.code() == code
    assert says in str(caught.value.details())


async def test_a_pull_past_its_deadline_ends(runtime: Any, registry: str, pushed: dict[str, str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await runtime.cri.PullImage(cri.PullImageRequest(image=spec(f"{registry}/test/root:v1")), timeout=0.001)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    pulled = await runtime.cri.PullImage(cri.PullImageRequest(image=spec(f"{registry}/test/root:v1")))
    assert pulled.image_ref == pushed["root"]


async def test_absent_images_are_no_error(runtime: Any) -> None:
    assert not (await runtime.cri.ImageStatus(cri.ImageStatusRequest(image=spec("nosuch")))).HasField("image")
    await runtime.cri.RemoveImage(cri.RemoveImageRequest(image=spec("nosuch")))
    listed = await runtime.cri.ListImages(cri.ListImagesRequest(filter=cri.ImageFilter(image=spec("nosuch"))))
    assert not listed.images
