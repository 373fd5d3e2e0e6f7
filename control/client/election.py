"""Leader election on a coordination Lease: one of several identities leads, the others wait.

A candidate trusts no other clock: it takes a lease over when the record has not changed for the lease's duration, as
measured by its own monotonic clock. A leader that cannot renew within ``renew_deadline_s`` stops leading before
another may start. Source: client-go tools/leaderelection.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from control.api import errors, meta, times
from control.client.client import Client
from protos.k8s.coordination_v1_pb2 import Lease

log = logging.getLogger(__name__)

LEASE_S, RENEW_DEADLINE_S, RETRY_S = 15, 10.0, 2.0


class LeaderElector:
    """Runs one coroutine while ``identity`` holds the Lease ``namespace/name``.

    Invariant: retry_s < renew_deadline_s < lease_s.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        identity: str,
        namespace: str = "kube-system",
        lease_s: int = LEASE_S,
        renew_deadline_s: float = RENEW_DEADLINE_S,
        retry_s: float = RETRY_S,
    ) -> None:
        if not retry_s < renew_deadline_s < lease_s:
            raise ValueError("leader election needs retry_s < renew_deadline_s < lease_s")
        self._client, self._name, self.identity, self._namespace = client, name, identity, namespace
        self._lease_s, self._renew_deadline_s, self._retry_s = lease_s, renew_deadline_s, retry_s
        self._observed: tuple[str, str] | None = None
        self._observed_at = 0.0
        self.is_leader = False

    async def run(self, lead: Callable[[], Awaitable[Any]]) -> None:
        """Campaign, and while leading run ``lead()``; after losing the lease campaign again. Until cancelled.

        ``lead`` is cancelled when the lease is lost. When it returns, lease and campaign are given up; what it raises
        is raised here. Cancellation releases the lease, so that a successor need not wait.
        """
        while True:
            await self._acquire()
            log.info("became leader", extra={"lease": self._name, "identity": self.identity})
            try:
                self.is_leader = True
                if await self._lead(lead):
                    return
            finally:
                self.is_leader = False
                await self._release()
            log.warning("lost leadership", extra={"lease": self._name, "identity": self.identity})

    async def _lead(self, lead: Callable[[], Awaitable[Any]]) -> bool:
        """Run ``lead()`` beside the renewals. True when it returned, False when the lease was lost first."""
        work: asyncio.Future[Any] = asyncio.ensure_future(lead())
        renewal = asyncio.create_task(self._renew_until_lost(), name=f"renew-{self._name}")
        try:
            await asyncio.wait([work, renewal], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work
                return True
            await renewal
            return False
        finally:
            for task in (work, renewal):
                task.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)

    async def _acquire(self) -> None:
        while not await self._tried():  # noqa: ASYNC110 - the lease is changed by other processes
            await asyncio.sleep(self._retry_s * random.uniform(1.0, 1.2))

    async def _renew_until_lost(self) -> None:
        """Returns when the lease is another's, or could not be renewed for ``renew_deadline_s``."""
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()
        while loop.time() - renewed_at < self._renew_deadline_s:
            await asyncio.sleep(self._retry_s)
            began = loop.time()
            if await self._tried():
                renewed_at = began
            elif self._observed is not None and self._observed[0] not in ("", self.identity):
                return

    async def _tried(self) -> bool:
        """One attempt to take or renew the lease; failures of the server count as no."""
        try:
            async with asyncio.timeout(self._renew_deadline_s / 2):
                return await self._try()
        except (errors.ApiError, TimeoutError) as err:
            log.debug("lease attempt failed", extra={"lease": self._name, "cause": str(err)})
            return False

    async def _try(self) -> bool:
        lease = await self._read()
        if lease is None:
            await self._client.create(self._claimed(Lease(), taken_over=True))
            return True
        self._observe(lease)
        ours = lease.spec.holderIdentity == self.identity
        if not ours and not self._expired(lease):
            return False
        self._observe(await self._client.update(self._claimed(lease, taken_over=not ours)))
        return True

    async def _read(self) -> Lease | None:
        try:
            return await self._client.get(Lease, self._name, namespace=self._namespace)
        except errors.NotFound:
            return None

    def _observe(self, lease: Lease) -> None:
        seen = (lease.spec.holderIdentity, lease.metadata.resourceVersion)
        if seen != self._observed:
            self._observed, self._observed_at = seen, asyncio.get_running_loop().time()

    def _expired(self, lease: Lease) -> bool:
        if not lease.spec.holderIdentity:
            return True
        age_s = asyncio.get_running_loop().time() - self._observed_at
        return age_s > (lease.spec.leaseDurationSeconds or self._lease_s)

    def _claimed(self, lease: Lease, taken_over: bool) -> Lease:
        """The lease as we want it: ours, renewed now."""
        claimed: Lease = meta.copy_of(lease)
        claimed.metadata.name, claimed.metadata.namespace = self._name, self._namespace
        spec, now = claimed.spec, times.now_micro()
        if taken_over:
            spec.acquireTime.CopyFrom(now)
            spec.leaseTransitions += 1 if lease.spec.holderIdentity else 0
        spec.holderIdentity, spec.leaseDurationSeconds = self.identity, self._lease_s
        spec.renewTime.CopyFrom(now)
        return claimed

    async def _release(self) -> None:
        """Give the lease up, if it is still ours; a server that does not answer will see it expire."""
        try:
            async with asyncio.timeout(self._retry_s):
                lease = await self._read()
                if lease is not None and lease.spec.holderIdentity == self.identity:
                    lease.spec.holderIdentity = ""
                    lease.spec.leaseDurationSeconds = 1
                    await self._client.update(lease)
        except (errors.ApiError, TimeoutError) as err:
            log.info("could not release the lease", extra={"lease": self._name, "cause": str(err)})
