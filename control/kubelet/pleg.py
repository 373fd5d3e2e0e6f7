"""Who hears the runtime: container events as they happen and a slow relist behind them; or a quick relist alone.

(Kubernetes calls this the pod lifecycle event generator.) All it says is "look at this pod": what happened is read
from the runtime by the pod's worker, so a lost or doubled event does no harm.
"""

import asyncio
import logging
from collections.abc import Callable

from control.kubelet.runtime import Runtime, RuntimeFailed, RuntimeSilent
from control.kubelet.state import POD_UID

log = logging.getLogger(__name__)

RELIST_S = 1.0
"""Between two lists of a runtime that has no events, seconds."""

BACKSTOP_S = 30.0
"""Between two lists of one that has, seconds."""

RETRY_S, RETRY_MAX_S = 0.1, 1.0


class Listener:
    """Calls ``look_at(uid)`` for every pod that may have changed, and ``up(bool)`` when the runtime comes or goes."""

    def __init__(self, runtime: Runtime, look_at: Callable[[str], None], up: Callable[[bool], None]) -> None:
        self._runtime, self._look_at, self._up = runtime, look_at, up
        self._known: dict[str, int] = {}
        self._relist_now = asyncio.Event()
        self._every_s = RELIST_S
        self._answers = True

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._relist_for_ever(), name="relist")
            tasks.create_task(self._listen(), name="container-events")

    async def _listen(self) -> None:
        retry_s = RETRY_S
        while True:
            try:
                # Whatever happened while nobody listened is found by the relist that follows at once.
                self._every_s = BACKSTOP_S
                self._relist_now.set()
                async for event in self._runtime.events():
                    retry_s = RETRY_S
                    status = event.pod_sandbox_status
                    uid = status.metadata.uid or next(
                        (c.labels.get(POD_UID, "") for c in event.containers_statuses), ""
                    )
                    if uid:
                        self._look_at(uid)
                    else:
                        self._relist_now.set()
            except RuntimeSilent:
                log.info("runtime has no container events, listing instead", extra={"every_s": RELIST_S})
                self._every_s = RELIST_S
                self._relist_now.set()
                return
            except RuntimeFailed as err:
                log.log(
                    logging.INFO if self._answers else logging.DEBUG,
                    "container events ended",
                    extra={"cause": str(err)},
                )
            self._every_s = RELIST_S
            self._relist_now.set()
            await asyncio.sleep(retry_s)
            retry_s = min(2 * retry_s, RETRY_MAX_S)

    async def _relist_for_ever(self) -> None:
        while True:
            self._relist_now.clear()
            try:
                await self._relist()
                self._say(True)
            except RuntimeFailed as err:
                self._say(False)
                log.debug("runtime does not answer", extra={"cause": str(err)})
            try:
                async with asyncio.timeout(self._every_s if self._answers else RELIST_S):
                    await self._relist_now.wait()
            except TimeoutError:
                continue

    async def _relist(self) -> None:
        found = await self._runtime.fingerprint()
        for uid in sorted(set(found) | set(self._known)):
            if uid and found.get(uid) != self._known.get(uid):
                self._look_at(uid)
        self._known = found

    def _say(self, answers: bool) -> None:
        if answers != self._answers:
            self._answers = answers
            log.log(logging.INFO if answers else logging.WARNING, "runtime is %s", "back" if answers else "down")
            self._up(answers)
