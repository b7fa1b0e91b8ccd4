"""PodGC: which pods are taken away, and that they failed before they went."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.pod_gc import CONTROLLER
from kcp.machinery.errors import Forbidden
from tests.support.builders import node, pod
from tests.support.planning import World, of_type, writes

Json = dict[str, Any]
OUT = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}


def going(name: str, **more: Any) -> Json:
    built = pod(name, phase="Running", **more)
    built["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z"
    return built


def run(world: World, **settings: Any) -> list[fx.Effect]:
    return world.plan(CONTROLLER, "tick", settings)


def removed(effects: list[fx.Effect]) -> list[str]:
    return [e.name for e in of_type(effects, fx.Delete)]


def test_pods_of_a_missing_node_go_after_the_quarantine() -> None:
    world = World(pod("lost", node="gone", phase="Running"), pod("fine", node="n1"), node("n1"))
    assert writes(run(world)) == []
    world.sleep(20)
    assert writes(run(world)) == []
    world.sleep(20)
    effects = run(world)
    (patch,) = of_type(effects, fx.Patch)
    (condition,) = patch.patch["status"]["conditions"]
    assert (patch.subresource, patch.patch["status"]["phase"]) == ("status", "Failed")
    assert condition["type"] == "DisruptionTarget"
    assert (condition["reason"], condition["message"]) == ("DeletionByPodGC", "PodGC: node no longer exists")
    (delete,) = of_type(effects, fx.Delete)
    assert (delete.name, delete.grace_s) == ("lost", 0)


def test_a_node_that_comes_back_ends_the_quarantine() -> None:
    world = World(pod("web", node="n1", phase="Running"))
    run(world)
    world.sleep(30)
    world.put(node("n1"))
    run(world)
    assert world.memos == {}
    del world.objects["nodes"]["n1"]
    world.sleep(20)
    assert writes(run(world)) == []


def test_pods_on_a_node_out_of_service_go_only_when_it_is_down_and_they_are_going() -> None:
    world = World(
        node("down", ready="Unknown", taints=[OUT]),
        node("up", ready="True", taints=[OUT]),
        going("a", node="down"),
        going("b", node="up"),
        pod("c", node="down", phase="Running"),
    )
    assert removed(run(world)) == ["a"]


def test_terminating_pods_that_no_node_ever_had_go() -> None:
    assert removed(run(World(going("a"), pod("b")))) == ["a"]


def test_too_many_finished_pods_lose_the_evicted_and_the_oldest_first() -> None:
    evicted = pod("evicted", phase="Failed")
    evicted["status"]["reason"] = "Evicted"
    world = World(pod("first", phase="Failed"), pod("second", phase="Succeeded"), evicted, pod("running"))
    effects = run(world, terminated_pod_threshold=1)
    assert removed(effects) == ["evicted", "first"]
    assert of_type(effects, fx.Patch) == []
    assert writes(run(World(pod("a", phase="Failed")), terminated_pod_threshold=0)) == []


def test_a_pod_that_cannot_be_marked_is_not_deleted() -> None:
    world = World(going("a"))
    world.fail[fx.Patch] = Forbidden("no")
    assert removed(run(world)) == []


def test_a_pass_with_nothing_to_do_does_nothing() -> None:
    world = World(pod("fine", node="n1", phase="Running"), node("n1"), pod("waiting"))
    assert run(world) == []
