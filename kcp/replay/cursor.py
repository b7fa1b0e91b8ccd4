"""The caches of a controller, anywhere in the log: one fold per resource that moves forward and back.

A fold at revision R holds exactly what an informer held whose store stood at R. Decisions overlap (a controller has
several workers), so frontiers of neighbouring decisions go back and forth by a little: each step can be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs

from kcp.client.cache.indexer import Indexer, IndexFunction
from kcp.controllers.driver import owner_values
from kcp.controllers.sources import Controller, Everything, Owned, Timer
from kcp.controllers.view import IndexReader, ManyReader, Readers
from kcp.store.protocol import Event, Op, Record

Json = dict[str, Any]
Change = Callable[["Json | None", "Json | None"], None]


@attrs.frozen(slots=True)
class Step:
    """One event as a cache sees it: the object afterwards, None when it is gone."""

    rv: int
    key: str
    record: Record | None


def cache_key(record: Record) -> str:
    key = record.key
    return f"{key.namespace}/{key.name}" if key.namespace else key.name


class Fold:
    """One resource. `steps` are all its events in order, `base` the objects before them."""

    def __init__(
        self, base: Iterable[Record], steps: Sequence[Step], on_change: Change | None = None
    ) -> None:
        self.indexer = Indexer()
        self.rv = 0
        self._on_change = on_change
        self._base = list(base)
        self._steps = steps
        self._at = 0
        self._undo: list[Json | None] = []
        self.indexer.replace([record.value for record in self._base], 0)
        if on_change is not None:
            for record in self._base:
                on_change(None, record.value)

    def move_to(self, rv: int) -> None:
        """Stand at `rv`: every event up to it applied, none after it."""
        steps = self._steps
        while self._at < len(steps) and steps[self._at].rv <= rv:
            step = steps[self._at]
            self._undo.append(self.indexer.get(step.key))
            self._set(step.key, step.record.value if step.record else None)
            self._at += 1
        while self._at and steps[self._at - 1].rv > rv:
            self._at -= 1
            self._set(steps[self._at].key, self._undo.pop())
        self.rv = self.indexer.rv = rv

    def _set(self, key: str, value: Json | None) -> None:
        old = self.indexer.remove(key) if value is None else self.indexer.put(value)
        if self._on_change is not None:
            self._on_change(old, value)


class Log:
    """The events of an incident, by resource and by revision; decoded only where somebody looks."""

    def __init__(self, base: Iterable[Record], events: Iterable[Event]) -> None:
        self.base: dict[str, list[Record]] = {}
        self.steps: dict[str, list[Step]] = {}
        self.written: dict[int, Record] = {}
        for record in base:
            self.base.setdefault(record.key.resource, []).append(record)
        for event in events:
            gone = event.op == Op.DELETED
            self.written[event.rv] = event.record
            steps = self.steps.setdefault(event.key.resource, [])
            steps.append(Step(event.rv, cache_key(event.record), None if gone else event.record))

    def fold(self, resource: str, on_change: Change | None = None) -> Fold:
        """`on_change` is told of every object that comes, changes or goes, (old, new), the base included."""
        return Fold(self.base.get(resource, ()), self.steps.get(resource, ()), on_change)


class Caches:
    """What one controller watches, as a view that can be moved to any frontier."""

    def __init__(self, controller: Controller, log: Log, resources: Sequence[Json]) -> None:
        self.folds: dict[str, Fold] = {}
        self._log = log
        readers: dict[str, Any] = {}
        for name, source in controller.watches.items():
            if isinstance(source, Timer):
                continue
            prefix = f"{controller.name}/{name}/"
            if isinstance(source, Everything):
                watched = [r["resource"] for r in resources if {"list", "watch", "delete"} <= set(r["verbs"])]
                parts = {
                    r: self._reader(r, source.indexes, prefix) for r in watched if r not in source.exclude
                }
                readers[name] = ManyReader(parts)
            else:
                owner = {"owner": owner_values} if isinstance(source, Owned) else {}
                readers[name] = self._reader(source.resource, {**source.indexes, **owner}, prefix)
        self.view = Readers(readers)

    def _reader(self, resource: str, indexes: Mapping[str, IndexFunction], prefix: str) -> IndexReader:
        fold = self.folds.get(resource)
        if fold is None:
            fold = self.folds[resource] = self._log.fold(resource)
        fold.indexer.add_indexers({prefix + name: function for name, function in indexes.items()})
        return IndexReader(fold.indexer, prefix)

    def move_to(self, frontier: Mapping[str, int]) -> None:
        for resource, rv in frontier.items():
            fold = self.folds.get(resource)
            if fold is not None and fold.rv != rv:
                fold.move_to(rv)
