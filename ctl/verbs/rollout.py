"""``ctl rollout``: follow, restart, hold, and undo the change of a Deployment's template."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import click

from control.api.codec import to_json
from control.api.kinds import Kind, by_name
from control.client import Client, errors
from ctl import tabs
from ctl.command import cluster_command
from ctl.context import Context
from ctl.durations import parse_duration
from ctl.errors import CtlError
from ctl.pods import selector_text
from ctl.resources import label_of, named, one_object
from ctl.verbs.get import list_all
from protos.k8s import apps_v1_pb2 as apps

REVISION = "deployment.kubernetes.io/revision"
CHANGE_CAUSE = "kubernetes.io/change-cause"
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
POD_TEMPLATE_HASH = "pod-template-hash"
TEMPLATED = ("Deployment", "DaemonSet", "StatefulSet")


@click.group()
def rollout() -> None:
    """Follow, restart, hold and undo rollouts."""


async def _object(context: Context, client: Client, words: Sequence[str], kinds: Sequence[str]) -> tuple[Kind, Any]:
    kind, name = one_object(words)
    if kind.kind not in kinds:
        raise CtlError(f"{label_of(kind)} cannot be rolled out so: name a {', '.join(kinds).lower()}")
    return kind, await client.get(kind.message, name, namespace=context.current_namespace())


async def _patch(client: Client, kind: Kind, obj: Any, patch: dict[str, Any], word: str) -> None:
    await client.patch(kind.message, obj.metadata.name, patch, namespace=obj.metadata.namespace)
    click.echo(f"{named(kind, obj.metadata.name)} {word}")


# --- status --------------------------------------------------------------------------------------------------------


def progress(deployment: Any) -> tuple[str, bool]:
    """What is still to happen, and whether the rollout is over. Raises CtlError when it will not succeed."""
    name, spec, status = deployment.metadata.name, deployment.spec, deployment.status
    if deployment.metadata.generation > status.observedGeneration:
        return "Waiting for deployment spec update to be observed...", False
    for condition in status.conditions:
        if condition.type == "Progressing" and condition.reason == "ProgressDeadlineExceeded":
            raise CtlError(f'deployment "{name}" exceeded its progress deadline')
    waiting = f'Waiting for deployment "{name}" rollout to finish: '
    if status.updatedReplicas < spec.replicas:
        return f"{waiting}{status.updatedReplicas} out of {spec.replicas} new replicas have been updated...", False
    if status.replicas > status.updatedReplicas:
        old = status.replicas - status.updatedReplicas
        return f"{waiting}{old} old replicas are pending termination...", False
    if status.availableReplicas < status.updatedReplicas:
        available, updated = status.availableReplicas, status.updatedReplicas
        return f"{waiting}{available} of {updated} updated replicas are available...", False
    return f'deployment "{name}" successfully rolled out', True


@rollout.command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME")
@click.option("-w", "--watch/--no-watch", default=True, help="Wait until it is over (default).")
@click.option("--timeout", default="0s", metavar="DURATION", help="How long to wait; 0: as long as it takes.")
@click.pass_obj
def status(context: Context, words: Sequence[str], watch: bool, timeout: str) -> None:
    """Show how far a Deployment's rollout is, until it is over."""
    seconds = parse_duration(timeout)

    async def follow() -> None:
        async with context.client() as client:
            _, obj = await _object(context, client, words, ["Deployment"])
            try:
                async with asyncio.timeout(seconds or None):
                    await _follow(client, obj, watch)
            except TimeoutError:
                raise CtlError("timed out waiting for the condition") from None

    asyncio.run(follow())


async def _follow(client: Client, obj: Any, watch: bool) -> None:
    text, over = progress(obj)
    click.echo(text)
    version, fields = obj.metadata.resourceVersion, f"metadata.name={obj.metadata.name}"
    while watch and not over:
        events = client.watch(apps.Deployment, obj.metadata.namespace, field_selector=fields, resource_version=version)
        try:
            async with aclosing(events) as changes:
                async for change in changes:
                    version = change.resource_version or version
                    if change.type == "DELETED":
                        raise CtlError("object has been deleted")
                    if change.type == "BOOKMARK":
                        continue
                    before, (text, over) = text, progress(change.object)
                    if text != before:
                        click.echo(text)
                    if over:
                        return
        except errors.Expired:
            version = ""


