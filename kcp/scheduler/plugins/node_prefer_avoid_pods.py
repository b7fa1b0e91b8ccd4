"""Keeps pods of a ReplicationController or ReplicaSet off the nodes whose annotation asks to avoid them.

    scheduler.alpha.kubernetes.io/preferAvoidPods: {"preferAvoidPods": [{"podSignature": {"podController":
        {"kind": "ReplicaSet", "uid": "…"}}}]}

Kubernetes removed the plugin in 1.23; its weight was 10000, so that it outweighs everything else.
Source: k8s v1.22 pkg/scheduler/framework/plugins/nodepreferavoidpods.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from kcp.scheduler.framework.plugin import MAX_SCORE, Cycle, Rows
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.terms import Bools, Ints

Json = dict[str, Any]
Controller = tuple[str, str]
_KINDS = ("ReplicationController", "ReplicaSet")


class NodePreferAvoidPods:
    name = "NodePreferAvoidPods"
    per_pod = True

    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        avoiding = _avoiding(cycle.framework)
        controller = _controller(cycle.info.pod)
        scores = np.full(count, MAX_SCORE, np.int64)
        if controller in avoiding:
            scores[avoiding[controller][feasible]] = 0
        return scores


def _controller(pod: Json) -> Controller | None:
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            kind = reference.get("kind", "")
            return (kind, reference.get("uid", "")) if kind in _KINDS else None
    return None


def _avoiding(framework: Framework) -> dict[Controller | None, Bools]:
    """Which nodes avoid the pods of a controller."""

    def collect() -> dict[Controller | None, Bools]:
        found: dict[Controller | None, Bools] = {}
        for index, info in enumerate(framework.state.infos):
            for controller in _avoided(info.avoids):
                mask = found.setdefault(controller, np.zeros(len(framework.state), np.bool_))
                mask[index] = True
        return found

    known: dict[Controller | None, Bools] = framework.once("avoided controllers", collect)
    return known


def _avoided(annotation: str) -> list[Controller]:
    """What an annotation names; one that is no such document names nobody."""
    try:
        rows = (orjson.loads(annotation) if annotation else {}).get("preferAvoidPods") or ()
        controllers = [row["podSignature"]["podController"] for row in rows]
        return [(str(c.get("kind", "")), str(c.get("uid", ""))) for c in controllers]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
