"""From specs to CRI messages: environment, resources, security, DNS, mounts."""

from typing import Any

import pytest

from control.api.codec import from_json
from control.kubelet import qos
from control.kubelet.config import (
    DNS,
    Inputs,
    Node,
    container_config,
    dns_config,
    hostname_of,
    parse_resolv_conf,
    sandbox_config,
)
from control.kubelet.env import ConfigError, Sources, environment, expand
from protos.cri import runtime_pb2 as cri
from protos.k8s import core_v1_pb2 as core

NODE = Node("n1", "192.0.2.1", "/logs", memory_bytes=8 << 30)


def inputs(**more: Any) -> Inputs:
    return Inputs(**{"environment": {}, "volumes": {}, "image_ref": "sha256:abc", **more})


def service(name: str, ip: str = "10.96.0.7", namespace: str = "default", *ports: tuple[str, int]) -> core.Service:
    made = core.Service(metadata={"name": name, "namespace": namespace})
    made.spec.clusterIP = ip
    for port_name, number in ports or (("", 80),):
        made.spec.ports.add(name=port_name, port=number, protocol="TCP")
    return made


def test_expansion() -> None:
    variables = {"A": "1", "B": b"2"}
    assert expand("$(A)-$(B)-$(C)-$$(A)-$", variables) == "1-2-$(C)-$(A)-$"


def test_environment_in_order_with_references(pod: Any) -> None:
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "BOTH", "value": "$(NAME)/$(FROM_MAP)"},
        {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "k", "optional": True}}},
    ]
    spec = {
        "name": "main",
        "image": "i",
        "env": env,
        "envFrom": [{"prefix": "FROM_", "configMapRef": {"name": "c"}}],
        "resources": {"limits": {"cpu": "1500m"}},
    }
    web = pod(spec)
    sources = Sources(
        config_maps={"c": core.ConfigMap(data={"MAP": "m"})},
        secrets={"s": core.Secret(data={"k": b"\xff"})},
        pod_ips=("10.0.0.5",),
    )
    found = environment(web, web.spec.containers[0], sources)
    assert found == {
        "FROM_MAP": "m", "NAME": "web", "IP": "10.0.0.5", "CPU": "1500", "KEY": b"\xff", "BOTH": "web/m",
    }  # fmt: skip


def test_service_variables(pod: Any) -> None:
    web = pod()
    services = [
        service("kubernetes", "10.96.0.1", "default", ("https", 443)),
        service("my-db", "10.96.0.7", "default", ("", 5432)),
        service("other", "10.96.0.8", "elsewhere"),
        service("headless", "None"),
    ]
    found = environment(web, web.spec.containers[0], Sources(services=services))
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert found["MY_DB_PORT"] == "tcp://10.96.0.7:5432"
    assert found["MY_DB_PORT_5432_TCP_ADDR"] == "10.96.0.7"
    assert not any(name.startswith(("OTHER", "HEADLESS")) for name in found)
    web.spec.enableServiceLinks = False
    lean = environment(web, web.spec.containers[0], Sources(services=services))
    assert "KUBERNETES_SERVICE_HOST" in lean and "MY_DB_PORT" not in lean


def test_missing_objects_are_named(pod: Any) -> None:
    web = pod({"name": "main", "image": "i", "envFrom": [{"secretRef": {"name": "nope"}}]})
    with pytest.raises(ConfigError, match='secret "nope" not found'):
        environment(web, web.spec.containers[0], Sources())


def test_qos_classes(pod: Any) -> None:
    def of(**resources: Any) -> str:
        return qos.qos_class(pod({"name": "main", "image": "i", "resources": resources}))

    both = {"cpu": "1", "memory": "1Gi"}
    assert of() == "BestEffort"
    assert of(limits=both) == of(limits=both, requests={"cpu": "1000m"}) == "Guaranteed"
    assert of(limits=both, requests={"cpu": "500m"}) == of(requests={"cpu": "1"}) == "Burstable"


def test_resources_become_kernel_numbers(pod: Any) -> None:
    resources = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "500m", "memory": "2Gi"}}
    web = pod({"name": "main", "image": "i", "resources": resources})
    found = qos.container_resources(web, web.spec.containers[0], 8 << 30)
    assert (found.cpu_shares, found.cpu_quota, found.cpu_period) == (256, 50_000, 100_000)
    assert (found.memory_limit_in_bytes, found.oom_score_adj) == (2 << 30, 875)
    assert qos.cgroup_parent(web) == "/kubepods/burstable/podu1"
    assert qos.cgroup_parent(web, systemd=True) == "kubepods-burstable-podu1.slice"


