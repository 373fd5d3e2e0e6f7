"""Logins as docker keeps them: ``config.json`` of ``$DOCKER_CONFIG``, else of ``~/.docker``, and its helper programs.

Source: docker's reference, "docker login": ``auths``, ``credHelpers``, ``credsStore``; docker-credential-helpers for
the programs.
"""

import base64
import binascii
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctl.errors import CtlError

_HUB = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"


@dataclass(frozen=True)
class Login:
    """A login for one registry."""

    username: str = ""
    password: str = ""
    identity_token: str = ""


def registry_of(name: str) -> str:
    """The key of an image's registry in ``config.json``."""
    host, slash, _ = name.partition("/")
    if (
        not slash
        or not (any(c in host for c in ".:") or host == "localhost")
        or host in ("docker.io", "index.docker.io")
    ):
        return _HUB
    return host


def find_login(name: str) -> Login | None:
    """What docker would log in with to pull or push ``name``; None: nothing. Raises CtlError naming file and fault."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as err:
        raise CtlError(f"cannot read the logins in {path}: {err}") from err
    if not isinstance(config, dict):
        raise CtlError(f"cannot read the logins in {path}: it is no JSON object")
    registry = registry_of(name)
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    if helper:
        return _ask(str(helper), registry)
    for key, entry in (config.get("auths") or {}).items():
        if key == registry or _host(key) == registry:
            return _read(path, key, entry if isinstance(entry, dict) else {})
    return None


def _host(key: str) -> str:
    """Old entries are URLs."""
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _read(path: Path, key: str, entry: dict[str, Any]) -> Login | None:
    token = str(entry.get("identitytoken") or "")
    try:
        username, _, password = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as err:
        raise CtlError(f"{path}: the auth of {key} is not base64 of user:password") from err
    username = username or str(entry.get("username") or "")
    password = password or str(entry.get("password") or "")
    return Login(username, password.rstrip("\0"), token) if username or token else None


def _ask(helper: str, registry: str) -> Login | None:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, "get"], input=registry.encode(), capture_output=True, check=False)
    except OSError as err:
        raise CtlError(f"docker's config.json names the helper {program}, which cannot be run: {err.strerror}") from err
    if done.returncode:
        return None  # it says that it has none
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError) as err:
        raise CtlError(f"{program} gave no login for {registry}") from err
    return Login(identity_token=secret) if username == _TOKEN_USER else Login(username, secret)
