"""``ctl image build`` and ``ctl image from-host``: what makes images."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ctl.errors import CtlError
from ctl.image.context import CHUNK_BYTES, DOCKERFILE, read_dockerfile, read_ignore, tar_directory
from ctl.image.group import familiar, image_command
from ctl.image.output import parse_output, write_output
from ctl.image.progress import Steps

if TYPE_CHECKING:
    from protos.knarr.images_pb2 import BuildRequest, BuildStart
    from protos.knarr.images_pb2_grpc import ImagesStub

_TAR_MAGIC_AT = 257
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0")


@image_command("build", short_help="Build an image from a Dockerfile.")
@click.argument("context", metavar="DIR|TAR|-")
@click.option("-t", "--tag", "tags", multiple=True, metavar="NAME[:TAG]", help="What to call the image; repeatable.")
@click.option("-f", "--file", "dockerfile", metavar="FILE", help="The Dockerfile [DIR/Dockerfile]; - is stdin.")
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Value of an ARG.")
@click.option("--label", "labels", multiple=True, metavar="NAME[=VALUE]", help="A label for the image.")
@click.option("--target", default="", metavar="STAGE", help="Build only up to this stage.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Build for this platform [this machine's].")
@click.option("--no-cache", is_flag=True, help="Do every step anew.")
@click.option("--pull", is_flag=True, help="Ask the registry for base images that are here already.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=NAME[,src=FILE|,env=VARIABLE]",
    help="A secret for RUN --mount=type=secret; repeatable.",
)
@click.option(
    "--network",
    type=click.Choice(["default", "none", "host"]),
    default="default",
    help="Network of RUN [a pod's own]; host also allows RUN --network=host.",
)
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="DIR|-|type=TYPE[,dest=PATH]",
    help="Also write the result: local (a directory), tar, oci or docker (archives); - is stdout; repeatable.",
)
@click.option("--explain", is_flag=True, help="Say of each step that is done anew why the cache did not have it.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the image's id.")
async def build(
    images: "ImagesStub",
    context: str,
    dockerfile: str | None,
    tags: tuple[str, ...],
    build_args: tuple[str, ...],
    labels: tuple[str, ...],
    secrets: tuple[str, ...],
    outputs: tuple[str, ...],
    explain: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Build an image from the Dockerfile and the files of DIR.

    DIR is sent to the runtime without what its .dockerignore names. A tar archive, or - for one on stdin, serves
    too; text on stdin is a Dockerfile without context.

    \b
        ctl image build -t kubia examples/kubia
    """
    from protos.knarr import images_pb2 as pb

    wanted = [parse_output(text) for text in outputs]
    start = pb.BuildStart(
        tags=tags,
        build_args=dict(_build_arg(arg) for arg in build_args),
        labels=dict(_pair(x) for x in labels),
        secrets=dict(read_secret(text) for text in secrets),
        **options,
    )
    chunks = _open_context(context, dockerfile, start)
    result = ""
    to_stdout = any(output.path == "-" for output in wanted)
    steps = Steps(sys.stderr if to_stdout else None, quiet=quiet, explain=explain)
    async for progress in images.Build(_requests(start, chunks)):
        steps.show(progress)
        result = progress.result or result
    for output in wanted:
        await write_output(images, output, result, tags)
    if not to_stdout:
        _announce(result, tags, quiet)


def _announce(image_id: str, tags: tuple[str, ...], quiet: bool) -> None:
    if quiet:
        click.echo(image_id)
        return
    click.echo(f"Successfully built {image_id.partition(':')[2][:12]}")
    for tag in tags:
        click.echo(f"Successfully tagged {familiar(tag)}" + ("" if ":" in tag.rpartition("/")[2] else ":latest"))


def _build_arg(text: str) -> tuple[str, str]:
    """``NAME=VALUE``; ``NAME`` alone takes the environment's value. Raises CtlError when there is none."""
    name, equals, value = text.partition("=")
    if not equals and name not in os.environ:
        raise CtlError(f"--build-arg {name}: give it a value, {name}=VALUE; the environment has no {name} either")
    return name, value if equals else os.environ[name]


