"""Questions about dynamic resource claims.

Source: k8s v1.36 dynamic-resource-allocation/resourceclaim.
"""

from __future__ import annotations

from typing import Any

from kcp.machinery.errors import go_quote

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
    for status in claim_statuses(pod):
        if status.get("name") == entry.get("name"):
            return str(status.get("resourceClaimName") or "")
    return None


def claim_statuses(pod: Json) -> list[Json]:
    """The claims that were generated for the pod, by the names of its entries."""
    found: list[Json] = (pod.get("status") or {}).get("resourceClaimStatuses") or []
    return found


def claim_names(pod: Json) -> list[str]:
    """Every claim that the pod has, as far as its name is known: its own, those made for it, that of its extended resources."""
    found = [claim_name(pod, entry) for entry in claim_entries(pod)]
    extended = ((pod.get("status") or {}).get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    return [name for name in (*found, extended) if name]


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


def tolerates_taint(toleration: Json, taint: Json) -> bool:
    """Whether a toleration of a device request means this device taint. An empty key or effect means any."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    return operator == "Equal" and (toleration.get("value") or "") == (taint.get("value") or "")


def consumer_of(pod: Json) -> Json:
    """The entry of status.reservedFor that stands for a pod."""
    metadata = pod["metadata"]
    return {"resource": "pods", "name": metadata["name"], "uid": metadata.get("uid", "")}


def results_of(claim: Json) -> list[Json]:
    """The devices that the claim has, one for each request and place."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    found: list[Json] = (allocation.get("devices") or {}).get("results") or []
    return found


def _conditions(claim: Json, result: Json) -> dict[str, Json] | None:
    """The conditions of an allocated device by type; None when its driver has said nothing yet."""
    for device in (claim.get("status") or {}).get("devices") or ():
        if all(device.get(field) == result.get(field) for field in ("driver", "pool", "device")):
            return {condition.get("type", ""): condition for condition in device.get("conditions") or ()}
    return None


def binding_fault(claim: Json) -> str:
    """What a driver says against binding pods to the claim's devices, "" if nothing."""
    for result in results_of(claim):
        conditions = _conditions(claim, result) or {}
        for type_ in result.get("bindingFailureConditions") or ():
            failed = conditions.get(type_)
            if failed is not None and failed.get("status") == "True":
                name, reason = claim["metadata"]["name"], failed.get("reason", "")
                message = go_quote(failed.get("message", ""))
                return f"claim {name} binding failed: reason={reason}, message={message}"
    return ""


def is_ready(claim: Json) -> bool:
    """Whether all conditions hold without which no pod may be bound."""
    for result in results_of(claim):
        wanted = result.get("bindingConditions") or ()
        conditions = _conditions(claim, result) if wanted else {}
        if conditions is None:
            return False
        if any(conditions.get(type_, {}).get("status") != "True" for type_ in wanted):
            return False
    return True
