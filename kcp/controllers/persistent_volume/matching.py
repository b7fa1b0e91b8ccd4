"""Which volume fits a claim.

Source: k8s v1.36 component-helpers/storage/volume/pv_helpers.go, pkg/controller/volume/persistentvolume/index.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kcp.apis.semantics import volumes as facts
from kcp.machinery import meta
from kcp.machinery.labels import Selector, from_label_selector
from kcp.machinery.quantity import Quantity, parse

Json = dict[str, Any]


def requested(claim: Json) -> Quantity:
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return parse(requests.get("storage", "0"))


def capacity(volume: Json) -> Quantity:
    return parse((volume["spec"].get("capacity") or {}).get("storage", "0"))


def attributes_class(obj: Json) -> str:
    """The VolumeAttributesClass of a claim or a volume; "" when it has none."""
    return obj["spec"].get("volumeAttributesClassName") or ""


def modes_mismatch(claim: Json, volume: Json) -> bool:
    """Whether one is a block device and the other a file system."""
    return facts.volume_mode(claim) != facts.volume_mode(volume)


def why_not(volume: Json, claim: Json) -> str | None:
    """Why the volume that a claim asks for by name cannot serve it; None when it can."""
    if meta.is_deleting(volume):
        return f'the volume is marked for deletion "{meta.name(volume)}"'
    if capacity(volume) < requested(claim):
        return "requested PV is too small"
    if facts.volume_class(volume) != facts.claim_class(claim):
        return "storageClassName does not match"
    if attributes_class(volume) != attributes_class(claim):
        return "volumeAttributesClassName does not match"
    if modes_mismatch(claim, volume):
        return "incompatible volumeMode"
    if not facts.modes_satisfied(_modes(claim), _modes(volume)):
        return "incompatible accessMode"
    return None


def best_match(claim: Json, volumes: Sequence[Json], *, delayed: bool) -> Json | None:
    """The volume to bind: of those with the fewest access modes that will do, the smallest that is large enough.

    One that is already reserved for the claim comes before any other of its access modes. With `delayed` binding
    only those are taken: the scheduler chooses the others.
    """
    wanted = _modes(claim)
    groups: dict[tuple[str, ...], list[Json]] = {}
    for volume in volumes:
        offered = _modes(volume)
        if facts.modes_satisfied(wanted, offered):
            groups.setdefault(tuple(sorted(offered)), []).append(volume)
    for modes in sorted(groups, key=lambda modes: (len(modes), modes)):
        found = _smallest(claim, groups[modes], delayed=delayed)
        if found is not None:
            return found
    return None


def _smallest(claim: Json, volumes: Iterable[Json], *, delayed: bool) -> Json | None:
    selector = claim["spec"].get("selector")
    labels = from_label_selector(selector) if selector is not None else None
    best: Json | None = None
    for volume in volumes:
        if not _could_hold(volume, claim):
            continue
        if facts.is_bound_to(volume, claim):
            return volume
        if delayed or not _is_free_for(volume, claim, labels):
            continue
        if best is None or capacity(volume) < capacity(best):
            best = volume
    return best


def _could_hold(volume: Json, claim: Json) -> bool:
    taken = volume["spec"].get("claimRef") is not None and not facts.is_bound_to(volume, claim)
    return not (
        taken
        or meta.is_deleting(volume)
        or capacity(volume) < requested(claim)
        or modes_mismatch(claim, volume)
        or attributes_class(volume) != attributes_class(claim)
    )


def _is_free_for(volume: Json, claim: Json, labels: Selector | None) -> bool:
    if (volume.get("status") or {}).get("phase") != "Available":
        return False
    if labels is not None and not labels.matches(meta.labels(volume)):
        return False
    return facts.volume_class(volume) == facts.claim_class(claim)


def _modes(obj: Json) -> list[str]:
    found: list[str] = obj["spec"].get("accessModes") or []
    return found
