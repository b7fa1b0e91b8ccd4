"""Fan-out of published events: synchronous listeners, and followers that catch up from the table when they are slow.

A listener is called with every batch right when it becomes visible. A `Follower` is for those who may be slow: its
buffer is bounded, and what it had to drop it reads again from the log, so it neither blocks the writer nor misses or
repeats an event. Only renewals of Leases are merged into the newest state on that way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import structlog

from kcp.store.protocol import Event, Listener, Store

log = structlog.get_logger(__name__)

FOLLOWER_BUFFER_EVENTS = 4096
PAGE_EVENTS = 1000


class Feed:
    """Listeners in the order in which they came."""

    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}
        self._next = 0

    def listen(self, listener: Listener) -> Callable[[], None]:
        number, self._next = self._next, self._next + 1
        self._listeners[number] = listener

        def end() -> None:
            self._listeners.pop(number, None)

        return end

    def publish(self, events: Sequence[Event]) -> None:
        """A listener that raises breaks its promise: it is reported, the others and the writer go on."""
        for listener in list(self._listeners.values()):
            try:
                listener(events)
            except Exception:
                log.exception("a listener of the event log failed", rv=events[-1].rv)


class Follower:
    """Every event after `since`, in batches, in order: `async for events in follower`.

    Used by one task, which calls `close` when done. `resources` narrows it down; None means all.
    """

    def __init__(
        self,
        store: Store,
        since: int,
        resources: Sequence[str] | None = None,
        buffer_events: int = FOLLOWER_BUFFER_EVENTS,
    ) -> None:
        self._store = store
        self._resources = None if resources is None else tuple(resources)
        self._capacity = buffer_events
        self._buffer: list[Event] = []
        self._behind = True
        self._target = 0
        self._news = anyio.Event()
        self.position = since
        """Everything up to this revision was handed out."""
        self.close = store.listen(self._hear)

    def __aiter__(self) -> Follower:
        return self

    async def __anext__(self) -> Sequence[Event]:
        while True:
            events = await self._from_table() if self._catching_up else self._from_buffer()
            if events:
                return events
            if not self._catching_up and not self._buffer:
                self._news = anyio.Event()
                await self._news.wait()

    @property
    def _catching_up(self) -> bool:
        return self._behind or self.position < self._target

    def _hear(self, events: Sequence[Event]) -> None:
        last = events[-1].rv
        if self._resources is not None:
            events = [event for event in events if event.key.resource in self._resources]
        if not events:
            if not self._buffer and not self._catching_up:
                self.position = last
            return
        if len(self._buffer) + len(events) > self._capacity:
            self._buffer.clear()
            self._behind = True
        else:
            self._buffer.extend(events)
        self._news.set()

    def _from_buffer(self) -> Sequence[Event]:
        buffer, self._buffer = self._buffer, []
        events = [event for event in buffer if event.rv > self.position]
        if events:
            self.position = events[-1].rv
        return events

    async def _from_table(self) -> Sequence[Event]:
        if self._behind:
            self._behind = False
            self._buffer.clear()
            self._target = self._store.rv
        events = await self._store.events_since(
            self.position, until=self._target, resources=self._resources, limit=PAGE_EVENTS
        )
        self.position = events[-1].rv if len(events) == PAGE_EVENTS else max(self._target, self.position)
        return events
