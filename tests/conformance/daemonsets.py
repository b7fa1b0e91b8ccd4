"""What conformance asks of DaemonSets and of the revisions that they keep."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import STRATEGIC, Door
from tests.conformance.objects import (
    APPS,
    IMAGE,
    OTHER_IMAGE,
    all_of,
    images,
    is_ready,
    owner_of,
    reference,
    workload,
)
from tests.conformance.replicas import statuses
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-apps] Daemon set [Serial] "
COLOR = "daemonset-color"
HASH = "controller-revision-hash"


async def rooms(door: Door, name: str) -> tuple[str, str, list[str]]:
    """Paths of the pods and DaemonSets of a fresh namespace, and the nodes' names."""
    core = await door.namespace(name)
    return f"{core}/pods", f"{APPS.format(name)}/daemonsets", await door.names("/api/v1/nodes")


def daemon(**more: Any) -> Json:
    return workload("ds", None, **more)


def on_each(nodes: list[str], image: str = "") -> Any:
    """One ready pod per node, all with the image."""

    def holds(found: Json) -> bool:
        places = sorted(pod["spec"].get("nodeName", "") for pod in found["items"])
        right = not image or set(images(found)) == {image}
        return places == sorted(nodes) and right and all(map(is_ready, found["items"]))

    return holds


@on_nodes(PREFIX + "should run and stop simple daemon")
async def simple(door: Door) -> None:
    pods, sets, nodes = await rooms(door, "ds-simple")
    await door.create(sets, daemon())
    await door.eventually(pods, on_each(nodes))
    name = (await door.names(pods))[0]
    await door.delete(f"{pods}/{name}")
    await door.eventually(pods, lambda found: on_each(nodes)(found) and name not in str(found))
    status = (
        await door.eventually(
            f"{sets}/ds", lambda found: found["status"].get("numberAvailable") == len(nodes)
        )
    )["status"]
    assert (status["desiredNumberScheduled"], status["numberMisscheduled"]) == (len(nodes), 0)
    await door.delete(f"{sets}/ds", {"propagationPolicy": "Background"})
    await door.eventually(pods, lambda found: not found["items"])


@on_nodes(PREFIX + "should run and stop complex daemon")
async def complicated(door: Door) -> None:
    pods, sets, nodes = await rooms(door, "ds-complex")
    node = f"/api/v1/nodes/{nodes[0]}"
    await door.create(sets, daemon(pod={"nodeSelector": {COLOR: "blue"}}))
    await door.eventually(f"{sets}/ds", lambda found: found["status"].get("observedGeneration") == 1)
    await door.always(pods, lambda found: not found["items"], 5)
    await door.patch(node, {"metadata": {"labels": {COLOR: "blue"}}})
    await door.eventually(pods, on_each(nodes[:1]))
    await door.patch(node, {"metadata": {"labels": {COLOR: "green"}}})
    await door.eventually(pods, lambda found: not found["items"])
    spec = {"updateStrategy": {"type": "RollingUpdate"}}
    template = {"template": {"spec": {"nodeSelector": {COLOR: "green"}}}}
    await door.patch(f"{sets}/ds", {"spec": {**spec, **template}}, STRATEGIC)
    await door.eventually(pods, on_each(nodes[:1]))
    await door.patch(node, {"metadata": {"labels": {COLOR: None}}})
    await door.eventually(pods, lambda found: not found["items"])


@on_nodes(PREFIX + "should retry creating failed daemon pods")
async def retries(door: Door) -> None:
    pods, sets, nodes = await rooms(door, "ds-retries")
    await door.create(sets, daemon())
    found = await door.eventually(pods, on_each(nodes))
    name = found["items"][0]["metadata"]["name"]
    failed = await door.get(f"{pods}/{name}")
    failed["status"]["phase"] = "Failed"
    failed["metadata"]["resourceVersion"] = ""
    await door.update(f"{pods}/{name}/status", failed)
    await door.gone(f"{pods}/{name}")
    await door.eventually(pods, on_each(nodes))


@on_nodes(PREFIX + "should update pod when spec was updated and update strategy is RollingUpdate")
async def rolling(door: Door) -> None:
    pods, sets, nodes = await rooms(door, "ds-rolling")
    revisions = sets.replace("daemonsets", "controllerrevisions")
    await door.create(sets, daemon(updateStrategy={"type": "RollingUpdate"}))
    await door.eventually(pods, on_each(nodes, IMAGE))
    (first,) = await door.items(revisions)
    assert first["revision"] == 1
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": OTHER_IMAGE}]}}}}
    await door.patch(f"{sets}/ds", image, STRATEGIC)
    found = await door.eventually(pods, on_each(nodes, OTHER_IMAGE))
    hashes = {pod["metadata"]["labels"][HASH] for pod in found["items"]}
    newest = max(await door.items(revisions), key=lambda each: int(each["revision"]))
    assert newest["revision"] == 2 and hashes == {newest["metadata"]["labels"][HASH]}


