"""Who belongs to which PodGroup, and whether a gang is complete enough to be tried.

A pod says its group in `spec.schedulingGroup.podGroupName`, or as older schedulers have it: the label or annotation
`scheduling.x-k8s.io/pod-group` (coscheduling), the annotation `scheduling.k8s.io/group-name` (Volcano). The group itself is
a PodGroup of scheduling.k8s.io/v1alpha2 in the pod's namespace.
Source: k8s v1.36 pkg/scheduler/framework/plugins/gangscheduling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from kcp.machinery import meta
from kcp.machinery.errors import go_quote
from kcp.scheduler.cluster_state import POD_GROUPS, ClusterState
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.queue import QueuedPod

Json = dict[str, Any]

NAME = "GangScheduling"
POD_GROUP_KEY = "scheduling.x-k8s.io/pod-group"
VOLCANO_KEY = "scheduling.k8s.io/group-name"
INCOMPLETE = "waiting for minCount pods from a gang to appear in scheduling queue"
UNPLACED = "waiting for minCount pods from a gang to be scheduled"
MAKING_ROOM = "pod group is waiting for preemption to complete"
RESERVE_AFTER_S = 300
SECOND_US = 1_000_000


def group_of(pod: Json) -> str:
    """`namespace/name` of the pod's group, "" when it has none."""
    named = (pod["spec"].get("schedulingGroup") or {}).get("podGroupName")
    if not named:
        annotations = meta.annotations(pod)
        named = (
            meta.labels(pod).get(POD_GROUP_KEY)
            or annotations.get(POD_GROUP_KEY)
            or annotations.get(VOLCANO_KEY)
        )
    return f"{meta.namespace(pod)}/{named}" if named else ""


@attrs.define
class Committing:
    """A gang on its way into the log: its pods, those that come up meanwhile and wait for the outcome, the last decision."""

    uids: list[str]
    waiting: list[QueuedPod]
    decision: int = 0


class GangScheduling:
    """Owned by the scheduler's task. What it knows follows from the objects that `follow` was told of."""

    name = NAME
    patience_us = 5 * SECOND_US
    """How long a pod may be kept out before that is said."""

    def __init__(self, state: ClusterState, args: Mapping[str, Any]) -> None:
        after_s = args.get("reserveAfterSeconds")
        self.reserve_after_us = int(RESERVE_AFTER_S if after_s is None else after_s) * SECOND_US
        self.holder: tuple[str, int] | None = None
        """The gang that has waited so long that room is kept for it, and since when."""
        self.rested: dict[str, int] = {}
        """When gangs lost their reservation again."""
        self.committing: dict[str, Committing] = {}
        self._state = state
        self._members: dict[str, dict[str, None]] = {}
        self._group: dict[str, str] = {}

    # --- membership ---

    def follow(self, resource: str, old: Json | None, new: Json | None) -> Iterable[str]:
        """The state took a change. Returns the pods that may have to be looked at again."""
        if resource == "pods":
            return self._pod(old, new)
        if resource == POD_GROUPS:
            obj = new if new is not None else old
            assert obj is not None
            same = old is not None and new is not None and old.get("spec") == new.get("spec")
            return () if same else tuple(self._members.get(meta.key_of(obj), ()))
        return ()

    def _pod(self, old: Json | None, new: Json | None) -> Iterable[str]:
        obj = new if new is not None else old
        assert obj is not None
        uid = meta.uid(obj)
        group = group_of(obj) if uid in self._state.pods else ""
        before = self._group.get(uid, "")
        if group == before:
            return ()
        waited = not obj["spec"].get("nodeName")
        stranded = self._leave(uid, before, waited) if before else ()
        if not group:
            return stranded
        self._group[uid] = group
        members = self._members.setdefault(group, {})
        members[uid] = None
        return (*stranded, *members) if len(members) == self.minimum(group) else stranded

    def _leave(self, uid: str, group: str, waited: bool) -> tuple[str, ...]:
        """Returns the others when they are too few now, or may have waited for this pod."""
        del self._group[uid]
        left = self._members[group]
        del left[uid]
        if not left:
            del self._members[group]
            self.rested.pop(group, None)
        return tuple(left) if waited or len(left) == self.minimum(group) - 1 else ()

    def group(self, uid: str) -> str:
        """The gang that the pod belongs to; "" for none, and for a group that is no gang."""
        group = self._group.get(uid, "")
        return group if group and self.minimum(group) else ""

    def members(self, group: str) -> list[PodInfo]:
        """In the order in which they came."""
        pods = self._state.pods
        return [pods[uid] for uid in self._members.get(group, ()) if uid in pods]

    def placed(self, group: str) -> int:
        """How many pods of the gang have a node, or are about to."""
        return sum(1 for info in self.members(group) if info.node)

    def object(self, group: str) -> Json | None:
        return self._state.objects[POD_GROUPS].get(group)

    def minimum(self, group: str) -> int:
        """The gang's minCount; 0 for a group that is no gang, or is not there."""
        found = self.object(group)
        if found is None:
            return 0
        gang = ((found.get("spec") or {}).get("schedulingPolicy") or {}).get("gang") or {}
        return int(gang.get("minCount") or 0)

    def gate(self, pod: Json) -> str:
        """Why the pod must not be tried yet; "" when it may."""
        group = group_of(pod)
        if not group:
            return ""
        if self.object(group) is None:
            named = go_quote(group.partition("/")[2])
            return f"waiting for pod's pod group {named} to appear in scheduling queue"
        return INCOMPLETE if len(self._members.get(group, ())) < self.minimum(group) else ""

    # --- a gang that waits for too long ---

    def reserves(self, group: str, since_us: int, now_us: int) -> bool:
        """Whether room is kept for this gang, which waits since then: for one gang at a time, and not for ever."""
        after = self.reserve_after_us
        if not after:
            return False
        if self.holder is not None and self.holder[0] in self._members:
            return self.holder[0] == group
        self.holder = None
        if now_us - max(since_us, self.rested.get(group, 0)) < after:
            return False
        self.holder = (group, now_us)
        return True

    def reservation_ends_us(self) -> int | None:
        return self.holder[1] + self.reserve_after_us if self.holder is not None else None

    def end_reservation(self, now_us: int) -> list[PodInfo]:
        """It lasted long enough. Returns the pods for which room was kept."""
        assert self.holder is not None
        group, _ = self.holder
        self.holder = None
        self.rested[group] = now_us
        return [info for info in self.members(group) if info.nominated and not info.node]

    def settled(self, group: str) -> None:
        """The gang got its nodes."""
        self.rested.pop(group, None)
        if self.holder is not None and self.holder[0] == group:
            self.holder = None
