"""Claims and the nodes they allow: bound volumes by their node affinity, waiting claims by what can serve them there.

Source: k8s v1.36 pkg/scheduler/framework/plugins/volumebinding/{volume_binding,binder}.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import numpy as np

from kcp.apis.semantics import volumes
from kcp.apis.semantics.affinity import requirement_matches
from kcp.machinery import meta
from kcp.machinery.errors import go_quote
from kcp.machinery.labels import from_label_selector
from kcp.machinery.quantity import parse
from kcp.scheduler.cluster_state import NodeInfo
from kcp.scheduler.framework.plugin import Codes, Cycle, Reasons, Rejected, Rows
from kcp.scheduler.framework.status import UNRESOLVABLE
from kcp.scheduler.plugins.claims import claim_of, not_found, storage_class, volume_of
from kcp.scheduler.pod_class import claim_names

Json = dict[str, Any]

UNBOUND_IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"
NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
NOT_ENOUGH_SPACE = "node(s) did not have enough free storage"
VOLUME_MISSING = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"


@attrs.frozen(eq=False)
class Claims:
    """The pod's claims by how far they are."""

    bound: tuple[Json, ...]
    waiting: tuple[Json, ...]
    immediate: tuple[Json, ...]


@attrs.frozen(eq=False)
class Provision:
    """A waiting claim gets this volume, or (`volume` empty) one that is provisioned for the node."""

    claim: Json
    volume: str


class VolumeBinding:
    name = "VolumeBinding"
    per_node = True
    reasons: ClassVar[Reasons] = {
        1: (UNRESOLVABLE, VOLUME_MISSING),
        2: (UNRESOLVABLE, NODE_CONFLICT),
        3: (UNRESOLVABLE, BIND_CONFLICT),
        4: (UNRESOLVABLE, NOT_ENOUGH_SPACE),
    }

    def pre_filter(self, cycle: Cycle) -> Rejected | None:
        for name, ephemeral in claim_names(cycle.info):
            text = _unusable(cycle, name, ephemeral)
            if text:
                return Rejected(self.name, text, UNRESOLVABLE)
        if cycle.info.volumes and claims_of(cycle).immediate:
            return Rejected(self.name, UNBOUND_IMMEDIATE, UNRESOLVABLE)
        return None

    def active(self, cycle: Cycle) -> bool:
        return bool(cycle.info.volumes) and any(True for _ in claim_names(cycle.info))

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        claims = claims_of(cycle)
        return np.array([_code(cycle, claims, info) for info in cycle.state.rows(rows)], np.int8)


def _unusable(cycle: Cycle, name: str, ephemeral: bool) -> str:
    claim = claim_of(cycle, name)
    if claim is None:
        return (
            f"waiting for ephemeral volume controller to create the persistentvolumeclaim {go_quote(name)}"
            if (ephemeral)
            else not_found(name)
        )
    if (claim.get("status") or {}).get("phase") == "Lost":
        volume = (claim.get("spec") or {}).get("volumeName", "")
        return f"persistentvolumeclaim {go_quote(name)} bound to non-existent persistentvolume {go_quote(volume)}"
    if claim["metadata"].get("deletionTimestamp"):
        return f"persistentvolumeclaim {go_quote(name)} is being deleted"
    if ephemeral and not volumes.is_claim_of_pod(claim, cycle.info.pod):
        return f"PVC {cycle.cls.namespace}/{name} was not created for pod {cycle.info.key} (pod is not owner)"
    return ""


def claims_of(cycle: Cycle) -> Claims:
    known = cycle.memory.get("claims")
    if known is None:
        known = cycle.memory["claims"] = _sort_claims(cycle)
    found: Claims = known
    return found


def _sort_claims(cycle: Cycle) -> Claims:
    bound, waiting, immediate = [], [], []
    for name, _ in claim_names(cycle.info):
        claim = claim_of(cycle, name)
        if claim is None:
            continue
        if volumes.is_fully_bound(claim):
            bound.append(claim)
        elif volumes.waits_for_first_consumer(storage_class(cycle, volumes.claim_class(claim))) and not (
            claim.get("spec") or {}
        ).get("volumeName"):
            waiting.append(claim)
        else:
            immediate.append(claim)
    return Claims(tuple(bound), tuple(waiting), tuple(immediate))


def _code(cycle: Cycle, claims: Claims, node: NodeInfo) -> int:
    for claim in claims.bound:
        volume = volume_of(cycle, claim)
        if volume is None:
            return 1
        if not volumes.node_affinity_matches(volume, node.labels, node.name):
            return 2
    return _place_waiting(cycle, claims, node)[0]


