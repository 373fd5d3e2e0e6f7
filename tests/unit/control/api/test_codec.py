"""JSON and YAML of the Kubernetes objects: facts of the public API, and a round trip over every message."""

import random
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from control.api import codec
from control.api.decode import class_of
from control.api.encode import encode
from control.api.fields import fields_of
from control.api.kinds import KINDS, UnknownKind, by_kind, by_name
from protos.k8s import core_v1_pb2 as core
from protos.k8s import meta_v1_pb2 as meta

MESSAGES = sorted({kind.message.DESCRIPTOR.full_name for kind in KINDS})


def fill(message: Any, rng: random.Random, depth: int = 0) -> Any:
    """Random but valid values in a random half of the fields."""
    special = fields_of(message.DESCRIPTOR).special
    if special:
        return fill_special(message, special, rng)
    for field in message.DESCRIPTOR.fields:
        if rng.random() < (0.5 if depth < 3 else 0.15) and depth < 8:
            fill_field(message, field, rng, depth)
    return message


def fill_special(message: Any, special: str, rng: random.Random) -> Any:
    number = rng.randrange(1, 10**9)
    if special == "time":
        message.seconds = number
    elif special == "microtime":
        message.seconds, message.nanos = number, rng.randrange(10**6) * 1000
    elif special == "duration":
        message.duration = number
    elif special == "quantity":
        message.string = rng.choice(["100m", "1", "2Gi", "1500m", "12e6", "0"])
    elif special == "intorstring":
        if rng.random() < 0.5:
            message.type, message.intVal = 0, number
        else:
            message.type, message.strVal = 1, "http"
    elif special == "fieldsv1":
        message.Raw = b'{"f:a":{}}'
    elif special == "verbs":
        message.items.append("get")
    else:
        message.raw = b'{"a":[1,"x"]}'
    return message


def scalar(kind: int, rng: random.Random) -> Any:
    return {
        FieldDescriptor.TYPE_STRING: lambda: rng.choice(["", "a", "ü\n", "true", "1"]),
        FieldDescriptor.TYPE_BOOL: lambda: rng.random() < 0.5,
        FieldDescriptor.TYPE_INT32: lambda: rng.choice([0, 1, -1, 2**31 - 1]),
        FieldDescriptor.TYPE_INT64: lambda: rng.choice([0, 1, -1, 2**63 - 1]),
        FieldDescriptor.TYPE_DOUBLE: lambda: rng.choice([0.0, 0.5]),
        FieldDescriptor.TYPE_BYTES: lambda: rng.choice([b"", b"\0\xff"]),
    }[kind]()


def fill_field(message: Any, field: Any, rng: random.Random, depth: int) -> None:
    target = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        if value.message_type is not None:
            fill(target["key"], rng, depth + 1)
        else:
            target["key"] = scalar(value.type, rng)
    elif field.is_repeated:
        for _ in range(rng.randrange(1, 3)):
            if field.message_type is not None:
                fill(target.add(), rng, depth + 1)
            else:
                target.append(scalar(field.type, rng))
    elif field.message_type is not None:
        target.SetInParent()
        fill(target, rng, depth + 1)
    else:
        setattr(message, field.name, scalar(field.type, rng))


@pytest.mark.parametrize("name", MESSAGES)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_json_and_back_means_the_same(name: str, seed: int) -> None:
    message = fill(class_of(name)(), random.Random(seed))
    data = codec.to_json(message)
    again = codec.from_json(data)
    assert codec.to_json(again) == data
    assert codec.from_envelope(codec.to_envelope(message)) == message


def pod_json(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [], **spec}}


def errors_of(data: Any, message: Any = None) -> dict[str, str]:
    with pytest.raises(codec.DecodeError) as caught:
        codec.from_json(data, message)
    return dict(caught.value.errors)


def test_every_fault_is_told_at_once_with_its_path() -> None:
    data = pod_json(
        containers=[{"name": "c", "imagePullPolcy": "Always", "ports": [{"containerPort": "80"}], "args": "x"}],
        volumes=[{"name": "v", "configMap": {"nam": "x"}}],
        restartpolicy="Never",
        nodeSelector={"disk": 1},
        terminationGracePeriodSeconds=2**70,
    )
    assert errors_of(data) == {
        "spec.containers[0].imagePullPolcy": "unknown field, did you mean imagePullPolicy?",
        "spec.containers[0].ports[0].containerPort": 'expected a whole number, got the text "80"',
        "spec.containers[0].args": 'expected a list, got the text "x"',
        "spec.volumes[0].configMap.nam": "unknown field, did you mean name?",
        "spec.restartpolicy": "unknown field, did you mean restartPolicy?",
        "spec.nodeSelector[disk]": 'expected text, got the number 1; quote it: "1"',
        "spec.terminationGracePeriodSeconds": f"{2**70} is out of range: it must be at least {-(2**63)} and at most "
        f"{2**63 - 1}",
    }


def test_a_document_that_names_no_known_type_says_what_to_write() -> None:
    assert errors_of({}) == {
        "apiVersion": "required: say which apiVersion, for example v1",
        "kind": "required: say which kind, for example Pod",
    }
    assert "use apiVersion apps/v1" in errors_of({"apiVersion": "v1", "kind": "Deployment"})["kind"]
    assert "did you mean Pod?" in errors_of({"apiVersion": "v1", "kind": "Podd"})["kind"]
    assert "got a list" in errors_of([])[""]
    assert errors_of({"apiVersion": "v1", "kind": "Node"}, core.Pod) == {
        "kind": 'expected Pod here, got the text "Node"'
    }


