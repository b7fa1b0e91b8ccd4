"""TTL: tells kubelets how long they may keep Secrets and ConfigMaps in memory, by the size of the cluster.

Source: k8s v1.36 pkg/controller/ttl/ttl_controller.go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta

Json = dict[str, Any]
ANNOTATION = "node.alpha.kubernetes.io/ttl"
STEPS = (
    (0, 100, 0),
    (90, 500, 15),
    (450, 1000, 30),
    (900, 2000, 60),
    (1800, math.inf, 300),
)
"""(smallest size, largest size, seconds). They overlap, so that a cluster at a boundary does not swing."""


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """The memo of a node is the step that its annotation was last set by: each node has its own hysteresis."""
    node = view.nodes.get(key)
    if node is None:
        if env.memo is not None:
            yield fx.Memo(None)
        return
    before = (env.memo or {}).get("step")
    if before is None:
        before = _step_of(meta.annotations(node).get(ANNOTATION))
    step = next_step(before, view.nodes.count())
    if step != (env.memo or {}).get("step"):
        yield fx.Memo({"step": step})
    wanted = str(STEPS[step][2])
    if meta.annotations(node).get(ANNOTATION) != wanted:
        patch = {"metadata": {"annotations": {ANNOTATION: wanted}}}
        yield fx.Patch("nodes", "", meta.name(node), patch, uid=meta.uid(node))


def next_step(step: int, size: int) -> int:
    """One up while the size exceeds the step's upper bound, one down while it is below the lower one."""
    while size > STEPS[step][1]:
        step += 1
    while size < STEPS[step][0]:
        step -= 1
    return step


def _step_of(annotation: str | None) -> int:
    return next((i for i, step in enumerate(STEPS) if str(step[2]) == annotation), 0)


def touched_node(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A change of the size reaches a node with its own next update, as in Kubernetes."""
    node = new if new is not None else old
    return [meta.name(node)] if node is not None else []


CONTROLLER = Controller(
    name="ttl-controller",
    identity="ttl-controller",
    plan=plan,
    watches={"nodes": Fan("nodes", keys=touched_node)},
)
