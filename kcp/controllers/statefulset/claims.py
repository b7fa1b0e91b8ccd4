"""The claims of a StatefulSet's pods: making them, and who owns them under the retention policy.

The policy works through owner references: a claim that belongs to the set goes with the set, one that belongs to a
pod goes with that pod once it is scaled away. Source: k8s v1.36 pkg/controller/statefulset/stateful_set_utils.go
(isClaimOwnerUpToDate, updateClaimOwnerRefForSetAndPod), stateful_pod_control.go.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.statefulset import identity
from kcp.machinery import meta
from kcp.machinery.errors import AlreadyExists

Json = dict[str, Any]
RESOURCE = "persistentvolumeclaims"


def retention(set_: Json) -> tuple[bool, bool]:
    """(delete when scaled, delete when deleted)"""
    policy = set_["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return policy.get("whenScaled") == "Delete", policy.get("whenDeleted") == "Delete"


def desired(set_: Json, pod: Json) -> list[Json]:
    """The claims of a pod that is about to be made, with their owners."""
    claims = []
    for template in identity.claim_templates(set_):
        labels = {
            **meta.labels(template),
            **((set_["spec"].get("selector") or {}).get("matchLabels") or {}),
        }
        metadata = {
            **template["metadata"],
            "name": identity.claim_name(set_, template, identity.ordinal(pod)),
            "namespace": meta.namespace(set_),
            "labels": labels,
        }
        if retention(set_)[1] and identity.in_range(set_, pod):
            metadata["ownerReferences"] = [meta.owner_reference(set_)]
        claims.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": metadata,
                "spec": template["spec"],
            }
        )
    return claims


def of_pod(set_: Json, pod: Json, view: fx.View) -> list[Json]:
    """The existing claims of a pod."""
    namespace, number = meta.namespace(set_), identity.ordinal(pod)
    keys = [f"{namespace}/{identity.claim_name(set_, t, number)}" for t in identity.claim_templates(set_)]
    return [claim for key in keys if (claim := view.claims.get(key)) is not None]


def are_stale(set_: Json, pod: Json, view: fx.View) -> bool:
    """Whether a claim still belongs to an earlier pod of this name and is about to go with it."""
    if not retention(set_)[0]:
        return False
    return any(_stale_reference(claim, pod, "Pod") for claim in of_pod(set_, pod, view))


def create_missing(
    set_: Json, pods: Sequence[Json], view: fx.View
) -> Generator[fx.Effect, fx.Outcome, dict[str, str]]:
    """Create the claims that these pods lack; by pod name, what went wrong."""
    faults: dict[str, list[str]] = {}
    wanted: list[tuple[Json, Json]] = []
    for pod in pods:
        for claim in desired(set_, pod):
            present = view.claims.get(meta.key_of(claim))
            if present is None:
                wanted.append((pod, claim))
            elif meta.is_deleting(present):
                faults.setdefault(meta.name(pod), []).append(f"pvc {meta.name(claim)} is being deleted")
    if wanted:
        outcome = yield fx.All([fx.Create(RESOURCE, meta.namespace(set_), claim) for _, claim in wanted])
        for (pod, claim), part in zip(wanted, outcome.all, strict=True):
            if part.error is not None:
                text = f"failed to create PVC {meta.name(claim)}: {part.error.message}"
                faults.setdefault(meta.name(pod), []).append(text)
            if not isinstance(part.error, AlreadyExists):
                yield _created_event(set_, pod, claim, part)
    return {name: _aggregate(texts) for name, texts in faults.items()}


def _aggregate(texts: list[str]) -> str:
    """Several errors as Go's aggregate writes them."""
    distinct = list(dict.fromkeys(texts))
    return distinct[0] if len(distinct) == 1 else f"[{', '.join(distinct)}]"


def _created_event(set_: Json, pod: Json, claim: Json, part: fx.Outcome) -> fx.Event:
    subject = f"create Claim {meta.name(claim)}"
    if part.error is None:
        text = f"{subject} Pod {meta.name(pod)} in StatefulSet {meta.name(set_)} success"
        return fx.Event(set_, "Normal", "SuccessfulCreate", text)
    text = f"{subject} for Pod {meta.name(pod)} in StatefulSet {meta.name(set_)} failed error: {part.error.message}"
    return fx.Event(set_, "Warning", "FailedCreate", text)


def fix_owners(set_: Json, pod: Json, view: fx.View) -> Generator[fx.Effect, fx.Outcome, bool]:
    """Bring the owners of a pod's claims in line with the policy; whether all writes went well."""
    well = True
    for claim in of_pod(set_, pod, view):
        references = owners(claim, set_, pod)
        if references is None:
            continue
        if _has_foreign_controller(claim, set_, pod):
            text = (
                f"PersistentVolumeClaim {meta.name(claim)} has a conflicting OwnerReference that acts as a manging "
                "controller, the retention policy is ignored for this claim"
            )
            yield fx.Event(set_, "Warning", "ConflictingController", text)
        metadata = {k: v for k, v in claim["metadata"].items() if k != "ownerReferences"}
        if references:
            metadata["ownerReferences"] = references
        outcome = yield fx.Update(RESOURCE, {**claim, "metadata": metadata})
        well = well and outcome.ok
    return well


def owners(claim: Json, set_: Json, pod: Json) -> list[Json] | None:
    """The owner references that the claim should have; None when it is fine as it is."""
    references = meta.owner_references(claim)
    foreign = _has_foreign_controller(claim, set_, pod)
    ours = [r for r in references if _names(r, set_, "StatefulSet") or _names(r, pod, "Pod")]
    if foreign and not ours:
        return None
    wanted = [] if foreign else [meta.owner_reference(o) for o in _wanted_owners(set_, pod)]
    current = {(r["kind"], r["uid"]) for r in ours if r.get("controller")}
    if len(current) == len(ours) and current == {(r["kind"], r["uid"]) for r in wanted}:
        return None
    return [*(r for r in references if r not in ours), *wanted]


def _wanted_owners(set_: Json, pod: Json) -> list[Json]:
    when_scaled, when_deleted = retention(set_)
    if when_scaled and not identity.in_range(set_, pod):
        return [{"apiVersion": "v1", "kind": "Pod", **pod}]
    return [set_] if when_deleted else []


def _names(reference: Json, owner: Json, kind: str) -> bool:
    """By kind and name alone: a reference to an earlier object of that name counts too."""
    group = reference["apiVersion"].rpartition("/")[0]
    return bool(
        reference["kind"] == kind
        and group == ("apps" if kind == "StatefulSet" else "")
        and reference["name"] == meta.name(owner)
    )


def _stale_reference(claim: Json, owner: Json, kind: str) -> bool:
    return any(
        _names(reference, owner, kind) and reference["uid"] != meta.uid(owner)
        for reference in meta.owner_references(claim)
    )


def _has_foreign_controller(claim: Json, set_: Json, pod: Json) -> bool:
    """A controller that is neither the set nor the pod, nor anything of their kinds and names."""
    return any(
        reference.get("controller")
        and not _names(reference, set_, "StatefulSet")
        and not _names(reference, pod, "Pod")
        for reference in meta.owner_references(claim)
    )
