"""What can serve a waiting claim: the volumes that are free for it, and the storage that its class has left.

Looked up once for a claim in a cycle; what remains to be asked of each node is where its labels lead.

    serving = serving_volumes(cycle, claim)
    serving.on(node, taken)                 the name of the volume that the claim would get there, or None

Source: k8s v1.36 component-helpers/storage/volume/pv_helpers.go (FindMatchingVolume),
pkg/scheduler/framework/plugins/volumebinding/binder.go (hasEnoughCapacity).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from typing import Any, NamedTuple

import attrs

from kcp.apis.semantics import volumes
from kcp.machinery import meta
from kcp.machinery.labels import Selector, from_label_selector
from kcp.machinery.quantity import parse
from kcp.scheduler.cluster_state import NodeInfo
from kcp.scheduler.framework.plugin import Cycle

Json = dict[str, Any]


class Offer(NamedTuple):
    """A volume; those of two sizes compare by size, in bytes, others by name."""

    size: int
    name: str
    volume: Json


Labels = Mapping[str, str]


def requested_bytes(claim: Json) -> int:
    wanted = (((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage")
    return parse(wanted).value() if wanted is not None else 0


def _size(volume: Json) -> int:
    return parse(((volume.get("spec") or {}).get("capacity") or {}).get("storage", "0")).value()


@attrs.define(eq=False)
class Serving:
    """`reserved` is the volume that is kept for the claim; then no other comes into question.

    `pinned` has by label and value the free volumes that can only be reached from nodes with that label, `others` the rest;
    all smallest first.
    """

    reserved: Offer | None = None
    pinned: dict[str, dict[str, list[Offer]]] = attrs.field(factory=dict)
    others: list[Offer] = attrs.field(factory=list)

    def add(self, offer: Offer) -> None:
        pin = _pin(offer.volume)
        if pin is None:
            self.others.append(offer)
            return
        key, values = pin
        by_value = self.pinned.setdefault(key, {})
        for value in values:
            by_value.setdefault(value, []).append(offer)

    def on(self, node: NodeInfo, taken: set[str]) -> str | None:
        offers = self._for(node.labels) if self.reserved is None else iter([self.reserved])
        for _, name, volume in offers:
            if name not in taken and volumes.node_affinity_matches(volume, node.labels, node.name):
                return name
        return None

    def _for(self, labels: Labels) -> Iterator[Offer]:
        lists = [
            by_value[labels[key]] for key, by_value in self.pinned.items() if labels.get(key) in by_value
        ]
        if not lists:
            return iter(self.others)
        return merge(*lists, self.others, key=_smallest_first)


def _smallest_first(offer: Offer) -> tuple[int, str]:
    return offer.size, offer.name


def _pin(volume: Json) -> tuple[str, list[str]] | None:
    """A label of which a node must have one of these values to reach the volume, as a disk in a node or a zone says it."""
    affinity = (volume.get("spec") or {}).get("nodeAffinity") or {}
    terms: list[Json] = (affinity.get("required") or {}).get("nodeSelectorTerms") or []
    if len(terms) != 1:
        return None
    for expression in terms[0].get("matchExpressions") or ():
        if expression.get("operator") == "In":
            return expression["key"], list(dict.fromkeys(expression.get("values") or ()))
    return None


def serving_volumes(cycle: Cycle, claim: Json) -> Serving:
    """Remembered for the cycle."""
    known: dict[str, Serving] = cycle.memory.setdefault("serving volumes", {})
    key = meta.key_of(claim)
    if key not in known:
        known[key] = _serving(cycle, claim, key)
    return known[key]


def _serving(cycle: Cycle, claim: Json, key: str) -> Serving:
    found = Serving()
    wanted, size = volumes.claim_class(claim), requested_bytes(claim)
    given = (claim.get("spec") or {}).get("selector")
    selector = from_label_selector(given) if given is not None else None
    offers: list[Offer] = []
    for name, volume in cycle.state.objects["persistentvolumes"].items():
        if volumes.volume_class(volume) != wanted or not _could_hold(claim, volume, size):
            continue
        holder = cycle.state.reserved.get(name, key)
        if holder != key:
            continue
        kept = name in cycle.state.reserved or volumes.is_bound_to(volume, claim)
        if not kept and not _is_free(claim, volume, selector):
            continue
        if not kept:
            offers.append(Offer(_size(volume), name, volume))
        elif found.reserved is None or name < found.reserved.name:
            found.reserved = Offer(_size(volume), name, volume)
    if found.reserved is None:
        for offer in sorted(offers, key=_smallest_first):
            found.add(offer)
    return found


def _could_hold(claim: Json, volume: Json, size: int) -> bool:
    """Whether it is large enough and of the right kind, and does not go."""
    return not (
        meta.is_deleting(volume)
        or _size(volume) < size
        or volumes.volume_mode(volume) != volumes.volume_mode(claim)
        or _attributes_class(volume) != _attributes_class(claim)
    )


def _attributes_class(obj: Json) -> str:
    return (obj.get("spec") or {}).get("volumeAttributesClassName") or ""


def _is_free(claim: Json, volume: Json, selector: Selector | None) -> bool:
    if (volume.get("spec") or {}).get("claimRef") is not None:
        return False
    if (volume.get("status") or {}).get("phase") != "Available":
        return False
    if selector is not None and not selector.matches(meta.labels(volume)):
        return False
    offered = (volume.get("spec") or {}).get("accessModes") or ()
    return volumes.modes_satisfied((claim.get("spec") or {}).get("accessModes") or (), offered)


# --- what a class has left ---


@attrs.define(eq=False)
class Capacities:
    """Where there is room: `exact` has, by the keys of labels, the values that the nodes of a segment have."""

    exact: dict[tuple[str, ...], set[tuple[str, ...]]] = attrs.field(factory=dict)
    selectors: list[Selector] = attrs.field(factory=list)

    def add(self, topology: Json | None) -> None:
        labels = (topology or {}).get("matchLabels") or {}
        if topology is None or topology.get("matchExpressions") or not labels:
            self.selectors.append(from_label_selector(topology))
            return
        keys = tuple(sorted(labels))
        self.exact.setdefault(keys, set()).add(tuple(labels[key] for key in keys))

    def reach(self, labels: Labels) -> bool:
        for keys, values in self.exact.items():
            if tuple(labels.get(key, "") for key in keys) in values and all(key in labels for key in keys):
                return True
        return any(selector.matches(labels) for selector in self.selectors)


def has_capacity(cycle: Cycle, chosen: Json, claim: Json, node: NodeInfo) -> bool:
    """Only drivers that publish their capacity are asked for it."""
    wanted = requested_bytes(claim)
    driver = cycle.state.objects["csidrivers.storage.k8s.io"].get(chosen["provisioner"])
    if not wanted or driver is None or not (driver.get("spec") or {}).get("storageCapacity"):
        return True
    known: dict[tuple[str, int], Capacities] = cycle.memory.setdefault("storage capacities", {})
    key = meta.name(chosen), wanted
    if key not in known:
        known[key] = _capacities(cycle, *key)
    return known[key].reach(node.labels)


def _capacities(cycle: Cycle, class_name: str, wanted: int) -> Capacities:
    found = Capacities()
    for capacity in cycle.state.objects["csistoragecapacities.storage.k8s.io"].values():
        if capacity.get("storageClassName") != class_name:
            continue
        limit = capacity.get("maximumVolumeSize") or capacity.get("capacity")
        if limit is not None and parse(limit).value() >= wanted:
            found.add(capacity.get("nodeTopology"))
    return found
