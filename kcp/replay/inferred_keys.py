"""Which key a write was decided for, where a controller's watches do not tell it; and what an imported log served.

The garbage collector decides about uids: a dependent goes for its owner that is gone or going, an owner's finalizer goes
for the owner itself. The namespace controller decides about the namespace that what it deletes lies in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kcp.apis.catalog import build_catalog
from kcp.controllers import garbage_collector, namespace
from kcp.controlplane.cluster import resource_rows
from kcp.machinery import meta
from kcp.store.protocol import Event, KindRow, Op
from kcp.store.reader import LogReader

Json = dict[str, Any]
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
KeyOf = Callable[[Event, Any], str]


def served(reader: LogReader) -> list[Json]:
    """The resources of which a log has objects, as controllers get them in their settings."""
    known = {row["resource"]: row for row in resource_rows(build_catalog())}
    return [known.get(kind.resource) or _custom(kind) for kind in reader.kinds]


def _custom(kind: KindRow) -> Json:
    return {
        "resource": kind.resource, "group": kind.group, "version": kind.version, "kind": kind.kind,
        "plural": kind.plural, "namespaced": kind.namespaced, "verbs": VERBS,
    }  # fmt: skip


def owner_key(event: Event, view: Any) -> str:
    """The uid that the garbage collector had in hand; the view stands just before the event."""
    before = event.previous.value if event.previous is not None else event.record.value
    after = None if event.op is Op.DELETED else event.record.value
    own = event.record.uid
    if meta.is_deleting(before):
        return own
    refs = meta.owner_references(before)
    kept = {ref["uid"] for ref in meta.owner_references(after)} if after is not None else set()
    if after is not None and not meta.is_deleting(after):
        refs = [ref for ref in refs if ref["uid"] not in kept]
    for ref in refs:
        owner = next(iter(view.meta.index("uid", ref["uid"])), None)
        if owner is None or meta.is_deleting(owner):
            return str(ref["uid"])
    return own


def namespace_key(event: Event, view: Any) -> str:
    del view
    return event.key.namespace or event.key.name


KEYS: Mapping[str, KeyOf] = {
    garbage_collector.CONTROLLER.name: owner_key,
    namespace.CONTROLLER.name: namespace_key,
}
"""By the controller's name."""
