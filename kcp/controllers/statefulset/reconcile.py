"""Towards the wanted pods: create, wait, condemn, update; in order or all at once.

Source: k8s v1.36 pkg/controller/statefulset/stateful_set_control.go (updateStatefulSet).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics.workloads import replicas
from kcp.base.values import frozen
from kcp.controllers import effects as fx
from kcp.controllers.replicas import BURST_REPLICAS
from kcp.controllers.statefulset import claims, identity, members
from kcp.controllers.statefulset.revisions import Revisions
from kcp.machinery import meta
from kcp.machinery.intstr import scaled_value

Json = dict[str, Any]
GoOn = Generator[fx.Effect, fx.Outcome, bool]
"""Whether there is more to do in this plan."""


@frozen
class Lineup:
    """The set's pods by their place. `wanted` holds one pod per ordinal; those without uid are to be created."""

    set: Json
    wanted: Sequence[Json]
    condemned: Sequence[Json]
    """Highest ordinal first."""
    now: datetime

    @property
    def ordered(self) -> bool:
        return bool(self.set["spec"].get("podManagementPolicy") != "Parallel")

    def is_available(self, pod: Json) -> bool:
        min_ready_s = self.set["spec"].get("minReadySeconds") or 0
        return identity.is_running_and_ready(pod) and pod_facts.is_available(pod, min_ready_s, self.now)

    def is_unavailable(self, pod: Json) -> bool:
        """Missing, not ready long enough, or on its way out."""
        return not self.is_available(pod) or meta.is_deleting(pod)

    def first_unavailable(self) -> Json | None:
        return next((p for p in (*self.wanted, *reversed(self.condemned)) if self.is_unavailable(p)), None)


def line_up(set_: Json, pods: Sequence[Json], revisions: Revisions, now: datetime) -> Lineup:
    start = identity.start_ordinal(set_)
    present = {identity.ordinal(pod): pod for pod in pods if identity.in_range(set_, pod)}
    wanted = [present.get(n) or _made(set_, revisions, n) for n in range(start, start + replicas(set_))]
    outside = [p for p in pods if identity.ordinal(p) >= 0 and not identity.in_range(set_, p)]
    return Lineup(set_, wanted, sorted(outside, key=identity.ordinal, reverse=True), now)


def _made(set_: Json, revisions: Revisions, number: int) -> Json:
    old = identity.needs_current_revision(set_, number)
    return identity.new_pod(set_, revisions.current if old else revisions.update, number)


def reconcile(lineup: Lineup, update_revision: str, view: fx.View) -> Generator[fx.Effect, fx.Outcome, None]:
    """One step: living replicas first, then those to go, then the update."""
    go_on = (yield from _ordered(lineup, view)) if lineup.ordered else (yield from _parallel(lineup, view))
    if not go_on:
        return
    for pod in lineup.condemned:
        if not (yield from claims.fix_owners(lineup.set, pod, view)):
            return
    go_on = yield from (_condemn_one(lineup) if lineup.ordered else _condemn_all(lineup))
    if go_on and identity.is_rolling(lineup.set):
        yield from _update(lineup, update_revision)


def _ordered(lineup: Lineup, view: fx.View) -> GoOn:
    """In ordinal order; each waits for the one before."""
    for pod in lineup.wanted:
        if not identity.exists(pod):
            yield from members.create(lineup.set, [pod], view)
            return False
        if pod_facts.is_terminal(pod):
            if not meta.is_deleting(pod):
                yield from members.delete(lineup.set, [pod])
            return False
        if pod_facts.phase(pod) == "Pending" and not meta.is_deleting(pod):
            yield from claims.create_missing(lineup.set, [pod], view)
        if lineup.is_unavailable(pod):
            return False
        if not (yield from members.conform(lineup.set, pod, view)):
            return False
    return True


def _parallel(lineup: Lineup, view: fx.View) -> GoOn:
    """All at once, in slow-start batches."""
    finished = [p for p in lineup.wanted if pod_facts.is_terminal(p) and not meta.is_deleting(p)]
    well = yield from members.delete(lineup.set, finished)
    missing = [p for p in lineup.wanted if not identity.exists(p)][:BURST_REPLICAS]
    well = (yield from members.create(lineup.set, missing, view)) and well
    pending = [p for p in lineup.wanted if identity.exists(p) and pod_facts.phase(p) == "Pending"]
    well = not (yield from claims.create_missing(lineup.set, pending, view)) and well
    for pod in lineup.wanted:
        if identity.exists(pod) and not pod_facts.is_terminal(pod) and not meta.is_deleting(pod):
            well = (yield from members.conform(lineup.set, pod, view)) and well
    return well


def _condemn_one(lineup: Lineup) -> GoOn:
    """Scale down by one, from the highest ordinal, once its predecessors are well."""
    first_unhealthy = lineup.first_unavailable()
    for pod in lineup.condemned:
        blocked = not lineup.is_available(pod) and pod is not first_unhealthy
        if not meta.is_deleting(pod) and not blocked:
            yield from members.delete(lineup.set, [pod])
        return False
    return True


def _condemn_all(lineup: Lineup) -> GoOn:
    going = [pod for pod in lineup.condemned if not meta.is_deleting(pod)]
    return (yield from members.delete(lineup.set, going[:BURST_REPLICAS]))


def _update(lineup: Lineup, update_revision: str) -> Generator[fx.Effect, fx.Outcome, None]:
    """Delete pods of other revisions from the largest ordinal down to the partition."""
    candidates = list(reversed(lineup.wanted[identity.partition(lineup.set) or 0 :]))
    limit = _max_unavailable(lineup.set)
    if limit is not None:
        room = limit - sum(map(lineup.is_unavailable, lineup.wanted))
        old = [p for p in candidates if _is_old(p, update_revision)]
        yield from members.delete(lineup.set, old[: max(0, room)])
        return
    for pod in candidates:
        if _is_old(pod, update_revision):
            yield from members.delete(lineup.set, [pod])
            return
        if lineup.is_unavailable(pod):
            return


def _is_old(pod: Json, update_revision: str) -> bool:
    return identity.exists(pod) and identity.revision_of(pod) != update_revision and not meta.is_deleting(pod)


def _max_unavailable(set_: Json) -> int | None:
    """rollingUpdate.maxUnavailable, at least 1; the field is dropped at the door while its gate is off."""
    value = ((set_["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}).get("maxUnavailable")
    return None if value is None else max(1, scaled_value(value, replicas(set_), True))
