"""What conformance asks of PodDisruptionBudgets and of the Eviction API."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import MERGE, Door
from tests.conformance.objects import all_of, condition, is_ready, pod
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-apps] DisruptionController "
LABELS = {"foo": "bar"}


async def rooms(door: Door, name: str, pods: int = 0) -> tuple[str, str]:
    """Paths of that many ready pods, and of the budgets of a fresh namespace."""
    core = await door.namespace(name)
    for number in range(pods):
        await door.create(f"{core}/pods", pod(f"pod-{number}", labels=LABELS))
    await door.eventually(f"{core}/pods", all_of(pods, is_ready))
    return f"{core}/pods", f"/apis/policy/v1/namespaces/{name}/poddisruptionbudgets"


def budget(name: str = "foo", **spec: Any) -> Json:
    selector = {"selector": {"matchLabels": LABELS}}
    return {"metadata": {"name": name, "labels": LABELS}, "spec": {**selector, **spec}}


def processed(found: Json) -> bool:
    seen = (found.get("status") or {}).get("observedGeneration", 0)
    return bool(seen >= found["metadata"]["generation"])


def allows(count: int) -> Any:
    return lambda found: processed(found) and found["status"]["disruptionsAllowed"] == count


async def evict(door: Door, pods: str, name: str) -> Any:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    return await door.ask("POST", f"{pods}/{name}/eviction", eviction)


@on_nodes(PREFIX + "should create a PodDisruptionBudget")
async def created(door: Door) -> None:
    _, budgets = await rooms(door, "pdb-create")
    await door.create(budgets, budget(minAvailable="1%"))
    await door.eventually(f"{budgets}/foo", processed)
    read = await door.get(f"{budgets}/foo")
    read["spec"]["minAvailable"] = "2%"
    assert (await door.update(f"{budgets}/foo", read))["spec"]["minAvailable"] == "2%"
    await door.eventually(f"{budgets}/foo", processed)
    patched = await door.patch(f"{budgets}/foo", {"spec": {"minAvailable": "3%"}}, MERGE)
    assert (patched["spec"]["minAvailable"], patched["metadata"]["generation"]) == ("3%", 3)
    await door.eventually(f"{budgets}/foo", processed)
    await door.delete(f"{budgets}/foo")
    await door.gone(f"{budgets}/foo", 5)


@on_nodes(
    PREFIX
    + "Listing PodDisruptionBudgets for all namespaces should list and delete a collection of PodDisruptionBudgets"
)
async def listed(door: Door) -> None:
    _, here = await rooms(door, "pdb-here")
    _, there = await rooms(door, "pdb-there")
    for path, name in ((here, "foo"), (here, "foo2"), (there, "foo3")):
        await door.create(path, budget(name, minAvailable=1))
    everywhere = "/apis/policy/v1/poddisruptionbudgets?labelSelector=foo=bar"
    assert sorted(await door.names(everywhere)) == ["foo", "foo2", "foo3"]
    assert await door.names(here) == ["foo", "foo2"]
    await door.delete(f"{here}?labelSelector=foo=bar")
    assert await door.names(everywhere) == ["foo3"]


@on_nodes(PREFIX + "should observe PodDisruptionBudget status updated")
async def observed(door: Door) -> None:
    _, budgets = await rooms(door, "pdb-observe", pods=3)
    await door.create(budgets, budget(minAvailable=1))
    found = await door.eventually(f"{budgets}/foo", allows(2))
    status = found["status"]
    assert (status["currentHealthy"], status["desiredHealthy"], status["expectedPods"]) == (3, 1, 3)
    assert condition(found, "DisruptionAllowed")["reason"] == "SufficientPods"


@on_nodes(PREFIX + "should update/patch PodDisruptionBudget status")
async def status_endpoints(door: Door) -> None:
    pods, budgets = await rooms(door, "pdb-status", pods=1)
    await door.create(budgets, budget(minAvailable=1))
    read = await door.eventually(f"{budgets}/foo", processed)
    (name,) = await door.names(pods)
    read["status"]["disruptedPods"] = {name: "2026-01-01T00:00:00Z"}
    updated = await door.update(f"{budgets}/foo/status", read)
    assert list(updated["status"]["disruptedPods"]) == [name]
    patched = await door.patch(f"{budgets}/foo/status", {"status": {"disruptedPods": None}})
    assert not patched["status"].get("disruptedPods") and patched["spec"]["minAvailable"] == 1


@on_nodes(PREFIX + "should block an eviction until the PDB is updated to allow it")
async def blocks(door: Door) -> None:
    pods, budgets = await rooms(door, "pdb-block", pods=3)
    path = f"{budgets}/foo"

    async def refused() -> None:
        answer = await evict(door, pods, (await door.names(pods))[0])
        assert (answer.status, answer.value["reason"]) == (429, "TooManyRequests")
        assert answer.message == "Cannot evict pod as it would violate the pod's disruption budget."
        assert [each["reason"] for each in answer.value["details"]["causes"]] == ["DisruptionBudget"]

    async def accepted() -> None:
        name = (await door.names(pods))[0]
        answer = await evict(door, pods, name)
        assert answer.status == 201, answer
        await door.gone(f"{pods}/{name}")

    await door.create(budgets, budget(minAvailable=3))
    await door.eventually(path, allows(0))
    await refused()
    read = await door.get(path)
    read["spec"]["minAvailable"] = 2
    await door.update(path, read)
    await door.eventually(path, allows(1))
    await accepted()
    await door.eventually(path, allows(0))
    await refused()
    await door.patch(path, {"spec": {"maxUnavailable": 0, "minAvailable": None}})
    await door.eventually(path, allows(0))
    await refused()
    await door.delete(path)
    await door.gone(path)
    await accepted()
