"""Quotas: limits copied, usage summed up, pods that stop counting with time."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.apis.semantics.quota import resource_of, usage_of
from kcp.controllers import effects as fx
from kcp.controllers.resource_quota import CONTROLLER, changed_limits, going_pod
from kcp.machinery.errors import Conflict
from tests.support.builders import metadata, pod, service
from tests.support.planning import START, World, of_type, writes

Json = dict[str, Any]
KEY = "default/team"


def quota(hard: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": metadata("team"),
        "spec": {"hard": hard, **spec},
    }


def status(world: World) -> Json:
    found: Json = world.get("resourcequotas", KEY)["status"]
    return found


def test_everything_that_is_there_is_counted_once() -> None:
    hard = {
        "pods": "10",
        "requests.cpu": "4",
        "count/pods": "10",
        "services": "5",
        "services.nodeports": "2",
        "configmaps": "9",
        "count/deployments.apps": "1",
        "requests.storage": "10Gi",
    }
    world = World(
        quota(hard),
        pod("a", cpu="250m"),
        pod("b", cpu="1"),
        pod("done", cpu="1", phase="Succeeded"),
        pod("other", namespace="elsewhere", cpu="1"),
        service("web", type="NodePort"),
    )
    world.plan(CONTROLLER, KEY)
    assert status(world) == {
        "hard": hard,
        "used": {
            "pods": "2",
            "requests.cpu": "1250m",
            "count/pods": "3",
            "services": "1",
            "services.nodeports": "1",
            "configmaps": "0",
            "count/deployments.apps": "0",
            "requests.storage": "0",
        },
    }


def test_names_that_nothing_counts_for_have_no_number() -> None:
    world = World(quota({"count/widgets.example.com": "1", "pods": "1"}))
    world.plan(CONTROLLER, KEY)
    assert status(world)["used"] == {"pods": "0"}
    assert writes(world.plan(CONTROLLER, KEY)) == []


def test_a_changed_limit_is_followed_and_dropped_names_vanish() -> None:
    world = World(quota({"pods": "1", "configmaps": "1"}))
    world.plan(CONTROLLER, KEY)
    current = world.get("resourcequotas", KEY)
    world.put({**current, "spec": {"hard": {"pods": "7"}}})
    world.plan(CONTROLLER, KEY)
    assert status(world) == {"hard": {"pods": "7"}, "used": {"pods": "0"}}


def test_what_admission_noted_meanwhile_is_not_overwritten() -> None:
    world = World(quota({"pods": "3"}))
    world.fail[fx.Status] = Conflict("changed")
    effects = world.plan(CONTROLLER, KEY)
    assert of_type(effects, fx.Memo) == []
    del world.fail[fx.Status]
    world.plan(CONTROLLER, KEY)
    assert status(world)["used"] == {"pods": "0"}


def going(name: str, deleted: str) -> Json:
    built = pod(name, cpu="1", phase="Running")
    built["metadata"] |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": 30}
    return built


def test_a_pod_that_should_be_gone_stops_counting() -> None:
    world = World(quota({"pods": "3", "requests.cpu": "3"}), going("lost", "2026-01-01T00:00:30Z"))
    effects = world.plan(CONTROLLER, KEY)
    assert status(world)["used"] == {"pods": "1", "requests.cpu": "1"}
    (wait,) = of_type(effects, fx.RequeueAfter)
    assert wait.seconds == pytest.approx(60, abs=0.01)
    world.sleep(wait.seconds)
    world.plan(CONTROLLER, KEY)
    assert status(world)["used"] == {"pods": "0", "requests.cpu": "0"}


def test_recounts_are_spaced_and_a_full_one_comes_every_five_minutes() -> None:
    world = World(quota({"pods": "3"}))
    world.plan(CONTROLLER, KEY)
    world.sleep(1)
    (wait,) = world.plan(CONTROLLER, KEY)
    assert isinstance(wait, fx.RequeueAfter) and wait.seconds == pytest.approx(4)
    world.sleep(300)
    assert of_type(world.plan(CONTROLLER, KEY), fx.LiveList)


def test_a_clock_that_is_set_back_delays_no_recount() -> None:
    world = World(quota({"pods": "3"}))
    world.plan(CONTROLLER, KEY)
    world.sleep(-3600)
    world.put(pod("a", phase="Running"))
    world.plan(CONTROLLER, KEY)
    assert status(world)["used"] == {"pods": "1"}


def test_scopes_choose_the_pods() -> None:
    best_effort = World(quota({"pods": "3"}, scopes=["BestEffort"]), pod("a"), pod("b", cpu="1"))
    best_effort.plan(CONTROLLER, KEY)
    assert status(best_effort)["used"] == {"pods": "1"}
    selector = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}
    high = World(
        quota({"pods": "3"}, scopeSelector=selector),
        pod("a", spec={"priorityClassName": "high"}),
        pod("b", spec={"priorityClassName": "low"}),
    )
    high.plan(CONTROLLER, KEY)
    assert status(high)["used"] == {"pods": "1"}


def test_what_queues_a_quota() -> None:
    world = World(quota({"pods": "3"}))
    current = world.get("resourcequotas", KEY)
    assert changed_limits(None, current, {}) == [KEY]
    assert changed_limits(current, {**current, "status": {"used": {}}}, {}) == []
    assert changed_limits(current, {**current, "spec": {"hard": {}}}, {}) == [KEY]
    readers = {"quotas": world.view(CONTROLLER).quotas}
    assert going_pod(pod("a"), going("a", "2026-01-01T00:00:30Z"), readers) == [KEY]
    assert going_pod(None, pod("a"), readers) == []


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("count/widgets.example.com", "widgets.example.com"),
        ("requests.storage", "persistentvolumeclaims"),
        ("gold.storageclass.storage.k8s.io/persistentvolumeclaims", "persistentvolumeclaims"),
        ("limits.memory", "pods"),
        ("hugepages-2Mi", "pods"),
        ("requests.nvidia.com/gpu", "pods"),
        ("services.loadbalancers", "services"),
        ("secrets", "secrets"),
        ("nonsense", None),
    ],
)
def test_which_objects_count_for_a_name(name: str, resource: str | None) -> None:
    assert resource_of(name) == resource


def test_a_pod_counts_until_twice_its_grace_is_over() -> None:
    lost = going("lost", "2026-01-01T00:00:00Z")
    assert "pods" in usage_of("pods", lost, START)
    lost["metadata"]["deletionTimestamp"] = "2025-12-31T23:59:00Z"
    assert usage_of("pods", lost, START).keys() == {"count/pods"}
