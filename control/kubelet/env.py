"""A container's environment: literal values, references, whole ConfigMaps and Secrets, and service variables. Pure.

``$(NAME)`` in a value refers to a variable defined before it, ``$$`` is a dollar sign (Kubernetes' expansion).
An error names the variable and the object that is missing.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from control.api import quantity
from protos.k8s import core_v1_pb2 as core

REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
FIELD_KEY = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


T = TypeVar("T")


class ConfigError(Exception):
    """The pod's spec refers to what is not there; it can succeed later, once it is (CreateContainerConfigError)."""


@dataclass
class Sources:
    """The objects that a pod's environment and volumes refer to, by name; None for one that does not exist."""

    config_maps: Mapping[str, core.ConfigMap | None] = field(default_factory=dict)
    secrets: Mapping[str, core.Secret | None] = field(default_factory=dict)
    services: Iterable[core.Service] = ()
    host_ip: str = ""
    node_name: str = ""
    pod_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)


def environment(pod: core.Pod, spec: core.Container, sources: Sources) -> dict[str, str | bytes]:
    """The environment of container ``spec``, in definition order. Raises ConfigError."""
    enabled = pod.spec.enableServiceLinks if pod.spec.HasField("enableServiceLinks") else True
    result: dict[str, str | bytes] = dict(service_variables(pod.metadata.namespace, sources.services, enabled))
    for source in spec.envFrom:
        result.update(_env_from(pod.metadata.namespace, source, sources))
    service_names = dict(result)
    for variable in spec.env:
        value = _value(pod, spec, variable, sources, {**service_names, **result})
        if value is not None:
            result[variable.name] = value
    return result


def expand(text: str, variables: Mapping[str, str | bytes]) -> str:
    """Replace ``$(NAME)`` by its value; an unknown name stays as written."""

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        value = variables.get(found[1])
        return found[0] if value is None else value if isinstance(value, str) else value.decode(errors="replace")

    return REFERENCE.sub(replace, text)


def _env_from(namespace: str, source: core.EnvFromSource, sources: Sources) -> dict[str, str | bytes]:
    if source.HasField("configMapRef"):
        name, optional = source.configMapRef.localObjectReference.name, source.configMapRef.optional
        found = _needed(sources.config_maps, "configmap", name, optional)
        data: dict[str, str | bytes] = dict(found.data) if found is not None else {}
    else:
        name, optional = source.secretRef.localObjectReference.name, source.secretRef.optional
        secret = _needed(sources.secrets, "secret", name, optional)
        data = {**secret.data} if secret is not None else {}
    return {source.prefix + key: value for key, value in data.items()}


def _value(
    pod: core.Pod, spec: core.Container, variable: core.EnvVar, sources: Sources, known: Mapping[str, str | bytes]
) -> str | bytes | None:
    if not variable.HasField("valueFrom"):
        return expand(variable.value, known)
    source = variable.valueFrom
    if source.HasField("fieldRef"):
        return field_value(pod, source.fieldRef.fieldPath, sources)
    if source.HasField("resourceFieldRef"):
        return resource_value(pod, spec, source.resourceFieldRef, sources.allocatable)
    if source.HasField("configMapKeyRef"):
        ref = source.configMapKeyRef
        found = _needed(sources.config_maps, "configmap", ref.localObjectReference.name, ref.optional)
        return _key(
            found.data if found is not None else {},
            ref.key,
            "ConfigMap",
            ref.localObjectReference.name,
            ref.optional,
            pod,
        )
    if source.HasField("secretKeyRef"):
        secret_ref = source.secretKeyRef
        secret = _needed(sources.secrets, "secret", secret_ref.localObjectReference.name, secret_ref.optional)
        return _key(
            secret.data if secret is not None else {},
            secret_ref.key,
            "Secret",
            secret_ref.localObjectReference.name,
            secret_ref.optional,
            pod,
        )
    raise ConfigError(f"env {variable.name}: valueFrom names no source this kubelet knows")


