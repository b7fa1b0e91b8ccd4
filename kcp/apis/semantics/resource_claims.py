"""Questions about dynamic resource claims.

Source: k8s v1.36 dynamic-resource-allocation/resourceclaim.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

POD_CLAIM_ANNOTATION = "resource.kubernetes.io/pod-claim-name"
FINALIZER = "resource.kubernetes.io/delete-protection"
MAX_RESERVED_FOR = 256


def claim_entries(pod: Json) -> list[Json]:
    found: list[Json] = (pod.get("spec") or {}).get("resourceClaims") or []
    return found


def claim_name(pod: Json, entry: Json) -> str | None:
    """The name of the claim that an entry of spec.resourceClaims means.

    None while the claim of a template is not generated yet; "" when the pod needs no claim for this entry.
    """
    if entry.get("resourceClaimName"):
        return str(entry["resourceClaimName"])
    for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        if status.get("name") == entry.get("name"):
            return str(status.get("resourceClaimName") or "")
    return None


def is_allocated(claim: Json) -> bool:
    return (claim.get("status") or {}).get("allocation") is not None


def is_reserved_for(claim: Json, pod: Json) -> bool:
    uid = pod.get("metadata", {}).get("uid")
    reserved = (claim.get("status") or {}).get("reservedFor") or ()
    return any(consumer.get("uid") == uid for consumer in reserved)


def can_be_reserved(claim: Json) -> bool:
    return len((claim.get("status") or {}).get("reservedFor") or ()) < MAX_RESERVED_FOR


def is_for_pod(claim: Json, pod: Json) -> bool:
    """Whether a generated claim was made for this pod: controlled by its uid."""
    uid = pod.get("metadata", {}).get("uid")
    references = claim.get("metadata", {}).get("ownerReferences") or ()
    return any(reference.get("controller") and reference.get("uid") == uid for reference in references)
