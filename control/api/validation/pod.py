"""Pods and pod templates: containers, ports, resources, probes, volumes. Source: the Pod API reference."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from control.api import quantity
from control.api.meta import copy_of
from control.api.validation import names
from control.api.validation.faults import Faults
from control.api.validation.objectmeta import validate_annotations, validate_labels, validate_selector
from protos.k8s import core_v1_pb2 as core
from protos.k8s.intstr_pb2 import IntOrString

PROTOCOLS = ("TCP", "UDP", "SCTP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
TERMINATION_POLICIES = ("File", "FallbackToLogsOnError")
MODE_MAX = 0o777
BUILTIN_RESOURCES = ("cpu", "memory", "ephemeral-storage")

# What an update of a pod may change, besides adding tolerations.
MUTABLE = "only image of containers, activeDeadlineSeconds, terminationGracePeriodSeconds (to 1) and new tolerations"


def validate_pod(pod: core.Pod, faults: Faults) -> None:
    """A pod as it will be stored, defaults set."""
    validate_pod_spec(pod.spec, "spec", faults)
    if len(pod.metadata.name) > 253:
        faults.too_long("metadata.name", "may not be more than 253 characters")


def validate_template(template: core.PodTemplateSpec, path: str, faults: Faults) -> None:
    """The template that a workload makes its pods from."""
    validate_labels(template.metadata.labels, f"{path}.metadata.labels", faults)
    validate_annotations(template.metadata.annotations, f"{path}.metadata.annotations", faults)
    validate_pod_spec(template.spec, f"{path}.spec", faults)


def validate_pod_spec(spec: core.PodSpec, path: str, faults: Faults) -> None:
    """Everything below ``spec``."""
    volumes = _validate_volumes(spec.volumes, f"{path}.volumes", faults)
    if not spec.containers:
        faults.required(f"{path}.containers", "a pod needs at least one container")
    _validate_containers(spec, path, volumes, faults)
    faults.one_of(f"{path}.restartPolicy", spec.restartPolicy, RESTART_POLICIES)
    faults.one_of(f"{path}.dnsPolicy", spec.dnsPolicy, DNS_POLICIES)
    if spec.dnsPolicy == "None" and not spec.dnsConfig.nameservers:
        faults.required(f"{path}.dnsConfig.nameservers", "must provide at least one nameserver when dnsPolicy is None")
    _validate_numbers(spec, path, faults)
    _validate_names(spec, path, faults)
    _validate_placement(spec, path, faults)


def _validate_numbers(spec: core.PodSpec, path: str, faults: Faults) -> None:
    if spec.HasField("activeDeadlineSeconds"):
        faults.at_least(f"{path}.activeDeadlineSeconds", spec.activeDeadlineSeconds, 1)
    if spec.HasField("terminationGracePeriodSeconds"):
        faults.at_least(f"{path}.terminationGracePeriodSeconds", spec.terminationGracePeriodSeconds, 0)


def _validate_names(spec: core.PodSpec, path: str, faults: Faults) -> None:
    for name, rule in (
        ("serviceAccountName", names.dns_subdomain),
        ("nodeName", names.dns_subdomain),
        ("hostname", names.dns_label),
        ("subdomain", names.dns_label),
        ("schedulerName", names.dns_subdomain),
    ):
        value = getattr(spec, name)
        if value:
            faults.each_invalid(f"{path}.{name}", value, rule(value))
    validate_labels(spec.nodeSelector, f"{path}.nodeSelector", faults)
    for index, alias in enumerate(spec.hostAliases):
        faults.each_invalid(f"{path}.hostAliases[{index}].ip", alias.ip, names.ip(alias.ip))


def _validate_placement(spec: core.PodSpec, path: str, faults: Faults) -> None:
    for index, toleration in enumerate(spec.tolerations):
        at = f"{path}.tolerations[{index}]"
        faults.one_of(f"{at}.operator", toleration.operator, ("Equal", "Exists"), required=False)
        effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
        faults.one_of(f"{at}.effect", toleration.effect, effects, required=False)
        if toleration.operator == "Exists" and toleration.value:
            faults.invalid(f"{at}.value", toleration.value, "value must be empty when `operator` is 'Exists'")
        if not toleration.key and toleration.operator != "Exists":
            faults.invalid(f"{at}.operator", toleration.operator, "operator must be Exists when `key` is empty")
    for index, spread in enumerate(spec.topologySpreadConstraints):
        at = f"{path}.topologySpreadConstraints[{index}]"
        faults.at_least(f"{at}.maxSkew", spread.maxSkew, 1)
        if not spread.topologyKey:
            faults.required(f"{at}.topologyKey")
        faults.one_of(f"{at}.whenUnsatisfiable", spread.whenUnsatisfiable, ("DoNotSchedule", "ScheduleAnyway"))
        validate_selector(spread.labelSelector, f"{at}.labelSelector", faults)


# -- containers --------------------------------------------------------------------------------------------------


def _validate_containers(spec: core.PodSpec, path: str, volumes: set[str], faults: Faults) -> None:
    seen: set[str] = set()
    for list_name, containers in (("initContainers", spec.initContainers), ("containers", spec.containers)):
        for index, container in enumerate(containers):
            at = f"{path}.{list_name}[{index}]"
            _validate_name(container.name, f"{at}.name", seen, names.dns_label, faults)
            _validate_container(container, at, volumes, spec.hostNetwork, faults)
    for index, container in enumerate(spec.initContainers):
        _validate_init(container, f"{path}.initContainers[{index}]", faults)
    _validate_host_ports(spec, path, faults)


def _validate_name(name: str, path: str, seen: set[str], rule: Any, faults: Faults) -> None:
    if not name:
        faults.required(path)
        return
    faults.each_invalid(path, name, rule(name))
    if name in seen:
        faults.duplicate(path, name)
    seen.add(name)


def _validate_container(
    container: core.Container, path: str, volumes: set[str], host_network: bool, faults: Faults
) -> None:
    if not container.image:
        faults.required(f"{path}.image")
    elif container.image != container.image.strip():
        faults.invalid(f"{path}.image", container.image, "must not have leading or trailing whitespace")
    faults.one_of(f"{path}.imagePullPolicy", container.imagePullPolicy, PULL_POLICIES)
    faults.one_of(f"{path}.terminationMessagePolicy", container.terminationMessagePolicy, TERMINATION_POLICIES)
    _validate_ports(container.ports, f"{path}.ports", host_network, faults)
    _validate_env(container, path, faults)
    _validate_mounts(container.volumeMounts, f"{path}.volumeMounts", volumes, faults)
    validate_requirements(container.resources, f"{path}.resources", faults)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.HasField(name):
            _validate_probe(name, getattr(container, name), f"{path}.{name}", container, faults)
    for name in ("postStart", "preStop"):
        if container.lifecycle.HasField(name):
            _validate_handler(getattr(container.lifecycle, name), f"{path}.lifecycle.{name}", container, faults)
    _validate_security(container, path, faults)


def _validate_init(container: core.Container, path: str, faults: Faults) -> None:
    if container.restartPolicy not in ("", "Always"):
        faults.not_supported(f"{path}.restartPolicy", container.restartPolicy, ("Always",))
    if container.restartPolicy == "Always":
        return
    for name in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
        if container.HasField(name):
            faults.forbidden(f"{path}.{name}", "may not be set for init containers without restartPolicy=Always")


def _validate_ports(ports: Sequence[core.ContainerPort], path: str, host_network: bool, faults: Faults) -> None:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at = f"{path}[{index}]"
        if port.name:
            _validate_name(port.name, f"{at}.name", seen, names.port_name, faults)
        if not port.containerPort:
            faults.required(f"{at}.containerPort")
        else:
            faults.each_invalid(f"{at}.containerPort", port.containerPort, names.port(port.containerPort))
        if port.hostPort:
            faults.each_invalid(f"{at}.hostPort", port.hostPort, names.port(port.hostPort))
            if host_network and port.hostPort != port.containerPort:
                faults.invalid(f"{at}.hostPort", port.hostPort, "must match `containerPort` when `hostNetwork` is true")
        if port.hostIP:
            faults.each_invalid(f"{at}.hostIP", port.hostIP, names.ip(port.hostIP))
        faults.one_of(f"{at}.protocol", port.protocol, PROTOCOLS)


def _validate_host_ports(spec: core.PodSpec, path: str, faults: Faults) -> None:
    seen = set()
    for number, container in enumerate(spec.containers):
        for index, port in enumerate(container.ports):
            claim = (port.protocol, port.hostIP, port.hostPort)
            if port.hostPort and claim in seen:
                faults.duplicate(f"{path}.containers[{number}].ports[{index}].hostPort", port.hostPort)
            seen.add(claim)


def _validate_env(container: core.Container, path: str, faults: Faults) -> None:
    for index, variable in enumerate(container.env):
        at = f"{path}.env[{index}]"
        if not variable.name:
            faults.required(f"{at}.name")
        else:
            faults.each_invalid(f"{at}.name", variable.name, names.env_name(variable.name))
        if variable.HasField("valueFrom"):
            _validate_value_from(variable, at, faults)
    for index, source in enumerate(container.envFrom):
        at = f"{path}.envFrom[{index}]"
        chosen = [name for name in ("configMapRef", "secretRef") if source.HasField(name)]
        if len(chosen) != 1:
            faults.invalid(at, "", "must specify exactly one of: `configMapRef` or `secretRef`")
        for name in chosen:
            if not getattr(source, name).localObjectReference.name:
                faults.required(f"{at}.{name}.name")


def _validate_value_from(variable: core.EnvVar, path: str, faults: Faults) -> None:
    source = variable.valueFrom
    set_ = [field.name for field, _ in source.ListFields()]
    if variable.value:
        faults.invalid(f"{path}.valueFrom", "", "may not be specified when `value` is not empty")
    if len(set_) != 1:
        faults.invalid(
            f"{path}.valueFrom",
            "",
            "must specify exactly one of: fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef",
        )
    for name in ("configMapKeyRef", "secretKeyRef"):
        if source.HasField(name):
            ref = getattr(source, name)
            if not ref.localObjectReference.name:
                faults.required(f"{path}.valueFrom.{name}.name")
            if not ref.key:
                faults.required(f"{path}.valueFrom.{name}.key")
    if source.HasField("fieldRef") and not source.fieldRef.fieldPath:
        faults.required(f"{path}.valueFrom.fieldRef.fieldPath")


def _validate_mounts(mounts: Sequence[core.VolumeMount], path: str, volumes: set[str], faults: Faults) -> None:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        at = f"{path}[{index}]"
        if not mount.name:
            faults.required(f"{at}.name")
        elif mount.name not in volumes:
            faults.invalid(f"{at}.name", mount.name, "no volume of the pod has this name")
        if not mount.mountPath:
            faults.required(f"{at}.mountPath")
        elif mount.mountPath in seen:
            faults.invalid(f"{at}.mountPath", mount.mountPath, "must be unique")
        seen.add(mount.mountPath)
        _validate_local_path(mount.subPath, f"{at}.subPath", faults)


def _validate_local_path(text: str, path: str, faults: Faults) -> None:
    """A path that must stay below its root."""
    if text.startswith("/"):
        faults.invalid(path, text, "must be a relative path")
    if ".." in PurePosixPath(text).parts:
        faults.invalid(path, text, "must not contain '..'")


def validate_requirements(resources: core.ResourceRequirements, path: str, faults: Faults) -> None:
    """Quantities, and no request above its limit."""
    limits = _validate_amounts(resources.limits, f"{path}.limits", faults)
    requests = _validate_amounts(resources.requests, f"{path}.requests", faults)
    for name, value in requests.items():
        if name in limits and value > limits[name]:
            shown = resources.requests[name].string
            limit = resources.limits[name].string
            faults.invalid(f"{path}.requests", shown, f"must be less than or equal to {name} limit of {limit}")


def _validate_amounts(amounts: Mapping[str, Any], path: str, faults: Faults) -> dict[str, Any]:
    values = {}
    for name, amount in amounts.items():
        at = f"{path}[{name}]"
        if "/" not in name and name not in BUILTIN_RESOURCES and not name.startswith("hugepages-"):
            faults.invalid(at, name, f"must be {', '.join(BUILTIN_RESOURCES)}, hugepages-SIZE or a name with a domain")
        faults.each_invalid(at, name, names.qualified(name))
        try:
            values[name] = quantity.parse(amount.string or "0")
        except quantity.QuantityError as err:
            faults.invalid(at, amount.string, str(err))
            continue
        if values[name] < 0:
            faults.invalid(at, amount.string, "must be greater than or equal to 0")
    return values


def _validate_probe(name: str, probe: core.Probe, path: str, container: core.Container, faults: Faults) -> None:
    _validate_handler(probe.handler, path, container, faults)
    faults.at_least(f"{path}.initialDelaySeconds", probe.initialDelaySeconds, 0)
    for field in ("timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        faults.at_least(f"{path}.{field}", getattr(probe, field), 1)
    if name != "readinessProbe" and probe.successThreshold != 1:
        faults.invalid(f"{path}.successThreshold", probe.successThreshold, "must be 1")


HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")


def _validate_handler(handler: Any, path: str, container: core.Container, faults: Faults) -> None:
    known = handler.DESCRIPTOR.fields_by_name
    chosen = [name for name in HANDLERS if name in known and handler.HasField(name)]
    if not chosen:
        faults.required(path, "must specify a handler type: exec, httpGet, tcpSocket or grpc")
    if len(chosen) > 1:
        faults.forbidden(f"{path}.{chosen[1]}", "may not specify more than 1 handler type")
    if "exec" in chosen and not handler.exec.command:
        faults.required(f"{path}.exec.command")
    if "httpGet" in chosen:
        faults.one_of(f"{path}.httpGet.scheme", handler.httpGet.scheme, ("HTTP", "HTTPS"))
        _validate_target(handler.httpGet.port, f"{path}.httpGet.port", faults)
    if "tcpSocket" in chosen:
        _validate_target(handler.tcpSocket.port, f"{path}.tcpSocket.port", faults)
    if "grpc" in chosen:
        faults.each_invalid(f"{path}.grpc.port", handler.grpc.port, names.port(handler.grpc.port))


def _validate_target(target: IntOrString, path: str, faults: Faults) -> None:
    if target.type == 1:
        faults.each_invalid(path, target.strVal, names.port_name(target.strVal))
    else:
        faults.each_invalid(path, target.intVal, names.port(target.intVal))


def _validate_security(container: core.Container, path: str, faults: Faults) -> None:
    security = container.securityContext
    for name in ("runAsUser", "runAsGroup"):
        if security.HasField(name):
            faults.at_least(f"{path}.securityContext.{name}", getattr(security, name), 0)
    if security.privileged and security.HasField("allowPrivilegeEscalation") and not security.allowPrivilegeEscalation:
        faults.invalid(
            f"{path}.securityContext", "", "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        )


# -- volumes -----------------------------------------------------------------------------------------------------


def _validate_volumes(volumes: Sequence[core.Volume], path: str, faults: Faults) -> set[str]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        at = f"{path}[{index}]"
        _validate_name(volume.name, f"{at}.name", seen, names.dns_label, faults)
        sources = [field.name for field, _ in volume.volumeSource.ListFields()]
        if not sources:
            faults.required(at, "must specify a volume type, for example emptyDir: {}")
        for extra in sources[1:]:
            faults.forbidden(f"{at}.{extra}", "may not specify more than 1 volume type")
        for name in sources[:1]:
            _validate_source(name, getattr(volume.volumeSource, name), f"{at}.{name}", faults)
    return seen


def _validate_source(name: str, source: Any, path: str, faults: Faults) -> None:
    if name == "hostPath" and not source.path:
        faults.required(f"{path}.path")
    if name == "configMap":
        if not source.localObjectReference.name:
            faults.required(f"{path}.name")
        _validate_files(source, path, faults)
    if name == "secret":
        if not source.secretName:
            faults.required(f"{path}.secretName")
        _validate_files(source, path, faults)
    if name == "persistentVolumeClaim" and not source.claimName:
        faults.required(f"{path}.claimName")


def _validate_files(source: Any, path: str, faults: Faults) -> None:
    if source.HasField("defaultMode") and not 0 <= source.defaultMode <= MODE_MAX:
        faults.invalid(f"{path}.defaultMode", source.defaultMode, "must be a number between 0 and 0777 (octal)")
    for index, item in enumerate(source.items):
        at = f"{path}.items[{index}]"
        if not item.key:
            faults.required(f"{at}.key")
        if not item.path:
            faults.required(f"{at}.path")
        _validate_local_path(item.path, f"{at}.path", faults)


# -- update ------------------------------------------------------------------------------------------------------


def validate_pod_update(new: core.Pod, old: core.Pod, faults: Faults) -> None:
    """A pod's spec is fixed but for a few fields."""
    for name in ("containers", "initContainers"):
        if len(getattr(new.spec, name)) != len(getattr(old.spec, name)):
            faults.forbidden(f"spec.{name}", "pod updates may not add or remove containers")
            return
    if list(new.spec.tolerations)[: len(old.spec.tolerations)] != list(old.spec.tolerations):
        faults.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    if _fixed(new.spec) != _fixed(old.spec):
        changed = _difference(_fixed(new.spec), _fixed(old.spec))
        faults.forbidden("spec", f"pod updates may not change fields other than {MUTABLE}; changed: {changed}")


def _fixed(spec: core.PodSpec) -> core.PodSpec:
    """The spec without what may change."""
    fixed: core.PodSpec = copy_of(spec)
    for name in ("tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "schedulingGates"):
        fixed.ClearField(name)
    for container in [*fixed.containers, *fixed.initContainers]:
        container.ClearField("image")
    return fixed


def _difference(new: core.PodSpec, old: core.PodSpec) -> str:
    return ", ".join(f"spec.{f.name}" for f in new.DESCRIPTOR.fields if getattr(new, f.name) != getattr(old, f.name))