def _place_waiting(cycle: Cycle, claims: Claims, node: NodeInfo) -> tuple[int, list[Provision]]:
    """(code, how each waiting claim is served on this node); small claims choose their volume first."""
    plans: list[Provision] = []
    taken: set[str] = set()
    for claim in sorted(claims.waiting, key=requested_bytes):
        found = _matching_volume(cycle, claim, node, taken)
        if found is None:
            code = _provision_code(cycle, claim, node)
            if code:
                return code, []
        else:
            taken.add(found)
        plans.append(Provision(claim, found or ""))
    return 0, plans


def plans_for(cycle: Cycle, node: NodeInfo) -> list[Provision]:
    """What must be written before the pod can be bound to this feasible node; nothing without waiting claims."""
    if not cycle.info.volumes:
        return []
    claims = claims_of(cycle)
    return _place_waiting(cycle, claims, node)[1] if claims.waiting else []


def requested_bytes(claim: Json) -> int:
    wanted = (((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}).get("storage")
    return parse(wanted).value() if wanted is not None else 0


def _matching_volume(cycle: Cycle, claim: Json, node: NodeInfo, taken: set[str]) -> str | None:
    """The smallest free volume that serves the claim on this node."""
    spec = claim.get("spec") or {}
    selector = from_label_selector(spec["selector"]) if spec.get("selector") is not None else None
    key = meta.key_of(claim)
    best: tuple[int, str] | None = None
    for name, volume in sorted(cycle.state.objects["persistentvolumes"].items()):
        about = volume.get("spec") or {}
        if name in taken or cycle.state.reserved.get(name, key) != key:
            continue
        if volumes.volume_class(volume) != volumes.claim_class(claim):
            continue
        reserved = about.get("claimRef")
        if reserved and not volumes.is_bound_to(volume, claim):
            continue
        if not _serves(volume, claim, node, selector):
            continue
        size = parse((about.get("capacity") or {}).get("storage", "0")).value()
        if size >= requested_bytes(claim) and (best is None or (size, name) < best):
            best = (size, name)
    return best[1] if best else None


def _serves(volume: Json, claim: Json, node: NodeInfo, selector: Any) -> bool:
    if (volume.get("status") or {}).get("phase") not in (None, "Available", "Bound", "Pending"):
        return False
    if volumes.volume_mode(volume) != volumes.volume_mode(claim):
        return False
    offered = (volume.get("spec") or {}).get("accessModes") or ()
    if not volumes.modes_satisfied((claim.get("spec") or {}).get("accessModes") or (), offered):
        return False
    if selector is not None and not selector.matches(volume["metadata"].get("labels") or {}):
        return False
    return volumes.node_affinity_matches(volume, node.labels, node.name)


def _provision_code(cycle: Cycle, claim: Json, node: NodeInfo) -> int:
    chosen = storage_class(cycle, volumes.claim_class(claim))
    selected = (claim["metadata"].get("annotations") or {}).get(volumes.SELECTED_NODE)
    if selected and selected != node.name:
        return 3
    if chosen is None or (chosen.get("provisioner") or volumes.NO_PROVISIONER) == volumes.NO_PROVISIONER:
        return 3
    if not _topology_allows(chosen.get("allowedTopologies") or (), node):
        return 3
    return 0 if _has_capacity(cycle, chosen, claim, node) else 4


def _topology_allows(terms: Sequence[Json], node: NodeInfo) -> bool:
    if not terms:
        return True
    return any(
        all(
            requirement_matches({**expression, "operator": "In"}, node.labels)
            for expression in term.get("matchLabelExpressions") or ()
        )
        for term in terms
    )


def _has_capacity(cycle: Cycle, chosen: Json, claim: Json, node: NodeInfo) -> bool:
    """Only drivers that publish their capacity are asked for it."""
    driver = cycle.state.objects["csidrivers.storage.k8s.io"].get(chosen["provisioner"])
    if driver is None or not (driver.get("spec") or {}).get("storageCapacity"):
        return True
    wanted = requested_bytes(claim)
    for capacity in cycle.state.objects["csistoragecapacities.storage.k8s.io"].values():
        if capacity.get("storageClassName") != chosen["metadata"]["name"]:
            continue
        limit = capacity.get("maximumVolumeSize") or capacity.get("capacity")
        if limit is None or parse(limit).value() < wanted:
            continue
        if from_label_selector(capacity.get("nodeTopology")).matches(node.labels):
            return True
    return False
