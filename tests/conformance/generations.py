"""What conformance asks of the generations of pods."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import MERGE, STRATEGIC, Door
from tests.conformance.objects import is_running, pod
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-node] Pods Extended (pod generation) Pod Generation "
FINALIZER = "example.com/stays"


def observed(generation: int) -> Any:
    return lambda found: (
        found["metadata"]["generation"] == generation
        and found["status"].get("observedGeneration") == generation
    )


@on_nodes(PREFIX + "pod generation should start at 1 and increment per update [MinimumKubeletVersion:1.34]")
async def increments(door: Door) -> None:
    pods = await door.namespace("pod-generations") + "/pods"
    made = await door.create(pods, pod("p", requests={"cpu": "100m", "memory": "50Mi"}))
    assert made["metadata"]["generation"] == 1
    await door.eventually(f"{pods}/p", lambda found: is_running(found) and observed(1)(found))
    toleration = {"key": "foo-sched", "operator": "Exists", "effect": "NoSchedule"}
    both = (await door.get(f"{pods}/p"))["spec"]["tolerations"]
    steps: tuple[tuple[Json, str, int], ...] = (
        ({"spec": {"activeDeadlineSeconds": 600}}, STRATEGIC, 1),
        ({"spec": {"containers": [{"name": "main", "image": "registry.example/app:2"}]}}, STRATEGIC, 1),
        ({"spec": {"tolerations": [*both, toleration]}}, MERGE, 1),
        ({"metadata": {"labels": {"no": "generation"}}}, STRATEGIC, 0),
        ({"metadata": {"annotations": {"no": "generation"}}}, STRATEGIC, 0),
        ({"spec": {"activeDeadlineSeconds": 500}}, STRATEGIC, 1),
    )
    generation = 1
    for patch, kind, more in steps:
        generation += more
        assert (await door.patch(f"{pods}/p", patch, kind))["metadata"]["generation"] == generation, patch
        await door.eventually(f"{pods}/p", observed(generation))
    smaller = {"requests": {"cpu": "90m", "memory": "50Mi"}, "limits": {"cpu": "90m", "memory": "50Mi"}}
    resize = {"spec": {"containers": [{"name": "main", "resources": smaller}]}}
    resized = await door.patch(f"{pods}/p/resize", resize, STRATEGIC)
    assert resized["metadata"]["generation"] == generation + 1
    debugger = {"name": "debugger", "image": "registry.example/debug:1"}
    added = await door.patch(
        f"{pods}/p/ephemeralcontainers", {"spec": {"ephemeralContainers": [debugger]}}, STRATEGIC
    )
    assert added["metadata"]["generation"] == generation + 2
    settled = await door.eventually(f"{pods}/p", observed(generation + 2))
    for each in settled["status"]["conditions"]:
        assert each["type"] == "PodScheduled" or each["observedGeneration"] <= generation + 2


@on_nodes(PREFIX + "custom-set generation on new pods and graceful delete")
async def own_and_delete(door: Door) -> None:
    pods = await door.namespace("pod-generation-delete") + "/pods"
    body = pod("p")
    body["metadata"].update(generation=100, finalizers=[FINALIZER])
    assert (await door.create(pods, body))["metadata"]["generation"] == 1
    await door.eventually(f"{pods}/p", lambda found: is_running(found) and observed(1)(found))
    await door.delete(f"{pods}/p")
    found = await door.eventually(f"{pods}/p", lambda each: each["metadata"].get("deletionTimestamp"))
    assert found["metadata"]["generation"] == 2
    await door.eventually(f"{pods}/p", observed(2))
    await door.patch(f"{pods}/p", {"metadata": {"finalizers": None}})
    await door.gone(f"{pods}/p")


@on_nodes(
    PREFIX
    + "issue 500 podspec updates and verify generation and observedGeneration eventually converge [MinimumKubeletVersion:1.34]"
)
async def converge(door: Door) -> None:
    pods = await door.namespace("pod-generation-500") + "/pods"
    await door.create(pods, pod("p", activeDeadlineSeconds=5000))
    await door.eventually(f"{pods}/p", is_running)
    for number in range(499):
        await door.patch(f"{pods}/p", {"spec": {"activeDeadlineSeconds": 4999 - number}})
    assert (await door.get(f"{pods}/p"))["metadata"]["generation"] == 500
    await door.eventually(f"{pods}/p", observed(500))
