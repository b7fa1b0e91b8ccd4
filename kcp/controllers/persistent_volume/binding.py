"""The four writes that bind a claim to a volume, and the ones that undo or report it. Each is skipped when done.

Source: k8s v1.36 pkg/controller/volume/persistentvolume/pv_controller.go, component-helpers/storage/volume.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from kcp.apis.semantics import volumes as facts
from kcp.controllers import effects as fx
from kcp.machinery import meta

Json = dict[str, Any]
Written = Generator[fx.Effect, fx.Outcome, "Json | None"]
"""Steps that return the object as it stands now, or None when a write failed."""
CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
PRE_RESIZE_CAPACITY = "volume.alpha.kubernetes.io/pre-resize-capacity"


def bind(volume: Json, claim: Json) -> Generator[fx.Effect, fx.Outcome, None]:
    """Volume first, so that nobody sees a bound claim whose volume is not."""
    reserved = yield from _reserve(volume, claim)
    if reserved is None:
        return
    bound = yield from set_volume_phase(reserved, "Bound")
    if bound is None:
        return
    named = yield from _name_volume(claim, bound)
    if named is not None:
        yield from set_claim_phase(named, "Bound", bound)


def claim_reference(claim: Json) -> Json:
    return {
        "kind": "PersistentVolumeClaim",
        "namespace": meta.namespace(claim),
        "name": meta.name(claim),
        "uid": meta.uid(claim),
        "apiVersion": "v1",
        "resourceVersion": meta.resource_version(claim),
    }


def annotated(obj: Json, **changes: str | None) -> Json:
    """A copy with annotations set, or taken away where the value is None."""
    kept = {key: value for key, value in meta.annotations(obj).items() if key not in changes}
    kept.update((key, value) for key, value in changes.items() if value is not None)
    metadata = {key: value for key, value in obj["metadata"].items() if key != "annotations"}
    if kept:
        metadata["annotations"] = kept
    return {**obj, "metadata": metadata}


def update(resource: str, new: Json, old: Json) -> Written:
    """Write `new` unless it says what `old` says."""
    if new == old:
        return old
    outcome = yield fx.Update(resource, new)
    return outcome.object if outcome.ok else None


def _reserve(volume: Json, claim: Json) -> Written:
    changed = volume
    reference = volume["spec"].get("claimRef") or {}
    if not facts.is_bound_to(volume, claim):
        changed = annotated(changed, **{facts.BOUND_BY_CONTROLLER: "yes"})
    if reference.get("uid") != meta.uid(claim) or not facts.is_bound_to(volume, claim):
        changed = {**changed, "spec": {**changed["spec"], "claimRef": claim_reference(claim)}}
    return (yield from update(VOLUMES, changed, volume))


def _name_volume(claim: Json, volume: Json) -> Written:
    changed = claim
    if claim["spec"].get("volumeName") != meta.name(volume):
        changed = {**changed, "spec": {**changed["spec"], "volumeName": meta.name(volume)}}
        changed = annotated(changed, **{facts.BOUND_BY_CONTROLLER: "yes"})
    if facts.BIND_COMPLETED not in meta.annotations(claim):
        changed = annotated(changed, **{facts.BIND_COMPLETED: "yes"})
    return (yield from update(CLAIMS, changed, claim))


def set_volume_phase(volume: Json, phase: str, message: str = "") -> Written:
    """A phase that is there already stays as it is, message included."""
    if (volume.get("status") or {}).get("phase") == phase:
        return volume
    status = {key: value for key, value in (volume.get("status") or {}).items() if key != "message"}
    status["phase"] = phase
    if message:
        status["message"] = message
    outcome = yield fx.Status(VOLUMES, volume, status)
    return outcome.object if outcome.ok else None


def fail_volume(volume: Json, reason: str, message: str) -> Written:
    """Phase Failed with its reason as an Event, once."""
    if (volume.get("status") or {}).get("phase") == "Failed":
        return volume
    yield fx.Event(volume, "Warning", reason, message)
    return (yield from set_volume_phase(volume, "Failed", message))


def set_claim_phase(claim: Json, phase: str, volume: Json | None = None) -> Written:
    """What the volume offers is copied into the status; its capacity only when the claim becomes bound."""
    before = claim.get("status") or {}
    status = {key: value for key, value in before.items() if key not in ("accessModes", "phase")}
    status["phase"] = phase
    if volume is None:
        status.pop("capacity", None)
    else:
        status["accessModes"] = volume["spec"].get("accessModes") or []
        if before.get("phase") != phase:
            _copy_offer(status, volume)
    outcome = yield fx.Status(CLAIMS, claim, status)
    return outcome.object if outcome.ok else None


def _copy_offer(status: Json, volume: Json) -> None:
    storage = (volume["spec"].get("capacity") or {}).get("storage")
    storage = meta.annotations(volume).get(PRE_RESIZE_CAPACITY, storage)
    if storage is not None:
        status["capacity"] = {**(status.get("capacity") or {}), "storage": storage}
    status.pop("currentVolumeAttributesClassName", None)
    if attributes := volume["spec"].get("volumeAttributesClassName"):
        status["currentVolumeAttributesClassName"] = attributes


def lose_claim(claim: Json, reason: str, message: str) -> Written:
    if (claim.get("status") or {}).get("phase") == "Lost":
        return claim
    yield fx.Event(claim, "Warning", reason, message)
    return (yield from set_claim_phase(claim, "Lost"))


def unbind(volume: Json) -> Written:
    """A reservation that the binder made goes; one that a user made stays, without the claim's uid."""
    spec = dict(volume["spec"])
    if facts.BOUND_BY_CONTROLLER in meta.annotations(volume):
        spec.pop("claimRef", None)
        changed = annotated({**volume, "spec": spec}, **{facts.BOUND_BY_CONTROLLER: None})
    else:
        spec["claimRef"] = {k: v for k, v in spec["claimRef"].items() if k != "uid"}
        changed = {**volume, "spec": spec}
    written = yield from update(VOLUMES, changed, volume)
    return None if written is None else (yield from set_volume_phase(written, "Available"))
