"""A pod, and the parts of one that a controller's template has too."""

from collections.abc import Mapping, Sequence
from typing import Any

from control.api.printers.parts import NONE
from control.api.printers.pods import status_of
from ctl.describe.parts import Lines, events, head, indented, mapping, quantities, timestamp


def describe_pod(pod: Any, found_events: Sequence[Any] | None, now_s: float) -> Lines:
    """Everything a person asks of a pod."""
    return [
        *head(pod, *_place(pod)),
        *_status(pod),
        *_owner(pod),
        *containers("Init Containers", pod.spec.initContainers, _by_name(pod.status.initContainerStatuses)),
        *containers("Containers", pod.spec.containers, _by_name(pod.status.containerStatuses)),
        *_conditions(pod),
        *volumes(pod.spec.volumes),
        f"QoS Class:\t{pod.status.qosClass or NONE}",
        *mapping("Node-Selectors", pod.spec.nodeSelector),
        *tolerations(pod.spec.tolerations),
        *events(found_events, now_s),
    ]


def _place(pod: Any) -> Lines:
    node = f"{pod.spec.nodeName}/{pod.status.hostIP}" if pod.status.hostIP else pod.spec.nodeName
    lines = [f"Priority:\t{pod.spec.priority}"] if pod.spec.HasField("priority") else []
    if pod.spec.serviceAccountName:
        lines.append(f"Service Account:\t{pod.spec.serviceAccountName}")
    lines.append(f"Node:\t{node or NONE}")
    if pod.status.HasField("startTime"):
        lines.append(f"Start Time:\t{timestamp(pod.status.startTime)}")
    return lines


def _status(pod: Any) -> Lines:
    if pod.metadata.HasField("deletionTimestamp"):
        lines = [
            f"Status:\tTerminating (since {timestamp(pod.metadata.deletionTimestamp)})",
            f"Termination Grace Period:\t{pod.metadata.deletionGracePeriodSeconds}s",
        ]
    else:
        lines = [f"Status:\t{pod.status.phase or status_of(pod)}"]
    if pod.status.reason:
        lines.append(f"Reason:\t{pod.status.reason}")
    if pod.status.message:
        lines.append(f"Message:\t{pod.status.message}")
    ips = [each.ip for each in pod.status.podIPs]
    return [
        *lines,
        f"IP:\t{pod.status.podIP}",
        *(["IPs:", *(f"  IP:\t{ip}" for ip in ips)] if ips else [f"IPs:\t{NONE}"]),
    ]


def _owner(pod: Any) -> Lines:
    owner = next((each for each in pod.metadata.ownerReferences if each.controller), None)
    return [f"Controlled By:\t{owner.kind}/{owner.name}"] if owner else []


def _by_name(statuses: Sequence[Any]) -> dict[str, Any]:
    return {status.name: status for status in statuses}


def containers(title: str, specs: Sequence[Any], statuses: Mapping[str, Any] | None = None, gap: str = "  ") -> Lines:
    """A section per container; of a template, which has no ``statuses``, only what is wanted."""
    lines = [f"{title}:"] if specs else []
    for spec in specs:
        lines.append(f"{gap}{spec.name}:")
        status = None if statuses is None else statuses.get(spec.name)
        lines += indented(2, _container(spec, status))
    return lines


def _container(spec: Any, status: Any | None) -> Lines:
    lines = []
    if status is not None:
        lines.append(f"Container ID:\t{status.containerID}")
    lines.append(f"Image:\t{spec.image}")
    if status is not None:
        lines.append(f"Image ID:\t{status.imageID}")
    lines += _ports(spec.ports)
    lines += _words("Command", spec.command) + _words("Args", spec.args)
    if status is not None:
        lines += _state("State", status.state)
        if status.lastState.ListFields():
            lines += _state("Last State", status.lastState)
        lines += [f"Ready:\t{status.ready}", f"Restart Count:\t{status.restartCount}"]
    lines += quantities("Limits", spec.resources.limits) + quantities("Requests", spec.resources.requests)
    for name in ("liveness", "readiness", "startup"):
        if spec.HasField(f"{name}Probe"):
            lines.append(f"{name.capitalize()}:\t{probe(getattr(spec, f'{name}Probe'))}")
    return lines + _environment(spec) + _mounts(spec)


def _ports(ports: Sequence[Any]) -> Lines:
    if not ports:
        return [f"Port:\t{NONE}", f"Host Port:\t{NONE}"]
    word = "Ports" if len(ports) > 1 else "Port"
    inside = ", ".join(_port(each.containerPort, each) for each in ports)
    return [f"{word}:\t{inside}", f"Host {word}:\t{', '.join(_port(each.hostPort, each) for each in ports)}"]


def _port(number: int, port: Any) -> str:
    name = f" ({port.name})" if port.name else ""
    return f"{number}/{port.protocol or 'TCP'}{name}"


def _words(title: str, words: Sequence[str]) -> Lines:
    return [f"{title}:", *(f"  {line}" for word in words for line in word.split("\n"))] if words else []


def _state(title: str, state: Any) -> Lines:
    if state.HasField("running"):
        return [f"{title}:\tRunning", f"  Started:\t{timestamp(state.running.startedAt)}"]
    if state.HasField("terminated"):
        ended = state.terminated
        lines = [f"{title}:\tTerminated"]
        lines += [f"  Reason:\t{ended.reason}"] if ended.reason else []
        lines += [f"  Message:\t{ended.message}"] if ended.message else []
        lines.append(f"  Exit Code:\t{ended.exitCode}")
        lines += [f"  Signal:\t{ended.signal}"] if ended.signal else []
        return [*lines, f"  Started:\t{timestamp(ended.startedAt)}", f"  Finished:\t{timestamp(ended.finishedAt)}"]
    lines = [f"{title}:\tWaiting"]
    return lines + ([f"  Reason:\t{state.waiting.reason}"] if state.waiting.reason else [])


