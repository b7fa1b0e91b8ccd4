"""ReplicationController: the ReplicaSet's planner over the older kind, whose selector is a plain map.

Source: k8s v1.36 pkg/controller/replication.
"""

from __future__ import annotations

from kcp.controllers import effects as fx
from kcp.controllers.replicaset import Flavour, sync, watches
from kcp.controllers.sources import Controller
from kcp.machinery.labels import from_set

REPLICATION_CONTROLLER = Flavour(
    "replicationcontrollers",
    "replicationcontrollers",
    "ReplicationController",
    "",
    lambda rc: from_set(rc["spec"].get("selector") or {}),
    False,
)


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    yield from sync(REPLICATION_CONTROLLER, key, view, env)


CONTROLLER = Controller(
    name="replicationcontroller-controller",
    event_source="replication-controller",
    identity="replication-controller",
    plan=plan,
    watches=watches(REPLICATION_CONTROLLER),
)
