"""managedFields: who owns which fields, read into `Managed`, changed there, and written back.

An updater is told apart by name, version and subresource; an applier by name and subresource alone, so it keeps one
entry when it moves to another version.
Source: k8s v1.36 apimachinery/pkg/util/managedfields/internal (managedfields.go, capmanagers.go, stripmeta.go,
buildmanagerinfo.go, conflict.go).
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal

import attrs

from kcp.base.values import frozen
from kcp.machinery.errors import go_quote
from kcp.machinery.paths import SELF, Fields, FieldsError, canonical, field_element, union

Json = dict[str, Any]
Operation = Literal["Apply", "Update"]

MAX_UPDATERS: Final = 10
ANCIENT: Final = "ancient-changes"
"""The manager that the oldest updaters are merged into when there are more than MAX_UPDATERS."""
BEFORE_FIRST_APPLY: Final = "before-first-apply"
"""The manager that owns what an object without managedFields held when it was applied to for the first time."""

UNTRACKED: Final = frozenset(
    {
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
        "resourceVersion",
    }
)  # fmt: skip
"""Metadata that nobody owns; nor does anybody own apiVersion and kind."""


_UNTRACKED_ELEMENTS: Final = frozenset({SELF, *map(field_element, UNTRACKED)})


class ManagedFieldsError(ValueError):
    """Raised when managedFields cannot be read."""


@frozen(cache_hash=True)
class Manager:
    """Identity of an entry. `api_version` is "" for appliers."""

    name: str
    operation: Operation
    api_version: str = ""
    subresource: str = ""

    def identifier(self) -> str:
        """The JSON text by which Kubernetes sorts and maps managers."""
        parts: Json = {"manager": self.name, "operation": self.operation}
        if self.api_version:
            parts["apiVersion"] = self.api_version
        if self.subresource:
            parts["subresource"] = self.subresource
        return json.dumps(parts, separators=(",", ":"), ensure_ascii=False)

    def __str__(self) -> str:
        """As conflicts print it: `"kubectl" with subresource "scale" using apps/v1`."""
        text = go_quote(self.name)
        if self.subresource:
            text += f" with subresource {go_quote(self.subresource)}"
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


def manager_for(name: str, operation: Operation, api_version: str, subresource: str) -> Manager:
    version = api_version if operation == "Update" else ""
    return Manager(name or "unknown", operation, version, subresource)


@frozen
class Entry:
    """What one manager owns, in the version it wrote; `time` as on the wire, "" when it is not known."""

    api_version: str
    fields: Fields
    time: str = ""


Managed = dict[Manager, Entry]


def read(entries: Any) -> Managed:
    """Managers by identity. Raises ManagedFieldsError with Kubernetes' text."""
    managed: Managed = {}
    for index, entry in enumerate(entries or ()):
        operation, api_version = entry.get("operation"), entry.get("apiVersion", "")
        if operation not in ("Apply", "Update"):
            raise ManagedFieldsError("operation must be `Apply` or `Update`")
        if not api_version:
            raise ManagedFieldsError("apiVersion must not be empty")
        if entry.get("fieldsType") != "FieldsV1":
            raise ManagedFieldsError(_fields_type_fault(entry.get("fieldsType"), index))
        version = api_version if operation == "Update" else ""
        manager = Manager(entry.get("manager", ""), operation, version, entry.get("subresource", ""))
        managed[manager] = Entry(api_version, entry.get("fieldsV1") or {}, entry.get("time") or "")
    return managed


def _fields_type_fault(fields_type: Any, index: int) -> str:
    if not fields_type:
        return f"missing fieldsType in managed fields entry {index}"
    return f"invalid fieldsType {go_quote(str(fields_type))} in managed fields entry {index}"


def read_foreign(entries: Any) -> Managed:
    """As `read`, for entries that a client sent: field sets are checked and put into canonical form."""
    try:
        return {
            manager: attrs.evolve(entry, fields=canonical(entry.fields))
            for manager, entry in read(entries).items()
        }
    except FieldsError as error:
        raise ManagedFieldsError(f"error decoding set: {error}") from None


def write(managed: Managed) -> list[Json]:
    """The entries in Kubernetes' order: appliers first, then by time, name, version, subresource."""
    return sorted((written(manager, entry) for manager, entry in managed.items()), key=_order)


def written(manager: Manager, entry: Entry) -> Json:
    """One entry as managedFields has it."""
    out: Json = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": entry.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": entry.fields,
    }
    if entry.time:
        out["time"] = entry.time
    if manager.subresource:
        out["subresource"] = manager.subresource
    return out


def _order(entry: Json) -> tuple[str, ...]:
    """Times on the wire are UTC in whole seconds, so their texts sort as they do."""
    keys = ("operation", "time", "manager", "apiVersion", "subresource")
    return tuple(entry.get(key, "") for key in keys)


def capped(managed: Managed) -> Managed:
    """At most MAX_UPDATERS updaters: the oldest of a version are merged into one entry of that version."""
    updaters = [manager for manager in managed if manager.operation == "Update"]
    excess = len(updaters) - MAX_UPDATERS
    if excess <= 0:
        return managed
    updaters.sort(key=lambda manager: (managed[manager].time, manager.identifier()))
    out = dict(managed)
    first_of: dict[str, Manager] = {}
    for manager in updaters:
        if excess <= 0:
            break
        entry = out[manager]
        first = first_of.setdefault(entry.api_version, manager)
        if first is manager:
            continue
        bucket = Manager(ANCIENT, "Update", entry.api_version)
        held = out.pop(first) if bucket not in out else out[bucket]
        out[bucket] = Entry(entry.api_version, union(entry.fields, held.fields), entry.time)
        if manager != bucket:
            del out[manager]
        excess -= 1
    return out


def stripped(fields: Fields) -> Fields:
    """Without apiVersion, kind, and the metadata that nobody owns."""
    metadata = fields.get("f:metadata")
    if metadata is None and "f:apiVersion" not in fields and "f:kind" not in fields:
        return fields
    out = {e: n for e, n in fields.items() if e not in ("f:apiVersion", "f:kind", "f:metadata")}
    if metadata and (kept := {e: n for e, n in metadata.items() if e not in _UNTRACKED_ELEMENTS}):
        out["f:metadata"] = kept
    return out
