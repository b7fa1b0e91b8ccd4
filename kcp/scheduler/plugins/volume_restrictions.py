"""Disks that only one pod of a node may use, and claims that only one pod at all may use.

Source: k8s v1.36 pkg/scheduler/framework/plugins/volumerestrictions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from kcp.scheduler.framework.plugin import Codes, Cycle, Reasons, Rejected, Rows
from kcp.scheduler.framework.status import UNRESOLVABLE, UNSCHEDULABLE
from kcp.scheduler.plugins.claims import claim_of, not_found
from kcp.scheduler.pod_class import PodInfo, claim_names

Json = dict[str, Any]


def _gce(a: Json, b: Json) -> bool:
    return a.get("pdName") == b.get("pdName") and not (a.get("readOnly") and b.get("readOnly"))


def _ebs(a: Json, b: Json) -> bool:
    return a.get("volumeID") == b.get("volumeID")


def _iscsi(a: Json, b: Json) -> bool:
    return a.get("iqn") == b.get("iqn") and not (a.get("readOnly") and b.get("readOnly"))


def _rbd(a: Json, b: Json) -> bool:
    def image(source: Json) -> tuple[str, str]:
        return source.get("pool") or "rbd", source.get("image") or ""

    shared = [m for m in a.get("monitors") or () if m in (b.get("monitors") or ())]
    return bool(shared) and image(a) == image(b) and not (a.get("readOnly") and b.get("readOnly"))


_CONFLICTS: Mapping[str, Callable[[Json, Json], bool]] = {
    "gcePersistentDisk": _gce,
    "awsElasticBlockStore": _ebs,
    "iscsi": _iscsi,
    "rbd": _rbd,
}


class VolumeRestrictions:
    name = "VolumeRestrictions"
    per_node = True
    reasons: ClassVar[Reasons] = {
        1: (UNSCHEDULABLE, "node(s) had no available disk"),
        2: (
            UNSCHEDULABLE,
            "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use"
            " by another pod",
        ),
    }

    def pre_filter(self, cycle: Cycle) -> Rejected | None:
        for name, _ in claim_names(cycle.info):
            if claim_of(cycle, name) is None:
                return Rejected(self.name, not_found(name), UNRESOLVABLE)
        return None

    def active(self, cycle: Cycle) -> bool:
        return bool(cycle.info.volumes)

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        exclusive = _exclusive_claims(cycle)
        others = _users_of(cycle, exclusive) if exclusive else {}
        codes = [self._code(cycle, info.pods.values(), info.name, others) for info in cycle.state.rows(rows)]
        return np.array(codes, np.int8)

    def _code(self, cycle: Cycle, there: Any, name: str, users: Mapping[str, int]) -> int:
        disks = [(kind, v[kind]) for v in cycle.info.volumes for kind in _CONFLICTS if v.get(kind)]
        if disks and any(_conflicts(disks, other) for other in there):
            return 1
        return 2 if users.get(name) else 0


def _conflicts(disks: list[tuple[str, Json]], other: PodInfo) -> bool:
    return any(
        volume.get(kind) and _CONFLICTS[kind](source, volume[kind])
        for kind, source in disks
        for volume in other.volumes
    )


def _exclusive_claims(cycle: Cycle) -> list[str]:
    found = []
    for name, _ in claim_names(cycle.info):
        claim = claim_of(cycle, name)
        if claim is not None and "ReadWriteOncePod" in ((claim.get("spec") or {}).get("accessModes") or ()):
            found.append(name)
    return found


def _users_of(cycle: Cycle, claims: list[str]) -> Mapping[str, int]:
    """How many pods per node use one of these claims."""
    users: dict[str, int] = {}
    for pod in cycle.state.pods.values():
        near = pod.node and pod.volumes and pod.cls.namespace == cycle.cls.namespace
        if near and any(name in claims for name, _ in claim_names(pod)):
            users[pod.node] = users.get(pod.node, 0) + 1
    return users
