"""Tables against golden text: kubectl's columns and cells."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from control.api.kinds import KINDS, by_message
from control.api.printers import printer_of
from control.api.printers.pods import status_of
from ctl.table import render

Manifest = Callable[[str], Any]


def table(objects: Sequence[Any], now_s: float, wide: bool = False) -> str:
    printer = printer_of(by_message(objects[0]))
    return "\n" + render(printer.header(wide), [printer.row(obj, now_s, wide) for obj in objects])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.resource)
def test_every_kind_prints_a_cell_per_column_even_when_empty(kind: Any) -> None:
    printer = printer_of(kind)
    for wide in (False, True):
        row = printer.row(kind.message(), 0.0, wide)
        assert len(row) == len(printer.header(wide))
        assert all(type(cell) is str for cell in row)


def terminated(code: int, reason: str = "", signal: int = 0) -> str:
    return f"terminated: {{exitCode: {code}, reason: '{reason}', signal: {signal}}}"


RUNNING = (
    '{name: kubia, ready: true, state: {running: {startedAt: "CREATED"}}, image: "", imageID: "", restartCount: 0}'
)


def test_pods_wide(make_pod: Callable[..., Any], now_s: float) -> None:
    pod = make_pod(f"{{phase: Running, podIP: 10.244.0.5, containerStatuses: [{RUNNING}]}}")
    assert (
        table([pod], now_s, wide=True)
        == """
NAME      READY   STATUS    RESTARTS   AGE     IP           NODE     NOMINATED NODE   READINESS GATES
kubia-x   1/1     Running   0          3m20s   10.244.0.5   node-1   <none>           <none>
"""
    )


def one_status(state: str, ready: bool = False, name: str = "kubia") -> str:
    return f"{{name: {name}, ready: {str(ready).lower()}, state: {{{state}}}, restartCount: 0, image: '', imageID: ''}}"


def status(phase: str, *containers: str, more: str = "") -> str:
    return f"{{phase: {phase}, containerStatuses: [{', '.join(containers)}]{more}}}"


NOT_READY = ", conditions: [{type: Ready, status: 'False'}]"
GATED = ", conditions: [{type: PodScheduled, status: 'False', reason: SchedulingGated}]"


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (status("Pending"), "Pending"),
        (status("Running", one_status("running: {}", ready=True)), "Running"),
        (status("Pending", one_status("waiting: {reason: ImagePullBackOff}")), "ImagePullBackOff"),
        (status("Running", one_status("waiting: {reason: CrashLoopBackOff}")), "CrashLoopBackOff"),
        (status("Succeeded", one_status(terminated(0, "Completed"))), "Completed"),
        (status("Failed", one_status(terminated(3))), "ExitCode:3"),
        (status("Failed", one_status(terminated(137, signal=9))), "Signal:9"),
        (status("Failed", more=", reason: Evicted"), "Evicted"),
        (
            status(
                "Running",
                one_status(terminated(0, "Completed")),
                one_status("running: {}", True, "b"),
                more=NOT_READY,
            ),
            "NotReady",
        ),
        (status("Pending", more=GATED), "SchedulingGated"),
    ],
)
def test_a_pods_status_is_the_word_kubectl_shows(make_pod: Callable[..., Any], found: str, word: str) -> None:
    assert status_of(make_pod(found)) == word


@pytest.mark.parametrize(
    ("states", "word"),
    [
        (["waiting: {reason: PodInitializing}", "waiting: {reason: PodInitializing}"], "Init:0/2"),
        ([terminated(0, "Completed"), "running: {}"], "Init:1/2"),
        ([terminated(1, "Error"), "waiting: {}"], "Init:Error"),
        ([terminated(1), "waiting: {}"], "Init:ExitCode:1"),
        (["waiting: {reason: CrashLoopBackOff}", "waiting: {}"], "Init:CrashLoopBackOff"),
    ],
)
def test_init_containers_show_until_they_are_through(
    make_pod: Callable[..., Any], states: list[str], word: str
) -> None:
    statuses = ", ".join(one_status(state, name=name) for state, name in zip(states, "ab", strict=True))
    inits = ", initContainers: [{name: a, image: x}, {name: b, image: x}]"
    assert status_of(make_pod(f"{{phase: Pending, initContainerStatuses: [{statuses}]}}", spec=inits)) == word


def test_a_pod_being_deleted_is_terminating(make_pod: Callable[..., Any]) -> None:
    assert status_of(make_pod("{phase: Running}", meta=', deletionTimestamp: "CREATED"')) == "Terminating"


def test_restarts_say_when_the_last_one_was(make_pod: Callable[..., Any], now_s: float) -> None:
    pod = make_pod(
        "{phase: Running, containerStatuses: [{name: kubia, ready: true, restartCount: 3, image: '', imageID: '', "
        'state: {running: {}}, lastState: {terminated: {exitCode: 1, finishedAt: "CREATED"}}}]}'
    )
    assert "3 (3m20s ago)" in table([pod], now_s)


def test_replication_controllers_wide(manifest: Manifest, now_s: float) -> None:
    rc = manifest("""
apiVersion: v1
kind: ReplicationController
metadata: {name: kubia, creationTimestamp: "CREATED"}
spec:
  replicas: 3
  selector: {run: kubia}
  template:
    metadata: {labels: {run: kubia}}
    spec: {containers: [{name: kubia, image: "127.0.0.1:5000/kubia"}]}
status: {replicas: 3, readyReplicas: 2}
""")
    assert (
        table([rc], now_s, wide=True)
        == """
