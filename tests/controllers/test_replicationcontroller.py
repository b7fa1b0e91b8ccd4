"""A ReplicationController behaves as a ReplicaSet with a plain map as its selector."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.replicationcontroller import CONTROLLER
from kcp.machinery import meta
from kcp.machinery.errors import Forbidden
from tests.support.builders import metadata, pod, template
from tests.support.planning import World, events, of_type, writes
from tests.support.pods_by_hand import edit, run_new

Json = dict[str, Any]
KEY, RESOURCE = "default/web", "replicationcontrollers"


def rc(replicas: int = 2) -> Json:
    spec = {"replicas": replicas, "selector": {"app": "web"}, "template": template("web")}
    return {"apiVersion": "v1", "kind": "ReplicationController", "metadata": metadata("web"), "spec": spec}


def test_it_makes_its_pods_and_counts_them() -> None:
    world = World(rc())
    effects = world.plan(CONTROLLER, KEY)
    assert [reason for reason, _ in events(effects)] == ["SuccessfulCreate"] * 2
    owner = meta.controller_of(world.all("pods")[0])
    assert owner is not None and (owner["apiVersion"], owner["kind"]) == ("v1", "ReplicationController")
    run_new(world)
    world.plan(CONTROLLER, KEY)
    assert world.get(RESOURCE, KEY)["status"] == {
        "replicas": 2,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "observedGeneration": 1,
    }
    assert not writes(world.plan(CONTROLLER, KEY))


def test_a_refused_pod_shows_as_a_condition_until_it_can_be_made() -> None:
    world = World(rc())
    world.fail[fx.Create] = Forbidden("exceeded quota: small")
    effects = world.plan(CONTROLLER, KEY)
    assert events(effects)[0] == ("FailedCreate", "Error creating: exceeded quota: small")
    failure = meta.condition(world.get(RESOURCE, KEY), "ReplicaFailure")
    assert failure is not None
    assert (failure["status"], failure["reason"]) == ("True", "FailedCreate")
    world.fail.clear()
    world.plan(CONTROLLER, KEY)
    assert meta.condition(world.get(RESOURCE, KEY), "ReplicaFailure") is None


def test_it_adopts_what_matches_and_lets_go_what_no_longer_does() -> None:
    world = World(rc(1), pod("stray", labels={"app": "web"}))
    effects = world.plan(CONTROLLER, KEY)
    (adoption,) = of_type(effects, fx.Patch)
    assert adoption.name == "stray" and not of_type(effects, fx.Create)
    mine = world.get("pods", "default/stray")
    world.put({**mine, "metadata": {**mine["metadata"], "labels": {"app": "other"}}})
    effects = world.plan(CONTROLLER, KEY)
    assert meta.controller_of(world.get("pods", "default/stray")) is None
    assert len(of_type(effects, fx.Create)) == 1


def test_scaled_down_the_pods_go_by_uid() -> None:
    world = World(rc(3))
    world.plan(CONTROLLER, KEY)
    run_new(world)
    edit(world, RESOURCE, KEY, replicas=1)
    deletes = of_type(world.plan(CONTROLLER, KEY), fx.Delete)
    assert len(deletes) == 2 and all(delete.uid for delete in deletes)
    assert len(world.all("pods")) == 1
