"""What conformance asks of preemption and of PriorityClasses."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import JSON_PATCH, MERGE, STRATEGIC, Door
from tests.conformance.objects import APPS, condition, is_running, pod, workload
from tests.conformance.replicas import ready
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-scheduling] SchedulerPreemption [Serial] "
CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
FOO, FAKE_CPU = "scheduling.k8s.io/foo", "example.com/fakecpu"
FINALIZER = "example.com/stays"


async def classes(door: Door, **values: int) -> None:
    for name, value in values.items():
        await door.create(CLASSES, {"metadata": {"name": name}, "value": value})


async def rooms(door: Door, name: str, resource: str, amount: str) -> tuple[str, list[str]]:
    """Path of the pods of a fresh namespace, and the nodes, each of which has got that much of a resource."""
    core, nodes = await door.namespace(name), await door.names("/api/v1/nodes")
    for node in nodes:
        operation = {"op": "add", "path": f"/status/capacity/{resource.replace('/', '~1')}", "value": amount}
        await door.patch(f"/api/v1/nodes/{node}/status", [operation], JSON_PATCH)
        await door.eventually(
            f"/api/v1/nodes/{node}",
            lambda found: (
                found["status"]["allocatable"].get(resource) == found["status"]["capacity"][resource]
            ),
        )
    return f"{core}/pods", nodes


async def filled(door: Door, pods: str, nodes: list[str]) -> dict[str, str]:
    """Two pods on each node that take four of five: the very first of low priority, the others of medium."""
    made: dict[str, str] = {}
    for number, node in enumerate(each for each in nodes for _ in range(2)):
        priority = "low-priority" if number == 0 else "medium-priority"
        name = f"pod{number}-{priority}"
        body = pod(
            name,
            requests={FOO: "2"},
            priorityClassName=priority,
            nodeSelector={"kubernetes.io/hostname": node},
        )
        await door.create(pods, body)
        made[name] = (await door.eventually(f"{pods}/{name}", is_running))["metadata"]["uid"]
    return made


async def displaces(door: Door, pods: str, made: dict[str, str], preemptor: str) -> None:
    """Only the pod of low priority had to go."""
    await door.eventually(preemptor, is_running)
    low = next(name for name in made if "low" in name)
    await door.gone(f"{pods}/{low}")
    for name, uid in made.items():
        if name != low:
            found = await door.get(f"{pods}/{name}")
            assert found["metadata"]["uid"] == uid and "deletionTimestamp" not in found["metadata"]


@on_nodes(PREFIX + "validates basic preemption works", alone=2)
async def basic(door: Door) -> None:
    pods, nodes = await rooms(door, "preempt-basic", FOO, "5")
    await classes(door, **{"low-priority": 1, "medium-priority": 100, "high-priority": 1000})
    made = await filled(door, pods, nodes)
    await door.create(pods, pod("preemptor-pod", requests={FOO: "2"}, priorityClassName="high-priority"))
    await displaces(door, pods, made, f"{pods}/preemptor-pod")


@on_nodes(PREFIX + "validates lower priority pod preemption by critical pod", alone=2)
async def critical(door: Door) -> None:
    pods, nodes = await rooms(door, "preempt-critical", FOO, "5")
    await classes(door, **{"low-priority": 1, "medium-priority": 100})
    made = await filled(door, pods, nodes)
    system = "/api/v1/namespaces/kube-system/pods"
    body = pod("critical-pod", requests={FOO: "2"}, priorityClassName="system-cluster-critical")
    assert (await door.create(system, body))["spec"]["priority"] == 2_000_000_000
    await displaces(door, pods, made, f"{system}/critical-pod")


@on_nodes(PREFIX + "validates pod disruption condition is added to the preempted pod", alone=1)
async def disruption(door: Door) -> None:
    pods, nodes = await rooms(door, "preempt-condition", FOO, "1")
    await classes(door, **{"low-priority": 1, "high-priority": 1000})
    victim = pod("victim-pod", requests={FOO: "1"}, priorityClassName="low-priority")
    victim["metadata"]["finalizers"] = [FINALIZER]
    await door.create(pods, victim)
    await door.eventually(f"{pods}/victim-pod", is_running)
    await door.create(pods, pod("preemptor-pod", requests={FOO: "1"}, priorityClassName="high-priority"))
    found = await door.eventually(
        f"{pods}/victim-pod",
        lambda each: each["metadata"].get("deletionTimestamp") and condition(each, "DisruptionTarget"),
    )
    why = condition(found, "DisruptionTarget")
    assert (why["status"], why["reason"]) == ("True", "PreemptionByScheduler")
    assert why["message"] == "default-scheduler: preempting to accommodate a higher priority pod"
    nominated = await door.eventually(
        f"{pods}/preemptor-pod", lambda each: each["status"].get("nominatedNodeName")
    )
    assert nominated["status"]["nominatedNodeName"] == nodes[0]
    await door.patch(f"{pods}/victim-pod", {"metadata": {"finalizers": None}})
    await door.gone(f"{pods}/victim-pod")
    await door.eventually(f"{pods}/preemptor-pod", is_running)


@on_nodes(PREFIX + "PreemptionExecutionPath runs ReplicaSets to verify preemption running path", alone=2)
async def execution_path(door: Door) -> None:
    pods, nodes = await rooms(door, "preempt-path", FAKE_CPU, "1000")
    sets = f"{APPS.format('preempt-path')}/replicasets"
    await classes(door, p1=1, p2=2, p3=3, p4=4)
    watch = await door.watch(pods, await door.revision(pods))

    async def replica_set(name: str, replicas: int, amount: str) -> None:
        spec = {"priorityClassName": name, "nodeSelector": {"kubernetes.io/hostname": nodes[0]}}
        body = workload(name, replicas, pod=spec)
        wanted = {FAKE_CPU: amount}
        body["spec"]["template"]["spec"]["containers"][0]["resources"] = {
            "requests": wanted,
            "limits": wanted,
        }
        await door.create(sets, body)

    for name, replicas, amount in (("p1", 1, "200"), ("p2", 1, "300"), ("p3", 1, "450")):
        await replica_set(name, replicas, amount)
        await door.eventually(f"{sets}/{name}", ready(replicas))
    await replica_set("p4", 1, "500")
    await door.eventually(f"{sets}/p4", ready(1))
    made = {"p1": 0, "p2": 0, "p3": 0, "p4": 0}
    while any(count < expected for count, expected in zip(made.values(), (2, 2, 1, 1), strict=True)):
        event = await watch.next()
        made[event["object"]["metadata"]["labels"]["app"]] += event["type"] == "ADDED"
    await watch.silent(60)
    assert "ADDED" not in [event["type"] for event in watch.pending], "who went once may wait, not go again"
    found = await door.items(pods)
    running = sorted(each["metadata"]["labels"]["app"] for each in found if is_running(each))
    assert running == ["p3", "p4"], "the two lowest had to go: 450 and 500 of 1000 are left"


@on_nodes(
    PREFIX
    + "PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods"
)
async def priority_classes(door: Door) -> None:
    await classes(door, **{"endpoint-p1": 1, "endpoint-p2": 2})
    listed = {each["metadata"]["name"]: each for each in await door.items(CLASSES)}
    assert listed["endpoint-p1"]["value"] == 1
    for name, found in ((name, listed[name]) for name in ("endpoint-p1", "endpoint-p2")):
        path = f"{CLASSES}/{name}"
        for kind in (MERGE, STRATEGIC):
            assert (await door.patch(path, {"description": kind}, kind))["description"] == kind
            text = await door.refused(422, "PATCH", path, {"value": 9}, kind)
            assert "value: Forbidden: may not be changed in an update." in text
        updated = await door.update(path, {**found, "metadata": {"name": name}, "description": "updated"})
        assert updated["description"] == "updated"
        await door.refused(422, "PUT", path, {**updated, "value": 9})
        text = await door.refused(422, "PUT", path, {**updated, "preemptionPolicy": "Never"})
        assert "preemptionPolicy" in text
        assert (await door.get(path))["value"] == found["value"]
        await door.delete(path)
