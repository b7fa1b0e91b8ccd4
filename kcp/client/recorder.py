"""Events about objects: correlated, counted, aggregated and limited, then written in the background.

    recorder = EventRecorder(client, "deployment-controller", clock=clock)
    recorder.event(deployment, "Normal", "ScalingReplicaSet", "Scaled up replica set web-1 from 0 to 3")
    await recorder.run()

`event` never waits and never fails: what does not fit into the queue is dropped. The correlator is client-go's:

- the same event again: one Event whose count rises;
- more than ten that differ only in their message, within ten minutes: one Event "(combined from similar events): …";
- more than 25 at once about one object from one source: dropped, one more every five minutes.

Source: k8s v1.36 client-go/tools/record/{event,events_cache}.go, client-go/tools/events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import anyio
import attrs
import structlog

from kcp.base.background import Background
from kcp.base.clock import Clock, SystemClock, microseconds, moment
from kcp.base.entropy import Entropy, SystemEntropy
from kcp.base.ttl_cache import TtlCache
from kcp.base.values import frozen
from kcp.client.client import Client
from kcp.client.transport import Unreachable
from kcp.client.workqueue.rate_limiting import TokenBucket
from kcp.machinery.errors import AlreadyExists, ApiError, NotFound, Timeout
from kcp.machinery.times import format_micro_time, format_time

log = structlog.get_logger()

Json = dict[str, Any]
EventType = Literal["Normal", "Warning"]
Form = Literal["core", "events.k8s.io"]

QUEUE_CAPACITY = 20_000
"""client-go has 1000; a burst of pods here is scheduled faster than their Events are written."""
BATCH = 64
CACHE_ENTRIES = 4096
SPAM_BURST, SPAM_PER_SECOND = 25, 1 / 300
AGGREGATE_AFTER, AGGREGATE_WINDOW_S = 10, 600.0
SERIES_IDLE_S, SERIES_REFRESH_S = 360.0, 1800.0
RETRIES, RETRY_S = 12, 10.0
COMBINED = "(combined from similar events): "

_RESOURCES: dict[Form, str] = {"core": "events", "events.k8s.io": "events.events.k8s.io"}
_SAME_NAME_TRIES = 5


@frozen
class Intent:
    """One call of `event`, before correlation: what replay compares."""

    regarding: Json
    type: EventType
    reason: str
    message: str
    action: str
    related: Json | None
    controller: str
    instance: str
    at_us: int

    def about(self) -> tuple[str, ...]:
        ref = self.regarding
        fields = ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")
        return (self.controller, self.instance, *(ref.get(field, "") for field in fields))


@attrs.define(slots=True)
class Recorded:
    """An Event as the correlator remembers it."""

    name: str
    namespace: str
    first_us: int
    last_us: int
    count: int
    message: str
    intent: Intent
    stored: bool = False
    patched_us: int = 0


@attrs.define(slots=True)
class _Similar:
    """The messages seen of events that differ in nothing else."""

    messages: dict[str, None] = attrs.field(factory=dict)
    last_us: int = 0


class Correlator:
    """Decides what an intent becomes: a new Event, one more of a known one, or nothing."""

    def __init__(self, clock: Clock, form: Form) -> None:
        self._clock = clock
        self._form = form
        self._known: TtlCache[tuple[str, ...], Recorded] = TtlCache(clock, CACHE_ENTRIES)
        self._similar: TtlCache[tuple[str, ...], _Similar] = TtlCache(clock, CACHE_ENTRIES)
        self._spam: TtlCache[tuple[str, ...], TokenBucket] = TtlCache(clock, CACHE_ENTRIES)
        self._sequence = 0

    def correlate(self, intent: Intent) -> Recorded | None:
        """The Event to write, its count already raised; None when there is nothing to write."""
        recorded = self._series(intent) if self._form == "events.k8s.io" else self._counted(intent)
        if recorded is None or (self._form == "core" and self._is_spam(intent)):
            return None
        return recorded

    def _is_spam(self, intent: Intent) -> bool:
        key = (*intent.about(), intent.type)
        bucket = self._spam.get_or_put(key, lambda: TokenBucket(self._clock, SPAM_PER_SECOND, SPAM_BURST))
        return not bucket.try_take()

    def _counted(self, intent: Intent) -> Recorded:
        similar_key = (*intent.about(), intent.type, intent.reason)
        combined = self._is_one_of_many(similar_key, intent)
        key = similar_key if combined else (*similar_key, intent.message)
        message = COMBINED + intent.message if combined else intent.message
        return self._observe(key, intent, message)

    def _is_one_of_many(self, key: tuple[str, ...], intent: Intent) -> bool:
        similar = self._similar.get_or_put(key, _Similar)
        if intent.at_us - similar.last_us > AGGREGATE_WINDOW_S * 1e6:
            similar.messages = {}
        similar.last_us = intent.at_us
        similar.messages[intent.message] = None
        if len(similar.messages) < AGGREGATE_AFTER:
            return False
        del similar.messages[next(iter(similar.messages))]
        return True

    def _series(self, intent: Intent) -> Recorded | None:
        """Only the first repetition and a refresh every half an hour are written."""
        related = intent.related or {}
        key = (*intent.about(), intent.type, intent.reason, intent.action, related.get("uid", ""))
        known = self._known.get(key)
        if known is not None and intent.at_us - known.last_us > SERIES_IDLE_S * 1e6:
            self._known.discard(key)
        recorded = self._observe(key, intent, intent.message)
        quiet = recorded.count > 2 and intent.at_us - recorded.patched_us < SERIES_REFRESH_S * 1e6
        if quiet:
            return None
        recorded.patched_us = intent.at_us
        return recorded

    def _observe(self, key: tuple[str, ...], intent: Intent, message: str) -> Recorded:
        recorded = self._known.get(key)
        if recorded is None:
            recorded = Recorded(
                self._name(intent), _namespace(intent), intent.at_us, intent.at_us, 0, message, intent
            )
            self._known.put(key, recorded)
        recorded.count += 1
        recorded.last_us = intent.at_us
        recorded.message = message
        return recorded

    def _name(self, intent: Intent) -> str:
        """`<object>.<nanoseconds in hex>`; a counter stands for the nanoseconds, so that names follow from order."""
        self._sequence += 1
        return f"{intent.regarding.get('name', '')}.{intent.at_us * 1000 + self._sequence % 1000:x}"


class EventRecorder:
    """Events of one component. `event` may be called from any task of the loop; `run` writes.

    `form` says which API they are written through: `core` (controllers, kubelet) or `events.k8s.io` (scheduler).
    """

    def __init__(
        self,
        client: Client,
        controller: str,
        *,
        instance: str = "",
        form: Form = "core",
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        linger_s: float = 0.0,
        turns: anyio.Semaphore | None = None,
        background: Background | None = None,
    ) -> None:
        """`linger_s`: how long the first Event waits for company, so that more of them share a request.

        `turns` is shared by recorders that must not crowd out the work they report: so many write at a time.
        `background`: Events wait for what they report.
        """
        self.controller, self.instance = controller, instance
        self._linger_s = linger_s
        self._turns = turns
        self._background = background
        self._flushing = False
        self.dropped = 0
        self._client = client
        self._form = form
        self._clock = clock or SystemClock()
        self._entropy = entropy or SystemEntropy()
        self._correlator = Correlator(self._clock, form)
        self._queue: deque[Intent] = deque()
        self._wake = anyio.Event()
        self._idle = anyio.Event()

    def event(
        self,
        regarding: Json,
        type: EventType,
        reason: str,
        message: str,
        action: str = "",
        related: Json | None = None,
        reporting_controller: str = "",
    ) -> None:
        """`regarding` is an object or an ObjectReference."""
        if len(self._queue) >= QUEUE_CAPACITY:
            self.dropped += 1
            return
        intent = Intent(
            object_reference(regarding),
            type,
            reason,
            message,
            action,
            object_reference(related) if related is not None else None,
            reporting_controller or self.controller,
            self.instance,
            microseconds(self._clock.now()),
        )
        self._queue.append(intent)
        self._wake.set()

    async def run(self) -> None:
        """Write what is queued, in batches, until cancelled."""
        while True:
            self._wake = anyio.Event()
            while self._queue:
                if self._turns is None:
                    await self._write_some()
                else:
                    async with self._turns:
                        await self._write_some()
            self._idle.set()
            self._idle = anyio.Event()
            await self._wake.wait()
            if self._linger_s and not self._flushing:
                await anyio.sleep(self._linger_s)

    async def _write_some(self) -> None:
        if self._background is None:
            await self._write_batch(self._take())
            return
        started_s = await self._background.enter()
        await self._write_batch(self._take())
        self._background.leave(started_s)

    def _take(self) -> list[Intent]:
        return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]

    async def flush(self, timeout_s: float = 5.0) -> bool:
        """Until everything queued so far is written (`run` must be running); False when that takes longer."""
        idle = self._idle
        self._flushing = True
        self._wake.set()
        try:
            with anyio.move_on_after(timeout_s + self._linger_s):
                await idle.wait()
                return True
            return False
        finally:
            self._flushing = False

    async def _write_batch(self, intents: Sequence[Intent]) -> None:
        """Correlate in order, then write each touched Event once, concurrently."""
        touched: dict[int, Recorded] = {}
        for intent in intents:
            recorded = self._correlator.correlate(intent)
            if recorded is not None:
                touched[id(recorded)] = recorded
        pending = list(touched.values())
        if len(pending) > 1 and self._client.transport.in_process:
            pending = await self._create_new(pending)
        if len(pending) == 1:
            await self._write(pending[0])
            return
        async with anyio.create_task_group() as group:
            for recorded in pending:
                group.start_soon(self._write, recorded)

    async def _create_new(self, pending: Sequence[Recorded]) -> list[Recorded]:
        """Create the Events that are new in one request; what is left over is written one by one."""
        known = [recorded for recorded in pending if recorded.stored]
        new = [recorded for recorded in pending if not recorded.stored]
        resource = _RESOURCES[self._form]
        creates = [(resource, _document(recorded, self._form), recorded.namespace) for recorded in new]
        try:
            outcomes = await self._client.create_all(creates)
        except ApiError as error:
            log.debug("events not written together", error=str(error))
            return list(pending)
        for recorded, outcome in zip(new, outcomes, strict=True):
            recorded.stored = not isinstance(outcome, ApiError)
        again = (AlreadyExists, Unreachable, Timeout)
        failed = [each for each, outcome in zip(new, outcomes, strict=True) if isinstance(outcome, again)]
        return [recorded for recorded in known if recorded.stored] + failed

    async def _write(self, recorded: Recorded) -> None:
        """Write one Event; only a server out of reach is tried again."""
        for attempt in range(RETRIES):
            try:
                await self._write_once(recorded)
                return
            except (Unreachable, Timeout) as error:
                log.debug("event not written", error=str(error), attempt=attempt)
            except ApiError as error:
                log.debug("server rejected event", name=recorded.name, error=str(error))
                return
            await anyio.sleep(RETRY_S * (self._entropy.uniform(0, 1) if attempt == 0 else 1))

    async def _write_once(self, recorded: Recorded) -> None:
        resource = _RESOURCES[self._form]
        if recorded.stored:
            try:
                patch = _repeated(recorded, self._form)
                await self._client.patch(resource, recorded.name, patch, "merge", recorded.namespace)
                return
            except NotFound:
                recorded.stored = False  # it expired meanwhile
        for _ in range(_SAME_NAME_TRIES):
            try:
                await self._client.create(resource, _document(recorded, self._form), recorded.namespace)
                recorded.stored = True
                return
            except AlreadyExists:
                prefix, _, suffix = recorded.name.rpartition(".")
                recorded.name = f"{prefix}.{int(suffix, 16) + 1:x}"


def object_reference(obj: Json) -> Json:
    """The ObjectReference of an object; a reference stays what it is."""
    metadata = obj.get("metadata")
    if metadata is None:
        return obj
    reference = {
        "kind": obj.get("kind", ""),
        "namespace": metadata.get("namespace", ""),
        "name": metadata.get("name", ""),
        "uid": metadata.get("uid", ""),
        "apiVersion": obj.get("apiVersion", ""),
        "resourceVersion": metadata.get("resourceVersion", ""),
    }
    return {key: value for key, value in reference.items() if value}


def _namespace(intent: Intent) -> str:
    """Events about cluster-scoped objects live in `default`."""
    return intent.regarding.get("namespace") or "default"


def _document(recorded: Recorded, form: Form) -> Json:
    intent = recorded.intent
    document = _core_document(recorded) if form == "core" else _series_document(recorded)
    document["metadata"] = {"name": recorded.name, "namespace": recorded.namespace}
    if intent.action:
        document["action"] = intent.action
    if intent.related is not None:
        document["related"] = intent.related
    return document


def _core_document(recorded: Recorded) -> Json:
    intent = recorded.intent
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": intent.regarding,
        "reason": intent.reason,
        "message": recorded.message,
        "source": {"component": intent.controller, **({"host": intent.instance} if intent.instance else {})},
        "firstTimestamp": format_time(moment(recorded.first_us)),
        "lastTimestamp": format_time(moment(recorded.last_us)),
        "count": recorded.count,
        "type": intent.type,
        "reportingComponent": intent.controller,
        "reportingInstance": intent.instance,
    }


def _series_document(recorded: Recorded) -> Json:
    intent = recorded.intent
    document: Json = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "eventTime": format_micro_time(moment(recorded.first_us)),
        "reportingController": intent.controller,
        "reportingInstance": intent.instance or intent.controller,
        "action": intent.action or intent.reason,
        "reason": intent.reason,
        "regarding": intent.regarding,
        "note": recorded.message,
        "type": intent.type,
    }
    if recorded.count > 1:
        document["series"] = _series_of(recorded)
    return document


def _series_of(recorded: Recorded) -> Json:
    return {"count": recorded.count, "lastObservedTime": format_micro_time(moment(recorded.last_us))}


def _repeated(recorded: Recorded, form: Form) -> Json:
    """The patch of an Event that happened again."""
    if form == "events.k8s.io":
        return {"series": _series_of(recorded)}
    last = format_time(moment(recorded.last_us))
    return {"count": recorded.count, "lastTimestamp": last, "message": recorded.message}
