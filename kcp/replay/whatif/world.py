"""A cluster in which the arrivals of a log meet a scheduler: the recorded one, or another.

    world = World(arrivals, decide_by(configuration))            # of `deciding`
    world.start()
    for item in arrivals.items:
        world.meet(item)
    world.end()

A recorded attempt is made here at the same point of the log, with the same cycle and seed, as long as its pod has fared as
recorded: so the same configuration gives the same decisions, whatever the delays of then. A pod that fares otherwise (another
node, another refusal, room that was not there then) is free of the record: a scheduling queue of this world says when it is
tried, by the same hints and backoffs as in production. Among nodes with the best score the recorded one is taken.

    recorded     web -> b      big refused            big -> c (a pod went)
    here         web -> a      big refused otherwise  ...big is woken by what happens here
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

from kcp.apis.semantics import affinity, pods, taints
from kcp.machinery import meta
from kcp.replay.whatif.arrivals import Arrivals, Attempt, Change, Item, Life
from kcp.replay.whatif.deciding import Made, ProfileOf, like_recorded
from kcp.replay.whatif.gangs import Gangs
from kcp.replay.whatif.machines import Machines
from kcp.replay.whatif.measures import Meter
from kcp.replay.whatif.recorded import Recorded
from kcp.replay.whatif.slots import Slot
from kcp.scheduler import profiles
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import Answers, Decision, decide
from kcp.scheduler.dra.devices import CLAIMS
from kcp.scheduler.dra.extended import is_special, owner_of, special_key
from kcp.scheduler.events import Follower
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.hints import ClusterEvent, interested, waits_for
from kcp.scheduler.plugin_table import GANG_SCHEDULING
from kcp.scheduler.plugins.volume_binding import plans_for
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.profiles import Configuration, Profile
from kcp.scheduler.queue import QueuedPod, SchedulingQueue
from kcp.scheduler.rows import effect_of
from kcp.scheduler.volumes import reserve
from kcp.store import protocol

Json = dict[str, Any]
FIRST_OWN_CYCLE = 1 << 40
"""Attempts that the log does not have are numbered from here."""
ORPHANED_US = 40_000_000
"""How long a node must be gone before its pods are. Source: k8s v1.36 pkg/controller/podgc (quarantineTime)."""
GANG_WAITS = "its gang does not fit as a whole"
_SAME = ("kind", "node", "text", "nominated", "victims", "cleared")


def _is_same(effect: Json, recorded: Json) -> bool:
    return all(effect.get(part) == recorded.get(part) for part in _SAME)


class _Queue(SchedulingQueue):
    """Also tells the world of each event."""

    def __init__(self, world: World, configuration: Configuration) -> None:
        super().__init__(
            world.hinted, configuration.initial_backoff_s, configuration.max_backoff_s, world.gangs.gate
        )
        self._world = world

    def move(self, event: ClusterEvent, now_us: int) -> None:
        super().move(event, now_us)
        self._world.heard(event)


class World:
    """Feed it the items in order. `made` has the decisions since it was last emptied; `slots` also knows later pods' uids.

    One that `follows` takes the recorded decisions. `typical` amounts are those of one more pod that nodes may have room for.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        profile_of: ProfileOf,
        *,
        follows: bool = False,
        machines: Machines | None = None,
        typical: Mapping[str, int] | None = None,
        backoffs: Configuration | None = None,
    ) -> None:
        self.arrivals = arrivals
        self.state = ClusterState()
        self.slots: dict[str, Slot] = {}
        self.made: list[Made] = []
        self.decisions = self.preemptions = self.left_out = 0
        self.machines = machines or Machines()
        self.meter = Meter(self.state, arrivals.start_us, arrivals.end_us, dict(typical or {}))
        self.now_us = arrivals.start_us
        self.profile_of = profile_of
        self._follows = follows
        self._frameworks: dict[int, tuple[Profile, Framework]] = {}
        self.gangs = Gangs(self)
        self.queue = _Queue(self, backoffs or Configuration())
        self.follower = Follower(
            self.state, self.queue, frozenset(), lambda: self.now_us, lambda: None, self.gangs
        )
        self._parked: dict[str, dict[str, Slot]] = {}
        self._timers: list[tuple[int, int, int, Slot, Callable[[Slot], None]]] = []
        self._ready_machines: set[str] = set()
        self.recorded = Recorded(self.state, self.slots)
        self._timer_number = self._own_cycles = self._seed = 0
        self._own = False

    # --- the course of things ---

    def start(self) -> None:
        for node in self.machines.at_start:
            self._tell("nodes", None, node)
        for resource, obj in self.arrivals.base:
            self._change(Change(self.arrivals.first_rv, self.now_us, resource, None, obj))
        for uid, name in self.arrivals.assumed.items():
            if uid in self.state.pods and not self.slots[uid].node:
                self.slots[uid].put(name, self.now_us)
                self.state.assume(uid, name)
        self.try_own()

    def meet(self, item: Item) -> None:
        self.gangs.end_trial(item if isinstance(item, Attempt) else None)
        self._pass_to(item.ts_us)
        if isinstance(item, Change):
            self._change(item)
        else:
            self._attempt(item)
        self.try_own()

    def end(self) -> None:
        self.gangs.end_trial(None)
        self._pass_to(self.arrivals.end_us)

    def _pass_to(self, until_us: int) -> None:
        """Let time pass: what is due by then happens."""
        while (due_us := self._due_us()) is not None and due_us <= until_us:
            self._clock(due_us)
            if self._timers and self._timers[0][0] <= self.now_us:
                _, _, generation, slot, act = heapq.heappop(self._timers)
                if slot.shown is not None and slot.generation == generation:
                    act(slot)
            self.try_own()
        self._clock(until_us)

    def _clock(self, now_us: int) -> None:
        if now_us > self.now_us:
            self.meter.pass_to(now_us)
            self.now_us = now_us

    def _due_us(self) -> int | None:
        timer = self._timers[0][0] if self._timers else None
        queue = self.queue.due_us() if len(self.queue) else None
        due = [max(us, self.now_us + (us == queue)) for us in (timer, queue) if us is not None]
        return min(due, default=None)

    def _at(self, due_us: int, slot: Slot, act: Callable[[Slot], None]) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (due_us, self._timer_number, slot.generation, slot, act))

    # --- changes of the log ---

    def _change(self, change: Change) -> None:
        if change.resource == "pods":
            self._pod(change)
        elif change.resource == "nodes":
            for old, new in self.machines.versions(change, self._ready_machines):
                self._node(old, new, own=(new or old) is not change.object)
        elif not self._is_made_otherwise(change):
            self._tell(change.resource, change.old, change.new)

    def _is_made_otherwise(self, change: Change) -> bool:
        """The claim of a pod's extended resources: one that does not fare as recorded has its own."""
        if change.resource != CLAIMS or not is_special(change.object):
            return False
        slot = self.slots.get(owner_of(change.object))
        return slot is not None and slot.free

    def _tell(self, resource: str, old: Json | None, new: Json | None, *, own: bool = False) -> None:
        """State and queue hear of it; `own`: the log does not have it."""
        self._own = own
        self.follower.follow(resource, old, new)

    def _node(self, old: Json | None, new: Json | None, *, own: bool) -> None:
        self._tell("nodes", old, new, own=own)
        name = meta.name(new if new is not None else old or {})
        for slot in self._made_here(name):
            if new is None:
                self._at(self.now_us + ORPHANED_US, slot, self._go_if_lost)
            else:
                self._stay_or_go(slot, taints.taints(new))

    def _made_here(self, node: str) -> list[Slot]:
        """The pods on a node that do not fare as recorded."""
        info = self.state.nodes.get(node)
        there = [self.slots[uid] for uid in info.pods if uid in self.slots] if info is not None else []
        return [slot for slot in there if slot.free]

    def _stay_or_go(self, slot: Slot, on_node: list[Json]) -> None:
        seconds = taints.min_toleration_s(on_node, taints.tolerations(slot.log))
        if seconds is not None:
            self._at(self.now_us + int(seconds * 1e6), slot, self._go_if_tainted)

    def _go_if_lost(self, slot: Slot) -> None:
        info = self.state.nodes.get(slot.node)
        if info is None or info.node is None:
            self._displace(slot)

    def _go_if_tainted(self, slot: Slot) -> None:
        info = self.state.nodes.get(slot.node)
        if (
            info is not None
            and taints.min_toleration_s(info.taints, taints.tolerations(slot.log)) is not None
        ):
            self._displace(slot)

    # --- pods of the log ---

    def _pod(self, change: Change) -> None:
        slot = self.slots.get(meta.uid(change.object))
        if slot is None:
            if change.old is None and change.new is not None:
                self._come(change.new)
        elif change.new is not None:
            self._follow(slot, change.new)
        else:
            self._leave(slot)

    def _come(self, pod: Json) -> None:
        life = self.arrivals.lives[meta.uid(pod)]
        before = self.slots.get(life.replaces)
        if before is not None and not before.left:
            self._need_not_replace(before, life, pod)
            return
        if self._belongs_elsewhere(pod):
            self.left_out += 1
            return
        slot = Slot(life, pod, life.uid, life.key, life.created_us)
        self.slots[life.uid] = slot
        slot.left = slot.goes_as_recorded = pods.is_deleting(pod)
        if node := pods.node_name(pod):
            slot.put(node, self.now_us)
        self._show(slot)
        self._nominate_as_recorded(slot)
        if not self._follows and self._is_ours(life) and not node and not pods.is_terminal(pod):
            slot.free = True
            self.queue.add(slot.shown or pod, pods.priority(pod), self.now_us)

    def _is_ours(self, life: Life) -> bool:
        """Whether the log does not tell when to decide about it."""
        recorded = life.scheduler in self.arrivals.schedulers
        return not recorded and self.profile_of(life.scheduler, None) is not None

    def _belongs_elsewhere(self, pod: Json) -> bool:
        """A pod that is meant for a node which is not there at all, as those of a DaemonSet are."""
        pinned = affinity.pinned_names(pod) or frozenset(filter(None, (pods.node_name(pod),)))
        return bool(pinned) and pinned <= self.machines.without

    def _need_not_replace(self, slot: Slot, life: Life, pod: Json) -> None:
        """The pod that this one replaces in the log is still here: it takes over what is to come."""
        self.slots[life.uid] = slot
        slot.life, slot.log, slot.free = life, pod, True
        if slot.shown is not None and slot.node and not slot.going:
            self._run_out(slot)

    def _follow(self, slot: Slot, pod: Json) -> None:
        starts_going = (
            "deletionTimestamp" in pod["metadata"] and "deletionTimestamp" not in slot.log["metadata"]
        )
        slot.log = pod
        if slot.shown is None:
            return
        if not slot.free and starts_going:
            slot.left = self._goes_as_recorded(slot)
            slot.free = not slot.left
        if slot.free and pods.is_terminal(pod) and not slot.ends_by_itself:
            slot.left = True
            self._remove(slot)
            return
        if slot.free:
            self._show(slot, own=True)
            return
        node = pods.node_name(pod)
        if node and node != slot.node:
            if slot.node:
                slot.take_back()
            slot.put(node, self.now_us)
            self.made.append(Made(slot.life.uid, node, (), self.now_us, ""))
        self._show(slot)
        self._nominate_as_recorded(slot)

    def _nominate_as_recorded(self, slot: Slot) -> None:
        """What was decided before this part of the log began may show later, and what a gang keeps for its pods."""
        nominated = (slot.log.get("status") or {}).get("nominatedNodeName")
        if nominated and not slot.node and (slot.in_gang or not slot.tried):
            self.state.nominate(slot.uid, nominated)

    def _leave(self, slot: Slot) -> None:
        if slot.shown is None:
            return
        if not slot.free and not self._goes_as_recorded(slot):
            slot.free = True
        if slot.free and slot.ends_by_itself:
            self._show(slot, own=True)
            return
        slot.left = True
        self._remove(slot, own=slot.free)

    def _goes_as_recorded(self, slot: Slot) -> bool:
        return self._follows or slot.life.lost_to != "preemption" or slot.goes_as_recorded

    # --- pods here ---

    def _show(self, slot: Slot, *, own: bool = False) -> None:
        before, slot.shown = slot.shown, slot.pod()
        self._tell("pods", before, slot.shown, own=own)
        self._mirror(before, slot.shown)
        if slot.uid in self.queue.pods and before is not None and not slot.node:
            self.queue.update(before, slot.shown, pods.priority(slot.shown), self.now_us)

    def _remove(self, slot: Slot, *, own: bool = True) -> None:
        self._unpark(slot)
        self._free_devices(slot)
        before, slot.shown = slot.shown, None
        self._tell("pods", before, None, own=own)
        self._mirror(before, None)
        self.queue.remove(slot.uid)

    def _free_devices(self, slot: Slot) -> None:
        """Those of its extended resources; the log tells of other claims."""
        devices = self.state.devices
        devices.give_back(special_key(meta.namespace(slot.log), slot.uid))
        claim = self.state.objects[CLAIMS].get(devices.special.get(slot.uid, ""))
        if claim is not None and slot.free:
            self._tell(CLAIMS, claim, None, own=True)

    def _mirror(self, before: Json | None, after: Json | None) -> None:
        """What a DaemonSet runs on a node it runs on the copies of that node too."""
        gone, come = self.machines.mirrored(before), self.machines.mirrored(after)
        for old, new in zip_longest(gone, come):
            self._tell("pods", old, new, own=True)

    def _run_out(self, slot: Slot) -> None:
        """It runs as long as it did in the log, where it ended by itself."""
        if slot.life.run_us >= 0:
            self._at(max(self.now_us, slot.bound_us + slot.life.run_us), slot, self._remove)

    def _evict(self, slot: Slot) -> None:
        """As a victim: it goes after the grace that pods of this log take."""
        if slot.shown is None or slot.going:
            return
        slot.evictions += 1
        slot.free = slot.going = True
        self._show(slot, own=True)
        self._at(self.now_us + self.arrivals.grace_us, slot, self._renew)

    def _displace(self, slot: Slot) -> None:
        """Its node is no place to be any more."""
        slot.evictions += 1
        self._renew(slot)

    def _renew(self, slot: Slot) -> None:
        """It goes, and its controller makes another one if it has one."""
        self._remove(slot)
        if not slot.life.owner:
            return
        slot.renew()
        self.slots[slot.uid] = slot
        self._show(slot, own=True)
        assert slot.shown is not None
        self.queue.add(slot.shown, pods.priority(slot.shown), self.now_us)

    # --- attempts ---

    def _attempt(self, attempt: Attempt) -> None:
        recorded = attempt.effect
        self._seed = recorded["seed"]
        self.recorded.begin(recorded)
        self.recorded.take_back(attempt)
        slot = self.slots.get(recorded["uid"])
        if slot is None or slot.shown is None or slot.node:
            return
        profile = self.profile_of(slot.life.scheduler, attempt.decision)
        if profile is None or self._follows:
            self._take(slot, recorded, recorded)
            return
        if self.gangs.takes(attempt, slot, profile) or slot.free:
            return
        info = self.state.pods.get(slot.uid)
        if info is None:
            return
        self.recorded.take_over(recorded)
        answers = Answers.of(recorded.get("extenders")) if profile.extended else None
        framework = self.framework(profile)
        with self.recorded.without(recorded.get("taken") or ()):
            decision = decide(
                framework, info, cycle=recorded["cycle"], seed=recorded["seed"], answers=answers
            )
            decision = like_recorded(framework, info, decision, recorded.get("node", ""))
        effect = effect_of(info, decision)
        if (
            recorded["kind"] == "Wait"
            and effect["kind"] != "Status"
            and GANG_SCHEDULING in profile.pre_enqueue
        ):
            effect["kind"] = "Wait"
        else:
            self._reserve(framework, info, decision.node, keep=not _is_same(effect, recorded))
        if not self.gangs.fares(slot, same=_is_same(effect, recorded)):
            return
        self.state.devices.take(slot.uid, decision.allocations)
        self._take(slot, effect, recorded)

    def framework(self, profile: Profile) -> Framework:
        """The profile at work here. Raises ConfigError."""
        found = self._frameworks.get(id(profile))
        if found is None:
            found = self._frameworks[id(profile)] = profile, profiles.build(self.state, profile)
        return found[1]

    def framework_of(self, slot: Slot, decision: protocol.Decision | None) -> Framework | None:
        profile = self.profile_of(slot.life.scheduler, decision)
        return None if profile is None else self.framework(profile)

    def try_own(self) -> None:
        """Whatever this world's own queue has ready; not while a recorded trial of a gang is going on."""
        if not len(self.queue) or self.gangs.trial is not None:
            return
        self.queue.tick(self.now_us)
        while (queued := self.queue.pop(self.now_us)) is not None:
            slot, info = self.slots[queued.uid], self.state.pods.get(queued.uid)
            framework = self.framework_of(slot, None)
            if info is None or info.node or framework is None or "deletionTimestamp" in info.pod["metadata"]:
                self.queue.done(queued.uid)
                continue
            if self.gangs.try_own(queued, slot):
                continue
            decision = self.decide_own(framework, info)
            self._reserve(framework, info, decision.node, keep=True)
            self._take(slot, effect_of(info, decision), None, queued)

    def decide_own(self, framework: Framework, info: PodInfo) -> Decision:
        """An attempt that the log does not have."""
        self._own_cycles += 1
        decision = decide(framework, info, cycle=FIRST_OWN_CYCLE + self._own_cycles, seed=self._seed)
        return like_recorded(framework, info, decision, self.slots[info.uid].life.node)

    def bind_own(self, slot: Slot, node: str) -> None:
        """A pod of a gang of this world's own, which is counted on the node already."""
        slot.tried, slot.in_gang = True, False
        self.made.append(Made(slot.life.uid, node, (), self.now_us, ""))
        self._bind(slot, node, same=False)

    def refuse_own(self, slot: Slot, effect: Json, queued: QueuedPod) -> None:
        """The same for one that finds no node, or makes room on one; its decision is counted already."""
        self.decisions -= 1
        self._take(slot, effect, None, queued)

    def set_free(self, slot: Slot) -> None:
        """The pod does not fare as recorded any more: this world's own queue says when it is tried."""
        self._unpark(slot)
        slot.free = True
        if slot.shown is not None and slot.uid not in self.queue.pods:
            self.queue.add(slot.shown, pods.priority(slot.shown), self.now_us)

    def forget(self, slot: Slot) -> None:
        """It was counted on a node, with what it would have there, and is not any more."""
        for key, entry in list(self.state.devices.under_way.items()):
            if entry["pod"] == slot.uid:
                self.state.devices.give_back(key)
        self.state.forget(slot.uid)

    def _reserve(self, framework: Framework, info: PodInfo, node: str, *, keep: bool) -> None:
        """`keep`: the record does not tell of it, so it holds until the log has something else to say of the claim."""
        if not node or not info.volumes:
            return
        plans = plans_for(Cycle(self.state, info, framework), self.state.nodes[node])
        reserve(self.state, plans, node)
        if keep:
            self.recorded.keep(plans, node)

    def _take(self, slot: Slot, effect: Json, recorded: Json | None, queued: QueuedPod | None = None) -> None:
        """Act on a decision. It fares as recorded if it says the same as the record."""
        same = recorded is not None and _is_same(effect, recorded)
        waits = effect["kind"] == "Wait"
        victims = () if waits else tuple(victim["key"] for victim in effect.get("victims") or ())
        self.decisions += 1
        if victims:
            self.preemptions += 1
            slot.victims.append(victims)
        node = "" if waits else effect.get("node", "")
        self.made.append(Made(slot.life.uid, node, victims, self.now_us, effect.get("text", "")))
        slot.tried = True
        slot.in_gang = same and recorded is not None and "gang" in recorded
        self._unpark(slot)
        if effect["kind"] == "Bind":
            self._bind(slot, effect["node"], same=same)
        elif waits:
            slot.text = GANG_WAITS
            self._wait(slot, [waits_for(GANG_SCHEDULING)], same=same, queued=queued)
        else:
            self._refuse(slot, effect, same=same, queued=queued)
        if same and recorded is not None and "tried" in recorded and not slot.node and not self._follows:
            self.state.assume(slot.uid, recorded["tried"])

    def _bind(self, slot: Slot, node: str, *, same: bool) -> None:
        slot.put(node, self.now_us)
        if same:
            self.state.assume(slot.uid, node)
            return
        slot.free = True
        self.queue.done(slot.uid)
        self._show(slot, own=True)
        self._run_out(slot)
        self._stay_or_go(slot, self.state.nodes[node].taints)

    def _refuse(self, slot: Slot, effect: Json, *, same: bool, queued: QueuedPod | None) -> None:
        slot.text = effect["text"]
        if effect.get("nominated") is not None:
            self.state.nominate(slot.uid, effect["nominated"])
        for uid in effect.get("cleared") or ():
            self.state.nominate(uid, "")
        plugins = [waits_for(plugin) for plugin in effect.get("plugins") or ("NodeName",)]
        self._wait(slot, plugins, same=same, queued=queued)
        for victim in effect.get("victims") or ():
            other = self.slots.get(victim["uid"])
            if other is None:
                continue
            if same and not other.free:
                other.goes_as_recorded = True
                other.evictions += 1
                self.gangs.evicted(other)
            else:
                self._evict(other)

    # --- pods that wait ---

    def _wait(self, slot: Slot, plugins: list[str], *, same: bool, queued: QueuedPod | None) -> None:
        if same:
            self._park(slot, plugins)
        else:
            self.queue.back(queued or self._freed(slot), plugins, self.now_us)

    def _freed(self, slot: Slot) -> QueuedPod:
        """In flight in this world's own queue: nothing else is ready there, or it would have been tried."""
        assert slot.shown is not None
        slot.free = True
        self.queue.add(slot.shown, pods.priority(slot.shown), self.now_us)
        queued = self.queue.pop(self.now_us)
        assert queued is not None and queued.uid == slot.uid
        return queued

    def _park(self, slot: Slot, plugins: list[str]) -> None:
        """It waits for the log to say when it is tried again, unless something happens only here that helps."""
        if self._follows:
            return
        slot.parked = tuple(plugins)
        for plugin in plugins:
            self._parked.setdefault(plugin, {})[slot.uid] = slot

    def _unpark(self, slot: Slot) -> None:
        for plugin in slot.parked:
            self._parked[plugin].pop(slot.uid, None)
        slot.parked = ()

    def heard(self, event: ClusterEvent) -> None:
        """Something happened; what the log does not have may help those who wait for the log."""
        if not self._own or not any(self._parked.values()):
            return
        for slot in list(self._helped(event)):
            if slot.parked and slot.shown is not None:
                self.set_free(slot)

    def _helped(self, event: ClusterEvent) -> Iterator[Slot]:
        for plugin, hints in interested(event).items():
            for uid, slot in list(self._parked.get(plugin, {}).items()):
                info = self.state.pods.get(uid)
                if info is not None and any(hint(self.state, info, event) for hint in hints):
                    yield slot

    def hinted(self, queued: QueuedPod, event: Any, hints: list[Any]) -> bool:
        info = self.state.pods.get(queued.uid)
        return info is None or any(hint(self.state, info, event) for hint in hints)
