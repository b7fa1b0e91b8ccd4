"""A bound volume with zone or region labels keeps its pods in that zone or region.

Source: k8s v1.36 pkg/scheduler/framework/plugins/volumezone.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from kcp.apis.semantics import topology
from kcp.machinery import meta
from kcp.scheduler.framework.plugin import Codes, Cycle, Reasons, Rows
from kcp.scheduler.framework.status import UNRESOLVABLE
from kcp.scheduler.plugins.claims import claim_of, volume_of
from kcp.scheduler.pod_class import claim_names

_KEYS = (topology.ZONE_BETA, topology.REGION_BETA, topology.ZONE, topology.REGION)
_GA = {topology.ZONE_BETA: topology.ZONE, topology.REGION_BETA: topology.REGION}


class VolumeZone:
    name = "VolumeZone"
    reasons: ClassVar[Reasons] = {1: (UNRESOLVABLE, "node(s) had no available volume zone")}

    def active(self, cycle: Cycle) -> bool:
        return bool(cycle.info.volumes) and bool(wanted_zones(cycle))

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        wanted = wanted_zones(cycle)
        return np.array([_fails(info.labels, wanted) for info in cycle.state.rows(rows)], np.int8)


def wanted_zones(cycle: Cycle) -> list[tuple[str, frozenset[str]]]:
    """(label key, allowed values) of every zone label of every bound volume."""
    known = cycle.memory.get("volume zones")
    if known is None:
        known = cycle.memory["volume zones"] = []
        for name, _ in claim_names(cycle.info):
            claim = claim_of(cycle, name)
            volume = volume_of(cycle, claim) if claim is not None else None
            labels = meta.labels(volume) if volume is not None else {}
            known += [(key, frozenset(labels[key].split("__"))) for key in _KEYS if key in labels]
    found: list[tuple[str, frozenset[str]]] = known
    return found


def zone_of(labels: dict[str, str], key: str) -> str | None:
    """The value of a zone or region label; the newer label stands in for the older."""
    value = labels.get(key)
    return labels.get(_GA.get(key, key)) if value is None else value


def _fails(labels: dict[str, str], wanted: list[tuple[str, frozenset[str]]]) -> bool:
    """A node without any zone or region label is in a cluster without zones: it passes."""
    if not any(key in labels for key in _KEYS):
        return False
    for key, values in wanted:
        value = zone_of(labels, key)
        if value is None or value not in values:
            return True
    return False
