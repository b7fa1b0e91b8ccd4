"""An allocation as the status of a claim has it.

Source: k8s v1.36 structured/internal/stable/allocator_stable.go (Allocate, createNodeSelector).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from kcp.machinery import meta
from kcp.machinery.quantity import Quantity, canonical
from kcp.scheduler.dra.allocator import Chosen
from kcp.scheduler.dra.pools import Device

Json = dict[str, Any]
MAX_ALTERNATIVES = 8


def allocation_result(claim: Json, chosen: Sequence[Chosen], node: str) -> Json:
    devices: Json = {"results": [_result(claim, number, each) for number, each in enumerate(chosen)]}
    config = _config(claim, chosen)
    if config:
        devices["config"] = config
    found: Json = {"devices": devices}
    selector = _node_selector([each.device for each in chosen], node)
    if selector is not None:
        found["nodeSelector"] = selector
    return found


def _result(claim: Json, number: int, chosen: Chosen) -> Json:
    device, wanted = chosen.device, chosen.wanted
    driver, pool, name = device.id
    found: Json = {"request": wanted.full_name, "driver": driver, "pool": pool, "device": name}
    if wanted.admin:
        found["adminAccess"] = True
    if wanted.spec.get("tolerations"):
        found["tolerations"] = wanted.spec["tolerations"]
    for field in ("bindingConditions", "bindingFailureConditions"):
        if device.object.get(field):
            found[field] = device.object[field]
    if chosen.consumed is not None:
        found["shareID"] = _share_id(claim, number, device)
        if chosen.consumed:
            found["consumedCapacity"] = {
                capacity: _text(amount) for capacity, amount in chosen.consumed.items()
            }
    return found


def _text(amount: Quantity) -> str:
    return canonical(amount)


def _share_id(claim: Json, number: int, device: Device) -> str:
    """A uuid that follows from what is shared by whom, so that the decision can be made again."""
    digest = hashlib.sha256(f"{meta.uid(claim)} {number} {device}".encode()).hexdigest()
    parts = (digest[:8], digest[8:12], f"8{digest[13:16]}", f"a{digest[17:20]}", digest[20:32])
    return "-".join(parts)


def _config(claim: Json, chosen: Sequence[Chosen]) -> list[Json]:
    """Configurations of the classes, each class once, then those of the claim; no requests means all of them."""
    spec = (claim.get("spec") or {}).get("devices") or {}
    served = {each.wanted.name: each.wanted for each in chosen}
    by_class: dict[str, list[Json]] = {}
    found: list[Json] = []
    for request in spec.get("requests") or ():
        wanted = served.get(request.get("name") or "")
        if wanted is None:
            continue
        class_name = meta.name(wanted.device_class)
        if class_name in by_class:
            for entry in by_class[class_name]:
                entry["requests"].append(wanted.full_name)
            continue
        configs = (wanted.device_class.get("spec") or {}).get("config") or ()
        by_class[class_name] = [
            {"source": "FromClass", "requests": [wanted.full_name], **config} for config in configs
        ]
        found += by_class[class_name]
    for config in spec.get("config") or ():
        found += _of_claim(config, spec.get("requests") or (), {n: w.full_name for n, w in served.items()})
    total = len(spec.get("requests") or ())
    return [_for_all(entry) if len(entry.get("requests") or ()) == total else entry for entry in found]


def _of_claim(config: Json, requests: Sequence[Json], served: dict[str, str]) -> list[Json]:
    entry = {"source": "FromClaim", **config}
    wanted = config.get("requests") or ()
    if not wanted:
        return [entry]
    names = [request.get("name") or "" for request in requests]
    return [dict(entry) for name in names if name in wanted or served.get(name) in wanted]


def _for_all(entry: Json) -> Json:
    return {key: value for key, value in entry.items() if key != "requests"}


def _node_selector(devices: Sequence[Device], node: str) -> Json | None:
    """None when the devices can be used everywhere."""
    fields: list[Json] = []
    expressions: list[Json] = []
    for device in devices:
        where = device.where
        name = node if device.object.get("bindsToNode") else where.get("nodeName")
        if name:
            requirement = {"key": "metadata.name", "operator": "In", "values": [name]}
            return {"nodeSelectorTerms": [{"matchFields": [requirement]}]}
        for term in (where.get("nodeSelector") or {}).get("nodeSelectorTerms") or ():
            _merge(term.get("matchFields") or (), fields)
            _merge(term.get("matchExpressions") or (), expressions)
    term = {}
    if expressions:
        term["matchExpressions"] = expressions
    if fields:
        term["matchFields"] = fields
    return {"nodeSelectorTerms": [term]} if term else None


def _merge(new: Sequence[Json], there: list[Json]) -> None:
    for requirement in new:
        if not any(_same(requirement, known) for known in there):
            there.append(requirement)


def _same(one: Json, other: Json) -> bool:
    if (one.get("key"), one.get("operator")) != (other.get("key"), other.get("operator")):
        return False
    return sorted(one.get("values") or ()) == sorted(other.get("values") or ())


def offers_alternatives(claim: Json) -> bool:
    requests = ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ()
    return any(request.get("firstAvailable") for request in requests)


def rank(claims: Sequence[Json], allocations: Sequence[Sequence[Chosen]]) -> int:
    """More for alternatives that stand earlier in their lists. Source: k8s v1.36 dynamicresources.go (computeScore)."""
    score = 0
    for claim, chosen in zip(claims, allocations, strict=True):
        used = {each.wanted.full_name for each in chosen if each.wanted.alternative}
        for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
            for place, alternative in enumerate(request.get("firstAvailable") or ()):
                if f"{request.get('name')}/{alternative.get('name')}" in used:
                    score += MAX_ALTERNATIVES - place
    return score
