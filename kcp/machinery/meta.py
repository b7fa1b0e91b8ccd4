"""ObjectMeta: reading it cheaply, and the rules every kind shares.

Readers take whole objects, never fail on absent fields and change nothing; what they return belongs to the object.
Source: k8s v1.36 apimachinery/pkg/api/validation/objectmeta.go, pkg/apis/meta/v1/{controller_ref,validation}.go,
pkg/api/meta/conditions.go.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kcp.machinery.errors import (
    FieldError,
    duplicate,
    forbidden,
    go_quote,
    invalid,
    required,
    too_long,
    unsupported,
)
from kcp.machinery.gvk import GroupVersion
from kcp.machinery.labels import validate_labels
from kcp.machinery.names import (
    NameRule,
    is_condition_reason,
    is_dns1123_label,
    is_qualified_name,
    validate_name,
)
from kcp.machinery.times import format_time

Json = dict[str, Any]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
STANDARD_FINALIZERS = frozenset({"kubernetes", ORPHAN, FOREGROUND})
"""The finalizers that need no domain."""
ANNOTATIONS_MAX_BYTES = 256 * 1024
FIELD_MANAGER_MAX = 128
SUBRESOURCE_NAME_MAX = 256
FIELD_IMMUTABLE = "field is immutable"

_NONE: Mapping[str, Any] = {}
_IMMUTABLE = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_EMPTY_TEXT = frozenset({"name", "namespace", "uid"})


def name(obj: Mapping[str, Any]) -> str:
    return (obj.get("metadata") or _NONE).get("name") or ""


def namespace(obj: Mapping[str, Any]) -> str:
    """The namespace; "" for a cluster-scoped object."""
    return (obj.get("metadata") or _NONE).get("namespace") or ""


def uid(obj: Mapping[str, Any]) -> str:
    return (obj.get("metadata") or _NONE).get("uid") or ""


def generation(obj: Mapping[str, Any]) -> int:
    return (obj.get("metadata") or _NONE).get("generation") or 0


def resource_version(obj: Mapping[str, Any]) -> str:
    return (obj.get("metadata") or _NONE).get("resourceVersion") or ""


def labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return (obj.get("metadata") or _NONE).get("labels") or _NONE


def annotations(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return (obj.get("metadata") or _NONE).get("annotations") or _NONE


def owner_references(obj: Mapping[str, Any]) -> list[Json]:
    return (obj.get("metadata") or _NONE).get("ownerReferences") or []


def finalizers(obj: Mapping[str, Any]) -> list[str]:
    return (obj.get("metadata") or _NONE).get("finalizers") or []


def is_deleting(obj: Mapping[str, Any]) -> bool:
    return (obj.get("metadata") or _NONE).get("deletionTimestamp") is not None


def key_of(obj: Mapping[str, Any]) -> str:
    """`namespace/name`, or `name` for a cluster-scoped object: how work queues and caches name it."""
    metadata = obj["metadata"]
    where = metadata.get("namespace")
    return f"{where}/{metadata['name']}" if where else metadata["name"]


def split_key(key: str) -> tuple[str, str]:
    """Namespace ("" when there is none) and name. Raises ValueError when the key has more than one slash."""
    head, slash, tail = key.partition("/")
    if not slash:
        return "", head
    if "/" in tail:
        raise ValueError(f"unexpected key format: {go_quote(key)}")
    return head, tail


def controller_of(obj: Mapping[str, Any]) -> Json | None:
    """The owner reference that has `controller: true`."""
    for reference in owner_references(obj):
        if reference.get("controller"):
            return reference
    return None


def is_controlled_by(obj: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == uid(owner)


def owner_reference(owner: Mapping[str, Any], *, controller: bool = True, block: bool = True) -> Json:
    """A new reference to `owner`, as metav1.NewControllerRef; the flags are left out when false."""
    reference: Json = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    if controller:
        reference["controller"] = True
    if block:
        reference["blockOwnerDeletion"] = True
    return reference


def condition(obj: Mapping[str, Any], type: str) -> Json | None:
    """The condition of that type in `status.conditions`."""
    for entry in (obj.get("status") or _NONE).get("conditions") or ():
        if entry.get("type") == type:
            found: Json = entry
            return found
    return None


def condition_is(obj: Mapping[str, Any], type: str, status: str = "True") -> bool:
    entry = condition(obj, type)
    return entry is not None and entry.get("status") == status


def set_condition(conditions: Sequence[Json] | None, new: Mapping[str, Any], now: datetime) -> list[Json]:
    """A new list with `new` in the place of the condition of its type, or at the end.

    `lastTransitionTime` is kept while the status stays the same; else it is that of `new`, or `now`. Other keys that
    only the old condition has stay. Source: k8s meta.SetStatusCondition.
    """
    out = list(conditions or ())
    for i, old in enumerate(out):
        if old.get("type") == new["type"]:
            out[i] = _merged(old, new, now)
            return out
    out.append({**new, "lastTransitionTime": new.get("lastTransitionTime") or format_time(now)})
    return out


def _merged(old: Json, new: Mapping[str, Any], now: datetime) -> Json:
    merged = {**old, **new}
    if old.get("status") == new.get("status"):
        merged["lastTransitionTime"] = old.get("lastTransitionTime") or format_time(now)
    else:
        merged["lastTransitionTime"] = new.get("lastTransitionTime") or format_time(now)
    return merged


def remove_condition(conditions: Sequence[Json] | None, type: str) -> list[Json]:
    return [entry for entry in conditions or () if entry.get("type") != type]


def validate_object_meta(
    meta: Mapping[str, Any], *, namespaced: bool, name_rule: NameRule, path: str = "metadata"
) -> list[FieldError]:
    """The faults of the metadata of an object about to be created, after its name was generated."""
    errors = _validate_names(meta, name_rule, path)
    where = meta.get("namespace") or ""
    if not namespaced:
        if where:
            errors.append(forbidden(f"{path}.namespace", "not allowed on this type"))
    elif not where:
        errors.append(required(f"{path}.namespace"))
    else:
        errors += [invalid(f"{path}.namespace", where, fault) for fault in is_dns1123_label(where)]
    errors += validate_non_negative(meta.get("generation") or 0, f"{path}.generation")
    errors += validate_labels(meta.get("labels"), f"{path}.labels")
    errors += validate_annotations(meta.get("annotations"), f"{path}.annotations")
    errors += validate_owner_references(meta.get("ownerReferences"), f"{path}.ownerReferences")
    errors += validate_finalizers(meta.get("finalizers"), f"{path}.finalizers")
    errors += validate_managed_fields(meta.get("managedFields"), f"{path}.managedFields")
    return errors


def _validate_names(meta: Mapping[str, Any], rule: NameRule, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    base, own = meta.get("generateName") or "", meta.get("name") or ""
    if base:
        errors += [
            invalid(f"{path}.generateName", base, fault) for fault in validate_name(rule, base, prefix=True)
        ]
    if not own:
        errors.append(required(f"{path}.name", "name or generateName is required"))
    else:
        errors += [invalid(f"{path}.name", own, fault) for fault in validate_name(rule, own)]
    return errors


def validate_non_negative(value: int, path: str) -> list[FieldError]:
    return [] if value >= 0 else [invalid(path, value, "must be greater than or equal to 0")]


def validate_annotations(entries: Mapping[str, str] | None, path: str) -> list[FieldError]:
    """Keys are qualified names once lower-cased; at most 256 KiB in all."""
    if not entries:
        return []
    errors = [invalid(path, key, fault) for key in entries for fault in is_qualified_name(key.lower())]
    if sum(len(key) + len(value) for key, value in entries.items()) > ANNOTATIONS_MAX_BYTES // 4:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in entries.items())
        if size > ANNOTATIONS_MAX_BYTES:
            errors.append(too_long(path, ANNOTATIONS_MAX_BYTES))
    return errors


def validate_owner_references(references: Sequence[Json] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    first_controller = ""
    for reference in references or ():
        errors += _validate_owner_reference(reference, path)
        if reference.get("controller"):
            this = f"{reference.get('kind', '')}/{reference.get('name', '')}"
            if first_controller:
                text = (
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{first_controller} and {this}"
                )
                errors.append(invalid(path, list(references or ()), text))
            else:
                first_controller = this
    return errors


def _validate_owner_reference(reference: Json, path: str) -> list[FieldError]:
    errors = []
    api_version, kind = reference.get("apiVersion") or "", reference.get("kind") or ""
    try:
        group_version = GroupVersion.parse(api_version)
    except ValueError:
        group_version = GroupVersion("", "")
    if not group_version.version:
        errors.append(invalid(f"{path}.apiVersion", api_version, "version must not be empty"))
    for field in ("kind", "name", "uid"):
        if not reference.get(field):
            errors.append(invalid(f"{path}.{field}", "", "must not be empty"))
    if group_version == GroupVersion("", "v1") and kind == "Event":
        errors.append(invalid(path, reference, "/v1, Kind=Event is disallowed from being an owner"))
    return errors


def validate_finalizers(entries: Sequence[str] | None, path: str) -> list[FieldError]:
    if not entries:
        return []
    errors = [invalid(path, entry, fault) for entry in entries for fault in is_qualified_name(entry)]
    if ORPHAN in entries and FOREGROUND in entries:
        errors.append(invalid(path, list(entries), f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set"))
    return errors


def kube_finalizer_faults(name: str) -> list[str]:
    """What Kubernetes' own kinds ask of a finalizer besides its syntax: a name without a slash is one of the three known."""
    if "/" in name or name in STANDARD_FINALIZERS:
        return []
    return ["name is neither a standard finalizer name nor is it fully qualified"]


