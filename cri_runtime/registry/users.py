"""Who may use the registry: basic authentication against a file of ``htpasswd``'s form.

One ``name:hash`` a line, ``#`` begins a comment; the hash is any that crypt(5) knows, so that ``htpasswd -B``,
``mkpasswd`` and ``openssl passwd -6`` make one. Everybody in the file may do everything.
"""

import asyncio
import base64
import binascii
import ctypes
import hashlib
import hmac
import os
from collections.abc import Mapping
from pathlib import Path

_CRYPT_DATA_BYTES = 32768  # sizeof(struct crypt_data), crypt(3)
_UNKNOWN = "$6$knarr$"
"""Hashed for names that nobody has, so that time does not tell who is there."""

_crypt = ctypes.CDLL("libcrypt.so.1", use_errno=True)
_crypt.crypt_r.restype = ctypes.c_char_p
_crypt.crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p)


class UsersFileError(OSError):
    """The users file cannot be used; the text names file and line."""


def crypt(password: str, setting: str) -> str:
    """crypt_r(3): the hash of a password by the method, cost and salt of ``setting``. Blocks on purpose.

    Raises OSError for a setting of no known method.
    """
    data = ctypes.create_string_buffer(_CRYPT_DATA_BYTES)
    found = _crypt.crypt_r(password.encode(), setting.encode(), data)
    if found is None or found.startswith(b"*"):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "crypt")
    return bytes(found).decode()


class Users:
    """The users of a file. Each right login is remembered, as its check is slow by design."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)
        self._known: set[bytes] = set()

    async def allow(self, authorization: str) -> bool:
        """Whether an ``Authorization`` header is the login of a user."""
        scheme, _, text = authorization.partition(" ")
        mark = hashlib.sha256(text.strip().encode()).digest()
        if scheme.lower() != "basic" or mark in self._known:
            return scheme.lower() == "basic"
        name, password = _decode(text)
        if await asyncio.to_thread(self._check, name, password):
            self._known.add(mark)
            return True
        return False

    def _check(self, name: str, password: str) -> bool:
        expected = self._hashes.get(name, "")
        if "\0" in password:
            return False
        return hmac.compare_digest(crypt(password, expected or _UNKNOWN), expected)


def _decode(text: str) -> tuple[str, str]:
    try:
        name, _, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def load_users(path: Path) -> Users:
    """Read the file. Raises UsersFileError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise UsersFileError(f"cannot read the users file {path}: {err}") from err
    hashes = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, setting = line.strip().partition(":")
        try:
            if not setting.startswith("$"):
                raise UnicodeError("DES")  # the oldest form takes any two letters for its salt, also a plain password's
            crypt("", setting)
        except (OSError, UnicodeError) as err:
            raise UsersFileError(f"{path}:{number}: not name:hash with a hash of crypt(5); try htpasswd -B") from err
        if not name or not colon:
            raise UsersFileError(f"{path}:{number}: a user needs a name")
        hashes[name] = setting
    return Users(hashes)
