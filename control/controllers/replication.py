"""ReplicationController and ReplicaSet: the loop around ``replicas.reconcile``."""

import asyncio
import logging

from control.api import meta
from control.client import errors
from control.controllers.controller import Controller, Environment
from control.controllers.expectations import Expectations
from control.controllers.replicas import Actions, Counts, Owner, batches, pod_from, reconcile, wanted
from protos.k8s import apps_v1_pb2 as apps
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)


class ReplicationBase(Controller):
    """Keeps the pods of one kind of owner. Subclasses name the kind."""

    kind: type[Owner]

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.owners = env.informer(self.kind)
        self.pods = env.informer(core.Pod)
        self.expectations = Expectations()
        self.owners.add_handler(self._owner_changed)
        self.pods.add_handler(self._pod_changed)

    async def sync(self, key: str) -> None:
        """See Controller.sync."""
        owner = self.owners.get(key)
        if owner is None:
            self.expectations.forget(key)
            return
        now = self.env.now()
        settled = self.expectations.met(key, now)
        actions = reconcile(owner, self.env.pods_in(owner.metadata.namespace), settled, now)
        failure: errors.ApiError | None = None
        try:
            await self._claim(owner, actions)
            await self._create(key, owner, actions.create)
            await self._delete(key, owner, actions.delete)
        except errors.ApiError as err:
            failure = err
        await self._report(owner, actions.counts, failure)
        if actions.look_again_s is not None:
            self.queue.add_after(key, actions.look_again_s)
        if failure is not None:
            raise failure

    # -- acting --------------------------------------------------------------------------------------------------

    async def _claim(self, owner: Owner, actions: Actions) -> None:
        for pod in actions.adopt:
            owners = [*_owner_dicts(pod), _owner_dict(owner)]
            await self._patch_owners(pod, owners)
        for pod in actions.release:
            await self._patch_owners(pod, [o for o in _owner_dicts(pod) if o["uid"] != owner.metadata.uid])

    async def _patch_owners(self, pod: core.Pod, owners: list[dict[str, object]]) -> None:
        """Write the owner list, but only over the version we looked at: another controller may adopt it first."""
        patch = {"metadata": {"ownerReferences": owners, "resourceVersion": pod.metadata.resourceVersion}}
        try:
            await self.client.patch(core.Pod, pod.metadata.name, patch, namespace=pod.metadata.namespace)
        except errors.NotFound:
            log.debug("pod went before it was claimed", extra={"pod": meta.key(pod)})

    async def _create(self, key: str, owner: Owner, number: int) -> None:
        if number == 0:
            return
        template = pod_from(owner, owner.spec.template)
        self.expectations.expect(key, number, (), self.env.now())
        left = number
        for size in batches(number):
            results = await asyncio.gather(*(self.client.create(template) for _ in range(size)), return_exceptions=True)
            left -= size
            created = [pod for pod in results if not isinstance(pod, BaseException)]
            failures = [err for err in results if isinstance(err, BaseException)]
            for pod in created:
                self.recorder.normal(owner, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")
            if failures:
                self.expectations.created(key, len(failures) + left)
                self.recorder.warning(owner, "FailedCreate", f"Error creating: {failures[0]}")
                raise failures[0]

    async def _delete(self, key: str, owner: Owner, pods: tuple[core.Pod, ...]) -> None:
        if not pods:
            return
        self.expectations.expect(key, 0, [pod.metadata.uid for pod in pods], self.env.now())
        results = await asyncio.gather(*(self._delete_one(key, owner, pod) for pod in pods), return_exceptions=True)
        failures = [err for err in results if isinstance(err, BaseException)]
        if failures:
            raise failures[0]

    async def _delete_one(self, key: str, owner: Owner, pod: core.Pod) -> None:
        uid, name = pod.metadata.uid, pod.metadata.name
        try:
            await self.client.delete(core.Pod, name, namespace=pod.metadata.namespace, uid=uid)
        except (errors.NotFound, errors.Conflict):
            self.expectations.deleted(key, uid)
        except errors.ApiError as err:
            self.expectations.deleted(key, uid)
            self.recorder.warning(owner, "FailedDelete", f"Error deleting: {err.message}")
            raise
        else:
            self.recorder.normal(owner, "SuccessfulDelete", f"Deleted pod: {name}")

    async def _report(self, owner: Owner, counts: Counts | None, failure: errors.ApiError | None) -> None:
        updated = meta.copy_of(owner)
        status = updated.status
        if counts is not None:
            status.replicas, status.fullyLabeledReplicas = counts.replicas, counts.fully_labelled
            status.readyReplicas, status.availableReplicas = counts.ready, counts.available
        status.observedGeneration = owner.metadata.generation
        if failure is not None and not isinstance(failure, errors.Conflict | errors.Unavailable):
            less = counts is not None and counts.replicas < wanted(owner)
            reason = "FailedCreate" if less else "FailedDelete"
            meta.set_condition(status.conditions, "ReplicaFailure", "True", reason, failure.message)
        elif failure is None:
            kept = [condition for condition in status.conditions if condition.type != "ReplicaFailure"]
            del status.conditions[:]
            status.conditions.extend(kept)
        if updated.status != owner.status:
            try:
                await self.client.update_status(updated)
            except errors.NotFound:
                log.debug("owner is gone", extra={"owner": meta.key(owner)})

    # -- hearing -------------------------------------------------------------------------------------------------

    def _owner_changed(self, old: Owner | None, new: Owner | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self.expectations.forget(meta.key(old))
        self.enqueue_either(old, new)

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if old is not None and new is not None and old.metadata.uid != new.metadata.uid:
            self._pod_changed(old, None)
            old = None
        pod = new if new is not None else old
        assert pod is not None
        gone = new is None or (meta.is_deleting(new) and (old is None or not meta.is_deleting(old)))
        for key in {key for seen in (old, new) if seen is not None for key in self._owner_keys(seen)}:
            if gone:
                self.expectations.deleted(key, pod.metadata.uid)
            elif old is None:
                self.expectations.created(key)
            self.queue.add(key)
        if new is not None and meta.controller_of(new) is None and not meta.is_deleting(new):
            self._orphan_changed(new)

    def _owner_keys(self, pod: core.Pod) -> list[str]:
        controller = meta.controller_of(pod)
        if controller is None or controller.kind != self.kind.DESCRIPTOR.name:
            return []
        key = f"{pod.metadata.namespace}/{controller.name}"
        owner = self.owners.get(key)
        return [key] if owner is not None and owner.metadata.uid == controller.uid else []

    def _orphan_changed(self, pod: core.Pod) -> None:
        """A pod without a controller: whoever selects it may adopt it."""
        from control.controllers.replicas import selector_of

        for owner in self.env.in_namespace(self.kind, pod.metadata.namespace):
            if selector_of(owner).matches(pod.metadata.labels):
                self.queue.add(meta.key(owner))


def _owner_dict(owner: Owner) -> dict[str, object]:
    reference = meta.owner_reference(owner)
    return {
        "apiVersion": reference.apiVersion,
        "kind": reference.kind,
        "name": reference.name,
        "uid": reference.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _owner_dicts(pod: core.Pod) -> list[dict[str, object]]:
    return [
        {
            "apiVersion": owner.apiVersion,
            "kind": owner.kind,
            "name": owner.name,
            "uid": owner.uid,
            **({"controller": owner.controller} if owner.HasField("controller") else {}),
            **({"blockOwnerDeletion": owner.blockOwnerDeletion} if owner.HasField("blockOwnerDeletion") else {}),
        }
        for owner in pod.metadata.ownerReferences
    ]


class ReplicationControllers(ReplicationBase):
    """core/v1 ReplicationController."""

    name = "replication"
    kind = core.ReplicationController


class ReplicaSets(ReplicationBase):
    """apps/v1 ReplicaSet."""

    name = "replicaset"
    kind = apps.ReplicaSet
