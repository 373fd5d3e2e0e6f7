"""``--output``: what a build made, as a directory or an archive beside the image."""

import asyncio
import os
import shutil
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ctl.errors import CtlError

if TYPE_CHECKING:
    from protos.knarr.images_pb2_grpc import ImagesStub

TYPES = ("image", "local", "tar", "oci", "docker")


@dataclass(frozen=True)
class Output:
    """One ``--output``."""

    kind: str
    path: str
    """``-`` is stdout; empty for an image."""


def parse_output(text: str) -> Output:
    """``DIR``, ``-``, or ``type=TYPE,dest=PATH``. Raises CtlError."""
    if "=" not in text:
        return Output("tar", "-") if text == "-" else Output("local", text)
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    kind, path = fields.pop("type", ""), fields.pop("dest", "")
    if kind not in TYPES or fields:
        raise CtlError(f"--output {text}: write type={'|'.join(TYPES)},dest=PATH, or just a directory")
    if kind == "local" and path in ("", "-"):
        raise CtlError(f"--output {text}: say where the directory is with dest=DIR")
    path = path or ("" if kind == "image" else "-")
    if path == "-" and sys.stdout.isatty():
        raise CtlError(f"--output {text}: an archive is nothing for a terminal: say dest=FILE, or redirect")
    return Output(kind, path)


async def write_output(images: "ImagesStub", output: Output, image_id: str, tags: tuple[str, ...]) -> None:
    """Write one output of a built image. A failure leaves no file. Raises CtlError, OSError."""
    from protos.knarr import images_pb2 as pb

    if output.kind == "image":
        return
    if output.kind in ("oci", "docker"):
        form = pb.SaveRequest.OCI_ARCHIVE if output.kind == "oci" else pb.SaveRequest.DOCKER_ARCHIVE
        stream = images.Save(pb.SaveRequest(images=tags or (image_id,), format=form))
    else:
        stream = images.Export(pb.ExportRequest(image=image_id))
    if output.kind == "local":
        await _unpack(stream, Path(output.path))
    else:
        await write_stream(stream, output.path)


async def write_stream(stream: Any, path: str) -> None:
    """Write chunks to a file, which is there whole or not at all; ``-`` is stdout."""
    if path == "-":
        await _copy(stream, sys.stdout.buffer)
        return
    target = Path(path)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            await _copy(stream, file)
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


async def _copy(stream: Any, file: BinaryIO) -> None:
    async for chunk in stream:
        await asyncio.to_thread(file.write, chunk.data)
    file.flush()


async def _unpack(stream: Any, target: Path) -> None:
    """Unpack a root file system into a directory, over what is there; owners only as root."""
    with tempfile.TemporaryFile() as spool:
        await _copy(stream, spool)
        spool.seek(0)
        await asyncio.to_thread(_extract, spool, target)


def _extract(spool: Any, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=spool) as tar:
        for entry in tar:
            place = target / entry.name
            if entry.isdev():
                continue  # a directory of files is wanted, not of devices
            if place.is_symlink() or (place.exists() and place.is_dir() != entry.isdir()):
                shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
            tar.extract(entry, target, numeric_owner=True, filter=_inside)


def _inside(entry: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
    """Names come from our own export, which has neither ``..`` nor a path through a link; link targets are free."""
    return entry


__all__ = ["Output", "parse_output", "write_output", "write_stream"]
