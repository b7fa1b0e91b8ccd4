"""Recorded scheduling decisions again: the same objects, the same assumed pods, the same cycle and seed; then compare.

again = Remaker(profile)
for decision, frontier in scheduling_rows(incident):    # of all profiles of that scheduler
    again.move(resource, old, new)              # until every resource stands at the frontier
    again.use(profile_of(decision))
    ours, recorded = again.remake(decision.key, decision.frontier, decision.effects)
    ours == recorded                            # else they diverge
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kcp.scheduler import profiles
from kcp.scheduler.cluster_state import OPTIONAL_RESOURCES, RESOURCES, ClusterState
from kcp.scheduler.cycle import Answers, Decision, decide
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.profiles import Profile
from kcp.scheduler.rows import CONTEXT, effect_of

Json = dict[str, Any]
WATCHED = (*RESOURCES, *OPTIONAL_RESOURCES)
"""The resources that a scheduler's frontier may have."""


class Remaker:
    """A cluster state that follows a log. Feed it every change of the `WATCHED` resources through `move`.

    Rows must come in the order of their cycles. `moved` tells it how often a run of a scheduler began anew.
    """

    def __init__(self, profile: Profile | None = None) -> None:
        self.state = ClusterState()
        self._frameworks: dict[str, Framework] = {}
        self.framework = self.use(profile or Profile())
        self._assumed: dict[str, str] = {}
        self._taken: list[tuple[PodInfo, str]] = []
        self.last: Decision | None = None

    def use(self, profile: Profile) -> Framework:
        """Decide by this profile from now on. Raises ConfigError when a plugin of it is not to be had."""
        key = profiles.config_digest(profile)
        if key not in self._frameworks:
            self._frameworks[key] = profiles.build(self.state, profile)
        self.framework = self._frameworks[key]
        return self.framework

    def move(self, resource: str, old: Json | None, new: Json | None) -> None:
        """An object of a watched resource changed between two frontiers (backwards too)."""
        self.state.apply(resource, old, new)

    def remake(self, key: str, frontier: Mapping[str, int], effects: Sequence[Json]) -> tuple[Json, Json]:
        """(our effect, the recorded effect), to be compared with `==`. The state must stand at the row's frontier.

        `frontier` is the row's own, as it was written (with `*` when it is whole).
        """
        recorded = effects[0]
        self._follow(recorded)
        info = self.state.pods.get(recorded["uid"])
        theirs = {name: value for name, value in recorded.items() if name not in CONTEXT}
        if info is None:
            self._put_back()
            return {"kind": "Gone", "uid": recorded["uid"], "key": key}, theirs
        answers = Answers.of(recorded.get("extenders"))
        decision = decide(
            self.framework, info, cycle=recorded["cycle"], seed=recorded["seed"], answers=answers
        )
        self.last = decision
        self._bound(recorded)
        ours = effect_of(info, decision)
        if theirs["kind"] == "Wait" and ours["kind"] in ("Bind", "Preempt"):
            ours["kind"] = "Wait"
        return ours, theirs

    def follow(self, effects: Sequence[Json]) -> None:
        """Take over what a row of another profile on the same state tells. The state must stand at its frontier."""
        self._follow(effects[0])
        self._bound(effects[0])

    def _bound(self, recorded: Json) -> None:
        if recorded["kind"] == "Bind":
            self._assumed[recorded["uid"]] = recorded["node"]
        elif "tried" in recorded:
            self._assumed[recorded["uid"]] = recorded["tried"]
        if recorded["uid"] in self._assumed:
            self.state.devices.take(recorded["uid"], recorded.get("allocations") or {})
        self._put_back()

    def _put_back(self) -> None:
        """The victims that a gang's trial had taken away."""
        for victim, node in reversed(self._taken):
            self.state.add_to_node(victim, node)
        self._taken = []

    def _follow(self, recorded: Json) -> None:
        """Assume what the scheduler assumed then."""
        if "assumed" in recorded:
            self._assumed = dict(recorded["assumed"])
        for uid in recorded.get("forgot", ()):
            self._assumed.pop(uid, None)
        pods = self.state.pods
        self._assumed = {
            uid: node for uid, node in self._assumed.items() if uid in pods and not pods[uid].bound
        }
        for uid in [uid for uid in self.state.assumed if uid not in self._assumed]:
            self.state.forget(uid)
        for uid, node in self._assumed.items():
            if self.state.assumed.get(uid) != node or pods[uid].node != node:
                self.state.assume(uid, node)
        self.state.reserved = dict(recorded.get("reserved") or {})
        self.state.selecting = dict(recorded.get("selecting") or {})
        self.state.together = frozenset(recorded.get("together") or ())
        self.state.set_guard(recorded.get("guard") or {})
        evicting: Json = recorded.get("evicting") or {}
        self.state.evicting = {uid: tuple(victims) for uid, victims in evicting.items()}
        self._follow_devices(recorded)
        nominated: Json = recorded.get("nominated_here") or {}
        for uid in [uid for uid in self.state.nominated_here if uid not in nominated]:
            self.state.withdraw(uid)
        for uid, node in nominated.items():
            self.state.nominate(uid, node)
        for uid in recorded.get("taken", ()):
            victim = pods.get(uid)
            if victim is not None and victim.node:
                self._taken.append((victim, victim.node))
                self.state.take_from_node(victim)

    def _follow_devices(self, recorded: Json) -> None:
        devices = self.state.devices
        if "assumed" in recorded:
            devices.set_under_way(recorded.get("allocating") or {})
        for key in recorded.get("ended", ()):
            devices.give_back(key)
        devices.ended.clear()
