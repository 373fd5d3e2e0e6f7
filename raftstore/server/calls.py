"""What the services share: refusals become wire errors."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

import grpc

from raftstore.errors import EtcdError
from raftstore.server.errors import refuse

S = TypeVar("S")
Method = Callable[[S, Any, grpc.aio.ServicerContext], Awaitable[Any]]


def unary(method: Method[S]) -> Method[S]:
    """Decorate an rpc: an EtcdError it raises ends the call with its code and text."""

    @wraps(method)
    async def call(self: S, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await method(self, request, context)
        except EtcdError as err:
            await refuse(context, err)

    return call
