"""What Kubernetes fills in when a manifest leaves it out. Pure and idempotent; works on the object in place.

Source: the API reference's "Defaults to", kubernetes/pkg/apis/*/v1/defaults.go.
"""

from collections.abc import Callable
from typing import Any

from control.api.kinds import by_message
from protos.k8s import batch_v1_pb2 as batch
from protos.k8s import core_v1_pb2 as core

GRACE_S = 30
AFFINITY_S = 10800
FILE_MODE = 0o644


def set_defaults(obj: Any) -> None:
    """Fill in the defaults of ``obj``'s kind."""
    rule = BY_KIND.get(by_message(obj).kind)
    if rule is not None:
        rule(obj)


def _unset(message: Any, **values: Any) -> None:
    """Set each field that is absent or empty."""
    for name, value in values.items():
        if not getattr(message, name):
            setattr(message, name, value)


def _absent(message: Any, **values: Any) -> None:
    """Set each field that is absent; a zero that was given stays."""
    for name, value in values.items():
        if not message.HasField(name):
            setattr(message, name, value)


# -- pods --------------------------------------------------------------------------------------------------------


def default_pod(pod: core.Pod) -> None:
    """A pod: also requests from limits, which templates leave to the pods made from them."""
    default_pod_spec(pod.spec)
    for container in [*pod.spec.initContainers, *pod.spec.containers]:
        for name, limit in container.resources.limits.items():
            if name not in container.resources.requests:
                container.resources.requests[name].CopyFrom(limit)
    _absent(pod.spec, enableServiceLinks=True)


