"""What only the record tells of the state on which a decision was taken, and what this world keeps beside it.

Volumes that are being bound, claims that wait for one, devices under way, nominations of gangs: the objects of the log do
not show them. Of pods that do not fare as recorded the world keeps such things itself, until the log has something to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from kcp.machinery import meta
from kcp.replay.incident import IDS_PER_RUN
from kcp.replay.whatif.arrivals import Attempt
from kcp.replay.whatif.slots import Slot
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.plugins.volume_binding import Provision

Json = dict[str, Any]


class Recorded:
    """Owned by the world."""

    def __init__(self, state: ClusterState, slots: Mapping[str, Slot]) -> None:
        self._state = state
        self._slots = slots
        self._reserved: dict[str, str] = {}
        self._selecting: dict[str, str] = {}
        self._run = 0
        self._begun = False

    def begin(self, recorded: Json) -> None:
        """The first attempt tells what was nominated before this part of the log."""
        if not self._begun:
            self._begun = True
            for uid, node in (recorded.get("nominated_here") or {}).items():
                self._state.nominate(uid, node)

    def keep(self, plans: Sequence[Provision], node: str) -> None:
        """How volumes of a pod that fares otherwise are being bound."""
        self._reserved.update((plan.volume, meta.key_of(plan.claim)) for plan in plans if plan.volume)
        self._selecting.update((meta.key_of(plan.claim), node) for plan in plans if not plan.volume)

    def take_over(self, recorded: Json) -> None:
        state, devices = self._state, self._state.devices
        state.reserved = {**self._reserved, **(recorded.get("reserved") or {})}
        state.selecting = {**self._selecting, **(recorded.get("selecting") or {})}
        state.together = frozenset(recorded.get("together") or ())
        state.set_guard(recorded.get("guard") or {})
        if "assumed" in recorded:
            devices.set_under_way(recorded.get("allocating") or {})
        for key in recorded.get("ended") or ():
            devices.give_back(key)
        devices.ended.clear()
        for uid, node in (recorded.get("nominated_here") or {}).items():
            slot = self._slots.get(uid)
            if slot is not None and slot.in_gang and not slot.free and not slot.node:
                state.nominate(uid, node)

    @contextmanager
    def without(self, taken: Sequence[str]) -> Iterator[None]:
        """The victims that the trial of a gang had taken away are not there meanwhile."""
        victims = [info for uid in taken if (info := self._state.pods.get(uid)) is not None and info.node]
        places = [(info, info.node) for info in victims]
        for info in victims:
            self._state.take_from_node(info)
        try:
            yield
        finally:
            for info, node in reversed(places):
                self._state.add_to_node(info, node)

    def take_back(self, attempt: Attempt) -> None:
        """What the scheduler had assumed and then was not so, by its own record."""
        effect, run = attempt.effect, attempt.decision.id // IDS_PER_RUN
        forgot = list(effect.get("forgot") or ())
        if "assumed" in effect and run >= self._run:
            self._run = run
            forgot += [uid for uid in self._state.assumed if uid not in effect["assumed"]]
        for uid in forgot:
            slot = self._slots.get(uid)
            if slot is not None and not slot.free and uid in self._state.assumed:
                self._state.forget(uid)
                if slot.node:
                    slot.take_back()
