"""Password hashes: scrypt with a random salt, ``scrypt$log2(n)$r$p$salt$hash``. Slow on purpose: call in a thread."""

import base64
import hashlib
import hmac
import os

_LOG_N, _R, _P = 14, 8, 1
_SALT_BYTES = 16
_MEMORY_BYTES_MAX = 64 << 20


def hash_password(password: str) -> bytes:
    """A new hash; two of one password differ."""
    salt = os.urandom(_SALT_BYTES)
    fields = (str(_LOG_N), str(_R), str(_P), _text(salt), _text(_scrypt(password, salt, _LOG_N, _R, _P)))
    return "$".join(("scrypt", *fields)).encode()


def matches(password: str, hashed: bytes) -> bool:
    """Whether ``hashed`` was made from ``password``. A malformed hash matches nothing."""
    try:
        name, log_n, r, p, salt, wanted = hashed.decode().split("$")
        if name != "scrypt":
            return False
        found = _scrypt(password, base64.b64decode(salt), int(log_n), int(r), int(p))
        return hmac.compare_digest(found, base64.b64decode(wanted))
    except ValueError:
        return False


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=1 << log_n, r=r, p=p, maxmem=_MEMORY_BYTES_MAX, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
