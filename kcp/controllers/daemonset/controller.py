"""The DaemonSet controller: what it watches, the order of one plan, and the status.

Source: k8s v1.36 pkg/controller/daemon/daemon_controller.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import taints
from kcp.controllers import controller_history as history
from kcp.controllers import effects as fx
from kcp.controllers.daemonset.manage import MAX_BACKOFF_S, Rollcall, carry_out, manage
from kcp.controllers.daemonset.nodes import Fitness, by_node, is_updated
from kcp.controllers.daemonset.revisions import RESOURCE, clean_up, resolve
from kcp.controllers.daemonset.rolling import roll
from kcp.controllers.replicas import claim
from kcp.controllers.sources import Controller, Fan, Owned, Self
from kcp.machinery import meta
from kcp.machinery.labels import Selector, from_label_selector

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    daemon_set = view.daemonsets.get(key)
    if daemon_set is None:
        return
    selector = from_label_selector(daemon_set["spec"].get("selector"))
    if selector.empty:
        text = "This daemon set is selecting all pods. A non-empty selector is required."
        yield fx.Event(daemon_set, "Warning", "SelectingAll", text)
        return
    if meta.is_deleting(daemon_set):
        return
    revisions = yield from _claim(daemon_set, history.RESOURCE, view.revisions, selector)
    pods = yield from _claim(daemon_set, "pods", view.pods, selector)
    resolved = yield from resolve(daemon_set, revisions, pods)
    if resolved is None:
        return
    current, old = resolved
    hash_ = meta.labels(current).get("controller-revision-hash", "")
    call = Rollcall(daemon_set, view.nodes.list(), by_node(pods), hash_, env.now, _backoff(env))
    yield from _sync(call)
    yield from clean_up(daemon_set, old, pods)
    yield fx.Status(RESOURCE, daemon_set, new_status(call))
    yield from _remember(call, env)


def _claim(
    daemon_set: Json, resource: str, reader: fx.Reader, selector: Selector
) -> Generator[fx.Effect, fx.Outcome, list[Json]]:
    owned = reader.index("owner", meta.uid(daemon_set))
    orphans = reader.index("owner", f"orphan:{meta.namespace(daemon_set)}")
    return (yield from claim(daemon_set, resource, RESOURCE, owned, orphans, selector))


def _sync(call: Rollcall) -> Steps:
    """First every node gets what it should have; the update waits until nothing else is to be done."""
    yield from manage(call)
    if (yield from carry_out(call.daemon_set, call.create_on, call.delete, call.hash)):
        return
    strategy = (call.daemon_set["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate")
    if strategy == "RollingUpdate":
        create_on, delete = roll(call)
        yield from carry_out(call.daemon_set, create_on, delete, call.hash)


def new_status(call: Rollcall) -> Json:
    daemon_set = call.daemon_set
    shown = [pods[0] for name, pods in call.pods.items() if call.judged.get(name, (False,))[0]]
    ready = [pod for pod in shown if pod_facts.is_ready(pod)]
    available = sum(map(call.is_available, ready))
    misplaced = sum(not call.judged[name][0] for name in call.pods if name in call.judged)
    counts = {
        "observedGeneration": meta.generation(daemon_set),
        "updatedNumberScheduled": sum(is_updated(daemon_set, pod, call.hash) for pod in shown),
        "numberAvailable": available,
        "numberUnavailable": call.desired - available,
    }
    kept = daemon_set.get("status") or {}
    return {
        "currentNumberScheduled": len(shown),
        "numberMisscheduled": misplaced,
        "desiredNumberScheduled": call.desired,
        "numberReady": len(ready),
        **{name: count for name, count in counts.items() if count},
        **{name: kept[name] for name in ("collisionCount", "conditions") if name in kept},
    }


def _backoff(env: fx.Env) -> dict[str, list[float]]:
    """Of nodes whose pods failed lately."""
    now_s = env.now.timestamp()
    failed = (env.memo or {}).get("failed", {})
    return {name: entry for name, entry in failed.items() if now_s - entry[1] <= 2 * MAX_BACKOFF_S}


def _remember(call: Rollcall, env: fx.Env) -> Steps:
    memo = {"failed": call.backoff} if call.backoff else None
    if memo != env.memo:
        yield fx.Memo(memo)
    min_ready_s = call.daemon_set["spec"].get("minReadySeconds") or 0
    pods = [pod for of_node in call.pods.values() for pod in of_node]
    waits = [pod_facts.seconds_until_available(pod, min_ready_s, call.now) for pod in pods]
    later = [wait for wait in (*waits, *call.requeue_s) if wait]
    if later:
        yield fx.RequeueAfter(min(later))


def adopting(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Keys of the DaemonSets that might adopt an orphan."""
    obj = new or old
    if obj is None or meta.controller_of(obj) is not None:
        return []
    return [
        meta.key_of(daemon_set)
        for daemon_set in readers["daemonsets"].list(meta.namespace(obj))
        if from_label_selector(daemon_set["spec"].get("selector")).matches(meta.labels(obj))
    ]


def concerned(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """DaemonSets for which a change of a node changes whether they run there."""
    if old is not None and new is not None and _same_to_daemons(old, new):
        return []
    keys = []
    for daemon_set in readers["daemonsets"].list():
        fitness = Fitness.of(daemon_set)
        before = fitness.judge(old) if old is not None else (False, False)
        after = fitness.judge(new) if new is not None else (False, False)
        if before != after or new is None:
            keys.append(meta.key_of(daemon_set))
    return keys


def _same_to_daemons(old: Json, new: Json) -> bool:
    return meta.labels(old) == meta.labels(new) and taints.taints(old) == taints.taints(new)


CONTROLLER = Controller(
    name="daemonset-controller",
    identity="daemon-set-controller",
    plan=plan,
    watches={
        "daemonsets": Self(RESOURCE),
        "pods": Owned("pods", "DaemonSet", "apps", orphans=adopting),
        "revisions": history.watched("DaemonSet", adopting),
        "nodes": Fan("nodes", keys=concerned),
    },
    workers=2,
)
