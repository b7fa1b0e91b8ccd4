"""Whether the Job is over, and why. The first reason in Kubernetes' order decides.

Source: k8s v1.36 pkg/controller/job/job_controller.go (syncJob).
"""

from __future__ import annotations

from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.controllers.job import indexes
from kcp.controllers.job.policies import judge_failure, success_message
from kcp.controllers.job.state import Sync
from kcp.machinery.times import parse_time

Json = dict[str, Any]
FAILURE, SUCCESS = "FailureTarget", "SuccessCriteriaMet"

_BACKOFF = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
_DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
_MAX_FAILED = (
    "MaxFailedIndexesExceeded",
    "Job has exceeded the specified maximal number of failed indexes",
)
_FAILED_INDEXES = ("FailedIndexes", "Job has failed indexes")
_COMPLETIONS = ("CompletionsReached", "Reached expected number of succeeded pods")


def judge(sync: Sync) -> Json | None:
    """The condition FailureTarget or SuccessCriteriaMet, if the Job has met its end in one way or the other."""
    decided = sync.holds(SUCCESS) or sync.holds(FAILURE)
    if decided is not None:
        return decided
    reason = _failure(sync)
    if reason is not None:
        return sync.new_condition(FAILURE, "True", *reason)
    message = success_message(sync.job, sync.succeeded_indexes) if sync.indexed else ""
    return sync.new_condition(SUCCESS, "True", "SuccessPolicy", message) if message else None


def completed(sync: Sync, active: int) -> Json | None:
    """SuccessCriteriaMet, when all completions are there and nothing runs any more."""
    wanted = 1 if sync.completions is None else sync.completions
    if active or sync.succeeded() < wanted:
        return None
    return sync.new_condition(SUCCESS, "True", *_COMPLETIONS)


def _failure(sync: Sync) -> tuple[str, str] | None:
    for pod in sync.pods:
        message = judge_failure(sync.job, pod).message if sync.is_failed(pod) else ""
        if message:
            return "PodFailurePolicy", message
    if sync.failed() > sync.spec["backoffLimit"] or _restarts_exceed(sync):
        return _BACKOFF
    if (left_s := deadline_left_s(sync)) is not None and left_s <= 0:
        return _DEADLINE
    return _failed_indexes(sync)


def _failed_indexes(sync: Sync) -> tuple[str, str] | None:
    if not sync.failed_indexes:
        return None
    failed, most = indexes.total(sync.failed_indexes), sync.spec.get("maxFailedIndexes")
    if most is not None and failed > most:
        return _MAX_FAILED
    if failed + indexes.total(sync.succeeded_indexes) >= (sync.completions or 0):
        return _FAILED_INDEXES
    return None


def _restarts_exceed(sync: Sync) -> bool:
    """With restartPolicy OnFailure restarts count instead of pods."""
    if pod_facts.restart_policy(sync.spec["template"]) != "OnFailure":
        return False
    restarts = sum(
        entry.get("restartCount", 0)
        for pod in sync.pods
        if pod_facts.phase(pod) in ("Running", "Pending")
        for field in ("initContainerStatuses", "containerStatuses")
        for entry in (pod.get("status") or {}).get(field) or ()
    )
    limit = sync.spec["backoffLimit"]
    return bool(restarts > 0 if limit == 0 else restarts >= limit)


def deadline_left_s(sync: Sync) -> float | None:
    """Seconds until activeDeadlineSeconds are over; None when none runs."""
    seconds, start = sync.spec.get("activeDeadlineSeconds"), sync.status.get("startTime")
    if seconds is None or not start or sync.suspended:
        return None
    return float(seconds - (sync.now - parse_time(start)).total_seconds())
