"""``ctl delete``: by name, selector or file; waits until the objects are gone."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import click

from control.api.kinds import Kind, by_message
from control.client import Client, errors
from ctl.command import all_namespaces, cluster_command, filenames, output, selectors
from ctl.context import Context
from ctl.durations import parse_duration
from ctl.errors import CtlError, Failure, explain
from ctl.manifests import place, read_objects
from ctl.resources import label_of, named, parse_requests
from ctl.verbs.get import list_all

FORCE_WARNING = (
    "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. "
    "The resource may continue to run on the cluster indefinitely."
)


@dataclass(frozen=True)
class Target:
    """One object to delete."""

    kind: Kind
    name: str
    namespace: str


@cluster_command()
@click.argument("resources", nargs=-1)
@all_namespaces
@selectors
@filenames
@output("name")
@click.option("--all", "everything", is_flag=True, help="Every object of these kinds in the namespace.")
@click.option(
    "--grace-period", type=int, default=-1, metavar="S", help="Seconds to end in; 1 is soon, 0 needs --force."
)
@click.option("--now", is_flag=True, help="The same as --grace-period=1.")
@click.option("--force", is_flag=True, help="Do not wait for the node to confirm.")
@click.option("--wait/--no-wait", default=True, help="Wait until the objects are gone (default).")
@click.option("--timeout", default="0s", metavar="DURATION", help="How long to wait; 0 for as long as it takes.")
@click.option("--cascade", type=click.Choice(["background", "foreground", "orphan"]), default="background")
@click.option("--ignore-not-found", is_flag=True, help="A missing object is no error.")
async def delete(
    context: Context,
    client: Client,
    resources: Sequence[str],
    files: Sequence[str],
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    output_format: str,
    everything: bool,
    grace_period: int,
    now: bool,
    force: bool,
    wait: bool,
    timeout: str,
    cascade: str,
    ignore_not_found: bool,
) -> None:
    """Delete objects: 'ctl delete pod x y', 'ctl delete rc/x svc/y', 'ctl delete pods -l app=x'."""
    if files:
        targets = _from_files(context, files)
    else:
        targets = await _from_words(context, client, resources, selector, field_selector, everything, all_namespaces)
    if not targets:
        click.echo("No resources found", err=True)
        return
    grace = _grace(grace_period, now, force)
    if force:
        click.echo(FORCE_WARNING, err=True)
    done = await _delete(client, targets, grace, cascade, force, ignore_not_found or everything, output_format)
    if wait and not force:
        await _wait(client, done, parse_duration(timeout))
    if len(done) < len(targets) and not (ignore_not_found or everything):
        raise Failure(1)


def _grace(period: int, now: bool, force: bool) -> int | None:
    if now and period >= 0:
        raise CtlError("--now and --grace-period cannot be specified together")
    if period == 0 and not force:
        return 1  # as kubectl: at once, but with the node's confirmation
    if force and period < 0:
        return 0
    return 1 if now else (period if period >= 0 else None)


def _from_files(context: Context, files: Sequence[str]) -> list[Target]:
    namespace, explicit = context.current_namespace(), context.namespace is not None
    objects = [place(obj, namespace, explicit) for obj in read_objects(files)]
    return [Target(by_message(obj), obj.metadata.name, obj.metadata.namespace) for obj in objects]


async def _from_words(
    context: Context,
    client: Client,
    words: Sequence[str],
    selector: str,
    field_selector: str,
    everything: bool,
    all_namespaces: bool,
) -> list[Target]:
    targets: list[Target] = []
    for request in parse_requests(words):
        namespace = context.current_namespace() if request.kind.namespaced and not all_namespaces else ""
        if request.names:
            if selector or everything:
                raise CtlError("name cannot be provided when a selector or --all is specified")
            targets += [Target(request.kind, name, namespace) for name in request.names]
        elif selector or field_selector or everything:
            found = await list_all(client, request.kind, namespace, selector, field_selector)
            targets += [Target(request.kind, obj.metadata.name, obj.metadata.namespace) for obj in found]
        else:
            raise CtlError("resource(s) were provided, but no name was specified: name objects, or use -l or --all")
    return targets


async def _delete(
    client: Client,
    targets: Sequence[Target],
    grace: int | None,
    cascade: str,
    force: bool,
    ignore_not_found: bool,
    output_format: str,
) -> list[tuple[Target, Any]]:
    """Delete each; returns those that were there, as the server answered."""
    done = []
    for target in targets:
        try:
            answer = await client.delete(
                target.kind.message,
                target.name,
                namespace=target.namespace,
                grace_period_seconds=grace,
                propagation=cascade.capitalize(),
            )
        except errors.NotFound as err:
            if not ignore_not_found:
                click.echo(explain(err), err=True)
            continue
        done.append((target, answer))
        word = "force deleted" if force else "deleted"
        said = named(target.kind, target.name)
        click.echo(said if output_format == "name" else f'{label_of(target.kind)} "{target.name}" {word}')
    return done


async def _wait(client: Client, done: Sequence[tuple[Target, Any]], timeout_s: float) -> None:
    """Return when every object is gone, or another has its name. Raises CtlError after ``timeout_s`` (0: never)."""
    try:
        async with asyncio.timeout(timeout_s or None), asyncio.TaskGroup() as tasks:
            for target, answer in done:
                tasks.create_task(wait_until_gone(client, target, answer.metadata.uid))
    except TimeoutError:
        raise CtlError(f"timed out waiting for the deletion after {timeout_s:g} s; it goes on") from None


async def wait_until_gone(client: Client, target: Target, uid: str) -> None:
    """Return when the object with ``uid`` does not exist any more."""
    fields = f"metadata.name={target.name}"
    while True:
        page = await client.list(target.kind.message, target.namespace or None, field_selector=fields)
        if not any(obj.metadata.uid == uid for obj in page.items):
            return
        watch = client.watch(
            target.kind.message, target.namespace or None, field_selector=fields, resource_version=page.resource_version
        )
        try:
            async with aclosing(watch) as events:
                async for event in events:
                    if event.type == "DELETED" and event.object.metadata.uid == uid:
                        return
        except errors.Expired:
            continue
