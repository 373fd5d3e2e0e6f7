"""A stock kubectl against the REST gateway."""

import json
import subprocess
from collections.abc import Callable

Kubectl = Callable[..., subprocess.CompletedProcess[str]]

MANIFEST = """
apiVersion: v1
kind: ReplicationController
metadata: {name: kubia}
spec:
  replicas: 3
  template:
    metadata: {labels: {app: kubia}}
    spec:
      containers: [{name: kubia, image: kubia, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: kubia}
spec: {selector: {app: kubia}, ports: [{port: 80, targetPort: 8080}], type: LoadBalancer}
"""


def test_it_sees_a_cluster(kubectl: Kubectl) -> None:
    assert "Server Version: v1." in kubectl("version").stdout
    assert "Active" in kubectl("get", "namespaces").stdout
    resources = kubectl("api-resources", "--no-headers").stdout
    assert "deployments" in resources and "networkpolicies" in resources
    assert "FIELDS" in kubectl("explain", "pod.spec.containers").stdout


def test_apply_creates_changes_and_leaves_alone(kubectl: Kubectl) -> None:
    assert "service/kubia created" in kubectl("apply", "-f", "-", stdin=MANIFEST).stdout
    changed = MANIFEST.replace("replicas: 3", "replicas: 5")
    done = kubectl("apply", "-f", "-", stdin=changed)
    assert "replicationcontroller/kubia configured" in done.stdout and "service/kubia unchanged" in done.stdout
    assert "warning" not in done.stderr.lower()
    columns = kubectl("get", "rc", "kubia", "--no-headers").stdout.split()
    assert columns[:4] == ["kubia", "5", "0", "0"]
    assert "<pending>" in kubectl("get", "svc", "kubia").stdout
    assert kubectl("diff", "-f", "-", stdin=changed).stdout == ""
    kubectl("scale", "rc", "kubia", "--replicas=2")
    assert kubectl("get", "rc", "kubia", "-o", "jsonpath={.spec.replicas}").stdout == "2"
    assert "app=kubia" in kubectl("describe", "rc", "kubia").stdout
    kubectl("delete", "-f", "-", stdin=MANIFEST)
    kubectl("get", "rc", "kubia", code=1)


def test_typed_commands_send_protobuf_and_work(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "web", "--image=kubia")
    kubectl("set", "image", "deployment/web", "kubia=kubia:2")
    assert (
        kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}").stdout == "kubia:2"
    )
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    kubectl("label", "configmap", "c", "x=y")
    kubectl("annotate", "configmap", "c", "note=hello")
    kubectl("patch", "configmap", "c", "--type=json", "-p", '[{"op":"replace","path":"/data/a","value":"z"}]')
    found = json.loads(kubectl("get", "configmap", "c", "-o", "json").stdout)
    assert (found["data"], found["metadata"]["labels"]) == ({"a": "z"}, {"x": "y"})
    kubectl("create", "secret", "generic", "s", "--from-literal=k=v")
    kubectl("create", "namespace", "blue")
    kubectl("delete", "namespace", "blue")
    kubectl("delete", "deployment/web", "configmap/c", "secret/s")


def test_pods_run_are_shown_and_go(kubectl: Kubectl) -> None:
    kubectl("run", "web", "--image=kubia", "--port=8080")
    assert kubectl("get", "pods", "--no-headers").stdout.split()[:4] == ["web", "0/1", "Pending", "0"]
    assert "web" in kubectl("get", "all").stdout
    assert "Containers:" in kubectl("describe", "pod", "web").stdout
    kubectl("wait", "--for=jsonpath={.status.phase}=Pending", "pod/web", "--timeout=10s")
    assert "deleted" in kubectl("delete", "pod", "web").stdout
    kubectl("wait", "--for=delete", "pod/web", "--timeout=10s")


def test_mistakes_are_told(kubectl: Kubectl) -> None:
    assert 'pods "nope" not found' in kubectl("get", "pod", "nope", code=1).stderr
    unknown = kubectl("create", "-f", "-", stdin=MANIFEST.replace("replicas", "replicsa"), code=1)
    assert 'unknown field "spec.replicsa"' in unknown.stderr
    kubectl("delete", "service", "kubia")
    invalid = kubectl("run", "Bad_Name", "--image=x", code=1)
    assert "metadata.name" in invalid.stderr or "Invalid value" in invalid.stderr
    assert "may not be deleted" in kubectl("delete", "namespace", "default", code=1).stderr
