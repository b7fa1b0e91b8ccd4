"""Taints and tolerations.

Source: k8s v1.36 api/core/v1/toleration.go, component-helpers/scheduling/corev1/helpers.go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

Json = dict[str, Any]

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
MEMORY_PRESSURE = "node.kubernetes.io/memory-pressure"
DISK_PRESSURE = "node.kubernetes.io/disk-pressure"
PID_PRESSURE = "node.kubernetes.io/pid-pressure"
NETWORK_UNAVAILABLE = "node.kubernetes.io/network-unavailable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
CLOUD_UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
CLOUD_SHUTDOWN = "node.cloudprovider.kubernetes.io/shutdown"

NO_SCHEDULE, PREFER_NO_SCHEDULE, NO_EXECUTE = "NoSchedule", "PreferNoSchedule", "NoExecute"
HARD_EFFECTS = (NO_SCHEDULE, NO_EXECUTE)


def taints(node: Json) -> list[Json]:
    found: list[Json] = (node.get("spec") or {}).get("taints") or []
    return found


def tolerations(pod: Json) -> list[Json]:
    found: list[Json] = (pod.get("spec") or {}).get("tolerations") or []
    return found


def same_taint(one: Json, other: Json) -> bool:
    """Equal key and effect: a node has at most one such taint, its value does not count."""
    return one.get("key") == other.get("key") and one.get("effect") == other.get("effect")


def tolerates(toleration: Json, taint: Json) -> bool:
    """An empty effect tolerates all effects, an empty key (with Exists) all keys."""
    effect, key = toleration.get("effect"), toleration.get("key")
    if effect and effect != taint.get("effect"):
        return False
    if key and key != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Equal":
        return (toleration.get("value") or "") == (taint.get("value") or "")
    return bool(operator == "Exists")


def is_tolerated(taint: Json, by: Iterable[Json]) -> bool:
    return any(tolerates(toleration, taint) for toleration in by)


def find_untolerated(
    of_node: Iterable[Json], by: Sequence[Json], effects: Collection[str] = HARD_EFFECTS
) -> Json | None:
    """The first taint of one of `effects` that nothing tolerates."""
    for taint in of_node:
        if taint.get("effect") in effects and not is_tolerated(taint, by):
            return taint
    return None


def count_intolerable_prefer(of_node: Iterable[Json], by: Iterable[Json]) -> int:
    """How many PreferNoSchedule taints are not tolerated, by tolerations of that or of no effect."""
    relevant = [toleration for toleration in by if toleration.get("effect") in (None, "", PREFER_NO_SCHEDULE)]
    return sum(
        1
        for taint in of_node
        if taint.get("effect") == PREFER_NO_SCHEDULE and not is_tolerated(taint, relevant)
    )


def min_toleration_s(of_node: Iterable[Json], by: Sequence[Json]) -> float | None:
    """How many seconds a pod with these tolerations stays on a node with these NoExecute taints.

    None: forever. 0: not at all. Source: pkg/controller/tainteviction/taint_eviction.go.
    """
    shortest: float | None = None
    for taint in of_node:
        if taint.get("effect") != NO_EXECUTE:
            continue
        matching = [toleration for toleration in by if tolerates(toleration, taint)]
        if not matching:
            return 0.0
        for toleration in matching:
            seconds = toleration.get("tolerationSeconds")
            if seconds is not None and (shortest is None or seconds < shortest):
                shortest = max(0.0, float(seconds))
    return shortest


def add_toleration(of_pod: Sequence[Json], toleration: Json) -> list[Json]:
    """With the toleration added, replacing one of the same key, operator, effect and value."""
    same = _same_toleration(toleration)
    return [*(entry for entry in of_pod if not same(entry)), toleration]


def _same_toleration(toleration: Json) -> Callable[[Json], bool]:
    def identity(entry: Json) -> tuple[str, str, str, str]:
        operator = entry.get("operator") or "Equal"
        return entry.get("key") or "", operator, entry.get("effect") or "", entry.get("value") or ""

    wanted = identity(toleration)
    return lambda entry: identity(entry) == wanted


def has_taint(node: Json, key: str, effect: str | None = None) -> bool:
    return any(
        taint.get("key") == key and (effect is None or taint.get("effect") == effect)
        for taint in taints(node)
    )
