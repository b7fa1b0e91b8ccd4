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
from kcp.scheduler.cluster_state import NodeInfo
from kcp.scheduler.framework.plugin import Codes, Cycle, Reasons, Rejected, Rows
from kcp.scheduler.framework.status import UNRESOLVABLE
from kcp.scheduler.plugins.claims import claim_of, not_found, storage_class, volume_of
from kcp.scheduler.plugins.volume_matching import has_capacity, requested_bytes, serving_volumes
from kcp.scheduler.pod_class import claim_names
from kcp.scheduler.terms import Ints

Json = dict[str, Any]

UNBOUND_IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"
NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
NOT_ENOUGH_SPACE = "node(s) did not have enough free storage"
VOLUME_MISSING = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
_BOTH = {(1, 3): 5, (1, 4): 6, (2, 3): 7, (2, 4): 8}
"""The code of a node that does not suit the bound claims and cannot serve the waiting ones either."""


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
        **dict.fromkeys(_BOTH.values(), (UNRESOLVABLE, "")),
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
        return _codes(cycle, cycle.state.rows(rows))

    def codes_at(self, cycle: Cycle, indexes: Ints) -> Codes:
        return _codes(cycle, [cycle.state.infos[index] for index in indexes.tolist()])

    def texts(self, cycle: Cycle, index: int) -> list[str]:
        """Why this node not, in one cycle; a node can have two reasons."""
        code = self.codes(cycle, slice(index, index + 1)).item(0)
        parts = next((pair for pair, both in _BOTH.items() if both == code), (code,))
        return [self.reasons[part][1] for part in parts if part]


def _codes(cycle: Cycle, nodes: Sequence[NodeInfo]) -> Codes:
    """Pods on a node make no difference, so what is known of it in this cycle holds in a dry run too."""
    claims = claims_of(cycle)
    known: dict[str, int] = cycle.memory.setdefault("volume codes", {})
    for node in nodes:
        if node.name not in known:
            known[node.name] = _code(cycle, claims, node)
    return np.array([known[node.name] for node in nodes], np.int8)


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
    """Both kinds of claims are looked at: each may have its own reason."""
    bound = _bound_code(cycle, claims, node)
    waiting = _place_waiting(cycle, claims, node)[0] if claims.waiting else 0
    return _BOTH[(bound, waiting)] if bound and waiting else bound or waiting


def _bound_code(cycle: Cycle, claims: Claims, node: NodeInfo) -> int:
    for claim in claims.bound:
        volume = volume_of(cycle, claim)
        if volume is None:
            return 1
        if not volumes.node_affinity_matches(volume, node.labels, node.name):
            return 2
    return 0


def _place_waiting(cycle: Cycle, claims: Claims, node: NodeInfo) -> tuple[int, list[Provision]]:
    """(code, how each waiting claim is served on this node).

    Claims for which a node was chosen before are provisioned there; of the others small ones choose their volume first.
    """
    plans: list[Provision] = []
    provisioned, open_claims = [], []
    for claim in claims.waiting:
        selected = meta.annotations(claim).get(volumes.SELECTED_NODE)
        if selected is None:
            selected = cycle.state.selecting.get(meta.key_of(claim))
        if selected is None:
            open_claims.append(claim)
        elif selected == node.name:
            provisioned.append(claim)
        else:
            return 3, []
    taken: set[str] = set()
    for claim in sorted(open_claims, key=requested_bytes):
        found = serving_volumes(cycle, claim).on(node, taken)
        if found is None:
            provisioned.append(claim)
        else:
            taken.add(found)
            plans.append(Provision(claim, found))
    for claim in provisioned:
        code = _provision_code(cycle, claim, node)
        if code:
            return code, []
        plans.append(Provision(claim, ""))
    return 0, plans


def plans_for(cycle: Cycle, node: NodeInfo) -> list[Provision]:
    """What must be written before the pod can be bound to this feasible node; nothing without waiting claims."""
    if not cycle.info.volumes:
        return []
    claims = claims_of(cycle)
    return _place_waiting(cycle, claims, node)[1] if claims.waiting else []


def _provision_code(cycle: Cycle, claim: Json, node: NodeInfo) -> int:
    chosen = storage_class(cycle, volumes.claim_class(claim))
    if chosen is None or (chosen.get("provisioner") or volumes.NO_PROVISIONER) == volumes.NO_PROVISIONER:
        return 3
    if not _topology_allows(chosen.get("allowedTopologies") or (), node):
        return 3
    return 0 if has_capacity(cycle, chosen, claim, node) else 4


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
