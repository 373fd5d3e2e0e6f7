"""When a container that ended runs again: restart policy and crash-loop back-off. Pure.

The delays are Kubernetes': the first restart is immediate, then 10 s doubling to 5 min, and a container that ran for
ten minutes starts over. Each instance carries the delay that its successor owes (annotation
``knarr.dev/restart-backoff-seconds``), so the sequence survives the kubelet.
"""

from control.kubelet.state import Container

BACKOFF_INITIAL_S = 10.0
BACKOFF_MAX_S = 300.0
RESET_AFTER_S = 2 * BACKOFF_MAX_S


def finished(container: Container, policy: str) -> bool:
    """True if ``container`` is over and pod restart ``policy`` lets it rest."""
    return container.over and (policy == "Never" or (policy == "OnFailure" and container.succeeded))


def restart_at(container: Container) -> float:
    """The earliest time, seconds since the epoch, at which the successor of ``container`` may start."""
    return container.finished_s + (0.0 if _ran_long(container) else container.backoff_s)


def successor_backoff_s(container: Container) -> float:
    """The delay that the successor of ``container`` will owe in turn."""
    if _ran_long(container) or container.backoff_s == 0:
        return BACKOFF_INITIAL_S
    return min(2 * container.backoff_s, BACKOFF_MAX_S)


def _ran_long(container: Container) -> bool:
    return container.started_s > 0 and container.finished_s - container.started_s >= RESET_AFTER_S
