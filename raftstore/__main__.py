"""``python -m raftstore``: one member of the store, with etcd's flags."""

import argparse
import resource
import sys
from pathlib import Path

from protos.serving import TLS, add_flags, configure_logging, run
from raftstore import limits
from raftstore.config import Config, OneSidedTLS, duration_s, split_urls
from raftstore.server.serve import serve


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(
        prog="python -m raftstore",
        description="An etcd-compatible store: serves the etcd v3 API from a fsynced log and LMDB.",
    )
    add = flags.add_argument
    add("--name", default="default", help="this member's name in --initial-cluster")
    add("--data-dir", type=Path, help="directory of the log and the database (default: NAME.knarr)")
    add(
        "--listen-client-urls",
        default="http://127.0.0.1:2379",
        help="comma-separated URLs to serve clients on; https needs the certificate flags, http is plaintext",
    )
    add("--advertise-client-urls", default="", help="URLs that clients are told (default: the listen URLs)")
    add(
        "--listen-peer-urls",
        default="http://127.0.0.1:2380",
        help="URLs for other members; a cluster of one does not open them",
    )
    add(
        "--initial-advertise-peer-urls",
        default="",
        help="this member's peer URLs as others see them (default: the listen peer URLs)",
    )
    add(
        "--initial-cluster", default="", help="NAME=PEER_URL of every first member, comma-separated (default: this one)"
    )
    add(
        "--initial-cluster-state", choices=["new", "existing"], default="new", help="whether the cluster exists already"
    )
    add("--initial-cluster-token", default="etcd-cluster", help="sets clusters with equal URLs apart")
    add("--heartbeat-interval", type=int, default=100, metavar="MS", help="time between a leader's heartbeats")
    add(
        "--election-timeout",
        type=int,
        default=1000,
        metavar="MS",
        help="time without a leader before an election; leases live at least one and a half of it",
    )
    add(
        "--quota-backend-bytes",
        type=int,
        default=0,
        metavar="BYTES",
        help="database size above which writes are refused (default: 2 GiB)",
    )
    add("--max-request-bytes", type=int, default=limits.REQUEST_BYTES_MAX, metavar="BYTES", help="largest write")
    add("--max-txn-ops", type=int, default=limits.TXN_OPS_MAX, metavar="N", help="most operations in a transaction")
    add(
        "--snapshot-count",
        type=int,
        default=100_000,
        metavar="N",
        help="accepted for etcd's sake: the log is trimmed with every checkpoint of the database, by size and time",
    )
    add(
        "--watch-progress-notify-interval",
        type=_progress_interval_s,
        default=limits.PROGRESS_INTERVAL_S,
        metavar="DURATION",
        help="how often quiet watchers hear of the revision, such as 10m or 5s",
    )
    add(
        "--listen-metrics-urls",
        default="",
        help="http URLs that answer /metrics, /health, /livez, /readyz and /version (default: none)",
    )
    add(
        "--auto-compaction-mode",
        default="periodic",
        metavar="MODE",
        help="'periodic' forgets history older than the retention, 'revision' all but the newest revisions",
    )
    add(
        "--auto-compaction-retention",
        default="0",
        metavar="SPEC",
        help="periodic: hours, or a duration such as 5m; revision: a number of revisions; 0 keeps everything",
    )
    add(
        "--auth-token",
        default="simple",
        metavar="SPEC",
        help="tokens after a login: 'simple', or 'jwt,sign-method=RS256,pub-key=FILE,priv-key=FILE,ttl=5m'",
    )
    add("--auth-token-ttl", type=int, default=300, metavar="S", help="idle life of simple tokens")
    add("--cert-file", type=Path, help="this server's certificate for clients, PEM")
    add("--key-file", type=Path, help="its key, PEM")
    add("--trusted-ca-file", type=Path, help="the CA that signs client certificates, PEM")
    add("--client-cert-auth", action="store_true", help="accept only clients with a certificate of --trusted-ca-file")
    add("--peer-cert-file", type=Path, help="certificate between members (unused in a cluster of one)")
    add("--peer-key-file", type=Path, help="its key")
    add("--peer-trusted-ca-file", type=Path, help="the CA of the members' certificates")
    add("--peer-client-cert-auth", action="store_true", help="accept only members with a certificate of that CA")
    add_flags(flags)
    return flags


def config_from(flags: argparse.Namespace) -> Config:
    """The settings that the command line asks for. Raises ValueError."""
    return Config(
        data_dir=flags.data_dir or Path(f"{flags.name}.knarr"),
        name=flags.name,
        listen_client_urls=split_urls(flags.listen_client_urls),
        advertise_client_urls=split_urls(flags.advertise_client_urls),
        initial_advertise_peer_urls=split_urls(flags.initial_advertise_peer_urls or flags.listen_peer_urls),
        initial_cluster=flags.initial_cluster,
        initial_cluster_token=flags.initial_cluster_token,
        heartbeat_interval_ms=flags.heartbeat_interval,
        election_timeout_ms=flags.election_timeout,
        quota_backend_bytes=flags.quota_backend_bytes or limits.QUOTA_BYTES_DEFAULT,
        max_request_bytes=flags.max_request_bytes,
        max_txn_ops=flags.max_txn_ops,
        watch_progress_notify_interval_s=flags.watch_progress_notify_interval,
        tls=_tls(flags),
        listen_metrics_urls=split_urls(flags.listen_metrics_urls),
        auto_compaction_mode=flags.auto_compaction_mode,
        auto_compaction_retention=flags.auto_compaction_retention,
        auth_token=flags.auth_token,
        auth_token_ttl_s=flags.auth_token_ttl,
    )


def _tls(flags: argparse.Namespace) -> TLS | None:
    files = (flags.cert_file, flags.key_file, flags.trusted_ca_file)
    if not any(files):
        return None
    if not all(files):
        raise ValueError("--cert-file, --key-file and --trusted-ca-file go together")
    return TLS(*files) if flags.client_cert_auth else OneSidedTLS(*files)


def _progress_interval_s(text: str) -> float:
    return max(duration_s(text), 0.1)


def main() -> None:
    """Run until SIGTERM."""
    flags = parser().parse_args()
    configure_logging("raftstore", flags.log_format, flags.log_level)
    # The default of 5 ms would make the log thread wait that long for the interpreter after every fdatasync.
    sys.setswitchinterval(0.0005)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection each
    try:
        config = config_from(flags)
        config.check()
    except ValueError as err:
        sys.exit(f"error: {err}")
    run(serve(config))


if __name__ == "__main__":
    main()