def default_pod_spec(spec: core.PodSpec) -> None:
    """A pod's or a template's spec."""
    _unset(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
    _absent(spec, terminationGracePeriodSeconds=GRACE_S)
    if not spec.HasField("securityContext"):
        spec.securityContext.SetInParent()
    if spec.serviceAccountName and not spec.serviceAccount:
        spec.serviceAccount = spec.serviceAccountName
    for container in [*spec.initContainers, *spec.containers]:
        _default_container(container, spec.hostNetwork)
    for volume in spec.volumes:
        _default_volume(volume)


def _default_container(container: core.Container, host_network: bool) -> None:
    _unset(
        container,
        imagePullPolicy=pull_policy(container.image),
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
    )
    for port in container.ports:
        _unset(port, protocol="TCP")
        if host_network:
            _unset(port, hostPort=port.containerPort)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.HasField(name):
            _default_probe(getattr(container, name))
    for name in ("postStart", "preStop"):
        if container.lifecycle.HasField(name):
            _default_http(getattr(container.lifecycle, name))
    for variable in container.env:
        if variable.valueFrom.HasField("fieldRef"):
            _unset(variable.valueFrom.fieldRef, apiVersion="v1")


def pull_policy(image: str) -> str:
    """Always for ``latest`` and for no tag at all, else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    name = image.rsplit("/", 1)[-1]
    tag = name.partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _default_probe(probe: core.Probe) -> None:
    _unset(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    _default_http(probe.handler)
    if probe.handler.HasField("grpc"):
        _absent(probe.handler.grpc, service="")


def _default_http(handler: Any) -> None:
    if handler.HasField("httpGet"):
        _unset(handler.httpGet, path="/", scheme="HTTP")


def _default_volume(volume: core.Volume) -> None:
    source = volume.volumeSource
    if not source.ListFields():
        source.emptyDir.SetInParent()
    for name in ("configMap", "secret", "downwardAPI", "projected"):
        if source.HasField(name):
            _absent(getattr(source, name), defaultMode=FILE_MODE)
    if source.HasField("hostPath"):
        _absent(source.hostPath, type="")


# -- workloads ---------------------------------------------------------------------------------------------------


def _default_replication_controller(rc: core.ReplicationController) -> None:
    labels = rc.spec.template.metadata.labels if rc.spec.HasField("template") else {}
    if not rc.spec.selector:
        rc.spec.selector.update(labels)
    if not rc.metadata.labels:
        rc.metadata.labels.update(labels)
    _absent(rc.spec, replicas=1)
    if rc.spec.HasField("template"):
        default_pod_spec(rc.spec.template.spec)


def _default_replica_set(obj: Any) -> None:
    if not obj.metadata.labels:
        obj.metadata.labels.update(obj.spec.template.metadata.labels)
    _absent(obj.spec, replicas=1)
    default_pod_spec(obj.spec.template.spec)


def _percent(target: Any, text: str) -> None:
    target.type, target.strVal = 1, text


def _default_deployment(obj: Any) -> None:
    spec = obj.spec
    _absent(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    _unset(spec.strategy, type="RollingUpdate")
    if spec.strategy.type == "RollingUpdate":
        for name in ("maxUnavailable", "maxSurge"):
            if not spec.strategy.rollingUpdate.HasField(name):
                _percent(getattr(spec.strategy.rollingUpdate, name), "25%")
    default_pod_spec(spec.template.spec)


def _default_daemon_set(obj: Any) -> None:
    spec = obj.spec
    _absent(spec, revisionHistoryLimit=10)
    _unset(spec.updateStrategy, type="RollingUpdate")
    if spec.updateStrategy.type == "RollingUpdate":
        rolling = spec.updateStrategy.rollingUpdate
        for name, value in (("maxUnavailable", 1), ("maxSurge", 0)):
            if not rolling.HasField(name):
                target = getattr(rolling, name)
                target.type, target.intVal = 0, value
    default_pod_spec(spec.template.spec)


def _default_stateful_set(obj: Any) -> None:
    spec = obj.spec
    _absent(spec, replicas=1, revisionHistoryLimit=10)
    _unset(spec, podManagementPolicy="OrderedReady")
    _unset(spec.updateStrategy, type="RollingUpdate")
    if spec.updateStrategy.type == "RollingUpdate":
        _absent(spec.updateStrategy.rollingUpdate, partition=0)
    _unset(spec.persistentVolumeClaimRetentionPolicy, whenDeleted="Retain", whenScaled="Retain")
    for claim in spec.volumeClaimTemplates:
        _default_claim(claim)
    default_pod_spec(spec.template.spec)


def _default_job(job: batch.Job) -> None:
    _default_job_spec(job.spec)
    if not job.metadata.labels:
        job.metadata.labels.update(job.spec.template.metadata.labels)


def _default_job_spec(spec: batch.JobSpec) -> None:
    if not spec.HasField("completions") and not spec.HasField("parallelism"):
        spec.completions = 1
    _absent(spec, parallelism=1, backoffLimit=6, suspend=False, completionMode="NonIndexed")
    _unset(spec, podReplacementPolicy="TerminatingOrFailed")
    default_pod_spec(spec.template.spec)


def _default_cron_job(job: batch.CronJob) -> None:
    _unset(job.spec, concurrencyPolicy="Allow")
    _absent(job.spec, suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)


# -- services ----------------------------------------------------------------------------------------------------


def _default_service(service: core.Service) -> None:
    spec = service.spec
    _unset(spec, sessionAffinity="None", type="ClusterIP")
    if spec.sessionAffinity == "ClientIP":
        _unset(spec.sessionAffinityConfig.clientIP, timeoutSeconds=AFFINITY_S)
    for port in spec.ports:
        _unset(port, protocol="TCP")
        if not port.targetPort.intVal and not port.targetPort.strVal:
            port.targetPort.type, port.targetPort.intVal = 0, port.port
    if spec.type in ("NodePort", "LoadBalancer"):
        _unset(spec, externalTrafficPolicy="Cluster")
    if spec.type == "LoadBalancer":
        _absent(spec, allocateLoadBalancerNodePorts=True)
    if spec.type != "ExternalName":
        _unset(spec, internalTrafficPolicy="Cluster")


def _default_endpoints(endpoints: core.Endpoints) -> None:
    for subset in endpoints.subsets:
        for port in subset.ports:
            _unset(port, protocol="TCP")


def _default_endpoint_slice(obj: Any) -> None:
    for port in obj.ports:
        _absent(port, name="", protocol="TCP")


# -- the rest ----------------------------------------------------------------------------------------------------


def _default_secret(secret: core.Secret) -> None:
    for key, text in secret.stringData.items():
        secret.data[key] = text.encode()
    secret.ClearField("stringData")
    _unset(secret, type="Opaque")


def _default_namespace(namespace: core.Namespace) -> None:
    name = namespace.metadata.name
    if name:
        namespace.metadata.labels["kubernetes.io/metadata.name"] = name


def _default_claim(claim: core.PersistentVolumeClaim) -> None:
    _absent(claim.spec, volumeMode="Filesystem")


def _default_volume_object(volume: core.PersistentVolume) -> None:
    _unset(volume.spec, persistentVolumeReclaimPolicy="Retain")
    _absent(volume.spec, volumeMode="Filesystem")


BY_KIND: dict[str, Callable[[Any], None]] = {
    "Pod": default_pod,
    "PodTemplate": lambda obj: default_pod_spec(obj.template.spec),
    "ReplicationController": _default_replication_controller,
    "ReplicaSet": _default_replica_set,
    "Deployment": _default_deployment,
    "DaemonSet": _default_daemon_set,
    "StatefulSet": _default_stateful_set,
    "Job": _default_job,
    "CronJob": _default_cron_job,
    "Service": _default_service,
    "Endpoints": _default_endpoints,
    "EndpointSlice": _default_endpoint_slice,
    "Secret": _default_secret,
    "Namespace": _default_namespace,
    "PersistentVolumeClaim": _default_claim,
    "PersistentVolume": _default_volume_object,
}
