"""Who calls: the user in the client's certificate (CN is the name, each O a group), as in Kubernetes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from control.api.errors import Unauthorized

MASTERS, AUTHENTICATED = "system:masters", "system:authenticated"


@dataclass(frozen=True)
class User:
    """A name and the groups it is in."""

    name: str
    groups: tuple[str, ...] = ()


LOCAL = User("system:local", (MASTERS, AUTHENTICATED))
"""Who speaks on a plaintext listener: whoever can reach it. It is loopback and asked for by flag."""


def user_of(auth_context: Mapping[str, Any]) -> User:
    """The user of a gRPC call's auth context. Raises Unauthorized for a TLS client without a name."""
    pems = auth_context.get("x509_pem_cert")
    if pems:
        return _user_of_pem(bytes(pems[0]))
    if b"ssl" in auth_context.get("transport_security_type", ()):
        raise Unauthorized("no client certificate: connect with one that the cluster's CA signed")
    return LOCAL


def user_of_der(certificate: bytes) -> User:
    """The user of a certificate in DER. Raises Unauthorized likewise."""
    return _user_of_subject(x509.load_der_x509_certificate(certificate).subject)


@lru_cache(maxsize=256)
def _user_of_pem(pem: bytes) -> User:
    return _user_of_subject(x509.load_pem_x509_certificate(pem).subject)


def _user_of_subject(subject: x509.Name) -> User:
    names = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if not names or not names[0]:
        raise Unauthorized("the client certificate has no common name, so it names no user")
    groups = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return User(names[0], (*groups, AUTHENTICATED))