NAME    DESIRED   CURRENT   READY   AGE     CONTAINERS   IMAGES                 SELECTOR
kubia   3         3         2       3m20s   kubia        127.0.0.1:5000/kubia   run=kubia
"""
    )


def test_services(manifest: Manifest, now_s: float) -> None:
    head = 'apiVersion: v1\nkind: Service\nmetadata: {name: %s, creationTimestamp: "CREATED"}\n'
    cluster = manifest(head % "kubernetes" + "spec: {type: ClusterIP, clusterIP: 10.96.0.1, ports: [{port: 443}]}")
    pending = manifest(
        head % "waits" + "spec: {type: LoadBalancer, clusterIP: 10.96.0.9, ports: [{port: 80, nodePort: 30080}]}"
    )
    served = manifest(
        head % "kubia-http"
        + "spec: {type: LoadBalancer, clusterIP: 10.96.0.2,"
        + " ports: [{port: 80, nodePort: 30081}, {port: 53, protocol: UDP}]}\n"
        + "status: {loadBalancer: {ingress: [{ip: 10.98.0.1}]}}"
    )
    headless = manifest(head % "db" + "spec: {type: ClusterIP, clusterIP: None}")
    assert (
        table([cluster, pending, served, headless], now_s)
        == """
NAME         TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)               AGE
kubernetes   ClusterIP      10.96.0.1    <none>        443/TCP               3m20s
waits        LoadBalancer   10.96.0.9    <pending>     80:30080/TCP          3m20s
kubia-http   LoadBalancer   10.96.0.2    10.98.0.1     80:30081/TCP,53/UDP   3m20s
db           ClusterIP      None         <none>        <none>                3m20s
"""
    )


def test_nodes(manifest: Manifest, now_s: float) -> None:
    node = manifest("""
apiVersion: v1
kind: Node
metadata:
  name: node-1
  creationTimestamp: "CREATED"
  labels: {node-role.kubernetes.io/worker: "", node-role.kubernetes.io/control-plane: ""}
spec: {unschedulable: true}
status:
  conditions: [{type: Ready, status: "True"}]
  addresses: [{type: InternalIP, address: 192.0.2.7}, {type: Hostname, address: node-1}]
  nodeInfo: {kubeletVersion: v1.36.0, osImage: Debian, kernelVersion: "6.18", containerRuntimeVersion: "knarr://0.1"}
""")
    assert table([node], now_s, wide=True) == (
        "\nNAME     STATUS                     ROLES                  AGE     VERSION   INTERNAL-IP   EXTERNAL-IP   "
        "OS-IMAGE   KERNEL-VERSION   CONTAINER-RUNTIME\n"
        "node-1   Ready,SchedulingDisabled   control-plane,worker   3m20s   v1.36.0   192.0.2.7     <none>        "
        "Debian     6.18             knarr://0.1\n"
    )


def test_a_node_nobody_heard_of_is_not_ready(manifest: Manifest, now_s: float) -> None:
    node = manifest(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nstatus: {conditions: [{type: Ready, status: Unknown}]}"
    )
    assert "NotReady" in table([node], now_s)


def test_endpoints_show_three_addresses(manifest: Manifest, now_s: float) -> None:
    endpoints = manifest("""
apiVersion: v1
kind: Endpoints
metadata: {name: kubia, creationTimestamp: "CREATED"}
subsets:
- addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}, {ip: 10.0.0.3}, {ip: 10.0.0.4}]
  ports: [{port: 8080}]
""")
    assert table([endpoints], now_s).splitlines()[2] == (
        "kubia   10.0.0.1:8080,10.0.0.2:8080,10.0.0.3:8080 + 1 more...   3m20s"
    )


def test_deployments(manifest: Manifest, now_s: float) -> None:
    deployment = manifest("""
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, creationTimestamp: "CREATED"}
spec:
  replicas: 3
  selector: {matchExpressions: [{key: app, operator: In, values: [b, a]}]}
  template: {spec: {containers: [{name: c, image: i}]}}
status: {replicas: 3, readyReplicas: 2, updatedReplicas: 3, availableReplicas: 2}
""")
    assert (
        table([deployment], now_s, wide=True)
        == """
NAME   READY   UP-TO-DATE   AVAILABLE   AGE     CONTAINERS   IMAGES   SELECTOR
web    2/3     3            2           3m20s   c            i        app in (a,b)
"""
    )


def test_events(manifest: Manifest, now_s: float) -> None:
    event = manifest("""
apiVersion: v1
kind: Event
metadata: {name: e, namespace: default}
involvedObject: {kind: Pod, name: kubia-x}
type: Normal
reason: Scheduled
message: "Successfully assigned\\n"
firstTimestamp: "CREATED"
lastTimestamp: "CREATED"
""")
    assert (
        table([event], now_s)
        == """
LAST SEEN   TYPE     REASON      OBJECT        MESSAGE
3m20s       Normal   Scheduled   pod/kubia-x   Successfully assigned
"""
    )


def test_config_maps_secrets_and_namespaces(manifest: Manifest, now_s: float) -> None:
    head = 'apiVersion: v1\nkind: %s\nmetadata: {name: x, creationTimestamp: "CREATED"}\n'
    assert (
        table([manifest(head % "ConfigMap" + "data: {a: b, c: d}")], now_s)
        == "\nNAME   DATA   AGE\nx      2      3m20s\n"
    )
    assert table([manifest(head % "Secret" + "type: Opaque\ndata: {a: Yg==}")], now_s) == (
        "\nNAME   TYPE     DATA   AGE\nx      Opaque   1      3m20s\n"
    )
    assert table([manifest(head % "Namespace" + "status: {phase: Active}")], now_s) == (
        "\nNAME   STATUS   AGE\nx      Active   3m20s\n"
    )
