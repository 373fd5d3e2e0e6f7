"""A registry as a client sees it: requests with login, retries, and errors that say what to do.

Source: OCI distribution-spec 1.1 (requests and the error body), and the token protocol of the distribution project
(``Www-Authenticate: Bearer realm=…``).
"""

import asyncio
import base64
import json
import os
import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from cri_runtime.images.errors import (
    InvalidManifest,
    NotInRegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnavailable,
)
from cri_runtime.images.hosts import Auth, Endpoint, is_loopback
from cri_runtime.images.manifest import MANIFEST_BYTES_MAX

_ATTEMPTS = 4
_BACKOFF_S = 0.25
_BACKOFF_S_MAX = 8.0
_CONNECT_TIMEOUT_S = 10.0
_STALL_TIMEOUT_S = 60.0
_ERROR_BODY_BYTES_MAX = 8 << 10
_RETRIED = (408, 429, 500, 502, 503, 504)
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')


class Session:
    """HTTP connections, shared by all registries. Close it, or use it as a context manager."""

    def __init__(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_STALL_TIMEOUT_S)
        headers = {"User-Agent": "knarr"}
        self._direct = aiohttp.ClientSession(timeout=timeout, headers=headers, auto_decompress=False)
        self._proxied = aiohttp.ClientSession(
            timeout=timeout,
            headers=headers,
            auto_decompress=False,
            trust_env=True,
            connector=self._direct.connector,
            connector_owner=False,
        )
        self._tokens: dict[tuple[str, str, str], str] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        await self._proxied.close()
        await self._direct.close()

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def remote(self, endpoint: Endpoint, repository: str) -> "Remote":
        """A repository at an endpoint."""
        return Remote(self, endpoint, repository)

    def http(self, host: str) -> aiohttp.ClientSession:
        """The session for a host: the environment's proxies do not apply to this machine."""
        return self._direct if is_loopback(host) else self._proxied

    def token(self, key: tuple[str, str, str]) -> str | None:
        """A bearer token that served before."""
        return self._tokens.get(key)

    def keep_token(self, key: tuple[str, str, str], token: str | None) -> None:
        """Remember or forget a token."""
        if token is None:
            self._tokens.pop(key, None)
        else:
            self._tokens[key] = token


