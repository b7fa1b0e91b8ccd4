"""Why no device of a node serves a request, device by device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kcp.machinery import meta
from kcp.scheduler.cluster_state import ClusterState, NodeInfo
from kcp.scheduler.dra import capacity
from kcp.scheduler.dra.allocator import untolerated
from kcp.scheduler.dra.devices import CLASSES
from kcp.scheduler.dra.pools import Device
from kcp.scheduler.dra.selectors import AllocationFailed, Selectors

Json = dict[str, Any]
MAX_DEVICES = 128
"""Of one request on one node."""


def requests_on(
    state: ClusterState, claims: Sequence[Json], node: NodeInfo, selectors: Selectors
) -> list[Json]:
    """For each request that is still to be served: {"claim", "request", "wants", "devices": [{"device", "why"}], "pools": […]}.

    `why` is "" for a device that could be had alone: then the constraints or the number of devices are in the way.
    """
    reached = state.devices.pools_of(node.name, node.labels, state.epoch)
    unusable = [
        {"pool": str(pool), "why": "incomplete" if pool.incomplete else pool.invalid}
        for pool in reached.pools
        if not pool.usable
    ]
    found = []
    for claim in claims:
        for name, spec in _requests(claim):
            devices = [device for pool in reached.pools if pool.usable for device in pool.devices]
            found.append(
                {
                    "claim": meta.key_of(claim),
                    "request": name,
                    "wants": "all" if spec.get("allocationMode") == "All" else int(spec.get("count") or 1),
                    "devices": [
                        {"device": str(device), "why": _why_not(state, claim, spec, device, selectors)}
                        for device in devices[:MAX_DEVICES]
                    ],
                    "pools": unusable,
                }
            )
    return found


def _requests(claim: Json) -> Iterator[tuple[str, Json]]:
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        if request.get("exactly") is not None:
            yield request.get("name") or "", request["exactly"]
        for alternative in request.get("firstAvailable") or ():
            yield f"{request.get('name')}/{alternative.get('name')}", alternative


def _why_not(state: ClusterState, claim: Json, spec: Json, device: Device, selectors: Selectors) -> str:
    device_class = state.objects[CLASSES].get(spec.get("deviceClassName") or "") or {}
    of_class = (device_class.get("spec") or {}).get("selectors") or ()
    try:
        if not selectors.match(device, of_class, f"class {spec.get('deviceClassName')}"):
            return f"not of class {spec.get('deviceClassName')}"
        for selector in spec.get("selectors") or ():
            if not selectors.match(device, [selector], f"claim {meta.key_of(claim)}"):
                return f"not selected by {(selector.get('cel') or {}).get('expression', '').strip()}"
    except AllocationFailed as failure:
        return str(failure)
    if not spec.get("adminAccess") and device.id in state.devices.dedicated:
        return f"held by {', '.join(state.devices.holders(device.id))}"
    taint = untolerated(spec, device)
    if taint is not None:
        value = f"={taint['value']}" if taint.get("value") else ""
        return f"tainted {taint.get('key')}{value}:{taint.get('effect')}"
    return _capacity(state, spec, device)


def _capacity(state: ClusterState, spec: Json, device: Device) -> str:
    asked = (spec.get("capacity") or {}).get("requests") or {}
    if not device.shareable and not asked:
        return ""
    consumed = capacity.consumed_of(device, asked)
    if consumed is None:
        return "does not have the capacity that is asked for, or its policy refuses it"
    if not capacity.fits(device, consumed, state.devices.shared.get(device.id, {}), {}):
        return (
            f"has too little capacity left beside {', '.join(state.devices.holders(device.id)) or 'nobody'}"
        )
    return ""
