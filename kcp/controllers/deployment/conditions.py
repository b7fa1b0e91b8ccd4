"""Conditions of a Deployment: setting them without needless changes, and judging progress.

Source: k8s v1.36 pkg/controller/deployment/{progress.go,util/deployment_util.go}.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from kcp.controllers.deployment.rollout import Rollout
from kcp.machinery import meta
from kcp.machinery.times import format_time, parse_time

Json = dict[str, Any]
Condition = tuple[str, str, str, str]
"""(type, status, reason, message)"""


def progressing(deployment: Json) -> Json | None:
    return meta.condition(deployment, "Progressing")


def set_condition(status: Json, condition: Condition, now: datetime) -> Json:
    """A status with the condition; unchanged when status and reason stay as they are."""
    type_, value, reason, _ = condition
    current = _find(status, type_)
    if current is not None and current["status"] == value and current["reason"] == reason:
        return status
    return with_condition(status, condition, now)


def with_condition(status: Json, condition: Condition, now: datetime) -> Json:
    """A status with the condition replaced; its transition time moves only with its status."""
    type_, value, reason, message = condition
    current = _find(status, type_)
    stamp = format_time(now)
    moved = stamp if current is None or current["status"] != value else current["lastTransitionTime"]
    entry = {
        "type": type_,
        "status": value,
        "lastUpdateTime": stamp,
        "lastTransitionTime": moved,
        "reason": reason,
        "message": message,
    }
    return {**status, "conditions": [*without_condition(status, type_).get("conditions", ()), entry]}


def without_condition(status: Json, type_: str) -> Json:
    kept = [c for c in status.get("conditions", ()) if c["type"] != type_]
    bare = {k: v for k, v in status.items() if k != "conditions"}
    return {**bare, "conditions": kept} if kept else bare


def _find(status: Json, type_: str) -> Json | None:
    return next((c for c in status.get("conditions", ()) if c["type"] == type_), None)


def is_complete(rollout: Rollout, status: Json) -> bool:
    wanted = rollout.replicas
    counters = ("updatedReplicas", "replicas", "availableReplicas")
    return all(status.get(c, 0) == wanted for c in counters) and status.get(
        "observedGeneration", 0
    ) >= rollout.deployment["metadata"].get("generation", 0)


def has_progressed(rollout: Rollout, status: Json) -> bool:
    """Whether `status` shows a step forward from what the Deployment has recorded."""
    before = rollout.deployment.get("status", {})

    def of(counters: Json, name: str) -> int:
        return int(counters.get(name, 0))

    old_before = of(before, "replicas") - of(before, "updatedReplicas")
    old_now = of(status, "replicas") - of(status, "updatedReplicas")
    grown = any(
        of(status, c) > of(before, c) for c in ("updatedReplicas", "availableReplicas", "readyReplicas")
    )
    return grown or old_now < old_before


def has_timed_out(rollout: Rollout) -> bool:
    current = progressing(rollout.deployment)
    if not rollout.has_deadline or current is None or current["reason"] == "NewReplicaSetAvailable":
        return False
    if current["reason"] == "ProgressDeadlineExceeded":
        return True
    return deadline_left_s(rollout, current) < 0


def deadline_left_s(rollout: Rollout, condition: Json) -> float:
    """Seconds until the progress deadline, counted from the condition's last update."""
    since = parse_time(condition["lastUpdateTime"])
    due = since + timedelta(seconds=rollout.spec["progressDeadlineSeconds"])
    return (due - rollout.now).total_seconds()
