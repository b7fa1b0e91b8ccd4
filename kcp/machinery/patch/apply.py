"""Server-side apply, and the ownership that every other write leaves behind.

One worked example (Deployment `web`, containers shortened to `image`):

    write                                     web.spec                       who owns what afterwards
    ann applies  replicas: 3, image: a        replicas 3, image a            ann: replicas, image
    bob updates  replicas: 5                  replicas 5, image a            ann: image · bob (Update): replicas
    ann applies  replicas: 3, image: b        409: conflict with "bob"       -
    ann applies  image: b                     replicas 5, image b            ann: image · bob: replicas
    eve applies  replicas: 5                  replicas 5, image b            bob and eve share replicas
    eve applies  nothing                      replicas 5, image b            bob: replicas (removed only when nobody owns it)

Source: k8s v1.36 apimachinery/pkg/util/managedfields/internal (fieldmanager.go and the managers that it stacks),
structured-merge-diff/v6/merge/update.go, apiserver/pkg/endpoints/handlers/fieldmanager/equality.go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

import attrs
import orjson

from kcp.base.values import frozen
from kcp.machinery.errors import ApiError, BadRequest, Conflict
from kcp.machinery.gvk import GroupVersion, GroupVersionKind
from kcp.machinery.patch.managers import (
    BEFORE_FIRST_APPLY,
    UNTRACKED,
    Entry,
    Managed,
    ManagedFieldsError,
    Manager,
    capped,
    manager_for,
    read,
    read_foreign,
    stripped,
    write,
    written,
)
from kcp.machinery.patch.ownership import Comparison, KeyFault, compare, created, owned
from kcp.machinery.patch.typed import faults, merge, named_members, reconcile, remove_items
from kcp.machinery.paths import (
    Fields,
    Path,
    contains,
    difference,
    format_path,
    from_paths,
    intersection,
    members,
    recursive_difference,
    union,
)
from kcp.machinery.schema.compile import DEDUCED, Schema
from kcp.machinery.schema.defaults import drop_voids
from kcp.machinery.times import format_time

Json = dict[str, Any]
ResetFields = Iterable[Iterable[str]]
Convert = Callable[[Json, str], "tuple[Json, Schema] | None"]
"""(object, apiVersion) -> the object in that version and its schema; None when the version is served no more."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL = "kubectl"
"""The manager for which client-side apply hands over to server-side apply."""
MAX_ANNOTATIONS_BYTES = 256 * 1024


def update_managed_fields(
    live: Json | None,
    new: Json,
    *,
    schema: Schema | None,
    manager: str,
    subresource: str = "",
    api_version: str,
    now: datetime,
    reset_fields: ResetFields = (),
    convert: Convert | None = None,
) -> Json:
    """`new` with metadata.managedFields: what it changed against `live` belongs to `manager`, and to nobody else.

    `live` is None for a create. `schema` None: a custom resource without one. Entries of other versions are compared
    in the version at hand unless `convert` is given. An object that lost its managedFields stays untracked until it
    is applied to. The time of an entry moves only when its manager changed something.
    """
    if new is live:
        return new
    managed = _managed_for_update(live, new, subresource)
    if not managed and live is not None and live.get("metadata", {}).get("uid"):
        return _with_managed(new, {})
    me = manager_for(manager, "Update", api_version, subresource)
    write_ = _Write(schema or DEDUCED, api_version, format_time(now), from_reset(reset_fields), convert)
    if live is None and not managed:
        return _with_entry(new, me, write_.first(new))
    return _with_managed(new, capped(write_.update(live or {}, new, managed, me)))


def server_side_apply(
    live: Json | None,
    applied: Json,
    *,
    schema: Schema | None,
    manager: str,
    force: bool = False,
    subresource: str = "",
    api_version: str,
    now: datetime,
    reset_fields: ResetFields = (),
    convert: Convert | None = None,
) -> Json:
    """The object after `manager` has applied `applied`: merged by schema, with its managedFields.

    Fields that `manager` applied before, does not mention now and nobody else owns are removed. `live` None creates.
    Raises Conflict with a FieldManagerConflict cause per field when somebody else owns what would change, unless
    `force`; BadRequest or a plain ApiError (500, as Kubernetes) when `applied` is no document of its kind.
    """
    schema = schema or DEDUCED
    _check_applied(applied, schema, api_version)
    write_ = _Write(schema, api_version, format_time(now), from_reset(reset_fields), convert)
    managed = _managed_for_apply(write_, live, subresource)
    me = manager_for(manager, "Apply", api_version, subresource)
    result, managed = _apply(write_, live or {}, applied, managed, me, force)
    if manager == KUBECTL:
        result = _with_last_applied(result, applied)
    return _settled(live, _with_managed(result, managed))


