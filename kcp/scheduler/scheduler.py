"""The scheduler: follows the cluster, decides one pod after the other, commits bindings in batches.

    scheduler = Scheduler(client, informers, clock, sink, write_event, seed=7)
    await scheduler.run()

Informer changes go straight into the cluster state and the queue, in the step in which the informers moved, so the state
stands exactly at the informers' revisions. Deciding never waits; while one batch of bindings commits, the next is decided.
"""

from __future__ import annotations

from collections import deque
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
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, NotFound
from kcp.machinery.times import format_time
from kcp.scheduler import profiles
from kcp.scheduler.binding import Binding, commit
from kcp.scheduler.cluster_state import RESOURCES, ClusterState
from kcp.scheduler.consultation import Said, answers_for, ask, ask_about_victims
from kcp.scheduler.cycle import Answers, Decision, decide, feasible_names
from kcp.scheduler.dra.binding import claims_to_bind
from kcp.scheduler.dra.claims import ClaimGate, has_claims
from kcp.scheduler.dra.devices import CLAIMS
from kcp.scheduler.events import Follower
from kcp.scheduler.extender import Extender, ExtenderCalls, ExtenderFailed, interested
from kcp.scheduler.framework import status as texts
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.framework.user_plugin import PluginFailed
from kcp.scheduler.hints import waits_for
from kcp.scheduler.metrics import Measured
from kcp.scheduler.own_plugins import OwnPlugins, own_plugins
from kcp.scheduler.plugins.volume_binding import Provision, plans_for
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.pre_bind import Gang, Tools, bind_gang, bind_prepared
from kcp.scheduler.preemption import NAME as PREEMPTION
from kcp.scheduler.profiles import Configuration
from kcp.scheduler.queue import QueuedPod, SchedulingQueue
from kcp.scheduler.rows import Decided, DecisionSink, Rows, code_digest, effect_of
from kcp.scheduler.unclaimed import text_for
from kcp.scheduler.volumes import BIND_TIMEOUT_S, reserve
from kcp.scheduler.writes import Deallocation, EventWriter, Eviction, StatusWrite, Writes, unchanged

Json = dict[str, Any]
log = structlog.get_logger()

SYNC_TIMEOUT_S = 600.0
BATCH = 256
"""Decisions that are committed together at most."""
BATCHES_UNDER_WAY = 2
ATTEMPTS_PER_STEP = 256
"""Attempts after which other tasks get their turn, bound or not."""
CONSULTATIONS = 64
"""Pods about which extenders are asked at the same time at most. Others are decided meanwhile."""


