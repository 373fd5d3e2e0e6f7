"""The cluster's certificates: one CA, and one leaf per component with the identity Kubernetes gives it.

CN is the user and O the group that the apiserver's authorisation sees. Keys are ECDSA P-256, files 0600. What exists
and is still right (same CA, same names, not about to expire) is kept, so ``ensure_pki`` may run at every start.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ctl.lab.settings import Settings

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
SKEW = timedelta(minutes=5)
"""How far a verifier's clock may be behind."""


@dataclass(frozen=True)
class Identity:
    """One leaf: file name, CN, O, and for servers the names and addresses it answers to."""

    name: str
    user: str
    group: str = ""
    server: bool = False
    hosts: Sequence[str] = field(default=())


def identities(settings: Settings) -> list[Identity]:
    """Everyone who speaks in the cluster."""
    here = ("localhost", "127.0.0.1")
    node = tuple(dict.fromkeys((settings.node_name, settings.node_ip, *here)))
    api = tuple(dict.fromkeys((*here, "kubernetes", "kubernetes.default", "kubernetes.default.svc", settings.node_ip)))
    return [
        Identity("admin", "kubernetes-admin", "system:masters"),
        Identity("store", "knarr-store", server=True, hosts=tuple(dict.fromkeys((*here, settings.node_ip)))),
        Identity("apiserver", "kube-apiserver", server=True, hosts=api),
        Identity("apiserver-client", "kube-apiserver", "system:masters"),
        Identity("scheduler", "system:kube-scheduler", server=True, hosts=here),
        Identity("controllers", "system:kube-controller-manager", server=True, hosts=here),
        Identity("kubelet", f"system:node:{settings.node_name}", "system:nodes", server=True, hosts=node),
        Identity("proxy", "system:kube-proxy", server=True, hosts=here),
    ]


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate and key."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_pki(directory: Path, settings: Settings, now: datetime | None = None) -> None:
    """Make ``directory`` hold a valid CA and every identity's pair. Raises OSError when it cannot be written."""
    now = now or datetime.now(UTC)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca = _ensure_ca(directory, now)
    for identity in identities(settings):
        if not _is_good(directory, identity, ca, now):
            _issue(directory, identity, ca, now)


def _ensure_ca(directory: Path, now: datetime) -> Authority:
    try:
        cert = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and cert.not_valid_after_utc > now + RENEW_BEFORE:
            return Authority(cert, key)
    except (FileNotFoundError, ValueError):
        pass
    return _make_ca(directory, now)


def _make_ca(directory: Path, now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "knarr-ca")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    cert = (
        _builder(name, name, key.public_key(), now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(directory, "ca", cert, key)
    return Authority(cert, key)


def _issue(directory: Path, identity: Identity, ca: Authority, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if identity.server else [])]
    builder = (
        _builder(_subject(identity), ca.cert.subject, key.public_key(), now, LEAF_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
    )
    if identity.hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(_names(identity.hosts)), critical=False)
    _write_pair(directory, identity.name, builder.sign(ca.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
    )


def _subject(identity: Identity) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.group)] if identity.group else []
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, identity.user)])


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    return [_general_name(host) for host in hosts]


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _is_good(directory: Path, identity: Identity, ca: Authority, now: datetime) -> bool:
    """Whether the pair on disk is what would be issued now."""
    try:
        cert = x509.load_pem_x509_certificate((directory / f"{identity.name}.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / f"{identity.name}.key").read_bytes(), None)
        cert.verify_directly_issued_by(ca.cert)
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature):
        return False
    return (
        cert.public_key() == key.public_key()
        and cert.subject == _subject(identity)
        and _hosts_of(cert) == set(_names(identity.hosts))
        and cert.not_valid_after_utc > now + RENEW_BEFORE
    )


def _hosts_of(cert: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _write_pair(directory: Path, name: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """The key first: a crash between the two leaves a pair that does not match, which is issued anew."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(directory / f"{name}.key", pem)
    _write(directory / f"{name}.crt", cert.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
