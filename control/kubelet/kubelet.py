"""The kubelet: a worker for every pod that the API binds to this node or that the runtime still has.

Crash-only: it keeps nothing that it cannot read back. On start it lists both sides and converges; pods run on
meanwhile.
"""

import asyncio
import logging

from control.client import Informer
from control.kubelet.nodestatus import NodeReporter
from control.kubelet.pleg import Listener
from control.kubelet.services import Services
from control.kubelet.worker import PodWorker
from protos.k8s import core_v1_pb2 as core

log = logging.getLogger(__name__)


class Kubelet:
    """Runs the pods of one node."""

    def __init__(self, services: Services, reporter: NodeReporter) -> None:
        self.services, self.reporter = services, reporter
        node = services.node.name
        self.pods: Informer[core.Pod] = Informer(services.client, core.Pod, field_selector=f"spec.nodeName={node}")
        self.listener = Listener(services.runtime, self._look_at, self._runtime_up)
        self.workers: dict[str, PodWorker] = {}
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self, service_informer: Informer[core.Service]) -> None:
        """Run until cancelled. Pods stay."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self.services.recorder.run(), name="events")
            tasks.create_task(self.reporter.run(), name="node")
            tasks.create_task(service_informer.run(), name="informer-services")
            # A container's environment lists the services that are there when it starts.
            await service_informer.synced()
            self.pods.add_handler(self._pod_changed)
            tasks.create_task(self.pods.run(), name="informer-pods")
            await self.pods.synced()
            # Only now is a pod that the runtime has and the API has not known to be an orphan.
            tasks.create_task(self.listener.run(), name="listener")

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod by name."""
        pod = self.pods.get(f"{namespace}/{name}")
        return self.workers.get(pod.metadata.uid) if pod is not None else None

    def _pod_changed(self, old: core.Pod | None, new: core.Pod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            worker = self.workers.get(old.metadata.uid)
            if worker is not None:
                worker.gone()
        if new is not None:
            self._worker(new.metadata.uid).update(new)

    def _look_at(self, uid: str) -> None:
        worker = self.workers.get(uid)
        if worker is None:
            log.info("pod is not in the API, removing it", extra={"uid": uid})
            worker = self._worker(uid)
        worker.poke()

    def _runtime_up(self, answers: bool) -> None:
        self.reporter.poke()
        if answers:
            for worker in self.workers.values():
                worker.poke()

    def _worker(self, uid: str) -> PodWorker:
        worker = self.workers.get(uid)
        if worker is None:
            assert self._tasks is not None
            worker = self.workers[uid] = PodWorker(self.services, uid)
            self._tasks.create_task(self._run_worker(worker), name=f"pod-{uid}")
        return worker

    async def _run_worker(self, worker: PodWorker) -> None:
        await worker.run()
        if self.workers.get(worker.uid) is worker:
            del self.workers[worker.uid]
