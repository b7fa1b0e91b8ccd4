"""The StatefulSet controller: what it watches, the order of one plan, and the status.

Source: k8s v1.36 pkg/controller/statefulset/stateful_set.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.controllers import controller_history as history
from kcp.controllers import effects as fx
from kcp.controllers.replicas import claim
from kcp.controllers.sources import Controller, Fan, Owned, Self
from kcp.controllers.statefulset import identity
from kcp.controllers.statefulset.reconcile import Lineup, line_up, reconcile
from kcp.controllers.statefulset.revisions import Revisions, clean_up, resolve
from kcp.machinery import meta
from kcp.machinery.labels import Selector, from_label_selector

Json = dict[str, Any]
RESOURCE = "statefulsets.apps"


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    set_ = view.statefulsets.get(key)
    if set_ is None:
        return
    selector = from_label_selector(set_["spec"].get("selector"))
    revisions = yield from _claim(set_, history.RESOURCE, view.revisions, selector)
    pods = yield from _claim(set_, "pods", view.pods, selector)
    chosen = yield from resolve(set_, revisions)
    if chosen is None:
        return
    lineup = line_up(set_, pods, chosen, env.now)
    if not meta.is_deleting(set_):
        yield from reconcile(lineup, meta.name(chosen.update), view)
    yield fx.Status(RESOURCE, set_, new_status(lineup, pods, chosen))
    yield from clean_up(set_, pods, revisions, chosen)
    yield from _wake_when_available(set_, pods, env)


def _claim(
    set_: Json, resource: str, reader: fx.Reader, selector: Selector
) -> Generator[fx.Effect, fx.Outcome, list[Json]]:
    owned = reader.index("owner", meta.uid(set_))
    orphans = reader.index("owner", f"orphan:{meta.namespace(set_)}")

    def eligible(obj: Json) -> bool:
        return resource != "pods" or identity.is_member(set_, obj)

    mine = yield from claim(set_, resource, RESOURCE, owned, orphans, selector, eligible)
    return [obj for obj in mine if eligible(obj)]


def new_status(lineup: Lineup, pods: Sequence[Json], revisions: Revisions) -> Json:
    """Counters as the set is found; a finished rolling update makes the update revision the current one."""
    set_ = lineup.set
    current, update = meta.name(revisions.current), meta.name(revisions.update)
    staying = [identity.revision_of(pod) for pod in pods if not meta.is_deleting(pod)]
    counts = {
        "readyReplicas": sum(map(identity.is_running_and_ready, pods)),
        "currentReplicas": staying.count(current),
        "updatedReplicas": staying.count(update),
    }
    done = counts["updatedReplicas"] == len(pods) == counts["readyReplicas"]
    if identity.is_rolling(set_) and done:
        current, counts["currentReplicas"] = update, counts["updatedReplicas"]
    status: Json = {
        "observedGeneration": meta.generation(set_),
        "replicas": len(pods),
        **{name: count for name, count in counts.items() if count},
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": revisions.collision_count,
        "availableReplicas": sum(map(lineup.is_available, pods)),
    }
    conditions = (set_.get("status") or {}).get("conditions")
    if conditions:
        status["conditions"] = conditions
    return status


def _wake_when_available(
    set_: Json, pods: Sequence[Json], env: fx.Env
) -> Generator[fx.Effect, fx.Outcome, None]:
    """Readiness ripens without any event to tell."""
    min_ready_s = set_["spec"].get("minReadySeconds") or 0
    waits = [pod_facts.seconds_until_available(pod, min_ready_s, env.now) for pod in pods]
    ripening = [wait for wait in waits if wait]
    if ripening:
        yield fx.RequeueAfter(min(ripening))


def adopting(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Keys of the StatefulSets that might adopt an orphan."""
    obj = new or old
    if obj is None or meta.controller_of(obj) is not None:
        return []
    return [
        meta.key_of(set_)
        for set_ in readers["statefulsets"].list(meta.namespace(obj))
        if from_label_selector(set_["spec"].get("selector")).matches(meta.labels(obj))
    ]


def freed(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A claim that is gone lets the pod be made that waited for it."""
    if new is not None or old is None:
        return []
    stem, _, number = meta.name(old).rpartition("-")
    if not number.isdigit():
        return []
    return [
        meta.key_of(set_)
        for set_ in readers["statefulsets"].list(meta.namespace(old))
        if any(stem == f"{meta.name(t)}-{meta.name(set_)}" for t in identity.claim_templates(set_))
    ]


CONTROLLER = Controller(
    name="statefulset-controller",
    identity="statefulset-controller",
    plan=plan,
    watches={
        "statefulsets": Self(RESOURCE),
        "pods": Owned("pods", "StatefulSet", "apps", orphans=adopting),
        "revisions": history.watched("StatefulSet", adopting),
        "claims": Fan("persistentvolumeclaims", keys=freed),
    },
)
