"""Protection: claims, volumes and volume attributes classes stay, though deleted, until nobody uses them.

Source: k8s v1.36 pkg/controller/volume/{pvcprotection,pvprotection,vacprotection}.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import volumes as facts
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
CLAIMS, VOLUMES = "persistentvolumeclaims", "persistentvolumes"
ATTRIBUTES = "volumeattributesclasses.storage.k8s.io"
ATTRIBUTES_PROTECTION = "kubernetes.io/vac-protection"


def with_finalizer(obj: Json, finalizer: str) -> Json:
    metadata = {**obj["metadata"], "finalizers": [*meta.finalizers(obj), finalizer]}
    return {**obj, "metadata": metadata}


def without_finalizer(obj: Json, finalizer: str) -> Json:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "finalizers"}
    others = [f for f in meta.finalizers(obj) if f != finalizer]
    if others:
        metadata["finalizers"] = others
    return {**obj, "metadata": metadata}


def plan_claims(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """All claims of one namespace that need something; one live list of its pods settles them together."""
    del env
    claims = view.claims.index("attention", key)
    missing = [c for c in claims if not meta.is_deleting(c)]
    if missing:
        yield fx.All([fx.Update(CLAIMS, with_finalizer(c, facts.PVC_PROTECTION)) for c in missing])
    unused = [c for c in claims if meta.is_deleting(c) and not _in_use(c, view.pods)]
    if not unused:
        return
    live = yield fx.LiveList("pods", key)
    if not live.ok:
        return
    free = [c for c in unused if not any(uses_claim(pod, c) for pod in live.items)]
    if free:
        yield fx.All([fx.Update(CLAIMS, without_finalizer(c, facts.PVC_PROTECTION)) for c in free])


def _in_use(claim: Json, pods: fx.Reader) -> bool:
    return any(uses_claim(pod, claim) for pod in pods.index("claim", meta.key_of(claim)))


def uses_claim(pod: Json, claim: Json) -> bool:
    """A pod uses a claim once it has a node, and until it is gone; an ephemeral volume's until it is shut down."""
    if not pod_facts.is_assigned(pod):
        return False
    for name, ephemeral in facts.claim_names(pod):
        if name != meta.name(claim):
            continue
        if not ephemeral or (not _is_shut_down(pod) and facts.is_claim_of_pod(claim, pod)):
            return True
    return False


def _is_shut_down(pod: Json) -> bool:
    """Deleted with no grace left: the kubelet is done with it, or was passed over."""
    return meta.is_deleting(pod) and pod["metadata"].get("deletionGracePeriodSeconds") == 0


def needs_attention(claim: Json) -> list[str]:
    """Index by namespace: deleted claims that are still protected, and claims that should be."""
    protected = facts.PVC_PROTECTION in meta.finalizers(claim)
    return [meta.namespace(claim)] if protected == meta.is_deleting(claim) else []


def touched_claim(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    return needs_attention(new) if new is not None else []


def touched_pod(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A pod frees its claims when it is gone, or shut down."""
    pod = new if new is not None else old
    assert pod is not None
    if new is not None and not _is_shut_down(new):
        return []
    claims = (readers["claims"].get(key) for key in facts.claim_keys(pod))
    if any(claim is not None and needs_attention(claim) for claim in claims):
        return [meta.namespace(pod)]
    return []


CLAIM_CONTROLLER = Controller(
    name="persistentvolumeclaim-protection-controller",
    identity="pvc-protection-controller",
    plan=plan_claims,
    watches={
        "claims": Fan(CLAIMS, keys=touched_claim, indexes={"attention": needs_attention}),
        "pods": Fan("pods", keys=touched_pod, indexes={"claim": facts.claim_keys}),
    },
    workers=1,
)


def plan_volume(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del env
    volume = view.volumes.get(key)
    if volume is None:
        return
    protected = facts.PV_PROTECTION in meta.finalizers(volume)
    if not meta.is_deleting(volume) and not protected:
        yield fx.Update(VOLUMES, with_finalizer(volume, facts.PV_PROTECTION))
    elif meta.is_deleting(volume) and protected and _phase(volume) != "Bound":
        yield fx.Update(VOLUMES, without_finalizer(volume, facts.PV_PROTECTION))


def _phase(volume: Json) -> str:
    phase: str = (volume.get("status") or {}).get("phase", "")
    return phase


def itself(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    return [meta.key_of(new)] if new is not None else []


VOLUME_CONTROLLER = Controller(
    name="persistentvolume-protection-controller",
    identity="pv-protection-controller",
    plan=plan_volume,
    watches={"volumes": Fan(VOLUMES, keys=itself)},
    workers=1,
)


def plan_attributes(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del env
    attributes = view.attributes.get(key)
    if attributes is None:
        return
    protected = ATTRIBUTES_PROTECTION in meta.finalizers(attributes)
    if not meta.is_deleting(attributes) and not protected:
        yield fx.Update(ATTRIBUTES, with_finalizer(attributes, ATTRIBUTES_PROTECTION))
    elif meta.is_deleting(attributes) and protected and not _is_named(key, view):
        yield fx.Update(ATTRIBUTES, without_finalizer(attributes, ATTRIBUTES_PROTECTION))


def _is_named(name: str, view: fx.View) -> bool:
    return bool(view.claims.index("attributes", name) or view.volumes.index("attributes", name))


def attributes_of_claim(claim: Json) -> list[str]:
    """The classes that a claim asks for, has, or is changing to."""
    status = claim.get("status") or {}
    found = (
        claim["spec"].get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return [name for name in dict.fromkeys(found) if name]


def attributes_of_volume(volume: Json) -> list[str]:
    name = volume["spec"].get("volumeAttributesClassName")
    return [name] if name else []


def left_by_claim(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    return _left(attributes_of_claim, old, new)


def left_by_volume(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    return _left(attributes_of_volume, old, new)


def _left(names: Any, old: Json | None, new: Json | None) -> list[str]:
    """The classes that an object named before and does not name now."""
    now = names(new) if new is not None else []
    return [name for name in (names(old) if old is not None else ()) if name not in now]


ATTRIBUTES_CONTROLLER = Controller(
    name="volumeattributesclass-protection-controller",
    identity="volumeattributesclass-protection-controller",
    plan=plan_attributes,
    watches={
        "attributes": Fan(ATTRIBUTES, keys=itself),
        "claims": Fan(CLAIMS, keys=left_by_claim, indexes={"attributes": attributes_of_claim}),
        "volumes": Fan(VOLUMES, keys=left_by_volume, indexes={"attributes": attributes_of_volume}),
    },
    workers=1,
)
