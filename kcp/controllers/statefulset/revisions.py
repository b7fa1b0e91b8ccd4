"""Which revisions a StatefulSet stands between: the one it comes from and the one it goes to.

Source: k8s v1.36 pkg/controller/statefulset/stateful_set_control.go (getStatefulSetRevisions, truncateHistory).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from kcp.base.values import frozen
from kcp.controllers import controller_history as history
from kcp.controllers import effects as fx
from kcp.controllers.statefulset.identity import revision_of
from kcp.machinery import meta

Json = dict[str, Any]


@frozen
class Revisions:
    current: Json
    update: Json
    collision_count: int


def resolve(set_: Json, revisions: Sequence[Json]) -> Generator[fx.Effect, fx.Outcome, Revisions | None]:
    """Find or make the revision of the present template. None when that failed; the plan is retried then."""
    ordered = sorted(revisions, key=history.by_revision)
    status = set_.get("status") or {}
    collisions = status.get("collisionCount") or 0
    equal = history.holding(ordered, set_["spec"]["template"])
    update: Json | None
    if equal and equal[-1] is ordered[-1]:
        update = equal[-1]
    elif equal:
        update = yield from history.renumber(equal[-1], history.next_number(ordered))
    else:
        update, collisions = yield from _create(set_, history.next_number(ordered), collisions)
    if update is None:
        return None
    known = {meta.name(r): r for r in ordered}
    return Revisions(known.get(status.get("currentRevision", ""), update), update, collisions)


def _create(
    set_: Json, number: int, collisions: int
) -> Generator[fx.Effect, fx.Outcome, tuple[Json | None, int]]:
    """Try until a name is free: each collision changes the hash."""
    while True:
        revision, count = yield from history.create(set_, number, collisions)
        if revision is not None or count == collisions:
            return revision, count
        collisions = count


def clean_up(
    set_: Json, pods: Sequence[Json], revisions: Sequence[Json], chosen: Revisions
) -> Generator[fx.Effect, fx.Outcome, None]:
    live = {meta.name(chosen.current), meta.name(chosen.update), *(revision_of(pod) for pod in pods)}
    limit = set_["spec"].get("revisionHistoryLimit")
    yield from history.truncate(revisions, frozenset(live), 10 if limit is None else limit)
