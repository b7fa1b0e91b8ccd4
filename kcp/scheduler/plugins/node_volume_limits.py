"""How many volumes of a CSI driver a node can attach: those of its pods count, and what is still attached to it.

Source: k8s v1.36 pkg/scheduler/framework/plugins/nodevolumelimits/csi.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from kcp.apis.semantics import volumes
from kcp.scheduler.cluster_state import ClusterState, NodeInfo
from kcp.scheduler.framework.plugin import Codes, Cycle, Reasons, Rows
from kcp.scheduler.framework.status import UNSCHEDULABLE
from kcp.scheduler.pod_class import PodInfo, claim_names

Json = dict[str, Any]


class NodeVolumeLimits:
    name = "NodeVolumeLimits"
    per_node = True
    reasons: ClassVar[Reasons] = {1: (UNSCHEDULABLE, "node(s) exceed max volume count")}

    def active(self, cycle: Cycle) -> bool:
        return bool(cycle.info.volumes) and bool(cycle.state.objects["csinodes.storage.k8s.io"])

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        wanted = _new_volumes(cycle)
        return np.array(
            [self._exceeds(cycle.state, info, wanted) for info in cycle.state.rows(rows)], np.int8
        )

    def _exceeds(self, state: ClusterState, node: NodeInfo, wanted: set[tuple[str, str]]) -> bool:
        limits = driver_limits(state, node.name)
        if not limits or not wanted:
            return False
        attached = attached_volumes(state, node.pods.values())
        there = attached | attachments_of(state, node.name)
        for driver, limit in limits.items():
            fresh = [v for v in wanted if v[0] == driver and v not in attached]
            if fresh and sum(owner == driver for owner, _ in there) + len(fresh) > limit:
                return True
        return False


def driver_limits(state: ClusterState, node: str) -> dict[str, int]:
    csi_node = state.objects["csinodes.storage.k8s.io"].get(node) or {}
    found = {}
    for driver in (csi_node.get("spec") or {}).get("drivers") or ():
        count = (driver.get("allocatable") or {}).get("count")
        if count is not None:
            found[driver["name"]] = int(count)
    return found


def attached_volumes(state: ClusterState, pods: Iterable[PodInfo]) -> set[tuple[str, str]]:
    return {volume for pod in pods if pod.volumes for volume in csi_volumes(state, pod)}


def attachments_of(state: ClusterState, node: str) -> set[tuple[str, str]]:
    """(driver, handle) of what the attacher has on the node: also of pods that are gone already."""
    found = set()
    for attachment in state.attachments.get(node, {}).values():
        spec = attachment.get("spec") or {}
        name = (spec.get("source") or {}).get("persistentVolumeName") or ""
        volume = state.objects["persistentvolumes"].get(name)
        if volume is not None and (named := _named(volume)) is not None:
            found.add(named)
    return found


def _named(volume: Json) -> tuple[str, str] | None:
    """(driver, handle) of a PersistentVolume that a driver attaches."""
    spec = volume.get("spec") or {}
    driver = volumes.csi_driver(spec)
    if not driver:
        return None
    return driver, (spec.get("csi") or {}).get("volumeHandle") or volume["metadata"]["name"]


def _new_volumes(cycle: Cycle) -> set[tuple[str, str]]:
    known = cycle.memory.get("csi volumes")
    if known is None:
        known = cycle.memory["csi volumes"] = set(csi_volumes(cycle.state, cycle.info))
    found: set[tuple[str, str]] = known
    return found


def csi_volumes(state: ClusterState, pod: PodInfo) -> list[tuple[str, str]]:
    """(driver, handle) of the pod's volumes; an unbound claim counts for its class's driver under its own name."""
    found = []
    for name, _ in claim_names(pod):
        key = f"{pod.cls.namespace}/{name}"
        claim = state.objects["persistentvolumeclaims"].get(key)
        if claim is None:
            continue
        volume_name = (claim.get("spec") or {}).get("volumeName") or ""
        volume = state.objects["persistentvolumes"].get(volume_name) if volume_name else None
        if volume is not None:
            named = _named(volume)
            if named is not None:
                found.append(named)
            continue
        chosen = state.objects["storageclasses.storage.k8s.io"].get(volumes.claim_class(claim))
        if chosen is not None and chosen.get("provisioner"):
            found.append((volumes.provisioner_driver(chosen["provisioner"]), key))
    found += [
        (volumes.csi_driver(v) or "", f"{pod.key}/{v.get('name')}")
        for v in pod.volumes
        if not v.get("csi") and not v.get("persistentVolumeClaim") and volumes.csi_driver(v)
    ]
    return found
