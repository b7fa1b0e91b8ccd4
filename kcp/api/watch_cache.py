"""Watches: who wants to see what, fed by the log in the moment a batch becomes visible.

Each resource has a ring of its newest events and its watchers, indexed by what they ask for, so that an event touches
only those whom it may concern:

    pods ── everything      [w1]                 an update of pod default/a on node n1 looks at w1, at the
         ├─ by namespace    default: [w2]        watchers of default, of default/a and of n1 (and of the node
         ├─ by name         default/a: [w3]      it was on before), and at nobody else
         └─ by node         n1: [w4]

An event becomes one shared WatchEvent per served version; the bytes in it are those of the log. A watcher has a
bounded queue. One that is too slow loses its queue, not its place: it reads what it missed from the ring or the log
and goes on. Only the API's horizon ends a watch with 410.
Source of the semantics: k8s v1.36 apiserver/pkg/storage/cacher/{cacher,cache_watcher}.go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import attrs
import orjson

from kcp.api.context import ServerSettings
from kcp.api.documents import at_revision, served
from kcp.api.selection import EVERYTHING, Selection
from kcp.apis.kind import Catalog, Kind
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.machinery.document import Document
from kcp.machinery.errors import ApiError, Expired
from kcp.machinery.watch import INITIAL_EVENTS_END, WatchEvent
from kcp.store.protocol import Event, Op, Record, Store
from kcp.wire.deadline import Bell

RING = 4096
"""Events kept per resource for watches that resume."""
QUEUE = 8192
"""Watch events a watcher may be behind before it is made to read them again."""
BATCH = 500
"""Objects per batch of initial events, and rows read at once from the log."""


@frozen
class WatchRequest:
    """What one watch wants.

    `rv` None: start with synthetic ADDED events of what is there; otherwise events after that revision.
    `initial_end`: mark the end of the initial events with an annotated bookmark.
    """

    kind: Kind
    namespace: str | None = None
    selection: Selection = EVERYTHING
    rv: int | None = None
    bookmarks: bool = False
    initial_end: bool = False
    timeout_s: float = 0.0


def _bookmark(kind: Kind, rv: int, *, initial_end: bool = False) -> WatchEvent:
    metadata: dict[str, Any] = {"resourceVersion": str(rv)}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    value = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    return WatchEvent("BOOKMARK", Document(orjson.dumps(value), rv, value))


def _error(error: ApiError) -> WatchEvent:
    status = error.status()
    return WatchEvent("ERROR", Document(orjson.dumps(status), 0, status))


async def refused(error: ApiError) -> AsyncIterator[Sequence[WatchEvent]]:
    """A watch that says in its stream why it does not begin, as those do that passed all checks of a request."""
    yield [_error(error)]


def too_old(asked: int, horizon: int) -> Expired:
    return Expired(f"too old resource version: {asked} ({horizon})")


_PLAIN = {Op.ADDED: "ADDED", Op.MODIFIED: "MODIFIED", Op.RENEWED: "MODIFIED", Op.DELETED: "DELETED"}


class _Shared:
    """One event of the log with the watch events made of it, each made at most once and shared."""

    __slots__ = ("_made", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self._made: dict[Kind, WatchEvent] = {}

    def plain(self, kind: Kind) -> WatchEvent:
        """The event as a watcher without selectors sees it."""
        made = self._made.get(kind)
        if made is None:
            event = self.event
            made = self._made[kind] = WatchEvent(_PLAIN[event.op], served(kind, event.record.document))  # type: ignore[arg-type]
        return made

    def seen_through(self, kind: Kind, selection: Selection) -> WatchEvent | None:
        """The event as a selector sees it: starting to match is ADDED, ceasing to match is DELETED."""
        event = self.event
        now = event.op is not Op.DELETED and _matches(kind, selection, event.record)
        before = event.previous is not None and _matches(kind, selection, event.previous)
        if now and before:
            return self.plain(kind)
        if now:
            plain = self.plain(kind)
            return plain if plain.type == "ADDED" else WatchEvent("ADDED", plain.document)
        if not before:
            return None
        if event.op is Op.DELETED:
            return self.plain(kind)
        assert event.previous is not None
        return WatchEvent("DELETED", served(kind, at_revision(event.previous.document, event.rv)))


def _matches(kind: Kind, selection: Selection, record: Record) -> bool:
    return selection.matches(served(kind, record.document).value)


class _Watcher:
    """One watch's place in the feed. Filled by the feed, emptied by the task that serves the watch."""

    __slots__ = ("closed", "kind", "lagging", "namespace", "queue", "request", "rv", "selection", "wake")

    def __init__(self, request: WatchRequest, rv: int) -> None:
        self.request = request
        self.kind = request.kind
        self.namespace = request.namespace
        self.selection = None if request.selection.empty else request.selection
        self.queue: list[WatchEvent] = []
        self.rv = rv
        """Everything up to here was handed out, or does not concern this watch."""
        self.lagging = False
        self.closed = False
        self.wake = Bell()

    def offer(self, shared: _Shared) -> bool:
        """Take the event if it concerns this watch. True when there is something new to hand out."""
        if self.lagging or shared.event.rv <= self.rv:
            return False
        event = self._view(shared)
        if event is None:
            return False
        if len(self.queue) >= QUEUE:
            self.queue.clear()
            self.lagging = True
            return True
        if not self.queue:
            self.rv = shared.event.rv - 1
        self.queue.append(event)
        return True

    def _view(self, shared: _Shared) -> WatchEvent | None:
        namespace = self.namespace
        if namespace is not None and shared.event.key.namespace != namespace:
            return None
        if self.selection is None:
            return shared.plain(self.kind)
        return shared.seen_through(self.kind, self.selection)

    def view_all(self, events: Iterable[Event]) -> list[WatchEvent]:
        return [seen for event in events if (seen := self._view(_Shared(event))) is not None]


