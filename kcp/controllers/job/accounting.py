"""Counting every pod exactly once: its uid goes into the status, then its finalizer goes, then the counter rises.

A crash between any two of these writes leaves a state from which the next plan goes on.
Source: k8s v1.36 pkg/controller/job/job_controller.go (trackJobStatusAndRemoveFinalizers).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.controllers import effects as fx
from kcp.controllers.job import indexes
from kcp.controllers.job.policies import judge_failure
from kcp.controllers.job.state import FINALIZER, Sync, is_tracked
from kcp.controllers.job.verdict import FAILURE, SUCCESS
from kcp.controllers.replicas import drop_finalizer
from kcp.machinery import meta
from kcp.machinery.errors import NotFound
from kcp.machinery.times import format_time

Json = dict[str, Any]
RESOURCE = "jobs.batch"
MAX_UNCOUNTED = 500
"""How many uids the status holds at most, and how many pods one plan counts."""


def account(sync: Sync) -> Generator[fx.Effect, fx.Outcome, bool]:
    """Write the status, drop the finalizers, write the counters; whether the first write went through."""
    tracked = {meta.uid(pod) for pod in sync.pods if is_tracked(pod)}
    _count(sync, tracked)
    counted, full = _pick(sync)
    if sync.verdict is not None and sync.holds(sync.verdict["type"]) is None:
        sync.set_condition(sync.verdict)
    if not (yield from _flush(sync)):
        return False
    if counted:
        outcome = yield fx.All([drop_finalizer("pods", pod, FINALIZER) for pod in counted])
        for pod, part in zip(counted, outcome.all, strict=True):
            if part.ok or isinstance(part.error, NotFound):
                tracked.discard(meta.uid(pod))
        _count(sync, tracked)
    event = None if full else _finish(sync)
    if (yield from _flush(sync)) and event is not None:
        if _too_many(sync):
            text = "Too many succeeded pods running after completion count reached"
            yield fx.Event(sync.job, "Warning", "TooManySucceededPods", text)
        yield event
    return True


def _flush(sync: Sync) -> Generator[fx.Effect, fx.Outcome, bool]:
    outcome = yield fx.Status(RESOURCE, sync.job, sync.status)
    if outcome.ok and outcome.object is not None:
        sync.job = outcome.object
    return outcome.ok


def _count(sync: Sync, tracked: set[str]) -> None:
    """Uids whose finalizer is gone leave the list and become numbers."""
    status, uncounted = dict(sync.status), {}
    for field in ("succeeded", "failed"):
        uids = sync.uncounted.get(field) or ()
        waiting = [uid for uid in uids if uid in tracked]
        if waiting:
            uncounted[field] = waiting
        if len(waiting) < len(uids):
            status[field] = (status.get(field) or 0) + len(uids) - len(waiting)
    sync.status = {**status, "uncountedTerminatedPods": uncounted}


def _pick(sync: Sync) -> tuple[list[Json], bool]:
    """Pods whose finalizer may go, their uids noted in the status; whether more are left for the next plan."""
    picked: list[Json] = []
    succeeded = list(sync.uncounted.get("succeeded") or ())
    failed = list(sync.uncounted.get("failed") or ())
    new_indexes: list[int] = []
    full = False
    for pod in sorted(sync.pods, key=indexes.index_of) if sync.indexed else sync.pods:
        if not is_tracked(pod) or not _may_go(sync, pod):
            continue
        picked.append(pod)
        if pod_facts.phase(pod) == "Succeeded" and meta.uid(pod) not in failed:
            _note_success(sync, pod, succeeded, new_indexes)
        elif _counts_as_failed(sync, pod) and meta.uid(pod) not in failed:
            failed.append(meta.uid(pod))
        if len(new_indexes) + len(succeeded) + len(failed) >= MAX_UNCOUNTED:
            full = True
            break
    uncounted = {f: uids for f, uids in (("succeeded", succeeded), ("failed", failed)) if uids}
    sync.status = {**sync.status, "uncountedTerminatedPods": uncounted}
    if sync.indexed:
        _write_indexes(sync, new_indexes)
    return picked, full


def _note_success(sync: Sync, pod: Json, succeeded: list[str], new_indexes: list[int]) -> None:
    """An index is enough to count a pod of an Indexed job only once; others are known by uid."""
    if not sync.indexed:
        if meta.uid(pod) not in succeeded:
            succeeded.append(meta.uid(pod))
    elif sync.has_valid_index(pod) and not indexes.contains(sync.succeeded_before, indexes.index_of(pod)):
        new_indexes.append(indexes.index_of(pod))


def _may_go(sync: Sync, pod: Json) -> bool:
    over = meta.is_deleting(sync.job) or sync.verdict is not None
    if over or pod_facts.phase(pod) == "Succeeded":
        return True
    if not sync.is_failed(pod):
        return False
    held = sync.held.get(indexes.index_of(pod))
    return held is None or meta.uid(held) != meta.uid(pod)


def _counts_as_failed(sync: Sync, pod: Json) -> bool:
    """Failed pods, and all pods that a failed Job still had."""
    lost = sync.verdict is not None and sync.verdict["type"] == FAILURE
    if not (sync.is_failed(pod) or lost) or (sync.indexed and not sync.has_valid_index(pod)):
        return False
    return judge_failure(sync.job, pod).counts


def _write_indexes(sync: Sync, new_indexes: Sequence[int]) -> None:
    done = indexes.merge(sync.succeeded_before, indexes.of_numbers(new_indexes))
    status = {k: v for k, v in sync.status.items() if k not in ("succeeded", "completedIndexes")}
    if done:
        status |= {"succeeded": indexes.total(done), "completedIndexes": indexes.text(done)}
    if sync.failed_indexes is not None:
        status["failedIndexes"] = indexes.text(sync.failed_indexes)
    sync.status = status


def _finish(sync: Sync) -> fx.Event | None:
    """Put in the terminal condition once nothing is uncounted and nothing terminates; the event to tell it."""
    if sync.verdict is None or sync.uncounted or sync.terminating:
        return None
    won = sync.verdict["type"] == SUCCESS
    reason, message = sync.verdict["reason"], sync.verdict["message"]
    sync.set_condition(sync.new_condition("Complete" if won else "Failed", "True", reason, message))
    if won:
        sync.status = {**sync.status, "completionTime": _completion_time(sync)}
        return fx.Event(sync.job, "Normal", "Completed", "Job completed")
    return fx.Event(sync.job, "Warning", reason, message)


def _completion_time(sync: Sync) -> str:
    """Now, but not before its start, which the API refuses: the clock may have been set back meanwhile."""
    now = format_time(sync.now)
    return max(now, sync.status.get("startTime") or now)


def _too_many(sync: Sync) -> bool:
    return (
        sync.verdict is not None
        and sync.verdict["type"] == SUCCESS
        and sync.completions is not None
        and (sync.status.get("succeeded") or 0) > sync.completions
    )
