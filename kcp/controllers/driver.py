"""The decision driver: runs planners, carries out what they yield, and writes down what was decided.

One `ControllerRun` per controller, owned by the task that runs it. For each key: wait at the barrier until the caches
have passed the key's own last writes; pin the frontier; run the planner; perform effects; record the decision; queue
the key again as the planner, a failure or a conflict asks.

Rules that live here and nowhere else: deadlines, retries with backoff, the barrier (no expectations), fencing (the
client's), causes, decision rows, the watchdog. A planner that raises is a bug: recorded, logged, retried with backoff.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio
import attrs
import structlog

from kcp.base.clock import Clock, microseconds
from kcp.client.answers import rv_of
from kcp.client.cache.shared_informer import InformerFactory, SharedInformer
from kcp.client.client import Client
from kcp.client.workqueue.queue import ShutDown
from kcp.client.workqueue.rate_limiting import RateLimitingQueue
from kcp.controllers import effects as fx
from kcp.controllers.decisions import (
    Decided,
    DecisionSink,
    code_hash,
    config_hash,
    describe,
    record_outcome,
)
from kcp.controllers.execute import DEADLINE_S, Executor, External, failures
from kcp.controllers.sources import (
    Controller,
    Everything,
    Fan,
    Owned,
    Self,
    Timer,
    indexes_of,
    tallies_of,
)
from kcp.controllers.view import IndexReader, ManyReader, Readers, Reads
from kcp.machinery import meta
from kcp.machinery.errors import ApiError

Json = dict[str, Any]
log = structlog.get_logger()

BARRIER_TIMEOUT_S = 10.0
SYNC_TIMEOUT_S = 600.0
DECISION_BUDGET_S = 60.0
"""A decision that runs longer than twice this is cancelled, recorded and retried."""
SPACING_PER_READ_S = 50e-6
"""A plan that looked at n objects together (all pods of a ReplicaSet) is followed, as far as events ask for it, by the next
one of its key n times this after it began: what changes meanwhile is seen at once, and looking at all of them again stays
a small part of a core, however many they are. A key with few objects is planned without delay."""
MIN_SPACING_S, MAX_SPACING_S = 0.001, 0.25
WHOLE_FRONTIER_EVERY = 64
"""A frontier is written whole in one of so many rows, so that a part of a log can be replayed."""
READS = frozenset({"Live", "LiveList", "RequeueAfter", "Memo"})
"""Effects that change nothing: a decision of only these is not recorded."""

EventWriter = Callable[[fx.Event], None]


@attrs.define
class Trace:
    """What one decision did so far; owned by the worker that runs it.

    `frontier` is what the caches had when it began, `seen` what they had after the latest effect; `reads` is how
    many objects it looked at together.
    """

    id: int
    key: str
    trigger: str
    now_us: int
    frontier: dict[str, int]
    memo_before: Json | None
    seen: dict[str, int] = attrs.field(factory=dict)
    began_s: float = 0.0
    reads: int = 0
    effects: list[Json] = attrs.field(factory=list)
    retry: bool = False
    requeue_s: float | None = None

    @property
    def worth_recording(self) -> bool:
        return any(effect["kind"] not in READS for effect in self.effects)


@attrs.define
class ControllerRun:
    """A controller at work. `client` carries its identity and fence; `resources` describes the served resources."""

    controller: Controller
    client: Client
    informers: InformerFactory
    clock: Clock
    queue: RateLimitingQueue
    sink: DecisionSink
    write_event: EventWriter
    resources: Callable[[], list[Json]]
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    externals: Mapping[str, External] = attrs.field(factory=dict)
    epoch: Callable[[], int] = lambda: 0
    recorded: int = 0
    """Rows written for this controller in this life of the store, by runs before this one too."""
    view: Readers = attrs.field(init=False)
    watched: dict[str, SharedInformer] = attrs.field(factory=dict)
    _readers: dict[str, Any] = attrs.field(factory=dict)
    _memos: dict[str, Json] = attrs.field(factory=dict)
    _barriers: dict[str, dict[str, int]] = attrs.field(factory=dict)
    _uncertain: dict[str, list[str]] = attrs.field(factory=dict)
    _parked: dict[str, tuple[str, int, float]] = attrs.field(factory=dict)
    """By key: the cache that it waits for, up to which revision, and since when."""
    _ahead: dict[tuple[str, str], None] = attrs.field(factory=dict)
    """Keys with resources of which they saw, past the cache, what the cache does not have yet."""
    _everything: dict[str, None] = attrs.field(factory=dict)
    """Resources that are watched only because all are."""
    _triggers: dict[str, str] = attrs.field(factory=dict)
    _reads: Reads = attrs.field(factory=Reads)
    _not_before_s: dict[str, float] = attrs.field(factory=dict)
    """By key whose plans look at many objects: the monotonic time before which events alone do not queue it."""
    _last_frontier: dict[str, int] = attrs.field(factory=dict)
    _code_hash: str = ""
    _config_hash: str = ""
    _rows: int = 0
    decisions: int = 0
    busy: int = 0

    def __attrs_post_init__(self) -> None:
        self.settings = {**self.controller.settings, **self.settings}
        self._code_hash = code_hash(self.controller.plan)
        self._config_hash = config_hash({k: v for k, v in self.settings.items() if k != "resources"})
        for name, source in self.controller.watches.items():
            self._connect(name, source)
        self.view = Readers(self._readers)

    async def run(self) -> None:
        """Wait for the caches, then work until cancelled."""
        await self._caches_filled()
        async with anyio.create_task_group() as group:
            group.start_soon(self.queue.run)
            for name, source in self.controller.watches.items():
                if isinstance(source, Timer):
                    group.start_soon(self._tick, name, source)
            for _ in range(self.controller.workers):
                group.start_soon(self._work)

    async def _caches_filled(self) -> None:
        """Nothing is decided by an empty cache, however long it takes to fill one; but whoever watches everything does not
        wait for ever for a resource whose server is down.
        """
        for resource, informer in self.watched.items():
            while not await informer.wait_for_sync(SYNC_TIMEOUT_S):
                log.warning("cache does not fill", controller=self.controller.name, resource=resource)
                if resource in self._everything:
                    break

    def _connect(self, name: str, source: Any) -> None:
        if isinstance(source, Timer):
            return
        if isinstance(source, Everything):
            self._connect_everything(name, source)
            return
        prefix = f"{self.controller.name}/"
        informer = self.informers.informer(source.resource)
        informer.add_indexers(indexes_of(source, prefix))
        informer.indexer.add_tallies(tallies_of(source, prefix))
        self.watched[source.resource] = informer
        self._readers[name] = IndexReader(informer.indexer, prefix, self._reads)
        handler = self._handler(source)
        if handler is not None:
            informer.add_handler(handler)

    def _connect_everything(self, name: str, source: Everything) -> None:
        prefix = f"{self.controller.name}/"
        readers: dict[str, IndexReader] = {}
        for row in self.resources():
            if not {"list", "watch", "delete"} <= set(row["verbs"]) or row["resource"] in source.exclude:
                continue
            informer = self.informers.informer(row["resource"])
            informer.add_indexers({prefix + index: fn for index, fn in source.indexes.items()})
            informer.add_handler(self._mapped(source.keys))
            self.watched[row["resource"]] = informer
            self._everything[row["resource"]] = None
            readers[row["resource"]] = IndexReader(informer.indexer, prefix, self._reads)
        self._readers[name] = ManyReader(readers)

    def _handler(self, source: Any) -> Callable[[Json | None, Json | None], None] | None:
        if isinstance(source, Self):
            return self._queue_self
        if isinstance(source, Owned):
            return self._owned_handler(source)
        if isinstance(source, Fan) and source.keys is not None:
            return self._mapped(source.keys)
        return None

    def _queue_self(self, old: Json | None, new: Json | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        if old is None or new is None or _is_wanted_otherwise(old, new):
            self.enqueue(meta.key_of(obj), "event")
        else:
            self.enqueue_soon(meta.key_of(obj))

    def _mapped(self, mapper: Callable[..., Any]) -> Callable[[Json | None, Json | None], None]:
        def handle(old: Json | None, new: Json | None) -> None:
            for key in mapper(old, new, self._readers):
                self.enqueue_soon(key)

        return handle

    def _owned_handler(self, source: Owned) -> Callable[[Json | None, Json | None], None]:
        def handle(old: Json | None, new: Json | None) -> None:
            for obj in (old, new):
                key = controlled_by(obj, source.owner_kind, source.owner_group)
                if key is not None:
                    self.enqueue_soon(key)
            if source.orphans is not None:
                for key in source.orphans(old, new, self._readers):
                    self.enqueue_soon(key)

        return handle

    def enqueue(self, key: str, trigger: str) -> None:
        self._triggers.setdefault(key, trigger)
        self.queue.add(key)

    def enqueue_soon(self, key: str) -> None:
        """For an event of one object among those that the key's plan looks at: at once, or after the key's spacing."""
        due_s = self._not_before_s.get(key)
        wait_s = due_s - self.clock.monotonic() if due_s is not None else 0.0
        if wait_s <= 0:
            self.enqueue(key, "event")
            return
        self._triggers.setdefault(key, "event")
        self.queue.add_spaced(key, wait_s)

    def _space(self, trace: Trace) -> None:
        """Put the key's next plan as far away as this one has looked at objects so far."""
        self._not_before_s.pop(trace.key, None)  # the newest come last
        spacing_s = min(trace.reads * SPACING_PER_READ_S, MAX_SPACING_S)
        if spacing_s >= MIN_SPACING_S:
            self._not_before_s[trace.key] = trace.began_s + spacing_s

    async def _tick(self, name: str, source: Timer) -> None:
        del name
        while True:
            self.enqueue(source.key, "timer")
            await anyio.sleep(source.period_s)

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            self.busy += 1
            try:
                await self.process(key)
            except Exception:
                log.exception("decision failed", controller=self.controller.name, key=key)
                self._retry(key)
            except BaseException:
                self.enqueue(key, "retry")  # these workers may be started anew
                raise
            finally:
                self.busy -= 1
                self.queue.done(key)

    async def process(self, key: str) -> None:
        """One decision for one key, barrier included."""
        trigger = self._triggers.pop(key, "retry")
        if not await self._settled(key) or self._parked_at_barrier(key):
            return
        trace = self._begin(key, trigger)
        try:
            with anyio.fail_after(2 * DECISION_BUDGET_S):
                await self._plan(trace)
        except TimeoutError:
            log.warning("decision took too long", controller=self.controller.name, key=key)
            trace.effects.append({"kind": "Timeout", "outcome": "timeout", "digest": ""})
            trace.retry = True
        except Exception as bug:
            log.exception("planner failed", controller=self.controller.name, key=key, frontier=trace.frontier)
            trace.effects.append({"kind": "Exception", "outcome": repr(bug), "digest": ""})
            trace.retry = True
        self._finish(trace)

    async def _settled(self, key: str) -> bool:
        """Whether it is known what this key's writes came to. False: the log could not be asked, the key comes back.

        A write whose answer was lost may be in the log: the barrier rises to the newest object that is there now. (A
        removal leaves none; to remove again what is gone does no harm.)
        """
        namespace = key.partition("/")[0] if "/" in key else ""
        for resource in self._uncertain.get(key, ()):
            try:
                with anyio.fail_after(DEADLINE_S):
                    page = await self.informers.client.list(resource, namespace)
            except (ApiError, TimeoutError):
                self._retry(key)
                return False
            barrier = self._barriers.setdefault(key, {})
            newest = max((rv_of(obj) for obj in page.items), default=0)
            barrier[resource] = max(newest, barrier.get(resource, 0))
        self._uncertain.pop(key, None)
        return True

    def _parked_at_barrier(self, key: str) -> bool:
        """Whether some cache has not seen this key's own writes yet; then the key comes back when it has.

        The worker does not wait: a cut watch costs its own keys, not the workers.
        """
        for resource, rv in self._barriers.get(key, {}).items():
            informer = self.watched.get(resource)
            if informer is None or informer.rv >= rv:
                continue
            now_s = self.clock.monotonic()
            parked = self._parked.get(key)
            if parked is None or parked[:2] != (resource, rv):
                self._parked[key] = (resource, rv, now_s)
                informer.when_rv(rv, partial(self.enqueue, key, "barrier"))
            elif now_s - parked[2] >= BARRIER_TIMEOUT_S:
                log.warning(
                    "cache lags behind own write", controller=self.controller.name, key=key, resource=resource
                )
            self.queue.add_after(key, BARRIER_TIMEOUT_S)
            return True
        self._barriers.pop(key, None)
        self._parked.pop(key, None)
        return False

    def _begin(self, key: str, trigger: str) -> Trace:
        frontier = {resource: informer.rv for resource, informer in self.watched.items()}
        now_us = microseconds(self.clock.now())
        began_s = self.clock.monotonic()
        return Trace(0, key, trigger, now_us, frontier, self._memos.get(key), dict(frontier), began_s)

    @property
    def readers(self) -> Mapping[str, Any]:
        """What the mapping functions of the sources get: a reader per watch."""
        return self._readers

    def environment(self, key: str) -> fx.Env:
        """What a plan for this key would know besides its view, if it began now."""
        settings = self.settings
        if "resources" in settings:
            settings = {**settings, "resources": self.resources()}
        return fx.Env(self.clock.now(), self._memos.get(key), settings, self.controller.name)

    async def _plan(self, trace: Trace) -> None:
        env = self.environment(trace.key)
        trace.now_us = microseconds(env.now)
        plan = self.controller.plan(trace.key, self.view, env)
        effect = self._advance(trace, plan, None)
        if effect is None:
            return
        trace.id = self.sink.next_id()
        executor = Executor(self.client, trace.id, self.write_event, self.externals)
        try:
            while effect is not None:
                outcome = await executor.perform(effect)
                self._note(trace, effect, outcome)
                effect = self._advance(trace, plan, outcome)
        finally:
            if executor.written:
                self._barriers[trace.key] = executor.written
            uncertain = [resource for resource in executor.uncertain if resource in self.watched]
            if uncertain:
                self._uncertain[trace.key] = uncertain

    def _advance(self, trace: Trace, plan: fx.Plan, outcome: fx.Outcome | None) -> fx.Effect | None:
        self._reads.objects = 0
        effect = fx.advance(plan, outcome)
        trace.reads = max(trace.reads, self._reads.objects)
        self._space(trace)
        return effect

    def _note(self, trace: Trace, effect: fx.Effect, outcome: fx.Outcome) -> None:
        described = record_outcome(describe(effect), outcome)
        moved = {r: i.rv for r, i in self.watched.items() if i.rv != trace.seen[r]}
        if moved:
            described["frontier"] = moved
            trace.seen.update(moved)
        trace.effects.append(described)
        if isinstance(effect, fx.RequeueAfter):
            trace.requeue_s = (
                effect.seconds if trace.requeue_s is None else min(trace.requeue_s, effect.seconds)
            )
        elif isinstance(effect, fx.Memo):
            self._remember(trace.key, effect.value)
        elif isinstance(effect, fx.Live) and outcome.object is not None:
            self._look_again(trace.key, effect.resource, rv_of(outcome.object))
        for error in failures(effect, outcome):
            trace.retry = True
            log.debug("effect failed", controller=self.controller.name, key=trace.key, error=error.message)

    def _look_again(self, key: str, resource: str, rv: int) -> None:
        """Plan a key that saw an object past the cache again once the cache is as far: the object may be gone by then, and
        one that came and went while a watch was cut leaves no event that would queue the key.

        Source: k8s v1.36 attemptToDeleteWorker keeps what was not observed yet in its queue.
        """
        informer = self.watched.get(resource)
        if informer is None or informer.rv >= rv or (key, resource) in self._ahead:
            return

        def caught_up() -> None:
            self._ahead.pop((key, resource), None)
            self.enqueue(key, "barrier")

        self._ahead[key, resource] = None
        informer.when_rv(rv, caught_up)

    def _remember(self, key: str, value: Json | None) -> None:
        if value is None:
            self._memos.pop(key, None)
        else:
            self._memos[key] = value

    def _forget_oldest(self) -> None:
        """Drop the oldest barrier and the oldest spacing once they hold nothing up: their keys may never come back.

        One of each after every decision is enough, as a decision leaves one of each at most.
        """
        key = next(iter(self._barriers), None)
        if key is not None and all(
            resource not in self.watched or self.watched[resource].rv >= rv
            for resource, rv in self._barriers[key].items()
        ):
            del self._barriers[key]
        key = next(iter(self._not_before_s), None)
        if key is not None and self._not_before_s[key] <= self.clock.monotonic():
            del self._not_before_s[key]

    def _finish(self, trace: Trace) -> None:
        self.decisions += 1
        self._forget_oldest()
        if trace.worth_recording:
            self._record(trace)
        if trace.retry:
            self._retry(trace.key)
            return
        self.queue.forget(trace.key)
        if trace.requeue_s is not None:
            self.queue.add_after(trace.key, trace.requeue_s)
            self._triggers.setdefault(trace.key, "timer")

    def _retry(self, key: str) -> None:
        limit = self.controller.max_retries
        if limit is not None and self.queue.retries(key) >= limit:
            log.warning("giving up on a key", controller=self.controller.name, key=key, retries=limit)
            self.queue.forget(key)
            return
        self._triggers.setdefault(key, "retry")
        self.queue.add_rate_limited(key)

    def _record(self, trace: Trace) -> None:
        whole = self._rows % WHOLE_FRONTIER_EVERY == 0
        changed = {r: rv for r, rv in trace.frontier.items() if whole or self._last_frontier.get(r) != rv}
        changed["#"] = self.recorded
        if whole:
            changed["*"] = 1
        self.recorded += 1
        self._rows += 1
        self._last_frontier = trace.frontier
        revisions = sorted(written_revisions(trace.effects))
        self.sink.record(
            Decided(
                id=trace.id or self.sink.next_id(),
                controller=self.controller.name,
                key=trace.key,
                trigger=trace.trigger,
                frontier=changed,
                now_us=trace.now_us,
                effects=trace.effects,
                memo_before=trace.memo_before,
                code_hash=self._code_hash,
                config_hash=self._config_hash,
                epoch=self.epoch(),
                first_rv=revisions[0] if revisions else 0,
                last_rv=revisions[-1] if revisions else 0,
                duration_us=int((self.clock.monotonic() - trace.began_s) * 1e6),
            )
        )


def _is_wanted_otherwise(old: Json, new: Json) -> bool:
    """Whether what is wanted of an object changed, and not only what became of it (where it counts generations)."""
    before, after = old["metadata"], new["metadata"]
    return (
        before.get("generation") != after.get("generation")
        or "generation" not in after
        or before.get("deletionTimestamp") != after.get("deletionTimestamp")
        or before["uid"] != after["uid"]
    )


def controlled_by(obj: Json | None, kind: str, group: str) -> str | None:
    """The key of the controlling owner when it is of this kind."""
    if obj is None or not obj["metadata"].get("ownerReferences"):
        return None
    controller = meta.controller_of(obj)
    if controller is None or controller["kind"] != kind:
        return None
    if controller["apiVersion"].rpartition("/")[0] != group:
        return None
    namespace = meta.namespace(obj)
    return f"{namespace}/{controller['name']}" if namespace else str(controller["name"])


def written_revisions(effects: list[Json]) -> list[int]:
    """Revisions of everything the effects wrote."""
    revisions: list[int] = []
    for effect in effects:
        if effect["kind"] == "All":
            revisions += written_revisions(effect["effects"])
        elif effect.get("rv"):
            revisions.append(effect["rv"])
    return revisions
