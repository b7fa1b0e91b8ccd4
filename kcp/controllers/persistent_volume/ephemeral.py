"""Ephemeral volumes: a claim of its own for each `ephemeral` volume of a pod, owned by the pod.

Source: k8s v1.36 pkg/controller/volume/ephemeral/controller.go, component-helpers/storage/ephemeral.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from kcp.apis.semantics import volumes as facts
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta

Json = dict[str, Any]
CLAIMS = "persistentvolumeclaims"


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del env
    pod = view.pods.get(key)
    if pod is None or meta.is_deleting(pod):
        return
    for volume in facts.volumes(pod):
        if volume.get("ephemeral") is not None:
            yield from _ensure(pod, volume, view)


def _ensure(pod: Json, volume: Json, view: fx.View) -> Generator[fx.Effect, fx.Outcome, None]:
    namespace, name = meta.namespace(pod), facts.ephemeral_claim_name(pod, volume)
    present = view.claims.get(f"{namespace}/{name}")
    if present is not None:
        if not facts.is_claim_of_pod(present, pod):
            fault = f"PVC {namespace}/{name} was not created for pod {meta.key_of(pod)} (pod is not owner)"
            yield _failed(pod, volume, fault)
        return
    outcome = yield fx.Create(CLAIMS, namespace, claim_for(pod, volume))
    if outcome.error is not None and not outcome.error.has_cause("NamespaceTerminating"):
        yield _failed(pod, volume, f"create PVC {name}: {outcome.error.message}")


def _failed(pod: Json, volume: Json, fault: str) -> fx.Event:
    text = f"ephemeral volume {volume['name']}: {fault}"
    return fx.Event(pod, "Warning", "FailedBinding", text)


def claim_for(pod: Json, volume: Json) -> Json:
    template = volume["ephemeral"].get("volumeClaimTemplate") or {}
    given = template.get("metadata") or {}
    metadata: Json = {
        "name": facts.ephemeral_claim_name(pod, volume),
        "namespace": meta.namespace(pod),
        "ownerReferences": [meta.owner_reference(pod)],
    }
    for field in ("labels", "annotations"):
        if given.get(field):
            metadata[field] = given[field]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": template.get("spec") or {},
    }


def touched_pod(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Volumes never change: a pod matters when it is new."""
    return [meta.key_of(new)] if old is None and new is not None and ephemeral_claims(new) else []


def touched_claim(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A claim that goes is missed by the pod whose volume it was, or makes room for it."""
    if new is not None or old is None:
        return []
    return [meta.key_of(pod) for pod in readers["pods"].index("claim", meta.key_of(old))]


def ephemeral_claims(pod: Json) -> list[str]:
    namespace = meta.namespace(pod)
    return [f"{namespace}/{name}" for name, ephemeral in facts.claim_names(pod) if ephemeral]


CONTROLLER = Controller(
    name="ephemeral-volume-controller",
    event_source="ephemeral_volume",
    identity="ephemeral-volume-controller",
    plan=plan,
    watches={
        "pods": Fan("pods", keys=touched_pod, indexes={"claim": ephemeral_claims}),
        "claims": Fan(CLAIMS, keys=touched_claim),
    },
)
