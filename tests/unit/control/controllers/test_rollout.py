"""From one template to the next: the bounds hold at every step, and the end is reached."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control.api import meta
from control.api.codec import from_json
from control.controllers.rollout import HASH_LABEL, REVISION, Actions, bounds, complete, reconcile
from protos.k8s import apps_v1_pb2 as apps

NOW = 1_000_000.0


def deployment(image: str = "app:1", replicas: int = 3, **spec: Any) -> apps.Deployment:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    body = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    metadata = {"name": "web", "namespace": "default", "uid": "u", "generation": 1}
    made: apps.Deployment = from_json(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": body}
    )
    return made


class World:
    """A cluster that follows: ReplicaSets as told, pods ready when ``settle`` is called."""

    def __init__(self) -> None:
        self.sets: dict[str, apps.ReplicaSet] = {}
        self.most = self.fewest = 0

    def apply(self, actions: Actions) -> None:
        if actions.create is not None:
            assert actions.create.metadata.name not in self.sets
            self.sets[actions.create.metadata.name] = actions.create
        for rs, replicas in actions.scale:
            self.sets[rs.metadata.name].spec.replicas = replicas
        if actions.revise is not None:
            self.sets[actions.revise.metadata.name].metadata.annotations[REVISION] = str(actions.revision)
        for rs in actions.delete:
            del self.sets[rs.metadata.name]

    def settle(self, broken: str = "") -> None:
        for rs in self.sets.values():
            rs.status.replicas = rs.spec.replicas
            works = rs.spec.template.spec.containers[0].image != broken
            up = rs.spec.replicas if works else 0
            rs.status.readyReplicas = rs.status.availableReplicas = up

    def step(self, wanted: apps.Deployment, broken: str = "") -> Actions:
        actions = reconcile(wanted, self.sets.values(), NOW)
        if actions.status is not None:
            wanted.status.CopyFrom(actions.status)
        self.apply(actions)
        return actions

    def run(self, wanted: apps.Deployment, broken: str = "", steps: int = 60) -> list[tuple[int, int]]:
        """Step until nothing happens; returns (pods asked for, pods available) after each step."""
        seen = []
        for _ in range(steps):
            actions = self.step(wanted)
            # A pod that is to go is gone at once, a new one available only when the world settles.
            for rs in self.sets.values():
                rs.status.availableReplicas = min(rs.status.availableReplicas, rs.spec.replicas)
            total = sum(rs.spec.replicas for rs in self.sets.values())
            seen.append((total, sum(rs.status.availableReplicas for rs in self.sets.values())))
            self.settle(broken)
            if not (actions.create or actions.scale):
                break
        return seen


def images(world: World) -> dict[str, int]:
    return {rs.spec.template.spec.containers[0].image: rs.spec.replicas for rs in world.sets.values()}


def test_first_rollout_makes_one_replica_set_with_a_hash() -> None:
    world, web = World(), deployment()
    world.run(web)
    (rs,) = world.sets.values()
    mark = rs.metadata.labels[HASH_LABEL]
    assert rs.metadata.name == f"web-{mark}" and len(mark) == 10
    assert rs.spec.selector.matchLabels[HASH_LABEL] == rs.spec.template.metadata.labels[HASH_LABEL] == mark
    assert (rs.spec.replicas, rs.metadata.annotations[REVISION]) == (3, "1")
    assert complete(web.status, 3)
    assert meta.condition_is(web.status.conditions, "Available")


def test_rolling_update_keeps_its_bounds() -> None:
    world = World()
    world.run(deployment(replicas=4))
    seen = world.run(deployment("app:2", replicas=4))
    assert images(world) == {"app:1": 0, "app:2": 4}
    assert max(total for total, _ in seen) == 5
    assert min(available for _, available in seen) >= 3
    revisions = {
        rs.spec.template.spec.containers[0].image: rs.metadata.annotations[REVISION] for rs in world.sets.values()
    }
    assert revisions == {"app:1": "1", "app:2": "2"}


def test_broken_template_stops_half_way_and_says_so_after_the_deadline() -> None:
    world = World()
    world.run(deployment())
    bad = deployment("app:bad")
    world.run(bad, broken="app:bad")
    assert images(world) == {"app:1": 3, "app:bad": 1}
    late = reconcile(bad, world.sets.values(), NOW + 601)
    assert late.status is not None
    progressing = meta.find_condition(late.status.conditions, "Progressing")
    assert progressing is not None and progressing.reason == "ProgressDeadlineExceeded"


def test_rollback_uses_the_old_replica_set_as_a_new_revision() -> None:
    world = World()
    world.run(deployment())
    world.run(deployment("app:2"))
    world.run(deployment())
    assert images(world) == {"app:1": 3, "app:2": 0}
    assert {rs.metadata.annotations[REVISION] for rs in world.sets.values()} == {"2", "3"}


def test_recreate_goes_through_zero() -> None:
    world, recreate = World(), {"strategy": {"type": "Recreate"}}
    world.run(deployment(**recreate))
    seen = world.run(deployment("app:2", **recreate))
    assert (0, 0) in seen
    assert images(world) == {"app:1": 0, "app:2": 3}


def test_paused_deployment_changes_nothing_but_its_size() -> None:
    world = World()
    world.run(deployment())
    assert not world.step(deployment("app:2", paused=True)).create
    world.run(deployment(replicas=5, paused=True))
    assert images(world) == {"app:1": 5}


def test_history_is_limited() -> None:
    world = World()
    for number in range(6):
        world.run(deployment(f"app:{number}", revisionHistoryLimit=2))
    world.run(deployment("app:5", revisionHistoryLimit=2))
    assert set(images(world)) == {"app:3", "app:4", "app:5"}


def test_bounds() -> None:
    def of(surge: Any, missing: Any, replicas: int = 10) -> tuple[int, int, int]:
        strategy = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}
        return bounds(deployment(replicas=replicas, strategy=strategy))

    assert of("25%", "25%") == (10, 3, 2)
    assert of(0, 0) == (10, 0, 1)
    assert of(2, "100%", 3) == (3, 2, 3)
    assert bounds(deployment(replicas=3)) == (3, 1, 0)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 5), st.integers(0, 5))
def test_any_rollout_ends_within_its_bounds(before: int, after: int, surge: int, missing: int) -> None:
    strategy = {"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": missing}}}
    world = World()
    world.run(deployment(replicas=before, **strategy))
    target = deployment("app:2", replicas=after, **strategy)
    wanted, above, below = bounds(target)
    seen = world.run(target)
    assert images(world) == {"app:1": 0, "app:2": after}
    if before <= after:
        assert max(total for total, _ in seen) <= wanted + above
    assert min(available for _, available in seen) >= min(before, wanted - below)
