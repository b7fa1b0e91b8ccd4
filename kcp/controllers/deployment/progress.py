"""The status of a Deployment: counters, availability, progress and its deadline.

Source: k8s v1.36 pkg/controller/deployment/{progress,sync}.go.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.deployment.conditions import (
    deadline_left_s,
    has_progressed,
    has_timed_out,
    is_complete,
    progressing,
    set_condition,
    with_condition,
    without_condition,
)
from kcp.controllers.deployment.rollout import Rollout, total_spec, total_status
from kcp.machinery import meta

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
RESOURCE = "deployments.apps"


def sync_rollout_status(rollout: Rollout) -> Steps:
    """Write the status with progress judged; come back when the deadline may strike."""
    status = counters(rollout)
    if not rollout.has_deadline:
        status = without_condition(status, "Progressing")
    else:
        status = _judge_progress(rollout, status)
    status = _copy_failure(rollout, status)
    if status != rollout.deployment.get("status", {}):
        yield fx.Status(RESOURCE, rollout.deployment, status)
        return
    yield from _await_deadline(rollout, status)


def sync_plain_status(rollout: Rollout) -> Steps:
    """Counters and availability only: while paused, scaling or being deleted."""
    yield fx.Status(RESOURCE, rollout.deployment, counters(rollout))


def counters(rollout: Rollout) -> Json:
    """The counted status; zero counters are absent, as Go's omitempty leaves them."""
    deployment = rollout.deployment
    available = total_status(rollout.all, "availableReplicas")
    counts = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": total_status(rollout.all, "replicas"),
        "updatedReplicas": total_status([rollout.new] if rollout.new else [], "replicas"),
        "readyReplicas": total_status(rollout.all, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(0, total_spec(rollout.all) - available),
        "collisionCount": deployment.get("status", {}).get("collisionCount", 0),
    }
    status: Json = {name: count for name, count in counts.items() if count}
    status["terminatingReplicas"] = total_status(rollout.all, "terminatingReplicas")
    conditions = deployment.get("status", {}).get("conditions")
    if conditions:
        status["conditions"] = conditions
    if available >= rollout.replicas - rollout.max_unavailable:
        ready = ("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        ready = (
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    return set_condition(status, ready, rollout.now)


def _judge_progress(rollout: Rollout, status: Json) -> Json:
    current = progressing(rollout.deployment)
    settled = (
        status.get("replicas", 0) == status.get("updatedReplicas", 0)
        and current is not None
        and current["reason"] == "NewReplicaSetAvailable"
    )
    if settled:
        return status
    subject = (
        f'ReplicaSet "{meta.name(rollout.new)}"'
        if rollout.new
        else f'Deployment "{meta.name(rollout.deployment)}"'
    )
    if is_complete(rollout, status):
        text = f"{subject} has successfully progressed."
        return set_condition(status, ("Progressing", "True", "NewReplicaSetAvailable", text), rollout.now)
    if has_progressed(rollout, status):
        # renewed although it may be equal: the deadline counts from its last update
        condition = ("Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.")
        return with_condition(status, condition, rollout.now)
    if has_timed_out(rollout):
        text = f"{subject} has timed out progressing."
        return set_condition(status, ("Progressing", "False", "ProgressDeadlineExceeded", text), rollout.now)
    return status


def _copy_failure(rollout: Rollout, status: Json) -> Json:
    """ReplicaFailure of a ReplicaSet shows on the Deployment; the new set's comes first."""
    first = [rollout.new] if rollout.new else []
    for rs in [*first, *rollout.old]:
        failure = meta.condition(rs, "ReplicaFailure")
        if failure is not None:
            shown = {**failure, "lastUpdateTime": failure["lastTransitionTime"]}
            current = next((c for c in status.get("conditions", ()) if c["type"] == "ReplicaFailure"), None)
            if current and (current["status"], current["reason"]) == (shown["status"], shown["reason"]):
                return status
            kept = without_condition(status, "ReplicaFailure")
            return {**kept, "conditions": [*kept.get("conditions", ()), shown]}
    return without_condition(status, "ReplicaFailure")


def _await_deadline(rollout: Rollout, status: Json) -> Steps:
    current = progressing(rollout.deployment)
    if not rollout.has_deadline or current is None:
        return
    if is_complete(rollout, status) or current["reason"] == "ProgressDeadlineExceeded":
        return
    yield fx.RequeueAfter(max(deadline_left_s(rollout, current), 0.0) + 1.0)
