"""What conformance asks of the scheduler's predicates, and of the cluster that it schedules to."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import Door
from tests.conformance.objects import condition, is_ready, is_running, pod
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-scheduling] SchedulerPredicates [Serial] "
BIG_CPU, SMALL_CPU = "2800m", "1500m"
"""Of the four cores of a node: one big pod fits, and nothing else of either size."""


async def never_scheduled(door: Door, path: str, *reasons: str) -> None:
    """The pod stays Pending, and its condition and an Event say why."""
    found = await door.eventually(path, lambda each: condition(each, "PodScheduled").get("status") == "False")
    why = condition(found, "PodScheduled")
    assert why["reason"] == "Unschedulable" and all(reason in why["message"] for reason in reasons), why
    await door.always(path, lambda each: "nodeName" not in each["spec"], 30)
    events = await door.items(path.rpartition("/pods/")[0] + "/events")
    name = path.rpartition("/")[2]
    assert any(
        (event["involvedObject"]["name"], event["reason"]) == (name, "FailedScheduling")
        and event["message"] == why["message"]
        for event in events
    )


@on_nodes(PREFIX + "validates resource limits of pods that are allowed to run", alone=2)
async def limits(door: Door) -> None:
    pods = await door.namespace("sched-limits") + "/pods"
    nodes = await door.names("/api/v1/nodes")
    for node in nodes:
        body = pod(f"filler-{node}", requests={"cpu": BIG_CPU}, nodeSelector={"kubernetes.io/hostname": node})
        await door.create(pods, body)
        assert (await door.eventually(f"{pods}/filler-{node}", is_running))["spec"]["nodeName"] == node
    await door.create(pods, pod("additional-pod", requests={"cpu": SMALL_CPU}))
    await never_scheduled(door, f"{pods}/additional-pod", "0/2 nodes are available:", "2 Insufficient cpu")
    await door.delete(f"{pods}/filler-{nodes[0]}")
    found = await door.eventually(f"{pods}/additional-pod", is_running)
    assert found["spec"]["nodeName"] == nodes[0]


@on_nodes(PREFIX + "validates that NodeSelector is respected if not matching")
async def no_match(door: Door) -> None:
    pods = await door.namespace("sched-no-match") + "/pods"
    await door.create(pods, pod("restricted-pod", nodeSelector={"label": "nonempty"}))
    text = "3 node(s) didn't match Pod's node affinity/selector"
    await never_scheduled(door, f"{pods}/restricted-pod", "0/3 nodes are available:", text)


@on_nodes(PREFIX + "validates that NodeSelector is respected if matching")
async def match(door: Door) -> None:
    pods = await door.namespace("sched-match") + "/pods"
    await door.create(pods, pod("without-label"))
    node = (await door.eventually(f"{pods}/without-label", is_running))["spec"]["nodeName"]
    key = "kubernetes.io/e2e-own-label"
    await door.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {key: "42"}}})
    await door.create(pods, pod("with-labels", nodeSelector={key: "42"}))
    found = await door.eventually(f"{pods}/with-labels", is_running)
    assert found["spec"]["nodeName"] == node
    await door.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {key: None}}})


def on_port(name: str, node: str, host_ip: str) -> Json:
    body = pod(name, nodeSelector={"kubernetes.io/hostname": node})
    port = {"containerPort": 80, "hostPort": 54322, "protocol": "TCP", "hostIP": host_ip}
    body["spec"]["containers"][0]["ports"] = [port]
    return body


@on_nodes(
    PREFIX
    + "validates that there exists conflict between pods with same hostPort and protocol but one using 0.0.0.0 hostIP"
)
async def host_ports(door: Door) -> None:
    pods = await door.namespace("sched-ports") + "/pods"
    node = (await door.items("/api/v1/nodes"))[0]
    name = node["metadata"]["name"]
    await door.create(pods, on_port("pod4", name, "0.0.0.0"))
    await door.eventually(f"{pods}/pod4", is_running)
    await door.create(pods, on_port("pod5", name, node["status"]["addresses"][0]["address"]))
    await never_scheduled(
        door, f"{pods}/pod5", "1 node(s) didn't have free ports for the requested pod ports"
    )


@on_nodes("[sig-architecture] Conformance Tests should have at least two untainted nodes")
async def two_nodes(door: Door) -> None:
    nodes = await door.items("/api/v1/nodes")
    usable = [node for node in nodes if is_ready(node) and not node["spec"].get("taints")]
    assert len([node for node in usable if not node["spec"].get("unschedulable")]) >= 2
