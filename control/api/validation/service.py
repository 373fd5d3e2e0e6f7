"""Services: types, ports, addresses. Source: the Service API reference."""

from control.api.validation import names
from control.api.validation.faults import Faults
from control.api.validation.objectmeta import validate_labels
from protos.k8s import core_v1_pb2 as core

TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
PROTOCOLS = ("TCP", "UDP", "SCTP")
NODE_PORTS = ("NodePort", "LoadBalancer")
HEADLESS = "None"
AFFINITY_S_MAX = 86400


def validate_service(service: core.Service, faults: Faults) -> None:
    """A service as it will be stored, defaults and addresses set."""
    spec = service.spec
    faults.one_of("spec.type", spec.type, TYPES)
    validate_labels(spec.selector, "spec.selector", faults)
    faults.one_of("spec.sessionAffinity", spec.sessionAffinity, ("ClientIP", "None"))
    if spec.type == "ExternalName":
        _validate_external_name(spec, faults)
    else:
        _validate_cluster_ip(spec, faults)
    _validate_ports(spec, faults)
    _validate_policies(spec, faults)


def _validate_external_name(spec: core.ServiceSpec, faults: Faults) -> None:
    if spec.clusterIP:
        faults.forbidden("spec.clusterIP", "may not be set for ExternalName services")
    if not spec.externalName:
        faults.required("spec.externalName", "the DNS name that the service stands for")
    else:
        faults.each_invalid("spec.externalName", spec.externalName, names.dns_subdomain(spec.externalName.rstrip(".")))


def _validate_cluster_ip(spec: core.ServiceSpec, faults: Faults) -> None:
    if spec.externalName:
        faults.forbidden("spec.externalName", "may only be set when `type` is ExternalName")
    if spec.clusterIP == HEADLESS and spec.type in NODE_PORTS:
        faults.invalid("spec.clusterIP", spec.clusterIP, f"may not be set to 'None' for {spec.type} services")
    elif spec.clusterIP not in ("", HEADLESS):
        faults.each_invalid("spec.clusterIP", spec.clusterIP, names.ip(spec.clusterIP))
    if spec.clusterIPs and spec.clusterIPs[0] != spec.clusterIP:
        faults.invalid("spec.clusterIPs[0]", spec.clusterIPs[0], "first value must match `clusterIP`")
    for index, address in enumerate(spec.externalIPs):
        faults.each_invalid(f"spec.externalIPs[{index}]", address, names.ip(address))


def _validate_ports(spec: core.ServiceSpec, faults: Faults) -> None:
    if not spec.ports and spec.type != "ExternalName" and spec.clusterIP != HEADLESS:
        faults.required("spec.ports", "a service needs at least one port")
    seen_names: set[str] = set()
    seen_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(spec.ports):
        path = f"spec.ports[{index}]"
        _validate_port_name(port.name, path, len(spec.ports) > 1, seen_names, faults)
        _validate_port(port, path, spec.type, faults)
        if (port.protocol, port.port) in seen_ports:
            faults.duplicate(path, f"{port.port}/{port.protocol}")
        seen_ports.add((port.protocol, port.port))


def _validate_port_name(name: str, path: str, required: bool, seen: set[str], faults: Faults) -> None:
    if not name:
        if required:
            faults.required(f"{path}.name", "must be set when a service has several ports")
        return
    faults.each_invalid(f"{path}.name", name, names.dns_label(name))
    if name in seen:
        faults.duplicate(f"{path}.name", name)
    seen.add(name)


def _validate_port(port: core.ServicePort, path: str, type_: str, faults: Faults) -> None:
    faults.each_invalid(f"{path}.port", port.port, names.port(port.port))
    faults.one_of(f"{path}.protocol", port.protocol, PROTOCOLS)
    if port.targetPort.type == 1:
        faults.each_invalid(f"{path}.targetPort", port.targetPort.strVal, names.port_name(port.targetPort.strVal))
    else:
        faults.each_invalid(f"{path}.targetPort", port.targetPort.intVal, names.port(port.targetPort.intVal))
    if port.nodePort:
        if type_ not in NODE_PORTS:
            faults.forbidden(f"{path}.nodePort", f"may not be used when `type` is '{type_}'")
        faults.each_invalid(f"{path}.nodePort", port.nodePort, names.port(port.nodePort))


def _validate_policies(spec: core.ServiceSpec, faults: Faults) -> None:
    faults.one_of("spec.externalTrafficPolicy", spec.externalTrafficPolicy, ("Cluster", "Local"), required=False)
    faults.one_of("spec.internalTrafficPolicy", spec.internalTrafficPolicy, ("Cluster", "Local"), required=False)
    timeout_s = spec.sessionAffinityConfig.clientIP.timeoutSeconds
    if spec.sessionAffinity == "ClientIP" and not 0 < timeout_s <= AFFINITY_S_MAX:
        faults.invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            timeout_s,
            f"must be greater than 0 and less than {AFFINITY_S_MAX}",
        )


def validate_service_update(new: core.Service, old: core.Service, faults: Faults) -> None:
    """A cluster IP stays while the service has one."""
    if old.spec.type != "ExternalName" and new.spec.type != "ExternalName" and old.spec.clusterIP:
        faults.immutable(
            "spec.clusterIP",
            new.spec.clusterIP,
            old.spec.clusterIP,
            "field is immutable: omit it, or delete the service and create it anew",
        )
