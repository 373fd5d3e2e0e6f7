"""Pure: the states of sandboxes and containers, and what moves them.

Container: created -> running -> exited, never back; a start that fails goes from created to exited. Sandbox: ready ->
not ready, once. Source: CRI v1.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cri_runtime.pod.errors import WrongState
from cri_runtime.pod.records import ContainerRecord, SandboxRecord, Status

START_ERROR_CODE = 128
LOST_CODE = 255
LOST_TEXT = "the pod's supervisor died, and the container with it"


def require_ready(record: SandboxRecord) -> None:
    """Raises WrongState unless the sandbox is READY."""
    if not record.ready:
        raise WrongState(f'pod sandbox "{record.id[:13]}" is not ready: it was stopped or has died; make a new attempt')


def require_created(record: ContainerRecord) -> None:
    """Raises WrongState unless the container may be started."""
    if record.status.state != "created":
        raise WrongState(
            f'container "{record.id[:13]}" is {record.status.state.upper()}, not CREATED: '
            f"a container starts once; create another attempt"
        )


def require_running(record: ContainerRecord) -> None:
    """Raises WrongState unless the container is RUNNING."""
    if record.status.state != "running":
        raise WrongState(f'container "{record.id[:13]}" is {record.status.state.upper()}, not RUNNING')


def observed(record: ContainerRecord, report: Mapping[str, Any]) -> ContainerRecord:
    """The record after the supervisor's ``report``. A report never moves a state back."""
    if record.status.state == "exited" or report["state"] not in ("running", "exited"):
        return record
    if report["state"] == "running":
        return replace(record, status=Status("running", report["pid"], report["started_at"]))
    return replace(record, status=_exited(report))


def _exited(report: Mapping[str, Any]) -> Status:
    code, error = report["exit_code"], report.get("error")
    if report.get("lost"):
        reason, message = "Unknown", LOST_TEXT
    elif error:
        reason, message = "StartError", start_error_text(error)
    elif report.get("oom") and code:
        reason, message = "OOMKilled", "a process of the container exceeded the memory limit"
    else:
        reason, message = ("Error" if code else "Completed"), ""
    return Status("exited", 0, report["started_at"], report["finished_at"], code, reason, message)


def start_error_text(error: Mapping[str, Any]) -> str:
    """What a failed start says to people."""
    path = f": {error['path']}" if error["path"] else ""
    return f"cannot {error['step']}: {error['text']}{path}"


def lost(record: ContainerRecord, now: int) -> ContainerRecord:
    """The record of a container whose supervisor is gone: what ran has been killed, its exit code nobody saw."""
    if record.status.state != "running":
        return record
    return replace(record, status=Status("exited", 0, record.status.started_at, now, LOST_CODE, "Unknown", LOST_TEXT))


def report_of(record: ContainerRecord) -> dict[str, Any]:
    """The report that leads to this record's status: what goes on disk when no supervisor can write it."""
    status = record.status
    return {
        "state": status.state,
        "pid": status.pid,
        "exit_code": status.exit_code,
        "started_at": status.started_at,
        "finished_at": status.finished_at,
        "lost": status.reason == "Unknown",
    }
