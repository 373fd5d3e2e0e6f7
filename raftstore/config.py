"""What a member is started with, checked, and the identity that follows from it."""

import hashlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from protos.serving import TLS
from raftstore import limits
from raftstore.auth.tokens import SIMPLE_TTL_S, SimpleTokens, Tokens
from raftstore.compactor import ByRevision, Periodic, Policy


class OneSidedTLS(TLS):
    """The server shows its certificate and asks clients for none."""

    def server_credentials(self, require_client: bool = False) -> grpc.ServerCredentials:
        """See TLS."""
        return super().server_credentials(require_client)


@dataclass(frozen=True)
class Config:
    """A member's settings, with etcd's meanings. Times in milliseconds, sizes in bytes."""

    data_dir: Path
    name: str = "default"
    listen_client_urls: tuple[str, ...] = ("http://127.0.0.1:2379",)
    advertise_client_urls: tuple[str, ...] = ()
    initial_advertise_peer_urls: tuple[str, ...] = ("http://127.0.0.1:2380",)
    initial_cluster: str = ""
    initial_cluster_token: str = "etcd-cluster"
    heartbeat_interval_ms: int = 100
    election_timeout_ms: int = 1000
    quota_backend_bytes: int = limits.QUOTA_BYTES_DEFAULT
    max_request_bytes: int = limits.REQUEST_BYTES_MAX
    max_txn_ops: int = limits.TXN_OPS_MAX
    watch_progress_notify_interval_s: float = limits.PROGRESS_INTERVAL_S
    tls: TLS | None = None
    listen_metrics_urls: tuple[str, ...] = ()
    auto_compaction_mode: str = "periodic"
    auto_compaction_retention: str = "0"
    auth_token: str = "simple"
    auth_token_ttl_s: float = SIMPLE_TTL_S

    def check(self) -> None:
        """Raise ValueError, naming the flag, for settings that cannot work."""
        members = self.members()
        if self.name not in members:
            raise ValueError(f"--initial-cluster does not list this member, --name {self.name}")
        if len(members) > 1:
            raise ValueError("--initial-cluster lists several members; this version runs clusters of one")
        if sorted(members[self.name]) != sorted(self.initial_advertise_peer_urls):
            raise ValueError(
                f"--initial-cluster gives {self.name} the peer URLs {','.join(members[self.name])}, "
                f"but --initial-advertise-peer-urls says {','.join(self.initial_advertise_peer_urls)}"
            )
        if self.election_timeout_ms < 5 * self.heartbeat_interval_ms:
            raise ValueError("--election-timeout must be at least five times --heartbeat-interval")
        self._check_tls()
        self.tokens()
        self.compaction()
        for url in self.listen_metrics_urls:
            check_url(url, "--listen-metrics-urls")

    def compaction(self) -> Policy | None:
        """The rule of automatic compaction, None for none. Raises ValueError naming the flag.

        As etcd's: a plain number is hours in the mode periodic, revisions in the mode revision.
        """
        mode, text = self.auto_compaction_mode, self.auto_compaction_retention
        try:
            if mode == "revision":
                return ByRevision(int(text)) if int(text) > 0 else None
            if mode != "periodic":
                raise ValueError(f"the mode {mode!r} is neither periodic nor revision")
            retention_s = float(text) * 3600 if text.isdigit() else duration_s(text)
        except ValueError as err:
            raise ValueError(f"--auto-compaction-mode, --auto-compaction-retention: {err}") from err
        return Periodic(retention_s) if retention_s > 0 else None

    def tokens(self) -> Tokens:
        """The maker of tokens that ``auth_token`` describes. Raises ValueError naming the flag."""
        kind, *options = self.auth_token.split(",")
        if kind == "simple":
            return SimpleTokens(time.monotonic, self.auth_token_ttl_s)
        if kind != "jwt":
            raise ValueError(f"--auth-token: {kind!r} is neither simple nor jwt")
        from raftstore.auth.jwt import TTL_S, JWTTokens, read_signer  # its cryptography is large

        try:
            named = dict(option.split("=", 1) for option in options)
            files = (Path(named[key]) if key in named else None for key in ("pub-key", "priv-key"))
            ttl_s = duration_s(named["ttl"]) if "ttl" in named else TTL_S
            return JWTTokens(read_signer(named.get("sign-method", ""), *files), time.time, ttl_s)
        except ValueError as err:
            raise ValueError(f"--auth-token: {err}") from err

    @property
    def client_cert_auth(self) -> bool:
        """Whether clients prove themselves by certificates."""
        return self.tls is not None and not isinstance(self.tls, OneSidedTLS)

    def _check_tls(self) -> None:
        schemes = {check_url(url, "--listen-client-urls") for url in self.listen_client_urls}
        if "https" in schemes and self.tls is None:
            raise ValueError(
                "--listen-client-urls has an https URL: give --cert-file, --key-file and --trusted-ca-file"
            )

        if self.tls is not None:
            for path in (self.tls.cert, self.tls.key, self.tls.ca):
                try:
                    path.read_bytes()
                except OSError as err:
                    raise ValueError(f"cannot read {path}: {err.strerror}") from err

    def members(self) -> dict[str, list[str]]:
        """Peer URLs by member name, from ``initial_cluster``; just this member when that is empty."""
        if not self.initial_cluster:
            return {self.name: list(self.initial_advertise_peer_urls)}
        members: dict[str, list[str]] = {}
        for part in self.initial_cluster.split(","):
            name, separator, url = part.partition("=")
            if not separator:
                raise ValueError(f"--initial-cluster: {part!r} is not NAME=URL")
            check_url(url, "--initial-cluster")
            members.setdefault(name, []).append(url)
        return members

    def member_id(self, name: str) -> int:
        """The id of a first member, from its peer URLs and the cluster token."""
        urls = "".join(sorted(self.members()[name]))
        return _hash64(f"{name}\0{urls}\0{self.initial_cluster_token}")

    def cluster_id(self) -> int:
        """The cluster's id, from its first members."""
        return _hash64("\0".join(f"{self.member_id(name):x}" for name in sorted(self.members())))

    @property
    def lease_ttl_s_min(self) -> int:
        """No lease is shorter: one and a half election timeouts, in whole seconds."""
        return -(-3 * self.election_timeout_ms // 2000)

    @property
    def request_timeout_s(self) -> float:
        """How long a request may take."""
        return limits.REQUEST_TIMEOUT_MARGIN_S + 2 * self.election_timeout_ms / 1000


def check_url(url: str, flag: str) -> str:
    """The scheme of an ``http(s)://host:port`` URL. Raises ValueError naming ``flag``."""
    parts = urlsplit(url)
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port is not None and not parts.path
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"{flag}: {url!r} is not http://HOST:PORT or https://HOST:PORT")
    return parts.scheme


def duration_s(text: str) -> float:
    """Seconds of a duration such as ``1h30m``, ``5s`` or ``200ms``. Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 1h30m, 5s or 200ms")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(text))


_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")


def split_urls(text: str) -> tuple[str, ...]:
    """A comma-separated flag value."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1 | 1
