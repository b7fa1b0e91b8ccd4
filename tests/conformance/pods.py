"""What conformance asks of pods on a node, as far as the API shows it."""

from __future__ import annotations

import ipaddress
from typing import Any

from tests.conformance.door import STRATEGIC, Door
from tests.conformance.objects import (
    OTHER_IMAGE,
    all_of,
    condition,
    container,
    is_ready,
    is_running,
    pod,
)
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-node] "
CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


def phase(name: str) -> Any:
    return lambda found: found["status"].get("phase") == name


def inits(*scripts: str) -> list[Json]:
    return [container(f"init{number}", script) for number, script in enumerate(scripts, 1)]


def states(found: Json, field: str) -> list[Json]:
    return [each["state"] for each in found["status"][field]]


# -- the life of a pod


@on_nodes(PREFIX + "Pods should be submitted and removed [NodeConformance]")
async def submitted(door: Door) -> None:
    pods = await door.namespace("pods-submit") + "/pods"
    assert await door.items(f"{pods}?labelSelector=time=now") == []
    watch = await door.watch(pods, await door.revision(pods), "time=now")
    body = pod("submitted", labels={"name": "foo", "time": "now"}, annotations={"sim.kcp/stop": "2s"})
    await door.create(pods, body)
    assert await door.names(f"{pods}?labelSelector=time=now") == ["submitted"]
    await watch.until("ADDED", "submitted")
    await door.eventually(f"{pods}/submitted", is_running)
    await door.delete(f"{pods}/submitted", {"gracePeriodSeconds": 30})
    while not (seen := await watch.until("MODIFIED"))["metadata"].get("deletionTimestamp"):
        pass
    assert seen["metadata"]["deletionGracePeriodSeconds"] == 30
    last = await watch.until("DELETED", "submitted")
    assert last["metadata"]["deletionTimestamp"]
    assert last["status"]["containerStatuses"][0]["state"]["terminated"]
    assert await door.items(f"{pods}?labelSelector=time=now") == []


@on_nodes(PREFIX + "Pods should be updated [NodeConformance]")
async def updated(door: Door) -> None:
    pods = await door.namespace("pods-update") + "/pods"
    await door.create(pods, pod("updated", labels={"name": "foo", "time": "now"}))
    await door.eventually(f"{pods}/updated", is_ready)
    assert await door.names(f"{pods}?labelSelector=time=now") == ["updated"]
    read = await door.get(f"{pods}/updated")
    read["metadata"]["labels"]["time"] = "later"
    await door.update(f"{pods}/updated", read)
    assert await door.names(f"{pods}?labelSelector=time=later") == ["updated"]
    assert await door.names(f"{pods}?labelSelector=time=now") == []
    after = await door.get(f"{pods}/updated")
    assert is_running(after) and after["status"]["containerStatuses"][0]["restartCount"] == 0


