"""Disks that only one pod of a node may use, and claims that only one pod at all may use.

Source: k8s v1.36 pkg/scheduler/framework/plugins/volumerestrictions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from kcp.scheduler.cluster_state import NodeInfo
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
        in_use = bool(_users(cycle))
        return np.array([self._code(cycle, info, in_use) for info in cycle.state.rows(rows)], np.int8)

    def _code(self, cycle: Cycle, node: NodeInfo, in_use: bool) -> int:
        disks = _disks(cycle)
        if disks and any(_conflicts(disks, other) for other in node.pods.values()):
            return 1
        return 2 if in_use else 0


def _disks(cycle: Cycle) -> list[tuple[str, Json]]:
    return [(kind, v[kind]) for v in cycle.info.volumes for kind in _CONFLICTS if v.get(kind)]


def holders(cycle: Cycle, node: NodeInfo) -> list[PodInfo]:
    """Who has what this pod may not share: a disk with pods of the node, a ReadWriteOncePod claim with any pod."""
    disks = _disks(cycle)
    found = [pod for pod in node.pods.values() if disks and _conflicts(disks, pod)]
    return found or _users(cycle)


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


def _users(cycle: Cycle) -> list[PodInfo]:
    """The pods that run, on whatever node, and use a ReadWriteOncePod claim of this pod."""
    claims = _exclusive_claims(cycle)
    if not claims:
        return []
    return [
        pod
        for pod in cycle.state.pods.values()
        if pod.node
        and pod.volumes
        and pod.cls.namespace == cycle.cls.namespace
        and any(name in claims for name, _ in claim_names(pod))
    ]
