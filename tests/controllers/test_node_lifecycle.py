"""What users see when a node falls silent: conditions, taints, its pods; and who is spared when everything is down."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.node_lifecycle import CONTROLLER
from kcp.controllers.node_lifecycle.zones import KEY as ZONES
from kcp.controllers.node_lifecycle.zones import taint_rate, zone_state
from kcp.machinery import meta
from kcp.machinery.errors import Forbidden
from tests.support.builders import metadata, node, pod
from tests.support.planning import World, events, of_type

Json = dict[str, Any]
UNREACHABLE, NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"


def beat(world: World, name: str = "n") -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata(name, "kube-node-lease"),
        "spec": {"holderIdentity": name, "renewTime": world.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")},
    }
    world.put(lease)


def taints(world: World, name: str = "n") -> set[tuple[str, str]]:
    return {(t["key"], t["effect"]) for t in world.get("nodes", name)["spec"].get("taints") or ()}


def ready(world: World, name: str = "n") -> Json:
    found = meta.condition(world.get("nodes", name), "Ready")
    assert found is not None
    return found


def silent_for(world: World, seconds: float) -> list[fx.Effect]:
    world.plan(CONTROLLER, "n")
    world.sleep(seconds)
    return world.plan(CONTROLLER, "n")


def test_a_node_is_greeted_once() -> None:
    world = World(node("n"))
    beat(world)
    assert events(world.plan(CONTROLLER, "n")) == [
        ("RegisteredNode", "Node n event: Registered Node n in Controller")
    ]
    assert not events(world.plan(CONTROLLER, "n"))


def test_renewals_of_its_lease_keep_a_node_ready() -> None:
    world = World(node("n"))
    for _ in range(10):
        beat(world)
        world.plan(CONTROLLER, "n")
        world.sleep(40)
    assert ready(world)["status"] == "True"
    assert not taints(world)


def test_a_silent_node_becomes_unknown_after_the_grace_period() -> None:
    world = World(node("n"))
    beat(world)
    effects = silent_for(world, 51)
    assert (ready(world)["status"], ready(world)["reason"]) == ("Unknown", "NodeStatusUnknown")
    assert ready(world)["message"] == "Kubelet stopped posting node status."
    pressure = meta.condition(world.get("nodes", "n"), "MemoryPressure")
    assert pressure is not None
    assert (pressure["reason"], pressure["message"]) == (
        "NodeStatusNeverUpdated",
        "Kubelet never posted node status.",
    )
    assert taints(world) == {(UNREACHABLE, "NoSchedule")}
    assert ("NodeNotReady", "Node n status is now: NodeNotReady") in events(effects)


def test_within_the_grace_period_nothing_happens() -> None:
    world = World(node("n"))
    beat(world)
    silent_for(world, 49)
    assert ready(world)["status"] == "True"


def test_a_lease_that_cannot_be_read_says_nothing_about_the_node() -> None:
    """Found by simulation: the controller was not allowed to read Leases and gave up every node."""
    world = World(node("n"))
    beat(world)
    world.plan(CONTROLLER, "n")
    world.sleep(600)
    world.fail[fx.Live] = Forbidden("not allowed")
    world.plan(CONTROLLER, "n")
    assert ready(world)["status"] == "True"


def test_pods_of_an_unready_node_are_not_ready() -> None:
    world = World(node("n", ready="False"), pod("a", node="n", phase="Running", ready=True))
    beat(world)
    effects = world.plan(CONTROLLER, "n")
    assert ("NodeNotReady", "Node is not ready") in events(effects)
    (patch,) = [p for p in of_type(effects, fx.Patch) if p.resource == "pods"]
    assert patch.patch["status"]["conditions"][0]["status"] == "False"


def test_taints_follow_conditions_and_go_with_them() -> None:
    world = World(node("n", ready="False", unschedulable=True))
    beat(world)
    world.plan(CONTROLLER, "n")
    assert taints(world) == {(NOT_READY, "NoSchedule"), ("node.kubernetes.io/unschedulable", "NoSchedule")}
    current = world.get("nodes", "n")
    back = node("n")["status"]
    spec = {key: value for key, value in current["spec"].items() if key != "unschedulable"}
    world.put({**current, "spec": spec, "status": back})
    world.plan(CONTROLLER, "n")
    assert not taints(world)


def test_the_no_execute_taint_comes_one_node_at_a_time() -> None:
    world = World(
        *(node(name, ready=state) for name, state in (("a", "Unknown"), ("b", "Unknown"), ("c", "True")))
    )
    effects = world.plan(CONTROLLER, ZONES)
    assert [patch.name for patch in of_type(effects, fx.Patch)] == ["a"]
    (again,) = of_type(effects, fx.RequeueAfter)
    assert again.seconds == 10
    world.sleep(10)
    world.plan(CONTROLLER, ZONES)
    assert taints(world, "a") == taints(world, "b") == {(UNREACHABLE, "NoExecute")}
    assert not taints(world, "c")


def test_when_every_zone_is_down_nobody_is_evicted() -> None:
    unreachable = {"key": UNREACHABLE, "effect": "NoExecute"}
    world = World(node("a", ready="Unknown", taints=[unreachable]), node("b", ready="Unknown"))
    world.plan(CONTROLLER, ZONES)
    assert not taints(world, "a") and not taints(world, "b")


def test_states_and_rates_of_zones() -> None:
    def zone(up: int, down: int) -> list[Json]:
        return [node(f"u{i}") for i in range(up)] + [node(f"d{i}", ready="Unknown") for i in range(down)]

    assert zone_state(zone(0, 1)) == "FullDisruption"
    assert zone_state(zone(2, 3)) == "PartialDisruption"
    assert zone_state(zone(1, 2)) == "Normal"
    assert (
        taint_rate("Normal", 3),
        taint_rate("PartialDisruption", 51),
        taint_rate("PartialDisruption", 50),
    ) == (
        0.1,
        0.01,
        0.0,
    )


def test_a_clock_that_is_set_back_delays_no_verdict() -> None:
    world = World(node("n"))
    beat(world)
    world.plan(CONTROLLER, "n")
    world.sleep(-3600)
    (again,) = of_type(world.plan(CONTROLLER, "n"), fx.RequeueAfter)
    assert again.seconds < 60
    world.sleep(51)
    world.plan(CONTROLLER, "n")
    assert ready(world)["status"] == "Unknown"


def test_a_clock_that_is_set_back_keeps_no_zone_waiting() -> None:
    world = World(
        *(node(name, ready=state) for name, state in (("a", "Unknown"), ("b", "Unknown"), ("c", "True")))
    )
    world.plan(CONTROLLER, ZONES)
    world.sleep(-3600)
    (again,) = of_type(world.plan(CONTROLLER, ZONES), fx.RequeueAfter)
    assert again.seconds == 10
    world.sleep(10)
    world.plan(CONTROLLER, ZONES)
    assert taints(world, "b") == {(UNREACHABLE, "NoExecute")}
