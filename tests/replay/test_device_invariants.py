"""The invariant about devices finds what it is there for, and lets pass what is right."""

from __future__ import annotations

from typing import Any

from kcp.replay.device_invariants import CLAIMS, SLICES, DevicesOnce
from tests.replay.events import Writer
from tests.replay.test_workload_invariants import seen
from tests.scheduler.dra.objects import DRIVER, claim, device, exactly, slice_of

Json = dict[str, Any]


def holding(name: str, *results: Json) -> Json:
    rows = [
        {"request": "r0", "driver": DRIVER, "pool": "n", "device": "d", **result}
        for result in results or ({},)
    ]
    return {**claim(name, exactly()), "status": {"allocation": {"devices": {"results": rows}}}}


def test_a_device_of_two_claims_is_found() -> None:
    writer = Writer()
    first, again = (writer.put(CLAIMS, holding(name)) for name in ("c", "d"))
    assert seen(DevicesOnce(), [first]) == []
    (text,) = seen(DevicesOnce(), [first, again])
    assert text.endswith(f"d has device {DRIVER}/n/d, as has {first.key}")


def test_a_device_that_came_free_may_be_given_again() -> None:
    writer = Writer()
    events = [writer.put(CLAIMS, holding("c")), writer.put(CLAIMS, claim("c", exactly()))]
    events.append(writer.put(CLAIMS, holding("d")))
    assert seen(DevicesOnce(), events) == []


def test_administrators_do_not_count() -> None:
    writer = Writer()
    events = [writer.put(CLAIMS, holding("c")), writer.put(CLAIMS, holding("d", {"adminAccess": True}))]
    assert seen(DevicesOnce(), events) == []


def test_shares_beyond_the_capacity_are_found() -> None:
    writer = Writer()
    memory = {"memory": {"value": "80Gi"}}
    shared = device("d", allowMultipleAllocations=True, capacity=memory)
    share = {"consumedCapacity": {"memory": "40Gi"}}
    events = [writer.put(SLICES, slice_of("n", [shared]))]
    events.append(writer.put(CLAIMS, holding("c", {**share, "shareID": "1"}, {**share, "shareID": "2"})))
    assert seen(DevicesOnce(), events) == []
    events.append(writer.put(CLAIMS, holding("d", {**share, "shareID": "3"})))
    (text,) = seen(DevicesOnce(), events)
    assert text.endswith(f"120Gi of memory of device {DRIVER}/n/d are taken, it has 80Gi")
