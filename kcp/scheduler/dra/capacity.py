"""How much of a device's capacity a request takes: asked for, rounded up to what the device's policy allows.

Source: k8s v1.36 staging/src/k8s.io/dynamic-resource-allocation/structured/internal/incubating/consumable_capacity.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.machinery.quantity import Quantity, parse
from kcp.scheduler.dra.pools import Device

Json = dict[str, Any]
Amounts = Mapping[str, Quantity]


def consumed_of(device: Device, requests: Mapping[str, str]) -> dict[str, Quantity] | None:
    """By capacity, what the request takes of this device; None when the device lacks it or its policy refuses."""
    capacities = device.object.get("capacity") or {}
    if any(name not in capacities for name in requests):
        return None
    asked = {name: parse(amount) for name, amount in requests.items()}
    consumed: dict[str, Quantity] = {}
    for name, capacity in capacities.items():
        amount = _rounded(asked.get(name), capacity)
        if amount is None:
            return None
        consumed[name] = amount
    return consumed


def _rounded(asked: Quantity | None, capacity: Json) -> Quantity | None:
    policy = capacity.get("requestPolicy") or {}
    if asked is None:
        return parse(policy["default"]) if policy.get("default") is not None else parse(capacity["value"])
    bounds = policy.get("validRange")
    if bounds is not None and bounds.get("min") is not None:
        return _in_range(asked, bounds)
    if policy.get("validValues"):
        values = [parse(value) for value in policy["validValues"]]
        return min((value for value in values if value >= asked), default=None)
    return asked


def _in_range(asked: Quantity, bounds: Json) -> Quantity | None:
    low = parse(bounds["min"])
    amount = max(asked, low)
    if bounds.get("step") is not None and amount > low:
        step = parse(bounds["step"]).value()
        steps = -(-(amount - low).value() // step)
        amount = low + parse(bounds["step"]) * steps
    if bounds.get("max") is not None and amount > parse(bounds["max"]):
        return None
    return amount


def fits(device: Device, consumed: Amounts, taken: Amounts, taking: Amounts) -> bool:
    """Whether so much is left beside what others took and what this allocation takes already."""
    zero = Quantity(0)
    for name, capacity in (device.object.get("capacity") or {}).items():
        total = consumed.get(name, zero) + taken.get(name, zero) + taking.get(name, zero)
        if total > parse(capacity["value"]):
            return False
    return True
