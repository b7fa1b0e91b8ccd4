"""What one plan of a Job knows: its pods sorted out, its counters as they stand, its verdict so far.

Source: k8s v1.36 pkg/controller/job/job_controller.go (syncJobCtx).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import attrs

from kcp.apis.semantics import pods as pod_facts
from kcp.controllers.job import indexes
from kcp.controllers.job.backoff import finished_at
from kcp.controllers.job.policies import judge_failure
from kcp.machinery import meta
from kcp.machinery.times import format_time

Json = dict[str, Any]
FINALIZER = "batch.kubernetes.io/job-tracking"


@attrs.define
class Sync:
    """Owned by the plan that made it. `status` is what will be written; `job` is the object as last read or written."""

    job: Json
    pods: Sequence[Json]
    now: datetime
    status: Json = attrs.field(init=False)
    active: list[Json] = attrs.field(init=False)
    terminating: int = attrs.field(init=False)
    ready: int = attrs.field(init=False)
    verdict: Json | None = None
    """The condition that ends the Job: FailureTarget or SuccessCriteriaMet."""
    succeeded_before: indexes.Intervals = ()
    succeeded_indexes: indexes.Intervals = ()
    failed_indexes: indexes.Intervals | None = None
    held: dict[int, Json] = attrs.field(factory=dict)
    """By index: the failed pod that keeps its finalizer until its replacement is there."""

    def __attrs_post_init__(self) -> None:
        status = dict(self.job.get("status") or {})
        self.status = {**status, "uncountedTerminatedPods": status.get("uncountedTerminatedPods") or {}}
        self.active = [pod for pod in self.pods if pod_facts.is_active(pod)]
        self.terminating = sum(map(pod_facts.is_terminating, self.pods))
        self.ready = sum(map(pod_facts.is_ready, self.active))
        if self.indexed:
            self._sort_out_indexes()

    def _sort_out_indexes(self) -> None:
        """Indexes that succeeded or failed: those in the status, and those of pods that are not counted yet."""
        before = self.job.get("status") or {}
        self.succeeded_before = indexes.parse(before.get("completedIndexes"), self.completions or 0)
        valid = [p for p in self.pods if is_tracked(p) and self.has_valid_index(p)]
        new = [indexes.index_of(p) for p in valid if pod_facts.phase(p) == "Succeeded"]
        self.succeeded_indexes = indexes.merge(self.succeeded_before, indexes.of_numbers(new))
        if not self.per_index:
            return
        failed = [indexes.index_of(p) for p in valid if self._fails_its_index(p)]
        known = indexes.parse(before.get("failedIndexes"), self.completions or 0)
        self.failed_indexes = indexes.merge(known, indexes.of_numbers(failed))
        self._hold_failed(valid)

    def _hold_failed(self, valid: Sequence[Json]) -> None:
        settled = indexes.merge(
            self.succeeded_indexes, self.failed_indexes or (), indexes.indexes_of(self.active)
        )

        def order(pod: Json) -> tuple[int, datetime]:
            return sum(indexes.failures_of(pod)), finished_at(pod)

        for pod in valid:
            index = indexes.index_of(pod)
            if not self.is_failed(pod) or indexes.contains(settled, index):
                continue
            if index not in self.held or order(self.held[index]) <= order(pod):
                self.held[index] = pod

    @property
    def spec(self) -> Json:
        return self.job["spec"]  # type: ignore[no-any-return]

    @property
    def completions(self) -> int | None:
        return self.spec.get("completions")

    @property
    def indexed(self) -> bool:
        return bool(self.spec.get("completionMode") == "Indexed")

    @property
    def per_index(self) -> bool:
        return self.spec.get("backoffLimitPerIndex") is not None

    @property
    def suspended(self) -> bool:
        return bool(self.spec.get("suspend"))

    @property
    def replaces_only_failed(self) -> bool:
        """Pods on their way out are neither failed nor replaced until they have ended."""
        return (
            self.spec.get("podReplacementPolicy") == "Failed" or self.spec.get("podFailurePolicy") is not None
        )

    @property
    def uncounted(self) -> Json:
        uncounted: Json = self.status["uncountedTerminatedPods"]
        return uncounted

    def has_valid_index(self, pod: Json) -> bool:
        return 0 <= indexes.index_of(pod) < (self.completions or 0)

    def is_failed(self, pod: Json) -> bool:
        if pod_facts.phase(pod) == "Failed":
            return True
        if self.replaces_only_failed:
            return False
        return meta.is_deleting(pod) and pod_facts.phase(pod) != "Succeeded"

    def _fails_its_index(self, pod: Json) -> bool:
        if not self.is_failed(pod):
            return False
        verdict = judge_failure(self.job, pod)
        if verdict.action == "FailIndex":
            return True
        return verdict.counts and indexes.failures_of(pod)[0] >= self.spec["backoffLimitPerIndex"]

    def newly(self, known: str, ended: Callable[[Json], bool]) -> list[Json]:
        """Pods that have ended and are in no counter yet."""
        uids = frozenset(self.uncounted.get(known) or ())
        return [
            pod
            for pod in self.pods
            if is_tracked(pod)
            and meta.uid(pod) not in uids
            and (not self.indexed or self.has_valid_index(pod))
            and ended(pod)
        ]

    def newly_succeeded(self) -> list[Json]:
        return self.newly("succeeded", lambda pod: pod_facts.phase(pod) == "Succeeded")

    def newly_failed(self) -> list[Json]:
        return self.newly("failed", self.is_failed)

    def succeeded(self) -> int:
        """All that succeeded, counted or not."""
        if self.indexed:
            return indexes.total(self.succeeded_indexes)
        waiting = len(self.uncounted.get("succeeded") or ())
        return (self.status.get("succeeded") or 0) + waiting + len(self.newly_succeeded())

    def failed(self) -> int:
        """All that failed and count."""
        counting = [pod for pod in self.newly_failed() if judge_failure(self.job, pod).counts]
        return (self.status.get("failed") or 0) + len(self.uncounted.get("failed") or ()) + len(counting)

    def condition(self, type_: str) -> Json | None:
        """The condition of that type in the status to be, whatever its value."""
        return next((c for c in self.status.get("conditions") or () if c["type"] == type_), None)

    def holds(self, type_: str) -> Json | None:
        current = self.condition(type_)
        return current if current is not None and current["status"] == "True" else None

    def set_condition(self, condition: Json) -> bool:
        """Put a condition into the status to be; whether that changed anything. False is never put in first."""
        current = self.condition(condition["type"])
        if current is None and condition["status"] == "False":
            return False
        facts = ("status", "reason", "message")
        if current is not None and all(current.get(f, "") == condition.get(f, "") for f in facts):
            return False
        conditions = list(self.status.get("conditions") or ())
        if current is None:
            conditions.append(condition)
        else:
            conditions[conditions.index(current)] = condition
        self.status = {**self.status, "conditions": conditions}
        return True

    def new_condition(self, type_: str, status: str, reason: str, message: str) -> Json:
        stamp = format_time(self.now)
        return {
            "type": type_,
            "status": status,
            "lastProbeTime": stamp,
            "lastTransitionTime": stamp,
            "reason": reason,
            "message": message,
        }


def is_tracked(pod: Json) -> bool:
    """Whether the pod still waits to be counted."""
    return FINALIZER in meta.finalizers(pod)


def is_finished(job: Json) -> bool:
    return meta.condition_is(job, "Complete") or meta.condition_is(job, "Failed")
