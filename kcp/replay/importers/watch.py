"""Captures of `kubectl get KIND -o json --watch --output-watch-events`, raw watches, and lists. Several files are merged.

A line or document is `{"type": "ADDED" | "MODIFIED" | "DELETED", "object": …}` (BOOKMARK is passed over, ERROR is a
fault), or a List, or one object. A capture begins with the objects that were there, each with the revision of its
last change. Times are those that the objects carry. Nobody says who wrote: managedFields name the manager.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kcp.replay.importers.kinds import Kinds, change_of
from kcp.replay.importers.moments import manager_of, untouched, written_us
from kcp.replay.importers.reading import Faults, json_documents
from kcp.replay.importers.source import Told
from kcp.store.foreign import Change
from kcp.store.protocol import Actor

Json = dict[str, Any]
LISTED = "LISTED"
"""Stands for a type where an object comes from a list."""


def read(files: Sequence[Path], faults: Faults, kinds: Kinds) -> Told:
    """The base is the oldest of the moments at which the captures begin."""
    changes: list[Change] = []
    begins: list[int] = []
    for file in files:
        found = list(_changes(file, faults, kinds))
        changes += [change for _, change in found]
        listed = max((change.rv for verb, change in found if verb == LISTED), default=0)
        begins.append(max(listed, _begin([change.rv for _, change in found])))
    return Told(changes, base_rv=min(begins, default=0))


def _changes(file: Path, faults: Faults, kinds: Kinds) -> Iterator[tuple[str, Change]]:
    for where, document in json_documents(file, faults):
        for verb, obj in _told(where, document, faults):
            change = _change(verb, obj, kinds)
            if change is None:
                faults.add(where, "an object without apiVersion, kind, name or resourceVersion")
            else:
                yield verb, change


def _told(where: str, document: Json, faults: Faults) -> Iterator[tuple[str, Json]]:
    """(type, object) of what a document says."""
    verb, obj = document.get("type"), document.get("object")
    if "object" not in document and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield LISTED, _typed(document, item)
    elif "object" not in document and "metadata" in document:
        yield LISTED, document
    elif verb in ("ADDED", "MODIFIED", "DELETED") and isinstance(obj, dict):
        yield verb, obj
    elif verb == "ERROR" and isinstance(obj, dict):
        faults.add(where, f"the watch ended with an error: {obj.get('message') or obj.get('reason') or '?'}")
    elif verb != "BOOKMARK":
        faults.add(where, "neither a watch event nor an object")


def _typed(listed: Json, item: Json) -> Json:
    """Items of a typed list do not repeat what they are."""
    kind = str(listed.get("kind") or "").removesuffix("List")
    return {"apiVersion": listed.get("apiVersion"), "kind": kind, **item} if "kind" not in item else item


def _change(verb: str, obj: Json, kinds: Kinds) -> Change | None:
    rv = str((obj.get("metadata") or {}).get("resourceVersion") or "")
    if not rv.isdecimal() or int(rv) == 0:
        return None
    removed = verb == "DELETED"
    created = verb in ("ADDED", LISTED) and untouched(obj)
    actor = Actor("", field_manager=manager_of(obj)) if not removed else Actor("")
    return change_of(
        kinds,
        obj,
        rv=int(rv),
        ts_us=0 if removed else written_us(obj),
        removed=removed,
        created=created,
        actor=actor,
    )


def _begin(revisions: Sequence[int]) -> int:
    """The newest revision among the objects that were there at the beginning.

    They come by name; what comes after them comes by revision. So they end where every further revision is a record.
    """
    newest = begin = 0
    for rv in revisions:
        if rv <= newest:
            begin = newest
        newest = max(newest, rv)
    return begin