@on_nodes(PREFIX + "should rollback without unnecessary restarts")
async def rollback(door: Door) -> None:
    pods, sets, nodes = await rooms(door, "ds-rollback")
    await door.create(sets, daemon(updateStrategy={"type": "RollingUpdate"}))
    before = await door.eventually(pods, on_each(nodes))
    bad = "registry.invalid/non-existent:1"
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": bad}]}}}}
    await door.patch(f"{sets}/ds", image, STRATEGIC)
    midway = await door.eventually(pods, lambda found: bad in images(found))
    kept = {
        pod["metadata"]["uid"]
        for pod in midway["items"]
        if images({"items": [pod]}) == [IMAGE] and not pod["metadata"].get("deletionTimestamp")
    }
    assert kept and kept < {pod["metadata"]["uid"] for pod in before["items"]}
    image["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    await door.patch(f"{sets}/ds", image, STRATEGIC)
    after = await door.eventually(pods, on_each(nodes, IMAGE))
    assert kept <= {pod["metadata"]["uid"] for pod in after["items"]}
    assert all(pod["status"]["containerStatuses"][0]["restartCount"] == 0 for pod in after["items"])


@on_nodes(PREFIX + "should list and delete a collection of DaemonSets")
async def of_many(door: Door) -> None:
    pods, sets, nodes = await rooms(door, "ds-many")
    await door.create(sets, daemon())
    await door.eventually(pods, on_each(nodes))
    everywhere = "/apis/apps/v1/daemonsets?labelSelector=app=ds"
    assert await door.names(everywhere) == ["ds"]
    await door.delete(f"{sets}?labelSelector=app=ds")
    assert await door.names(everywhere) == []
    await door.eventually(pods, lambda found: not found["items"])


@on_nodes(PREFIX + "should verify changes to a daemon set status")
async def status_endpoints(door: Door) -> None:
    pods, sets, nodes = await rooms(door, "ds-status")
    watch = await door.watch(sets, await door.revision(sets), "app=ds")
    await door.create(sets, daemon())
    await door.eventually(pods, on_each(nodes))
    assert (await door.get(f"{sets}/ds/status"))["status"]["desiredNumberScheduled"] == len(nodes)
    await statuses(door, f"{sets}/ds", watch)


@on_nodes("[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision")
async def revision_lifecycle(door: Door) -> None:
    pods, sets, nodes = await rooms(door, "ds-revisions")
    revisions = sets.replace("daemonsets", "controllerrevisions")
    made = await door.create(sets, daemon())
    await door.eventually(pods, on_each(nodes))
    assert len(await door.items("/apis/apps/v1/controllerrevisions?labelSelector=app=ds")) == 1
    (initial,) = await door.items(revisions)
    name = initial["metadata"]["name"]
    assert (await door.get(f"{revisions}/{name}"))["revision"] == 1 and owner_of(initial) == "ds"
    labels = {**initial["metadata"]["labels"], name: "patched"}
    patched = await door.patch(f"{revisions}/{name}", {"metadata": {"labels": {name: "patched"}}}, STRATEGIC)
    assert patched["metadata"]["labels"] == labels
    owner = reference("apps/v1", "DaemonSet", made, controller=True, blockOwnerDeletion=True)
    other = {
        "metadata": {
            "generateName": "ds-",
            "labels": {"app": "ds", HASH: "by-hand"},
            "ownerReferences": [owner],
        },
        "data": initial["data"],
        "revision": initial["revision"] + 1,
    }
    by_hand = await door.create(revisions, other)
    second = by_hand["metadata"]["name"]
    assert second.startswith("ds-")
    await door.delete(f"{revisions}/{name}")
    await door.gone(f"{revisions}/{name}", 5)
    await door.eventually(revisions, all_of(1, lambda each: each["metadata"]["name"] == second))
    update = await door.get(f"{revisions}/{second}")
    update["metadata"]["labels"][second] = "updated"
    assert (await door.update(f"{revisions}/{second}", update))["metadata"]["labels"][second] == "updated"
    grace = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}}
    await door.patch(f"{sets}/ds", grace, STRATEGIC)
    await door.eventually(revisions, lambda found: len(found["items"]) == 2)
    await door.eventually(
        pods,
        lambda found: (
            on_each(nodes)(found)
            and all(pod["spec"]["terminationGracePeriodSeconds"] == 1 for pod in found["items"])
        ),
    )
    await door.delete(f"{revisions}?labelSelector={second}=updated")
    (left,) = await door.items(revisions)
    assert left["revision"] == by_hand["revision"] + 1
