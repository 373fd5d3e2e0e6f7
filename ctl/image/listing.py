"""``ctl image ls``, ``inspect`` and ``history``: docker's tables and documents."""

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ctl.cri.show import human_duration, human_size
from ctl.image.group import familiar, image_command
from ctl.table import render

if TYPE_CHECKING:
    from protos.knarr.images_pb2 import HistoryEntry, Image
    from protos.knarr.images_pb2_grpc import ImagesStub

_NONE = "<none>"
_CREATED_BY_CHARACTERS = 45

_no_trunc = click.option("--no-trunc", is_flag=True, help="Show whole ids and commands.")


def short(digest: str, full: bool = False) -> str:
    """An id as people read it: 12 digits, or whole."""
    return digest if full else digest.partition(":")[2][:12]


@image_command("ls", short_help="List images.")
@click.argument("reference", default="", metavar="[REPOSITORY[:TAG]]")
@click.option("-q", "--quiet", is_flag=True, help="Print only ids.")
@click.option("--digests", is_flag=True, help="Show the digests that registries gave.")
@click.option("-a", "--all", "every", is_flag=True, help="Accepted for docker's sake; all images are listed.")
@_no_trunc
async def ls(images: "ImagesStub", reference: str, quiet: bool, digests: bool, every: bool, no_trunc: bool) -> None:
    """List images, newest first."""
    from protos.knarr import images_pb2 as pb

    found = (await images.List(pb.ListRequest(reference=reference))).images
    if quiet:
        ids = dict.fromkeys(short(image.id, no_trunc) for image in found)
        click.echo("".join(f"{image_id}\n" for image_id in ids), nl=False)
        return
    header = ["REPOSITORY", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "CREATED", "SIZE"]
    rows = [row for image in found for row in _rows(image, digests, no_trunc)]
    click.echo(render(header, rows), nl=False)


def _rows(image: "Image", digests: bool, full: bool) -> Iterator[list[str]]:
    end = [short(image.id, full), ago(image.created_s), human_size(image.size_bytes, 3)]
    for repository, tag, digest in _names(image):
        yield [repository, tag, *([digest] if digests else []), *end]


def _names(image: "Image") -> Iterator[tuple[str, str, str]]:
    """Repository, tag and digest of each row: one per tag, one per repository known by digest only."""
    by_repository = dict(familiar(name).split("@", 1) for name in image.repo_digests)
    tags = [familiar(name).rpartition(":") for name in image.repo_tags]
    for repository, _, tag in tags:
        yield repository, tag, by_repository.get(repository, _NONE)
    for repository, digest in by_repository.items():
        if not any(tagged == repository for tagged, _, _ in tags):
            yield repository, _NONE, digest
    if not tags and not by_repository:
        yield _NONE, _NONE, _NONE


def ago(created_s: int) -> str:
    """How long ago in docker's words."""
    return f"{human_duration(max(time.time() - created_s, 0))} ago"


@image_command("inspect", short_help="Show all about images, as JSON.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
async def inspect(images: "ImagesStub", names: tuple[str, ...]) -> None:
    """Show all about images, as JSON: docker's fields, and the OCI manifest."""
    from protos.knarr import images_pb2 as pb

    answers = [await images.Inspect(pb.InspectRequest(image=name)) for name in names]
    click.echo(json.dumps([_document(answer) for answer in answers], indent=4, ensure_ascii=False))


def _document(answer: Any) -> dict[str, Any]:
    config = json.loads(answer.config)
    rootfs = config.get("rootfs", {})
    return {
        "Id": answer.image.id,
        "RepoTags": [familiar(name) for name in answer.image.repo_tags],
        "RepoDigests": [familiar(name) for name in answer.image.repo_digests],
        "Created": config.get("created", ""),
        "Author": config.get("author", ""),
        "Architecture": config.get("architecture", ""),
        "Os": config.get("os", ""),
        "Size": answer.image.size_bytes,
        "Config": config.get("config", {}),
        "RootFS": {"Type": rootfs.get("type", "layers"), "Layers": rootfs.get("diff_ids", [])},
        "Manifest": json.loads(answer.manifest),
    }


@image_command("history", short_help="Show what made an image's layers.")
@click.argument("name", metavar="IMAGE")
@click.option("-q", "--quiet", is_flag=True, help="Print only ids.")
@_no_trunc
async def history(images: "ImagesStub", name: str, quiet: bool, no_trunc: bool) -> None:
    """Show what made an image's layers, newest first."""
    from protos.knarr import images_pb2 as pb

    entries = (await images.History(pb.HistoryRequest(image=name))).entries
    if quiet:
        click.echo("".join(f"{short(e.id, no_trunc) or '<missing>'}\n" for e in entries), nl=False)
        return
    header = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    click.echo(render(header, [_history_row(entry, no_trunc) for entry in entries]), nl=False)


def _history_row(entry: "HistoryEntry", full: bool) -> list[str]:
    command = " ".join(entry.created_by.split())
    if not full and len(command) > _CREATED_BY_CHARACTERS:
        command = command[: _CREATED_BY_CHARACTERS - 1] + "…"
    return [
        short(entry.id, full) or "<missing>",
        ago(entry.created_s) if entry.created_s else "N/A",
        command,
        human_size(entry.size_bytes, 3),
        entry.comment,
    ]