def test_sandbox(pod: Any) -> None:
    web = pod(
        {"name": "main", "image": "i", "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}]},
        securityContext={"sysctls": [{"name": "net.core.somaxconn", "value": "9"}], "fsGroup": 5},
    )
    config = sandbox_config(web, 3, NODE)
    meta = config.metadata
    assert (meta.name, meta.namespace, meta.uid, meta.attempt) == ("web", "default", "u1", 3)
    assert config.log_directory == "/logs/default_web_u1"
    (mapping,) = config.port_mappings
    assert (mapping.protocol, mapping.container_port, mapping.host_port) == (cri.UDP, 80, 8080)
    assert dict(config.linux.sysctls) == {"net.core.somaxconn": "9"}
    assert config.linux.cgroup_parent == "/kubepods/besteffort/podu1"
    host = sandbox_config(pod(hostNetwork=True), 0, NODE)
    assert host.linux.security_context.namespace_options.network == cri.NODE
    assert (host.hostname, len(host.port_mappings)) == ("", 0)


def test_container_security_comes_from_container_then_pod_then_image(pod: Any) -> None:
    web = pod(
        {"name": "main", "image": "i", "securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsUser": 7}},
        {"name": "other", "image": "i", "securityContext": {"privileged": True}},
        securityContext={"runAsUser": 5, "runAsGroup": 6, "seccompProfile": {"type": "RuntimeDefault"}},
    )
    first, second = (container_config(web, spec, 0, 0.0, NODE, inputs()) for spec in web.spec.containers)
    one, two = first.linux.security_context, second.linux.security_context
    assert (one.run_as_user.value, one.run_as_group.value, list(one.capabilities.drop_capabilities)) == (7, 6, ["ALL"])
    assert one.seccomp.profile_type == cri.SecurityProfile.RuntimeDefault
    assert "/proc/kcore" in one.masked_paths
    assert (two.run_as_user.value, two.privileged, len(two.masked_paths)) == (5, True, 0)
    plain = pod()
    named = container_config(plain, plain.spec.containers[0], 0, 0.0, NODE, inputs(image_user="www-data"))
    assert named.linux.security_context.run_as_username == "www-data"


def test_run_as_non_root_is_verified(pod: Any) -> None:
    web = pod({"name": "main", "image": "i", "securityContext": {"runAsNonRoot": True}})
    for user, message in ((None, "will run as root"), ("www-data", "non-numeric user")):
        with pytest.raises(ConfigError, match=message):
            container_config(web, web.spec.containers[0], 0, 0.0, NODE, inputs(image_user=user))
    container_config(web, web.spec.containers[0], 0, 0.0, NODE, inputs(image_user=1000))


def test_container_remembers_what_the_kubelet_must_know(pod: Any) -> None:
    web = pod()
    config = container_config(web, web.spec.containers[0], 4, 80.0, NODE, inputs(message_path="/m"))
    assert config.metadata.attempt == 4
    assert config.log_path == "main/4.log"
    assert config.annotations["knarr.dev/restart-backoff-seconds"] == "80.0"
    assert config.annotations["io.kubernetes.container.restartCount"] == "4"
    assert config.labels["io.kubernetes.pod.uid"] == "u1"


def test_mounts(pod: Any) -> None:
    mounts = [{"name": "data", "mountPath": "/data", "subPath": "a/b", "readOnly": True}]
    web = pod({"name": "main", "image": "i", "volumeMounts": mounts})
    config = container_config(web, web.spec.containers[0], 0, 0.0, NODE, inputs(volumes={"data": "/v"}))
    (mount,) = config.mounts
    assert (mount.container_path, mount.host_path, mount.readonly) == ("/data", "/v/a/b", True)
    web.spec.containers[0].volumeMounts[0].subPath = "../../etc"
    with pytest.raises(ConfigError, match="stay inside the volume"):
        container_config(web, web.spec.containers[0], 0, 0.0, NODE, inputs(volumes={"data": "/v"}))


def test_dns_policies(pod: Any) -> None:
    node = parse_resolv_conf("# c\nnameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:2\n")
    assert node == DNS(("192.0.2.53",), ("a.example", "b.example"), ("ndots:2",))
    cluster = DNS(node.servers, node.searches, node.options, ("10.96.0.10",))
    first = dns_config(pod(), cluster)
    assert list(first.servers) == ["10.96.0.10"]
    assert list(first.searches)[:2] == ["default.svc.cluster.local", "svc.cluster.local"]
    assert list(dns_config(pod(dnsPolicy="Default"), cluster).servers) == ["192.0.2.53"]
    assert list(dns_config(pod(), node).servers) == ["192.0.2.53"]
    own = pod(dnsPolicy="None", dnsConfig={"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "1"}]})
    config = dns_config(own, cluster)
    assert (list(config.servers), list(config.options)) == (["1.1.1.1"], ["ndots:1"])


def test_hostname_is_cut_to_what_the_kernel_takes() -> None:
    made = from_json({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a" * 62 + "-" + "b" * 20}})
    assert hostname_of(made) == "a" * 62
