"""A short incident in a log: a pod that moves to a node, becomes ready, flaps, and goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import VirtualClock
from kcp.store.facts import projections
from kcp.store.log import EventLog
from kcp.store.protocol import Actor, Cause, Decision, Input
from tests.store.changes import create, delete, key, lease_spec, open_for_test, update

SCHEDULER = Cause(Actor("system:kube-scheduler", field_manager="kube-scheduler"), "req-2", 42)
KUBELET = Cause(Actor("system:node:n1", user_agent="kubelet/v1.36", field_manager="kubelet"), "req-3")
USER = Cause(Actor("alice", ("devs",), "kubectl/v1.36", "kubectl-create"), "req-1")

POD = key("web-1", "shop", "pods")
NODE = key("n1", "", "nodes")
SECRET = key("db", "shop", "secrets")
LEASE = key("leader", "kube-system", "leases.coordination.k8s.io")
OWNERS = {"ownerReferences": [{"kind": "ReplicaSet", "name": "web", "uid": "rs-1", "controller": True}]}


def status(phase: str, ready: bool, restarts: int) -> dict[str, Any]:
    return {
        "phase": phase,
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [{"name": "main", "ready": ready, "restartCount": restarts}],
    }


def open_log(where: Path | str, clock: VirtualClock) -> EventLog:
    return open_for_test(where, clock, inline=True, projections=projections(FACTS))


async def play(store: EventLog, clock: VirtualClock) -> None:
    """Revisions 1 to 12, one second apart."""
    spec = {"containers": [{"name": "main", "image": "web:1"}]}
    placed = {**spec, "nodeName": "n1"}
    meta = {"labels": {"app": "web"}, **OWNERS}
    node_status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}}
    steps = [
        create(NODE, status=node_status),
        create(POD, cause=USER, metadata=meta, spec=spec, status={"phase": "Pending"}),
        update(POD, cause=SCHEDULER, spec=placed, status={"phase": "Pending"}),
        update(POD, cause=KUBELET, spec=placed, status=status("Running", True, 0)),
        create(SECRET, uid="s", data={"password": "czNjcjN0"}, type="Opaque"),
        create(LEASE, spec=lease_spec("a")),
        update(LEASE, renewal=True, spec=lease_spec("a", renewTime="7")),
        update(POD, cause=KUBELET, spec=placed, status=status("Running", False, 1)),
        update(POD, cause=KUBELET, spec=placed, status=status("Running", True, 1)),
        update(SECRET, data={"password": "bmV3"}, type="Opaque"),
        delete(POD, cause=USER),
        update(NODE, status={"conditions": [{"type": "Ready", "status": "Unknown"}]}),
    ]
    for number, step in enumerate(steps, 1):
        if number == 2:
            store.record(Input("start", {"epoch": store.epoch, "settings": {"job-controller": {"limit": 3}}}))
        if number == 3:
            effects = [{"kind": "Patch", "args": {"node": "n1"}, "outcome": "ok", "rv": 3}]
            store.record(Decision(42, "scheduler", "shop/web-1", "event", {"pods": 2, "nodes": 1}, 5, effects, None, "c", "f", 0, 3, 3))  # fmt: skip
            secret = {"apiVersion": "v1", "kind": "Secret", "data": {"token": "dG9wc2VjcmV0"}}
            store.record(Input("live", {"answer": secret}))
        done = await store.append(step)
        assert done.rv == number
        clock.advance(1.0)
