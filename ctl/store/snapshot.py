"""``ctl store snapshot``: keep a copy of the store, look into it, begin a new store from it."""

import asyncio
import os
import tempfile
from contextlib import aclosing
from pathlib import Path

import click

from ctl.context import Context, pass_obj
from ctl.errors import CtlError
from ctl.table import render

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def snapshot() -> None:
    """Save and restore all that is in the store."""


@snapshot.command()
@click.argument("file", type=FILE)
@pass_obj
def save(context: Context, file: Path) -> None:
    """Write a snapshot of the running store to FILE."""
    partial = file.with_name(file.name + ".part")
    try:
        size = asyncio.run(_save(context, partial))
        partial.rename(file)
    except OSError as err:
        raise CtlError(f"cannot write {file}: {err.strerror or err}") from err
    finally:
        partial.unlink(missing_ok=True)
    click.echo(f"saved {size} bytes to {file}")


async def _save(context: Context, file: Path) -> int:
    from raftstore.client import Client, errors

    endpoints, tls = context.store()
    try:
        async with Client(endpoints, tls=tls) as client:
            with file.open("wb") as target:
                os.chmod(target.fileno(), 0o600)  # it holds every secret  # noqa: PTH101
                async with aclosing(client.snapshot()) as pieces:
                    async for piece in pieces:
                        target.write(piece)
                target.flush()
                os.fsync(target.fileno())
                return target.tell()
    except errors.EtcdError as err:
        raise CtlError(str(err)) from err


@snapshot.command()
@click.argument("file", type=FILE)
def status(file: Path) -> None:
    """Check FILE and show what is in it."""
    from raftstore.errors import StorageError
    from raftstore.snapshot import status as look

    try:
        with tempfile.TemporaryDirectory(dir=file.absolute().parent) as scratch:
            found = look(file, Path(scratch))
    except (StorageError, OSError) as err:
        raise CtlError(str(err)) from err
    row = (f"{found.hash:08x}", str(found.revision), str(found.keys), f"{found.size_bytes / (1 << 20):.1f}Mi")
    click.echo(render(("HASH", "REVISION", "VERSIONS", "SIZE"), [row]), nl=False)


@snapshot.command()
@click.argument("file", type=FILE)
@click.option("--data-dir", type=click.Path(path_type=Path), required=True, help="The new member's directory.")
@click.option("--name", default="default", show_default=True, help="The new member's name.")
@click.option("--initial-cluster", default="", help="NAME=PEER_URL of every member of the new cluster.")
@click.option("--initial-cluster-token", default="etcd-cluster", show_default=True, help="Sets clusters apart.")
@click.option(
    "--initial-advertise-peer-urls", default="http://127.0.0.1:2380", show_default=True, help="The member's peer URLs."
)
@click.option(
    "--bump-revision",
    type=click.IntRange(min=0),
    default=1_000_000_000,
    show_default=True,
    metavar="N",
    help="Go ahead by N revisions and count all before as compacted, so that caches and watches of the old store "
    "notice; 0 leaves revisions alone.",
)
@click.option("--skip-hash-check", is_flag=True, help="FILE is a plain copy of a database, without checksum.")
def restore(
    file: Path,
    data_dir: Path,
    name: str,
    initial_cluster: str,
    initial_cluster_token: str,
    initial_advertise_peer_urls: str,
    bump_revision: int,
    skip_hash_check: bool,
) -> None:
    """Begin a new store from FILE. Give every member of a new cluster the same FILE and flags."""
    from raftstore.config import Config, split_urls
    from raftstore.errors import StorageError
    from raftstore.snapshot import restore as begin

    config = Config(
        data_dir=data_dir,
        name=name,
        initial_cluster=initial_cluster,
        initial_cluster_token=initial_cluster_token,
        initial_advertise_peer_urls=split_urls(initial_advertise_peer_urls),
    )
    try:
        revision = begin(file, config, bump_revision, not skip_hash_check)
    except (ValueError, StorageError, OSError) as err:
        raise CtlError(str(err)) from err
    click.echo(f"restored to {data_dir}, at revision {revision}")
