"""Changing the size of ReplicaSets, and proportional scaling while several are active.

Source: k8s v1.36 pkg/controller/deployment/{sync.go,util/replicaset_util.go}.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from kcp.apis.semantics import workloads
from kcp.controllers import effects as fx
from kcp.controllers.deployment.revisions import RESOURCE, replica_annotations, scaling_event
from kcp.controllers.deployment.rollout import (
    Rollout,
    active,
    by_creation,
    total_spec,
)
from kcp.machinery import meta

Json = dict[str, Any]
Scaled = Generator[fx.Effect, fx.Outcome, bool]
Steps = Generator[fx.Effect, fx.Outcome, None]


def scale_to(rollout: Rollout, rs: Json, size: int) -> Scaled:
    """Give a ReplicaSet this size, with its event; False when it has it already."""
    if workloads.replicas(rs) == size:
        return False
    return (yield from resize(rollout, rs, size))


def resize(rollout: Rollout, rs: Json, size: int) -> Scaled:
    """Write size and replica annotations if either differs; True when the size changed."""
    before = workloads.replicas(rs)
    wanted = replica_annotations(rollout)
    annotations = meta.annotations(rs)
    if before == size and all(annotations.get(k) == v for k, v in wanted.items()):
        return False
    changed = {
        **rs,
        "metadata": {**rs["metadata"], "annotations": {**annotations, **wanted}},
        "spec": {**rs["spec"], "replicas": size},
    }
    outcome = yield fx.Update(RESOURCE, changed)
    if not outcome.ok or outcome.object is None:
        return before != size
    rollout.put(outcome.object)
    if before != size:
        yield scaling_event(rollout.deployment, rs, before, size)
    return before != size


def is_scaling_event(rollout: Rollout) -> bool:
    """Whether some active ReplicaSet was last sized for another number of replicas.

    Recreate with several active ones (adopted, or left by another strategy) is none: `scale` sizes none of them, so as
    a scaling event it would stay one for ever. The rollout takes the old ones down and sizes the new one.
    """
    busy = active(rollout.all)
    if not rollout.rolling and len(busy) > 1:
        return False
    for rs in busy:
        desired = workloads.annotated_replicas(rs, workloads.DESIRED_REPLICAS)
        if desired is not None and desired != rollout.replicas:
            return True
    return False


def scale(rollout: Rollout) -> Steps:
    """Bring the ReplicaSets to the Deployment's size without rolling anything out."""
    only = _active_or_latest(rollout)
    if only is not None:
        yield from scale_to(rollout, only, rollout.replicas)
    elif _is_saturated(rollout):
        for rs in active(rollout.old):
            yield from scale_to(rollout, rs, 0)
    elif rollout.rolling:
        for rs, size in proportions(rollout):
            yield from resize(rollout, rs, size)


def _active_or_latest(rollout: Rollout) -> Json | None:
    """The only active ReplicaSet, or the newest when none is active; None when several are."""
    busy = active(rollout.all)
    if len(busy) > 1:
        return None
    if busy:
        return busy[0]
    if rollout.new is not None:
        return rollout.new
    return max(rollout.old, key=by_creation, default=None)


def _is_saturated(rollout: Rollout) -> bool:
    if rollout.new is None:
        return False
    wanted = rollout.replicas
    available = rollout.new.get("status", {}).get("availableReplicas", 0)
    sizes = {
        workloads.replicas(rollout.new),
        available,
        workloads.annotated_replicas(rollout.new, workloads.DESIRED_REPLICAS),
    }
    return sizes == {wanted}


def proportions(rollout: Rollout) -> list[tuple[Json, int]]:
    """New sizes of the active ReplicaSets: each its share, the remainder to the first."""
    sets = active(rollout.all)
    allowed = rollout.replicas + rollout.max_surge if rollout.replicas > 0 else 0
    to_add = allowed - total_spec(sets)
    sets.sort(key=by_creation, reverse=to_add > 0)
    sets.sort(key=workloads.replicas, reverse=True)
    added, sizes = 0, []
    for rs in sets:
        share = _share(rollout, rs, to_add, added)
        added += share
        sizes.append(workloads.replicas(rs) + share)
    if sizes and to_add:
        sizes[0] = max(0, sizes[0] + to_add - added)
    return list(zip(sets, sizes, strict=True))


def _share(rollout: Rollout, rs: Json, to_add: int, added: int) -> int:
    if to_add == added:
        return 0
    fraction = _fraction(rollout, rs)
    return min(fraction, to_add - added) if to_add > 0 else max(fraction, to_add - added)


def _fraction(rollout: Rollout, rs: Json) -> int:
    """How much a ReplicaSet would change if its share of the whole stayed the same."""
    size = workloads.replicas(rs)
    if rollout.replicas == 0:
        return -size
    before = (
        workloads.annotated_replicas(rs, workloads.MAX_REPLICAS)
        or rollout.deployment.get("status", {}).get("replicas", 0)
        or 1
    )
    return _round_half_away(size * (rollout.replicas + rollout.max_surge), before) - size


def _round_half_away(numerator: int, denominator: int) -> int:
    """Go's math.Round of a quotient of non-negative integers."""
    return (2 * numerator + denominator) // (2 * denominator)
