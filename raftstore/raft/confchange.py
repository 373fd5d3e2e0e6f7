"""Changes of membership as values: (configuration, change) -> configuration.

One voter at a time is changed in one step, since any majority of the old voters shares a member with any majority of
the new ones. More at once go through a joint configuration, in which both groups decide (Raft §6; the manner is
etcd-io/raft's ConfChangeV2). Members hold a change for true when they apply it, not when they see it: ``Node`` says
what makes that safe.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct, error
from typing import NamedTuple

from raftstore.raft.errors import ConfChangeRefused
from raftstore.raft.types import ConfState, Entry, EntryKind, HardState, MemberId

_HEAD = Struct("<BH")
_STEP = Struct("<BQ")


class ChangeType(IntEnum):
    """What happens to one member. Numbers are on disk."""

    ADD_VOTER = 1
    """Also promotes a learner."""
    ADD_LEARNER = 2
    """Also demotes a voter."""
    REMOVE = 3


class Transition(IntEnum):
    """Whether to go through a joint configuration, and how out of it. Numbers are on disk."""

    AUTO = 0
    """Joint only if several voters change; the leader then leaves it by itself."""
    JOINT_IMPLICIT = 1
    """Joint; the leader leaves it by itself."""
    JOINT_EXPLICIT = 2
    """Joint until a ``ConfChange.leave`` is proposed."""


class Change(NamedTuple):
    """One member's part of a change."""

    type: ChangeType
    id: MemberId


@dataclass(frozen=True, slots=True)
class ConfChange:
    """A change of membership. Without ``changes`` it leaves a joint configuration."""

    changes: tuple[Change, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""
    """The proposer's own: carried, never looked into (names and addresses of members, say)."""

    @classmethod
    def leave(cls) -> "ConfChange":
        """End the joint configuration."""
        return cls()

    def encode(self) -> bytes:
        """``transition u8 | count u16 | (type u8 | id u64) * count | context``, little-endian."""
        steps = [_STEP.pack(change.type, change.id) for change in self.changes]
        return b"".join([_HEAD.pack(self.transition, len(steps)), *steps, self.context])

    @classmethod
    def decode(cls, data: bytes) -> "ConfChange":
        """The inverse of ``encode``. Raises ConfChangeRefused if ``data`` is none."""
        try:
            transition, count = _HEAD.unpack_from(data)
            end = _HEAD.size + count * _STEP.size
            steps = [Change(ChangeType(kind), id) for kind, id in _STEP.iter_unpack(data[_HEAD.size : end])]
            if len(steps) != count:
                raise ValueError("too short")
            return cls(tuple(steps), Transition(transition), data[end:])
        except (ValueError, error) as err:
            raise ConfChangeRefused(f"not a change of members: {err}") from err

    def apply_to(self, conf: ConfState) -> ConfState:
        """The configuration after this change. Raises ConfChangeRefused if it cannot follow on ``conf``."""
        if not self.changes:
            return _leave(conf)
        if conf.joint:
            raise ConfChangeRefused("a change of several members is under way")
        changed = _changed(conf, self.changes)
        if not conf.voters or not self._needs_joint(conf, changed):
            return changed
        return _enter(conf, changed, self.transition is not Transition.JOINT_EXPLICIT)

    def _needs_joint(self, conf: ConfState, changed: ConfState) -> bool:
        return self.transition is not Transition.AUTO or len(conf.voters ^ changed.voters) > 1


def _changed(conf: ConfState, changes: Sequence[Change]) -> ConfState:
    voters, learners = set(conf.voters), set(conf.learners)
    for type, id in changes:
        if not id:
            raise ConfChangeRefused("0 is no member's id")
        voters.discard(id)
        learners.discard(id)
        if type is ChangeType.ADD_VOTER:
            voters.add(id)
        elif type is ChangeType.ADD_LEARNER:
            learners.add(id)
    if not voters:
        raise ConfChangeRefused("a cluster needs a voter")
    return ConfState(frozenset(voters), frozenset(learners))


def _enter(conf: ConfState, changed: ConfState, auto_leave: bool) -> ConfState:
    """Both groups of voters at once; who is demoted stays a voter of the old group until the end."""
    demoted = changed.learners & conf.voters
    return ConfState(changed.voters, changed.learners - demoted, conf.voters, demoted, auto_leave)


def _leave(conf: ConfState) -> ConfState:
    if not conf.joint:
        raise ConfChangeRefused("no change of several members is under way")
    return ConfState(conf.voters, conf.learners | conf.learners_next)


def bootstrap(voters: Iterable[MemberId], context: bytes = b"") -> tuple[HardState, list[Entry]]:
    """The state with which every first member of a cluster is born: to be written to its log before it first runs.

    The membership is the first entry of the log, so that a member who joins later learns all of it by replication.
    All first members must be given the same arguments.
    """
    change = ConfChange(tuple(Change(ChangeType.ADD_VOTER, id) for id in sorted(voters)), context=context)
    return HardState(1, 0, 1), [Entry(1, 1, change.encode(), EntryKind.CONF_CHANGE)]
