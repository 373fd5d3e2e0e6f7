"""Images: images, inspecti, pull, rmi, imagefsinfo."""

from pathlib import Path
from typing import Any

import click

from ctl.cri import options, show
from ctl.cri.client import Cri, cri_command
from ctl.cri.config import load_pod_config
from ctl.cri.group import cri
from ctl.cri.selection import find_containers
from ctl.errors import CtlError


@cri_command(cri, "images")
@click.argument("repository", default="", metavar="[REPOSITORY[:TAG]]")
@options.verbose
@options.quiet_ids
@click.option("--digests", is_flag=True, help="Show digests.")
@options.no_trunc
@click.option("--pinned", is_flag=True, help="Show whether the image is pinned or not.")
@options.output()
async def images(
    cri: Cri, repository: str, form: str, verbose: bool, quiet: bool, digests: bool, no_trunc: bool, pinned: bool
) -> None:
    """List images."""
    found = await find_images(cri, repository)
    if form != "table":
        show.print_data({"images": [show.to_dict(image) for image in found]}, form)
    elif quiet:
        click.echo("".join(f"{image.id}\n" for image in found), nl=False)
    elif verbose:
        for image in found:
            show.print_fields(_fields(image))
            click.echo()
    else:
        header = ["IMAGE", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "SIZE", *(["PINNED"] if pinned else [])]
        rows = [row for image in found for row in _rows(image, no_trunc, digests, pinned)]
        click.echo(show.table([header, *rows]), nl=False)


async def find_images(cri: Cri, repository: str = "") -> list[Any]:
    """The runtime's images, by name; with ``repository`` only those. Raises CtlError."""
    from protos.cri import runtime_pb2 as pb

    wanted = pb.ImageFilter(image=pb.ImageSpec(image=repository)) if repository else None
    answer = await cri.call(cri.images.ListImages(pb.ListImagesRequest(filter=wanted)), "listing images")
    return sorted(answer.images, key=lambda image: (sorted(image.repo_tags), image.id))


def _rows(image: Any, full: bool, digests: bool, pinned: bool) -> list[list[str]]:
    name, digest = image.repo_digests[0].split("@") if image.repo_digests else ("<none>", "<none>")
    ids = [image.id.removeprefix("sha256:") if full else show.short_id(image.id)]
    middle = [digest if full else show.short_id(digest)] if digests else []
    end = [show.human_size(image.size, 3), *([str(image.pinned).lower()] if pinned else [])]
    tags = [tag.rpartition(":") for tag in image.repo_tags] or [(name, ":", "<none>")]
    return [[repository, tag, *middle, *ids, *end] for repository, _, tag in tags]


def _fields(image: Any) -> list[tuple[str, object]]:
    fields: list[tuple[str, object]] = [("ID", image.id)]
    fields += [("RepoTags", tag) for tag in image.repo_tags]
    fields += [("RepoDigests", digest) for digest in image.repo_digests]
    fields += [("Size", image.size)]
    if image.HasField("uid"):
        fields += [("Uid", image.uid.value)]
    if image.username:
        fields += [("Username", image.username)]
    return [*fields, *([("Pinned", "true")] if image.pinned else [])]


@cri_command(cri, "inspecti")
@click.argument("ids", nargs=-1, metavar="IMAGE-ID...")
@click.option("--name", default="", metavar="NAME", help="Filter by image name.")
@options.quiet_info
@options.output(default="json")
async def inspecti(cri: Cri, ids: tuple[str, ...], name: str, form: str, quiet: bool) -> None:
    """Return the status of one or more images."""
    chosen = ids or [image.id for image in await find_images(cri, name)]
    if not chosen:
        raise CtlError("no image: name one, or change the filter")
    statuses = []
    for image_id in chosen:
        answer = await image_status(cri, image_id, verbose=not quiet)
        if form == "table":
            show.print_fields(_fields(answer.image))
        else:
            statuses.append({"status": show.to_dict(answer.image), **show.info_of(answer.info)})
    if statuses:
        show.print_statuses(statuses, form)


async def image_status(cri: Cri, reference: str, verbose: bool = False) -> Any:
    """The ImageStatus answer. Raises CtlError, also when there is no such image."""
    from protos.cri import runtime_pb2 as pb

    request = pb.ImageStatusRequest(image=pb.ImageSpec(image=reference), verbose=verbose)
    answer = await cri.call(cri.images.ImageStatus(request), f'image status for "{reference}"')
    if not answer.HasField("image"):
        raise CtlError(f'no such image "{reference}" present')
    return answer


