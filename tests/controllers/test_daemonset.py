"""What users see of a DaemonSet: one pod per fitting node, updates within bounds, history."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.controllers import effects as fx
from kcp.controllers.daemonset import CONTROLLER
from kcp.controllers.daemonset.controller import concerned
from kcp.controllers.daemonset.nodes import target_node
from kcp.machinery import meta
from kcp.machinery.errors import Forbidden
from tests.support.builders import daemonset, node, pod
from tests.support.planning import World, events, of_type, writes
from tests.support.pods_by_hand import edit, end_running, images, run_new, set_image, set_status

Json = dict[str, Any]
KEY, RESOURCE = "default/log", "daemonsets.apps"


def settle(world: World, limit: int = 60) -> list[fx.Effect]:
    done: list[fx.Effect] = []
    for _ in range(limit):
        effects = world.plan(CONTROLLER, KEY)
        done.extend(effects)
        if not run_new(world) and not writes(effects):
            return done
    raise AssertionError("does not settle")


def nodes(count: int, **spec: Any) -> list[Json]:
    return [node(f"n{number}", **spec) for number in range(count)]


def places(world: World) -> list[str]:
    return sorted(target_node(one) for one in world.all("pods"))


def status(world: World) -> Json:
    found: Json = world.get(RESOURCE, KEY)["status"]
    return found


def taint(key: str, effect: str) -> Json:
    return {"key": key, "effect": effect}


def retaint(world: World, name: str, *taints: Json) -> None:
    current = world.get("nodes", name)
    world.put({**current, "spec": {**current["spec"], "taints": list(taints)}})


def rolling(**numbers: Any) -> Json:
    return {"type": "RollingUpdate", "rollingUpdate": numbers}


def made_on(effects: list[fx.Effect]) -> list[str]:
    return [target_node(e.object) for e in of_type(effects, fx.Create) if e.resource == "pods"]


def deleted(effects: list[fx.Effect]) -> list[str]:
    return [e.name for e in of_type(effects, fx.Delete) if e.resource == "pods"]


def test_every_node_gets_one_pod_pinned_to_it() -> None:
    world = World(daemonset("log"), *nodes(3))
    assert made_on(world.plan(CONTROLLER, KEY)) == ["n0", "n1", "n2"]
    one = world.all("pods")[0]
    assert "nodeName" not in one["spec"]
    required = one["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required == {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n0"]}]}]
    }
    tolerated = [(t["key"], t["effect"]) for t in one["spec"]["tolerations"]]
    assert tolerated == [
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ]
    world.put(node("n3"))
    settle(world)
    assert places(world) == ["n0", "n1", "n2", "n3"]


def test_status_counts_nodes() -> None:
    world = World(daemonset("log"), *nodes(2))
    settle(world)
    assert status(world) == {
        "currentNumberScheduled": 2,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 2,
        "numberReady": 2,
        "observedGeneration": 1,
        "updatedNumberScheduled": 2,
        "numberAvailable": 2,
    }
    assert not writes(world.plan(CONTROLLER, KEY))


def test_a_node_selector_decides_where_and_a_changed_label_moves_it() -> None:
    set_ = daemonset("log")
    set_["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    world = World(set_, node("n0", labels={"disk": "ssd"}), node("n1"))
    settle(world)
    assert places(world) == ["n0"]
    first = world.get("nodes", "n0")
    world.put({**first, "metadata": {**first["metadata"], "labels": {}}})
    settle(world)
    assert places(world) == []


def test_no_schedule_keeps_pods_out_but_does_not_drive_them_away() -> None:
    world = World(daemonset("log"), *nodes(2))
    settle(world)
    retaint(world, "n0", taint("dedicated", "NoSchedule"))
    world.put(node("n2", taints=[taint("dedicated", "NoSchedule")]))
    settle(world)
    assert places(world) == ["n0", "n1"]
    assert (status(world)["desiredNumberScheduled"], status(world)["numberMisscheduled"]) == (1, 1)


def test_no_execute_drives_them_away() -> None:
    world = World(daemonset("log"), *nodes(2))
    settle(world)
    retaint(world, "n0", taint("broken", "NoExecute"))
    settle(world)
    assert places(world) == ["n1"]


def test_a_node_that_is_not_ready_or_cordoned_still_has_its_daemon() -> None:
    world = World(daemonset("log"), *nodes(1))
    settle(world)
    retaint(
        world,
        "n0",
        taint("node.kubernetes.io/unreachable", "NoExecute"),
        taint("node.kubernetes.io/unschedulable", "NoSchedule"),
    )
    settle(world)
    assert places(world) == ["n0"] and status(world)["numberMisscheduled"] == 0


def test_failed_pods_are_replaced_with_growing_patience() -> None:
    world = World(daemonset("log"), *nodes(1))
    settle(world)
    waits = []
    for _ in range(4):
        end_running(world, 1)
        effects = world.plan(CONTROLLER, KEY)
        for wait in of_type(effects, fx.RequeueAfter):
            waits.append(wait.seconds)
            world.sleep(wait.seconds)
            effects = world.plan(CONTROLLER, KEY)
        (failed,) = [text for reason, text in events(effects) if reason == "FailedDaemonPod"]
        assert failed.startswith("Found failed daemon pod default/log-")
        assert failed.endswith(" on node n0, will try to kill it")
        assert len(deleted(effects)) == 1
        settle(world)
    assert waits == [1, 2, 4]


def test_a_clock_that_is_set_back_keeps_no_node_waiting() -> None:
    world = World(daemonset("log"), *nodes(1))
    settle(world)
    for _ in range(2):
        end_running(world, 1)
        assert len(deleted(world.plan(CONTROLLER, KEY))) == 1
        settle(world)
        world.sleep(-3600)


def test_a_pod_that_succeeded_is_replaced_too() -> None:
    world = World(daemonset("log"), *nodes(1))
    settle(world)
    (name,) = [meta.name(one) for one in world.all("pods")]
    end_running(world, 0)
    effects = world.plan(CONTROLLER, KEY)
    text = f"Found succeeded daemon pod default/{name} on node n0, will try to delete it"
    assert ("SucceededDaemonPod", text) in events(effects)
    settle(world)
    assert places(world) == ["n0"]


def test_of_two_pods_on_a_node_the_older_stays() -> None:
    world = World(daemonset("log"), *nodes(1))
    settle(world)
    older = world.all("pods")[0]
    newer = {**older, "metadata": {**older["metadata"], "name": "log-extra", "uid": "extra"}}
    newer["metadata"]["creationTimestamp"] = "2027-01-01T00:00:00Z"
    world.put(newer)
    assert deleted(world.plan(CONTROLLER, KEY)) == ["log-extra"]


def test_pods_for_a_node_that_left_before_they_were_bound_go() -> None:
    world = World(daemonset("log"), *nodes(2))
    world.plan(CONTROLLER, KEY)
    del world.objects["nodes"]["n1"]
    settle(world)
    assert places(world) == ["n0"]


@pytest.mark.parametrize(("unavailable", "at_least"), [(1, 3), ("50%", 2), ("30%", 2), ("100%", 0)])
def test_a_rolling_update_keeps_enough_available(unavailable: Any, at_least: int) -> None:
    world = World(daemonset("log", updateStrategy=rolling(maxUnavailable=unavailable)), *nodes(4))
    settle(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    for _ in range(30):
        world.plan(CONTROLLER, KEY)
        living = len([p for p in world.all("pods") if (p.get("status") or {}).get("phase") == "Running"])
        assert living >= at_least
        run_new(world)
    assert images(world) == ["2"] * 4


def test_old_pods_that_are_no_use_are_replaced_first() -> None:
    world = World(daemonset("log"), *nodes(3))
    settle(world)
    sick = world.all("pods")[2]
    set_status(world, sick, "Running", ready=False)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    assert deleted(world.plan(CONTROLLER, KEY)) == [meta.name(sick)]


def test_surge_starts_the_new_pod_beside_the_old_one() -> None:
    world = World(daemonset("log", updateStrategy=rolling(maxSurge=1, maxUnavailable=0)), *nodes(3))
    settle(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    effects = world.plan(CONTROLLER, KEY)
    assert made_on(effects) == ["n0"] and not deleted(effects)
    assert not writes(world.plan(CONTROLLER, KEY))  # until the new one is available
    run_new(world)
    effects = world.plan(CONTROLLER, KEY)
    assert len(deleted(effects)) == 1 and not made_on(effects)
    for _ in range(20):
        world.plan(CONTROLLER, KEY)
        ready = {target_node(p) for p in world.all("pods") if (p.get("status") or {}).get("phase")}
        assert len(ready) == 3
        run_new(world)
    assert images(world) == ["2"] * 3


def test_on_delete_waits_for_the_user() -> None:
    world = World(daemonset("log", updateStrategy={"type": "OnDelete"}), *nodes(2))
    settle(world)
    set_image(world, RESOURCE, KEY, "registry.example/app:2")
    settle(world)
    assert images(world) == ["1", "1"] and "updatedNumberScheduled" not in status(world)
    world.objects["pods"].pop(sorted(world.objects["pods"])[0])
    settle(world)
    assert sorted(images(world)) == ["1", "2"]


def test_a_rollback_does_not_restart_what_is_already_right() -> None:
    world = World(daemonset("log"), *nodes(3))
    settle(world)
    kept = {meta.uid(one) for one in world.all("pods")}
    set_image(world, RESOURCE, KEY, "registry.example/broken:2")
    world.plan(CONTROLLER, KEY)  # one old pod goes
    world.plan(CONTROLLER, KEY)  # its successor never becomes ready
    set_image(world, RESOURCE, KEY, "registry.example/app:1")
    settle(world)
    after = {meta.uid(one) for one in world.all("pods")}
    assert len(kept & after) == 2
    numbers = sorted(r["revision"] for r in world.all("controllerrevisions.apps"))
    assert numbers == [2, 3]


def test_history_is_kept_to_its_limit() -> None:
    world = World(daemonset("log", revisionHistoryLimit=1), *nodes(1))
    for version in range(1, 6):
        set_image(world, RESOURCE, KEY, f"registry.example/app:{version}")
        settle(world)
    assert sorted(r["revision"] for r in world.all("controllerrevisions.apps")) == [4, 5]


def test_equal_revisions_become_one() -> None:
    world = World(daemonset("log"), *nodes(1))
    settle(world)
    (only,) = world.all("controllerrevisions.apps")
    labels = {**only["metadata"]["labels"], "controller-revision-hash": "twin"}
    twin = {**only["metadata"], "name": "log-twin", "uid": "twin", "labels": labels}
    world.put({**only, "metadata": twin, "revision": 2})
    settle(world)
    (kept,) = world.all("controllerrevisions.apps")
    assert meta.name(kept) == "log-twin"
    assert meta.labels(world.all("pods")[0])["controller-revision-hash"] == "twin"


def test_min_ready_seconds_ripen() -> None:
    world = World(daemonset("log", minReadySeconds=5), *nodes(1))
    world.plan(CONTROLLER, KEY)
    run_new(world)
    assert fx.RequeueAfter(5) in world.plan(CONTROLLER, KEY)
    assert status(world)["numberUnavailable"] == 1
    world.sleep(5)
    world.plan(CONTROLLER, KEY)
    assert status(world)["numberAvailable"] == 1


def test_a_refused_pod_is_told() -> None:
    world = World(daemonset("log"), *nodes(1))
    world.plan(CONTROLLER, KEY)
    world.objects["pods"].clear()
    world.fail[fx.Create] = Forbidden("no")
    assert events(world.plan(CONTROLLER, KEY)) == [("FailedCreate", "Error creating: no")]


def test_a_set_that_selects_everything_is_refused() -> None:
    world = World(daemonset("log", selector={}), *nodes(1))
    assert events(world.plan(CONTROLLER, KEY)) == [
        ("SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
    ]
    assert not world.all("pods")


def test_orphans_that_match_are_adopted() -> None:
    world = World(daemonset("log"), *nodes(1), pod("stray", labels={"app": "log"}, node="n0"))
    effects = world.plan(CONTROLLER, KEY)
    (adoption,) = of_type(effects, fx.Patch)
    assert adoption.name == "stray"
    assert not made_on(effects)
    assert deleted(effects) == ["stray"]  # of an unknown template and not available: the first to be updated


def test_only_changes_that_matter_wake_the_daemon_sets() -> None:
    world = World(daemonset("log"), node("n0"))
    readers: Any = world.view(CONTROLLER)
    old = world.get("nodes", "n0")
    heartbeat = {**old, "status": {}}
    assert concerned(old, heartbeat, readers) == []
    tainted = {**old, "spec": {"taints": [taint("a", "NoSchedule")]}}
    assert concerned(old, tainted, readers) == [KEY]
    tolerated = {**old, "spec": {"taints": [taint("node.kubernetes.io/unschedulable", "NoSchedule")]}}
    assert concerned(old, tolerated, readers) == []
    assert concerned(None, old, readers) == [KEY] and concerned(old, None, readers) == [KEY]


def test_edits_of_nothing_but_the_template_make_revisions() -> None:
    world = World(daemonset("log"), *nodes(1))
    settle(world)
    edit(world, RESOURCE, KEY, minReadySeconds=1)
    settle(world)
    assert len(world.all("controllerrevisions.apps")) == 1