def probe(spec: Any) -> str:
    """``http-get http://:8080/ delay=0s timeout=1s period=10s #success=1 #failure=3``."""
    handler = spec.handler
    if handler.HasField("httpGet"):
        get = handler.httpGet
        port = get.port.strVal or get.port.intVal
        what = f"http-get {(get.scheme or 'HTTP').lower()}://{get.host}:{port}{get.path}"
    elif handler.HasField("tcpSocket"):
        what = f"tcp-socket {handler.tcpSocket.host}:{handler.tcpSocket.port.strVal or handler.tcpSocket.port.intVal}"
    elif handler.HasField("exec"):
        what = f"exec [{' '.join(handler.exec.command)}]"
    else:
        what = f"grpc <pod>:{handler.grpc.port} {handler.grpc.service}".rstrip()
    return (
        f"{what} delay={spec.initialDelaySeconds}s timeout={spec.timeoutSeconds}s period={spec.periodSeconds}s "
        f"#success={spec.successThreshold} #failure={spec.failureThreshold}"
    )


def _environment(spec: Any) -> Lines:
    if not spec.env and not spec.envFrom:
        return [f"Environment:\t{NONE}"]
    sources = [_environment_source(each) for each in spec.envFrom]
    lines = ["Environment Variables from:", *(f"  {line}" for line in sources)] if sources else []
    if not spec.env:
        return [*lines, f"Environment:\t{NONE}"]
    return [*lines, "Environment:", *(f"  {each.name}:\t{_value(each)}" for each in spec.env)]


def _environment_source(each: Any) -> str:
    if each.HasField("configMapRef"):
        return f"{each.configMapRef.localObjectReference.name}\tConfigMap"
    return f"{each.secretRef.localObjectReference.name}\tSecret"


def _value(variable: Any) -> str:
    if not variable.HasField("valueFrom"):
        return str(variable.value)
    source = variable.valueFrom
    if source.HasField("fieldRef"):
        return f" ({source.fieldRef.apiVersion or 'v1'}:{source.fieldRef.fieldPath})"
    if source.HasField("resourceFieldRef"):
        return f" ({source.resourceFieldRef.resource})"
    reference, kind = (
        (source.configMapKeyRef, "config map")
        if source.HasField("configMapKeyRef")
        else (source.secretKeyRef, "secret")
    )
    return f"<set to the key '{reference.key}' of {kind} '{reference.localObjectReference.name}'>"


def _mounts(spec: Any) -> Lines:
    if not spec.volumeMounts:
        return [f"Mounts:\t{NONE}"]
    ordered = sorted(spec.volumeMounts, key=lambda mount: mount.mountPath)
    return ["Mounts:", *(f"  {m.mountPath} from {m.name} ({'ro' if m.readOnly else 'rw'})" for m in ordered)]


def _conditions(pod: Any) -> Lines:
    if not pod.status.conditions:
        return []
    return ["Conditions:", "  Type\tStatus", *(f"  {each.type} \t{each.status} " for each in pod.status.conditions)]


def volumes(found: Sequence[Any], gap: str = "") -> Lines:
    """What each volume is."""
    if not found:
        return [f"{gap}Volumes:\t{NONE}"]
    lines = [f"{gap}Volumes:"]
    for volume in found:
        lines.append(f"{gap}  {volume.name}:")
        source = next((field for field, _ in volume.volumeSource.ListFields()), None)
        lines.append(f"{gap}    Type:\t{source.name[:1].upper() + source.name[1:] if source else 'EmptyDir'}")
        lines += [f"{gap}    {line}" for line in _source(volume.volumeSource)]
    return lines


def _source(source: Any) -> Lines:
    if source.HasField("hostPath"):
        return [f"Path:\t{source.hostPath.path}", f"HostPathType:\t{source.hostPath.type}"]
    if source.HasField("configMap"):
        return [f"Name:\t{source.configMap.localObjectReference.name}", f"Optional:\t{source.configMap.optional}"]
    if source.HasField("secret"):
        return [f"SecretName:\t{source.secret.secretName}", f"Optional:\t{source.secret.optional}"]
    if source.HasField("emptyDir"):
        limit = source.emptyDir.sizeLimit.string if source.emptyDir.HasField("sizeLimit") else "<unset>"
        return [f"Medium:\t{source.emptyDir.medium}", f"SizeLimit:\t{limit}"]
    if source.HasField("persistentVolumeClaim"):
        claim = source.persistentVolumeClaim
        return [f"ClaimName:\t{claim.claimName}", f"ReadOnly:\t{claim.readOnly}"]
    return []


def tolerations(found: Sequence[Any], title: str = "Tolerations") -> Lines:
    """``key=value:Effect op=Exists for 300s``, one a line."""
    items = [_toleration(each) for each in found] or [NONE]
    return [f"{title}:\t{items[0]}", *(f"\t{item}" for item in items[1:])]


def _toleration(each: Any) -> str:
    text = str(each.key)
    if each.value:
        text += f"={each.value}"
    if each.effect:
        text += f":{each.effect}"
    if each.operator == "Exists":
        text += " op=Exists" if text else "op=Exists"
    return text + (f" for {each.tolerationSeconds}s" if each.HasField("tolerationSeconds") else "")