@attrs.define(slots=True)
class _Watchers:
    """The watchers of one resource, by what they ask for. Dicts keep the order of arrival."""

    everything: dict[_Watcher, None] = attrs.field(factory=dict)
    by_namespace: dict[str, dict[_Watcher, None]] = attrs.field(factory=dict)
    by_name: dict[tuple[str, str], dict[_Watcher, None]] = attrs.field(factory=dict)
    by_node: dict[str, dict[_Watcher, None]] = attrs.field(factory=dict)

    def _place(self, watcher: _Watcher) -> tuple[dict[Any, dict[_Watcher, None]] | None, Any]:
        selection, namespace = watcher.request.selection, watcher.namespace
        if selection.name and (namespace is not None or not watcher.kind.namespaced):
            return self.by_name, (namespace or "", selection.name)
        if selection.node_name:
            return self.by_node, selection.node_name
        if namespace is not None:
            return self.by_namespace, namespace
        return None, None

    def add(self, watcher: _Watcher) -> None:
        index, key = self._place(watcher)
        (self.everything if index is None else index.setdefault(key, {}))[watcher] = None

    def remove(self, watcher: _Watcher) -> None:
        index, key = self._place(watcher)
        if index is None:
            self.everything.pop(watcher, None)
            return
        group = index.get(key)
        if group is not None:
            group.pop(watcher, None)
            if not group:
                del index[key]

    def concerned(self, event: Event) -> Iterator[_Watcher]:
        key = event.key
        yield from self.everything
        if self.by_namespace:
            yield from self.by_namespace.get(key.namespace, ())
        if self.by_name:
            yield from self.by_name.get((key.namespace, key.name), ())
        if self.by_node:
            yield from self._of_nodes(event)

    def _of_nodes(self, event: Event) -> Iterator[_Watcher]:
        node = _node_of(event.record)
        yield from self.by_node.get(node, ())
        before = node if event.previous is None else _node_of(event.previous)
        if before != node:
            yield from self.by_node.get(before, ())

    def all(self) -> list[_Watcher]:
        groups = [*self.by_namespace.values(), *self.by_name.values(), *self.by_node.values()]
        return [*self.everything, *(watcher for group in groups for watcher in group)]