def read_secret(text: str) -> tuple[str, bytes]:
    """Id and content of ``id=NAME,src=FILE`` or ``id=NAME,env=VARIABLE``; by default the variable or file NAME."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    name = fields.pop("id", "")
    source = fields.pop("src", fields.pop("source", ""))
    variable = fields.pop("env", "" if source or name not in os.environ else name)
    fields.pop("type", "")
    if not name or fields:
        raise CtlError(f"--secret {text}: write id=NAME,src=FILE or id=NAME,env=VARIABLE")
    if variable:
        if variable not in os.environ:
            raise CtlError(f"--secret {text}: the environment has no {variable}")
        return name, os.environ[variable].encode("utf-8", "surrogateescape")
    try:
        return name, Path(source or name).read_bytes()
    except OSError as err:
        raise CtlError(f"--secret {text}: cannot read {source or name}: {err.strerror}") from err


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _open_context(context: str, dockerfile: str | None, start: "BuildStart") -> Iterator[bytes]:
    """The context as a tar stream; sets the Dockerfile in ``start``. Raises CtlError."""
    if context == "-":
        if dockerfile == "-":
            raise CtlError("stdin cannot be both the Dockerfile and the context")
        return _from_stream(sys.stdin.buffer, dockerfile, start)
    path = Path(context)
    if path.is_file():
        return _from_stream(path.open("rb"), dockerfile, start)
    if not path.is_dir():
        raise CtlError(f"there is no directory or archive {context} to build from")
    start.dockerfile = sys.stdin.buffer.read() if dockerfile == "-" else read_dockerfile(path, dockerfile)
    if not start.dockerfile.strip():
        raise CtlError(f"the Dockerfile {dockerfile or path / DOCKERFILE} is empty")
    return tar_directory(path, read_ignore(path, None if dockerfile == "-" else dockerfile))


def _from_stream(file: BinaryIO, dockerfile: str | None, start: "BuildStart") -> Iterator[bytes]:
    head = file.read(_TAR_MAGIC_AT + 5)
    if not (head[_TAR_MAGIC_AT:] == b"ustar" or head.startswith(_COMPRESSED)):
        start.dockerfile = head + file.read()
        return iter(())
    if dockerfile and Path(dockerfile).is_file():
        start.dockerfile = Path(dockerfile).read_bytes()
    else:
        start.dockerfile_path = dockerfile or DOCKERFILE
    return _rest(head, file)


def _rest(head: bytes, file: BinaryIO) -> Iterator[bytes]:
    yield head
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


async def _requests(start: "BuildStart", chunks: Iterator[bytes]) -> "AsyncIterator[BuildRequest]":
    from protos.knarr import images_pb2 as pb

    yield pb.BuildRequest(start=start)
    async for data in joined(chunks):
        yield pb.BuildRequest(context=data)


async def joined(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces of a fit size for messages, read in a thread."""

    def more() -> bytes:
        data = bytearray()
        for chunk in chunks:
            data += chunk
            if len(data) >= CHUNK_BYTES:
                break
        return bytes(data)

    while data := await asyncio.to_thread(more):
        yield data


@image_command("from-host", short_help="Make an image of programs of this host.")
@click.argument("programs", nargs=-1, required=True, metavar="PROGRAM...")
@click.option("-t", "--tag", required=True, metavar="NAME[:TAG]", help="What to call the image.")
@click.option("--include", multiple=True, metavar="PATH", help="One more file or directory to copy; repeatable.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the image's id.")
async def from_host(
    images: "ImagesStub", programs: tuple[str, ...], tag: str, include: tuple[str, ...], quiet: bool
) -> None:
    """Make an image of programs of this host, without any registry.

    Copies each PROGRAM, the shared libraries it loads and, for Python, the standard library; a shell comes along. The
    image is named by --tag and runs the first PROGRAM.

    \b
        ctl image from-host python3 --tag python:host
        ctl image from-host curl --tag curl:host --include /etc/ssl/certs
    """
    from protos.knarr import images_pb2 as pb

    request = pb.FromHostRequest(
        programs=programs,
        tag=tag,
        include=[str(Path(path).absolute()) for path in include],
        path=os.environ.get("PATH", ""),
    )
    result = ""
    steps = Steps(quiet=quiet)
    async for progress in images.FromHost(request):
        steps.show(progress)
        result = progress.result or result
    _announce(result, (tag,), quiet)
