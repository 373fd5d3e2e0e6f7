"""``ctl store``: the store itself, below the cluster API. It works on any etcd."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import click

from ctl.context import Context, pass_obj
from ctl.errors import CtlError
from ctl.store.snapshot import snapshot
from ctl.table import render

Work = Callable[[Any], Awaitable[None]]


@click.group()
def store() -> None:
    """Read and write the store directly (etcd's API; see also 'ctl env' and etcdctl)."""


store.add_command(snapshot)


def _run(context: Context, work: Work) -> None:
    async def connected() -> None:
        from raftstore.client import Client, errors

        endpoints, tls = context.store()
        client = Client(endpoints, tls=tls)
        try:
            await work(client)
        except errors.EtcdError as err:
            raise CtlError(str(err)) from err
        finally:
            await client.aclose()

    asyncio.run(connected())


def _end_of(key: bytes, prefix: bool) -> bytes:
    from raftstore.client import prefix_end

    return prefix_end(key) if prefix else b""


@store.command()
@click.argument("key")
@click.option("--prefix", is_flag=True, help="Every key that starts so.")
@click.option("--keys-only", is_flag=True, help="No values.")
@click.option("--rev", type=int, default=0, metavar="N", help="As of revision N.")
@pass_obj
def get(context: Context, key: str, prefix: bool, keys_only: bool, rev: int) -> None:
    """Print keys and values."""

    async def work(client: Any) -> None:
        start = key.encode()
        answer = await client.range(start, _end_of(start, prefix), revision=rev, keys_only=keys_only)
        for pair in answer.kvs:
            click.echo(pair.key)
            if not keys_only:
                click.echo(pair.value)

    _run(context, work)


@store.command()
@click.argument("key")
@click.argument("value")
@pass_obj
def put(context: Context, key: str, value: str) -> None:
    """Set a key."""

    async def work(client: Any) -> None:
        await client.put(key.encode(), value.encode())
        click.echo("OK")

    _run(context, work)


@store.command("del")
@click.argument("key")
@click.option("--prefix", is_flag=True, help="Every key that starts so.")
@pass_obj
def delete(context: Context, key: str, prefix: bool) -> None:
    """Delete keys; prints how many."""

    async def work(client: Any) -> None:
        start = key.encode()
        answer = await client.delete_range(start, _end_of(start, prefix))
        click.echo(answer.deleted)

    _run(context, work)


@store.command()
@click.argument("key")
@click.option("--prefix", is_flag=True, help="Every key that starts so.")
@click.option("--rev", type=int, default=0, metavar="N", help="From revision N on.")
@pass_obj
def watch(context: Context, key: str, prefix: bool, rev: int) -> None:
    """Print changes as they come."""

    async def work(client: Any) -> None:
        start = key.encode()
        async for answer in client.watch(start, _end_of(start, prefix), start_revision=rev):
            for event in answer.events:
                click.echo("DELETE" if event.type else "PUT")
                click.echo(event.kv.key)
                click.echo(event.kv.value)

    _run(context, work)


@store.command()
@pass_obj
def status(context: Context) -> None:
    """Show the member that answers: version, size, leader, term, index."""

    async def work(client: Any) -> None:
        answer = await client.status()
        row = (
            ",".join(context.store()[0]),
            f"{answer.header.member_id:x}",
            answer.version,
            f"{answer.dbSize / (1 << 20):.1f}Mi",
            str(answer.leader == answer.header.member_id).lower(),
            str(answer.raftTerm),
            str(answer.raftIndex),
            str(answer.header.revision),
        )
        header = ("ENDPOINT", "ID", "VERSION", "DB SIZE", "IS LEADER", "RAFT TERM", "RAFT INDEX", "REVISION")
        click.echo(render(header, [row]), nl=False)

    _run(context, work)
