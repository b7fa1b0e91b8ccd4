"""What conformance asks of ReplicaSets and ReplicationControllers."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import STRATEGIC, Door
from tests.conformance.objects import (
    APPS,
    OTHER_IMAGE,
    all_of,
    condition,
    controller,
    images,
    is_ready,
    owner_of,
    pod,
    workload,
)
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
QUOTA = {"metadata": {"name": "condition-test"}, "spec": {"hard": {"pods": "2"}}}
OWN = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}


async def of_sets(door: Door, name: str) -> tuple[str, str]:
    """Paths of the pods and ReplicaSets of a fresh namespace."""
    return await door.namespace(name) + "/pods", f"{APPS.format(name)}/replicasets"


async def of_controllers(door: Door, name: str) -> tuple[str, str]:
    """Paths of the pods and ReplicationControllers of a fresh namespace."""
    core = await door.namespace(name)
    return f"{core}/pods", f"{core}/replicationcontrollers"


def ready(replicas: int) -> Any:
    return lambda found: (
        found["status"].get("readyReplicas", 0) == found["status"]["replicas"] == replicas
        and found["status"].get("observedGeneration", 0) >= found["metadata"]["generation"]
    )


async def adopts(door: Door, pods: str, owners: str, owner: Json) -> None:
    """A pod that is there already becomes the owner's only one."""
    name = owner["metadata"]["name"]
    labels = owner["spec"]["template"]["metadata"]["labels"]
    orphan = await door.create(pods, pod("orphan", labels=labels))
    await door.create(owners, owner)
    adopted = await door.eventually(f"{pods}/orphan", owner_of)
    assert (owner_of(adopted), adopted["metadata"]["uid"]) == (name, orphan["metadata"]["uid"])
    await door.eventually(f"{owners}/{name}", ready(1))
    assert await door.names(pods) == ["orphan"]


async def releases(door: Door, pods: str, owners: str, name: str, key: str) -> None:
    """A pod whose label changes is nobody's; another one takes its place."""
    (first,) = await door.names(pods)
    await door.patch(f"{pods}/{first}", {"metadata": {"labels": {key: "not-matching"}}})
    await door.eventually(f"{pods}/{first}", lambda found: not owner_of(found))
    await door.eventually(pods, all_of(2, is_ready))
    await door.eventually(f"{owners}/{name}", ready(1))


async def scales(door: Door, path: str, first: int) -> None:
    """The scale subresource is read, updated and patched, and what it says happens."""
    found = await door.get(f"{path}/scale")
    assert (found["kind"], found["spec"]["replicas"], found["status"]["replicas"]) == ("Scale", first, first)
    found["spec"]["replicas"] = first + 1
    found["metadata"]["resourceVersion"] = ""
    assert (await door.update(f"{path}/scale", found))["spec"]["replicas"] == first + 1
    assert (await door.get(path))["spec"]["replicas"] == first + 1
    patched = await door.patch(f"{path}/scale", {"spec": {"replicas": first + 3}}, STRATEGIC)
    assert patched["spec"]["replicas"] == first + 3
    await door.eventually(path, ready(first + 3))


async def statuses(door: Door, path: str, watch: Any) -> None:
    """Conditions put into the status by hand are kept and watched."""
    read = await door.get(f"{path}/status")
    read["status"].setdefault("conditions", []).append(OWN)
    updated = await door.update(f"{path}/status", read)
    assert condition(updated, "StatusUpdate")["reason"] == "E2E"
    while not condition(await watch.until("MODIFIED"), "StatusUpdate"):
        pass
    await door.patch(
        f"{path}/status", {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}}
    )
    while not condition(await watch.until("MODIFIED"), "StatusPatched"):
        pass


@on_nodes("[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods")
async def set_adopts(door: Door) -> None:
    pods, sets = await of_sets(door, "set-adopts")
    await adopts(door, pods, sets, workload("adopting", 1))
    await releases(door, pods, sets, "adopting", "app")


@on_nodes("[sig-apps] ReplicaSet Replicaset should have a working scale subresource")
async def set_scale(door: Door) -> None:
    _, sets = await of_sets(door, "set-scale")
    await door.create(sets, workload("scaled", 1))
    await door.eventually(f"{sets}/scaled", ready(1))
    await scales(door, f"{sets}/scaled", 1)


