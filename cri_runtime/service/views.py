"""Pure: records as CRI messages, and CRI's filters."""

from collections.abc import Iterable, Mapping

from cri_runtime.pod import signals
from cri_runtime.pod.records import ContainerRecord, SandboxRecord
from protos.cri import runtime_pb2 as cri

CONTAINER_STATES = {
    "created": cri.CONTAINER_CREATED,
    "running": cri.CONTAINER_RUNNING,
    "exited": cri.CONTAINER_EXITED,
}


def sandbox_state(record: SandboxRecord) -> cri.PodSandboxState:
    """READY or NOTREADY."""
    return cri.SANDBOX_READY if record.ready else cri.SANDBOX_NOTREADY


def sandbox_item(record: SandboxRecord) -> cri.PodSandbox:
    """A row of ListPodSandbox."""
    config = record.message
    return cri.PodSandbox(
        id=record.id,
        metadata=config.metadata,
        state=sandbox_state(record),
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.runtime_handler,
    )


def sandbox_status(record: SandboxRecord) -> cri.PodSandboxStatus:
    """PodSandboxStatus.status."""
    config = record.message
    status = cri.PodSandboxStatus(
        id=record.id,
        metadata=config.metadata,
        state=sandbox_state(record),
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.runtime_handler,
    )
    status.network.ip = record.ips[0] if record.ips else ""
    for ip in record.ips[1:]:
        status.network.additional_ips.add(ip=ip)
    status.linux.namespaces.options.CopyFrom(config.linux.security_context.namespace_options)
    return status


def container_item(record: ContainerRecord) -> cri.Container:
    """A row of ListContainers."""
    config = record.message
    return cri.Container(
        id=record.id,
        pod_sandbox_id=record.sandbox_id,
        metadata=config.metadata,
        image=config.image,
        image_ref=record.image_id,
        image_id=record.image_id,
        state=CONTAINER_STATES[record.status.state],
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
    )


def container_status(record: ContainerRecord) -> cri.ContainerStatus:
    """ContainerStatus.status."""
    config, status = record.message, record.status
    message = cri.ContainerStatus(
        id=record.id,
        metadata=config.metadata,
        state=CONTAINER_STATES[status.state],
        created_at=record.created_at,
        started_at=status.started_at,
        finished_at=status.finished_at,
        exit_code=status.exit_code,
        image=config.image,
        image_ref=record.image_ref,
        image_id=record.image_id,
        reason=status.reason,
        message=status.message,
        labels=config.labels,
        annotations=config.annotations,
        mounts=config.mounts,
        log_path=record.log_path,
        stop_signal=signals.to_cri(record.stop_signal),  # type: ignore[arg-type]
    )
    message.resources.linux.ParseFromString(record.resources)
    message.user.linux.uid, message.user.linux.gid = record.uid, record.gid
    message.user.linux.supplemental_groups.extend(record.groups)
    return message


def matches_sandbox(record: SandboxRecord, wanted: cri.PodSandboxFilter) -> bool:
    """All that the filter names must hold."""
    return (
        record.id.startswith(wanted.id)
        and (not wanted.HasField("state") or wanted.state.state == sandbox_state(record))
        and has_labels(record.message.labels if wanted.label_selector else {}, wanted.label_selector)
    )


def matches_container(record: ContainerRecord, wanted: cri.ContainerFilter) -> bool:
    """All that the filter names must hold."""
    return (
        record.id.startswith(wanted.id)
        and record.sandbox_id.startswith(wanted.pod_sandbox_id)
        and (not wanted.HasField("state") or wanted.state.state == CONTAINER_STATES[record.status.state])
        and has_labels(record.message.labels if wanted.label_selector else {}, wanted.label_selector)
    )


def has_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Exact matches, all of them."""
    return all(labels.get(key) == value for key, value in selector.items())


def statuses(records: Iterable[ContainerRecord]) -> list[cri.ContainerStatus]:
    """The statuses of several containers."""
    return [container_status(record) for record in records]
