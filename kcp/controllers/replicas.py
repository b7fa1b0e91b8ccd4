"""What the owners of pods share: claiming, creating, choosing whom to delete, reading outcomes.

Source of the rules: k8s v1.36 pkg/controller/controller_ref_manager.go, pkg/controller/controller_utils.go.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from kcp.controllers import effects as fx
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, Invalid, NotFound
from kcp.machinery.labels import Selector

Json = dict[str, Any]
BURST_REPLICAS = 500
"""How many pods one plan creates or deletes at most."""


def owner_of(obj: Json, owner_uid: str) -> bool:
    controller = meta.controller_of(obj)
    return controller is not None and controller["uid"] == owner_uid


def claim(
    owner: Json,
    resource: str,
    owner_resource: str,
    owned: Sequence[Json],
    orphans: Sequence[Json],
    selector: Selector,
    eligible: Callable[[Json], bool] = lambda obj: True,
    finalizer: str = "",
) -> Generator[fx.Effect, fx.Outcome, list[Json]]:
    """The objects that belong to `owner` now: adopts matching orphans, releases those that no longer match.

    Adoption first makes sure, past the cache, that the owner still lives under this uid and is not going.
    An owner that is being deleted neither adopts nor releases. `finalizer` comes with adoption and goes with release.
    Ends the plan (Abandoned) when one of these fails: whoever does not know what is his must not make or remove any.
    """
    mine: list[Json] = []
    failed = False
    going = meta.is_deleting(owner)
    for obj in owned:
        if selector.matches(meta.labels(obj)):
            mine.append(obj)
        elif not going:
            outcome = yield _release(owner, resource, obj, finalizer)
            failed = failed or _unsure(outcome)
    wanted = [] if going else [o for o in orphans if _adoptable(o, selector) and eligible(o)]
    if wanted:
        fresh = (yield fx.Live(owner_resource, meta.namespace(owner), meta.name(owner))).object
        if fresh is None or meta.uid(fresh) != meta.uid(owner) or meta.is_deleting(fresh):
            raise fx.Abandoned
        outcome = yield fx.All([_adopt(owner, resource, obj, finalizer) for obj in wanted])
        failed = failed or any(_unsure(part) for part in outcome.all)
        mine.extend(o.object for o in outcome.all if o.ok and o.object is not None)
    if failed:
        raise fx.Abandoned
    return mine


def _unsure(outcome: fx.Outcome) -> bool:
    """Failed, and not because the object is gone or another one by now."""
    return outcome.error is not None and not isinstance(outcome.error, (NotFound, Invalid))


def _adoptable(obj: Json, selector: Selector) -> bool:
    return not meta.is_deleting(obj) and selector.matches(meta.labels(obj))


def _adopt(owner: Json, resource: str, obj: Json, finalizer: str) -> fx.Patch:
    metadata: Json = {"uid": meta.uid(obj), "ownerReferences": [meta.owner_reference(owner)]}
    if finalizer:
        metadata["finalizers"] = [finalizer]
    return _patch(resource, obj, metadata)


def _release(owner: Json, resource: str, obj: Json, finalizer: str) -> fx.Patch:
    metadata: Json = {
        "uid": meta.uid(obj),
        "ownerReferences": [{"$patch": "delete", "uid": meta.uid(owner)}],
    }
    if finalizer:
        metadata["$deleteFromPrimitiveList/finalizers"] = [finalizer]
    return _patch(resource, obj, metadata)


def drop_finalizer(resource: str, obj: Json, finalizer: str) -> fx.Patch:
    """Takes one finalizer off, whatever else happened to the object meanwhile."""
    return _patch(resource, obj, {"uid": meta.uid(obj), "$deleteFromPrimitiveList/finalizers": [finalizer]})


def _patch(resource: str, obj: Json, metadata: Json) -> fx.Patch:
    return fx.Patch(
        resource,
        meta.namespace(obj),
        meta.name(obj),
        {"metadata": metadata},
        type="strategic",
        uid=meta.uid(obj),
    )


def create_pods(owner: Json, template: Json, count: int) -> Generator[fx.Effect, fx.Outcome, ApiError | None]:
    """Create `count` pods from a template in slow-start batches; the first error, if any."""
    return (yield from create_each(owner, [pod_from_template(owner, template)] * count))[1]


def create_each(
    owner: Json, pods: Sequence[Json]
) -> Generator[fx.Effect, fx.Outcome, tuple[list[Json], ApiError | None]]:
    """Create these pods in slow-start batches, with the owner's events; what was made and the first error, if any."""
    if not pods:
        return [], None
    namespace = meta.namespace(owner)
    outcome = yield fx.All([fx.Create("pods", namespace, pod) for pod in pods], slow_start=True)
    failure: ApiError | None = None
    made: list[Json] = []
    for part in outcome.all:
        if part.object is not None and part.ok:
            made.append(part.object)
            yield fx.Event(owner, "Normal", "SuccessfulCreate", f"Created pod: {meta.name(part.object)}")
        elif part.error is not None and not part.error.has_cause("NamespaceTerminating"):
            failure = failure or part.error
            yield fx.Event(owner, "Warning", "FailedCreate", f"Error creating: {part.error.message}")
    return made, failure


def delete_pods(owner: Json, pods: Sequence[Json]) -> Generator[fx.Effect, fx.Outcome, ApiError | None]:
    """Delete pods by uid; the first error, if any."""
    if not pods:
        return None
    deletes = [fx.Delete("pods", meta.namespace(p), meta.name(p), uid=meta.uid(p)) for p in pods]
    outcome = yield fx.All(deletes)
    failure: ApiError | None = None
    for pod, part in zip(pods, outcome.all, strict=True):
        if part.ok:
            yield fx.Event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {meta.name(pod)}")
        elif part.error is not None and not isinstance(part.error, NotFound):
            failure = failure or part.error
            yield fx.Event(owner, "Warning", "FailedDelete", f"Error deleting: {part.error.message}")
    return failure


def pod_from_template(owner: Json, template: Json) -> Json:
    """The pod that a template makes for an owner. Source: k8s v1.36 controller.GetPodFromTemplate."""
    given = template.get("metadata", {})
    metadata: Json = {
        "generateName": f"{meta.name(owner)}-",
        "ownerReferences": [meta.owner_reference(owner)],
    }
    for field in ("labels", "annotations", "finalizers"):
        if given.get(field):
            metadata[field] = given[field]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
