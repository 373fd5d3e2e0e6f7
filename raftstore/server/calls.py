"""What the services share: refusals become wire errors, broken invariants stop the member."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

import grpc

from raftstore.errors import EtcdError, InvariantBroken, NoLeader
from raftstore.member import Member
from raftstore.server.errors import refuse

_HAS_LEADER = ("hasleader", "true")


def asks_for_leader(context: grpc.aio.ServicerContext) -> bool:
    """Whether the caller would rather fail than wait for a leader."""
    return any((key, value) == _HAS_LEADER for key, value in context.invocation_metadata() or ())


def require_leader(context: grpc.aio.ServicerContext) -> None:
    """Raise NoLeader if the caller asked for that. Called when there is no leader."""
    if asks_for_leader(context):
        raise NoLeader("this member knows no leader")


class Service(Protocol):
    """A servicer of a member."""

    _member: Member


S = TypeVar("S", bound=Service)
Method = Callable[[S, Any, grpc.aio.ServicerContext], Awaitable[Any]]


def unary(method: Method[S]) -> Method[S]:
    """Decorate an rpc: an EtcdError it raises ends the call with its code and text."""

    @wraps(method)
    async def call(self: S, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            if not self._member.node.leader:
                require_leader(context)
            return await method(self, request, context)
        except EtcdError as err:
            await refuse(context, err)
        except InvariantBroken as err:
            self._member.fail(err)  # gRPC would answer UNKNOWN and carry on
            raise

    return call
