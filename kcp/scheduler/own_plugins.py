"""The plugins of our own that need more than a decision: gangs, tenant queues, the guard against failing nodes.

They keep pods out of the queue, order it, follow the cluster and wait for time. A scheduler whose configuration names none
of them has no `OwnPlugins` at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kcp.client.client import Client
from kcp.machinery import meta
from kcp.scheduler import gang_cycle
from kcp.scheduler.cluster_state import POD_GROUPS, ClusterState
from kcp.scheduler.cycle import Decision
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.framework.status import event_text
from kcp.scheduler.gates import Gates, PreEnqueue
from kcp.scheduler.plugin_table import GANG_SCHEDULING, NODE_FAILURE_GUARD, TENANT_QUEUE
from kcp.scheduler.plugins import guard_memory
from kcp.scheduler.plugins.gang_scheduling import GangScheduling
from kcp.scheduler.plugins.node_failure_guard import NodeFailureGuard, parse_guard
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.profiles import Configuration, Profile
from kcp.scheduler.queue import QueuedPod
from kcp.scheduler.tenant_order import TenantOrder
from kcp.scheduler.writes import Memory

if TYPE_CHECKING:
    from kcp.scheduler.scheduler import Scheduler

Json = dict[str, Any]


def own_plugins(
    configuration: Configuration,
    state: ClusterState,
    frameworks: Mapping[str, Framework],
    now_us: Callable[[], int],
) -> OwnPlugins | None:
    """None when no profile has any."""
    made = OwnPlugins(configuration, state, frameworks, now_us)
    return made if made.any else None


class OwnPlugins:
    """Owned by the scheduler's task."""

    def __init__(
        self,
        configuration: Configuration,
        state: ClusterState,
        frameworks: Mapping[str, Framework],
        now_us: Callable[[], int],
    ) -> None:
        self._state = state
        self._scheduler = configuration.profiles[0].name
        self.gangs = _gangs(configuration, state)
        self.guard = _guard(configuration, state, now_us)
        self.order = _order(configuration, state, frameworks)
        """What the active queue is ordered by, if not by priority and time alone."""
        self.gates = Gates(
            {profile.name: self._gating(profile) for profile in configuration.profiles}, now_us
        )
        self.resources: tuple[str, ...] = (POD_GROUPS,) if self.gangs is not None else ()
        """What is to be followed beside what every scheduler follows."""

    @property
    def any(self) -> bool:
        return self.gangs is not None or self.order is not None or self.guard is not None

    def _gating(self, profile: Profile) -> tuple[PreEnqueue, ...]:
        found: tuple[PreEnqueue, ...] = ()
        if self.gangs is not None and GANG_SCHEDULING in profile.pre_enqueue:
            found += (self.gangs,)
        if self.guard is not None and NODE_FAILURE_GUARD in profile.pre_enqueue:
            found += (self.guard,)
        return found

    def follow(self, resource: str, old: Json | None, new: Json | None) -> Iterable[str]:
        """The state took a change. Returns the pods that may not have to be kept out any more."""
        if self.guard is not None:
            self.guard.follow(resource, old, new)
        if resource == "pods" and new is None and old is not None:
            self._state.evicting.pop(meta.uid(old), None)
            self.gates.forget(meta.uid(old))
        return self.gangs.follow(resource, old, new) if self.gangs is not None else ()

    def takes(self, scheduler: Scheduler, queued: QueuedPod, info: PodInfo, now_us: int) -> bool:
        """Whether the pod that has come up is dealt with: held after all, or tried with its gang."""
        scheduler.state.evicting.pop(info.uid, None)
        if self._holds(info.pod):
            scheduler.queue.keep_out(queued)
            return True
        group = self.gangs.group(queued.uid) if self.gangs is not None else ""
        if self.gangs is None or not group:
            return False
        if group in self.gangs.committing:
            self.gangs.committing[group].waiting.append(queued)
            return True
        if self.gangs.placed(group) >= self.gangs.minimum(group):
            return False
        scheduler.gangs += gang_cycle.attempt(scheduler, self.gangs, group, queued, now_us)
        return True

    def _holds(self, pod: Json) -> bool:
        guard = self.guard
        if guard is None:
            return False
        if guard.counts_placements:
            guard.refresh()
        return bool(guard.held) and self.gates(pod) is not None

    def evicts(self, state: ClusterState, info: PodInfo, decision: Decision) -> str:
        """Victims are chosen. Returns who evicts, as their Events say it; "" for the pod itself."""
        if self.order is not None:
            state.evicting[info.uid] = tuple(victim.uid for victim in decision.victims)
        return gang_cycle.preemptor_of(self.gangs, info.pod) if self.gangs is not None else ""

    async def recall(self, client: Client) -> None:
        """What must be known before anything is decided. The caches stand."""
        if self.guard is not None:
            self.guard.recall(await guard_memory.read(client))

    def due_us(self) -> list[int]:
        """When there is something to do next."""
        ends = self.gangs.reservation_ends_us() if self.gangs is not None else None
        guard = self.guard.due_us() if self.guard is not None else None
        return [us for us in (self.gates.due_us(), ends, guard) if us is not None]

    def tick(self, scheduler: Scheduler, now_us: int) -> None:
        """Let time pass."""
        if self.gangs is not None:
            gang_cycle.go_on(scheduler, self.gangs)
            ends_us = self.gangs.reservation_ends_us()
            if ends_us is not None and ends_us <= now_us:
                gang_cycle.end_reservation(scheduler, self.gangs, now_us)
        if self.guard is not None:
            freed = self.guard.tick(now_us)
            scheduler.queue.recheck(self.guard.held_pods(freed), now_us)
            if self.guard.untold:
                memory = guard_memory.config_map(self.guard.records())
                scheduler.writes.put(Memory(memory, self._scheduler))
        for uid in self.gates.due(now_us):
            self._say_why(scheduler, uid)

    def _say_why(self, scheduler: Scheduler, uid: str) -> None:
        queued, info = scheduler.queue.pods.get(uid), scheduler.state.pods.get(uid)
        if queued is None or info is None or queued.place != "gated" or not queued.why:
            self.gates.forget(uid)
            return
        scheduler.tell(info.pod, "SchedulingGated", event_text(queued.why), None, 0)


def _order(
    configuration: Configuration, state: ClusterState, frameworks: Mapping[str, Framework]
) -> TenantOrder | None:
    """One for all profiles, since they share the queue."""
    profile = next((p for p in configuration.profiles if p.queue_sort == TENANT_QUEUE), None)
    if profile is None:
        return None
    tenants = frameworks[profile.name].plugins.tenants.tenants
    return TenantOrder(tenants, lambda uid: tenants.queue_of(state.pods[uid].cls))


def _guard(
    configuration: Configuration, state: ClusterState, now_us: Callable[[], int]
) -> NodeFailureGuard | None:
    """One for all profiles; the first profile's arguments hold."""
    named = (p for p in configuration.profiles if NODE_FAILURE_GUARD in p.enabled + p.pre_enqueue)
    profile = next(named, None)
    if profile is None:
        return None
    return NodeFailureGuard(state, parse_guard(profile.args.get(NODE_FAILURE_GUARD) or {}), now_us)


def _gangs(configuration: Configuration, state: ClusterState) -> GangScheduling | None:
    """One for all profiles, since a gang's pods may be counted by none else; the first profile's arguments hold."""
    profile = next((p for p in configuration.profiles if GANG_SCHEDULING in p.pre_enqueue), None)
    return None if profile is None else GangScheduling(state, profile.args.get(GANG_SCHEDULING) or {})
