"""PodGC: pods that nobody will ever finish or remove.

Finished pods beyond a threshold, terminating pods on nodes that are out of service, pods of nodes that are gone, and
terminating pods that were never scheduled. One pass every 20 s; the memo holds since when a node is missed.
Source: k8s v1.36 pkg/controller/podgc/gc_controller.go.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Any

from kcp.apis.semantics import nodes as node_facts
from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import taints as taint_facts
from kcp.base.clock import microseconds
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan, Timer
from kcp.machinery import meta
from kcp.machinery.times import format_time

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
PERIOD_S = 20.0
QUARANTINE_S = 40.0
"""How long a node may be missing before it is asked for past the cache."""
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
ORPHANED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "DeletionByPodGC",
    "message": "PodGC: node no longer exists",
}


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del key
    threshold = env.settings["terminated_pod_threshold"]
    if threshold > 0:
        yield from _remove(_terminated_beyond(view.pods.index("state", "terminal"), threshold), env.now)
    going = view.pods.index("state", "deleting")
    yield from _remove(_out_of_service(going, view), env.now)
    yield from _orphans(view.pods.list(), view, env)
    yield from _remove([pod for pod in going if not pod_facts.node_name(pod)], env.now)


def states(pod: Json) -> list[str]:
    """The index `state`: few pods are in one that matters here."""
    found = {"terminal": pod_facts.is_terminal(pod), "deleting": meta.is_deleting(pod)}
    return [state for state, holds in found.items() if holds]


def _terminated_beyond(terminated: Sequence[Json], threshold: int) -> list[Json]:
    """What is too much of the finished pods: evicted ones first, then the oldest."""
    excess = len(terminated) - threshold
    return sorted(terminated, key=_age_order)[:excess] if excess > 0 else []


def _age_order(pod: Json) -> tuple[bool, str, str]:
    status = pod.get("status") or {}
    evicted = status.get("phase") == "Failed" and status.get("reason") == "Evicted"
    return not evicted, pod["metadata"].get("creationTimestamp", ""), meta.name(pod)


def _out_of_service(going: Sequence[Json], view: fx.View) -> list[Json]:
    found = []
    for pod in going:
        node = view.nodes.get(pod_facts.node_name(pod))
        if node is not None and not node_facts.is_ready(node) and taint_facts.has_taint(node, OUT_OF_SERVICE):
            found.append(pod)
    return sorted(found, key=_age_order)


def _orphans(pods: Sequence[Json], view: fx.View, env: fx.Env) -> Steps:
    """Pods whose node was missing for the whole quarantine and is not found live either."""
    now_us = microseconds(env.now)
    names = sorted({name for pod in pods if (name := pod_facts.node_name(pod))})
    known: dict[str, int] = (env.memo or {}).get("missing_us", {})
    missing = {name: known.get(name, now_us) for name in names if view.nodes.get(name) is None}
    due = [name for name, since_us in missing.items() if now_us - since_us >= QUARANTINE_S * 1e6]
    gone: list[str] = []
    for name in due:
        live = yield fx.Live("nodes", "", name)
        if live.ok and live.object is None:
            gone.append(name)
    if gone:
        yield from _remove([pod for pod in pods if pod_facts.node_name(pod) in gone], env.now, ORPHANED)
    if missing != known:
        yield fx.Memo({"missing_us": missing} if missing else None)


def _remove(pods: Sequence[Json], now: datetime, condition: Json | None = None) -> Steps:
    """Each pod is Failed before it is gone, so that its owner counts it."""
    if not pods:
        return
    unfinished = [pod for pod in pods if not pod_facts.is_terminal(pod)]
    outcomes = yield fx.All([_fail(pod, now, condition) for pod in unfinished])
    refused = {meta.uid(pod) for pod, outcome in zip(unfinished, outcomes.all, strict=True) if not outcome.ok}
    deletes = [
        fx.Delete("pods", meta.namespace(pod), meta.name(pod), uid=meta.uid(pod), grace_s=0)
        for pod in pods
        if meta.uid(pod) not in refused
    ]
    if deletes:
        yield fx.All(deletes)


def _fail(pod: Json, now: datetime, condition: Json | None) -> fx.Patch:
    status: Json = {"phase": "Failed"}
    if condition is not None:
        stamped = {**condition, "lastTransitionTime": format_time(now)}
        if generation := meta.generation(pod):
            stamped["observedGeneration"] = generation
        status["conditions"] = [stamped]
    patch = {"metadata": {"uid": meta.uid(pod)}, "status": status}
    return fx.Patch(
        "pods",
        meta.namespace(pod),
        meta.name(pod),
        patch,
        type="strategic",
        subresource="status",
        uid=meta.uid(pod),
    )


CONTROLLER = Controller(
    name="pod-garbage-collector-controller",
    identity="pod-garbage-collector",
    plan=plan,
    watches={"pods": Fan("pods", indexes={"state": states}), "nodes": Fan("nodes"), "pass": Timer(PERIOD_S)},
    workers=1,
    settings={"terminated_pod_threshold": 12500},
)
