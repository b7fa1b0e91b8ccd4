"""The caches of a controller, anywhere in the log: one fold per resource that moves forward and back.

A fold at revision R holds exactly what an informer held whose store stood at R. Decisions overlap (a controller has
several workers), so frontiers of neighbouring decisions go back and forth by a little: steps can be undone. A fold that
is far from where it is to stand starts from the state at an anchor near there, so that a log of any length is read only
where somebody looks:

    revision   0 ........ 10,000 ........ 20,000 ..x..... 30,000       x = 21,300: the state at the anchor 20,000 from SQL,
               base        anchor          anchor          anchor          then the 1,300 events after it
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from kcp.base.values import frozen
from kcp.client.cache.indexer import Indexer, IndexFunction, Tally
from kcp.controllers.sources import Controller, Everything, Timer, indexes_of, tallies_of
from kcp.controllers.view import IndexReader, ManyReader, Readers
from kcp.store.protocol import Event, Op, Record
from kcp.store.redaction import is_purged

Json = dict[str, Any]
Change = Callable[["Json | None", "Json | None"], None]

PAGE_REVISIONS = 2000
PAGES_KEPT = 8
ANCHOR_REVISIONS = 10_000
STATES_KEPT = 256
UNDO_KEPT = 4096


class Events(Protocol):
    """Where a Log reads. `anchored`: `list_at` knows any revision, not only the base."""

    base_rv: int
    last_rv: int
    anchored: bool

    def list_at(self, resource: str, rv: int) -> Sequence[Record]: ...

    def events(self, after: int | None = None, until: int | None = None) -> Iterator[Event]: ...

    def base(self) -> Iterable[Record]: ...


@frozen
class Step:
    """One event as a cache sees it: the object afterwards, None when it is gone."""

    rv: int
    key: str
    record: Record | None


def cache_key(record: Record) -> str:
    key = record.key
    return f"{key.namespace}/{key.name}" if key.namespace else key.name


def _step_rv(step: Step) -> int:
    return step.rv


@frozen
class _Page:
    """PAGE_REVISIONS revisions of the log."""

    events: Mapping[int, Event]
    steps: Mapping[str, Sequence[Step]]


@frozen
class _Undo:
    rv: int
    key: str
    value: Json | None


class Fold:
    """One resource. `rv` is where it stands, -1 before the first `move_to`.

    An object whose version was purged is not in the cache, since nobody knows what it was; `hidden` has what is left of it.
    """

    def __init__(self, log: Log, resource: str, on_change: Change | None = None) -> None:
        self.indexer = Indexer()
        self.rv = -1
        self.hidden: dict[str, Json] = {}
        self._log = log
        self._resource = resource
        self._on_change = on_change
        self._at = self._floor = -1
        """Events up to `_at` are applied; those after `_floor` can be undone."""
        self._undo: list[_Undo] = []

    def move_to(self, rv: int) -> None:
        """Stand at `rv`: every event up to it applied, none after it."""
        if self._at < 0 or rv < self._floor or self._log.anchor(rv) > self._at + ANCHOR_REVISIONS:
            self._place(self._log.anchor(rv))
        if rv > self._at:
            for step in self._log.between(self._resource, self._at, rv):
                self._apply(step)
            self._at = rv
        while self._undo and self._undo[-1].rv > rv:
            last = self._undo.pop()
            self._set(last.key, last.value)
        self._at = max(rv, self._floor)
        self.rv = self.indexer.rv = rv

    def _apply(self, step: Step) -> None:
        if len(self._undo) >= 2 * UNDO_KEPT:
            self._floor = self._undo[UNDO_KEPT - 1].rv
            del self._undo[:UNDO_KEPT]
        before = self.hidden.get(step.key) or self.indexer.get(step.key)
        self._undo.append(_Undo(step.rv, step.key, before))
        self._set(step.key, step.record.value if step.record else None)

    def _place(self, anchor: int) -> None:
        """Stand at an anchor, whatever was here before."""
        values = [record.value for record in self._log.state(self._resource, anchor)]
        known = {self.indexer.key(value): value for value in values if not is_purged(value)}
        self.hidden = {self.indexer.key(value): value for value in values if is_purged(value)}
        if self._on_change is not None:
            for old in self.indexer:
                if self.indexer.key(old) not in known:
                    self._on_change(old, None)
            for key, value in known.items():
                if (before := self.indexer.get(key)) is not value:
                    self._on_change(before, value)
        self.indexer.replace(list(known.values()), anchor)
        self._undo = []
        self._at = self._floor = anchor

    def _set(self, key: str, value: Json | None) -> None:
        self.hidden.pop(key, None)
        if value is not None and is_purged(value):
            self.hidden[key] = value
            value = None
        old = self.indexer.remove(key) if value is None else self.indexer.put(value)
        if self._on_change is not None and (old is not None or value is not None):
            self._on_change(old, value)


class Log:
    """The events of an incident, by resource and by revision; read and decoded only where somebody looks.

    `base`: the objects before the first event, by resource. `written`: what each revision wrote. `steps`: all events of
    a resource, read anew at each question.
    """

    def __init__(self, source: Events) -> None:
        self._source = source
        self._pages: OrderedDict[int, _Page] = OrderedDict()
        self._states: OrderedDict[tuple[str, int], Sequence[Record]] = OrderedDict()
        self._base: dict[str, list[Record]] | None = None
        self.written: Mapping[int, Record] = _Written(self)
        self.steps: Mapping[str, Sequence[Step]] = _Steps(self)

    @property
    def first_rv(self) -> int:
        """The revision of the base."""
        return self._source.base_rv

    @property
    def last_rv(self) -> int:
        return self._source.last_rv

    @property
    def base(self) -> Mapping[str, Sequence[Record]]:
        if self._base is None:
            self._base = {}
            for record in self._source.base():
                self._base.setdefault(record.key.resource, []).append(record)
        return self._base

    def fold(self, resource: str, on_change: Change | None = None) -> Fold:
        """`on_change` is told of every object that comes, changes or goes, (old, new), those of the start included."""
        return Fold(self, resource, on_change)

    def anchor(self, rv: int) -> int:
        """The revision to start from for a state at `rv`."""
        if not self._source.anchored:
            return self.first_rv
        return max(self.first_rv, min(rv, self.last_rv) // ANCHOR_REVISIONS * ANCHOR_REVISIONS)

    def state(self, resource: str, anchor: int) -> Sequence[Record]:
        """The objects of a resource at an anchor; shared by all folds that start there."""
        at = (resource, anchor)
        if at not in self._states:
            first = anchor <= self.first_rv
            self._states[at] = (
                self.base.get(resource, ()) if first else self._source.list_at(resource, anchor)
            )
            if len(self._states) > STATES_KEPT:
                self._states.popitem(last=False)
        self._states.move_to_end(at)
        return self._states[at]

    def event(self, rv: int) -> Event | None:
        """The event at a revision; None for a renewal of a Lease and what lies outside of the file."""
        return self._page((rv - 1) // PAGE_REVISIONS).events.get(rv) if rv > self.first_rv else None

    def between(self, resource: str, after: int, until: int) -> Iterator[Step]:
        """Steps of a resource with after < revision <= until."""
        until = min(until, self.last_rv)
        for number in range(max(after, self.first_rv) // PAGE_REVISIONS, (until - 1) // PAGE_REVISIONS + 1):
            steps = self._page(number).steps.get(resource, ())
            yield from steps[
                bisect_right(steps, after, key=_step_rv) : bisect_right(steps, until, key=_step_rv)
            ]

    def events(self, after: int, until: int) -> Iterator[Event]:
        """All events with after < revision <= until."""
        until = min(until, self.last_rv)
        for number in range(max(after, self.first_rv) // PAGE_REVISIONS, (until - 1) // PAGE_REVISIONS + 1):
            for rv, event in self._page(number).events.items():
                if after < rv <= until:
                    yield event

    def _page(self, number: int) -> _Page:
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = self._read(number)
            if len(self._pages) > PAGES_KEPT:
                self._pages.popitem(last=False)
        else:
            self._pages.move_to_end(number)
        return page

    def _read(self, number: int) -> _Page:
        first = max(number * PAGE_REVISIONS, self.first_rv)
        events: dict[int, Event] = {}
        steps: dict[str, list[Step]] = {}
        for event in self._source.events(first, (number + 1) * PAGE_REVISIONS):
            events[event.rv] = event
            record = None if event.op is Op.DELETED else event.record
            steps.setdefault(event.key.resource, []).append(Step(event.rv, cache_key(event.record), record))
        return _Page(events, steps)


@frozen
class _Written(Mapping[int, Record]):
    log: Log

    def __getitem__(self, rv: int) -> Record:
        event = self.log.event(rv)
        if event is None:
            raise KeyError(rv)
        return event.record

    def __iter__(self) -> Iterator[int]:
        return (event.rv for event in self.log.events(self.log.first_rv, self.log.last_rv))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@frozen
class _Steps(Mapping[str, Sequence[Step]]):
    log: Log

    def __getitem__(self, resource: str) -> Sequence[Step]:
        found = list(self.log.between(resource, self.log.first_rv, self.log.last_rv))
        if not found:
            raise KeyError(resource)
        return found

    def __iter__(self) -> Iterator[str]:
        log = self.log
        return iter(dict.fromkeys(event.key.resource for event in log.events(log.first_rv, log.last_rv)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Caches:
    """What one controller watches, as a view that can be moved to any frontier."""

    def __init__(self, controller: Controller, log: Log, resources: Sequence[Json]) -> None:
        self.folds: dict[str, Fold] = {}
        self._log = log
        self._placed = False
        readers: dict[str, Any] = {}
        for name, source in controller.watches.items():
            if isinstance(source, Timer):
                continue
            prefix = f"{controller.name}/{name}/"
            if isinstance(source, Everything):
                watched = [r["resource"] for r in resources if {"list", "watch", "delete"} <= set(r["verbs"])]
                indexes = {prefix + index: function for index, function in source.indexes.items()}
                parts = {r: self._reader(r, prefix, indexes) for r in watched if r not in source.exclude}
                readers[name] = ManyReader(parts)
            else:
                readers[name] = self._reader(
                    source.resource, prefix, indexes_of(source, prefix), tallies_of(source, prefix)
                )
        self.view = Readers(readers)

    def _reader(
        self,
        resource: str,
        prefix: str,
        indexes: Mapping[str, IndexFunction],
        tallies: Mapping[str, Tally] = {},
    ) -> IndexReader:
        fold = self.folds.get(resource)
        if fold is None:
            fold = self.folds[resource] = self._log.fold(resource)
        fold.indexer.add_indexers(indexes)
        fold.indexer.add_tallies(tallies)
        return IndexReader(fold.indexer, prefix)

    @property
    def purged(self) -> bool:
        """Whether something that the controller saw here was purged since."""
        return any(fold.hidden for fold in self.folds.values())

    def move_to(self, frontier: Mapping[str, int]) -> None:
        for resource, rv in frontier.items():
            fold = self.folds.get(resource)
            if fold is not None and fold.rv != rv:
                fold.move_to(rv)
        if not self._placed:
            for fold in self.folds.values():
                if fold.rv < 0:
                    fold.move_to(self._log.first_rv)
            self._placed = True