@cri_command(cri, "pull")
@click.argument("image", metavar="NAME[:TAG|@DIGEST]")
@options.registry_credentials
@click.option("--pod-config", type=click.Path(path_type=Path), metavar="FILE", help="The pod that the pull is for.")
@click.option("-a", "--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="For the image spec.")
@click.option("-pt", "--pull-timeout", type=float, default=0.0, metavar="SECONDS", help="Give up after so long.")
async def pull(
    cri: Cri, image: str, pod_config: Path | None, annotations: tuple[str, ...], pull_timeout: float, **auth: str
) -> None:
    """Pull an image from a registry."""
    from ctl.cri.config import labels_of

    sandbox = load_pod_config(pod_config) if pod_config else None
    reference = await pull_image(
        cri, image, credentials(**auth), sandbox, labels_of(annotations), timeout_s=pull_timeout
    )
    click.echo(f"Image is up to date for {reference}")


def credentials(creds: str = "", auth: str = "", username: str = "") -> Any:
    """The AuthConfig that the flags mean; None for none. Asks for the password when only a user is given."""
    from protos.cri import runtime_pb2 as pb

    if bool(creds) + bool(auth) + bool(username) > 1:
        raise CtlError("--creds, --auth and --username exclude each other")
    if auth:
        return pb.AuthConfig(auth=auth)
    user, colon, password = (creds or username).partition(":")
    if not user:
        return None
    if not colon:
        password = click.prompt("Enter Password", hide_input=True, err=True)
    return pb.AuthConfig(username=user, password=password)


async def pull_image(
    cri: Cri,
    image: str,
    auth: Any = None,
    sandbox: Any = None,
    annotations: dict[str, str] | None = None,
    timeout_s: float = 0.0,
) -> str:
    """Pull and return the image's reference. Raises CtlError."""
    from protos.cri import runtime_pb2 as pb

    spec = pb.ImageSpec(image=image, annotations=annotations or {})
    request = pb.PullImageRequest(image=spec, auth=auth, sandbox_config=sandbox)
    rpc = cri.images.PullImage(request, timeout=timeout_s or None)
    return (await cri.call(rpc, f'pulling image "{image}"')).image_ref


@cri_command(cri, "rmi")
@click.argument("ids", nargs=-1, metavar="IMAGE-ID...")
@click.option("-a", "--all", "every", is_flag=True, help="Remove all images.")
@click.option("-q", "--prune", is_flag=True, help="Remove all unused images that are not pinned.")
async def rmi(cri: Cri, ids: tuple[str, ...], every: bool, prune: bool) -> None:
    """Remove one or more images, with all their tags."""
    chosen = list(ids)
    if every or prune:
        used = await _used(cri) if prune else set()
        chosen += [i.id for i in await find_images(cri) if i.id not in used and not (prune and i.pinned)]
    elif not ids:
        raise CtlError("no image: name one, or all with --all, or unused ones with --prune")
    for image_id in dict.fromkeys(chosen):
        await _remove(cri, image_id)


async def _used(cri: Cri) -> set[str]:
    from ctl.cri.selection import id_of_image

    containers = await find_containers(cri, every=True)
    return {container.image_id or await id_of_image(cri, container.image.image) for container in containers}


async def _remove(cri: Cri, image_id: str) -> None:
    from protos.cri import runtime_pb2 as pb

    image = (await image_status(cri, image_id)).image
    rpc = cri.images.RemoveImage(pb.RemoveImageRequest(image=pb.ImageSpec(image=image_id)))
    await cri.call(rpc, f'removing image "{image_id}"')
    for name in image.repo_tags or image.repo_digests:
        click.echo(f"Deleted: {name}")


@cri_command(cri, "imagefsinfo")
@options.output(default="json")
async def imagefsinfo(cri: Cri, form: str) -> None:
    """Return image filesystem info."""
    from protos.cri import runtime_pb2 as pb

    answer = await cri.call(cri.images.ImageFsInfo(pb.ImageFsInfoRequest()), "getting image filesystem info")
    if form != "table":
        return show.print_data({"status": show.to_dict(answer)}, form)
    for filesystem in [*answer.image_filesystems, *answer.container_filesystems]:
        show.print_fields(
            [
                ("TimeStamp", show.timestamp(filesystem.timestamp)),
                ("UsedBytes", show.human_size(filesystem.used_bytes.value)),
                ("InodesUsed", filesystem.inodes_used.value),
                ("Mountpoint", filesystem.fs_id.mountpoint),
            ]
        )
