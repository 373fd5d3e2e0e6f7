"""Objects on any etcd, as Kubernetes keeps them: key ``/registry/...``, value the ``k8s\\0`` envelope.

An object's resourceVersion is its key's mod_revision; it is never stored inside. Every write is one transaction that
compares mod_revision, so a lost update is impossible. Source: apiserver, storage/etcd3.
"""

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from control.api.codec import DecodeError, from_envelope, to_envelope
from control.api.errors import BadRequest, Expired, InternalError, Timeout, Unavailable
from control.api.kinds import KINDS, Kind
from protos.etcd.kv_pb2 import KeyValue
from raftstore.client import Client, compare_mod, op_delete, op_put, op_range, prefix_end
from raftstore.client import errors as etcd_errors

ROOT = b"/registry/"
PAGE = 500
"""Keys per read of a long range."""


class KeyExists(Exception):
    """The key of a create is taken."""


class Changed(Exception):
    """The key is not at the revision that the write expected. ``current`` is what is there, or None."""

    def __init__(self, current: "Stored | None") -> None:
        super().__init__("the object changed")
        self.current = current


@dataclass(frozen=True)
class Stored:
    """One object as read: ``obj.metadata.resourceVersion`` is ``revision``."""

    key: str
    obj: Any
    revision: int


@dataclass(frozen=True)
class KeyPage:
    """A page of a range: the objects, the revision it is pinned to, whether more follow, how many in all."""

    items: list[Stored]
    revision: int
    more: bool
    count: int


def key_of(kind: Kind, namespace: str, name: str) -> str:
    """The key of an object: ``/registry/pods/default/web``, ``/registry/minions/n1``."""
    return kind.registry_prefix + (f"{namespace}/{name}" if kind.namespaced else name)


def prefix_of(kind: Kind, namespace: str = "") -> str:
    """The key prefix of a kind, or of its part in one namespace."""
    return kind.registry_prefix + (f"{namespace}/" if namespace and kind.namespaced else "")


_BY_PREFIX = {kind.registry_prefix: kind for kind in KINDS}


def kind_of(key: str) -> Kind | None:
    """The kind whose objects live at ``key``; None for keys that are not ours."""
    parts = key.split("/")
    for length in (3, 4):
        found = _BY_PREFIX.get("/".join(parts[:length]) + "/")
        if found is not None:
            return found
    return None


def decode(kind: Kind, key: bytes, value: bytes, revision: int) -> Stored:
    """The object of a key-value pair. Raises codec.DecodeError for bytes that are no object."""
    obj = from_envelope(value, kind.message)
    if not isinstance(obj, kind.message):
        raise DecodeError([("kind", f"{key.decode()} holds a {obj.DESCRIPTOR.full_name}, not a {kind.kind}")])
    obj.metadata.resourceVersion = str(revision)
    return Stored(key.decode(), obj, revision)


def encode(obj: Message) -> bytes:
    """The stored bytes of an object, without its resourceVersion."""
    copy: Any = type(obj)()
    copy.CopyFrom(obj)
    copy.metadata.ClearField("resourceVersion")
    copy.metadata.ClearField("selfLink")
    return to_envelope(copy)


def translate(err: etcd_errors.EtcdError) -> Exception:
    """The ApiError that tells a failure of the store."""
    if isinstance(err, etcd_errors.Compacted):
        return Expired("the resource version is too old: the store has compacted it; list again")
    if isinstance(err, etcd_errors.TooLarge):
        return BadRequest(f"the object is larger than the store accepts: make it smaller, or split it ({err})")
    if isinstance(err, etcd_errors.RequestTimeout):
        return Timeout(f"the store did not answer in time: {err}")
    return Unavailable(f"the store cannot be used: {err}")


class Storage:
    """Reads and writes objects. Raises ApiErrors for failures of the store, KeyExists and Changed for races."""

    def __init__(self, etcd: Client) -> None:
        self._etcd = etcd

    async def get(self, kind: Kind, key: str) -> Stored | None:
        """The object at ``key`` now, linearizably."""
        try:
            answer = await self._etcd.range(key.encode())
        except etcd_errors.EtcdError as err:
            raise translate(err) from err
        return _first(kind, answer.kvs)

    async def revision(self) -> int:
        """The store's revision now, linearizably: every acknowledged write is at or below it."""
        try:
            return (await self._etcd.range(ROOT, count_only=True)).header.revision
        except etcd_errors.EtcdError as err:
            raise translate(err) from err

    async def create(self, key: str, obj: Message, lease: int = 0) -> int:
        """Write a new key; returns its revision. Raises KeyExists."""
        name = key.encode()
        answer = await self._txn(name, 0, op_put(name, encode(obj), lease=lease), read=False)
        if not answer.succeeded:
            raise KeyExists(key)
        return answer.header.revision

    async def replace(self, kind: Kind, key: str, obj: Message, revision: int, lease: int = 0) -> int:
        """Overwrite ``key`` if it is still at ``revision``; returns the new one. Raises Changed."""
        name = key.encode()
        answer = await self._txn(name, revision, op_put(name, encode(obj), lease=lease))
        return _written(kind, answer)

    async def delete(self, kind: Kind, key: str, revision: int) -> int:
        """Delete ``key`` if it is still at ``revision``; returns the revision of the deletion. Raises Changed."""
        name = key.encode()
        return _written(kind, await self._txn(name, revision, op_delete(name)))

    async def page(self, kind: Kind, prefix: str, start: str, limit: int, revision: int) -> KeyPage:
        """Up to ``limit`` objects from key ``start`` on, as they were at ``revision``. Raises Expired."""
        try:
            answer = await self._etcd.range(start.encode(), prefix_end(prefix.encode()), revision=revision, limit=limit)
        except etcd_errors.EtcdError as err:
            raise translate(err) from err
        items = [_readable(kind, kv) for kv in answer.kvs]
        return KeyPage(items, revision or answer.header.revision, answer.more, answer.count)

    async def grant_lease(self, ttl_s: int) -> int:
        """A store lease that deletes its keys after ``ttl_s`` seconds."""
        try:
            return (await self._etcd.lease_grant(ttl_s)).ID
        except etcd_errors.EtcdError as err:
            raise translate(err) from err

    async def _txn(self, key: bytes, revision: int, op: Any, read: bool = True) -> Any:
        try:
            otherwise = [op_range(key)] if read else []
            return await self._etcd.txn([compare_mod(key, "=", revision)], [op], otherwise)
        except etcd_errors.EtcdError as err:
            raise translate(err) from err


def _written(kind: Kind, answer: Any) -> int:
    if not answer.succeeded:
        raise Changed(_first(kind, answer.responses[0].response_range.kvs))
    revision: int = answer.header.revision
    return revision


def _first(kind: Kind, kvs: Any) -> Stored | None:
    return _readable(kind, kvs[0]) if kvs else None


def _readable(kind: Kind, kv: KeyValue) -> Stored:
    """The object of a pair. Raises InternalError naming a key whose bytes are no object."""
    try:
        return decode(kind, kv.key, kv.value, kv.mod_revision)
    except DecodeError as err:
        name = kv.key.decode(errors="replace")
        raise InternalError(
            f"the store's bytes at {name} are not a {kind.kind}: repair or delete the key ({err})"
        ) from err
