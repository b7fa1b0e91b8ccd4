"""Which taints a node should carry, by its conditions. Source: k8s v1.36 pkg/controller/nodelifecycle."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kcp.machinery import meta
from kcp.machinery.times import format_time

Json = dict[str, Any]
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

BY_CONDITION: tuple[tuple[str, str, str], ...] = (
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
)
"""(condition, status, taint key) for the NoSchedule taints."""
MANAGED = frozenset(key for _, _, key in BY_CONDITION) | {UNSCHEDULABLE}


def readiness(node: Json) -> str:
    """`True`, `False` or `Unknown`; a node that never said anything is Unknown."""
    condition = meta.condition(node, "Ready")
    return condition["status"] if condition else "Unknown"


def no_schedule_keys(node: Json) -> list[str]:
    keys = []
    for type_, status, key in BY_CONDITION:
        condition = meta.condition(node, type_)
        if condition is not None and condition["status"] == status:
            keys.append(key)
    if node["spec"].get("unschedulable"):
        keys.append(UNSCHEDULABLE)
    return keys


def no_execute_key(node: Json) -> str:
    """The NoExecute taint that fits the node's readiness; empty for a ready node."""
    return {"True": "", "False": NOT_READY}.get(readiness(node), UNREACHABLE)


def current_no_execute(node: Json) -> list[str]:
    return [
        t["key"]
        for t in node["spec"].get("taints", ())
        if t["effect"] == "NoExecute" and t["key"] in (NOT_READY, UNREACHABLE)
    ]


def with_taints(
    node: Json, effect: str, managed: Sequence[str], wanted: Sequence[str], now: datetime
) -> list[Json]:
    """The node's taints with the managed keys of one effect replaced; a kept taint keeps its timeAdded."""
    current = node["spec"].get("taints", [])
    kept = [t for t in current if t["effect"] != effect or t["key"] not in managed or t["key"] in wanted]
    have = {t["key"] for t in kept if t["effect"] == effect}
    added = [
        {"key": key, "effect": effect, "timeAdded": format_time(now)} for key in wanted if key not in have
    ]
    return [*kept, *added]
