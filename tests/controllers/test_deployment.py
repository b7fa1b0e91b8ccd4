"""What users see of a Deployment: rollouts within their bounds, pause, rollback, history, progress."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.deployment import CONTROLLER
from kcp.machinery import meta
from kcp.machinery.errors import Forbidden
from tests.support.builders import deployment
from tests.support.planning import World, events, of_type, writes

Json = dict[str, Any]
KEY = "default/web"


def settle(world: World, limit: int = 50, *, pods: bool = True) -> list[fx.Effect]:
    """Plan until nothing changes, with ReplicaSets whose pods come up (or go) at once."""
    done: list[fx.Effect] = []
    for _ in range(limit):
        effects = world.plan(CONTROLLER, KEY)
        done.extend(effects)
        moved = follow(world) if pods else False
        if not writes(effects) and not moved:
            return done
    raise AssertionError("does not settle")


def follow(world: World) -> bool:
    """Play the ReplicaSet controller and the nodes: status becomes what spec says."""
    moved = False
    for rs in world.all("replicasets.apps"):
        wanted = rs["spec"]["replicas"]
        counters = ("replicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas")
        status = {counter: wanted for counter in counters if wanted}
        status["observedGeneration"] = rs["metadata"]["generation"]
        if rs.get("status") != status:
            world.put({**rs, "status": status})
            moved = True
    return moved


def edit(world: World, **spec: Any) -> None:
    current = world.get("deployments.apps", KEY)
    generation = current["metadata"]["generation"] + 1
    world.put(
        {
            **current,
            "spec": {**current["spec"], **spec},
            "metadata": {**current["metadata"], "generation": generation},
        }
    )


def set_image(world: World, image: str) -> None:
    template = world.get("deployments.apps", KEY)["spec"]["template"]
    containers = [{**template["spec"]["containers"][0], "image": image}]
    edit(world, template={**template, "spec": {**template["spec"], "containers": containers}})


def sizes(world: World) -> list[int]:
    by_age = sorted(world.all("replicasets.apps"), key=lambda rs: rs["metadata"]["creationTimestamp"])
    return [rs["spec"]["replicas"] for rs in by_age]


def condition(world: World, type_: str) -> Json:
    found = meta.condition(world.get("deployments.apps", KEY), type_)
    assert found is not None, type_
    return found


def test_a_new_deployment_gets_its_replicaset() -> None:
    world = World(deployment("web", replicas=3))
    effects = world.plan(CONTROLLER, KEY)
    (rs,) = world.all("replicasets.apps")
    template_hash = rs["metadata"]["labels"]["pod-template-hash"]
    assert meta.name(rs) == f"web-{template_hash}"
    assert rs["spec"]["replicas"] == 3
    assert rs["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": template_hash}
    assert rs["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == template_hash
    assert rs["metadata"]["annotations"] == {
        "deployment.kubernetes.io/desired-replicas": "3",
        "deployment.kubernetes.io/max-replicas": "4",
        "deployment.kubernetes.io/revision": "1",
    }
    assert events(effects) == [("ScalingReplicaSet", f"Scaled up replica set {meta.name(rs)} from 0 to 3")]
    assert meta.annotations(world.get("deployments.apps", KEY))["deployment.kubernetes.io/revision"] == "1"


def test_it_becomes_available_and_complete() -> None:
    world = World(deployment("web", replicas=3))
    settle(world)
    status = world.get("deployments.apps", KEY)["status"]
    assert (status["replicas"], status["updatedReplicas"], status["availableReplicas"]) == (3, 3, 3)
    assert condition(world, "Available")["reason"] == "MinimumReplicasAvailable"
    (rs,) = world.all("replicasets.apps")
    progress = condition(world, "Progressing")
    assert progress["reason"] == "NewReplicaSetAvailable"
    assert progress["message"] == f'ReplicaSet "{meta.name(rs)}" has successfully progressed.'


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable"),
    [
        (4, "25%", "25%"),
        (4, 1, 0),
        (4, 0, 1),
        (10, "30%", "20%"),
        (3, "100%", 0),
        (1, "25%", "25%"),
        (5, 0, 0),
    ],
)
def test_a_rolling_update_stays_within_its_bounds(replicas: int, surge: Any, unavailable: Any) -> None:
    from kcp.apis.semantics import workloads

    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    world = World(deployment("web", replicas=replicas, strategy=strategy))
    settle(world)
    set_image(world, "registry.example/app:2")
    object_ = world.get("deployments.apps", KEY)
    highest, lowest = replicas + workloads.max_surge(object_), replicas - workloads.max_unavailable(object_)
    for _ in range(60):
        effects = world.plan(CONTROLLER, KEY)
        total = sum(sizes(world))
        available = sum(
            min(rs["spec"]["replicas"], rs.get("status", {}).get("availableReplicas", 0))
            for rs in world.all("replicasets.apps")
        )
        assert total <= highest
        assert available >= lowest
        if not follow(world) and not writes(effects):
            break
    assert sizes(world) == [0, replicas]


def test_unhealthy_old_replicas_go_first() -> None:
    world = World(deployment("web", replicas=4))
    settle(world)
    (old,) = world.all("replicasets.apps")
    world.put({**old, "status": {**old["status"], "availableReplicas": 1, "readyReplicas": 1}})
    set_image(world, "registry.example/app:2")
    effects = world.plan(
        CONTROLLER, KEY
    )  # the new set appears, sized by the surge, and one that is no use goes
    scaled = [message for reason, message in events(effects) if reason == "ScalingReplicaSet"]
    assert scaled[1:] == [f"Scaled down replica set {meta.name(old)} from 4 to 3"]


def test_recreate_waits_for_the_last_old_pod() -> None:
    world = World(deployment("web", replicas=2, strategy={"type": "Recreate"}))
    settle(world)
    (old,) = world.all("replicasets.apps")
    from tests.support.builders import pod

    running = world.put(pod("web-old-1", labels={"app": "web"}, owner=old, phase="Running"))
    set_image(world, "registry.example/app:2")
    settle(world)
    assert sizes(world) == [0]
    del world.objects["pods"][meta.key_of(running)]
    settle(world)
    assert sizes(world) == [0, 2]


def test_rollback_reuses_the_old_replicaset_and_raises_its_revision() -> None:
    world = World(deployment("web", replicas=2))
    settle(world)
    set_image(world, "registry.example/app:2")
    settle(world)
    set_image(world, "registry.example/app:1")
    settle(world)
    assert sizes(world) == [2, 0]
    first = min(world.all("replicasets.apps"), key=lambda rs: rs["metadata"]["creationTimestamp"])
    annotations = meta.annotations(first)
    assert annotations["deployment.kubernetes.io/revision"] == "3"
    assert annotations["deployment.kubernetes.io/revision-history"] == "1"


def test_history_is_cut_to_its_limit() -> None:
    world = World(deployment("web", replicas=1, revisionHistoryLimit=1))
    for version in range(1, 5):
        set_image(world, f"registry.example/app:{version}")
        settle(world)
    revisions = sorted(
        meta.annotations(rs)["deployment.kubernetes.io/revision"] for rs in world.all("replicasets.apps")
    )
    assert revisions == ["3", "4"]


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    world = World(deployment("web", replicas=2))
    settle(world)
    edit(world, paused=True)
    settle(world)
    assert condition(world, "Progressing")["reason"] == "DeploymentPaused"
    set_image(world, "registry.example/app:2")
    edit(world, replicas=5)
    settle(world)
    assert sizes(world) == [5]
    edit(world, paused=False)
    settle(world)
    assert sizes(world) == [0, 5]


def test_scaling_in_mid_rollout_is_proportional() -> None:
    """The example of Kubernetes' documentation: 10 replicas, surge 3, unavailable 2; 8 old, 5 new; scaled to 15."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    world = World(deployment("web", replicas=10, strategy=strategy))
    settle(world)
    set_image(world, "registry.example/unpullable:2")
    for _ in range(6):  # the new pods never come up
        world.plan(CONTROLLER, KEY)
        for rs in world.all("replicasets.apps"):
            available = (
                rs["spec"]["replicas"]
                if rs["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
                else 0
            )
            world.put({**rs, "status": {"replicas": rs["spec"]["replicas"], "availableReplicas": available}})
    assert sizes(world) == [8, 5]
    edit(world, replicas=15)
    world.plan(CONTROLLER, KEY)
    assert sizes(world) == [11, 7]


def test_recreate_of_another_size_is_not_stuck_on_several_active_replicasets() -> None:
    world = World(deployment("web", replicas=4))
    settle(world)
    set_image(world, "registry.example/unpullable:2")
    for _ in range(3):
        world.plan(CONTROLLER, KEY)
    assert len([size for size in sizes(world) if size]) == 2
    edit(world, replicas=9, strategy={"type": "Recreate"})
    settle(world)
    assert sizes(world) == [0, 9]


def test_a_rollout_that_does_not_move_times_out() -> None:
    world = World(deployment("web", replicas=1, progressDeadlineSeconds=60))
    settle(world, pods=False)
    (requeue,) = of_type(world.plan(CONTROLLER, KEY), fx.RequeueAfter)
    assert requeue.seconds == 61
    world.sleep(61)
    settle(world, pods=False)
    (rs,) = world.all("replicasets.apps")
    progress = condition(world, "Progressing")
    assert (progress["status"], progress["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert progress["message"] == f'ReplicaSet "{meta.name(rs)}" has timed out progressing.'


def test_a_refused_replicaset_shows_in_conditions_and_events() -> None:
    world = World(deployment("web"))
    world.fail[fx.Create] = Forbidden("exceeded quota")
    effects = world.plan(CONTROLLER, KEY)
    assert condition(world, "Progressing")["reason"] == "ReplicaSetCreateError"
    ((reason, message),) = events(effects)
    assert reason == "ReplicaSetCreateError"
    assert message.startswith('Failed to create new replica set "web-') and message.endswith("exceeded quota")


def test_orphans_of_the_right_kind_are_adopted() -> None:
    world = World(deployment("web", replicas=2))
    settle(world)
    (rs,) = world.all("replicasets.apps")
    bare = {k: v for k, v in rs["metadata"].items() if k != "ownerReferences"}
    world.put({**rs, "metadata": bare})
    effects = world.plan(CONTROLLER, KEY)
    (adoption,) = of_type(effects, fx.Patch)
    assert adoption.patch["metadata"]["ownerReferences"][0]["kind"] == "Deployment"
    assert len(world.all("replicasets.apps")) == 1


def test_a_second_plan_has_nothing_to_do() -> None:
    world = World(deployment("web", replicas=3))
    settle(world)
    assert not writes(world.plan(CONTROLLER, KEY))


def test_a_deployment_that_selects_everything_is_refused() -> None:
    world = World(deployment("web", selector={}))
    effects = world.plan(CONTROLLER, KEY)
    assert (
        "SelectingAll",
        "This deployment is selecting all pods. A non-empty selector is required.",
    ) in events(effects)
    assert not world.all("replicasets.apps")
