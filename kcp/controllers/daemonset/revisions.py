"""The history of a DaemonSet: one ControllerRevision per template, the present one with the highest number.

Source: k8s v1.36 pkg/controller/daemon/update.go (constructHistory, dedupCurHistories, cleanupHistory).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from kcp.apis.semantics.workloads import CONTROLLER_REVISION_HASH
from kcp.controllers import controller_history as history
from kcp.controllers import effects as fx
from kcp.machinery import meta

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
RESOURCE = "daemonsets.apps"


def resolve(
    daemon_set: Json, revisions: Sequence[Json], pods: Sequence[Json]
) -> Generator[fx.Effect, fx.Outcome, tuple[Json, list[Json]] | None]:
    """(the revision of the present template, the older ones). None when it could not be made: retried."""
    labelled = yield from _labelled(revisions)
    current = history.holding(labelled, daemon_set["spec"]["template"])
    old = [r for r in labelled if r not in current]
    number = history.next_number(old)
    if not current:
        collisions = (daemon_set.get("status") or {}).get("collisionCount") or 0
        made, count = yield from history.create(daemon_set, number, collisions, CONTROLLER_REVISION_HASH)
        if count != collisions:
            status = {**(daemon_set.get("status") or {}), "collisionCount": count}
            yield fx.Status(RESOURCE, daemon_set, status)
            yield fx.RequeueAfter(0)
        return (made, old) if made is not None else None
    kept = yield from _dedupe(current, pods)
    if int(kept.get("revision", 0)) < number:
        kept = yield from history.renumber(kept, number)
    return kept, old


def _labelled(revisions: Sequence[Json]) -> Generator[fx.Effect, fx.Outcome, list[Json]]:
    """Revisions made by others get the label that pods are compared by."""
    found = []
    for revision in sorted(revisions, key=history.by_revision):
        if CONTROLLER_REVISION_HASH not in meta.labels(revision):
            labels = {**meta.labels(revision), CONTROLLER_REVISION_HASH: meta.name(revision)}
            changed = {**revision, "metadata": {**revision["metadata"], "labels": labels}}
            outcome = yield fx.Update(history.RESOURCE, changed)
            revision = outcome.object if outcome.ok and outcome.object is not None else changed
        found.append(revision)
    return found


def _dedupe(current: list[Json], pods: Sequence[Json]) -> Generator[fx.Effect, fx.Outcome, Json]:
    """Keep the newest of equal revisions; its hash replaces theirs on the pods."""
    kept = max(current, key=history.by_revision)
    hash_ = meta.labels(kept)[CONTROLLER_REVISION_HASH]
    for other in current:
        if other is kept:
            continue
        for pod in pods:
            if meta.labels(pod).get(CONTROLLER_REVISION_HASH) != hash_:
                patch = {"metadata": {"labels": {CONTROLLER_REVISION_HASH: hash_}}}
                yield fx.Patch("pods", meta.namespace(pod), meta.name(pod), patch, uid=meta.uid(pod))
        yield fx.Delete(history.RESOURCE, meta.namespace(other), meta.name(other), uid=meta.uid(other))
    return kept


def clean_up(daemon_set: Json, old: Sequence[Json], pods: Sequence[Json]) -> Steps:
    """Delete the oldest unused revisions beyond the limit."""
    in_use = {meta.labels(pod).get(CONTROLLER_REVISION_HASH) for pod in pods}
    limit = daemon_set["spec"].get("revisionHistoryLimit")
    surplus = len(old) - (10 if limit is None else limit)
    for revision in sorted(old, key=history.by_revision):
        if surplus <= 0:
            return
        if meta.labels(revision).get(CONTROLLER_REVISION_HASH) in in_use:
            continue
        yield fx.Delete(
            history.RESOURCE, meta.namespace(revision), meta.name(revision), uid=meta.uid(revision)
        )
        surplus -= 1
