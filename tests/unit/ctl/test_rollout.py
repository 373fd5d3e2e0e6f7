"""How far a rollout is, in kubectl's words."""

from collections.abc import Callable
from typing import Any

import pytest

from ctl.errors import CtlError
from ctl.verbs.rollout import progress


@pytest.fixture
def deployment(manifest: Callable[[str], Any]) -> Callable[[str], Any]:
    def make(status: str) -> Any:
        return manifest(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, generation: 2}\n"
            f"spec: {{replicas: 3, selector: {{}}, template: {{}}}}\nstatus: {status}"
        )

    return make


WAITING = 'Waiting for deployment "web" rollout to finish: '


@pytest.mark.parametrize(
    ("status", "text", "over"),
    [
        ("{observedGeneration: 1}", "Waiting for deployment spec update to be observed...", False),
        ("{updatedReplicas: 1, replicas: 3}", f"{WAITING}1 out of 3 new replicas have been updated...", False),
        ("{updatedReplicas: 3, replicas: 4}", f"{WAITING}1 old replicas are pending termination...", False),
        (
            "{updatedReplicas: 3, replicas: 3, availableReplicas: 2}",
            f"{WAITING}2 of 3 updated replicas are available...",
            False,
        ),
        (
            "{updatedReplicas: 3, replicas: 3, availableReplicas: 3}",
            'deployment "web" successfully rolled out',
            True,
        ),
    ],
)
def test_progress_is_told_until_it_is_over(
    deployment: Callable[[str], Any], status: str, text: str, over: bool
) -> None:
    if "observedGeneration" not in status:
        status = status.replace("{", "{observedGeneration: 2, ", 1)
    assert progress(deployment(status)) == (text, over)


def test_a_rollout_that_took_too_long_has_failed(deployment: Callable[[str], Any]) -> None:
    stuck = (
        "{observedGeneration: 2, conditions: [{type: Progressing, status: 'False', reason: ProgressDeadlineExceeded}]}"
    )
    with pytest.raises(CtlError, match="exceeded its progress deadline"):
        progress(deployment(stuck))
