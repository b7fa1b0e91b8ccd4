"""The scheduler: follows the cluster, decides one pod after the other, commits bindings in batches.

    scheduler = Scheduler(client, informers, clock, sink, write_event, seed=7)
    await scheduler.run()

Informer changes go straight into the cluster state and the queue, in the step in which the informers moved, so the state
stands exactly at the informers' revisions. Deciding never waits; while one batch of bindings commits, the next is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio
import attrs
import structlog
from anyio.abc import TaskGroup

from kcp.base.clock import Clock, microseconds
from kcp.client.cache.shared_informer import InformerFactory, SharedInformer
from kcp.client.client import Client
from kcp.client.transport import Unreachable
from kcp.machinery.errors import ApiError, NotFound
from kcp.scheduler import profiles
from kcp.scheduler.binding import Binding, commit
from kcp.scheduler.cluster_state import RESOURCES, ClusterState
from kcp.scheduler.cycle import Decision, decide
from kcp.scheduler.events import Follower
from kcp.scheduler.framework import status as texts
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.plugins.volume_binding import Provision, plans_for
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.profiles import Configuration
from kcp.scheduler.queue import QueuedPod, SchedulingQueue
from kcp.scheduler.rows import Decided, DecisionSink, Rows, code_digest, digest, effect_of
from kcp.scheduler.volumes import VolumesNotBound, bind_volumes, reserve, unreserve
from kcp.scheduler.writes import EventWriter, Eviction, StatusWrite, Writes, unchanged

Json = dict[str, Any]
log = structlog.get_logger()

SYNC_TIMEOUT_S = 600.0
BATCH = 256
"""Decisions that are committed together at most."""
BATCHES_UNDER_WAY = 2
ATTEMPTS_PER_STEP = 256
"""Attempts after which other tasks get their turn, bound or not."""


@attrs.define(eq=False)
class Scheduler:
    """One scheduler process: every profile of its configuration. The task of `run` owns it.

    `recorded` says how many rows each profile has in this life of the store, when a scheduler starts anew; see `rows`.
    """

    client: Client
    informers: InformerFactory
    clock: Clock
    sink: DecisionSink
    write_event: EventWriter
    seed: int = 0
    configuration: Configuration = attrs.field(factory=Configuration)
    epoch: Callable[[], int] = lambda: 0
    recorded: Mapping[str, int] = attrs.field(factory=dict)
    state: ClusterState = attrs.field(factory=ClusterState, init=False)
    queue: SchedulingQueue = attrs.field(init=False)
    frameworks: dict[str, Framework] = attrs.field(factory=dict, init=False)
    attempts: int = attrs.field(default=0, init=False)
    bound: int = attrs.field(default=0, init=False)
    unschedulable: int = attrs.field(default=0, init=False)
    errors: int = attrs.field(default=0, init=False)
    writes: Writes = attrs.field(init=False)
    watched: dict[str, SharedInformer] = attrs.field(factory=dict, init=False)
    _rows: dict[str, Rows] = attrs.field(factory=dict, init=False)
    _hashes: dict[str, str] = attrs.field(factory=dict, init=False)
    _code_hash: str = attrs.field(default="", init=False)
    _wake: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _storage: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _with_volumes: list[tuple[Binding, list[Provision]]] = attrs.field(factory=list, init=False)
    _follower: Follower = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        for profile in self.configuration.profiles:
            self.frameworks[profile.name] = profiles.build(self.state, profile)
            self._rows[profile.name] = Rows(self.recorded.get(profile.name, 0))
            self._hashes[profile.name] = digest(attrs.asdict(profile))
        self._code_hash = code_digest()
        self.writes = Writes(self.client, self.clock, self.write_event)
        self.queue = SchedulingQueue(
            self._hint, self.configuration.initial_backoff_s, self.configuration.max_backoff_s
        )
        self._follower = Follower(
            self.state, self.queue, frozenset(self.frameworks), self._now_us, self._wake_up
        )
        for resource in RESOURCES:
            informer = self.watched[resource] = self.informers.informer(resource)
            informer.add_handler(partial(self._follower.follow, resource))
        self.watched["persistentvolumeclaims"].add_handler(self._storage_changed)

    async def run(self) -> None:
        """Wait for the caches, then schedule until cancelled."""
        for informer in self.watched.values():
            await informer.wait_for_sync(SYNC_TIMEOUT_S)
        self._start_anew()
        async with anyio.create_task_group() as group:
            group.start_soon(self.writes.run)
            await self._schedule_forever(group)

    def _start_anew(self) -> None:
        """What an earlier run left under way counts for nothing: only the log says what is bound."""
        for rows in self._rows.values():
            rows.fresh = True
        for uid in list(self.state.assumed):
            self.state.forget(uid)
        self.state.reserved.clear()
        self._with_volumes = []
        self.queue.land_all(self._now_us())

    async def _schedule_forever(self, group: TaskGroup) -> None:
        under_way = anyio.Semaphore(BATCHES_UNDER_WAY)
        while True:
            self._wake = anyio.Event()
            self.queue.tick(self._now_us())
            batch, more = self._decide_some()
            for binding, plans in self._with_volumes:
                group.start_soon(self._bind_volumes, binding, plans)
            self._with_volumes = []
            if batch:
                await under_way.acquire()
                group.start_soon(self._commit, batch, under_way)
            if batch or more:
                await anyio.sleep(0)
            else:
                await self._wait()

    async def _wait(self) -> None:
        due_us = self.queue.due_us()
        if due_us is None:
            await self._wake.wait()
            return
        with anyio.move_on_after(max(0.0, (due_us - self._now_us()) / 1e6)):
            await self._wake.wait()

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each profile has written, those before this start included."""
        return {name: rows.written for name, rows in self._rows.items()}

    def _wake_up(self) -> None:
        self._wake.set()

    def _now_us(self) -> int:
        return microseconds(self.clock.now())

    # --- attempts ---

    def _decide_some(self) -> tuple[list[Binding], bool]:
        """Decide until a batch is full, the queue is empty or it is time for others; whether more may be waiting."""
        batch: list[Binding] = []
        now_us = self._now_us()
        for _ in range(ATTEMPTS_PER_STEP):
            queued = self.queue.pop(now_us)
            if queued is None:
                return batch, False
            binding = self._attempt(queued, now_us)
            if binding is not None:
                batch.append(binding)
                if len(batch) >= BATCH:
                    break
        return batch, True

    def _attempt(self, queued: QueuedPod, now_us: int) -> Binding | None:
        info = self.state.pods.get(queued.uid)
        if info is None or info.node:
            self.queue.done(queued.uid)
            return None
        if "deletionTimestamp" in info.pod["metadata"]:
            text = f"skip schedule deleting pod: {info.key}"
            self.write_event(info.pod, "Warning", "FailedScheduling", text, "Scheduling", None)
            self.queue.done(queued.uid)
            return None
        return self._decide(queued, info, now_us)

    def _decide(self, queued: QueuedPod, info: PodInfo, now_us: int) -> Binding | None:
        profile = info.pod["spec"].get("schedulerName") or profiles.DEFAULT_NAME
        self.attempts += 1
        framework = self.frameworks[profile]
        started_s = self.clock.monotonic()
        try:
            decision = decide(framework, info, cycle=self.attempts, seed=self.seed)
        except Exception as bug:
            log.exception("scheduling failed", pod=info.key, cycle=self.attempts)
            self._error(queued, info.pod, repr(bug), now_us)
            return None
        number = self._record(profile, queued, info, decision, now_us, started_s)
        if decision.node:
            plans = plans_for(Cycle(self.state, info, framework), self.state.nodes[decision.node])
            self.state.assume(info.uid, decision.node)
            binding = Binding(queued, info.pod, decision.node, number)
            if not plans:
                return binding
            reserve(self.state, plans)
            self._with_volumes.append((binding, plans))
            return None
        self._unschedulable(queued, info, decision, number, now_us)
        return None

    def _record(
        self,
        profile: str,
        queued: QueuedPod,
        info: PodInfo,
        decision: Decision,
        now_us: int,
        started_s: float,
    ) -> int:
        """Written before the binding is asked for, so both ride in the same batch of the log."""
        rows, number = self._rows[profile], self.sink.next_id()
        frontier = rows.frontier({resource: informer.rv for resource, informer in self.watched.items()})
        effect = effect_of(info, decision)
        effect.update(rows.context(frontier, self.state))
        self.sink.record(
            Decided(
                id=number,
                controller=profile,
                key=info.key,
                trigger=queued.trigger,
                frontier=frontier,
                now_us=now_us,
                effects=[effect],
                code_hash=self._code_hash,
                config_hash=self._hashes[profile],
                epoch=self.epoch(),
                duration_us=int((self.clock.monotonic() - started_s) * 1e6),
            )
        )
        return number

    # --- bound ---

    async def _commit(self, batch: list[Binding], under_way: anyio.Semaphore) -> None:
        try:
            outcomes = await commit(self.client, batch)
            now_us = self._now_us()
            for binding, error in zip(batch, outcomes, strict=True):
                if error is None:
                    self._scheduled(binding)
                else:
                    self._not_bound(binding, error, now_us)
        finally:
            under_way.release()
            self._wake_up()

    async def _bind_volumes(self, binding: Binding, plans: list[Provision]) -> None:
        """The slow way into the log: first the pod's claims, then the pod."""
        try:
            await bind_volumes(
                self.client, self.state, plans, binding.node, binding.decision, lambda: self._storage
            )
            (error,) = await commit(self.client, [binding])
        except (VolumesNotBound, ApiError, Unreachable) as failure:
            text = f'running PreBind plugin "VolumeBinding": {failure}'
            error = ApiError(text)
        finally:
            unreserve(self.state, plans)
        if error is None:
            self._scheduled(binding)
        else:
            self._not_bound(binding, error, self._now_us())
        self._wake_up()

    def _storage_changed(self, old: Json | None, new: Json | None) -> None:
        self._storage.set()
        self._storage = anyio.Event()

    def _scheduled(self, binding: Binding) -> None:
        self.bound += 1
        self.queue.done(binding.queued.uid)
        text = f"Successfully assigned {binding.queued.key} to {binding.node}"
        self.write_event(binding.pod, "Normal", "Scheduled", text, "Binding", None)

    def _not_bound(self, binding: Binding, error: ApiError | Unreachable, now_us: int) -> None:
        """Take the assumption back; the pod is tried again unless it is gone or bound by somebody else."""
        uid = binding.queued.uid
        info = self.state.pods.get(uid)
        if uid in self.state.assumed:
            for rows in self._rows.values():
                rows.forgot.append(uid)
            self.state.forget(uid)
            self._follower.unassumed(binding.pod, binding.node)
        if info is None or info.bound or isinstance(error, NotFound):
            self.queue.done(uid)
            return
        log.info("binding failed", pod=binding.queued.key, node=binding.node, error=str(error))
        self._error(binding.queued, info.pod, f"binding rejected: {error}", now_us)

    # --- not bound ---

    def _error(self, queued: QueuedPod, pod: Json, text: str, now_us: int) -> None:
        self.errors += 1
        self.queue.back(queued, (), now_us, error=True)
        self._tell(pod, "SchedulerError", text, None, 0)

    def _unschedulable(
        self, queued: QueuedPod, info: PodInfo, decision: Decision, number: int, now_us: int
    ) -> None:
        self.unschedulable += 1
        plugins = decision.diagnosis.plugins if decision.diagnosis is not None else ("NodeName",)
        if decision.nominated is not None:
            self.state.nominate(info.uid, decision.nominated)
        for pod in decision.cleared:
            self.state.nominate(pod.uid, "")
            self.writes.put(StatusWrite(pod.pod, "", "", "", number))
        self.queue.back(queued, plugins, now_us)
        if decision.victims:
            self._evict(info, decision, number)
        self._tell(info.pod, "Unschedulable", decision.text, decision.nominated, number)

    def _evict(self, info: PodInfo, decision: Decision, number: int) -> None:
        uid = info.uid
        self.queue.hold(uid)

        def done() -> None:
            self.queue.release(uid, self._now_us())
            self._wake_up()

        victims = tuple(victim.pod for victim in decision.victims)
        self.writes.put(Eviction(info.pod, decision.nominated or "", victims, number, done))

    def _tell(self, pod: Json, reason: str, text: str, nominated: str | None, number: int) -> None:
        """Event and condition of a pod that was not scheduled."""
        self.write_event(pod, "Warning", "FailedScheduling", texts.event_text(text), "Scheduling", None)
        write = StatusWrite(pod, reason, text, nominated, number)
        if not unchanged(pod, write):
            self.writes.put(write)

    def _hint(self, queued: QueuedPod, event: Any, hints: list[Any]) -> bool:
        info = self.state.pods.get(queued.uid)
        return info is None or any(hint(self.state, info, event) for hint in hints)
