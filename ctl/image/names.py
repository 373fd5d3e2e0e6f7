"""``ctl image tag``, ``rm`` and ``prune``: names come and go."""

from typing import TYPE_CHECKING

import click

from ctl.cri.show import human_size
from ctl.errors import Failure
from ctl.image.group import familiar, image_command

if TYPE_CHECKING:
    from protos.knarr.images_pb2_grpc import ImagesStub

_PRUNE_WARNING = "WARNING! This will remove all {}.\nAre you sure you want to continue?"


@image_command("tag", short_help="Give an image one more name.")
@click.argument("source", metavar="IMAGE")
@click.argument("target", metavar="NAME[:TAG]")
async def tag(images: "ImagesStub", source: str, target: str) -> None:
    """Give an image one more name."""
    from protos.knarr import images_pb2 as pb

    await images.Tag(pb.TagRequest(source=source, target=target))


@image_command("rm", short_help="Remove images.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-f", "--force", is_flag=True, help="Also if it has several names, or a container uses it.")
async def rm(images: "ImagesStub", names: tuple[str, ...], force: bool) -> None:
    """Remove names of images; an image goes with its last name, or when named by its id."""
    import grpc

    from protos.knarr import images_pb2 as pb

    failed = False
    for name in names:
        try:
            answer = await images.Remove(pb.RemoveRequest(image=name, force=force))
        except grpc.aio.AioRpcError as err:
            if err.code() == grpc.StatusCode.UNAVAILABLE:
                raise
            click.echo(f"error: {err.details()}", err=True)
            failed = True
            continue
        for text in answer.untagged:
            click.echo(f"Untagged: {familiar(text)}")
        for text in answer.deleted:
            click.echo(f"Deleted: {text}")
    if failed:
        raise Failure(1)


@image_command("prune", short_help="Remove what nothing refers to.")
@click.option("-a", "--all", "every", is_flag=True, help="All images that no container uses, not just nameless ones.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
async def prune(images: "ImagesStub", every: bool, force: bool) -> None:
    """Remove nameless images and the build cache."""
    from protos.knarr import images_pb2 as pb

    what = "images that no container uses" if every else "images without a name, and the build cache"
    if not force:
        click.confirm(_PRUNE_WARNING.format(what), abort=True, err=True)
    answer = await images.Prune(pb.PruneRequest(all=every))
    if answer.deleted:
        click.echo("Deleted Images:")
    for text in answer.deleted:
        click.echo(f"deleted: {text}" if text.startswith("sha256:") else f"untagged: {familiar(text)}")
    click.echo(f"Total reclaimed space: {human_size(answer.freed_bytes)}")
