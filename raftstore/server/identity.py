"""Who a call comes from: a token in its metadata, or the name in the client's certificate."""

import grpc

from raftstore.auth.identity import ANONYMOUS, Identity
from raftstore.errors import Unauthenticated
from raftstore.member import Member

_COMMON_NAME = "x509_common_name"


def identify(member: Member, context: grpc.aio.ServicerContext) -> Identity:
    """The caller; ANONYMOUS while authentication is off or if it says nothing. Raises Unauthenticated."""
    auth = member.machine.auth
    if not auth.enabled:
        return ANONYMOUS
    token = _token(context)
    if token:
        who = member.tokens.recognise(token.removeprefix("Bearer "), auth.revision)
        if who is None:
            raise Unauthenticated("this token is unknown or has expired")
        return who
    name = _common_name(context) if member.config.client_cert_auth else ""
    return Identity(name, auth.revision) if name else ANONYMOUS


def _token(context: grpc.aio.ServicerContext) -> str:
    found = {key: value for key, value in context.invocation_metadata() or () if key in ("token", "authorization")}
    return str(found.get("token") or found.get("authorization") or "")


def _common_name(context: grpc.aio.ServicerContext) -> str:
    names = context.auth_context().get(_COMMON_NAME, ())
    return names[0].decode(errors="replace") if names else ""