def from_reset(reset_fields: ResetFields) -> Fields:
    """The field set of a strategy's reset fields (`kcp.apis.kind.Strategy.reset_fields`)."""
    return _reset_set(tuple(map(tuple, reset_fields))) if reset_fields else {}


@lru_cache(maxsize=256)
def _reset_set(paths: tuple[tuple[str, ...], ...]) -> Fields:
    return from_paths(paths)


# The parts of an object that ownership sees


def _trackable(obj: Json) -> Json:
    """Without apiVersion, kind and the metadata that nobody owns. Shares everything else."""
    out = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    metadata = obj.get("metadata")
    if metadata:
        out["metadata"] = {key: value for key, value in metadata.items() if key not in UNTRACKED}
    return out


def _with_managed(obj: Json, managed: Managed) -> Json:
    metadata = obj.get("metadata") or {}
    if not managed:
        if "managedFields" not in metadata:
            return obj
        return {**obj, "metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}
    return {**obj, "metadata": {**metadata, "managedFields": write(managed)}}


def _with_entry(obj: Json, manager: Manager, entry: Entry | None) -> Json:
    """As `_with_managed`, for a first and only entry."""
    if entry is None:
        return _with_managed(obj, {})
    return {**obj, "metadata": {**(obj.get("metadata") or {}), "managedFields": [written(manager, entry)]}}


def _without_managed(obj: Json) -> Json:
    return _with_managed(obj, {})


# Reading what is there


def _entries(obj: Json | None) -> Any:
    return obj.get("metadata", {}).get("managedFields") if obj else None


def _read_or_empty(entries: Any) -> Managed:
    try:
        return read(entries)
    except ManagedFieldsError:
        return {}


def _managed_for_update(live: Json | None, new: Json, subresource: str) -> Managed:
    """The entries to start from: those of the request if it has readable ones, else those of the live object.

    An empty list, or one with an empty entry, resets them.
    """
    ours, theirs = _entries(live), _entries(new)
    if ours is None and theirs is None:
        return {}
    if subresource or theirs is None or theirs is ours or theirs == ours:
        return _read_or_empty(ours)
    if not theirs or theirs == [{}]:
        return {}
    try:
        return read_foreign(theirs) or _read_or_empty(ours)
    except ManagedFieldsError:
        return _read_or_empty(ours)


def _managed_for_apply(write_: _Write, live: Json | None, subresource: str) -> Managed:
    """The live object's entries; one that has none belongs to `before-first-apply` as a whole."""
    try:
        managed = read(_entries(live))
    except ManagedFieldsError as error:
        raise ApiError(f"failed to decode managed fields: {error}") from None
    if managed or not live:
        return {who: write_.reconciled(entry) for who, entry in managed.items()}
    first = manager_for(BEFORE_FIRST_APPLY, "Update", write_.api_version, subresource)
    return capped(write_.update({}, _without_managed(live), {}, first))


def _check_applied(applied: Json, schema: Schema, api_version: str) -> None:
    version = applied.get("apiVersion", "")
    if version != api_version:
        raise BadRequest(
            "Incorrect version specified in apply patch. "
            f"Specified patch version: {version}, expected: {api_version}"
        )
    if (applied.get("metadata") or {}).get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    found = faults(schema, applied)
    if found:
        text = found[0] if len(found) == 1 else "\n  ".join(["errors:", *found])
        raise ApiError(f"failed to create typed patch object ({_title(applied)}): {text}")


def _title(obj: Json) -> str:
    """`default/web; apps/v1, Kind=Deployment`, as errors name an object."""
    metadata = obj.get("metadata") or {}
    version = GroupVersion.parse(obj.get("apiVersion", ""))
    gvk = GroupVersionKind(version.group, version.version, obj.get("kind", ""))
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; {gvk}"


# One write


@frozen
class _Write:
    """What all steps of one write share."""

    schema: Schema
    api_version: str
    now: str
    reset: Fields
    convert: Convert | None

    def update(self, old: Json, new: Json, managed: Managed, me: Manager) -> Managed:
        """Ownership after `me` has written `new`: what changed is taken from everybody and given to `me`."""
        if not old and not managed:
            first = self.first(new)
            return {me: first} if first is not None else {}
        changes = self.compared(self.schema, old, new)
        out = self.taken(old, new, managed, changes)
        mine = stripped(union(changes.modified, changes.added))
        if mine:
            held = out.get(me)
            out[me] = Entry(self.api_version, union(mine, held.fields) if held else mine, self.now)
        return out

    def first(self, new: Json) -> Entry | None:
        """What the maker of a new object owns; None when that is nothing."""
        mine = stripped(recursive_difference(created(self.schema, new), self.reset))
        return Entry(self.api_version, mine, self.now) if mine else None

    def compared(self, schema: Schema, old: Json, new: Json) -> Comparison:
        found = compare(schema, _trackable(old), _trackable(new))
        if not self.reset or found.is_same:
            return found
        parts = (found.added, found.modified, found.removed)
        return Comparison(*(recursive_difference(part, self.reset) for part in parts))

    def changes_in(self, version: str, old: Json, new: Json, here: Comparison) -> Comparison | None:
        """The same write seen in another version; None when that version is served no more."""
        if version == self.api_version or self.convert is None:
            return here
        before, after = self.convert(old, version), self.convert(new, version)
        if before is None or after is None:
            return None
        return self.compared(after[1], before[0], after[0])

    def taken(self, old: Json, new: Json, managed: Managed, here: Comparison) -> Managed:
        """Everybody's fields without those that this write changed or removed; who owns nothing any more is gone."""
        out: Managed = {}
        for who, entry in managed.items():
            changes = self.changes_in(entry.api_version, old, new, here)
            if changes is None:
                continue
            rest = difference(difference(entry.fields, changes.modified), changes.added)
            rest = difference(rest, changes.removed)
            if rest:
                out[who] = entry if rest is entry.fields else attrs.evolve(entry, fields=rest)
        return out

    def conflicts(
        self, old: Json, new: Json, managed: Managed, me: Manager, here: Comparison
    ) -> list[tuple[Manager, Path]]:
        """Who else owns what this write changes."""
        out: list[tuple[Manager, Path]] = []
        for who in sorted(managed, key=Manager.identifier):
            changes = self.changes_in(managed[who].api_version, old, new, here) if who != me else None
            if changes is not None:
                touched = union(changes.modified, changes.added)
                out += [(who, path) for path in members(intersection(managed[who].fields, touched))]
        return out

    def reconciled(self, entry: Entry) -> Entry:
        if entry.api_version != self.api_version:
            return entry
        fields = reconcile(self.schema, entry.fields)
        return entry if fields is entry.fields else attrs.evolve(entry, fields=fields)


def _apply(
    write_: _Write, live: Json, applied: Json, managed: Managed, me: Manager, force: bool
) -> tuple[Json, Managed]:
    """The merged object and everybody's fields."""
    schema, base = write_.schema, _without_managed(live)
    try:
        merged = merge(schema, base, applied)
    except KeyFault as fault:
        raise ApiError(f"failed to merge config: {fault}") from None
    mine = recursive_difference(owned(schema, applied), write_.reset)
    last = managed.get(me)
    claimed = {**managed, me: Entry(write_.api_version, mine)}
    if last is not None:
        merged = _without_given_up(write_, merged, claimed, last, mine)
    changes = write_.compared(schema, base, merged)
    conflicts = [] if force else write_.conflicts(base, merged, managed, me, changes)
    if conflicts and not _handed_over(write_, base, me, conflicts):
        raise _conflict(conflicts)
    others = {who: entry for who, entry in managed.items() if who != me}
    out = write_.taken(base, merged, others, changes)
    if _has_void(applied):
        merged = drop_voids(schema, merged)
    fields = stripped(mine)
    if fields:
        same = last is not None and last.fields == fields and merged == base
        time = last.time if same and last is not None else write_.now
        out[me] = Entry(write_.api_version, fields, time)
    return merged, out


_EMPTY: tuple[Any, ...] = ({}, [])


def _has_void(value: Any) -> bool:
    """Whether a null, or a list or map without anything, is somewhere inside."""
    if value in _EMPTY:
        return True
    if isinstance(value, dict):
        return any(map(_has_void, value.values()))
    return any(map(_has_void, value)) if isinstance(value, list) else value is None


def _without_given_up(write_: _Write, merged: Json, managed: Managed, last: Entry, mine: Fields) -> Json:
    """Remove what this manager applied last time, does not now, and nobody owns."""
    if not stripped(difference(last.fields, mine)):
        return merged
    there: tuple[Json, Schema] | None = (merged, write_.schema)
    if write_.convert is not None and last.api_version != write_.api_version:
        there = write_.convert(merged, last.api_version)
    if there is None:
        return merged
    value, schema = there
    everybody: Fields = {}
    for entry in managed.values():
        everybody = union(everybody, entry.fields)
    pruned = _removed(schema, value, named_members(schema, last.fields), everybody)
    if value is merged:
        return pruned
    back = write_.convert(pruned, write_.api_version) if write_.convert is not None else None
    return merged if back is None else back[0]


def _removed(schema: Schema, value: Json, last: Fields, everybody: Fields) -> Json:
    """`value` without the members of `last` that neither anybody owns nor that hold something that stays.

    Two steps, as upstream: first everything is taken out that `last` names and nobody owns, which says what would
    stay; then only what `last` names is taken out of the whole, so that what nobody owns stays where it is.
    """
    before = named_members(schema, owned(schema, value))
    without = remove_items(schema, value, last)
    kept = named_members(schema, owned(schema, without if isinstance(without, dict) else {}))
    kept = union(kept, named_members(schema, everybody))
    staying = remove_items(schema, value, difference(before, kept))
    after = named_members(schema, owned(schema, staying if isinstance(staying, dict) else {}))
    gone = intersection(difference(before, after), last)
    result = remove_items(schema, value, gone)
    return result if isinstance(result, dict) else {}


# Conflicts


def _conflict(conflicts: list[tuple[Manager, Path]]) -> Conflict:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {manager}",
            "field": format_path(path),
        }
        for manager, path in conflicts
    ]
    return Conflict(_conflict_text(conflicts), details={"causes": causes})


