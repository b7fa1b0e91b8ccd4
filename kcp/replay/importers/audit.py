"""Kubernetes audit logs: JSON lines of audit.k8s.io Events (or EventLists, as webhooks get them), any order, gzipped or not.

What each level tells of a write:

    RequestResponse   the object after it, with its revision
    Request           the object as it was sent: no revision, and nothing of what the server filled in
    Metadata          who did what to which object, and when

A write without a revision is put by its time between the others. A delete whose response is a Status, a binding and an
eviction tell no object either: what follows from them for the object known before is derived here. Reads, failures, dry
runs and the stages before the response tell nothing of the state.
Source: k8s v1.36 apiserver/pkg/apis/audit/v1/types.go; registry/generic/registry/store.go for what a delete answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs

from kcp.api.options import manager_of_agent
from kcp.base.clock import moment
from kcp.base.values import frozen
from kcp.machinery.document import normal
from kcp.machinery.times import format_time
from kcp.replay.importers.kinds import Kinds, change_of
from kcp.replay.importers.moments import micros
from kcp.replay.importers.reading import Faults, json_documents
from kcp.replay.importers.source import Told
from kcp.store.foreign import Change
from kcp.store.protocol import Actor, Key, KindRow

Json = dict[str, Any]

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
WHOLE = frozenset({"", "status", "finalize", "resize", "ephemeralcontainers", "approval"})
"""Subresources that answer with the whole object."""
DERIVED = frozenset({"scale", "binding", "eviction"})
"""Subresources from which something follows for the object."""
GRACE_S = 30


@frozen
class Entry:
    """One write of the log, as far as its level tells."""

    where: str
    event: Json
    ts_us: int
    verb: str
    subresource: str
    row: KindRow
    namespace: str
    name: str
    uid: str
    actor: Actor

    @property
    def response(self) -> Json:
        found = self.event.get("responseObject")
        return found if isinstance(found, dict) else {}

    @property
    def request(self) -> Json:
        found = self.event.get("requestObject")
        return found if isinstance(found, dict) else {}

    @property
    def fields(self) -> Json:
        """Fields of a Change that every change of this write has."""
        return {"ts_us": self.ts_us, "actor": self.actor, "request_id": str(self.event.get("auditID") or "")}


def read(files: Sequence[Path], faults: Faults, kinds: Kinds) -> Told:
    entries = [entry for file in files for entry in _entries(file, faults, kinds)]
    entries.sort(key=lambda entry: entry.ts_us)
    reader, last_us = _Reader(kinds), 0
    for entry in entries:
        last_us = max(last_us + 1, entry.ts_us)  # the order of lines decides between equal times
        reader.take(attrs.evolve(entry, ts_us=last_us))
    notes = []
    if reader.unnamed:
        notes.append(f"{reader.unnamed} deletions of whole collections do not say which objects went")
    if reader.nameless:
        notes.append(f"{reader.nameless} creates do not say which name the object got")
    return Told(reader.changes, notes=notes)


# --- from lines to writes ---


def _entries(file: Path, faults: Faults, kinds: Kinds) -> Iterator[Entry]:
    for where, document in json_documents(file, faults):
        for event in _events(where, document, faults):
            if _is_write(event):
                entry = _entry(where, event, faults, kinds)
                if entry is not None:
                    yield entry


def _events(where: str, document: Json, faults: Faults) -> Iterator[Json]:
    if not str(document.get("apiVersion", "")).startswith("audit.k8s.io/"):
        faults.add(where, "no event of an audit log: its apiVersion is not audit.k8s.io/v1")
        return
    listed = document.get("items")
    for event in listed if isinstance(listed, list) else [document]:
        if isinstance(event, dict):
            yield event
        else:
            faults.add(where, "an item of the EventList is no object")


def _is_write(event: Json) -> bool:
    if event.get("verb") not in WRITES or event.get("stage") not in ("ResponseComplete", None):
        return False
    code = (event.get("responseStatus") or {}).get("code")
    if isinstance(code, int) and not 200 <= code < 300:
        return False
    query = parse_qs(urlsplit(str(event.get("requestURI") or "")).query)
    return "dryRun" not in query


def _entry(where: str, event: Json, faults: Faults, kinds: Kinds) -> Entry | None:
    """None for writes of what is not stored, such as tokens and reviews."""
    ref = event.get("objectRef")
    if not isinstance(ref, dict) or not ref.get("resource"):
        return None
    subresource = ref.get("subresource") or ""
    if subresource not in WHOLE and subresource not in DERIVED:
        return None
    ts_us = micros(event.get("stageTimestamp")) or micros(event.get("requestReceivedTimestamp"))
    if not ts_us:
        faults.add(where, "neither stageTimestamp nor requestReceivedTimestamp is a time")
        return None
    group, version = ref.get("apiGroup") or "", ref.get("apiVersion") or "v1"
    row = kinds.of_resource(group, version, ref["resource"], bool(ref.get("namespace")))
    if row is None:
        return None
    namespace = "" if ref["resource"] == "namespaces" else ref.get("namespace") or ""
    return Entry(
        where, event, ts_us, event["verb"], subresource, row, namespace, _name(ref, event), ref.get("uid") or "", _actor(event),
    )  # fmt: skip


def _name(ref: Json, event: Json) -> str:
    """Creates with generateName have it in the answer alone."""
    if ref.get("name"):
        return str(ref["name"])
    for field in ("responseObject", "requestObject"):
        metadata = (event.get(field) or {}).get("metadata") or {}
        if metadata.get("name"):
            return str(metadata["name"])
    return ""


def _actor(event: Json) -> Actor:
    """Who is responsible: the impersonated user where there is one."""
    user = event.get("impersonatedUser") or event.get("user") or {}
    agent = str(event.get("userAgent") or "")
    query = parse_qs(urlsplit(str(event.get("requestURI") or "")).query)
    manager = (query.get("fieldManager") or [manager_of_agent(agent)])[0]
    groups = tuple(str(group) for group in user.get("groups") or ())
    address = str((event.get("sourceIPs") or [""])[0])
    return Actor(str(user.get("username") or ""), groups, agent, manager, address)


# --- from writes to changes ---


@attrs.define
class _Reader:
    """Takes writes in the order of their times; `known` has the newest state of each object as told or derived."""

    kinds: Kinds
    changes: list[Change] = attrs.field(factory=list)
    known: dict[Key, tuple[int, Json]] = attrs.field(factory=dict)
    unnamed: int = 0
    nameless: int = 0

    def take(self, entry: Entry) -> None:
        if entry.subresource in DERIVED:
            self._derive(entry)
        elif entry.verb == "deletecollection":
            self._collection(entry)
        elif entry.verb == "delete":
            self._delete(entry)
        else:
            self._write(entry)

    def _key(self, entry: Entry) -> Key:
        return Key(entry.row.resource, entry.namespace, entry.name)

    def _write(self, entry: Entry) -> None:
        response = entry.response
        if not _is_object(response):
            self._without_answer(entry)
            return
        rv, gone = _revision(response), is_gone(response)
        created = entry.verb == "create" or _code(entry) == 201
        change = change_of(
            self.kinds, response, entry.row.plural, rv=rv, removed=gone, created=created, **entry.fields
        )
        if change is None:
            return
        before = self.known.get(change.key)
        if before is not None and rv and before[0] == rv and not gone:
            return  # an update that changed nothing answers with the revision that was there
        if gone and before is not None and before[0] == rv:
            change = attrs.evolve(change, rv=0)
        self._keep(change, response)

    def _keep(self, change: Change, obj: Json | None) -> None:
        """`obj` None: nobody knows the state any more."""
        self.changes.append(change)
        if change.removed or obj is None:
            self.known.pop(change.key, None)
        elif change.rv == 0 or change.rv >= self.known.get(change.key, (0, {}))[0]:
            self.known[change.key] = (change.rv, obj)

    def _without_answer(self, entry: Entry) -> None:
        """Request and Metadata level."""
        if not entry.name:
            self.nameless += 1
            return
        sent = entry.request if entry.verb in ("create", "update") else {}
        key, created = self._key(entry), entry.verb == "create"
        body, obj = None, None
        if _is_object(sent) and not entry.subresource:
            obj = _named(sent, key)
            body = normal(obj)
        uid = entry.uid or str(((obj or {}).get("metadata") or {}).get("uid") or "")
        self._keep(Change(key, body=body, uid=uid, created=created, **entry.fields), obj)

    def _delete(self, entry: Entry) -> None:
        """The answer is the object, or a Status once it is gone."""
        response = entry.response
        if _is_object(response):
            self._deleted_object(entry, response)
            return
        key = self._key(entry)
        before = self.known.get(key)
        details = response.get("details") or {}
        uid = entry.uid or str(details.get("uid") or "")
        if response.get("kind") != "Status" and before is not None and _stays(before[1]):
            self._keep(Change(key, uid=uid, **entry.fields), None)
        elif entry.name:
            body = normal(before[1]) if before is not None else None
            self._keep(Change(key, body=body, uid=uid, removed=True, **entry.fields), None)

    def _deleted_object(self, entry: Entry, response: Json) -> None:
        rv, gone = _revision(response), is_gone(response, deleted=True, at_once=_grace(entry) == 0)
        change = change_of(self.kinds, response, entry.row.plural, rv=rv, removed=gone, **entry.fields)
        if change is None:
            return
        before = self.known.get(change.key)
        if before is not None and rv and before[0] == rv:
            if not gone:
                return
            change = attrs.evolve(change, rv=0)
        self._keep(change, response)

    def _collection(self, entry: Entry) -> None:
        """The answer lists the objects as they were before; those that need not linger are gone."""
        items = entry.response.get("items")
        if not isinstance(items, list):
            self.unnamed += 1
            return
        for item in items:
            obj = {"apiVersion": entry.response.get("apiVersion"), "kind": entry.row.kind, **item}
            change = change_of(self.kinds, obj, entry.row.plural, removed=not _stays(obj), **entry.fields)
            if change is not None and change.removed:
                self._keep(change, None)

    def _derive(self, entry: Entry) -> None:
        key = Key("pods", entry.namespace, entry.name) if entry.subresource != "scale" else self._key(entry)
        before = self.known.get(key)
        rv = _revision(entry.response) if entry.subresource == "scale" else 0
        if before is not None and rv and before[0] == rv:
            return
        obj = None if before is None else _DERIVE[entry.subresource](before[1], entry)
        self._keep(
            Change(
                key, rv=rv, body=None if obj is None else normal(obj), uid=_uid(obj, entry), **entry.fields
            ),
            obj,
        )


def _uid(obj: Json | None, entry: Entry) -> str:
    return entry.uid or str(((obj or {}).get("metadata") or {}).get("uid") or "")


def _scaled(obj: Json, entry: Entry) -> Json | None:
    scale = entry.response if _is_object(entry.response) else entry.request
    replicas = (scale.get("spec") or {}).get("replicas")
    if not isinstance(replicas, int):
        return None
    return {**obj, "spec": {**(obj.get("spec") or {}), "replicas": replicas}}


def _bound(obj: Json, entry: Entry) -> Json | None:
    node = (entry.request.get("target") or {}).get("name")
    if not node:
        return None
    condition = {
        "type": "PodScheduled",
        "status": "True",
        "lastTransitionTime": format_time(moment(entry.ts_us)),
    }
    status = obj.get("status") or {}
    others = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
    return {
        **obj,
        "spec": {**(obj.get("spec") or {}), "nodeName": node},
        "status": {**status, "conditions": [*others, condition]},
    }


def _evicted(obj: Json, entry: Entry) -> Json | None:
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    grace = spec.get("terminationGracePeriodSeconds", GRACE_S)
    at = format_time(moment(entry.ts_us + int(grace) * 1_000_000))
    marked = {**metadata, "deletionTimestamp": at, "deletionGracePeriodSeconds": grace}
    return {**obj, "metadata": marked}


_DERIVE = {"scale": _scaled, "binding": _bound, "eviction": _evicted}


def _is_object(value: Json) -> bool:
    kind = value.get("kind")
    return bool(kind) and kind != "Status" and isinstance(value.get("metadata"), dict)


def _revision(obj: Json) -> int:
    text = str((obj.get("metadata") or {}).get("resourceVersion") or "")
    return int(text) if text.isdecimal() else 0


def _code(entry: Entry) -> int:
    code = (entry.event.get("responseStatus") or {}).get("code")
    return code if isinstance(code, int) else 0


def _named(obj: Json, key: Key) -> Json:
    """As it was sent, with the name it got, and without the revision that it was to replace."""
    metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    metadata["name"] = key.name
    if key.namespace:
        metadata["namespace"] = key.namespace
    return {**obj, "metadata": metadata}


def is_gone(obj: Json, deleted: bool = False, at_once: bool = False) -> bool:
    """Whether the answer to a write is the last state of an object that is no more.

    `deleted`: it answers a delete; then an object without a mark of deletion went at once. `at_once`: one without grace.
    """
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    if metadata.get("finalizers") or (obj.get("kind") == "Namespace" and spec.get("finalizers")):
        return False
    if not metadata.get("deletionTimestamp"):
        return deleted
    return at_once or not metadata.get("deletionGracePeriodSeconds")


def _grace(entry: Entry) -> int | None:
    """What a delete asked for, in its body or its query."""
    query = parse_qs(urlsplit(str(entry.event.get("requestURI") or "")).query)
    asked = entry.request.get("gracePeriodSeconds")
    if asked is None:
        asked = query.get("gracePeriodSeconds", [""])[0]
    return int(asked) if str(asked).isdecimal() else None


def _stays(obj: Json) -> bool:
    """Whether a delete only marks this object: something has to happen before it can go."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    if metadata.get("finalizers") or (obj.get("kind") == "Namespace" and spec.get("finalizers")):
        return True
    return obj.get("kind") == "Pod" and bool(spec.get("nodeName")) and not is_gone(obj)
