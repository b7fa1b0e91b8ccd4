"""A log of any length for tests and benchmarks of history: a shop whose pods start, flap, restart, move and go."""

from __future__ import annotations

import random
from typing import Any

from kcp.base.clock import VirtualClock
from kcp.store.log import EventLog
from kcp.store.protocol import Actor, Cause, Decision, Operation
from tests.store.changes import create, delete, key, update

BATCH = 200
KUBELET = Actor("system:node", ("system:nodes",), "kubelet/v1.36", "kubelet")
CONTROLLER = Actor(
    "system:serviceaccount:kube-system:replicaset-controller", (), "kcp", "kube-controller-manager"
)
SCHEDULER = Actor("system:kube-scheduler", (), "kcp", "kube-scheduler")
OPERATOR = Actor("alice", ("devs",), "kubectl/v1.36", "kubectl-edit")


class Shop:
    """Chooses the next change by a seeded dice; `events` of them in all."""

    def __init__(self, pods: int, nodes: int, seed: int, prefix: str) -> None:
        self._dice = random.Random(seed)
        self._pods = [f"{prefix}web-{i}" for i in range(pods)]
        self._nodes = [f"{prefix}n{i}" for i in range(nodes)]
        self._state: dict[str, dict[str, Any]] = {}
        self._node_ready: dict[str, bool] = {}
        self._prefix = prefix
        self._decisions = seed * 1_000_000
        self.decisions: list[Decision] = []

    def next(self) -> Operation:
        if len(self._node_ready) < len(self._nodes):
            return self._node(self._nodes[len(self._node_ready)])
        if self._dice.random() < 0.01:
            return self._node(self._dice.choice(self._nodes))
        if self._dice.random() < 0.02:
            return self._config()
        return self._pod(self._dice.choice(self._pods))

    def _node(self, name: str) -> Operation:
        ready = not self._node_ready.get(name, False)
        new = name not in self._node_ready
        self._node_ready[name] = ready
        status = {"conditions": [{"type": "Ready", "status": str(ready)}], "allocatable": {"cpu": "8"}}
        write = create if new else update
        return write(key(name, "", "nodes"), status=status, cause=Cause(KUBELET))

    def _config(self) -> Operation:
        """Two managers who never agree."""
        number = self._dice.randrange(1 << 30)
        actor = OPERATOR if number % 2 else CONTROLLER
        new = "config" not in self._state
        self._state["config"] = {}
        return (create if new else update)(
            key(f"{self._prefix}settings", "shop"), data={"n": str(number)}, cause=Cause(actor)
        )

    def _pod(self, name: str) -> Operation:
        at, state = key(name, "shop", "pods"), self._state.get(name)
        if state is None:
            self._state[name] = {"restarts": 0, "ready": False, "node": None}
            owners = [{"kind": "ReplicaSet", "name": "web", "uid": "rs-web", "controller": True}]
            metadata = {"labels": {"app": "web"}, "ownerReferences": owners}
            return create(at, metadata=metadata, **self._document(name), cause=self._because(name))
        if state["node"] is None:
            state["node"] = self._dice.choice(self._nodes)
            return update(at, **self._document(name), cause=Cause(SCHEDULER))
        if self._dice.random() < 0.03:
            del self._state[name]
            return delete(at, cause=Cause(OPERATOR if self._dice.random() < 0.2 else CONTROLLER))
        state["ready"] = not state["ready"]
        state["restarts"] += not state["ready"]
        return update(at, **self._document(name), cause=Cause(KUBELET))

    def _because(self, name: str) -> Cause:
        self._decisions += 1
        decision = Decision(self._decisions, "replicaset", "shop/web", "event", {"pods": self._decisions}, 1, [{"kind": "Create", "args": {"name": name}, "outcome": "ok"}], None, "code", "config")  # fmt: skip
        self.decisions.append(decision)
        return Cause(CONTROLLER, decision_id=self._decisions)

    def _document(self, name: str) -> dict[str, Any]:
        state = self._state[name]
        spec: dict[str, Any] = {"containers": [{"name": "main", "image": "web:1"}]}
        if state["node"]:
            spec["nodeName"] = state["node"]
        container = {"name": "main", "ready": state["ready"], "restartCount": state["restarts"]}
        conditions = [{"type": "Ready", "status": str(state["ready"])}]
        phase = "Running" if state["node"] else "Pending"
        return {
            "spec": spec,
            "status": {"phase": phase, "conditions": conditions, "containerStatuses": [container]},
        }


async def fill(
    store: EventLog,
    clock: VirtualClock,
    events: int,
    *,
    pods: int = 60,
    nodes: int = 6,
    prefix: str = "",
    shop: Shop | None = None,
) -> Shop:
    """Append up to that revision, in transactions of BATCH, some seconds apart. The shop returned can go on later."""
    shop = shop or Shop(pods, nodes, 1 + len(prefix), prefix)
    while store.rv < events:
        some = [shop.next() for _ in range(min(BATCH, events - store.rv))]
        for decision in shop.decisions:
            store.record(decision)
        shop.decisions = []
        outcomes = await store.append_all(some)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        clock.advance(0.02 * len(some))
    return shop