def _conflict_text(conflicts: list[tuple[Manager, Path]]) -> str:
    if len(conflicts) == 1:
        manager, path = conflicts[0]
        return f"Apply failed with 1 conflict: conflict with {manager}: {format_path(path)}"
    by_manager: dict[Manager, list[str]] = {}
    for manager, path in conflicts:
        by_manager.setdefault(manager, []).append(f"- {format_path(path)}")
    lines = [line for manager, paths in by_manager.items() for line in (f"conflicts with {manager}:", *paths)]
    return f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)


# From client-side apply to server-side apply


def _handed_over(write_: _Write, live: Json, me: Manager, conflicts: list[tuple[Manager, Path]]) -> bool:
    """Whether `kubectl apply` itself wrote all that is in conflict, as its annotation says. Narrows `conflicts`."""
    allowed = _last_applied_fields(write_, live) if me.name == KUBECTL else None
    if allowed is None:
        return False
    conflicts[:] = [(who, path) for who, path in conflicts if not contains(allowed, path)]
    return not conflicts


def _last_applied_fields(write_: _Write, live: Json) -> Fields | None:
    """The fields of the last client-side apply that the live object still holds as applied; None without one."""
    text = (live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED)
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError:
        return None
    schema = write_.schema
    if (
        not isinstance(config, dict)
        or config.get("apiVersion") != write_.api_version
        or faults(schema, config)
    ):
        return None
    changes = compare(schema, config, live)
    fields = owned(schema, config)
    for gone in (changes.modified, changes.added, changes.removed):
        fields = difference(fields, gone)
    return fields


