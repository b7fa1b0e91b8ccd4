"""The gangs of a what-if: those of the record are followed as long as their pods fare as recorded, others are formed here.

    recorded     w-0 -> a, w-1 -> b, w-2 -> a        the same, one after the other, on the same nodes
    here         w-0 -> a, w-1 finds no node         w-0 is taken back; the gang is this world's own from there on

A gang of this world's own is tried as the scheduler tries it, when one of its pods comes up in the world's own queue: all
of its pods are free of the record then. Room is not kept for gangs that wait for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from kcp.machinery import meta
from kcp.replay.whatif.arrivals import Attempt
from kcp.replay.whatif.deciding import Made
from kcp.replay.whatif.slots import Slot
from kcp.scheduler import gang_cycle
from kcp.scheduler.binding import Binding
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import Answers, Decision
from kcp.scheduler.events import Follower
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.plugin_table import GANG_SCHEDULING
from kcp.scheduler.plugins.gang_scheduling import GangScheduling
from kcp.scheduler.plugins.volume_binding import Provision
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.pre_bind import Gang
from kcp.scheduler.profiles import Profile
from kcp.scheduler.queue import QueuedPod, SchedulingQueue
from kcp.scheduler.rows import effect_of

if TYPE_CHECKING:
    from kcp.replay.whatif.world import World

Json = dict[str, Any]
_NO_RESERVATIONS: Mapping[str, int] = {"reserveAfterSeconds": 0}


@attrs.define(eq=False)
class Trial:
    """A recorded trial that is being followed: its gang and its moment. `off`: a pod fared otherwise."""

    group: str
    at_us: int
    followed: list[Followed] = attrs.field(factory=list)
    off: bool = False

    def is_of(self, attempt: Attempt) -> bool:
        return (self.group, self.at_us) == (attempt.effect.get("gang"), attempt.ts_us)


@attrs.define(eq=False)
class Followed:
    """A decision of a trial that fared as recorded, and what came of it."""

    slot: Slot
    victims: list[Slot]


class Gangs:
    """Owned by the world. `follow` is told of every change."""

    def __init__(self, world: World) -> None:
        self.plugin = GangScheduling(world.state, _NO_RESERVATIONS)
        self.trial: Trial | None = None
        self._world = world
        self._host = _Host(world)

    def follow(self, resource: str, old: Json | None, new: Json | None) -> Iterable[str]:
        return self.plugin.follow(resource, old, new)

    def gate(self, pod: Json) -> tuple[str, str] | None:
        """What keeps a pod of this world's own queue out of it."""
        slot = self._world.slots.get(meta.uid(pod))
        why = self.plugin.gate(pod) if slot is not None and self._count(self._profile(slot)) else ""
        return (GANG_SCHEDULING, why) if why else None

    def _profile(self, slot: Slot) -> Profile | None:
        return self._world.profile_of(slot.life.scheduler, None)

    @staticmethod
    def _count(profile: Profile | None) -> bool:
        return profile is not None and GANG_SCHEDULING in profile.pre_enqueue

    # --- recorded attempts ---

    def takes(self, attempt: Attempt, slot: Slot, profile: Profile) -> bool:
        """Whether the recorded attempt means nothing here, since the pod's gang is this world's own."""
        if not self._count(profile):
            return False
        group = self.plugin.group(slot.uid)
        recorded = attempt.effect.get("gang", "")
        if recorded:
            if self.trial is None:
                self.trial = Trial(recorded, attempt.ts_us)
            if slot.free or not group:
                self._off()
            return self.trial.off
        if not group or slot.free or self.plugin.placed(group) >= self.plugin.minimum(group):
            return False
        self._set_free(group)
        return True

    def fares(self, slot: Slot, *, same: bool) -> bool:
        """One pod of a recorded trial was decided on. Returns whether the trial goes on as recorded."""
        if self.trial is None:
            return True
        if not same:
            self._off()
            return False
        self.trial.followed.append(Followed(slot, []))
        return True

    def evicted(self, victim: Slot) -> None:
        """As recorded, by the pod of the trial that was decided on last."""
        if self.trial is not None and self.trial.followed:
            self.trial.followed[-1].victims.append(victim)

    def end_trial(self, following: Attempt | None) -> None:
        """Something else comes next: those who were only tried are on no node."""
        trial = self.trial
        if trial is None or (following is not None and trial.is_of(following)):
            return
        self.trial = None
        for followed in trial.followed:
            slot = followed.slot
            if not slot.node and not slot.free and slot.uid in self._world.state.assumed:
                self._world.forget(slot)
        if trial.off:
            self._set_free(trial.group)
            self._world.try_own()

    def _off(self) -> None:
        """Take back what the trial had done so far."""
        trial = self.trial
        assert trial is not None
        trial.off = True
        for followed in reversed(trial.followed):
            slot = followed.slot
            self._world.forget(slot)
            if slot.node:
                slot.take_back()
            for victim in followed.victims:
                victim.goes_as_recorded = False
                victim.evictions -= 1
        trial.followed.clear()

    def _set_free(self, group: str) -> None:
        for info in self.plugin.members(group):
            slot = self._world.slots.get(info.uid)
            if slot is not None and not info.node and not slot.free:
                self._world.set_free(slot)

    # --- gangs of this world's own ---

    def try_own(self, queued: QueuedPod, slot: Slot) -> bool:
        """Try the gang of a pod that has come up; False when the pod is to be tried alone."""
        group = self.plugin.group(slot.uid) if self._count(self._profile(slot)) else ""
        if not group or self.plugin.placed(group) >= self.plugin.minimum(group):
            return False
        self._set_free(group)
        host = self._host
        batches = gang_cycle.attempt(host, self.plugin, group, queued, self._world.now_us)
        bound: list[tuple[Binding, list[Provision]]] = [(b, []) for batch in batches for b in batch]
        for gang in host.gangs_to_prepare:
            bound += gang
        host.gangs_to_prepare.clear()
        for binding, plans in bound:
            self._world.recorded.keep(plans, binding.node)
            self._world.bind_own(self._world.slots[binding.queued.uid], binding.node)
        gang_cycle.go_on(host, self.plugin)
        host.forgot.clear()
        return True


