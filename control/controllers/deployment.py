"""Deployments: the loop around ``rollout.reconcile``."""

import logging

from control.api import meta
from control.client import errors
from control.controllers.controller import Controller, Environment
from control.controllers.rollout import REVISION, Actions, newest, reconcile
from protos.k8s import apps_v1_pb2 as apps

log = logging.getLogger(__name__)


class DeploymentController(Controller):
    """Keeps the ReplicaSets of every Deployment."""

    name = "deployment"

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self.deployments = env.informer(apps.Deployment)
        self.sets = env.informer(apps.ReplicaSet)
        self.sets.add_index("controller", _controller_uid)
        self.deployments.add_handler(self.enqueue_either)
        self.sets.add_handler(self._set_changed)

    def _set_changed(self, old: apps.ReplicaSet | None, new: apps.ReplicaSet | None) -> None:
        for rs in (old, new):
            controller = meta.controller_of(rs) if rs is not None else None
            if rs is not None and controller is not None and controller.kind == "Deployment":
                self.queue.add(f"{rs.metadata.namespace}/{controller.name}")

    async def sync(self, key: str) -> None:
        """Take the next step of deployment ``key``."""
        deployment = self.deployments.get(key)
        if deployment is None:
            return
        owned = self.sets.by_index("controller", deployment.metadata.uid)
        actions = reconcile(deployment, owned, self.env.now())
        try:
            await self._act(deployment, actions)
        except errors.NotFound:
            log.debug("deployment or replica set went meanwhile", extra={"deployment": key})
        if actions.look_again_s is not None:
            self.queue.add_after(key, actions.look_again_s + 0.1)

    async def _act(self, deployment: apps.Deployment, actions: Actions) -> None:
        if actions.create is not None:
            await self._create(deployment, actions.create)
        if actions.revise is not None:
            await self._annotate(apps.ReplicaSet, actions.revise, actions.revision)
        for rs, replicas in actions.scale:
            await self._scale(deployment, rs, replicas)
        for rs in actions.delete:
            await self.client.delete(apps.ReplicaSet, rs.metadata.name, rs.metadata.namespace, uid=rs.metadata.uid)
        if actions.status is not None and actions.status != deployment.status:
            changed: apps.Deployment = meta.copy_of(deployment)
            changed.status.CopyFrom(actions.status)
            await self.client.update_status(changed)
        if actions.revision and deployment.metadata.annotations.get(REVISION) != str(actions.revision):
            await self._annotate(apps.Deployment, deployment, actions.revision)

    async def _create(self, deployment: apps.Deployment, rs: apps.ReplicaSet) -> None:
        try:
            await self.client.create(rs)
        except errors.AlreadyExists:
            await self._name_taken(deployment, rs)
            return
        message = f"Scaled up replica set {rs.metadata.name} from 0 to {rs.spec.replicas}"
        self.recorder.normal(deployment, "ScalingReplicaSet", message)

    async def _name_taken(self, deployment: apps.Deployment, rs: apps.ReplicaSet) -> None:
        """Ours already (the cache is behind): nothing to do. Somebody else's: count a collision, for another name."""
        found = await self.client.get(apps.ReplicaSet, rs.metadata.name, namespace=rs.metadata.namespace)
        if not meta.is_controlled_by(found, deployment) or newest(deployment, [found]) is None:
            changed: apps.Deployment = meta.copy_of(deployment)
            changed.status.collisionCount += 1
            await self.client.update_status(changed)

    async def _scale(self, deployment: apps.Deployment, rs: apps.ReplicaSet, replicas: int) -> None:
        changed: apps.ReplicaSet = meta.copy_of(rs)
        before, changed.spec.replicas = rs.spec.replicas, replicas
        await self.client.update(changed)
        way = "up" if replicas > before else "down"
        message = f"Scaled {way} replica set {rs.metadata.name} from {before} to {replicas}"
        self.recorder.normal(deployment, "ScalingReplicaSet", message)

    async def _annotate(self, cls: type, obj: apps.ReplicaSet | apps.Deployment, revision: int) -> None:
        patch = {"metadata": {"annotations": {REVISION: str(revision)}}}
        await self.client.patch(cls, obj.metadata.name, patch, namespace=obj.metadata.namespace)


def _controller_uid(rs: apps.ReplicaSet) -> list[str]:
    controller = meta.controller_of(rs)
    return [controller.uid] if controller is not None else []
