"""What the services share: refusals become wire errors, broken invariants stop the member."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

import grpc

from raftstore.errors import EtcdError, InvariantBroken
from raftstore.member import Member
from raftstore.server.errors import refuse


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
            return await method(self, request, context)
        except EtcdError as err:
            await refuse(context, err)
        except InvariantBroken as err:
            self._member.fail(err)  # gRPC would answer UNKNOWN and carry on
            raise

    return call
