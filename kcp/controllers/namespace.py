"""Namespace: a namespace that is going empties itself, pods first, and then goes.

Reads past the cache: a namespace must be proven empty at the head of the log, not at the edge of a cache.
Source: k8s v1.36 pkg/controller/namespace/deletion/namespaced_resources_deleter.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs

from kcp.apis.semantics import pods as pod_facts
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan, Self
from kcp.machinery import meta
from kcp.machinery.errors import ApiError
from kcp.machinery.gvk import group_resource

Json = dict[str, Any]
FINALIZER = "kubernetes"
FINALIZER_ESTIMATE_S = 15

FINE = (
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
)
"""Conditions of a namespace that is going: type, and reason and message when all is well (status False)."""


@attrs.define
class Leftovers:
    """What a pass found and could not remove; owned by the plan."""

    remaining: Counter[str] = attrs.field(factory=Counter)
    finalizers: Counter[str] = attrs.field(factory=Counter)
    failures: list[str] = attrs.field(factory=list)
    wait_s: float = 0.0

    def with_items(self, resources: Sequence[Json], listed: Sequence[fx.Outcome]) -> list[Json]:
        """The resources of which there is something. One that cannot be listed may not pass for an empty one."""
        for resource, outcome in zip(resources, listed, strict=True):
            if outcome.error is not None:
                self.failures.append(_failure_text(resource, outcome.error))
        return [r for r, outcome in zip(resources, listed, strict=True) if outcome.items]

    def note(self, resource: str, objects: Sequence[Json], now: datetime) -> None:
        if not objects:
            return
        self.remaining[resource] += len(objects)
        for obj in objects:
            self.finalizers.update(meta.finalizers(obj))
        estimate = _longest_grace(objects) if resource == "pods." else 0
        if any(meta.finalizers(obj) for obj in objects):
            estimate = max(estimate, FINALIZER_ESTIMATE_S)
        self.wait_s = max(self.wait_s, estimate / 2 + 1)


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    namespace = view.namespaces.get(key)
    if namespace is None or not meta.is_deleting(namespace):
        return
    if namespace.get("status", {}).get("phase") != "Terminating":
        outcome = yield fx.Status(
            "namespaces", namespace, {**namespace.get("status", {}), "phase": "Terminating"}
        )
        if not outcome.ok or outcome.object is None:
            return
        namespace = outcome.object
    if FINALIZER not in namespace["spec"].get("finalizers", ()):
        return
    left = Leftovers()
    pods, others = _split(env.settings["resources"])
    yield from _empty(key, pods, left, env.now)
    if not left.remaining and not left.failures:
        yield from _empty(key, others, left, env.now)
    outcome = yield fx.Status(
        "namespaces", namespace, {**namespace["status"], "conditions": _conditions(namespace, left, env.now)}
    )
    if left.remaining or left.failures:
        yield fx.RequeueAfter(left.wait_s or 5.0)
        return
    yield from _finalize(outcome.object or namespace)


def _split(resources: Sequence[Json]) -> tuple[list[Json], list[Json]]:
    deletable = [r for r in resources if r["namespaced"] and {"list", "delete"} <= set(r["verbs"])]
    pods = [r for r in deletable if r["group"] == "" and r["plural"] == "pods"]
    return pods, [r for r in deletable if r not in pods]


def _empty(
    namespace: str, resources: Sequence[Json], left: Leftovers, now: datetime
) -> Generator[fx.Effect, fx.Outcome, None]:
    """Delete everything of these resources; what is still there afterwards goes into `left`."""
    found = yield fx.All([_live(r, namespace) for r in resources])
    busy = left.with_items(resources, found.all)
    for resource in busy:
        outcome = yield fx.Request("DELETE", _collection(resource, namespace), body=_background())
        if outcome.error is not None:
            left.failures.append(_failure_text(resource, outcome.error))
    if not busy:
        return
    found = yield fx.All([_live(r, namespace) for r in busy])
    left.with_items(busy, found.all)
    for resource, outcome in zip(busy, found.all, strict=True):
        left.note(f"{resource['plural']}.{resource['group']}", outcome.items, now)


def _live(resource: Json, namespace: str) -> fx.LiveList:
    return fx.LiveList(group_resource(resource["group"], resource["plural"]), namespace)


def _collection(resource: Json, namespace: str) -> str:
    root = (
        f"/apis/{resource['group']}/{resource['version']}"
        if resource["group"]
        else f"/api/{resource['version']}"
    )
    return f"{root}/namespaces/{namespace}/{resource['plural']}"


def _background() -> Json:
    return {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}


def _failure_text(resource: Json, error: ApiError) -> str:
    return f"unexpected items still remain in namespace: {resource['plural']}: {error.message}"


def _longest_grace(pods: Sequence[Json]) -> int:
    waits = [
        pod["spec"].get("terminationGracePeriodSeconds", 0) for pod in pods if not pod_facts.is_terminal(pod)
    ]
    return max(waits, default=0)


def _conditions(namespace: Json, left: Leftovers, now: datetime) -> list[Json]:
    bad = {
        "NamespaceDeletionContentFailure": ("ContentDeletionFailed", _failures_text(left))
        if left.failures
        else None,
        "NamespaceContentRemaining": ("SomeResourcesRemain", _remaining_text(left))
        if left.remaining
        else None,
        "NamespaceFinalizersRemaining": ("SomeFinalizersRemain", _finalizers_text(left))
        if left.finalizers
        else None,
    }
    conditions: list[Json] = list(namespace.get("status", {}).get("conditions", ()))
    for type_, reason, message in FINE:
        fault = bad.get(type_)
        status = "True" if fault else "False"
        reason, message = fault or (reason, message)
        entry = {"type": type_, "status": status, "reason": reason, "message": message}
        conditions = meta.set_condition(conditions, entry, now)
    return conditions


def _failures_text(left: Leftovers) -> str:
    return f"Failed to delete all resource types, {len(left.failures)} remaining: {', '.join(left.failures)}"


def _remaining_text(left: Leftovers) -> str:
    parts = [
        f"{resource} has {count} resource instances" for resource, count in sorted(left.remaining.items())
    ]
    return f"Some resources are remaining: {', '.join(parts)}"


def _finalizers_text(left: Leftovers) -> str:
    parts = [f"{name} in {count} resource instances" for name, count in sorted(left.finalizers.items())]
    return f"Some content in the namespace has finalizers remaining: {', '.join(parts)}"


def _finalize(namespace: Json) -> Generator[fx.Effect, fx.Outcome, None]:
    kept = [f for f in namespace["spec"].get("finalizers", ()) if f != FINALIZER]
    body = {**namespace, "spec": {**namespace["spec"], "finalizers": kept}}
    yield fx.Request("PUT", f"/api/v1/namespaces/{meta.name(namespace)}/finalize", body=body)


def pod_gone(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """When the last pods go, the rest of the namespace can follow at once."""
    if new is not None or old is None:
        return []
    namespace = readers["namespaces"].get(meta.namespace(old))
    return [meta.name(namespace)] if namespace is not None and meta.is_deleting(namespace) else []


CONTROLLER = Controller(
    name="namespace-controller",
    identity="namespace-controller",
    plan=plan,
    watches={"namespaces": Self("namespaces"), "pods": Fan("pods", keys=pod_gone)},
    workers=10,
    settings={"resources": ()},
)
