"""What ``run`` and ``expose`` make."""

import pytest

from control.api.codec import to_json
from ctl.errors import CtlError
from ctl.generators import container, parse_pairs, pod, replication_controller, service
from protos.k8s import apps_v1_pb2 as apps
from protos.k8s import core_v1_pb2 as core


def test_run_makes_a_replication_controller_that_selects_its_pods_by_run() -> None:
    made = to_json(replication_controller("kubia", container("kubia", "luksa/kubia", 8080), 3))
    assert made["spec"]["selector"] == {"run": "kubia"}
    assert made["spec"]["template"]["metadata"]["labels"] == {"run": "kubia"}
    assert made["metadata"]["labels"] == {"run": "kubia"}
    assert made["spec"]["replicas"] == 3
    [only] = made["spec"]["template"]["spec"]["containers"]
    assert (only["name"], only["image"]) == ("kubia", "luksa/kubia")
    assert only["ports"][0]["containerPort"] == 8080


def test_run_with_restart_never_makes_a_pod() -> None:
    made = pod("once", container("once", "python:host", arguments=["-c", "print(1)"]), "Never")
    assert made.spec.restartPolicy == "Never"
    assert list(made.spec.containers[0].args) == ["-c", "print(1)"]
    assert dict(made.metadata.labels) == {"run": "once"}


def test_command_replaces_the_entrypoint() -> None:
    made = container("x", "y", arguments=["sh"], as_command=True)
    assert list(made.command) == ["sh"] and not made.args


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(CtlError, match=f"--port {port} is out of range: 1 to 65535"):
        container("x", "y", port)


@pytest.mark.parametrize("name", ["Kubia", "a_b", "-a", "a-", "", "a" * 64, "ä"])
def test_a_name_that_is_not_rfc_1123_is_refused(name: str) -> None:
    with pytest.raises(CtlError, match="RFC 1123"):
        replication_controller(name, core.Container(name="x", image="y"), 1)


def test_a_service_name_may_not_start_with_a_digit() -> None:
    with pytest.raises(CtlError, match="starting with a lower case letter"):
        service(replication_controller("kubia", container("kubia", "x", 80), 1), "1st")


def test_expose_takes_ports_selector_and_labels_from_the_controller() -> None:
    controller = replication_controller("kubia", container("kubia", "x", 8080), 3)
    made = service(controller, "kubia-http", "LoadBalancer")
    assert made.spec.type == "LoadBalancer"
    assert dict(made.spec.selector) == {"run": "kubia"}
    assert dict(made.metadata.labels) == {"run": "kubia"}
    [port] = made.spec.ports
    assert (port.port, port.targetPort.intVal, port.protocol) == (8080, 8080, "TCP")


def test_expose_can_map_a_port_to_a_named_one() -> None:
    controller = replication_controller("kubia", container("kubia", "x", 8080), 3)
    made = service(controller, "web", ports=[80], target_port="http")
    assert made.spec.ports[0].port == 80
    assert made.spec.ports[0].targetPort.strVal == "http"


def test_expose_of_several_ports_names_them() -> None:
    run = container("kubia", "x", 8080)
    run.ports.add(containerPort=9090)
    made = service(replication_controller("kubia", run, 1), "web")
    assert [(port.name, port.port) for port in made.spec.ports] == [("port-1", 8080), ("port-2", 9090)]


def test_expose_reads_a_deployments_label_selector() -> None:
    deployment = apps.Deployment()
    deployment.spec.selector.matchLabels["app"] = "web"
    made = service(deployment, "web", ports=[80])
    assert dict(made.spec.selector) == {"app": "web"}


def test_expose_without_any_port_is_refused() -> None:
    with pytest.raises(CtlError, match="couldn't find port"):
        service(replication_controller("kubia", container("kubia", "x"), 1), "web")


def test_expose_of_a_kind_without_selector_is_refused() -> None:
    with pytest.raises(CtlError, match="cannot expose"):
        service(core.ConfigMap(), "web", ports=[80])


def test_pairs_are_read_from_repeated_and_comma_separated_flags() -> None:
    assert parse_pairs(["a=1,b=2", "c="], "--labels") == {"a": "1", "b": "2", "c": ""}
    with pytest.raises(CtlError, match="KEY=VALUE"):
        parse_pairs(["a"], "--labels")
