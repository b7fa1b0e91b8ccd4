"""What a StatefulSet does to single pods, with the events it tells about it.

Source: k8s v1.36 pkg/controller/statefulset/stateful_pod_control.go.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.statefulset import claims, identity
from kcp.machinery import meta
from kcp.machinery.errors import AlreadyExists, NotFound

Json = dict[str, Any]
Did = Generator[fx.Effect, fx.Outcome, bool]
"""Whether all went well."""


def create(set_: Json, pods: Sequence[Json], view: fx.View) -> Did:
    """Create pods in slow-start batches, after their claims. Pods with stale claims wait for the next plan."""
    fresh = [pod for pod in pods if not claims.are_stale(set_, pod, view)]
    faults = yield from claims.create_missing(set_, fresh, view)
    for pod in fresh:
        if meta.name(pod) in faults:
            yield _event(set_, pod, "create", faults[meta.name(pod)])
    able = [pod for pod in fresh if meta.name(pod) not in faults]
    if not able:
        return len(fresh) == len(pods) and not faults
    namespace = meta.namespace(set_)
    outcome = yield fx.All([fx.Create("pods", namespace, pod) for pod in able], slow_start=True)
    well = not faults and len(fresh) == len(pods)
    for pod, part in zip(able, outcome.all, strict=True):
        well = well and part.ok
        if part.ok:
            yield _event(set_, pod, "create")
        elif part.error is not None and not isinstance(part.error, AlreadyExists):
            yield _event(set_, pod, "create", part.error.message)
    return well


def delete(set_: Json, pods: Sequence[Json]) -> Did:
    if not pods:
        return True
    effects = [fx.Delete("pods", meta.namespace(p), meta.name(p), uid=meta.uid(p)) for p in pods]
    outcome = yield fx.All(effects)
    well = True
    for pod, part in zip(pods, outcome.all, strict=True):
        if isinstance(part.error, NotFound):
            continue
        well = well and part.ok
        yield _event(set_, pod, "delete", part.error.message if part.error else "")
    return well


def conform(set_: Json, pod: Json, view: fx.View) -> Did:
    """Repair a living pod: its labels, its volumes, the owners of its claims."""
    well = yield from claims.fix_owners(set_, pod, view)
    if identity.has_identity(set_, pod) and identity.has_storage(set_, pod):
        return well
    fixed = pod if identity.has_identity(set_, pod) else identity.with_identity(set_, pod)
    if not identity.has_storage(set_, pod):
        fixed = identity.with_storage(set_, fixed)
        faults = yield from claims.create_missing(set_, [pod], view)
        for text in faults.values():
            yield _event(set_, pod, "update", text)
            return False
    outcome = yield fx.Update("pods", fixed)
    yield _event(set_, pod, "update", outcome.error.message if outcome.error else "")
    return outcome.ok and well


def _event(set_: Json, pod: Json, verb: str, fault: str = "") -> fx.Event:
    subject = f"{verb} Pod {meta.name(pod)} in StatefulSet {meta.name(set_)}"
    if fault:
        return fx.Event(set_, "Warning", f"Failed{verb.title()}", f"{subject} failed error: {fault}")
    return fx.Event(set_, "Normal", f"Successful{verb.title()}", f"{subject} successful")