class Remote:
    """One repository at one endpoint."""

    def __init__(self, session: Session, endpoint: Endpoint, repository: str) -> None:
        self._session = session
        self.endpoint = endpoint
        self.repository = repository

    @property
    def host(self) -> str:
        """``host[:port]`` of the endpoint."""
        return urlsplit(self.endpoint.url).netloc

    def url(self, path: str) -> str:
        """The URL of ``path`` below the repository."""
        return f"{self.endpoint.url}/v2/{self.repository}/{path}"

    def absolute(self, location: str) -> str:
        """A Location header's URL, which may be relative."""
        return urljoin(self.endpoint.url + "/", location)

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        what: str,
        *,
        actions: str = "pull",
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        accept_status: tuple[int, ...] = (200,),
        attempts: int = _ATTEMPTS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, answered with a status in ``accept_status``, its body still to read.

        ``what`` names the thing asked for in errors; ``actions`` is the scope of a token. ``data`` may be a callable
        that makes the body anew for every attempt. Retries what may pass: lost connections, 429, 5xx.
        Raises NotInRegistry, RegistryDenied, RegistryUnavailable, RegistryError.
        """
        for attempt in range(attempts):
            try:
                response = await self._authorized(method, url, actions, headers, data)
            except (TimeoutError, aiohttp.ClientError, OSError) as err:
                if attempt + 1 == attempts or isinstance(err, aiohttp.ClientConnectorError):
                    raise self._unreachable(err, what) from err
            else:
                async with response:
                    if response.status in accept_status:
                        yield response
                        return
                    if response.status not in _RETRIED or attempt + 1 == attempts:
                        raise await self._refusal(response, what)
            await asyncio.sleep(_backoff(attempt))

    def _unreachable(self, err: BaseException, what: str) -> RegistryUnavailable:
        cause = str(err) or type(err).__name__
        if isinstance(err, aiohttp.ClientConnectorError):
            cause = _cause(err.os_error).lower()  # else: "Cannot connect to host … ssl:default [Connect …"
        return RegistryUnavailable(
            self.host, f"{what}: registry {self.host} does not answer ({cause}); is it running, is the name right?"
        )

    async def _authorized(
        self, method: str, url: str, actions: str, headers: Mapping[str, str] | None, data: Any
    ) -> aiohttp.ClientResponse:
        """Send; on 401 log in as the registry asks and send once more."""
        key = (self.endpoint.url, self.repository, f"{actions}|{hash(self.endpoint.auth)}")  # tokens differ by login
        response = await self._send(method, url, self._authorization(key), headers, data)
        if response.status != 401:
            return response
        challenge = response.headers.getall("Www-Authenticate", [])
        response.release()
        self._session.keep_token(key, None)
        authorization = await self._answer(challenge, key, actions)
        if authorization is None:
            return await self._send(method, url, None, headers, data)
        return await self._send(method, url, authorization, headers, data)

    async def _send(
        self, method: str, url: str, authorization: str | None, headers: Mapping[str, str] | None, data: Any
    ) -> aiohttp.ClientResponse:
        sent = dict(headers or {})
        host = urlsplit(url).netloc
        if authorization and host == self.host:  # an upload's Location may lead to a storage that has its own key
            sent["Authorization"] = authorization
        body = data() if callable(data) else data
        return await self._session.http(host).request(method, url, headers=sent, data=body, ssl=self.endpoint.tls)

    def _authorization(self, key: tuple[str, str, str]) -> str | None:
        auth = self.endpoint.auth
        if auth.registry_token:
            return f"Bearer {auth.registry_token}"
        return self._session.token(key)

    async def _answer(self, challenges: list[str], key: tuple[str, str, str], actions: str) -> str | None:
        auth = self.endpoint.auth
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "bearer":
                token = "Bearer " + await self._fetch_token(dict(_PARAMETER.findall(rest)), actions)
                self._session.keep_token(key, token)
                return token
            if scheme.lower() == "basic" and auth.username:
                basic = _basic(auth)
                self._session.keep_token(key, basic)
                return basic
        return None

    async def _fetch_token(self, challenge: Mapping[str, str], actions: str) -> str:
        realm, auth = challenge.get("realm", ""), self.endpoint.auth
        if not realm.startswith(("http://", "https://")):
            raise RegistryError(self.host, f"registry {self.host} asks for a login in a way that is not understood")
        fields = {"scope": f"repository:{self.repository}:{actions}"}
        if challenge.get("service"):
            fields["service"] = challenge["service"]
        http = self._session.http(urlsplit(realm).netloc)
        try:
            if auth.identity_token:
                grant = {"grant_type": "refresh_token", "refresh_token": auth.identity_token, "client_id": "knarr"}
                call = http.post(realm, data={**fields, **grant}, ssl=self.endpoint.tls)
            else:
                login = {"Authorization": _basic(auth)} if auth.username else {}
                call = http.get(realm, params=fields, headers=login, ssl=self.endpoint.tls)
            async with call as response:
                if response.status != 200:
                    raise await self._refusal(response, "a token")
                body = await _json(response)
        except (TimeoutError, aiohttp.ClientError, OSError) as err:
            raise self._unreachable(err, f"a token of {realm}") from err
        token = body.get("token") or body.get("access_token")
        if not isinstance(token, str):
            raise RegistryError(self.host, f"the token service {realm} of {self.host} gave no token")
        return token

    async def _refusal(self, response: aiohttp.ClientResponse, what: str) -> RegistryError:
        """The error that an answer means."""
        said = _message(await _head(response))
        place = f"{self.host}/{self.repository}"
        match response.status:
            case 401 | 403:
                who = f"user {self.endpoint.auth.username}" if self.endpoint.auth.username else "an anonymous user"
                return RegistryDenied(self.host, f"{what}: {place} does not let {who} do that{said}; log in as another")
            case 404:
                return NotInRegistry(self.host, f"{what}: not found in registry {self.host}{said}; check the name")
            case status if status in _RETRIED:
                return RegistryUnavailable(self.host, f"{what}: registry {self.host} answers {status}{said}; try later")
            case status:
                return RegistryError(self.host, f"{what}: registry {self.host} answers {status}{said}")


def _basic(auth: Auth) -> str:
    return "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()


def _cause(err: OSError) -> str:
    """What the system says; asyncio hides it behind a text of its own, but not for names (negative numbers)."""
    return os.strerror(err.errno) if err.errno and err.errno > 0 else err.strerror or str(err)


def _backoff(attempt: int) -> float:
    return min(_BACKOFF_S * 2.0**attempt, _BACKOFF_S_MAX) * random.uniform(0.5, 1)


async def _head(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.content.read(_ERROR_BODY_BYTES_MAX)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return b""


def _message(body: bytes) -> str:
    """What the specification's error body says, as an addition to a sentence."""
    try:
        errors = json.loads(body)["errors"]
        return f" ({errors[0].get('code', '')}: {errors[0].get('message', '')})"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""


async def _json(response: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        body = json.loads(await read_bounded(response, MANIFEST_BYTES_MAX))
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def read_bounded(response: aiohttp.ClientResponse, size_max: int) -> bytes:
    """The whole body. Raises InvalidManifest when it is longer than ``size_max`` bytes."""
    data = bytearray()
    async for chunk in response.content.iter_chunked(64 << 10):
        data += chunk
        if len(data) > size_max:
            raise InvalidManifest(f"the answer is longer than {size_max} bytes")
    return bytes(data)


__all__ = ["Remote", "Session", "read_bounded"]
