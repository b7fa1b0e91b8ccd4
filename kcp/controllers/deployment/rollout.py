"""What one plan of a Deployment knows: the deployment, its ReplicaSets, and the arithmetic between them.

Source: k8s v1.36 pkg/controller/deployment/util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs

from kcp.apis.semantics import workloads
from kcp.machinery import meta

Json = dict[str, Any]

ROLLBACK_TO = "deprecated.deployment.rollback.to"
NO_DEADLINE = 2**31 - 1


@attrs.define
class Rollout:
    """Owned by the plan that made it. `sets` holds the ReplicaSets as last seen or written by this plan."""

    deployment: Json
    sets: list[Json]
    now: datetime
    new: Json | None = None

    @property
    def spec(self) -> Json:
        return self.deployment["spec"]  # type: ignore[no-any-return]

    @property
    def replicas(self) -> int:
        return workloads.replicas(self.deployment)

    @property
    def rolling(self) -> bool:
        return bool(self.spec.get("strategy", {}).get("type", "RollingUpdate") == "RollingUpdate")

    @property
    def old(self) -> list[Json]:
        new_uid = meta.uid(self.new) if self.new else ""
        return [rs for rs in self.sets if meta.uid(rs) != new_uid]

    @property
    def all(self) -> list[Json]:
        return [*self.old, self.new] if self.new else self.old

    @property
    def max_surge(self) -> int:
        return workloads.max_surge(self.deployment)

    @property
    def max_unavailable(self) -> int:
        """0 unless rolling; never more than the replicas."""
        return workloads.max_unavailable(self.deployment)

    @property
    def has_deadline(self) -> bool:
        deadline = self.spec.get("progressDeadlineSeconds")
        return deadline is not None and deadline != NO_DEADLINE

    def put(self, rs: Json) -> None:
        """Remember the newest form of a ReplicaSet that this plan wrote."""
        uid = meta.uid(rs)
        self.sets = [s for s in self.sets if meta.uid(s) != uid] + [rs]
        if self.new is not None and meta.uid(self.new) == uid:
            self.new = rs

    def find_new(self) -> Json | None:
        """The ReplicaSet of the present template: equal but for the hash label; the oldest of several."""
        template = self.spec["template"]
        matching = [rs for rs in self.sets if workloads.equal_templates(rs["spec"]["template"], template)]
        return min(matching, key=by_creation) if matching else None


def by_creation(rs: Json) -> tuple[str, str]:
    return rs["metadata"].get("creationTimestamp") or "", meta.name(rs)


def total_spec(sets: Sequence[Json]) -> int:
    return sum(workloads.replicas(rs) for rs in sets)


def total_status(sets: Sequence[Json], counter: str) -> int:
    return sum(rs.get("status", {}).get(counter, 0) for rs in sets)


def active(sets: Sequence[Json]) -> list[Json]:
    return [rs for rs in sets if workloads.replicas(rs) > 0]
