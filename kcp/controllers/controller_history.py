"""ControllerRevisions: the snapshots of a pod template that StatefulSets and DaemonSets keep.

    data = {"spec": {"template": {..., "$patch": "replace"}}}

A revision's name is `<owner>-<hash>`; equal data means equal revisions, whatever their hashes.
Source: k8s v1.36 pkg/controller/history/controller_history.go.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from kcp.apis.core.podspec import default_template
from kcp.apis.semantics import workloads
from kcp.controllers import effects as fx
from kcp.controllers.sources import Fan, Mapper
from kcp.machinery import meta
from kcp.machinery.errors import AlreadyExists

Json = dict[str, Any]
RESOURCE = "controllerrevisions.apps"
HASH_LABEL = "controller.kubernetes.io/hash"


def snapshot(template: Json) -> Json:
    """The data of a revision: a strategic patch that puts this template back."""
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def template_of(revision: Json) -> Json:
    """The template that a revision holds."""
    template = (revision.get("data") or {}).get("spec", {}).get("template") or {}
    return {field: value for field, value in template.items() if field != "$patch"}


def holds(revision: Json, template: Json) -> bool:
    """Whether the revision stands for this template."""
    return _bare(template_of(revision)) == _bare(template)


def holding(revisions: Sequence[Json], template: Json) -> list[Json]:
    """The revisions that stand for this template, in their order.

    If none does as it is written, those count that do once defaults are filled in: a server that learned to default
    one more field must not roll everything out anew.
    """
    exact = [revision for revision in revisions if holds(revision, template)]
    if exact or not revisions:
        return exact
    wanted = _defaulted(template)
    return [revision for revision in revisions if _defaulted(template_of(revision)) == wanted]


def _defaulted(template: Json) -> Json:
    holder = {"template": copy.deepcopy(_bare(template))}
    default_template(holder)
    return holder["template"]


def _bare(template: Json) -> Json:
    """Without what only some writers fill in: `metadata.creationTimestamp: null`, empty metadata."""
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if v is not None}
    return {**template, "metadata": metadata}


def by_revision(revision: Json) -> tuple[int, str, str]:
    return (
        int(revision.get("revision", 0)),
        revision["metadata"].get("creationTimestamp") or "",
        meta.name(revision),
    )


def next_number(revisions: Sequence[Json]) -> int:
    return max((int(revision.get("revision", 0)) for revision in revisions), default=0) + 1


def new_revision(owner: Json, number: int, collision_count: int, hash_label: str = HASH_LABEL) -> Json:
    """The revision of the owner's present template, not yet created."""
    template = owner["spec"]["template"]
    hash_ = workloads.stable_hash(template, collision_count)
    metadata: Json = {
        "name": f"{meta.name(owner)[:223]}-{hash_}",
        "labels": {**(template.get("metadata", {}).get("labels") or {}), hash_label: hash_},
        "ownerReferences": [meta.owner_reference(owner)],
    }
    if meta.annotations(owner):
        metadata["annotations"] = dict(meta.annotations(owner))
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "data": snapshot(template),
        "revision": number,
    }


def create(
    owner: Json, number: int, collision_count: int, hash_label: str = HASH_LABEL
) -> Generator[fx.Effect, fx.Outcome, tuple[Json | None, int]]:
    """Create the revision of the present template: (the revision or None, the collision count to remember).

    A name that is taken by a revision of the same template is that revision; taken by another, it is a collision.
    """
    wanted = new_revision(owner, number, collision_count, hash_label)
    outcome = yield fx.Create(RESOURCE, meta.namespace(owner), wanted)
    if not isinstance(outcome.error, AlreadyExists):
        return outcome.object if outcome.ok else None, collision_count
    present = (yield fx.Live(RESOURCE, meta.namespace(owner), meta.name(wanted))).object
    if present is None:
        return None, collision_count
    if holds(present, owner["spec"]["template"]):
        return present, collision_count
    return None, collision_count + 1


def renumber(revision: Json, number: int) -> Generator[fx.Effect, fx.Outcome, Json]:
    """Raise the number of a revision that is in use again."""
    if int(revision.get("revision", 0)) == number:
        return revision
    outcome = yield fx.Update(RESOURCE, {**revision, "revision": number})
    return outcome.object if outcome.ok and outcome.object is not None else revision


def truncate(
    revisions: Sequence[Json], live: frozenset[str], limit: int
) -> Generator[fx.Effect, fx.Outcome, None]:
    """Delete the oldest revisions that nothing uses (`live` holds names) beyond the limit."""
    unused = sorted((r for r in revisions if meta.name(r) not in live), key=by_revision)
    for revision in unused[: max(0, len(unused) - limit)]:
        yield fx.Delete(RESOURCE, meta.namespace(revision), meta.name(revision), uid=meta.uid(revision))


def watched(owner_kind: str, adopting: Mapper) -> Fan:
    """The source of an owner's revisions, with index `owner` as Owned has it.

    A new revision of the owner's queues nothing: either the owner has just made it, or a user keeps it by hand.
    """

    def keys(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
        found = [] if old is None else [*_owner_key(old, owner_kind), *_owner_key(new, owner_kind)]
        return list(dict.fromkeys([*found, *adopting(old, new, readers)]))

    return Fan(RESOURCE, keys=keys, indexes={"owner": _owner_values})


def _owner_key(revision: Json | None, owner_kind: str) -> list[str]:
    controller = meta.controller_of(revision) if revision is not None else None
    if revision is None or controller is None or controller["kind"] != owner_kind:
        return []
    return [f"{meta.namespace(revision)}/{controller['name']}"]


def _owner_values(revision: Json) -> list[str]:
    controller = meta.controller_of(revision)
    return [controller["uid"]] if controller else [f"orphan:{meta.namespace(revision)}"]