# --- changing ------------------------------------------------------------------------------------------------------


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME")
async def restart(context: Context, client: Client, words: Sequence[str]) -> None:
    """Replace all pods, at the pace of a rollout."""
    kind, obj = await _object(context, client, words, TEMPLATED)
    if getattr(obj.spec, "paused", False):
        raise CtlError(f"can't restart paused deployment (run rollout resume first): {obj.metadata.name}")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    patch = {"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}}
    await _patch(client, kind, obj, patch, "restarted")


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME")
async def pause(context: Context, client: Client, words: Sequence[str]) -> None:
    """Let changes of the template wait."""
    kind, obj = await _object(context, client, words, ["Deployment"])
    if obj.spec.paused:
        raise CtlError(f'deployments.apps "{obj.metadata.name}" is already paused')
    await _patch(client, kind, obj, {"spec": {"paused": True}}, "paused")


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME")
async def resume(context: Context, client: Client, words: Sequence[str]) -> None:
    """Roll out the changes that waited."""
    kind, obj = await _object(context, client, words, ["Deployment"])
    if not obj.spec.paused:
        raise CtlError(f'deployments.apps "{obj.metadata.name}" is not paused')
    await _patch(client, kind, obj, {"spec": {"paused": None}}, "resumed")


# --- the past ------------------------------------------------------------------------------------------------------


def revision_of(obj: Any) -> int:
    """A ReplicaSet's number in the history; 0 when it has none."""
    text = obj.metadata.annotations.get(REVISION, "")
    return int(text) if text.isdigit() else 0


async def _revisions(client: Client, deployment: Any) -> dict[int, Any]:
    """The Deployment's ReplicaSets by revision."""
    sets = await list_all(client, by_name("replicasets"), deployment.metadata.namespace, selector_text(deployment))
    mine = [s for s in sets if any(o.uid == deployment.metadata.uid for o in s.metadata.ownerReferences)]
    return {revision_of(each): each for each in mine if revision_of(each)}


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME")
async def history(context: Context, client: Client, words: Sequence[str]) -> None:
    """List a Deployment's revisions."""
    kind, obj = await _object(context, client, words, ["Deployment"])
    found = await _revisions(client, obj)
    causes = {number: found[number].metadata.annotations.get(CHANGE_CAUSE, "<none>") for number in sorted(found)}
    click.echo(f"{named(kind, obj.metadata.name)} ")
    click.echo(tabs.layout(["REVISION\tCHANGE-CAUSE", *(f"{number}\t{cause}" for number, cause in causes.items())]))


@cluster_command()
@click.argument("words", nargs=-1, required=True, metavar="TYPE NAME")
@click.option("--to-revision", type=int, default=0, metavar="N", help="Default the revision before the current one.")
async def undo(context: Context, client: Client, words: Sequence[str], to_revision: int) -> None:
    """Go back to an earlier template."""
    kind, obj = await _object(context, client, words, ["Deployment"])
    if obj.spec.paused:
        raise CtlError("cannot rollback a paused deployment; resume it first with 'ctl rollout resume' and try again")
    target = _target(await _revisions(client, obj), to_revision)
    template = to_json(target)["spec"]["template"]
    template["metadata"].get("labels", {}).pop(POD_TEMPLATE_HASH, None)
    if template == to_json(obj)["spec"]["template"]:
        click.echo(
            f"{named(kind, obj.metadata.name)} skipped rollback (current template already matches revision "
            f"{revision_of(target)})"
        )
        return
    patch = [{"op": "replace", "path": "/spec/template", "value": template}]
    await client.patch(kind.message, obj.metadata.name, patch, namespace=obj.metadata.namespace, patch_type="json")
    click.echo(f"{named(kind, obj.metadata.name)} rolled back")


def _target(found: dict[int, Any], wanted: int) -> Any:
    if wanted:
        if wanted not in found:
            raise CtlError(f"unable to find specified revision {wanted} in history")
        return found[wanted]
    if len(found) < 2:
        raise CtlError("no rollout history found for deployment")
    return found[sorted(found)[-2]]


for _command in (restart, pause, resume, history, undo):
    rollout.add_command(_command)
