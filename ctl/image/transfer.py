"""``ctl image pull``, ``push``, ``save`` and ``load``: images between this node and the world."""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ctl.errors import CtlError
from ctl.image.build import joined
from ctl.image.context import CHUNK_BYTES
from ctl.image.credentials import find_login
from ctl.image.group import familiar, image_command
from ctl.image.output import write_stream
from ctl.image.progress import Transfer

if TYPE_CHECKING:
    from protos.knarr.images_pb2 import Auth
    from protos.knarr.images_pb2_grpc import ImagesStub

_credentials = click.option(
    "--creds", default="", metavar="USER[:PASSWORD]", help="Log in to the registry; asks for a missing password."
)
_quiet = click.option("-q", "--quiet", is_flag=True, help="Print only the result.")


def _auth(creds: str, name: str) -> "Auth | None":
    """``--creds``, else docker's login for the image's registry, else None: the runtime's own."""
    from protos.knarr import images_pb2 as pb

    if not creds:
        login = find_login(name)
        return None if login is None else pb.Auth(**vars(login))
    user, colon, password = creds.partition(":")
    return pb.Auth(username=user, password=password if colon else click.prompt("Password", hide_input=True, err=True))


def _repository(name: str) -> str:
    """The name without tag and digest."""
    head, slash, last = familiar(name).partition("@")[0].rpartition("/")
    return head + slash + last.partition(":")[0]


async def _follow(stream: Any, quiet: bool) -> str:
    """Show a transfer to its end; returns its result."""
    shown, result = Transfer(quiet=quiet), ""
    async for progress in stream:
        shown.show(progress)
        result = progress.result or result
    return result


@image_command("pull", short_help="Fetch an image from a registry.")
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("--platform", default="", metavar="OS/ARCH", help="Which variant [this machine's].")
@_credentials
@_quiet
async def pull(images: "ImagesStub", name: str, platform: str, creds: str, quiet: bool) -> None:
    """Fetch an image from the registry that its name begins with (docker.io when with none)."""
    from protos.knarr import images_pb2 as pb

    request = pb.PullRequest(image=name, platform=platform, auth=_auth(creds, name))
    image_id = await _follow(images.Pull(request), quiet)
    if not quiet:
        answer = await images.Inspect(pb.InspectRequest(image=image_id))
        digests = [digest.rpartition("@")[2] for digest in answer.image.repo_digests]
        click.echo("".join(f"Digest: {digest}\n" for digest in sorted(set(digests))), nl=False)
    click.echo(name)


@image_command("push", short_help="Send an image to a registry.")
@click.argument("name", metavar="NAME[:TAG]")
@click.argument("target", default="", metavar="[TARGET]")
@_credentials
@_quiet
async def push(images: "ImagesStub", name: str, target: str, creds: str, quiet: bool) -> None:
    """Send an image to the registry that its name begins with, or to TARGET; only what the registry lacks is sent."""
    from protos.knarr import images_pb2 as pb

    if not quiet:
        click.echo(f"The push refers to repository [{_repository(target or name)}]")
    digest = await _follow(
        images.Push(pb.PushRequest(image=name, target=target, auth=_auth(creds, target or name))), quiet
    )
    click.echo(f"{target or name}" if quiet else f"{target or name}: digest: {digest}")


@image_command("save", short_help="Write images to an archive.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", metavar="FILE", help="Where to [stdout].")
@click.option(
    "--format", "form", type=click.Choice(["docker", "oci"]), default="docker", help="docker also has a manifest.json."
)
async def save(images: "ImagesStub", names: tuple[str, ...], output: str | None, form: str) -> None:
    """Write images to a tar archive that docker, podman and skopeo read."""
    from protos.knarr import images_pb2 as pb

    kind = pb.SaveRequest.OCI_ARCHIVE if form == "oci" else pb.SaveRequest.DOCKER_ARCHIVE
    stream = images.Save(pb.SaveRequest(images=names, format=kind))
    if output is None and sys.stdout.isatty():
        raise CtlError("an archive is nothing for a terminal: use -o FILE, or redirect")
    await write_stream(stream, output or "-")


@image_command("load", short_help="Read images from an archive.")
@click.option("-i", "--input", "source", metavar="FILE", help="Where from [stdin].")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing.")
async def load(images: "ImagesStub", source: str | None, quiet: bool) -> None:
    """Read images from a tar archive of docker, podman, skopeo or ``ctl image save``."""
    if source is None and sys.stdin.isatty():
        raise CtlError("an archive is nothing to type: use -i FILE, or redirect")
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(Path(source).open("rb")) if source else sys.stdin.buffer  # noqa: ASYNC230
        answer = await images.Load(_chunks(file))
    for name in answer.images if not quiet else ():
        kind = "image ID" if name.startswith("sha256:") else "image"
        click.echo(f"Loaded {kind}: {familiar(name)}")


async def _chunks(file: BinaryIO) -> AsyncIterator[Any]:
    from protos.knarr import images_pb2 as pb

    async for data in joined(iter(lambda: file.read(CHUNK_BYTES), b"")):
        yield pb.Chunk(data=data)
