"""JSON Web Tokens (RFC 7519) that carry user and auth revision, so that no member need remember them.

``--auth-token jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m``, etcd's spelling. With a public key only, the
member recognises tokens but issues none.
"""

import base64
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from raftstore.auth.identity import Identity
from raftstore.errors import CannotSign

TTL_S = 300.0

_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
METHODS = [*(kind + bits for kind in ("RS", "PS", "ES", "HS") for bits in _HASHES), "EdDSA"]


class Signer:
    """Signs and verifies with one method (RFC 7518 §3) and one key."""

    def __init__(self, method: str, public: Any, private: Any) -> None:
        """Keys of the method's kind; for HS both are the same bytes. ``private`` None only verifies."""
        self.method = method
        self._public = public
        self._private = private
        self._hash = _HASHES.get(method[2:], hashes.SHA512)()

    @property
    def can_sign(self) -> bool:
        """Whether there is a private key."""
        return self._private is not None

    def sign(self, data: bytes) -> bytes:
        """The signature."""
        match self.method[:2]:
            case "HS":
                return hmac.digest(self._private, data, self._hash.name)
            case "RS":
                return self._private.sign(data, padding.PKCS1v15(), self._hash)
            case "PS":
                return self._private.sign(data, self._pss(), self._hash)
            case "ES":
                r, s = decode_dss_signature(self._private.sign(data, ec.ECDSA(self._hash)))
                size = self._coordinate_bytes()
                return r.to_bytes(size, "big") + s.to_bytes(size, "big")
            case _:
                return self._private.sign(data)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether ``signature`` is of ``data``."""
        try:
            match self.method[:2]:
                case "HS":
                    return hmac.compare_digest(hmac.digest(self._public, data, self._hash.name), signature)
                case "RS":
                    self._public.verify(signature, data, padding.PKCS1v15(), self._hash)
                case "PS":
                    self._public.verify(signature, data, self._pss(), self._hash)
                case "ES":
                    self._public.verify(self._from_raw(signature), data, ec.ECDSA(self._hash))
                case _:
                    self._public.verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True

    def _pss(self) -> padding.PSS:
        return padding.PSS(padding.MGF1(self._hash), self._hash.digest_size)

    def _coordinate_bytes(self) -> int:
        return (self._public.curve.key_size + 7) // 8

    def _from_raw(self, signature: bytes) -> bytes:
        size = self._coordinate_bytes()
        if len(signature) != 2 * size:
            raise ValueError("wrong length")
        return encode_dss_signature(int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big"))


class JWTTokens:
    """Tokens that prove themselves until they expire."""

    def __init__(self, signer: Signer, clock: Callable[[], float], ttl_s: float = TTL_S) -> None:
        """``clock`` is the time of day, seconds since 1970."""
        self._signer = signer
        self._clock = clock
        self._ttl_s = ttl_s

    def issue(self, user: str, auth_revision: int) -> str | None:
        """See Tokens. Raises CannotSign with a public key only."""
        if not self._signer.can_sign:
            raise CannotSign("auth: token signing attempted with verify-only key")
        head = {"alg": self._signer.method, "typ": "JWT"}
        claims = {"username": user, "revision": auth_revision, "exp": int(self._clock() + self._ttl_s)}
        signed = f"{_encode(_json(head))}.{_encode(_json(claims))}"
        return f"{signed}.{_encode(self._signer.sign(signed.encode()))}"

    def register(self, user: str, random_part: str, index: int) -> str:
        """Not needed: ``issue`` always answers."""
        return ""

    def recognise(self, token: str, auth_revision: int) -> Identity | None:
        """See Tokens. The identity has the auth revision of the token, which may be old."""
        signed, _, signature = token.rpartition(".")
        try:
            head, claims = (json.loads(_decode(part)) for part in signed.split("."))
            genuine = head["alg"] == self._signer.method and self._signer.verifies(_decode(signature), signed.encode())
            if not genuine or claims["exp"] <= self._clock():
                return None
            return Identity(str(claims["username"]), int(claims["revision"]))
        except (ValueError, KeyError, TypeError, UnicodeError):
            return None

    def forget_user(self, user: str) -> None:
        """A change of the user moves the auth revision, which makes its tokens old."""

    def clear(self) -> None:
        """Likewise."""


def read_signer(method: str, public_file: Path | None, private_file: Path | None) -> Signer:
    """The signer of key files: PEM, or for HS any secret. Raises ValueError naming what does not fit."""
    if method not in METHODS:
        raise ValueError(f"sign-method={method}: use one of {', '.join(METHODS)}")
    if private_file is None and public_file is None:
        raise ValueError("jwt needs priv-key=FILE or pub-key=FILE")
    try:
        if method.startswith("HS"):
            secret = (private_file or public_file).read_bytes()  # type: ignore[union-attr]
            return Signer(method, secret, secret)
        private = serialization.load_pem_private_key(private_file.read_bytes(), None) if private_file else None
        public = serialization.load_pem_public_key(public_file.read_bytes()) if public_file else private.public_key()  # type: ignore[union-attr]
    except OSError as err:
        raise ValueError(f"cannot read {err.filename}: {err.strerror}") from err
    _check_kind(method, public)
    return Signer(method, public, private)


def _check_kind(method: str, public: Any) -> None:
    kinds = {"RS": rsa.RSAPublicKey, "PS": rsa.RSAPublicKey, "ES": ec.EllipticCurvePublicKey}
    if not isinstance(public, kinds.get(method[:2], ed25519.Ed25519PublicKey)):
        raise ValueError(f"the key is not of the kind that sign-method={method} needs")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
