"""What users see of a ReplicaSet: its number of pods, whom it adopts and lets go, who is deleted first, its status."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.apis.semantics.pods import is_active
from kcp.controllers import effects as fx
from kcp.controllers.replicaset import CONTROLLER, REPLICA_SET, census_of, count_settled
from kcp.machinery import meta
from kcp.machinery.errors import Conflict, Forbidden, InternalError
from tests.support.builders import deployment, metadata, owner_ref, pod, replicaset
from tests.support.planning import World, events, of_type, writes

Json = dict[str, Any]
KEY = "default/web"


def world_with(replicas: int, *names: str, **pods: Any) -> World:
    world = World(replicaset("web", replicas=replicas))
    owner = world.get("replicasets.apps", KEY)
    for name in names:
        world.put(
            pod(name, labels={"app": "web"}, owner=owner, **{"phase": "Running", "ready": True, **pods})
        )
    return world


def status(world: World) -> Json:
    found: Json = world.get("replicasets.apps", KEY)["status"]
    return found


def test_missing_pods_are_created_from_the_template() -> None:
    world = world_with(3)
    effects = world.plan(CONTROLLER, KEY)
    made = world.all("pods")
    assert len(made) == 3
    for each in made:
        assert meta.name(each).startswith("web-")
        assert meta.labels(each) == {"app": "web"}
        assert meta.controller_of(each)["name"] == "web"  # type: ignore[index]
    assert events(effects) == [("SuccessfulCreate", f"Created pod: {meta.name(p)}") for p in made]


def test_creation_starts_slowly_and_stops_at_the_first_failing_batch() -> None:
    world = world_with(3)
    world.fail[fx.Create] = Forbidden("exceeded quota")
    plan = CONTROLLER.plan(KEY, world.view(CONTROLLER), fx.Env(world.now, None, {}, CONTROLLER.name))
    first = fx.advance(plan, None)
    assert isinstance(first, fx.All) and first.slow_start and len(first.effects) == 3


def test_what_cannot_be_created_shows_in_condition_and_event() -> None:
    world = world_with(1)
    world.fail[fx.Create] = Forbidden("exceeded quota")
    effects = world.plan(CONTROLLER, KEY)
    assert events(effects) == [("FailedCreate", "Error creating: exceeded quota")]
    (condition,) = status(world)["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "ReplicaFailure",
        "True",
        "FailedCreate",
    )
    del world.fail[fx.Create]
    world.plan(CONTROLLER, KEY)
    world.plan(CONTROLLER, KEY)
    assert "conditions" not in status(world)


def test_surplus_pods_are_deleted_the_least_useful_first() -> None:
    world = world_with(1, "web-a", "web-b")
    world.put(
        pod("web-pending", labels={"app": "web"}, owner=world.get("replicasets.apps", KEY), phase="Pending")
    )
    effects = world.plan(CONTROLLER, KEY)
    deleted = [effect.name for effect in of_type(effects, fx.Delete)]
    assert "web-pending" in deleted and len(deleted) == 2
    assert all(effect.uid for effect in of_type(effects, fx.Delete))


def test_finished_and_terminating_pods_do_not_count() -> None:
    world = world_with(2, "web-a")
    owner = world.get("replicasets.apps", KEY)
    world.put(pod("web-done", labels={"app": "web"}, owner=owner, phase="Failed"))
    world.put(
        pod(
            "web-going",
            labels={"app": "web"},
            owner=owner,
            phase="Running",
            deletionTimestamp="2026-01-01T00:00:00Z",
        )
    )
    effects = world.plan(CONTROLLER, KEY)
    assert len(of_type(effects, fx.Create)) == 1
    world.plan(CONTROLLER, KEY)
    assert status(world)["replicas"] == 2
    assert status(world)["terminatingReplicas"] == 1


def test_an_orphan_that_matches_is_adopted() -> None:
    world = world_with(1)
    world.put(pod("stray", labels={"app": "web"}, phase="Running"))
    effects = world.plan(CONTROLLER, KEY)
    assert not of_type(effects, fx.Create)
    assert meta.controller_of(world.get("pods", "default/stray"))["name"] == "web"  # type: ignore[index]


def test_a_pod_that_no_longer_matches_is_released_and_replaced() -> None:
    world = world_with(1, "web-a")
    current = world.get("pods", "default/web-a")
    world.put({**current, "metadata": {**current["metadata"], "labels": {"app": "other"}}})
    world.plan(CONTROLLER, KEY)
    assert meta.controller_of(world.get("pods", "default/web-a")) is None
    assert len(world.all("pods")) == 2


@pytest.mark.parametrize("error", [Conflict("the object has been modified"), InternalError("try again")])
def test_a_pod_that_could_not_be_released_is_not_replaced(error: Any) -> None:
    """Found by simulation: with a failed release the set had one pod more than it should."""
    world = world_with(1, "web-a")
    current = world.get("pods", "default/web-a")
    world.put({**current, "metadata": {**current["metadata"], "labels": {"app": "other"}}})
    world.fail[fx.Patch] = error
    effects = world.plan(CONTROLLER, KEY)
    assert not of_type(effects, fx.Create)
    assert len(world.all("pods")) == 1


def test_a_set_that_is_replaced_adopts_nothing() -> None:
    world = world_with(1)
    view = world.view(CONTROLLER)
    world.put(pod("stray", labels={"app": "web"}, phase="Running"))
    view = world.view(CONTROLLER)
    del world.objects["replicasets.apps"][KEY]
    world.put(replicaset("web", replicas=1))
    plan = CONTROLLER.plan(KEY, view, fx.Env(world.now, None, {}, CONTROLLER.name))
    effect = fx.advance(plan, None)
    assert isinstance(effect, fx.Live)
    assert fx.advance(plan, world.perform(CONTROLLER, KEY, effect)) is None


def test_a_set_that_is_going_makes_and_removes_nothing() -> None:
    world = World(replicaset("web", replicas=3))
    current = world.get("replicasets.apps", KEY)
    metadata = {
        **current["metadata"],
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["foregroundDeletion"],
    }
    world.put({**current, "metadata": metadata})
    effects = world.plan(CONTROLLER, KEY)
    assert not of_type(effects, fx.Create) and not of_type(effects, fx.Delete)


def test_status_counts_and_waits_for_availability() -> None:
    world = world_with(2, "web-a", "web-b")
    current = world.get("replicasets.apps", KEY)
    world.put({**current, "spec": {**current["spec"], "minReadySeconds": 10}})
    for name in ("web-a", "web-b"):
        each = world.get("pods", f"default/{name}")
        assert each["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    effects = world.plan(CONTROLLER, KEY)
    assert status(world)["readyReplicas"] == 2
    assert "availableReplicas" not in status(world)
    (again,) = of_type(effects, fx.RequeueAfter)
    world.sleep(again.seconds)
    world.plan(CONTROLLER, KEY)
    assert status(world)["availableReplicas"] == 2


def test_a_second_plan_has_nothing_to_do() -> None:
    world = world_with(2, "web-a", "web-b")
    world.plan(CONTROLLER, KEY)
    assert not writes(world.plan(CONTROLLER, KEY))


def test_of_equal_pods_the_one_with_most_company_goes_first() -> None:
    """Company are the active pods of all revisions of the Deployment on the same node."""
    world = World(deployment("web"))
    owner = world.get("deployments.apps", "default/web")
    sets = {
        name: world.put({**replicaset(name), "metadata": metadata(name, ownerReferences=[owner_ref(owner)])})
        for name in ("old", "new")
    }
    pods: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("a", "old", "n1", {}),
        ("b", "old", "n2", {}),
        ("c", "new", "n2", {}),
        ("d", "new", "n1", {"phase": "Failed"}),
    )
    for name, rs, node, more in pods:
        labels = {"app": rs}
        world.put(
            pod(name, labels=labels, owner=sets[rs], node=node, **{"phase": "Running", "ready": True, **more})
        )
    current = world.get("replicasets.apps", "default/old")
    world.put({**current, "spec": {**current["spec"], "replicas": 1}})
    (delete,) = of_type(world.plan(CONTROLLER, "default/old"), fx.Delete)
    assert delete.name == "b"


POD_STATES = st.fixed_dictionaries(
    {
        "phase": st.sampled_from(["Pending", "Running", "Failed", "Succeeded"]),
        "ready": st.booleans(),
        "labels": st.sampled_from([{"app": "web"}, {"app": "web", "more": "x"}, {"app": "other"}]),
        "node": st.sampled_from(["", "n1", "n2"]),
        "owned": st.booleans(),
        "going": st.booleans(),
    }
)


@settings(max_examples=200, deadline=None)
@given(st.lists(POD_STATES, max_size=6), st.integers(0, 4), st.booleans())
def test_counting_pods_gives_what_looking_at_each_gives(pods: list[Json], wanted: int, going: bool) -> None:
    world = World(replicaset("web", replicas=wanted))
    rs = world.get("replicasets.apps", KEY)
    if going:
        rs = world.put({**rs, "metadata": {**rs["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    for number, state in enumerate(pods):
        more: Json = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if state["going"] else {}
        if state["owned"]:
            more["owner"] = rs
        given = {name: state[name] for name in ("phase", "ready", "labels", "node")}
        world.put(pod(f"web-{number}", **given, **more))
    view, selector = world.view(CONTROLLER), REPLICA_SET.selector(rs)
    census = count_settled(rs, selector, view)
    owned = view.pods.index("owner", meta.uid(rs))
    strays = view.pods.index("owner", "orphan:default")
    claims = any(not selector.matches(meta.labels(each)) for each in owned) or (
        not going and any(is_active(each) and selector.matches(meta.labels(each)) for each in strays)
    )
    assert (census is None) == claims
    if census is not None:
        assert census == census_of(rs, owned, world.now)
