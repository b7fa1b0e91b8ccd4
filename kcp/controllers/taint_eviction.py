"""Taint eviction: pods that do not tolerate a NoExecute taint of their node are deleted, at once or after a while.

Source: k8s v1.36 pkg/controller/tainteviction/taint_eviction.go.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import Any

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import taints as taint_facts
from kcp.base.clock import microseconds
from kcp.base.values import frozen
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.times import format_time

Json = dict[str, Any]


@frozen
class Words:
    """What an eviction says: by an Event, and in the condition DisruptionTarget."""

    event: str
    text: str
    reason: str
    message: str


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """The memo holds when a pod's time runs out; a running timer is left alone while the answer is still "timed"."""
    pod = view.pods.get(key)
    node = view.nodes.get(pod["spec"].get("nodeName", "")) if pod else None
    taints = no_execute(node)
    if pod is None or meta.is_deleting(pod) or not taints:
        yield from _cancel(key, pod, env)
        return
    wait_s = taint_facts.min_toleration_s(taints, taint_facts.tolerations(pod))
    if wait_s is None:
        yield from _cancel(key, pod, env)
        return
    memo, now_us = env.memo or {}, microseconds(env.now)
    due_us, wait_us = memo.get("due_us"), memo.get("wait_us", int(wait_s * 1e6))
    if wait_s <= 0:
        due_us = now_us
    elif due_us is None or due_us > now_us + wait_us:  # the latter: the clock was set back
        due_us = now_us + wait_us
        yield fx.Memo({"due_us": due_us, "wait_us": wait_us})
    if due_us > now_us:
        yield fx.RequeueAfter((due_us - now_us) / 1e6)
        return
    words = Words(
        event="TaintManagerEviction",
        text=f"Marking for deletion Pod {key}",
        reason="DeletionByTaintManager",
        message="Taint manager: deleting due to NoExecute taint",
    )
    yield from evict(pod, env.now, words)


def no_execute(node: Json | None) -> list[Json]:
    if node is None:
        return []
    return [taint for taint in node["spec"].get("taints", ()) if taint["effect"] == "NoExecute"]


def _cancel(key: str, pod: Json | None, env: fx.Env) -> Generator[fx.Effect, fx.Outcome, None]:
    if env.memo is None:
        return
    yield fx.Memo(None)
    if pod is not None:
        yield fx.Event(pod, "Normal", "TaintManagerEviction", f"Cancelling deletion of Pod {key}")


def evict(pod: Json, now: datetime, words: Words) -> Generator[fx.Effect, fx.Outcome, None]:
    """Mark the pod and delete it; a memo of it ends."""
    namespace, name = meta.namespace(pod), meta.name(pod)
    yield fx.Event(pod, "Normal", words.event, words.text)
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": words.reason,
        "message": words.message,
        "lastTransitionTime": format_time(now),
        "observedGeneration": pod["metadata"].get("generation", 0),
    }
    patch = {"metadata": {"uid": meta.uid(pod)}, "status": {"conditions": [condition]}}
    marked = yield fx.Patch(
        "pods", namespace, name, patch, type="strategic", subresource="status", uid=meta.uid(pod)
    )
    if marked.ok:
        yield fx.Delete("pods", namespace, name, uid=meta.uid(pod))
        yield fx.Memo(None)


def touched_pod(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A pod matters on a node with NoExecute taints: when it comes, and when it leaves. (A wait that has begun ends by
    itself where the node is gone, too.)
    """
    pod = new if new is not None else old
    assert pod is not None
    node = pod["spec"].get("nodeName")
    if not node or not no_execute(readers["nodes"].get(node)):
        return []
    if new is None:
        return [meta.key_of(pod)]
    spec = new["spec"]
    if (
        old is not None
        and old["spec"].get("nodeName") == node
        and old["spec"].get("tolerations") == spec.get("tolerations")
    ):
        return []
    return [meta.key_of(new)]


def tainted_node(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    if new is None or no_execute(old) == no_execute(new):
        return []
    return [meta.key_of(pod) for pod in readers["pods"].index("node", meta.name(new))]


CONTROLLER = Controller(
    name="taint-eviction-controller",
    identity="node-controller",
    plan=plan,
    watches={
        "pods": Fan("pods", keys=touched_pod, indexes={"node": pod_facts.node_names}),
        "nodes": Fan("nodes", keys=tainted_node),
    },
    workers=8,
)
