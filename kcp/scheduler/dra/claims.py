"""The claims of a pod, as the scheduler finds them, and what keeps the pod from being scheduled with them.

Source: k8s v1.36 dynamicresources.go (foreachPodResourceClaim), dynamic-resource-allocation/resourceclaim/claim.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.apis.semantics import resource_claims as facts
from kcp.machinery import meta
from kcp.machinery.errors import go_quote
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.dra.devices import CLAIMS

Json = dict[str, Any]
PATIENCE_US = 60_000_000
CLEAN_AT = 1000
"""Claims that somebody waits for, at which it is looked who is still there; later at twice what was left."""


class ClaimUnusable(Exception):
    """Raised when a pod cannot be scheduled because of one of its claims. `key` is the claim's, "" if it has no name yet."""

    def __init__(self, text: str, key: str = "") -> None:
        super().__init__(text)
        self.key = key


def has_claims(pod: Json) -> bool:
    return bool(pod["spec"].get("resourceClaims"))


def claims_of(pod: Json, claims: Mapping[str, Json]) -> list[Json]:
    """In the order of the pod's entries; those that need no claim are left out. Raises ClaimUnusable."""
    found = []
    for entry in facts.claim_entries(pod):
        name = facts.claim_name(pod, entry)
        if name is None:
            raise ClaimUnusable(_unnamed(pod, entry))
        if name:
            found.append(_usable(pod, entry, f"{meta.namespace(pod)}/{name}", claims))
    return found


def _unnamed(pod: Json, entry: Json) -> str:
    quoted = f'pod "{meta.key_of(pod)}"'
    if entry.get("resourceClaimTemplateName"):
        return f"{quoted}: ResourceClaim not created yet"
    name = go_quote(entry.get("name") or "")
    return f"{quoted}, spec.resourceClaim {name}: none of the supported fields are set"


def _usable(pod: Json, entry: Json, key: str, claims: Mapping[str, Json]) -> Json:
    claim = claims.get(key)
    if claim is None:
        raise ClaimUnusable(f"could not find ResourceClaim {go_quote(key)}", key)
    if meta.is_deleting(claim):
        raise ClaimUnusable(f"resourceclaim {go_quote(meta.name(claim))} is being deleted", key)
    if not entry.get("resourceClaimName") and not facts.is_for_pod(claim, pod):
        text = f"ResourceClaim {key} was not created for pod {meta.key_of(pod)} (pod is not owner)"
        raise ClaimUnusable(text, key)
    return claim


class ClaimGate:
    """Keeps pods out of the active queue until all of their claims are there. Owned by the scheduler's task."""

    name = "DynamicResources"
    patience_us = PATIENCE_US

    def __init__(self, state: ClusterState) -> None:
        self._claims = state.objects[CLAIMS]
        self._pods = state.pods
        self._waiting: dict[str, dict[str, None]] = {}
        self._clean_at = CLEAN_AT

    def gate(self, pod: Json) -> str:
        if not has_claims(pod):
            return ""
        try:
            claims_of(pod, self._claims)
        except ClaimUnusable as fault:
            if fault.key:
                self._waiting.setdefault(fault.key, {})[meta.uid(pod)] = None
                if len(self._waiting) > self._clean_at:
                    self._clean()
            return str(fault)
        return ""

    def _clean(self) -> None:
        """Claims that never came, for pods that are gone."""
        for key, uids in list(self._waiting.items()):
            left = {uid: None for uid in uids if uid in self._pods}
            if left:
                self._waiting[key] = left
            else:
                del self._waiting[key]
        self._clean_at = max(CLEAN_AT, 2 * len(self._waiting))

    def waiting_for(self, claim: str) -> list[str]:
        """The pods that this claim kept out, each named once; whoever asks looks at them again."""
        return list(self._waiting.pop(claim, ()))