@on_nodes("[sig-apps] ReplicaSet Replace and Patch tests")
async def set_patch(door: Door) -> None:
    pods, sets = await of_sets(door, "set-patch")
    watch = await door.watch(sets, await door.revision(sets), "app=patched")
    await door.create(sets, workload("patched", 1))
    await door.eventually(f"{sets}/patched", ready(1))
    update = await door.get(f"{sets}/patched")
    update["spec"]["replicas"] = 3
    update["metadata"]["labels"]["test-rs"] = "updated"
    await door.update(f"{sets}/patched", update)
    await door.eventually(f"{sets}/patched", ready(3))
    containers = [{"name": "main", "image": OTHER_IMAGE}]
    patch = {
        "metadata": {"labels": {"test-rs": "patched"}},
        "spec": {
            "replicas": 3,
            "template": {"spec": {"terminationGracePeriodSeconds": 0, "containers": containers}},
        },
    }
    await door.patch(f"{sets}/patched", patch, STRATEGIC)
    while (seen := await watch.until("MODIFIED"))["metadata"]["labels"].get("test-rs") != "patched":
        pass
    assert seen["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 0
    assert seen["spec"]["template"]["spec"]["containers"][0]["image"] == OTHER_IMAGE
    await door.eventually(f"{sets}/patched", ready(3))
    assert OTHER_IMAGE not in images(await door.get(pods)), "a ReplicaSet does not replace running pods"


@on_nodes("[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets")
async def set_collection(door: Door) -> None:
    pods, sets = await of_sets(door, "set-collection")
    await door.create(sets, workload("many", 3))
    await door.eventually(f"{sets}/many", ready(3))
    everywhere = "/apis/apps/v1/replicasets?labelSelector=app=many"
    assert await door.names(everywhere) == ["many"]
    await door.delete(f"{sets}?labelSelector=app=many")
    assert await door.names(everywhere) == []
    await door.eventually(pods, lambda found: not found["items"])


@on_nodes("[sig-apps] ReplicaSet should validate Replicaset Status endpoints")
async def set_status(door: Door) -> None:
    _, sets = await of_sets(door, "set-status")
    watch = await door.watch(sets, await door.revision(sets), "app=state")
    await door.create(sets, workload("state", 1))
    await door.eventually(f"{sets}/state", ready(1))
    assert (await door.get(f"{sets}/state/status"))["status"]["readyReplicas"] == 1
    await statuses(door, f"{sets}/state", watch)


@on_nodes("[sig-apps] ReplicationController should adopt matching pods on creation")
async def controller_adopts(door: Door) -> None:
    pods, controllers = await of_controllers(door, "rc-adopts")
    await adopts(door, pods, controllers, controller("pod-adoption"))


@on_nodes("[sig-apps] ReplicationController should release no longer matching pods")
async def controller_releases(door: Door) -> None:
    pods, controllers = await of_controllers(door, "rc-releases")
    await door.create(controllers, controller("pod-release"))
    await door.eventually(f"{controllers}/pod-release", ready(1))
    await releases(door, pods, controllers, "pod-release", "name")


@on_nodes("[sig-apps] ReplicationController should get and update a ReplicationController scale")
async def controller_scale(door: Door) -> None:
    _, controllers = await of_controllers(door, "rc-scale")
    await door.create(controllers, controller("scaled"))
    await door.eventually(f"{controllers}/scaled", ready(1))
    await scales(door, f"{controllers}/scaled", 1)


@on_nodes(
    "[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota"
)
async def controller_condition(door: Door) -> None:
    pods, controllers = await of_controllers(door, "rc-condition")
    quotas = pods.replace("/pods", "/resourcequotas")
    await door.create(quotas, QUOTA)
    await door.eventually(
        f"{quotas}/condition-test", lambda found: found["status"].get("hard") == {"pods": "2"}
    )
    await door.create(controllers, controller("condition-test", 3))
    path = f"{controllers}/condition-test"
    failed = await door.eventually(path, lambda found: condition(found, "ReplicaFailure"))
    why = condition(failed, "ReplicaFailure")
    assert (why["status"], why["reason"]) == ("True", "FailedCreate")
    assert why["message"].endswith(
        "is forbidden: exceeded quota: condition-test, requested: pods=1, used: pods=2, limited: pods=2"
    )
    await door.patch(path, {"spec": {"replicas": 2}})
    await door.eventually(path, lambda found: not condition(found, "ReplicaFailure"))
    await door.eventually(path, ready(2))


@on_nodes("[sig-apps] ReplicationController should test the lifecycle of a ReplicationController")
async def controller_lifecycle(door: Door) -> None:
    pods, controllers = await of_controllers(door, "rc-lifecycle")
    label = "test-rc-static=true"
    watch = await door.watch(controllers, await door.revision(controllers), label)
    body = controller("rc-test", 1)
    body["metadata"]["labels"] = {"test-rc-static": "true"}
    await door.create(controllers, body)
    await watch.until("ADDED", "rc-test")
    while (await watch.until("MODIFIED"))["status"].get("readyReplicas") != 1:
        pass
    path = f"{controllers}/rc-test"
    await door.patch(path, {"metadata": {"labels": {"test-rc": "patched"}}}, STRATEGIC)
    while (await watch.until("MODIFIED"))["metadata"]["labels"].get("test-rc") != "patched":
        pass
    fake = {"status": {"readyReplicas": 0, "availableReplicas": 0}}
    written = await door.patch(f"{path}/status", fake, STRATEGIC)
    assert not written["status"].get("readyReplicas") and not written["status"].get("availableReplicas")
    while (await watch.until("MODIFIED"))["status"].get("readyReplicas"):
        pass
    assert (await door.get(f"{path}/status"))["kind"] == "ReplicationController"
    await door.patch(f"{path}/scale", {"spec": {"replicas": 2}}, STRATEGIC)
    await door.eventually(path, ready(2))
    assert await door.names(f"/api/v1/replicationcontrollers?labelSelector={label}") == ["rc-test"]
    update = await door.get(path)
    update["metadata"]["labels"]["test-rc"] = "updated"
    await door.update(path, update)
    while (await watch.until("MODIFIED"))["metadata"]["labels"].get("test-rc") != "updated":
        pass
    await door.delete(f"{controllers}?labelSelector={label}")
    await watch.until("DELETED", "rc-test")
    left = await door.eventually(pods, all_of(2, lambda each: not owner_of(each)))
    assert all(map(is_ready, left["items"])), "version 1 orphans them when nobody says otherwise"
