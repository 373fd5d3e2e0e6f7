"""Node selectors and node affinity, required and preferred. Pure."""

from collections.abc import Mapping

from control.api.selectors import node_selector_matches
from protos.k8s import core_v1_pb2 as core


def required_fits(pod: core.Pod, labels: Mapping[str, str], name: str) -> bool:
    """True if the node satisfies the pod's nodeSelector and its required node affinity."""
    if any(labels.get(key) != value for key, value in pod.spec.nodeSelector.items()):
        return False
    if not pod.spec.HasField("affinity"):
        return True
    affinity = pod.spec.affinity.nodeAffinity
    if not affinity.HasField("requiredDuringSchedulingIgnoredDuringExecution"):
        return True
    required = affinity.requiredDuringSchedulingIgnoredDuringExecution
    return node_selector_matches(required, labels, {"metadata.name": name})


def preferred_weight(pod: core.Pod, labels: Mapping[str, str], name: str) -> int:
    """The sum of the weights of the preferred terms that the node satisfies."""
    fields = {"metadata.name": name}
    return sum(
        term.weight
        for term in pod.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution
        if node_selector_matches(core.NodeSelector(nodeSelectorTerms=[term.preference]), labels, fields)
    )
