"""Objects for printers and describe, made from manifests."""

from collections.abc import Callable
from typing import Any

import pytest

from control.api.codec import from_yaml_documents

NOW_S = 1_700_000_000.0
"""The instant at which tables are printed: 2023-11-14T22:13:20Z."""

CREATED = "2023-11-14T22:10:00Z"
"""200 seconds before."""


@pytest.fixture
def now_s() -> float:
    return NOW_S


@pytest.fixture
def manifest() -> Callable[[str], Any]:
    """One object from YAML; CREATED in the text is its creation time."""

    def load(text: str) -> Any:
        [obj] = from_yaml_documents(text.replace("CREATED", CREATED))
        return obj

    return load


@pytest.fixture
def make_pod(manifest: Callable[[str], Any]) -> Callable[..., Any]:
    """A pod of one container, with the given status and metadata in YAML flow style."""

    def make(status: str = "{}", spec: str = "", meta: str = "") -> Any:
        return manifest(
            f"""
apiVersion: v1
kind: Pod
metadata: {{name: kubia-x, namespace: default, creationTimestamp: "CREATED", labels: {{run: kubia}}{meta}}}
spec: {{containers: [{{name: kubia, image: kubia}}], nodeName: node-1{spec}}}
status: {status}
"""
        )

    return make