def _as_counted(info: PodInfo, attempts: int) -> int:
    del info
    return attempts


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
    measured: Measured = attrs.field(factory=Measured)
    state: ClusterState = attrs.field(factory=ClusterState, init=False)
    queue: SchedulingQueue = attrs.field(init=False)
    frameworks: dict[str, Framework] = attrs.field(factory=dict, init=False)
    attempts: int = attrs.field(default=0, init=False)
    numbering: Callable[[PodInfo, int], int] = attrs.field(default=_as_counted, init=False)
    """Which cycle an attempt at a pod is, by the count of all attempts: the number decides between equal nodes."""
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
    with_volumes: list[tuple[Binding, list[Provision]]] = attrs.field(factory=list, init=False)
    gangs: list[list[Binding]] = attrs.field(factory=list, init=False)
    gangs_to_prepare: list[Gang] = attrs.field(factory=list, init=False)
    _calls: ExtenderCalls = attrs.field(factory=ExtenderCalls, init=False)
    _to_consult: deque[QueuedPod] = attrs.field(factory=deque, init=False)
    _consulting: int = attrs.field(default=0, init=False)
    _committing: int = attrs.field(default=0, init=False)
    _running: bool = attrs.field(default=False, init=False)
    forgot: list[str] = attrs.field(factory=list, init=False)
    """Assumptions that were taken back, until the next row tells it."""
    own: OwnPlugins | None = attrs.field(init=False)
    _claim_gate: ClaimGate = attrs.field(init=False)
    _tools: Tools = attrs.field(init=False)
    follower: Follower = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        for profile in self.configuration.profiles:
            self.frameworks[profile.name] = profiles.build(self.state, profile)
            self._rows[profile.name] = Rows(self.recorded.get(profile.name, 0), forgot=self.forgot)
            self._hashes[profile.name] = profiles.config_digest(profile)
        self._code_hash = code_digest()
        self.writes = Writes(self.client, self.clock, self.write_event)
        self._claim_gate = ClaimGate(self.state)
        self._tools = Tools(
            self.client, self.state, self.write_event, lambda: self._storage,
            lambda: format_time(self.clock.now()), self._volumes_timeout_s, self.measured.created_claim,
        )  # fmt: skip
        self.own = own = own_plugins(self.configuration, self.state, self.frameworks, self._now_us)
        self.queue = SchedulingQueue(
            self._hint,
            self.configuration.initial_backoff_s,
            self.configuration.max_backoff_s,
            self._gate,
            own.order if own is not None else None,
            self.measured.came,
        )
        self.follower = Follower(
            self.state, self.queue, frozenset(self.frameworks), self._now_us, self._wake_up, own
        )
        for resource in (*RESOURCES, *(own.resources if own is not None else ())):
            informer = self.watched[resource] = self.informers.informer(resource)
            informer.add_handler(partial(self.follower.follow, resource))
        self.watched["persistentvolumeclaims"].add_handler(self._storage_changed)
        self.watched[CLAIMS].add_handler(self._storage_changed)
        self.watched[CLAIMS].add_handler(self._claim_changed)

    async def run(self) -> None:
        """Wait for the caches, however long it takes, then schedule until cancelled."""
        for resource, informer in self.watched.items():
            while not await informer.wait_for_sync(SYNC_TIMEOUT_S):
                log.warning("cache does not fill", resource=resource)
        if self.own is not None:
            await self.own.recall(self.client)
        self._start_anew()
        self._running = True
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self.writes.run)
                await self._schedule_forever(group)
        finally:
            self._running = False
            with anyio.CancelScope(shield=True):
                await self._calls.close()

    def _start_anew(self) -> None:
        """What an earlier run left under way counts for nothing: only the log says what is bound."""
        for rows in self._rows.values():
            rows.fresh = True
        for uid in list(self.state.assumed):
            self.state.forget(uid)
        self.state.reserved.clear()
        self.state.selecting.clear()
        self.state.devices.set_under_way({})
        self.with_volumes, self.gangs_to_prepare = [], []
        self.gangs = []
        self.writes = Writes(self.client, self.clock, self.write_event)
        self._calls = ExtenderCalls()
        self._to_consult.clear()
        self._consulting = self._committing = 0
        self.queue.land_all(self._now_us())

    async def _schedule_forever(self, group: TaskGroup) -> None:
        under_way = anyio.Semaphore(BATCHES_UNDER_WAY)
        while True:
            self._wake = anyio.Event()
            self.queue.tick(self._now_us())
            if self.own is not None:
                self.own.tick(self, self._now_us())
            self._mention_unclaimed()
            batch, more = self._decide_some()
            self._consult_some(group)
            for binding, plans in self.with_volumes:
                group.start_soon(self._bind_prepared, binding, plans)
            for gang in self.gangs_to_prepare:
                group.start_soon(self._bind_gang, gang)
            self.with_volumes, self.gangs_to_prepare = [], []
            for together in (*self.gangs, batch):
                if together:
                    await under_way.acquire()
                    group.start_soon(self._commit, together, under_way)
            if batch or more or self.gangs:
                self.gangs = []
                await anyio.sleep(0)
            else:
                await self._wait()

    async def _wait(self) -> None:
        due = [us for us in (self.queue.due_us(), self.follower.unclaimed.due_us()) if us is not None]
        if self.own is not None:
            due += self.own.due_us()
        if not due:
            await self._wake.wait()
            return
        with anyio.move_on_after(max(0.0, (min(due) - self._now_us()) / 1e6)):
            await self._wake.wait()

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each profile has written, those before this start included."""
        return {name: rows.written for name, rows in self._rows.items()}

    @property
    def busy(self) -> bool:
        """Whether pods wait for an attempt that could be made now, or bindings are on their way into the log."""
        return self._running and (self._committing > 0 or self.queue.has_active)

    def _gate(self, pod: Json) -> tuple[str, str] | None:
        """What keeps a pod out of the active queue."""
        if has_claims(pod) and self._allocates(pod):
            why = self._claim_gate.gate(pod)
            if why:
                return self._claim_gate.name, why
        return self.own.gates(pod) if self.own is not None else None

    def _allocates(self, pod: Json) -> bool:
        framework = self.frameworks.get(pod["spec"].get("schedulerName") or profiles.DEFAULT_NAME)
        return framework is not None and framework.plugins.devices is not None

    def _claim_changed(self, old: Json | None, new: Json | None) -> None:
        """Pods that waited for a claim to be there may be tried."""
        if new is not None:
            self.queue.recheck(self._claim_gate.waiting_for(meta.key_of(new)), self._now_us())

    def _wake_up(self) -> None:
        self._wake.set()

    def _now_us(self) -> int:
        return microseconds(self.clock.now())

    def _mention_unclaimed(self) -> None:
        for pod in self.follower.unclaimed.due(self._now_us()):
            text = text_for(pod, list(self.frameworks))
            self.write_event(pod, "Warning", "FailedScheduling", text, "Scheduling", None)

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
        if self.own is not None and self.own.takes(self, queued, info, now_us):
            return None
        return self.attempt_alone(queued, info, now_us)

    def attempt_alone(self, queued: QueuedPod, info: PodInfo, now_us: int) -> Binding | None:
        if self.configuration.extenders and interested(self.configuration.extenders, info.pod):
            self._to_consult.append(queued)
            return None
        started_s = queued.started_s = self.clock.monotonic()
        decision = self.decide(queued, info, now_us)
        return None if decision is None else self._take(queued, info, decision, now_us, started_s)

    def framework(self, info: PodInfo) -> Framework:
        return self.frameworks[info.pod["spec"].get("schedulerName") or profiles.DEFAULT_NAME]

    def decide(
        self, queued: QueuedPod, info: PodInfo, now_us: int, answers: Answers | None = None
    ) -> Decision | None:
        """None when deciding failed; the pod is back in the queue then."""
        self.attempts += 1
        try:
            cycle = self.numbering(info, self.attempts)
            return decide(self.framework(info), info, cycle=cycle, seed=self.seed, answers=answers)
        except PluginFailed as failure:
            self.error(queued, info.pod, str(failure), now_us)
        except Exception as bug:
            log.exception("scheduling failed", pod=info.key, cycle=self.attempts)
            self.error(queued, info.pod, repr(bug), now_us)
        return None

    def _take(
        self,
        queued: QueuedPod,
        info: PodInfo,
        decision: Decision,
        now_us: int,
        started_s: float,
        answers: Answers | None = None,
    ) -> Binding | None:
        """Record the decision and act on it. None: there is no binding that only needs to be committed."""
        framework = self.framework(info)
        number = self.record(queued, info, decision, now_us, started_s, answers)
        if decision.node:
            plans = plans_for(Cycle(self.state, info, framework), self.state.nodes[decision.node])
            self.state.assume(info.uid, decision.node)
            claims = claims_to_bind(self.state, info, decision.node, decision.allocations)
            self.state.devices.take(info.uid, decision.allocations)
            binding = Binding(queued, info.pod, decision.node, number, claims=claims)
            if not plans and not claims:
                return binding
            reserve(self.state, plans, decision.node)
            self.with_volumes.append((binding, plans))
            return None
        self.rejected(queued, info, decision, number, now_us)
        return None

    def record(
        self,
        queued: QueuedPod,
        info: PodInfo,
        decision: Decision,
        now_us: int,
        started_s: float,
        answers: Answers | None,
        extra: Json | None = None,
    ) -> int:
        """Written before the binding is asked for, so both ride in the same batch of the log. `extra` goes into the effect."""
        profile = self.framework(info).name
        rows, number = self._rows[profile], self.sink.next_id()
        frontier = rows.frontier({resource: informer.rv for resource, informer in self.watched.items()})
        effect = effect_of(info, decision)
        effect.update(rows.context(frontier, self.state))
        if answers is not None:
            effect["extenders"] = answers.document()
        if extra is not None:
            effect.update(extra)
        took_s = self.clock.monotonic() - started_s
        self.measured.algorithm.observe(took_s)
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
                duration_us=int(took_s * 1e6),
            )
        )
        return number

    # --- pods that extenders care about ---

    def _consult_some(self, group: TaskGroup) -> None:
        while self._to_consult and self._consulting < CONSULTATIONS:
            self._consulting += 1
            group.start_soon(self._consult, self._to_consult.popleft())

    async def _consult(self, queued: QueuedPod) -> None:
        try:
            binding = await self._decide_with_extenders(queued)
            if binding is not None:
                await self._bind_extended(binding)
        except ExtenderFailed as error:
            self._not_consulted(queued, str(error))
        except Exception as bug:
            log.exception("scheduling failed", pod=queued.key)
            self._not_consulted(queued, repr(bug))
        finally:
            self._consulting -= 1
            self._wake_up()

    def _not_consulted(self, queued: QueuedPod, why: str) -> None:
        info = self._still_waiting(queued)
        if info is not None:
            self.error(queued, info.pod, why, self._now_us())

    def _still_waiting(self, queued: QueuedPod) -> PodInfo | None:
        """None when the pod went, or ran, while extenders were being asked."""
        info = self.state.pods.get(queued.uid)
        if info is None or info.node:
            self.queue.done(queued.uid)
            return None
        return info

    async def _decide_with_extenders(self, queued: QueuedPod) -> Binding | None:
        info = self._still_waiting(queued)
        if info is None:
            return None
        extenders = interested(self.configuration.extenders, info.pod)
        started_s = queued.started_s = self.clock.monotonic()
        nodes = {name: self.state.nodes[name].node or {} for name in self._feasible(info)}
        said = await ask(self._calls, extenders, info.pod, nodes) if nodes else Said({})
        found = self._with_answers(queued, said, None)
        if found is None:
            return None
        info, decision, answers = found
        preemptors = [extender for extender in extenders if extender.preempt_verb]
        if decision.candidates and preemptors:
            left = await self._ask_about(preemptors, info, decision)
            found = self._with_answers(queued, said, left)
            if found is None:
                return None
            info, decision, answers = found
        return self._take(queued, info, decision, self._now_us(), started_s, answers)

    def _feasible(self, info: PodInfo) -> list[str]:
        try:
            return feasible_names(self.framework(info), info, cycle=self.attempts + 1, seed=self.seed)
        except PluginFailed as failure:
            raise ExtenderFailed(str(failure)) from failure

    def _with_answers(
        self, queued: QueuedPod, said: Said, victims: Mapping[str, Any] | None
    ) -> tuple[PodInfo, Decision, Answers] | None:
        info = self._still_waiting(queued)
        if info is None:
            return None
        answers = answers_for(said, self._feasible(info), victims)
        decision = self.decide(queued, info, self._now_us(), answers)
        return None if decision is None else (info, decision, answers)

    async def _ask_about(
        self, extenders: list[Extender], info: PodInfo, decision: Decision
    ) -> dict[str, tuple[list[str], int]]:
        infos = self.state.infos
        victims = {
            infos[c.index].name: ([v.pod for v in c.victims], c.pdb_violations) for c in decision.candidates
        }
        return await ask_about_victims(self._calls, extenders, info.pod, victims)

    async def _bind_extended(self, binding: Binding) -> None:
        """Through the extender that binds, if one does."""
        error = await self._bound_by_extender(binding)
        if error is None:
            self._scheduled(binding)
        else:
            self._not_bound(binding, error, self._now_us())

    async def _bound_by_extender(self, binding: Binding) -> ApiError | Unreachable | None:
        for extender in interested(self.configuration.extenders, binding.pod):
            if extender.bind_verb:
                try:
                    await self._calls.bind(extender, binding.pod, binding.node)
                except ExtenderFailed as failure:
                    return ApiError(str(failure))
                return None
        (error,) = await commit(self.client, [binding])
        return error

    # --- bound ---

    async def _commit(self, batch: list[Binding], under_way: anyio.Semaphore) -> None:
        self._committing += 1
        try:
            outcomes = await commit(self.client, batch)
            now_us = self._now_us()
            for binding, error in zip(batch, outcomes, strict=True):
                if error is None:
                    self._scheduled(binding)
                else:
                    self._not_bound(binding, error, now_us)
        finally:
            self._committing -= 1
            under_way.release()
            self._wake_up()

    async def _bind_prepared(self, binding: Binding, plans: list[Provision]) -> None:
        """The slow way into the log: first the pod's claims, of volumes and of devices, then the pod."""
        error = await bind_prepared(self._tools, binding, plans, self._bound_by_extender)
        if error is None:
            self._scheduled(binding)
        else:
            self._not_bound(binding, error, self._now_us())
        self._wake_up()

    async def _bind_gang(self, gang: Gang) -> None:
        """The same for a gang: all of it is prepared before any of it is bound."""
        outcomes = await bind_gang(self._tools, gang)
        now_us = self._now_us()
        for (binding, _), error in zip(gang, outcomes, strict=True):
            if error is None:
                self._scheduled(binding)
            else:
                self._not_bound(binding, error, now_us)
        self._wake_up()

    def _volumes_timeout_s(self, pod: Json) -> float:
        name = pod["spec"].get("schedulerName") or profiles.DEFAULT_NAME
        given = (self.configuration.profile(name).args.get("VolumeBinding") or {}).get("bindTimeoutSeconds")
        return BIND_TIMEOUT_S if given is None else float(given)

    def _storage_changed(self, old: Json | None, new: Json | None) -> None:
        self._storage.set()
        self._storage = anyio.Event()

    def _scheduled(self, binding: Binding) -> None:
        self.bound += 1
        self.measured.scheduled(binding.queued, self.clock.monotonic(), self._now_us())
        self.queue.done(binding.queued.uid)
        text = f"Successfully assigned {binding.queued.key} to {binding.node}"
        self.write_event(binding.pod, "Normal", "Scheduled", text, "Binding", None)

    def _not_bound(self, binding: Binding, error: ApiError | Unreachable, now_us: int) -> None:
        """Take the assumption back; the pod is tried again unless it is gone or bound by somebody else."""
        uid = binding.queued.uid
        info = self.state.pods.get(uid)
        if uid in self.state.assumed:
            self.forgot.append(uid)
            self.state.forget(uid)
            self.follower.unassumed(binding.pod, binding.node)
        if info is None or info.bound or (isinstance(error, NotFound) and not binding.gang):
            self.queue.done(uid)
            return
        log.info("binding failed", pod=binding.queued.key, node=binding.node, error=str(error))
        self.error(binding.queued, info.pod, f"binding rejected: {error}", now_us)

    # --- not bound ---

    def error(self, queued: QueuedPod, pod: Json, text: str, now_us: int) -> None:
        self.errors += 1
        self.measured.failed("error", queued, self.clock.monotonic())
        self.queue.back(queued, (), now_us, error=True)
        self.tell(pod, "SchedulerError", text, None, 0)

    def rejected(
        self, queued: QueuedPod, info: PodInfo, decision: Decision, number: int, now_us: int
    ) -> None:
        self.unschedulable += 1
        self.measured.failed("unschedulable", queued, self.clock.monotonic())
        if decision.diagnosis is not None and PREEMPTION in self.framework(info).plugins.post_filters:
            self.measured.preemptions += 1
        plugins = decision.diagnosis.plugins if decision.diagnosis is not None else ("NodeName",)
        if decision.nominated is not None:
            self.state.nominate(info.uid, decision.nominated)
        for pod in decision.cleared:
            self.state.nominate(pod.uid, "")
            self.writes.put(StatusWrite(pod.pod, "", "", "", number))
        self.queue.back(queued, [waits_for(plugin) for plugin in plugins], now_us)
        if decision.deallocated:
            self.writes.put(Deallocation(self.state.objects[CLAIMS][decision.deallocated], number))
        if decision.victims:
            self._evict(info, decision, number)
        self.tell(info.pod, "Unschedulable", decision.text, decision.nominated, number)

    def _evict(self, info: PodInfo, decision: Decision, number: int) -> None:
        uid = info.uid
        self.measured.victims.observe(len(decision.victims))
        self.queue.hold(uid)

        def done() -> None:
            self.queue.release(uid, self._now_us())
            self._wake_up()

        victims = tuple(victim.pod for victim in decision.victims)
        by = self.own.evicts(self.state, info, decision) if self.own is not None else ""
        self.writes.put(Eviction(info.pod, decision.nominated or "", victims, number, done, by))

    def tell(self, pod: Json, reason: str, text: str, nominated: str | None, number: int) -> None:
        """Event and condition of a pod that was not scheduled."""
        self.write_event(pod, "Warning", "FailedScheduling", texts.event_text(text), "Scheduling", None)
        write = StatusWrite(pod, reason, text, nominated, number)
        if not unchanged(pod, write):
            self.writes.put(write)

    def _hint(self, queued: QueuedPod, event: Any, hints: list[Any]) -> bool:
        info = self.state.pods.get(queued.uid)
        return info is None or any(hint(self.state, info, event) for hint in hints)
