"""Every bound of the store in one place. Bytes, counts and seconds, as the names say."""

REQUEST_BYTES_MAX = 1536 * 1024
"""The largest write, etcd's default 1.5 MiB."""

RECEIVE_OVERHEAD_BYTES = 512 * 1024
"""What gRPC may receive above REQUEST_BYTES_MAX, so that the refusal can be ours."""

TXN_OPS_MAX = 128
"""Compares, success operations or failure operations of one transaction, each."""

LEASE_TTL_S_MAX = 9_000_000_000

LEASE_CHECKPOINT_INTERVAL_S = 300.0
"""How often members learn what is left of leases that live longer than this."""

LEASE_CHECKPOINTS_MAX = 1000
"""Leases in one such log entry."""

QUOTA_BYTES_DEFAULT = 2 << 30
"""Database size above which writes are refused until space is made."""

WAL_SEGMENT_BYTES = 16 << 20
"""A log segment is preallocated at this size and closed once it is full."""

WAL_BATCH_BYTES_MAX = 4 << 20
"""How much one synchronised write to the log gathers."""

CHECKPOINT_BYTES = 8 << 20
"""Changes kept in memory before they are written to the database."""

CHECKPOINT_INTERVAL_S = 5.0
"""The longest time a change waits for the database; the log holds it from the start."""

PROPOSALS_MAX = 4096
"""Writes under way; more are refused with "too many requests"."""

WATCH_BATCH_REVISIONS = 1000
"""Revisions per response when a watcher catches up."""

WATCH_OUTBOX_BYTES_MAX = 4 << 20
"""What may wait to be sent on one watch stream; beyond it watchers fall behind and catch up from history."""

PROGRESS_INTERVAL_S = 600.0
"""A watcher that asked for it and saw no event for so long is told the current revision."""

REQUEST_TIMEOUT_MARGIN_S = 5.0
"""A request may take this long plus two election timeouts."""

DISK_FULL_RETRY_S = 0.5
"""Pause before a full disk is tried again."""

KEEPALIVE_INTERVAL_S = 7200.0
"""Silence after which the server asks a client whether it is still there, as etcd does."""

KEEPALIVE_TIMEOUT_S = 20.0
"""How long a client may take to answer that before its connection is dropped."""