def _node_of(record: Record) -> str:
    spec = record.value.get("spec")
    return str(spec.get("nodeName") or "") if spec else ""


class _Resource:
    """The newest events of one resource and its watchers. `edge`: the ring holds every event after it."""

    __slots__ = ("edge", "last", "ring", "watchers")

    def __init__(self, rv: int) -> None:
        self.ring: deque[Event] = deque()
        self.edge = rv
        self.last = rv
        """No event of this resource is newer."""
        self.watchers = _Watchers()

    def take(self, event: Event) -> None:
        if len(self.ring) >= RING:
            self.edge = self.ring.popleft().rv
        self.ring.append(event)
        self.last = event.rv

    def after(self, rv: int) -> list[Event]:
        """Events with revision > rv; the caller has seen that rv is not before the edge."""
        newer: list[Event] = []
        for event in reversed(self.ring):
            if event.rv <= rv:
                break
            newer.append(event)
        newer.reverse()
        return newer


class WatchCaches:
    """The watches of one server, fed by `store.listen`. Lives as long as the server; `drain` ends all watches."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        clock: Clock,
        settings: ServerSettings,
        entropy: Entropy | None = None,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._settings = settings
        self._entropy = entropy
        self._resources: dict[str, _Resource] = {}
        self._born = store.rv
        self._draining = False
        self._unlisten = store.listen(self._feed)

    def close(self) -> None:
        """End all watches and stop listening."""
        self.drain()
        self._unlisten()

    def drain(self) -> None:
        self._draining = True
        for resource in self._resources.values():
            for watcher in resource.watchers.all():
                watcher.closed = True
                watcher.wake.ring()

    def watchers(self) -> int:
        """How many watches are open, for metrics and tests."""
        return sum(len(resource.watchers.all()) for resource in self._resources.values())

    def unchanged_since(self, resource: str, rv: int) -> bool:
        """Whether the live objects of a resource are those of `rv`. False when that is not known."""
        known = self._resources.get(resource)
        last = self._born if known is None else known.last
        return last <= rv

    def _resource(self, name: str) -> _Resource:
        resource = self._resources.get(name)
        if resource is None:
            resource = self._resources[name] = _Resource(self._born)
        return resource

    def _feed(self, events: Sequence[Event]) -> None:
        """One published batch: to the rings, to whom it concerns, and wake each of those once."""
        woken: dict[_Watcher, None] = {}
        for event in events:
            resource = self._resource(event.key.resource)
            resource.take(event)
            shared = _Shared(event)
            for watcher in resource.watchers.concerned(event):
                if watcher.offer(shared):
                    woken[watcher] = None
        for watcher in woken:
            watcher.wake.ring()

    def watch(self, request: WatchRequest) -> Watch:
        """The watch as batches of events in order, until its timeout or the server drains."""
        return Watch(self, request)

    def _random_timeout(self) -> float:
        least = self._settings.min_watch_timeout_s
        return least if self._entropy is None else self._entropy.jitter(least, 1.0)


class Watch:
    """One watch: an async iterator of batches. The task that serves it owns it and calls `aclose` when it stops early.

    It joins the feed when the first batch is asked for; initial events and the place to follow from are taken in that
    same moment. Waiting may be cancelled and asked again: nothing is lost. A start before the horizon gives one ERROR
    event with a 410 Status, as Kubernetes answers.
    """

    def __init__(self, caches: WatchCaches, request: WatchRequest) -> None:
        self._caches = caches
        self._request = request
        self._resource = caches._resource(request.kind.resource)
        self._watcher: _Watcher | None = None
        self._initial: list[Document] = []
        self._initial_at = 0
        self._mark_end = False
        self._last_bookmark = False
        self._ends = self._bookmark_at = 0.0
        self._done = False

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Sequence[WatchEvent]:
        if self._done:
            raise StopAsyncIteration
        watcher = self._watcher or self._join()
        while True:
            batch = self._ready(watcher)
            if batch is not None:
                return batch
            if self._finished(watcher):
                self._leave()
                raise StopAsyncIteration
            if watcher.lagging:
                if caught_up := await self._catch_up(watcher):
                    return caught_up
                continue
            await self._sleep(watcher)

    async def aclose(self) -> None:
        self._leave()

    def __del__(self) -> None:
        self._leave()

    def _join(self) -> _Watcher:
        request, store, clock = self._request, self._caches._store, self._caches._clock
        watcher = self._watcher = _Watcher(request, store.rv)
        if request.rv is None:
            self._initial = self._present()
            self._mark_end = request.initial_end
        elif request.rv < store.rv:
            watcher.rv, watcher.lagging = request.rv, True
        else:
            watcher.rv = request.rv
        self._resource.watchers.add(watcher)
        now = clock.monotonic()
        self._ends = now + (request.timeout_s or self._caches._random_timeout())
        self._bookmark_at = now + self._caches._settings.bookmark_interval_s
        return watcher

    def _leave(self) -> None:
        self._done = True
        if self._watcher is not None:
            self._resource.watchers.remove(self._watcher)

    def _present(self) -> list[Document]:
        request, kind = self._request, self._request.kind
        records = self._caches._store.list(kind.resource, request.namespace)
        documents = [served(kind, record.document) for record in records]
        if request.selection.empty:
            return documents
        return [document for document in documents if request.selection.matches(document.value)]

    def _ready(self, watcher: _Watcher) -> Sequence[WatchEvent] | None:
        """What can be handed out without waiting: initial events, their end, then what the feed has brought."""
        if self._initial_at < len(self._initial):
            at, self._initial_at = self._initial_at, self._initial_at + BATCH
            return [WatchEvent("ADDED", document) for document in self._initial[at : at + BATCH]]
        if self._initial:
            self._initial, self._initial_at = [], 0
        if self._mark_end:
            self._mark_end = False
            return [_bookmark(watcher.kind, watcher.rv, initial_end=True)]
        if watcher.queue and not watcher.lagging:
            batch, watcher.queue = watcher.queue, []
            watcher.rv = max(watcher.rv, batch[-1].document.rv)
            return batch
        return self._due_bookmark(watcher)

    def _due_bookmark(self, watcher: _Watcher) -> Sequence[WatchEvent] | None:
        """Every interval, and once more at the end. With nothing waiting, the published revision is exact."""
        if not self._request.bookmarks or watcher.lagging or watcher.closed or self._last_bookmark:
            return None
        now = self._caches._clock.monotonic()
        if now < min(self._bookmark_at, self._ends):
            return None
        self._last_bookmark = now >= self._ends
        self._bookmark_at = now + self._caches._settings.bookmark_interval_s
        return [_bookmark(watcher.kind, max(watcher.rv, self._caches._store.rv))]

    def _finished(self, watcher: _Watcher) -> bool:
        return watcher.closed or self._caches._draining or self._caches._clock.monotonic() >= self._ends

    async def _sleep(self, watcher: _Watcher) -> None:
        until = min(self._ends, self._bookmark_at) if self._request.bookmarks else self._ends
        await watcher.wake.wait(max(0.0, until - self._caches._clock.monotonic()))

    async def _catch_up(self, watcher: _Watcher) -> Sequence[WatchEvent]:
        """One step from `watcher.rv` towards the present: a page of the log, or at last the ring. May be empty."""
        store, edge = self._caches._store, self._resource.edge
        if watcher.rv < store.horizon:
            watcher.closed = True
            return [_error(too_old(watcher.rv, store.horizon))]
        if watcher.rv >= edge:
            events: Sequence[Event] = self._resource.after(watcher.rv)
            watcher.rv, watcher.lagging = max(watcher.rv, store.rv), False
            return watcher.view_all(events)
        until = store.rv
        events = await store.events_since(
            watcher.rv, until=until, resources=[watcher.kind.resource], limit=BATCH
        )
        watcher.rv = events[-1].rv if len(events) >= BATCH else max(until, watcher.rv)
        return watcher.view_all(events)
