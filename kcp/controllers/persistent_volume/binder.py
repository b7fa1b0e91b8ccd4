"""PersistentVolume binder: brings claims and volumes together, and takes back what claims leave behind.

Keys are claims (`namespace/name`) and volumes (`name`). One worker: two claims must not choose the same volume.
Source: k8s v1.36 pkg/controller/volume/persistentvolume/pv_controller.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import volumes as facts
from kcp.controllers import effects as fx
from kcp.controllers.persistent_volume import provisioner
from kcp.controllers.persistent_volume.binding import (
    CLAIMS,
    VOLUMES,
    bind,
    fail_volume,
    lose_claim,
    set_claim_phase,
    set_volume_phase,
    unbind,
    update,
)
from kcp.controllers.persistent_volume.matching import best_match, modes_mismatch, why_not
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
CLASSES = "storageclasses.storage.k8s.io"
MIGRATED_TO = "pv.kubernetes.io/migrated-to"
NO_CLASS = "no persistent volumes available for this claim and no storage class is set"
LOST_REFERENCE = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
LOST_VOLUME = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
MISBOUND = "Two claims are bound to the same volume, this one is bound incorrectly"


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    if "/" in key:
        claim = view.claims.get(key)
        if claim is not None:
            yield from _sync_claim(claim, view, env)
        return
    volume = view.volumes.get(key)
    if volume is not None:
        yield from _sync_volume(volume, view, env)


def _sync_claim(claim: Json, view: fx.View, env: fx.Env) -> Steps:
    if facts.BIND_COMPLETED in meta.annotations(claim):
        yield from _sync_bound_claim(claim, view)
    elif claim["spec"].get("volumeName"):
        yield from _sync_claim_by_name(claim, view)
    else:
        yield from _sync_unbound_claim(claim, view, env)


def _sync_unbound_claim(claim: Json, view: fx.View, env: fx.Env) -> Steps:
    storage_class = view.classes.get(facts.claim_class(claim))
    delayed = facts.waits_for_first_consumer(storage_class)
    volume = best_match(claim, view.volumes.list(), delayed=delayed)
    if volume is not None:
        yield from bind(volume, claim)
        return
    if not facts.claim_has_class(claim):
        default = provisioner.default_class(view.classes.list())
        if default is not None:
            spec = {**claim["spec"], "storageClassName": meta.name(default)}
            yield from update(CLAIMS, {**claim, "spec": spec}, claim)
            return
    if delayed and facts.SELECTED_NODE not in meta.annotations(claim):
        yield _waiting(claim, view)
    elif facts.claim_class(claim):
        yield from provisioner.provision(claim, storage_class, view, env)
        return
    else:
        yield fx.Event(claim, "Normal", "FailedBinding", NO_CLASS)
    yield from set_claim_phase(claim, "Pending")


def _waiting(claim: Json, view: fx.View) -> fx.Event:
    users = view.pods.index("claim", meta.key_of(claim))
    pods = [p for p in users if not pod_facts.is_assigned(p) and not pod_facts.is_terminal(p)]
    if not pods:
        text = "waiting for first consumer to be created before binding"
        return fx.Event(claim, "Normal", "WaitForFirstConsumer", text)
    names = ",".join(meta.name(pod) for pod in pods)
    text = f"waiting for pod{'s' if len(pods) > 1 else ''} {names} to be scheduled"
    return fx.Event(claim, "Normal", "WaitForPodScheduled", text)


def _sync_claim_by_name(claim: Json, view: fx.View) -> Steps:
    """The claim asks for one volume."""
    name = claim["spec"]["volumeName"]
    volume = view.volumes.get(name)
    if volume is not None and volume["spec"].get("claimRef") is None:
        fault = why_not(volume, claim)
        if fault is None:
            yield from bind(volume, claim)
            return
        text = f'Cannot bind to requested volume "{name}": {fault}'
        yield fx.Event(claim, "Warning", "VolumeMismatch", text)
    elif volume is not None and facts.is_bound_to(volume, claim):
        yield from bind(volume, claim)
        return
    elif volume is not None:
        text = f'volume "{name}" already bound to a different claim.'
        yield fx.Event(claim, "Warning", "FailedBinding", text)
    yield from set_claim_phase(claim, "Pending")


def _sync_bound_claim(claim: Json, view: fx.View) -> Steps:
    name = claim["spec"].get("volumeName")
    if not name:
        yield from lose_claim(claim, "ClaimLost", LOST_REFERENCE)
        return
    volume = view.volumes.get(name)
    if volume is None:
        yield from lose_claim(claim, "ClaimLost", LOST_VOLUME)
        return
    reference = volume["spec"].get("claimRef")
    if reference is None or reference.get("uid") == meta.uid(claim):
        yield from bind(volume, claim)
    else:
        yield from lose_claim(claim, "ClaimMisbound", MISBOUND)


def _sync_volume(volume: Json, view: fx.View, env: fx.Env) -> Steps:
    kept = yield from update(VOLUMES, provisioner.with_finalizer(volume), volume)
    if kept is None:
        return
    volume = kept
    reference = volume["spec"].get("claimRef")
    if reference is None or not reference.get("uid"):
        yield from set_volume_phase(volume, "Available")
        return
    claim = yield from _claim_of(volume, reference, view)
    if claim == "unknown":
        return
    if claim is None:
        yield from _release(volume)
    elif not claim["spec"].get("volumeName"):
        yield from _finish_claim(volume, claim, view, env)
    elif claim["spec"]["volumeName"] == meta.name(volume):
        yield from set_volume_phase(volume, "Bound")
    elif _was_made_for_it(volume):
        yield from _release(volume)
    else:
        yield from unbind(volume)


def _claim_of(volume: Json, reference: Json, view: fx.View) -> Generator[fx.Effect, fx.Outcome, Any]:
    """The claim behind a claimRef; None when it is gone for certain, "unknown" when it could not be asked for.

    A volume is not given up for a claim that only the cache does not know, or knows under another uid.
    """
    claim = view.claims.get(f"{reference['namespace']}/{reference['name']}")
    if claim is not None and meta.uid(claim) == reference["uid"]:
        return claim
    if claim is None and (volume.get("status") or {}).get("phase") in ("Released", "Failed"):
        return None
    live = yield fx.Live(CLAIMS, reference["namespace"], reference["name"])
    if not live.ok:
        return "unknown"
    if live.object is not None and meta.uid(live.object) == reference["uid"]:
        return live.object
    return None


def _finish_claim(volume: Json, claim: Json, view: fx.View, env: fx.Env) -> Steps:
    """The volume is reserved, the claim does not know it yet."""
    if modes_mismatch(claim, volume):
        why = "due to incompatible volumeMode."
        text = f'Cannot bind PersistentVolume to requested PersistentVolumeClaim "{meta.name(claim)}" {why}'
        yield fx.Event(volume, "Warning", "VolumeMismatch", text)
        text = f'Cannot bind PersistentVolume "{meta.name(volume)}" to requested PersistentVolumeClaim {why}'
        yield fx.Event(claim, "Warning", "VolumeMismatch", text)
        return
    yield from _sync_claim(claim, view, env)


def _was_made_for_it(volume: Json) -> bool:
    policy = volume["spec"].get("persistentVolumeReclaimPolicy")
    return facts.PROVISIONED_BY in meta.annotations(volume) and policy == "Delete"


def _release(volume: Json) -> Steps:
    """The claim is gone. A volume that failed before keeps saying so."""
    if (volume.get("status") or {}).get("phase") not in ("Released", "Failed"):
        released = yield from set_volume_phase(volume, "Released")
        if released is None:
            return
        volume = released
    if MIGRATED_TO in meta.annotations(volume):
        return
    policy = volume["spec"].get("persistentVolumeReclaimPolicy")
    if policy == "Delete":
        yield from provisioner.delete(volume)
    elif policy == "Recycle":
        text = "No recycler plugin found for the volume!"
        yield from fail_volume(volume, "VolumeFailedRecycle", text)
    elif policy != "Retain":
        text = "Volume has unrecognized PersistentVolumeReclaimPolicy"
        yield from fail_volume(volume, "VolumeUnknownReclaimPolicy", text)


def touched_claim(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A deleted claim leaves its volume, at once."""
    if new is not None:
        return [meta.key_of(new)]
    assert old is not None
    name = old["spec"].get("volumeName")
    return [name] if name else []


