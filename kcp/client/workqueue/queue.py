"""The work queue: keys in, each key out to at most one worker at a time.

    add "a", add "a"             queued once
    get -> "a", add "a"          remembered; queued again at done("a")
    get -> "a", done("a")        gone

Source: k8s v1.36 client-go/util/workqueue/queue.go.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, Protocol

import anyio
import attrs

from kcp.base.clock import Clock, SystemClock
from kcp.base.metrics import Metrics

Lane = Literal["live", "background"]
LIVE_PER_BACKGROUND = 8
_BUCKETS_S = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)


class ShutDown(Exception):
    """Raised by `get` when the queue was shut down and everything in it was handed out."""


class Observer(Protocol):
    """What is told about a queue's life; times are monotonic seconds."""

    def added(self, depth: int) -> None: ...

    def taken(self, depth: int, waited_s: float) -> None: ...

    def finished(self, worked_s: float) -> None: ...

    def retried(self) -> None: ...


class Unobserved:
    def added(self, depth: int) -> None: ...

    def taken(self, depth: int, waited_s: float) -> None: ...

    def finished(self, worked_s: float) -> None: ...

    def retried(self) -> None: ...


class QueueMetrics:
    """Kubernetes' workqueue_* metrics of one queue."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        labels = ("name",)
        self._depth = metrics.gauge("workqueue_depth", "Current depth of workqueue", labels).of(name)
        self._adds = metrics.counter(
            "workqueue_adds_total", "Total number of adds handled by workqueue", labels
        ).of(name)
        self._waited = metrics.histogram(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested.",
            labels,
            _BUCKETS_S,
        ).of(name)
        self._worked = metrics.histogram(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes.",
            labels,
            _BUCKETS_S,
        ).of(name)
        self._retries = metrics.counter(
            "workqueue_retries_total", "Total number of retries handled by workqueue", labels
        ).of(name)

    def added(self, depth: int) -> None:
        self._adds.inc()
        self._depth.set(depth)

    def taken(self, depth: int, waited_s: float) -> None:
        self._depth.set(depth)
        self._waited.observe(waited_s)

    def finished(self, worked_s: float) -> None:
        self._worked.observe(worked_s)

    def retried(self) -> None:
        self._retries.inc()


@attrs.define(slots=True)
class _Entry:
    lane: Lane
    added_s: float


class Queue:
    """Keys to work on. Owned by one loop; `add` and `done` are plain calls from any task.

    Laws:
    - stingy: a key waits at most once; adds while it waits change nothing, but an add on the live lane lifts it out of
      the background lane;
    - exclusive: a key is with at most one worker; an add meanwhile is remembered and queued at `done`;
    - nothing is lost: after the last add of a key there is a get of it;
    - fair: within a lane first come, first served; of nine gets with both lanes waiting eight are live;
    - drain: after `shut_down` adds are ignored, what waits is still handed out, then `get` raises ShutDown.

    The order of gets depends on the order of calls alone.
    """

    def __init__(self, clock: Clock | None = None, observer: Observer | None = None) -> None:
        self._clock = clock or SystemClock()
        self._observer = observer or Unobserved()
        self._lanes: dict[Lane, deque[str]] = {"live": deque(), "background": deque()}
        self._dirty: dict[str, _Entry] = {}
        self._processing: dict[str, float] = {}
        self._live_in_a_row = 0
        self._getters: deque[anyio.Event] = deque()
        self._idle: anyio.Event | None = None
        self._shutting_down = False
        self._waiting = 0

    def __len__(self) -> int:
        """How many keys wait to be handed out."""
        return self._waiting

    @property
    def processing(self) -> int:
        return len(self._processing)

    @property
    def shutting_down(self) -> bool:
        return self._shutting_down

    def longest_running_s(self) -> float:
        """For how long the key that a worker has had longest has been with it."""
        started = next(iter(self._processing.values()), None)
        return 0.0 if started is None else self._clock.monotonic() - started

    def add(self, key: str, lane: Lane = "live") -> None:
        if self._shutting_down:
            return
        entry = self._dirty.get(key)
        if entry is not None:
            if lane == "live" and entry.lane == "background":
                self._promote(key, entry)
            return
        entry = self._dirty[key] = _Entry(lane, self._clock.monotonic())
        if key in self._processing:
            self._observer.added(self._waiting)
        else:
            self._enqueue(key, entry)
            self._observer.added(self._waiting)

    def _promote(self, key: str, entry: _Entry) -> None:
        """Move a waiting key to the end of the live lane. Its old place stays behind and is skipped when it surfaces."""
        entry.lane = "live"
        if key not in self._processing:
            self._lanes["live"].append(key)

    def _enqueue(self, key: str, entry: _Entry) -> None:
        self._lanes[entry.lane].append(key)
        self._waiting += 1
        self._wake_one()

    def _wake_one(self) -> None:
        while self._getters:
            event = self._getters.popleft()
            if not event.is_set():
                event.set()
                return

    async def get(self) -> str:
        """The next key; the caller must call `done` with it. Raises ShutDown at the end."""
        while True:
            key = self._next()
            if key is not None:
                return key
            if self._shutting_down:
                raise ShutDown
            await self._wait()

    async def _wait(self) -> None:
        event = anyio.Event()
        self._getters.append(event)
        try:
            await event.wait()
        except BaseException:
            if event.is_set() and self._waiting:
                self._wake_one()  # we were woken for a key and are cancelled: let another worker have it
            else:
                event.set()
            raise

    def _next(self) -> str | None:
        while self._waiting:
            lane = self._pick_lane()
            key = self._lanes[lane].popleft()
            entry = self._dirty.get(key)
            if entry is None or entry.lane != lane or key in self._processing:
                continue  # left behind by a promotion
            self._live_in_a_row = self._live_in_a_row + 1 if lane == "live" else 0
            del self._dirty[key]
            now_s = self._clock.monotonic()
            self._processing[key] = now_s
            self._waiting -= 1
            self._observer.taken(self._waiting, now_s - entry.added_s)
            return key
        return None

    def _pick_lane(self) -> Lane:
        live, background = self._lanes["live"], self._lanes["background"]
        if not background or (live and self._live_in_a_row < LIVE_PER_BACKGROUND):
            return "live"
        return "background"

    def done(self, key: str) -> None:
        """The worker has finished with a key that it got."""
        started_s = self._processing.pop(key)
        self._observer.finished(self._clock.monotonic() - started_s)
        entry = self._dirty.get(key)
        if entry is not None:
            self._enqueue(key, entry)
        elif self._idle is not None and not self._processing and not self._waiting:
            self._idle.set()

    def shut_down(self) -> None:
        """Ignore adds from now on; workers finish what waits."""
        self._shutting_down = True
        getters, self._getters = self._getters, deque()
        for event in getters:
            event.set()

    async def shut_down_with_drain(self) -> None:
        """Shut down and wait until every key that was handed out is done."""
        self.shut_down()
        if self._processing or self._waiting:
            self._idle = anyio.Event()
            await self._idle.wait()