def validate_kube_finalizers(entries: Sequence[str] | None, path: str) -> list[FieldError]:
    """Source: k8s v1.36 pkg/apis/core/validation/validation.go ValidateObjectMeta and ValidateObjectMetaUpdate."""
    return [
        invalid(f"{path}[{i}]", entry, fault)
        for i, entry in enumerate(entries or ())
        for fault in kube_finalizer_faults(entry)
    ]


def validate_no_new_finalizers(new: Sequence[str], old: Sequence[str], path: str) -> list[FieldError]:
    extra = sorted(set(new).difference(old))
    if not extra:
        return []
    shown = ", ".join(map(go_quote, extra))
    text = "no new finalizers can be added if the object is being deleted, found new finalizers"
    return [forbidden(path, f"{text} []string{{{shown}}}")]


def validate_managed_fields(entries: Sequence[Json] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, entry in enumerate(entries or ()):
        where = f"{path}[{i}]"
        operation, kind = entry.get("operation") or "", entry.get("fieldsType") or ""
        if operation not in ("Apply", "Update"):
            errors.append(invalid(f"{where}.operation", operation, "must be `Apply` or `Update`"))
        if kind and kind != "FieldsV1":
            errors.append(invalid(f"{where}.fieldsType", kind, "must be `FieldsV1`"))
        errors += validate_field_manager(entry.get("manager") or "", f"{where}.manager")
        if len((entry.get("subresource") or "").encode()) > SUBRESOURCE_NAME_MAX:
            errors.append(too_long(f"{where}.subresource", SUBRESOURCE_NAME_MAX))
    return errors


def validate_field_manager(manager: str, path: str = "fieldManager") -> list[FieldError]:
    """At most 128 bytes, printable."""
    errors = []
    if len(manager.encode("utf-8", "replace")) > FIELD_MANAGER_MAX:
        errors.append(too_long(path, FIELD_MANAGER_MAX))
    if not manager.isprintable():
        at = 0
        for char in manager:
            if not char.isprintable():
                text = f"invalid character U+{ord(char):04X} (at position {at})"
                errors.append(invalid(path, manager, text))
            at += len(char.encode("utf-8", "replace"))
    return errors


def validate_object_meta_update(
    new: Mapping[str, Any], old: Mapping[str, Any], path: str = "metadata"
) -> list[FieldError]:
    """The faults of new metadata against the stored one; the server has filled in the resourceVersion."""
    errors: list[FieldError] = []
    if old.get("deletionTimestamp") is not None:
        added = (new.get("finalizers") or [], old.get("finalizers") or [])
        errors += validate_no_new_finalizers(*added, f"{path}.finalizers")
    if not new.get("resourceVersion"):
        errors.append(invalid(f"{path}.resourceVersion", "", "must be specified for an update"))
    generation, before = new.get("generation") or 0, old.get("generation") or 0
    if generation < before:
        errors.append(invalid(f"{path}.generation", generation, "must not be decremented"))
    for field in _IMMUTABLE:
        errors += _validate_kept(new, old, field, path)
    errors += validate_labels(new.get("labels"), f"{path}.labels")
    errors += validate_annotations(new.get("annotations"), f"{path}.annotations")
    errors += validate_owner_references(new.get("ownerReferences"), f"{path}.ownerReferences")
    errors += validate_managed_fields(new.get("managedFields"), f"{path}.managedFields")
    return errors


def _validate_kept(new: Mapping[str, Any], old: Mapping[str, Any], field: str, path: str) -> list[FieldError]:
    value, before = new.get(field), old.get(field)
    if field in _EMPTY_TEXT:
        value, before = value or "", before or ""
    return [] if value == before else [invalid(f"{path}.{field}", value, FIELD_IMMUTABLE)]


def validate_immutable(new: Any, old: Any, path: str) -> list[FieldError]:
    """`field is immutable` unless both are equal."""
    return [] if new == old else [invalid(path, new, FIELD_IMMUTABLE)]


def validate_conditions(conditions: Sequence[Json] | None, path: str) -> list[FieldError]:
    """The rules of metav1.Condition, for the kinds that use it."""
    errors: list[FieldError] = []
    seen: dict[str, int] = {}
    for i, entry in enumerate(conditions or ()):
        type = entry.get("type") or ""
        if type in seen:
            errors.append(duplicate(f"{path}[{i}].type", type))
        seen.setdefault(type, i)
        errors += _validate_condition(entry, f"{path}[{i}]")
    return errors


def _validate_condition(entry: Json, path: str) -> list[FieldError]:
    type, status, reason = (entry.get(field) or "" for field in ("type", "status", "reason"))
    errors = [invalid(f"{path}.type", type, fault) for fault in is_qualified_name(type)]
    if status not in ("True", "False", "Unknown"):
        errors.append(unsupported(f"{path}.status", status, ["False", "True", "Unknown"]))
    observed = entry.get("observedGeneration") or 0
    if observed < 0:
        text = "must be greater than or equal to zero"
        errors.append(invalid(f"{path}.observedGeneration", observed, text))
    if not entry.get("lastTransitionTime"):
        errors.append(required(f"{path}.lastTransitionTime", "must be set"))
    if not reason:
        errors.append(required(f"{path}.reason", "must be set"))
    else:
        errors += [invalid(f"{path}.reason", reason, fault) for fault in is_condition_reason(reason)]
        if len(reason) > 1024:
            errors.append(too_long(f"{path}.reason", 1024))
    if len((entry.get("message") or "").encode()) > 32 * 1024:
        errors.append(too_long(f"{path}.message", 32 * 1024))
    return errors
