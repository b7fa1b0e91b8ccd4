"""Budgets: how many pods may go now, and what is said when nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.disruption import CONTROLLER, UNMANAGED, selector_text, touched_pod
from kcp.machinery import meta
from kcp.machinery.errors import Conflict, NotFound
from tests.support.builders import deployment, metadata, pod, replicaset
from tests.support.planning import World, events, of_type, writes

Json = dict[str, Any]
KEY = "default/web"


def budget(**spec: Any) -> Json:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata("web"),
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **spec},
        "status": {},
    }


def fleet(world: World, count: int, *, ready: int | None = None, replicas: int | None = None) -> Json:
    """A Deployment with `count` pods, `ready` of them ready, that wants `replicas`."""
    owner = world.put(deployment("web", replicas=count if replicas is None else replicas))
    middle = world.put(replicaset("web-1", replicas=count, app="web", owner=owner))
    for number in range(count):
        is_ready = number < (count if ready is None else ready)
        world.put(pod(f"web-{number}", labels={"app": "web"}, owner=middle, phase="Running", ready=is_ready))
    return owner


def status(world: World) -> Json:
    found: Json = world.get("poddisruptionbudgets.policy", KEY)["status"]
    return found


def numbers(world: World) -> tuple[int, int, int, int]:
    """(expected, desired, healthy, allowed)"""
    found = status(world)
    return (
        found["expectedPods"],
        found["desiredHealthy"],
        found["currentHealthy"],
        found["disruptionsAllowed"],
    )


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ({"minAvailable": 3}, (5, 3, 5, 2)),
        ({"minAvailable": "50%"}, (5, 3, 5, 2)),
        ({"minAvailable": "100%"}, (5, 5, 5, 0)),
        ({"maxUnavailable": 1}, (5, 4, 5, 1)),
        ({"maxUnavailable": "30%"}, (5, 3, 5, 2)),
        ({"maxUnavailable": 9}, (5, 0, 5, 5)),
        ({"minAvailable": 9}, (5, 9, 5, 0)),
    ],
)
def test_bounds_as_numbers_and_percentages(spec: Json, want: tuple[int, int, int, int]) -> None:
    world = World(budget(**spec))
    fleet(world, 5)
    world.plan(CONTROLLER, KEY)
    assert numbers(world) == want
    (condition,) = status(world)["conditions"]
    reason = "SufficientPods" if want[3] else "InsufficientPods"
    assert (condition["type"], condition["reason"]) == ("DisruptionAllowed", reason)


def test_a_percentage_counts_what_the_controller_wants_not_what_there_is() -> None:
    world = World(budget(maxUnavailable="50%"))
    fleet(world, 3, replicas=6)
    world.plan(CONTROLLER, KEY)
    assert numbers(world) == (6, 3, 3, 0)


def test_pods_that_are_not_ready_or_going_do_not_count() -> None:
    world = World(budget(minAvailable=2))
    fleet(world, 4, ready=3)
    going = world.get("pods", "default/web-0")
    world.put({**going, "metadata": {**going["metadata"], "deletionTimestamp": "2026-01-01T00:00:30Z"}})
    world.plan(CONTROLLER, KEY)
    assert numbers(world) == (4, 2, 2, 0)


def test_an_evicted_pod_does_not_count_for_two_minutes_and_is_then_complained_about() -> None:
    world = World(budget(minAvailable=1))
    fleet(world, 3)
    current = world.get("poddisruptionbudgets.policy", KEY)
    world.put({**current, "status": {"disruptedPods": {"web-0": "2026-01-01T00:00:00Z"}}})
    effects = world.plan(CONTROLLER, KEY)
    assert numbers(world) == (3, 1, 2, 1)
    (wait,) = of_type(effects, fx.RequeueAfter)
    assert 119 < wait.seconds <= 121
    world.sleep(121)
    effects = world.plan(CONTROLLER, KEY)
    assert numbers(world) == (3, 1, 3, 2)
    assert "disruptedPods" not in status(world)
    text = "Pod was expected by PDB default/web to be deleted but it wasn't"
    assert ("NotDeleted", text) in events(effects)


def test_no_pods_means_no_disruptions() -> None:
    world = World(budget(minAvailable=0))
    effects = world.plan(CONTROLLER, KEY)
    assert numbers(world) == (0, 0, 0, 0)
    assert events(effects) == [("NoPods", "No matching pods found")]


def test_pods_without_a_controller_are_reported_when_it_matters() -> None:
    world = World(budget(maxUnavailable=1), pod("web", phase="Running", ready=True))
    effects = world.plan(CONTROLLER, KEY)
    text = UNMANAGED.format(
        "&LabelSelector{MatchLabels:map[string]string{app: web,},"
        "MatchExpressions:[]LabelSelectorRequirement{},}"
    )
    assert events(effects) == [("UnmanagedPods", text)]
    assert numbers(world) == (0, 0, 1, 0)
    world = World(budget(minAvailable=1), pod("web", phase="Running", ready=True))
    assert events(world.plan(CONTROLLER, KEY)) == []


def test_when_nobody_can_count_nothing_may_go() -> None:
    world = World(budget(maxUnavailable=1))
    fleet(world, 2)
    world.plan(CONTROLLER, KEY)
    assert status(world)["disruptionsAllowed"] == 1
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata("j", uid="job-1")}
    world.put(pod("worker", labels={"app": "web"}, owner=job))
    missing = NotFound("the server could not find the requested resource")
    world.answers["GET /apis/batch/v1/namespaces/default/jobs/j/scale"] = missing
    effects = world.plan(CONTROLLER, KEY)
    why = "jobs.batch does not implement the scale subresource"
    text = f"Failed to calculate the number of expected pods: {why}"
    assert events(effects) == [("CalculateExpectedPodCountFailed", text)]
    assert status(world)["disruptionsAllowed"] == 0
    (condition,) = status(world)["conditions"]
    assert (condition["status"], condition["reason"], condition["message"]) == ("False", "SyncFailed", why)


def test_a_custom_controller_is_asked_for_its_scale() -> None:
    world = World(budget(minAvailable="50%"))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata("own", uid="u-1")}
    for number in range(2):
        world.put(pod(f"p{number}", labels={"app": "web"}, owner=owner, phase="Running", ready=True))
    scale = {"metadata": {"uid": "u-1"}, "spec": {"replicas": 2}}
    world.answers["GET /apis/batch/v1/namespaces/default/jobs/own/scale"] = scale
    world.plan(CONTROLLER, KEY)
    assert numbers(world) == (2, 1, 2, 1)


def test_a_pod_whose_controller_is_unknown_fails_safe() -> None:
    world = World(budget(maxUnavailable=1))
    stranger = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata("x", uid="other")}
    world.put(pod("a", labels={"app": "web"}, owner=stranger))
    world.plan(CONTROLLER, KEY)
    assert status(world)["conditions"][0]["message"] == 'found no controllers for pod "a"'


def test_a_conflict_is_no_reason_for_fear() -> None:
    world = World(budget(minAvailable=1))
    fleet(world, 2)
    world.fail[fx.Status] = Conflict("changed meanwhile")
    effects = world.plan(CONTROLLER, KEY)
    assert len(of_type(effects, fx.Status)) == 1


def test_a_second_plan_changes_nothing() -> None:
    world = World(budget(minAvailable=1))
    fleet(world, 2)
    world.plan(CONTROLLER, KEY)
    assert writes(world.plan(CONTROLLER, KEY)) == []


def test_pods_of_two_budgets_are_told_of() -> None:
    other = budget(minAvailable=1)
    other["metadata"] = metadata("zzz")
    world = World(budget(minAvailable=1), other)
    fleet(world, 1)
    text = 'Pod "default"/"web-0" matches multiple PodDisruptionBudgets.  Chose "web" arbitrarily.'
    assert ("MultiplePodDisruptionBudgets", text) in events(world.plan(CONTROLLER, KEY))
    assert not events(world.plan(CONTROLLER, "default/zzz"))


def test_an_empty_selector_takes_all_pods_and_none_takes_none() -> None:
    world = World(budget(minAvailable=1, selector={}), pod("a"), pod("b", namespace="elsewhere"))
    world.plan(CONTROLLER, KEY)
    assert numbers(world)[0] == 1
    world = World(budget(minAvailable=1, selector=None), pod("a"))
    world.plan(CONTROLLER, KEY)
    assert numbers(world)[0] == 0


def disrupted_pod(at: str, reason: str = "EvictionByEvictionAPI") -> Json:
    built = pod("web-0", labels={"app": "web"}, phase="Running", ready=True)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": at}
    built["status"]["conditions"].append(condition)
    return built


def test_the_mark_of_an_eviction_that_did_not_happen_is_taken_back() -> None:
    world = World(disrupted_pod("2026-01-01T00:00:00Z"))
    key = "pod:default/web-0"
    (wait,) = world.plan(CONTROLLER, key)
    assert wait == fx.RequeueAfter(120.0)
    world.sleep(120)
    world.plan(CONTROLLER, key)
    condition = meta.condition(world.get("pods", "default/web-0"), "DisruptionTarget")
    assert condition is not None and condition["status"] == "False" and "reason" not in condition
    assert world.plan(CONTROLLER, key) == []


def test_the_mark_of_a_kubelet_stays() -> None:
    world = World(disrupted_pod("2025-12-31T00:00:00Z", "TerminationByKubelet"))
    assert world.plan(CONTROLLER, "pod:default/web-0") == []


def test_which_budgets_a_pod_moves() -> None:
    world = World(budget(minAvailable=1))
    readers = {"budgets": world.view(CONTROLLER).budgets}
    ready, unready = pod("web", ready=True), pod("web", ready=False)
    assert touched_pod(unready, ready, readers) == [KEY]
    assert touched_pod(ready, {**ready, "status": {**ready["status"], "podIP": "1.2.3.4"}}, readers) == []
    assert touched_pod(None, pod("api"), readers) == []
    marked = disrupted_pod("2026-01-01T00:00:00Z")
    assert touched_pod(marked, marked, readers) == ["pod:default/web-0"]
    assert touched_pod(ready, {**ready, "metadata": {**ready["metadata"], "labels": {}}}, readers) == [KEY]


def test_selectors_read_as_go_prints_them() -> None:
    expression = {"key": "tier", "operator": "In", "values": ["a", "b"]}
    assert selector_text({"matchExpressions": [expression]}) == (
        "&LabelSelector{MatchLabels:map[string]string{},"
        "MatchExpressions:[]LabelSelectorRequirement{{tier In [a b]},},}"
    )
