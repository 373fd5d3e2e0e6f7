"""``describe`` against golden text."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from ctl import tabs
from ctl.describe.config import describe_config_map
from ctl.describe.generic import describe_generic, title
from ctl.describe.pod import describe_pod
from ctl.describe.service import describe_service
from ctl.describe.workload import describe_replicas
from ctl.output import neat

Manifest = Callable[[str], Any]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_a_pod(make_pod: Callable[..., Any], manifest: Manifest, now_s: float) -> None:
    pod = make_pod(
        '{phase: Running, podIP: 10.244.0.5, podIPs: [{ip: 10.244.0.5}], hostIP: 192.0.2.7, startTime: "CREATED", '
        "qosClass: Burstable, conditions: [{type: Ready, status: 'True'}], "
        "containerStatuses: [{name: kubia, ready: true, "
        'restartCount: 0, image: "", imageID: sha256:1, containerID: "knarr://1", '
        'state: {running: {startedAt: "CREATED"}}}]}',
        spec=", serviceAccountName: default, "
        "tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 300}]",
    )
    pod.spec.containers[0].resources.requests["cpu"].string = "100m"
    pod.spec.containers[0].ports.add(containerPort=8080, protocol="TCP")
    event = manifest("""
apiVersion: v1
kind: Event
metadata: {name: e}
involvedObject: {}
type: Normal
reason: Scheduled
source: {component: scheduler}
message: assigned
lastTimestamp: "CREATED"
""")
    assert (
        "\n" + tabs.layout(describe_pod(pod, [event], now_s))
        == """
Name:             kubia-x
Namespace:        default
Service Account:  default
Node:             node-1/192.0.2.7
Start Time:       Tue, 14 Nov 2023 22:10:00 +0000
Labels:           run=kubia
Annotations:      <none>
Status:           Running
IP:               10.244.0.5
IPs:
  IP:  10.244.0.5
Containers:
  kubia:
    Container ID:   knarr://1
    Image:          kubia
    Image ID:       sha256:1
    Port:           8080/TCP
    Host Port:      0/TCP
    State:          Running
      Started:      Tue, 14 Nov 2023 22:10:00 +0000
    Ready:          True
    Restart Count:  0
    Requests:
      cpu:        100m
    Environment:  <none>
    Mounts:       <none>
Conditions:
  Type           Status
  Ready          True\x20
Volumes:         <none>
QoS Class:       Burstable
Node-Selectors:  <none>
Tolerations:     a:NoExecute op=Exists for 300s
Events:
  Type    Reason     Age    From       Message
  ----    ------     ----   ----       -------
  Normal  Scheduled  3m20s  scheduler  assigned
"""
    )


def test_a_replication_controller(manifest: Manifest, make_pod: Callable[..., Any], now_s: float) -> None:
    rc = manifest("""
apiVersion: v1
kind: ReplicationController
metadata: {name: kubia, namespace: default, labels: {run: kubia}}
spec:
  replicas: 3
  selector: {run: kubia}
  template:
    metadata: {labels: {run: kubia}}
    spec: {containers: [{name: kubia, image: kubia, ports: [{containerPort: 8080, protocol: TCP}]}]}
status: {replicas: 2}
""")
    pods = [make_pod("{phase: Running}"), make_pod("{phase: Pending}")]
    assert (
        "\n" + tabs.layout(describe_replicas(rc, pods, [], now_s))
        == """
Name:         kubia
Namespace:    default
Selector:     run=kubia
Labels:       run=kubia
Annotations:  <none>
Replicas:     2 current / 3 desired
Pods Status:  1 Running / 1 Waiting / 0 Succeeded / 0 Failed
Pod Template:
  Labels:  run=kubia
  Containers:
   kubia:
    Image:         kubia
    Port:          8080/TCP
    Host Port:     0/TCP
    Environment:   <none>
    Mounts:        <none>
  Volumes:         <none>
  Node-Selectors:  <none>
  Tolerations:     <none>
Events:            <none>
"""
    )


def test_a_service(manifest: Manifest, now_s: float) -> None:
    service = manifest("""
apiVersion: v1
kind: Service
metadata: {name: kubia-http, namespace: default, labels: {run: kubia}}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.2
  clusterIPs: [10.96.0.2]
  ipFamilies: [IPv4]
  ipFamilyPolicy: SingleStack
  selector: {run: kubia}
  ports: [{port: 8080, targetPort: 8080, nodePort: 30123, protocol: TCP}]
  externalTrafficPolicy: Cluster
status: {loadBalancer: {ingress: [{ip: 10.98.0.1}]}}
""")
    endpoints = manifest("""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubia-http-x}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints:
- {addresses: [10.244.0.5], conditions: {ready: true}}
- {addresses: [10.244.0.6], conditions: {ready: false}}
""")
    assert (
        "\n" + tabs.layout(describe_service(service, [endpoints], [], now_s))
        == """
Name:                     kubia-http
Namespace:                default
Labels:                   run=kubia
Annotations:              <none>
Selector:                 run=kubia
Type:                     LoadBalancer
IP Family Policy:         SingleStack
IP Families:              IPv4
IP:                       10.96.0.2
IPs:                      10.96.0.2
LoadBalancer Ingress:     10.98.0.1
Port:                     <unset>  8080/TCP
TargetPort:               8080/TCP
NodePort:                 <unset>  30123/TCP
Endpoints:                10.244.0.5:8080
Session Affinity:         None
External Traffic Policy:  Cluster
Events:                   <none>
"""
    )


def test_a_config_map_shows_its_entries(manifest: Manifest, now_s: float) -> None:
    config = manifest("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: default}\ndata: {a.b: c}")
    assert tabs.layout(describe_config_map(config, [], now_s)) == (
        "Name:         x\nNamespace:    default\nLabels:       <none>\nAnnotations:  <none>\n\n"
        "Data\n====\na.b:\n----\nc\n\n\nBinaryData\n====\n\nEvents:  <none>\n"
    )


def test_any_other_kind_shows_its_fields(manifest: Manifest, now_s: float) -> None:
    role = manifest(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: x, namespace: default, uid: u}\n"
        "rules: [{verbs: [get], resources: [pods]}]"
    )
    text = tabs.layout(describe_generic(role, neat(role), None, now_s))
    assert "Kind:         Role\nMetadata:\n" in text and "  UID:" in text
    assert "Rules:\n  Resources:\n    pods\n  Verbs:\n    get\n" in text


@pytest.mark.parametrize(
    ("key", "name"),
    [("podCIDR", "Pod CIDR"), ("apiVersion", "API Version"), ("hostIPs", "Host I Ps"), ("app.io/x", "app.io/x")],
)
def test_field_names_are_spelled_out(key: str, name: str) -> None:
    assert title(key) == name
