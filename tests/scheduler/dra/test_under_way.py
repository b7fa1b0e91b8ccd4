"""Allocations on their way into the log: they end when the log has them, whatever became of them there since."""

from __future__ import annotations

from typing import Any

from kcp.scheduler.dra.devices import CLAIMS, Devices

Json = dict[str, Any]
KEY = "default/c"
RESULT = {"request": "r", "driver": "d", "pool": "p", "device": "x"}
ALLOCATION: Json = {"devices": {"results": [RESULT]}}
DEVICE = ("d", "p", "x")


def claim(version: int, *, allocated: bool = False, uid: str = "u") -> Json:
    metadata = {"name": "c", "namespace": "default", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "status": {"allocation": ALLOCATION} if allocated else {}}


def under_way() -> Devices:
    devices = Devices()
    devices.apply(CLAIMS, KEY, None, claim(5))
    devices.take("pod", {KEY: ALLOCATION})
    assert devices.holders(DEVICE) == [KEY]
    return devices


def test_a_claim_that_was_freed_before_anybody_saw_its_devices_holds_none() -> None:
    """Found by simulation: a pod came and went while the watch of claims stood still; its devices stayed taken."""
    devices = under_way()
    devices.written(KEY, claim(10, allocated=True))
    devices.apply(CLAIMS, KEY, claim(5), claim(7))
    assert devices.holders(DEVICE) == [KEY], "an older version says nothing about it"
    devices.apply(CLAIMS, KEY, claim(7), claim(12))
    assert devices.holders(DEVICE) == [] and devices.ended == [KEY]


def test_so_does_one_whose_later_version_was_seen_before_the_answer_came() -> None:
    devices = under_way()
    devices.apply(CLAIMS, KEY, claim(5), claim(12))
    assert devices.holders(DEVICE) == [KEY]
    devices.written(KEY, claim(10, allocated=True))
    assert devices.holders(DEVICE) == []


def test_what_the_log_shows_stays_taken() -> None:
    devices = under_way()
    devices.written(KEY, claim(10, allocated=True))
    devices.apply(CLAIMS, KEY, claim(5), claim(10, allocated=True))
    assert devices.holders(DEVICE) == [KEY] and not devices.under_way


def test_another_allocation_of_the_claim_waits_for_its_own_version() -> None:
    devices = under_way()
    devices.written(KEY, claim(10, allocated=True))
    devices.apply(CLAIMS, KEY, claim(5), claim(12))
    devices.take("other", {KEY: ALLOCATION})
    devices.apply(CLAIMS, KEY, claim(12), claim(13))
    assert devices.holders(DEVICE) == [KEY]