def test_inlined_members_appear_in_their_parent() -> None:
    data = pod_json(
        containers=[
            {
                "name": "c",
                "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3},
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            }
        ],
        volumes=[{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "c"}}],
    )
    pod = codec.from_json(data)
    assert pod.spec.volumes[0].volumeSource.HasField("emptyDir")
    assert pod.spec.volumes[1].volumeSource.configMap.localObjectReference.name == "c"
    assert pod.spec.containers[0].livenessProbe.handler.httpGet.port.strVal == "http"
    told = codec.to_json(pod)["spec"]
    assert told["volumes"] == [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "c"}}]
    assert told["containers"][0]["livenessProbe"] == {"httpGet": {"port": "http"}, "periodSeconds": 3}
    assert told["containers"][0]["env"] == data["spec"]["containers"][0]["env"]


def test_values_that_are_one_json_value_each() -> None:
    data = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l", "creationTimestamp": "2026-01-31T13:00:00+01:00"},
        "spec": {"renewTime": "2026-01-31T12:00:00.123456Z"},
    }
    lease = codec.from_json(data)
    told = codec.to_json(lease)
    assert told["metadata"]["creationTimestamp"] == "2026-01-31T12:00:00Z"
    assert told["spec"]["renewTime"] == "2026-01-31T12:00:00.123456Z"
    amounts = {"cpu": 1.5, "memory": "1024Mi", "nvidia.com/gpu": 2}
    pod = codec.from_json(pod_json(containers=[{"name": "c", "resources": {"limits": amounts}}]))
    assert codec.to_json(pod)["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "1500m",
        "memory": "1Gi",
        "nvidia.com/gpu": "2",
    }
    assert "time" in errors_of({**data, "spec": {"renewTime": "yesterday"}})["spec.renewTime"]


def test_what_go_always_writes_is_written_and_null_counts_as_absent() -> None:
    told = codec.to_json(core.Pod())
    assert told == {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": None}, "status": {}}
    status = core.ContainerStatus(name="c")
    assert {"name", "ready", "restartCount", "image", "imageID", "state", "lastState"} <= set(encode(status))
    condition = encode(core.PodCondition(type="Ready", status="True"))
    assert condition == {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}
    assert codec.from_json({**told, "metadata": None, "status": None}) == core.Pod()
    assert codec.to_json(core.PodList())["items"] == []


def test_a_given_zero_differs_from_nothing_where_go_has_a_pointer() -> None:
    spec = codec.to_json(codec.from_json(pod_json(terminationGracePeriodSeconds=0, hostNetwork=False)))["spec"]
    assert spec["terminationGracePeriodSeconds"] == 0 and "hostNetwork" not in spec


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    text = """
apiVersion: v1
kind: ConfigMap
metadata: {name: a, annotations: {at: 2026-01-31T12:00:00Z, ratio: 1:30}}
---
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Secret, metadata: {name: b}, data: {k: aGk=}}
- {apiVersion: v1, kind: Pod, metadata: {name: c}, spec: {containers: [], volumes: [
    {name: v, secret: {defaultMode: 0644}}]}}
"""
    config, secret, pod = codec.from_yaml_documents(text)
    assert dict(config.metadata.annotations) == {"at": "2026-01-31T12:00:00Z", "ratio": "1:30"}
    assert secret.data["k"] == b"hi"
    assert pod.spec.volumes[0].volumeSource.secret.defaultMode == 0o644
    assert codec.from_yaml_documents(codec.to_yaml(pod)) == [pod]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: b: c", "not YAML"),
        ("apiVersion: v1\nkind: Pod\nkind: Node\n", r"kind: duplicate field \(line 3\)"),
        ("apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Nod\n", "document 2: kind: there is no kind 'Nod'"),
    ],
)
def test_a_bad_manifest_says_where(text: str, told: str) -> None:
    with pytest.raises(codec.DecodeError, match=told):
        codec.from_yaml_documents(text)


def test_bad_json_and_bad_envelopes_are_refused() -> None:
    with pytest.raises(codec.DecodeError, match="b: duplicate field"):
        codec.parse_json('{"a": {"b": 1, "b": 2}}')
    with pytest.raises(codec.DecodeError, match="not JSON"):
        codec.parse_json("{")
    for data in (b"", b"k8s\0\xff\xff", b"{}"):
        with pytest.raises(codec.DecodeError):
            codec.from_envelope(data)


def test_the_envelope_is_kubernetes_own() -> None:
    data = codec.to_envelope(core.Pod(metadata=meta.ObjectMeta(name="x")))
    assert data.startswith(b"k8s\0\n\t\n\x02v1\x12\x03Pod\x12")


def test_kinds_are_found_by_every_name() -> None:
    for name in ("pod", "pods", "po", "Pods"):
        assert by_name(name).kind == "Pod"
    assert by_name("deployments.apps") is by_kind("apps/v1", "Deployment")
    with pytest.raises(UnknownKind, match="did you mean"):
        by_name("deploymnt")
    assert len({kind.plural for kind in KINDS}) == len(KINDS)
    assert by_name("nodes").registry_prefix == "/registry/minions/"
    assert by_name("svc").registry_prefix == "/registry/services/specs/"
