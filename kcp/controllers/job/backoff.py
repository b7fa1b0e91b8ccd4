"""How long a Job waits after failures: 10 s, doubled with each failure in a row, at most 10 min.

Source: k8s v1.36 pkg/controller/job/backoff_utils.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.base.values import frozen
from kcp.controllers.job.indexes import failures_of
from kcp.machinery.times import parse_time

Json = dict[str, Any]
FIRST_S, LONGEST_S = 10.0, 600.0


@frozen
class Record:
    """What a Job remembers about failures: how many since the last success, and when the last was (epoch seconds)."""

    failures: int = 0
    last_s: float = 0.0

    @classmethod
    def read(cls, memo: Json | None) -> Record:
        return cls(memo["failures"], memo["last_s"]) if memo else cls()

    def memo(self) -> Json | None:
        return {"failures": self.failures, "last_s": self.last_s} if self.failures else None

    def after(self, succeeded: Sequence[Json], failed: Sequence[Json]) -> Record:
        """With pods that ended since: a success forgives all failures before it."""
        moments = sorted(finished_at(pod).timestamp() for pod in failed)
        if not succeeded:
            return Record(self.failures + len(moments), moments[-1]) if moments else self
        forgiven = max(finished_at(pod).timestamp() for pod in succeeded)
        since = [moment for moment in moments if moment > forgiven]
        return Record(len(since), since[-1]) if since else Record()

    def left_s(self, now: datetime) -> float:
        return _left_s(self.failures, self.last_s, now)


def index_left_s(failed: Json | None, now: datetime) -> float:
    """How long the index of this failed pod has to wait still."""
    if failed is None:
        return 0.0
    return _left_s(sum(failures_of(failed)) + 1, finished_at(failed).timestamp(), now)


def _left_s(failures: int, last_s: float, now: datetime) -> float:
    if failures == 0:
        return 0.0
    wait_s = min(FIRST_S * 2.0 ** min(failures - 1, 10), LONGEST_S)
    return max(0.0, wait_s - (now.timestamp() - last_s))


def finished_at(pod: Json) -> datetime:
    """When the pod ended: by its containers, its Ready condition, its deletion, else its creation."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ends = [((s.get("state") or {}).get("terminated") or {}).get("finishedAt") for s in statuses]
    if ends and all(ends):
        return max(map(parse_time, ends))
    ready = pod_facts.condition(pod, "Ready")
    if ready is not None and ready["status"] == "False" and ready.get("lastTransitionTime"):
        return parse_time(ready["lastTransitionTime"])
    metadata = pod["metadata"]
    if metadata.get("deletionTimestamp"):
        grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
        return parse_time(metadata["deletionTimestamp"]) - grace
    return parse_time(metadata["creationTimestamp"])