@on_nodes(PREFIX + "Pods should get a host IP [NodeConformance]")
async def host_ip(door: Door) -> None:
    pods = await door.namespace("pods-host-ip") + "/pods"
    await door.create(pods, pod("hosted"))
    found = await door.eventually(f"{pods}/hosted", is_running)
    node = await door.get(f"/api/v1/nodes/{found['spec']['nodeName']}")
    internal = [a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP"]
    assert found["status"]["hostIP"] in internal and ipaddress.ip_address(found["status"]["hostIP"])
    assert found["status"]["hostIPs"][0] == {"ip": found["status"]["hostIP"]}


@on_nodes(PREFIX + "Pods should allow activeDeadlineSeconds to be updated [NodeConformance]")
async def active_deadline(door: Door) -> None:
    pods = await door.namespace("pods-deadline") + "/pods"
    await door.create(pods, pod("deadline", labels={"time": "now"}))
    assert await door.names(f"{pods}?labelSelector=time=now") == ["deadline"]
    await door.eventually(f"{pods}/deadline", is_running)
    read = await door.get(f"{pods}/deadline")
    read["spec"]["activeDeadlineSeconds"] = 5
    await door.update(f"{pods}/deadline", read)
    found = await door.eventually(f"{pods}/deadline", phase("Failed"), 60)
    assert found["status"]["reason"] == "DeadlineExceeded"
    assert found["status"]["message"] == "Pod was active on the node longer than the specified deadline"


@on_nodes(PREFIX + "Pods should delete a collection of pods")
async def of_many(door: Door) -> None:
    pods = await door.namespace("pods-many") + "/pods"
    for number in range(3):
        await door.create(pods, pod(f"test-pod-{number}", labels={"type": "Testing"}))
    await door.eventually(f"{pods}?labelSelector=type=Testing", all_of(3, is_running))
    await door.delete(f"{pods}?labelSelector=type=Testing")
    await door.eventually(f"{pods}?labelSelector=type=Testing", lambda found: not found["items"])


@on_nodes(PREFIX + "Pods should patch a pod status")
async def patched_status(door: Door) -> None:
    pods = await door.namespace("pods-status") + "/pods"
    await door.create(pods, pod("patched"))
    await door.eventually(f"{pods}/patched", is_running)
    body = {"status": {"message": "Patched by e2e test", "reason": "E2E"}}
    patched = await door.patch(f"{pods}/patched/status", body, STRATEGIC)
    assert {key: patched["status"][key] for key in body["status"]} == body["status"]
    assert patched["status"]["podIP"] and is_running(patched)


@on_nodes(PREFIX + "Pods should run through the lifecycle of Pods and PodStatus")
async def lifecycle(door: Door) -> None:
    pods = await door.namespace("pods-lifecycle") + "/pods"
    label = "test-pod-static=true"
    watch = await door.watch(pods, await door.revision(pods), label)
    await door.create(pods, pod("life", labels={"test-pod-static": "true"}))
    await watch.until("ADDED", "life")
    while not is_ready(await watch.until("MODIFIED")):
        pass
    change = {
        "metadata": {"labels": {"test-pod": "patched"}},
        "spec": {"containers": [{"name": "main", "image": OTHER_IMAGE}]},
    }
    patched = await door.patch(f"{pods}/life", change, STRATEGIC)
    assert patched["spec"]["containers"][0]["image"] == OTHER_IMAGE
    restarted = await door.eventually(
        f"{pods}/life",
        lambda found: is_ready(found) and found["status"]["containerStatuses"][0]["restartCount"] == 1,
    )
    assert restarted["status"]["containerStatuses"][0]["image"] == OTHER_IMAGE
    status = await door.get(f"{pods}/life/status")
    for type_ in ("Ready", "ContainersReady"):
        condition(status, type_).update(status="False")
    replaced = await door.update(f"{pods}/life/status", status)
    assert condition(replaced, "Ready")["status"] == "False"
    assert await door.names(f"/api/v1/pods?labelSelector={label}") == ["life"]
    await door.delete(f"{pods}?labelSelector={label}", {"gracePeriodSeconds": 0})
    await watch.until("DELETED", "life")


# -- containers that end


@on_nodes(PREFIX + "InitContainer [NodeConformance] should invoke init containers on a RestartNever pod")
async def inits_never(door: Door) -> None:
    pods = await door.namespace("init-never") + "/pods"
    body = pod("init", "exit 0", restartPolicy="Never", initContainers=inits("true", "true"))
    await door.create(pods, body)
    found = await door.eventually(f"{pods}/init", phase("Succeeded"))
    assert condition(found, "Initialized")["status"] == "True"
    for state in (*states(found, "initContainerStatuses"), *states(found, "containerStatuses")):
        assert state["terminated"]["exitCode"] == 0
    assert all(each["ready"] for each in found["status"]["initContainerStatuses"])


@on_nodes(PREFIX + "InitContainer [NodeConformance] should invoke init containers on a RestartAlways pod")
async def inits_always(door: Door) -> None:
    pods = await door.namespace("init-always") + "/pods"
    await door.create(pods, pod("init", initContainers=inits("true", "true")))
    found = await door.eventually(f"{pods}/init", is_running)
    assert condition(found, "Initialized")["status"] == "True"
    assert [state["terminated"]["exitCode"] for state in states(found, "initContainerStatuses")] == [0, 0]
    assert all("running" in state for state in states(found, "containerStatuses"))


async def failing(door: Door, namespace: str) -> str:
    """The path of a pod whose only container always fails."""
    pods = await door.namespace(namespace) + "/pods"
    await door.create(pods, pod("bin-false", "false", restartPolicy="Never"))
    return f"{pods}/bin-false"


@on_nodes(
    PREFIX
    + "Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason [NodeConformance]"
)
async def terminated_reason(door: Door) -> None:
    found = await door.eventually(await failing(door, "fails-reason"), phase("Failed"))
    (state,) = states(found, "containerStatuses")
    assert (state["terminated"]["exitCode"], state["terminated"]["reason"]) == (1, "Error")


@on_nodes(
    PREFIX
    + "Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete [NodeConformance]"
)
async def deletable(door: Door) -> None:
    path = await failing(door, "fails-delete")
    await door.eventually(path, phase("Failed"))
    await door.delete(path)
    await door.gone(path)


# -- runtime classes


async def of_class(door: Door, namespace: str, **more: Any) -> Json:
    """A pod of a runtime class that has a node."""
    pods = await door.namespace(namespace) + "/pods"
    await door.create(CLASSES, {"metadata": {"name": namespace}, "handler": "runc", **more})
    await door.create(pods, pod("classy", runtimeClassName=namespace))
    found: Json = await door.eventually(
        f"{pods}/classy", lambda each: condition(each, "PodScheduled").get("status") == "True"
    )
    assert found["spec"]["nodeName"]
    await door.delete(f"{CLASSES}/{namespace}")
    return found


@on_nodes(
    PREFIX
    + "RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead [NodeConformance]"
)
async def with_overhead(door: Door) -> None:
    fixed = {"cpu": "10m", "memory": "1Mi"}
    found = await of_class(door, "class-overhead", overhead={"podFixed": fixed})
    assert found["spec"]["overhead"] == fixed


@on_nodes(
    PREFIX
    + "RuntimeClass should schedule a Pod requesting a RuntimeClass without PodOverhead [NodeConformance]"
)
async def without_overhead(door: Door) -> None:
    assert "overhead" not in (await of_class(door, "class-plain"))["spec"]
