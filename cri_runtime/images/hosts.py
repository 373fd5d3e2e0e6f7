"""How each registry is reached: the ``--registries`` file, and what needs no file.

The file is TOML, one table per registry host as it stands in image names::

    ["registry.k8s.io"]
    mirrors = ["http://127.0.0.1:5000"]   # asked first, in order
    ca = "/etc/knarr/ca.pem"              # a CA besides the system's
    insecure = false                      # plain HTTP allowed, certificates unchecked
    username = "robot"
    password = "..."                      # or password_file = "/etc/knarr/password"

``localhost`` and 127.0.0.0/8 are reached by plain HTTP without any file.
"""

import ipaddress
import ssl
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCKER_HUB = "docker.io"
_DOCKER_HUB_API = "https://registry-1.docker.io"
_KEYS = {"mirrors", "ca", "insecure", "username", "password", "password_file"}


class RegistriesFileError(OSError):
    """The registries file cannot be used; the text names file, table and key."""


@dataclass(frozen=True)
class Auth:
    """A login. All empty: anonymous."""

    username: str = ""
    password: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    """Goes to the registry as a bearer token, as it is."""
    identity_token: str = field(default="", repr=False)
    """An OAuth2 refresh token, exchanged for a bearer token."""

    def __bool__(self) -> bool:
        return bool(self.username or self.registry_token or self.identity_token)


@dataclass(frozen=True)
class Settings:
    """One table of the file."""

    mirrors: tuple[str, ...] = ()
    ca: Path | None = None
    insecure: bool = False
    auth: Auth = Auth()


@dataclass(frozen=True)
class Endpoint:
    """One place that serves a registry's images."""

    registry: str
    """The host in image names."""
    url: str
    """Scheme, host and port, without final slash."""
    auth: Auth
    tls: ssl.SSLContext | bool
    """For aiohttp: a context, True for the system's rules, False for none."""
    is_mirror: bool = False


@dataclass(frozen=True)
class Registries:
    """All settings, by registry host."""

    tables: Mapping[str, Settings] = field(default_factory=dict)

    def endpoints(self, registry: str, auth: Auth | None = None) -> list[Endpoint]:
        """Where to ask for images of ``registry``: mirrors first, then itself. ``auth`` wins over the file's.

        A mirror gets no login of the registry. Raises RegistriesFileError for a CA file that cannot be read.
        """
        settings = self.tables.get(registry, Settings())
        tls = _tls(settings)
        found = [Endpoint(registry, url.rstrip("/"), Auth(), tls, True) for url in settings.mirrors]
        return [*found, Endpoint(registry, self.url(registry), auth or settings.auth, tls)]

    def url(self, registry: str) -> str:
        """The base URL of the registry itself."""
        if registry == DOCKER_HUB:
            return _DOCKER_HUB_API
        plain = is_loopback(registry) or self.tables.get(registry, Settings()).insecure
        return f"{'http' if plain else 'https'}://{registry}"


def is_loopback(registry: str) -> bool:
    """Whether the host of ``host[:port]`` is this machine: reached by plain HTTP, never through a proxy."""
    host = registry.partition("]")[0].lstrip("[") if registry.startswith("[") else registry.partition(":")[0]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(settings: Settings) -> ssl.SSLContext | bool:
    if settings.insecure:
        return False
    if settings.ca is None:
        return True
    try:
        context = ssl.create_default_context()
        context.load_verify_locations(settings.ca)
    except OSError as err:  # ssl.SSLError is one
        raise RegistriesFileError(f"cannot use the CA file {settings.ca}: {err}") from err
    return context


def load_registries(path: Path | None) -> Registries:
    """Read the file; None is an empty one. Raises RegistriesFileError naming what is wrong."""
    if path is None:
        return Registries()
    try:
        body = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise RegistriesFileError(f"cannot read the registries file {path}: {err}") from err
    return Registries({registry: _settings(path, registry, table) for registry, table in body.items()})


def _settings(path: Path, registry: str, table: Any) -> Settings:
    where = f'{path}: ["{registry}"]'
    if not isinstance(table, dict):
        raise RegistriesFileError(f"{where} is not a table")
    unknown = set(table) - _KEYS
    if unknown:
        raise RegistriesFileError(f"{where} has the unknown key {min(unknown)}; there are {', '.join(sorted(_KEYS))}")
    mirrors = table.get("mirrors", [])
    if not isinstance(mirrors, list) or not all(_is_url(mirror) for mirror in mirrors):
        raise RegistriesFileError(f"{where}: mirrors is a list of http:// or https:// URLs")
    if not isinstance(table.get("insecure", False), bool):
        raise RegistriesFileError(f"{where}: insecure is true or false")
    return Settings(
        tuple(mirrors),
        path.parent / table["ca"] if "ca" in table else None,
        table.get("insecure", False),
        Auth(str(table.get("username", "")), _password(path, where, table)),
    )


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _password(path: Path, where: str, table: Mapping[str, Any]) -> str:
    if "password_file" not in table:
        return str(table.get("password", ""))
    try:
        return (path.parent / str(table["password_file"])).read_text().strip()
    except OSError as err:
        raise RegistriesFileError(f"{where}: password_file: {err}") from err


__all__: Sequence[str] = ["Auth", "Endpoint", "Registries", "RegistriesFileError", "load_registries"]
