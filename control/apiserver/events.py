"""Events live for an hour: their keys hang on store leases, each shared by the events of half a minute."""

import asyncio

from control.apiserver.storage import Storage

TTL_S = 3600
REUSE_S = 30.0


class EventLeases:
    """Hands out the lease for an event that is written now."""

    def __init__(self, storage: Storage, ttl_s: int = TTL_S, reuse_s: float = REUSE_S) -> None:
        self._storage, self._ttl_s, self._reuse_s = storage, ttl_s, reuse_s
        self._lease, self._granted_at = 0, 0.0

    async def lease(self) -> int:
        """A lease of at least the TTL, granted anew when the last one is no longer young."""
        now = asyncio.get_running_loop().time()
        if not self._lease or now - self._granted_at > self._reuse_s:
            self._lease = await self._storage.grant_lease(self._ttl_s + int(self._reuse_s))
            self._granted_at = now
        return self._lease
