"""``cp``: files between a container and the host; the image needs no tar.

Where a copy goes follows docker's rules: into an existing directory, under a new name otherwise; ``SOURCE/.`` is what
is in a directory.
"""

import contextlib
import os
import stat
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from ctl.container.group import DaemonError, container_command
from ctl.container.node import Node
from ctl.container.roots import root_of
from ctl.container.tree import Owner, copy_contents, copy_entry, opened
from ctl.errors import fail


@container_command("cp", short_help="Copy files between a container and the host.")
@click.option("-a", "--archive", is_flag=True, help="Keep owner and group.")
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a link in SOURCE leads to.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing.")
@click.argument("source")
@click.argument("target")
async def cp(node: Node, source: str, target: str, archive: bool, follow_link: bool, quiet: bool) -> None:
    """Copy files between a container and the host.

    \b
        ctl container cp CONTAINER:/etc/hosts .
        ctl container cp app.conf CONTAINER:/etc/
        ctl container cp CONTAINER:/var/log - | tar t

    The container may run or not; of one that does not run, volumes and other mounts are not there.
    """
    from_name, from_path = split(source)
    to_name, to_path = split(target)
    if from_name and to_name:
        fail("copying between containers is not supported")
    if not (from_name or to_name):
        fail("must specify at least one container source or destination: CONTAINER:PATH")
    container = await node.find(from_name or to_name)
    async with root_of(node, container) as root:
        with _sentences():
            if from_name:
                _copy_out(root, from_path, to_path, archive, follow_link)
            else:
                _copy_in(root, from_path, to_path, archive, follow_link)
    if not quiet and target != "-":
        where = f"{container.spec.name}:{to_path}" if to_name else target
        click.echo(f"Successfully copied to {where}", err=True)


def split(text: str) -> tuple[str, str]:
    """Pure: (container, path); no container for a path of the host, which begins with / or . when it has a colon."""
    name, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")):
        return "", text
    return name, path


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        text = (err.strerror or str(err)).lower()
        raise DaemonError(f"{text}: {os.fsdecode(err.filename) if err.filename else ''}".rstrip(": ")) from err


def _copy_out(root: int, source: str, target: str, archive: bool, follow: bool) -> None:
    owner = Owner(archive, os.getuid(), os.getgid())
    if target == "-":
        if sys.stdout.isatty():
            fail("an archive is nothing for a terminal: redirect, or name a file")
        with tempfile.TemporaryDirectory() as place:
            copy(root, source, _host_root(), f"{place}/", Owner(True), follow)
            with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive_file:
                for path in sorted(Path(place).iterdir()):
                    archive_file.add(path, path.name)
        return
    copy(root, source, _host_root(), _absolute(target), owner, follow)


def _copy_in(root: int, source: str, target: str, archive: bool, follow: bool) -> None:
    if source != "-":
        copy(_host_root(), _absolute(source), root, target, Owner(archive), follow)
        return
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(fileobj=sys.stdin.buffer, mode="r|*") as archive_file:
            archive_file.extractall(place, filter="tar")
        copy(_host_root(), f"{place}/.", root, target, Owner(True), follow)


def _host_root() -> int:
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _absolute(path: str) -> str:
    """The host's path from its root; a / or /. at its end means something, and stays."""
    return f"{Path.cwd()}/{path}" if not path.startswith("/") else path


def copy(source_root: int, source: str, target_root: int, target: str, owner: Owner, follow: bool) -> None:
    """Copy ``source`` beneath one root to ``target`` beneath another. Raises OSError, DaemonError."""
    only_contents = source == "." or source.endswith("/.")
    parent, name = place_of(source_root, source, follow)
    is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    if not is_directory and (only_contents or source.endswith("/")):
        raise DaemonError(f"not a directory: {source}")
    existing = directory_at(target_root, target)
    if existing is not None and only_contents:
        with opened(name, parent) as inside:
            copy_contents(inside, existing, owner)
    elif existing is not None:
        copy_entry(parent, name, existing, base_name(source, name), owner)
    else:
        _copy_as(parent, name, is_directory, target_root, target, owner)


def _copy_as(parent: int, name: str, is_directory: bool, root: int, target: str, owner: Owner) -> None:
    if target.endswith("/") and not is_directory:
        raise DaemonError(f"destination directory {target} does not exist")
    into, new_name = place_of(root, target.rstrip("/"), True, must_exist=False)
    with contextlib.suppress(FileNotFoundError):
        if is_directory and not stat.S_ISDIR(os.stat(new_name, dir_fd=into, follow_symlinks=False).st_mode):
            raise DaemonError(f"cannot copy directory: {target} is a file")
    copy_entry(parent, name, into, new_name, owner)


def base_name(source: str, name: str) -> str:
    """Pure: what a copy in a directory is called: the name that was given, though a link led elsewhere."""
    given = source.rstrip("/").rpartition("/")[2]
    return given if given not in ("", ".", "..") else name if name != "." else "root"


def directory_at(root: int, path: str) -> int | None:
    """A descriptor of the directory that ``path`` leads to beneath ``root``; None when it is none. Raises OSError."""
    from cri_runtime.linux.paths import openat2

    try:
        return openat2(root, path or "/", os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None


def place_of(root: int, path: str, follow: bool, must_exist: bool = True) -> tuple[int, str]:
    """(the directory, the name in it) that ``path`` means beneath ``root``; a link at its end is followed on demand.

    Raises OSError.
    """
    from cri_runtime.linux.paths import openat2

    for _ in range(40):  # as many links as the kernel follows
        plain = path.rstrip("/").removesuffix("/.").rstrip("/")
        head, _, name = plain.rpartition("/")
        if name in ("", ".", ".."):
            return openat2(root, path or "/", os.O_RDONLY | os.O_DIRECTORY), "."
        parent = openat2(root, head or "/", os.O_RDONLY | os.O_DIRECTORY)
        try:
            is_link = stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            if must_exist:
                raise FileNotFoundError(2, "no such file or directory", path) from None
            return parent, name
        if not (is_link and follow):
            return parent, name
        leads_to = os.readlink(name, dir_fd=parent)
        path = leads_to if leads_to.startswith("/") else f"{head}/{leads_to}"
    raise OSError(40, "too many links", path)
