"""Objects made from flags: what ``run`` and ``expose`` send. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ctl.errors import CtlError
from protos.k8s import core_v1_pb2 as core
from protos.k8s.intstr_pb2 import IntOrString

RFC1123_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
RFC1035_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")


def check_name(name: str, what: str, pattern: re.Pattern[str] = RFC1123_LABEL) -> str:
    """``name``, when it can be one. Raises CtlError."""
    if not pattern.fullmatch(name):
        start = "a lower case letter" if pattern is RFC1035_LABEL else "a lower case letter or digit"
        raise CtlError(
            f'{what} name "{name}" is invalid: at most 63 lower case letters, digits and "-", starting with {start} '
            "and ending with a letter or digit (RFC 1123)"
        )
    return name


def check_port(port: int, flag: str) -> int:
    """``port``, when TCP has it. Raises CtlError."""
    if not 1 <= port <= 65535:
        raise CtlError(f"{flag} {port} is out of range: 1 to 65535")
    return port


def parse_pairs(pairs: Sequence[str], flag: str) -> dict[str, str]:
    """``a=b`` texts, also comma separated, as a mapping. Raises CtlError."""
    parsed = {}
    for pair in (part for text in pairs for part in text.split(",") if part):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise CtlError(f'{flag} "{pair}" is not of the form KEY=VALUE')
        parsed[key] = value
    return parsed


def container(
    name: str,
    image: str,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    as_command: bool = False,
    pull_policy: str = "",
    interactive: bool = False,
    tty: bool = False,
) -> core.Container:
    """The container that ``run`` describes. Raises CtlError for an empty image or a bad port."""
    if not image.strip():
        raise CtlError("--image is required")
    made = core.Container(name=name, image=image)
    if port is not None:
        made.ports.add(containerPort=check_port(port, "--port"))
    made.env.extend(core.EnvVar(name=key, value=value) for key, value in (env or {}).items())
    (made.command if as_command else made.args).extend(arguments)
    if pull_policy:
        made.imagePullPolicy = pull_policy
    if interactive:
        made.stdin = made.stdinOnce = True
    if tty:
        made.tty = True
    return made


def replication_controller(
    name: str, run: core.Container, replicas: int, labels: Mapping[str, str] | None = None
) -> core.ReplicationController:
    """A controller of ``replicas`` pods labelled ``run=name``, or with ``labels``. Raises CtlError."""
    if replicas < 0:
        raise CtlError(f"--replicas {replicas} is out of range: it cannot be negative")
    marks = dict(labels or {"run": check_name(name, "replicationcontroller")})
    made = core.ReplicationController()
    made.metadata.name = name
    made.metadata.labels.update(marks)
    made.spec.replicas = replicas
    made.spec.selector.update(marks)
    made.spec.template.metadata.labels.update(marks)
    made.spec.template.spec.containers.append(run)
    return made


def pod(name: str, run: core.Container, restart: str, labels: Mapping[str, str] | None = None) -> core.Pod:
    """One pod labelled ``run=name``, or with ``labels``."""
    made = core.Pod()
    made.metadata.name = check_name(name, "pod")
    made.metadata.labels.update(labels or {"run": name})
    made.spec.containers.append(run)
    made.spec.restartPolicy = restart
    return made


def selector_of(obj: Any) -> dict[str, str]:
    """The labels that a service for ``obj`` selects by. Raises CtlError for what has none."""
    spec = getattr(obj, "spec", None)
    if isinstance(obj, core.Pod):
        labels = dict(obj.metadata.labels)
    elif isinstance(obj, (core.ReplicationController, core.Service)):
        labels = dict(obj.spec.selector)
    elif spec is not None and hasattr(spec, "selector"):
        if spec.selector.matchExpressions:
            raise CtlError("couldn't convert expressions to a service's selector: name one with --selector")
        labels = dict(spec.selector.matchLabels)
    else:
        raise CtlError("cannot expose this kind: expose a pod, service, replication controller, deployment, ...")
    if not labels:
        raise CtlError("the object has no labels to select by: name a selector with --selector")
    return labels


def ports_of(obj: Any) -> list[core.ServicePort]:
    """The ports that ``obj`` says it has, as a service's."""
    if isinstance(obj, core.Service):
        return [core.ServicePort(name=p.name, protocol=p.protocol or "TCP", port=p.port) for p in obj.spec.ports]
    spec = obj.spec if isinstance(obj, core.Pod) else obj.spec.template.spec
    found = [(p.containerPort, p.protocol or "TCP") for each in spec.containers for p in each.ports]
    made = [core.ServicePort(port=port, protocol=protocol) for port, protocol in dict.fromkeys(found)]
    return _named(made)


def _named(ports: list[core.ServicePort]) -> list[core.ServicePort]:
    """A service's ports need names when there are several."""
    if len(ports) > 1:
        for number, port in enumerate(ports, 1):
            port.name = f"port-{number}"
    return ports


def service(
    obj: Any,
    name: str,
    type_: str = "",
    ports: Sequence[int] = (),
    target_port: str = "",
    protocol: str = "",
    selector: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> core.Service:
    """The service that ``expose`` makes for ``obj``. Raises CtlError when it has no port, or a flag is wrong."""
    made = core.Service()
    made.metadata.name = check_name(name, "service", RFC1035_LABEL)
    made.metadata.labels.update(labels or obj.metadata.labels)
    made.spec.selector.update(selector or selector_of(obj))
    given = _named([core.ServicePort(port=check_port(p, "--port"), protocol=protocol or "TCP") for p in ports])
    made.spec.ports.extend(given or ports_of(obj))
    if not made.spec.ports:
        raise CtlError("couldn't find port via --port flag or introspection")
    for port in made.spec.ports:
        port.targetPort.CopyFrom(_target(target_port) if target_port else IntOrString(type=0, intVal=port.port))
    if type_:
        made.spec.type = type_
    return made


def _target(text: str) -> IntOrString:
    if text.isdigit():
        return IntOrString(type=0, intVal=check_port(int(text), "--target-port"))
    return IntOrString(type=1, strVal=text)