def _with_last_applied(result: Json, applied: Json) -> Json:
    """Keep kubectl's annotation in step with what it applied server-side, on objects that have it."""
    metadata = result.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    if not annotations.get(LAST_APPLIED):
        return result
    text = orjson.dumps(_without_annotation(applied), option=orjson.OPT_SORT_KEYS).decode() + "\n"
    changed = {**annotations, LAST_APPLIED: text}
    if sum(len(k.encode()) + len(v.encode()) for k, v in changed.items()) > MAX_ANNOTATIONS_BYTES:
        del changed[LAST_APPLIED]
    return {**result, "metadata": {**metadata, "annotations": changed}}


def _without_annotation(applied: Json) -> Json:
    metadata = applied.get("metadata") or {}
    if LAST_APPLIED not in (metadata.get("annotations") or {}):
        return applied
    annotations = {k: v for k, v in metadata["annotations"].items() if k != LAST_APPLIED}
    return {**applied, "metadata": {**metadata, "annotations": annotations}}


# Times


def _settled(live: Json | None, result: Json) -> Json:
    """`live` itself when the write changed nothing but times of entries."""
    if live is None or _without_managed(result) != _without_managed(live):
        return result
    return live if _timeless(result) == _timeless(live) else result


def _timeless(obj: Json) -> dict[Manager, tuple[str, Fields]]:
    return {who: (entry.api_version, entry.fields) for who, entry in read(_entries(obj)).items()}
