"""RollingUpdate: one step a plan, never below minimum availability, never above the surge.

Source: k8s v1.36 pkg/controller/deployment/rolling.go.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from kcp.apis.semantics import workloads
from kcp.controllers import effects as fx
from kcp.controllers.deployment.conditions import is_complete
from kcp.controllers.deployment.progress import sync_rollout_status
from kcp.controllers.deployment.revisions import clean_up, new_set_replicas, sync_revision
from kcp.controllers.deployment.rollout import (
    Rollout,
    active,
    by_creation,
    total_spec,
    total_status,
)
from kcp.controllers.deployment.scaling import Scaled, scale_to

Json = dict[str, Any]


def roll(rollout: Rollout) -> Generator[fx.Effect, fx.Outcome, None]:
    yield from sync_revision(rollout, create=True)
    if rollout.new is None:
        return
    scaled = (yield from _grow_new(rollout)) or (yield from _shrink_old(rollout))
    if not scaled and is_complete(rollout, rollout.deployment.get("status", {})):
        yield from clean_up(rollout)
    yield from sync_rollout_status(rollout)


def _grow_new(rollout: Rollout) -> Scaled:
    assert rollout.new is not None
    if workloads.replicas(rollout.new) > rollout.replicas:
        return (yield from scale_to(rollout, rollout.new, rollout.replicas))
    return (yield from scale_to(rollout, rollout.new, new_set_replicas(rollout, rollout.new, rollout.all)))


def _shrink_old(rollout: Rollout) -> Scaled:
    old = active(rollout.old)
    if not old:
        return False
    assert rollout.new is not None
    new_unavailable = workloads.replicas(rollout.new) - rollout.new.get("status", {}).get(
        "availableReplicas", 0
    )
    min_available = rollout.replicas - rollout.max_unavailable
    room = total_spec(rollout.all) - min_available - new_unavailable
    if room <= 0:
        return False
    unhealthy = yield from _drop_unhealthy(rollout, room)
    healthy = yield from _drop_healthy(rollout, min_available)
    return unhealthy or healthy


def _drop_unhealthy(rollout: Rollout, room: int) -> Scaled:
    """Old replicas that are not available go first: dropping them costs no availability."""
    dropped = 0
    for rs in sorted(active(rollout.old), key=by_creation):
        sick = workloads.replicas(rs) - rs.get("status", {}).get("availableReplicas", 0)
        count = min(room - dropped, sick)
        if count > 0:
            yield from scale_to(rollout, rs, workloads.replicas(rs) - count)
            dropped += count
    return dropped > 0


def _drop_healthy(rollout: Rollout, min_available: int) -> Scaled:
    surplus = total_status(rollout.all, "availableReplicas") - min_available
    dropped = 0
    for rs in sorted(active(rollout.old), key=by_creation):
        count = min(workloads.replicas(rs), surplus - dropped)
        if count > 0:
            yield from scale_to(rollout, rs, workloads.replicas(rs) - count)
            dropped += count
    return dropped > 0
