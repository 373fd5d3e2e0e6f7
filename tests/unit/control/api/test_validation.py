"""What is refused, and how it is told: one row per rule."""

import copy
from typing import Any

import pytest

from control.api import meta
from control.api.codec import from_json
from control.api.defaults import set_defaults
from control.api.validation import names, validate, validate_update


def obj(kind: str, api_version: str = "v1", name: str = "web", **members: Any) -> Any:
    data = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "default"}, **members}
    if kind in ("Namespace", "Node") and "metadata" not in members:
        del data["metadata"]["namespace"]
    made = from_json(data)
    set_defaults(made)
    return made


def pod(**spec: Any) -> Any:
    return obj("Pod", spec={"containers": [{"name": "c", "image": "i"}], **spec})


def container(**members: Any) -> Any:
    return pod(containers=[{"name": "c", "image": "i", **members}])


def service(**spec: Any) -> Any:
    return obj("Service", spec={"ports": [{"port": 80}], **spec})


def rc(**spec: Any) -> Any:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return obj("ReplicationController", spec={"template": template, **spec})


def faults(made: Any) -> list[tuple[str, str]]:
    return [(cause.field, cause.message) for cause in validate(made)]


@pytest.mark.parametrize(
    "made",
    [
        pod(),
        container(ports=[{"containerPort": 80, "name": "http"}], resources={"limits": {"cpu": "1"}}),
        container(livenessProbe={"exec": {"command": ["true"]}}, env=[{"name": "A", "value": "b"}]),
        pod(
            volumes=[{"name": "v"}],
            containers=[{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        ),
        service(),
        service(type="ExternalName", externalName="example.com", ports=[]),
        service(clusterIP="None", ports=[]),
        rc(),
        obj("Endpoints", subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]),
        obj("EndpointSlice", "discovery.k8s.io/v1", addressType="IPv4", endpoints=[{"addresses": ["10.0.0.1"]}]),
        obj("Node"),
        obj("Namespace"),
        obj("ConfigMap", data={"a.conf": "x"}),
        obj("Secret", stringData={"a": "x"}),
        obj("ServiceAccount"),
        obj("Lease", "coordination.k8s.io/v1", spec={"leaseDurationSeconds": 15}),
        obj("Event", involvedObject={"kind": "Pod", "namespace": "default"}, type="Normal"),
        obj("ClusterRole", "rbac.authorization.k8s.io/v1", name="system:node", metadata={"name": "system:node"}),
    ],
    ids=lambda made: type(made).__name__,
)
def test_good_objects_pass(made: Any) -> None:
    assert faults(made) == []


@pytest.mark.parametrize(
    ("made", "field", "told"),
    [
        (obj("Pod", name="Web", spec={"containers": [{"name": "c", "image": "i"}]}), "metadata.name", "RFC 1123"),
        (obj("ConfigMap", name=""), "metadata.name", "Required value: name or generateName is required"),
        (obj("ConfigMap", metadata={"name": "x"}), "metadata.namespace", "Required value"),
        (obj("Node", metadata={"name": "x", "namespace": "y"}), "metadata.namespace", "Forbidden: a Node is not in"),
        (
            obj("ConfigMap", metadata={"name": "x", "namespace": "y", "labels": {"a b": "c"}}),
            "metadata.labels",
            "name part must consist",
        ),
        (
            obj("ConfigMap", metadata={"name": "x", "namespace": "y", "labels": {"a": "-"}}),
            "metadata.labels[a]",
            "a valid label must be",
        ),
        (pod(containers=[]), "spec.containers", "Required value"),
        (container(image=""), "spec.containers[0].image", "Required value"),
        (container(name=""), "spec.containers[0].name", "Required value"),
        (pod(containers=[{"name": "c", "image": "i"}] * 2), "spec.containers[1].name", 'Duplicate value: "c"'),
        (
            container(imagePullPolicy="Sometimes"),
            "spec.containers[0].imagePullPolicy",
            'Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"',
        ),
        (
            container(ports=[{"containerPort": 70000}]),
            "spec.containers[0].ports[0].containerPort",
            "Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (container(ports=[{"name": "x"}]), "spec.containers[0].ports[0].containerPort", "Required value"),
        (
            container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            "spec.containers[0].resources.requests",
            "must be less than or equal to cpu limit of 1",
        ),
        (container(resources={"limits": {"cpus": "1"}}), "spec.containers[0].resources.limits[cpus]", "must be cpu"),
        (
            container(resources={"limits": {"cpu": "-1"}}),
            "spec.containers[0].resources.limits[cpu]",
            "must be greater than or equal to 0",
        ),
        (
            container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            "spec.containers[0].volumeMounts[0].name",
            "no volume of the pod has this name",
        ),
        (container(livenessProbe={}), "spec.containers[0].livenessProbe", "must specify a handler type"),
        (
            container(livenessProbe={"tcpSocket": {"port": 0}}),
            "spec.containers[0].livenessProbe.tcpSocket.port",
            "between 1 and 65535",
        ),
        (container(env=[{"name": "a=b"}]), "spec.containers[0].env[0].name", "environment variable name"),
        (container(env=[{"name": "a", "valueFrom": {}}]), "spec.containers[0].env[0].valueFrom", "exactly one of"),
        (
            pod(volumes=[{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}]),
            "spec.volumes[0].emptyDir",
            "may not specify more than 1 volume type",
        ),
        (pod(volumes=[{"name": "v", "secret": {}}]), "spec.volumes[0].secret.secretName", "Required value"),
        (pod(restartPolicy="Maybe"), "spec.restartPolicy", "Unsupported value"),
        (pod(terminationGracePeriodSeconds=-1), "spec.terminationGracePeriodSeconds", "greater than or equal to 0"),
        (pod(tolerations=[{"operator": "Exists", "value": "x"}]), "spec.tolerations[0].value", "must be empty"),
        (service(ports=[]), "spec.ports", "Required value"),
        (service(ports=[{"port": 0}]), "spec.ports[0].port", "between 1 and 65535"),
        (service(ports=[{"port": 80}, {"port": 81}]), "spec.ports[0].name", "Required value"),
        (service(type="Magic"), "spec.type", "Unsupported value"),
        (service(ports=[{"port": 80, "nodePort": 30000}]), "spec.ports[0].nodePort", "may not be used when `type`"),
        (service(type="ExternalName"), "spec.externalName", "Required value"),
        (service(type="NodePort", clusterIP="None"), "spec.clusterIP", "may not be set to 'None'"),
        (rc(replicas=-1), "spec.replicas", "Invalid value: -1"),
        (rc(selector={"x": "y"}), "spec.template.metadata.labels", "`selector` does not match template `labels`"),
        (obj("ReplicationController"), "spec.template", "Required value"),
        (obj("Deployment", "apps/v1"), "spec.selector", "Required value"),
        (obj("Endpoints", subsets=[{"addresses": [{"ip": "127.0.0.1"}]}]), "subsets[0].addresses[0].ip", "loopback"),
        (
            obj("EndpointSlice", "discovery.k8s.io/v1", addressType="IPv6", endpoints=[{"addresses": ["10.0.0.1"]}]),
            "endpoints[0].addresses[0]",
            "must be an IPv6 address",
        ),
        (obj("ConfigMap", data={"a/b": "x"}), "data[a/b]", "a valid config key"),
        (obj("Secret", type="kubernetes.io/tls"), "data[tls.crt]", "Required value"),
        (obj("ConfigMap", data={"a": "x" * (1 << 21)}), "data", "Too long"),
        (obj("Node", spec={"taints": [{"key": "a", "effect": "Never"}]}), "spec.taints[0].effect", "Unsupported"),
        (obj("Event", involvedObject={"namespace": "other"}), "involvedObject.namespace", "does not match"),
        (
            obj("Job", "batch/v1", spec={"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}),
            "spec.template.spec.restartPolicy",
            'Unsupported value: "Always"',
        ),
        (obj("CronJob", "batch/v1"), "spec.schedule", "Required value"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "",
)
def test_bad_objects_are_told_by_field(made: Any, field: str, told: str) -> None:
    found = [message for at, message in faults(made) if at == field]
    assert found and any(told in message for message in found), faults(made)


def changed(made: Any, **spec: Any) -> Any:
    new = meta.copy_of(made)
    for name, value in spec.items():
        setattr(new.spec, name, value)
    return new


def test_updates_may_not_change_what_is_fixed() -> None:
    old = pod()
    assert not validate_update(copy.deepcopy(old), old)
    assert [c.field for c in validate_update(changed(old, restartPolicy="Never"), old)] == ["spec"]
    assert "spec.restartPolicy" in validate_update(changed(old, restartPolicy="Never"), old)[0].message
    renamed = meta.copy_of(old)
    renamed.metadata.name = "other"
    assert [c.field for c in validate_update(renamed, old)] == ["metadata.name"]
    config = obj("ConfigMap", data={"a": "1"}, immutable=True)
    edited = meta.copy_of(config)
    edited.data["a"] = "2"
    assert [c.message for c in validate_update(edited, config)] == [
        "Forbidden: field is immutable when `immutable` is set"
    ]
    deployment = obj(
        "Deployment",
        "apps/v1",
        spec={
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    )
    moved = meta.copy_of(deployment)
    moved.spec.selector.matchLabels["a"] = "c"
    moved.spec.template.metadata.labels["a"] = "c"
    assert [c.field for c in validate_update(moved, deployment)] == ["spec.selector"]


@pytest.mark.parametrize("rule", [names.dns_label, names.dns_subdomain, names.dns_1035, names.port_name])
def test_names_refuse_what_every_name_refuses(rule: Any) -> None:
    for text in ("", "A", "a_b", "-a", "a-", "a" * 300, "a\n"):
        assert rule(text), text
    assert not rule("a") and not rule("a-1")


def test_defaults_are_filled_in_once() -> None:
    made = container(image="kubia:1", ports=[{"containerPort": 80}], resources={"limits": {"cpu": "1"}})
    first = made.spec.containers[0]
    assert (first.imagePullPolicy, first.ports[0].protocol) == ("IfNotPresent", "TCP")
    assert first.resources.requests["cpu"].string == "1"
    assert (made.spec.restartPolicy, made.spec.terminationGracePeriodSeconds) == ("Always", 30)
    again = meta.copy_of(made)
    set_defaults(again)
    assert again == made
    assert container(image="reg:5000/a").spec.containers[0].imagePullPolicy == "Always"
    assert container(image="a@sha256:00").spec.containers[0].imagePullPolicy == "IfNotPresent"
    assert obj("Secret", stringData={"a": "x"}).data == {"a": b"x"}