def touched_volume(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """The volume, the claim it is reserved for, and the claims that wait for one like it."""
    keys: dict[str, None] = {}
    for volume in (old, new):
        if volume is None:
            continue
        keys[meta.name(volume)] = None
        reference = volume["spec"].get("claimRef")
        if reference:
            keys[f"{reference.get('namespace')}/{reference.get('name')}"] = None
    if new is not None and _became_free(old, new):
        for claim in readers["claims"].index("waiting", "yes"):
            keys[meta.key_of(claim)] = None
    for claim in readers["claims"].index("volume", meta.name(new or old or {})):
        keys[meta.key_of(claim)] = None
    return list(keys)


def _became_free(old: Json | None, new: Json) -> bool:
    def standing(volume: Json) -> Any:
        spec, phase = volume["spec"], (volume.get("status") or {}).get("phase")
        return spec, phase, meta.labels(volume), meta.annotations(volume)

    return new["spec"].get("claimRef") is None and (old is None or standing(old) != standing(new))


def touched_class(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    if new is None:
        return []
    return [meta.key_of(claim) for claim in readers["claims"].index("waiting", "yes")]


def touched_pod(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Waiting claims tell for which pods they wait."""
    if old is not None and new is not None and old["spec"].get("nodeName") == new["spec"].get("nodeName"):
        return []
    pod = new if new is not None else old
    assert pod is not None
    keys = facts.claim_keys(pod)
    return [key for key in keys if (claim := readers["claims"].get(key)) is not None and waiting(claim)]


def waiting(claim: Json) -> list[str]:
    """Index: claims that are not bound yet."""
    return [] if facts.BIND_COMPLETED in meta.annotations(claim) else ["yes"]


def volume_named(claim: Json) -> list[str]:
    name = claim["spec"].get("volumeName")
    return [name] if name else []


CONTROLLER = Controller(
    name="persistentvolume-binder-controller",
    event_source="persistentvolume-controller",
    identity="persistent-volume-binder",
    plan=plan,
    watches={
        "claims": Fan(CLAIMS, keys=touched_claim, indexes={"waiting": waiting, "volume": volume_named}),
        "volumes": Fan(VOLUMES, keys=touched_volume),
        "classes": Fan(CLASSES, keys=touched_class),
        "pods": Fan("pods", keys=touched_pod, indexes={"claim": facts.claim_keys}),
        "nodes": Fan("nodes"),
    },
    workers=1,
    settings={"local_path_root": "/var/lib/kcp/local-path"},
)
