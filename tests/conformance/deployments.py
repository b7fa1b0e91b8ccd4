"""What conformance asks of Deployments."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import STRATEGIC, Door
from tests.conformance.objects import (
    APPS,
    IMAGE,
    OTHER_IMAGE,
    THIRD_IMAGE,
    all_of,
    condition,
    images,
    is_ready,
    owner_of,
    workload,
)
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
REVISION = "deployment.kubernetes.io/revision"


async def rooms(door: Door, name: str) -> tuple[str, str, str]:
    """Paths of the pods, ReplicaSets and Deployments of a fresh namespace."""
    core, apps = await door.namespace(name) + "/pods", APPS.format(name)
    return core, f"{apps}/replicasets", f"{apps}/deployments"


def complete(replicas: int) -> Any:
    def holds(found: Json) -> bool:
        status = found["status"]
        return bool(
            status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            and status.get("updatedReplicas") == status.get("replicas") == replicas
            and status.get("availableReplicas") == replicas
            and not status.get("unavailableReplicas")
        )

    return holds


def new_image(image: str) -> Json:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}


@on_nodes("[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones")
async def rolling_update(door: Door) -> None:
    pods, sets, deployments = await rooms(door, "rolling")
    old = workload("rolling", 1)
    old["metadata"]["annotations"] = {REVISION: "3546343826724305832"}
    await door.create(sets, {**old, "metadata": {**old["metadata"], "name": "rolling-old"}})
    await door.eventually(pods, all_of(1, is_ready))
    await door.create(deployments, workload("rolling", 1, image=OTHER_IMAGE))
    await door.eventually(f"{deployments}/rolling", complete(1))
    found = await door.get(f"{deployments}/rolling")
    assert found["metadata"]["annotations"][REVISION] == "3546343826724305833"
    every = await door.items(sets)
    assert [owner_of(each) for each in every] == ["rolling", "rolling"]
    by_image = {each["spec"]["template"]["spec"]["containers"][0]["image"]: each for each in every}
    assert by_image[IMAGE]["spec"]["replicas"] == 0
    assert images(await door.eventually(pods, all_of(1, is_ready))) == [OTHER_IMAGE]


@on_nodes("[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones")
async def recreate(door: Door) -> None:
    pods, sets, deployments = await rooms(door, "recreate")
    await door.create(deployments, workload("again", 2, strategy={"type": "Recreate"}))
    await door.eventually(f"{deployments}/again", complete(2))
    watch = await door.watch(pods, await door.revision(pods))
    await door.patch(f"{deployments}/again", new_image(OTHER_IMAGE), STRATEGIC)
    await door.eventually(f"{deployments}/again", complete(2))
    gone = 0
    while gone < 2:
        event = await watch.next()
        image = event["object"]["spec"]["containers"][0]["image"]
        assert image == IMAGE, "a new pod runs beside an old one"
        gone += event["type"] == "DELETED"
    new = await watch.until("ADDED")
    assert new["spec"]["containers"][0]["image"] == OTHER_IMAGE
    replicas = sorted(each["spec"]["replicas"] for each in await door.items(sets))
    assert replicas == [0, 2]


@on_nodes("[sig-apps] Deployment deployment should delete old replica sets")
async def cleanup(door: Door) -> None:
    pods, sets, deployments = await rooms(door, "cleanup")
    await door.create(sets, workload("clean", 1))
    await door.eventually(pods, all_of(1, is_ready))
    await door.create(deployments, workload("clean", 1, image=OTHER_IMAGE, revisionHistoryLimit=0))
    await door.eventually(f"{deployments}/clean", complete(1))
    left = await door.eventually(sets, lambda found: len(found["items"]) == 1)
    assert left["items"][0]["spec"]["template"]["spec"]["containers"][0]["image"] == OTHER_IMAGE


@on_nodes("[sig-apps] Deployment deployment should support rollover")
async def rollover(door: Door) -> None:
    pods, sets, deployments = await rooms(door, "rollover")
    await door.create(sets, workload("over", 1))
    await door.eventually(pods, all_of(1, is_ready))
    slow = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}, "type": "RollingUpdate"}
    stuck = workload("over", 1, image="registry.invalid/none:1", minReadySeconds=10, strategy=slow)
    await door.create(deployments, stuck)
    await door.eventually(sets, all_of(2, lambda each: each["status"]["replicas"] == 1))
    await door.patch(f"{deployments}/over", new_image(THIRD_IMAGE), STRATEGIC)
    await door.eventually(f"{deployments}/over", complete(1))
    after = {
        each["spec"]["template"]["spec"]["containers"][0]["image"]: each["spec"]["replicas"]
        for each in await door.items(sets)
    }
    assert after == {IMAGE: 0, "registry.invalid/none:1": 0, THIRD_IMAGE: 1}
    annotations = (await door.get(f"{deployments}/over"))["metadata"]["annotations"]
    assert annotations[REVISION] == "2"


@on_nodes("[sig-apps] Deployment deployment should support proportional scaling")
async def proportional(door: Door) -> None:
    _, sets, deployments = await rooms(door, "proportional")
    strategy = {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}, "type": "RollingUpdate"}
    await door.create(deployments, workload("wide", 10, strategy=strategy))
    await door.eventually(f"{deployments}/wide", complete(10))
    first = (await door.items(sets))[0]["metadata"]["name"]
    await door.patch(f"{deployments}/wide", new_image("registry.invalid/none:404"), STRATEGIC)
    await door.eventually(
        sets,
        lambda found: (
            sorted(each["spec"]["replicas"] for each in found["items"]) == [5, 8]
            and all(each["status"]["replicas"] == each["spec"]["replicas"] for each in found["items"])
        ),
    )
    settled = await door.eventually(
        f"{deployments}/wide", lambda found: found["status"].get("availableReplicas") == 8
    )
    assert settled["status"]["observedGeneration"] == settled["metadata"]["generation"]
    await door.patch(f"{deployments}/wide", {"spec": {"replicas": 30}})
    wanted = {True: 20, False: 13}
    await door.eventually(
        sets,
        lambda found: (
            {each["metadata"]["name"] == first: each["spec"]["replicas"] for each in found["items"]} == wanted
        ),
    )


@on_nodes("[sig-apps] Deployment Deployment should have a working scale subresource")
async def scale(door: Door) -> None:
    _, _, deployments = await rooms(door, "deployment-scale")
    await door.create(deployments, workload("scaled", 1))
    await door.eventually(f"{deployments}/scaled", complete(1))
    path = f"{deployments}/scaled/scale"
    found = await door.get(path)
    assert (found["kind"], found["spec"]["replicas"]) == ("Scale", 1)
    found["metadata"]["resourceVersion"] = ""
    found["spec"]["replicas"] = 2
    assert (await door.update(path, found))["spec"]["replicas"] == 2
    assert (await door.get(f"{deployments}/scaled"))["spec"]["replicas"] == 2
    assert (await door.patch(path, {"spec": {"replicas": 4}}, STRATEGIC))["spec"]["replicas"] == 4
    assert (await door.get(f"{deployments}/scaled"))["spec"]["replicas"] == 4
    await door.eventually(f"{deployments}/scaled", complete(4))


@on_nodes("[sig-apps] Deployment should run the lifecycle of a Deployment")
async def lifecycle(door: Door) -> None:
    _, _, deployments = await rooms(door, "deployment-life")
    label = "test-deployment-static=true"
    watch = await door.watch(deployments, await door.revision(deployments), label)
    body = workload("life", 2, pod={"terminationGracePeriodSeconds": 1})
    body["metadata"]["labels"] = {"test-deployment-static": "true"}
    await door.create(deployments, body)
    await watch.until("ADDED", "life")
    while (await watch.until("MODIFIED"))["status"].get("readyReplicas") != 2:
        pass
    patch = new_image(OTHER_IMAGE)
    patch["metadata"] = {"labels": {"test-deployment": "patched"}}
    patch["spec"]["replicas"] = 1
    patch["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 2
    await door.patch(f"{deployments}/life", patch, STRATEGIC)
    patched = await door.eventually(f"{deployments}/life", complete(1))
    assert patched["status"]["readyReplicas"] == 1
    assert patched["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 2
    everywhere = f"/apis/apps/v1/deployments?labelSelector={label}"
    assert "life" in await door.names(everywhere)
    update = await door.get(f"{deployments}/life")
    update["metadata"]["labels"]["test-deployment"] = "updated"
    update["spec"]["replicas"] = 2
    update["spec"]["template"]["spec"]["containers"][0]["image"] = THIRD_IMAGE
    await door.update(f"{deployments}/life", update)
    await door.eventually(f"{deployments}/life", complete(2))
    status = await door.get(f"{deployments}/life/status")
    assert status["spec"]["template"]["spec"]["containers"][0]["image"] == THIRD_IMAGE
    fake = {
        "metadata": {"labels": {"test-deployment": "patched-status"}},
        "status": {"readyReplicas": 0, "availableReplicas": 0},
    }
    written = await door.patch(f"{deployments}/life/status", fake, STRATEGIC)
    assert not written["status"].get("readyReplicas")
    await door.eventually(
        f"{deployments}/life/status", lambda found: found["status"].get("readyReplicas") == 2
    )
    await door.delete(f"{deployments}?labelSelector={label}")
    assert await watch.until("DELETED", "life")


@on_nodes("[sig-apps] Deployment should validate Deployment Status endpoints")
async def status_endpoints(door: Door) -> None:
    _, _, deployments = await rooms(door, "deployment-status")
    watch = await door.watch(deployments, await door.revision(deployments), "e2e=testing")
    body = workload("state", 1)
    body["metadata"]["labels"] = {"e2e": "testing"}
    await door.create(deployments, body)
    await door.eventually(f"{deployments}/state", complete(1))
    read = await door.get(f"{deployments}/state/status")
    assert {each["type"] for each in read["status"]["conditions"]} == {"Available", "Progressing"}
    own = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    read["status"]["conditions"].append(own)
    updated = await door.update(f"{deployments}/state/status", read)
    assert condition(updated, "StatusUpdate")["message"] == "Set from e2e test"

    async def seen(type_: str) -> None:
        while not condition(await watch.until("MODIFIED"), type_):
            pass

    await seen("StatusUpdate")
    patch = {"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}}
    await door.patch(f"{deployments}/state/status", patch)
    await seen("StatusPatched")