def _needed(found: Mapping[str, T | None], kind: str, name: str, optional: bool) -> T | None:
    value = found.get(name)
    if value is None and not optional:
        raise ConfigError(f'{kind} "{name}" not found')
    return value


def _key(
    data: Mapping[str, str] | Mapping[str, bytes], key: str, kind: str, name: str, optional: bool, pod: core.Pod
) -> str | bytes | None:
    if key in data:
        return data[key]
    if optional:
        return None
    raise ConfigError(f"couldn't find key {key} in {kind} {pod.metadata.namespace}/{name}")


def field_value(pod: core.Pod, path: str, sources: Sources) -> str:
    """The value of a downward API field path. Raises ConfigError for a path that the downward API does not have."""
    meta, spec = pod.metadata, pod.spec
    plain = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "spec.nodeName": spec.nodeName or sources.node_name,
        "spec.serviceAccountName": spec.serviceAccountName,
        "status.hostIP": sources.host_ip,
        "status.hostIPs": sources.host_ip,
        "status.podIP": sources.pod_ips[0] if sources.pod_ips else "",
        "status.podIPs": ",".join(sources.pod_ips),
    }
    if path in plain:
        return plain[path]
    if path == "metadata.labels":
        return _pairs(meta.labels)
    if path == "metadata.annotations":
        return _pairs(meta.annotations)
    found = FIELD_KEY.fullmatch(path)
    if found is None:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return (meta.labels if found[1] == "labels" else meta.annotations).get(found[2], "")


def _pairs(pairs: Mapping[str, str]) -> str:
    return "\n".join(f'{key}="{_escaped(value)}"' for key, value in sorted(pairs.items()))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(
    pod: core.Pod, spec: core.Container, ref: core.ResourceFieldSelector, allocatable: Mapping[str, str]
) -> str:
    """The value of a resourceFieldRef: a request or limit of a container, rounded up to its divisor."""
    named = [c for c in (*pod.spec.initContainers, *pod.spec.containers) if c.name == ref.containerName]
    chosen = named[0] if named else spec
    kind, _, name = ref.resource.partition(".")
    amounts = chosen.resources.limits if kind == "limits" else chosen.resources.requests
    if name in amounts:
        text = amounts[name].string
    else:
        text = allocatable.get(name, "0") if kind == "limits" else "0"
    divisor = quantity.parse(ref.divisor.string or "0") or quantity.parse("1")
    return str(math.ceil(quantity.parse(text) / divisor))


def service_variables(namespace: str, services: Iterable[core.Service], enabled: bool) -> dict[str, str]:
    """``NAME_SERVICE_HOST`` and the rest for every service of the namespace, and ``KUBERNETES_*`` for all pods."""
    result: dict[str, str] = {}
    for service in sorted(services, key=lambda s: s.metadata.name):
        master = service.metadata.namespace == "default" and service.metadata.name == "kubernetes"
        ours = enabled and service.metadata.namespace == namespace
        if service.spec.clusterIP not in ("", "None") and (master or ours):
            result.update(_variables_of(service))
    return result


def _variables_of(service: core.Service) -> dict[str, str]:
    prefix = service.metadata.name.upper().replace("-", "_")
    host, ports = service.spec.clusterIP, service.spec.ports
    result = {f"{prefix}_SERVICE_HOST": host}
    if ports:
        first = ports[0]
        result[f"{prefix}_SERVICE_PORT"] = str(first.port)
        for port in ports:
            if port.name:
                result[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
        result[f"{prefix}_PORT"] = f"{(first.protocol or 'TCP').lower()}://{host}:{first.port}"
    for port in ports:
        protocol = port.protocol or "TCP"
        name = f"{prefix}_PORT_{port.port}_{protocol}"
        result[name] = f"{protocol.lower()}://{host}:{port.port}"
        result[f"{name}_PROTO"] = protocol.lower()
        result[f"{name}_PORT"] = str(port.port)
        result[f"{name}_ADDR"] = host
    return result
