"""``ctl wait``: until a condition holds, a field has a value, an object exists, or is gone."""

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import click

from control.api.codec import to_json
from control.api.kinds import Kind
from control.client import Client, errors
from ctl import jsonpath
from ctl.command import cluster_command, selectors
from ctl.context import Context
from ctl.durations import parse_duration
from ctl.errors import CtlError
from ctl.resources import named, parse_requests
from ctl.verbs.get import list_all

FOREVER_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Goal:
    """What to wait for. ``test`` looks at an object, None when it does not exist."""

    text: str
    test: Callable[[Any | None], bool]
    past_tense: str = "condition met"


def parse_goal(text: str) -> Goal:
    """``condition=Ready[=False]``, ``jsonpath={.a}[=value]``, ``create`` or ``delete``. Raises CtlError."""
    form, _, rest = text.partition("=")
    if form == "delete" and not rest:
        return Goal(text, lambda obj: obj is None)
    if form == "create" and not rest:
        return Goal(text, lambda obj: obj is not None)
    if form == "condition" and rest:
        name, _, status = rest.partition("=")
        return Goal(text, lambda obj: obj is not None and _condition(obj, name, status or "true"))
    if form == "jsonpath" and (found := re.fullmatch(r"(\{.*?\})(?:=(.*))?", rest, re.DOTALL)):
        path, value = found[1], found[2]
        return Goal(text, lambda obj: obj is not None and _field(obj, path, value))
    raise CtlError(
        f'unrecognized condition: "{text}"; use condition=NAME[=VALUE], jsonpath={{PATH}}[=VALUE], create or delete'
    )


def _condition(obj: Any, name: str, status: str) -> bool:
    conditions = getattr(getattr(obj, "status", None), "conditions", ())
    return any(each.type.lower() == name.lower() and each.status.lower() == status.lower() for each in conditions)


def _field(obj: Any, path: str, value: str | None) -> bool:
    try:
        found = jsonpath.find(path, to_json(obj))
    except jsonpath.JSONPathError:
        return False
    return bool(found) and (value is None or jsonpath.show(found[0]) == value)


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE[/NAME] [NAME...]")
@selectors
@click.option("--all", "everything", is_flag=True, help="Every object of the kind in the namespace.")
@click.option("--for", "goal_text", required=True, metavar="GOAL", help="What to wait for.")
@click.option("--timeout", default="30s", show_default=True, metavar="DURATION", help="0 looks once, negative: a week.")
async def wait(
    context: Context,
    client: Client,
    words: Sequence[str],
    selector: str,
    field_selector: str,
    everything: bool,
    goal_text: str,
    timeout: str,
) -> None:
    """Wait: 'ctl wait pod/x --for=condition=Ready', 'ctl wait rc/x --for=jsonpath={.status.readyReplicas}=3'.

    GOAL is condition=NAME[=VALUE], jsonpath={PATH}[=VALUE], create or delete. An object that does not exist yet is
    waited for.
    """
    goal, seconds = parse_goal(goal_text), parse_duration(timeout)
    namespace = context.current_namespace()
    targets: list[tuple[Kind, str]] = []
    for request in parse_requests(words):
        names = list(request.names)
        if not names and (selector or field_selector or everything):
            found = await list_all(
                client, request.kind, namespace if request.kind.namespaced else "", selector, field_selector
            )
            names = [obj.metadata.name for obj in found]
        targets += [(request.kind, name) for name in names]
    if not targets:
        raise CtlError("no matching resources found")
    async with asyncio.TaskGroup() as tasks:
        for kind, name in targets:
            tasks.create_task(_wait(client, kind, name, namespace, goal, FOREVER_S if seconds < 0 else seconds))


async def _wait(client: Client, kind: Kind, name: str, namespace: str, goal: Goal, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(max(timeout_s, 1.0)):
            await until(client, kind, name, namespace if kind.namespaced else "", goal, once=timeout_s == 0)
    except TimeoutError:
        raise CtlError(f"timed out waiting for the condition {goal.text} on {named(kind, name)}") from None
    click.echo(f"{named(kind, name)} {goal.past_tense}")


async def until(client: Client, kind: Kind, name: str, namespace: str, goal: Goal, once: bool = False) -> None:
    """Return when ``goal`` is reached. Raises TimeoutError when looking ``once`` was not enough."""
    fields = f"metadata.name={name}"
    while True:
        page = await client.list(kind.message, namespace or None, field_selector=fields)
        if goal.test(page.items[0] if page.items else None):
            return
        if once:
            raise TimeoutError
        watch = client.watch(
            kind.message, namespace or None, field_selector=fields, resource_version=page.resource_version
        )
        try:
            async with aclosing(watch) as events:
                async for event in events:
                    if event.type != "BOOKMARK" and goal.test(None if event.type == "DELETED" else event.object):
                        return
        except errors.Expired:
            continue
