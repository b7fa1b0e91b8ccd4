"""What conformance asks of the resize of running pods, as far as the API shows it."""

from __future__ import annotations

from typing import Any

from tests.conformance.containers import pods_of
from tests.conformance.door import STRATEGIC, Door
from tests.conformance.objects import condition, container, is_ready, pod
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-node] Pod InPlace Resize Container "


def amounts(cpu: str = "", memory: str = "") -> Json:
    return {name: amount for name, amount in (("cpu", cpu), ("memory", memory)) if amount}


def same(cpu: str, memory: str) -> Json:
    """Limits that equal the requests."""
    return {"requests": amounts(cpu, memory), "limits": amounts(cpu, memory)}


def between(requests: Json, limits: Json) -> Json:
    return {field: each for field, each in (("requests", requests), ("limits", limits)) if each}


async def with_containers(door: Door, namespace: str, *resources: Json) -> str:
    """The path of a ready pod with containers c1, c2, … of those resources."""
    pods = await pods_of(door, namespace)
    body = pod("resized")
    body["spec"]["containers"] = [
        {**container(f"c{number}"), "resources": each} for number, each in enumerate(resources, 1)
    ]
    await door.create(pods, body)
    await door.eventually(f"{pods}/resized", is_ready)
    return f"{pods}/resized"


def patch_of(*resources: Json) -> Json:
    listed = [{"name": f"c{number}", "resources": each} for number, each in enumerate(resources, 1)]
    return {"spec": {"containers": listed}}


async def becomes(door: Door, path: str, quality: str, *resources: Json) -> Json:
    """Spec and status have those resources, in containers that were not started again."""
    wanted = {f"c{number}": each for number, each in enumerate(resources, 1)}

    def holds(found: Json) -> bool:
        statuses = found["status"]["containerStatuses"]
        in_force = {each["name"]: each.get("resources") or {} for each in statuses}
        over = not condition(found, "PodResizePending") and not condition(found, "PodResizeInProgress")
        seen = found["status"].get("observedGeneration") == found["metadata"]["generation"]
        return in_force == wanted and over and seen

    found: Json = await door.eventually(path, holds)
    assert {each["name"]: each.get("resources") or {} for each in found["spec"]["containers"]} == wanted
    for status in found["status"]["containerStatuses"]:
        assert status["restartCount"] == 0 and "running" in status["state"]
        requests = wanted[status["name"]].get("requests")
        assert status.get("allocatedResources") == requests
    assert found["status"]["qosClass"] == quality
    return found


async def resizes(
    door: Door, namespace: str, quality: str, before: tuple[Json, ...], after: tuple[Json, ...]
) -> None:
    path = await with_containers(door, namespace, *before)
    await becomes(door, path, quality, *before)
    await door.patch(f"{path}/resize", patch_of(*after), STRATEGIC)
    await becomes(door, path, quality, *after)


GUARANTEED = (same("20m", "20Mi"), same("22m", "22Mi"), same("24m", "24Mi"))
THREE = PREFIX + "guaranteed pods with multiple containers 3 containers - "


@on_nodes(
    THREE
    + "increase cpu & mem on c1, c2, decrease cpu & mem on c3 - net increase [MinimumKubeletVersion:1.34]"
)
async def net_increase(door: Door) -> None:
    after = (same("25m", "25Mi"), same("27m", "27Mi"), same("19m", "19Mi"))
    await resizes(door, "resize-increase", "Guaranteed", GUARANTEED, after)


@on_nodes(
    THREE
    + "increase cpu & mem on c1, decrease cpu & mem on c2, c3 - net decrease [MinimumKubeletVersion:1.34]"
)
async def net_decrease(door: Door) -> None:
    after = (same("25m", "25Mi"), same("17m", "17Mi"), same("19m", "19Mi"))
    await resizes(door, "resize-decrease", "Guaranteed", GUARANTEED, after)


@on_nodes(THREE + "increase: CPU (c1,c3), memory (c2, c3) ; decrease: CPU (c2) [MinimumKubeletVersion:1.34]")
async def mixed(door: Door) -> None:
    after = (same("25m", "20Mi"), same("17m", "27Mi"), same("29m", "29Mi"))
    await resizes(door, "resize-mixed", "Guaranteed", GUARANTEED, after)


@on_nodes(
    PREFIX
    + "burstable pods - extended 6 containers - various operations performed (including adding limits and requests) [MinimumKubeletVersion:1.34]"
)
async def burstable(door: Door) -> None:
    before: tuple[Json, ...] = (
        {},
        between(amounts("20m"), {}),
        between(amounts(memory="20Mi"), {}),
        between(amounts("20m", "20Mi"), {}),
        between(amounts("20m", "20Mi"), amounts("30m", "30Mi")),
        between(amounts("20m"), amounts("30m")),
    )
    after = (
        between(amounts("20m", "20Mi"), amounts("30m", "30Mi")),
        between(amounts("25m"), amounts("35m")),
        between(amounts("15m", "25Mi"), {}),
        between(amounts("20m", "20Mi"), amounts("30m", "30Mi")),
        between(amounts("15m", "25Mi"), amounts("25m", "35Mi")),
        between(amounts("15m", "20Mi"), amounts("35m", "40Mi")),
    )
    await resizes(door, "resize-burstable", "Burstable", before, after)


@on_nodes(PREFIX + "burstable pods - extended resize with equivalents [MinimumKubeletVersion:1.34]")
async def equivalents(door: Door) -> None:
    before, after = (between(amounts(one), amounts(other)) for one, other in (("2m", "10m"), ("1m", "5m")))
    await resizes(door, "resize-equivalents", "Burstable", (before,), (after,))


@on_nodes(PREFIX + "resize pod via the replace endpoint [MinimumKubeletVersion:1.34]")
async def replaced(door: Door) -> None:
    path = await with_containers(door, "resize-replace", same("20m", "20Mi"))
    read = await door.get(f"{path}/resize")
    read["spec"]["containers"][0]["resources"] = same("25m", "25Mi")
    await door.update(f"{path}/resize", read)
    found = await becomes(door, path, "Guaranteed", same("25m", "25Mi"))
    assert await door.get(f"{path}/resize") == found