class Still:
    """Neither time passes nor is anything written."""

    def monotonic(self) -> float:
        return 0.0

    def put(self, write: Any) -> None:
        del write


class _Host:
    """What trying a gang asks of a scheduler, answered by the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.forgot: list[str] = []
        self.unschedulable = 0
        self.gangs_to_prepare: list[Gang] = []
        self.clock = self.writes = Still()

    @property
    def state(self) -> ClusterState:
        return self._world.state

    @property
    def queue(self) -> SchedulingQueue:
        return self._world.queue

    @property
    def follower(self) -> Follower:
        return self._world.follower

    def framework(self, info: PodInfo) -> Framework:
        found = self._world.framework_of(self._world.slots[info.uid], None)
        assert found is not None, "a pod without a profile is in no queue"
        return found

    def decide(self, queued: QueuedPod, info: PodInfo, now_us: int) -> Decision:
        del queued, now_us
        return self._world.decide_own(self.framework(info), info)

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
        del queued, info, decision, now_us, started_s, answers, extra
        self._world.decisions += 1
        return 0

    def rejected(
        self, queued: QueuedPod, info: PodInfo, decision: Decision, number: int, now_us: int
    ) -> None:
        del number, now_us
        self._world.refuse_own(self._world.slots[info.uid], effect_of(info, decision), queued)

    def error(self, queued: QueuedPod, pod: Json, text: str, now_us: int) -> None:
        self._world.slots[meta.uid(pod)].text = text
        self.queue.back(queued, (), now_us, error=True)

    def tell(self, pod: Json, reason: str, text: str, nominated: str | None, number: int) -> None:
        """A pod that waits for its gang."""
        del reason, nominated, number
        slot = self._world.slots[meta.uid(pod)]
        slot.text = text
        self._world.made.append(Made(slot.life.uid, "", (), self._world.now_us, text))
