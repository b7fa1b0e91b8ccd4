"""The node lifecycle controller: one key per node, and one key that adds NoExecute taints zone by zone.

A heartbeat is a newer renewTime of the node's Lease or a changed heartbeat of its Ready condition; what counts is
when this controller saw it, which is its memo. Leases are read live: renewals are no events of the log.
Source: k8s v1.36 pkg/controller/nodelifecycle/node_lifecycle_controller.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.base.clock import microseconds
from kcp.controllers import effects as fx
from kcp.controllers.node_lifecycle import zones
from kcp.controllers.node_lifecycle.taints import (
    MANAGED,
    NOT_READY,
    UNREACHABLE,
    current_no_execute,
    no_execute_key,
    no_schedule_keys,
    readiness,
    with_taints,
)
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.times import format_time, parse_time

Json = dict[str, Any]
Steps = Generator[fx.Effect, fx.Outcome, None]
LEASES = "leases.coordination.k8s.io"
GRACE_S = 50.0
STARTUP_GRACE_S = 60.0
MONITORED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    if key == zones.KEY:
        yield from zones.plan(view, env)
        return
    node = view.nodes.get(key)
    if node is None:
        yield fx.Memo(None)
        return
    if env.memo is None:
        yield _event(node, "RegisteredNode", f"Node {key} event: Registered Node {key} in Controller")
    silent_s = yield from _silence(node, env)
    grace_s = GRACE_S if meta.condition(node, "Ready") else STARTUP_GRACE_S
    if silent_s is None:
        pass  # that we cannot ask says nothing about the node; the failed read brings us back
    elif silent_s > grace_s:
        node = yield from _give_up(node, env.now)
    else:
        yield fx.RequeueAfter(max(1.0, grace_s - silent_s + 0.5))
    yield from _reconcile_taints(node, env.now)
    yield from _reconcile_labels(node)
    if readiness(node) != "True":
        yield from _unready_pods(node, view, env.now)


def _silence(node: Json, env: fx.Env) -> Generator[fx.Effect, fx.Outcome, float | None]:
    """Seconds since this controller last saw a sign of life; None when the Lease could not be read."""
    read = yield fx.Live(LEASES, "kube-node-lease", meta.name(node))
    if read.error is not None:
        return None
    lease = read.object
    ready = meta.condition(node, "Ready")
    posted = bool(ready) and ready["reason"] not in ("NodeStatusUnknown", "NodeStatusNeverUpdated")  # type: ignore[index]
    seen = {
        "lease": lease["spec"].get("renewTime") if lease else None,
        "heartbeat": ready.get("lastHeartbeatTime") if ready and posted else None,
    }
    memo = env.memo
    if memo is None:
        fresh = seen["lease"] is not None or seen["heartbeat"] is not None
        since = env.now if fresh else parse_time(node["metadata"]["creationTimestamp"])
        memo = {"seen": seen, "since_us": microseconds(since)}
        yield fx.Memo(memo)
    elif any(seen[k] is not None and seen[k] != memo["seen"][k] for k in seen):
        memo = {"seen": {k: seen[k] or memo["seen"][k] for k in seen}, "since_us": microseconds(env.now)}
        yield fx.Memo(memo)
    elif memo["since_us"] > microseconds(env.now):  # the clock was set back
        memo = {**memo, "since_us": microseconds(env.now)}
        yield fx.Memo(memo)
    return float((microseconds(env.now) - memo["since_us"]) / 1e6)


def _give_up(node: Json, now: datetime) -> Generator[fx.Effect, fx.Outcome, Json]:
    """Turn the monitored conditions Unknown; the node as it is afterwards."""
    conditions = {c["type"]: c for c in node.get("status", {}).get("conditions", ())}
    was_ready = readiness(node) == "True"
    for type_ in MONITORED:
        conditions[type_] = _unknown(conditions.get(type_), type_, node, now)
    status = {**node.get("status", {}), "conditions": list(conditions.values())}
    if status == node.get("status"):
        return node
    outcome = yield fx.Status("nodes", node, status)
    if not outcome.ok or outcome.object is None:
        return node
    if was_ready:
        name = meta.name(node)
        yield _event(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
    return outcome.object


def _unknown(current: Json | None, type_: str, node: Json, now: datetime) -> Json:
    if current is None:
        return {
            "type": type_,
            "status": "Unknown",
            "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.",
            "lastHeartbeatTime": node["metadata"]["creationTimestamp"],
            "lastTransitionTime": format_time(now),
        }
    if current["status"] == "Unknown":
        return current
    return {
        **current,
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastTransitionTime": format_time(now),
    }


def _reconcile_taints(node: Json, now: datetime) -> Steps:
    """NoSchedule follows the conditions at once; a NoExecute taint is swapped or taken away, never added, here."""
    taints = with_taints(node, "NoSchedule", sorted(MANAGED), no_schedule_keys(node), now)
    executing, fitting = current_no_execute(node), no_execute_key(node)
    if executing and executing != [fitting]:
        swapped = {**node, "spec": {**node["spec"], "taints": taints}}
        wanted = [fitting] if fitting else []
        taints = with_taints(swapped, "NoExecute", (NOT_READY, UNREACHABLE), wanted, now)
    if taints != node["spec"].get("taints", []):
        yield set_taints(node, taints)


def set_taints(node: Json, taints: list[Json]) -> fx.Patch:
    patch = {"spec": {"taints": taints or None}}
    return fx.Patch("nodes", "", meta.name(node), patch, rv=node["metadata"]["resourceVersion"])


def _reconcile_labels(node: Json) -> Steps:
    """The beta labels follow the stable ones."""
    labels = meta.labels(node)
    pairs = (("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch"))
    stale = {
        beta: labels[stable]
        for stable, beta in pairs
        if stable in labels and labels.get(beta) != labels[stable]
    }
    if stale:
        yield fx.Patch("nodes", "", meta.name(node), {"metadata": {"labels": stale}})


def _unready_pods(node: Json, view: fx.View, now: datetime) -> Steps:
    """Pods of a node that is not ready are not ready either."""
    for pod in view.pods.index("node", meta.name(node)):
        ready = meta.condition(pod, "Ready")
        if ready is None or ready["status"] != "True" or meta.is_deleting(pod):
            continue
        condition = {"type": "Ready", "status": "False", "lastTransitionTime": format_time(now)}
        patch = {"metadata": {"uid": meta.uid(pod)}, "status": {"conditions": [condition]}}
        yield fx.Event(pod, "Warning", "NodeNotReady", "Node is not ready")
        yield fx.Patch(
            "pods", meta.namespace(pod), meta.name(pod), patch, type="strategic", subresource="status"
        )


def _event(node: Json, reason: str, message: str) -> fx.Event:
    return fx.Event(node, "Normal", reason, message)


def touched_node(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    node = new or old
    assert node is not None
    if old is not None and new is not None and _same_standing(old, new):
        return []
    return [meta.name(node), zones.KEY]


def _same_standing(old: Json, new: Json) -> bool:
    """Heartbeats alone change nothing here: silence is judged by timers."""

    def standing(node: Json) -> Any:
        conditions = [(c["type"], c["status"]) for c in node.get("status", {}).get("conditions", ())]
        spec = node["spec"]
        return conditions, spec.get("taints"), spec.get("unschedulable"), meta.labels(node)

    return bool(standing(old) == standing(new))


CONTROLLER = Controller(
    name="node-lifecycle-controller",
    event_source="node-controller",
    identity="node-controller",
    plan=plan,
    watches={
        "nodes": Fan("nodes", keys=touched_node),
        "pods": Fan("pods", indexes={"node": pod_facts.node_names}),
    },
    workers=8,
)
