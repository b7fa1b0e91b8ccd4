"""Events as a store would publish them, for invariants and recordings."""

from __future__ import annotations

from typing import Any

import attrs

from kcp.machinery.document import Document, normal
from kcp.store.protocol import Cause, Event, Key, Op, Record

Json = dict[str, Any]


@attrs.define
class Writer:
    """Writes one event after the other; `now_s` is the time of the next."""

    now_s: float = 0.0
    rv: int = 0
    live: dict[Key, Record] = attrs.field(factory=dict)

    def put(self, resource: str, obj: Json, cause: Cause | None = None) -> Event:
        metadata = obj["metadata"]
        key = Key(resource, metadata.get("namespace", ""), metadata["name"])
        before = self.live.get(key)
        self.rv += 1
        uid = metadata.get("uid") or (before.uid if before else f"uid-{self.rv}")
        value = {"apiVersion": "v1", "kind": "Thing", **obj, "metadata": {**metadata, "uid": uid}}
        document = Document.at(normal(value), self.rv, value)
        record = Record(key, uid, before.oid if before else self.rv, self.rv, document)
        self.live[key] = record
        return self._event(Op.MODIFIED if before else Op.ADDED, record, before, cause)

    def remove(self, resource: str, name: str, namespace: str = "default") -> Event:
        before = self.live.pop(Key(resource, namespace, name))
        self.rv += 1
        document = Document.at(normal(before.value), self.rv, before.value)
        return self._event(Op.DELETED, attrs.evolve(before, rv=self.rv, document=document), before)

    def _event(self, op: Op, record: Record, before: Record | None, cause: Cause | None = None) -> Event:
        return Event(self.rv, op, record, before, int(self.now_s * 1e6), cause or Cause())
