"""NoExecute taints are added slowly, by zone: the more of a zone is down, the likelier the fault is elsewhere.

Source: k8s v1.36 pkg/controller/nodelifecycle (ComputeZoneState, handleDisruption, the rate limited taint queues).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal

from kcp.base.clock import microseconds
from kcp.controllers import effects as fx
from kcp.controllers.node_lifecycle.taints import (
    NOT_READY,
    UNREACHABLE,
    current_no_execute,
    no_execute_key,
    readiness,
    with_taints,
)
from kcp.machinery import meta

Json = dict[str, Any]
KEY = ":zones"
ZoneState = Literal["Normal", "PartialDisruption", "FullDisruption"]
EVICTION_RATE = 0.1
SECONDARY_RATE = 0.01
LARGE_ZONE = 50
UNHEALTHY_SHARE = 0.55


def plan(view: fx.View, env: fx.Env) -> Generator[fx.Effect, fx.Outcome, None]:
    """Taint the next node of each zone whose turn has come; the memo holds when each zone may go on."""
    by_zone: dict[str, list[Json]] = {}
    for node in view.nodes.list():
        by_zone.setdefault(zone_of(node), []).append(node)
    states = {zone: zone_state(nodes) for zone, nodes in sorted(by_zone.items())}
    if states and all(state == "FullDisruption" for state in states.values()):
        yield from _stand_down(view.nodes.list(), env)
        return
    next_us: dict[str, int] = dict((env.memo or {}).get("next_us", {}))
    now_us = microseconds(env.now)
    waits: list[int] = []
    for zone, nodes in sorted(by_zone.items()):
        rate = taint_rate(states[zone], len(nodes))
        due = [n for n in nodes if no_execute_key(n) and not current_no_execute(n)]
        if not due or rate == 0:
            continue
        pause_us = int(1e6 / rate)
        if next_us.get(zone, 0) <= now_us:
            yield _taint(due.pop(0), env)
            next_us[zone] = now_us + pause_us
        elif next_us[zone] > now_us + int(1e6 / SECONDARY_RATE):  # the clock was set back
            next_us[zone] = now_us + pause_us
        if due:
            waits.append(next_us[zone] - now_us)
    if next_us != (env.memo or {}).get("next_us", {}):
        yield fx.Memo({"next_us": next_us})
    if waits:
        yield fx.RequeueAfter(min(waits) / 1e6)


def zone_of(node: Json) -> str:
    labels = meta.labels(node)
    return (
        f"{labels.get('topology.kubernetes.io/region', '')}:{labels.get('topology.kubernetes.io/zone', '')}"
    )


def zone_state(nodes: Sequence[Json]) -> ZoneState:
    ready = sum(readiness(node) == "True" for node in nodes)
    down = len(nodes) - ready
    if ready == 0 and down > 0:
        return "FullDisruption"
    if down > 2 and down / len(nodes) >= UNHEALTHY_SHARE:
        return "PartialDisruption"
    return "Normal"


def taint_rate(state: ZoneState, size: int) -> float:
    """Nodes per second that may get a NoExecute taint."""
    if state == "PartialDisruption":
        return SECONDARY_RATE if size > LARGE_ZONE else 0.0
    return EVICTION_RATE


def _taint(node: Json, env: fx.Env) -> fx.Patch:
    taints = with_taints(node, "NoExecute", (NOT_READY, UNREACHABLE), [no_execute_key(node)], env.now)
    return _patch(node, taints)


def _stand_down(nodes: Sequence[Json], env: fx.Env) -> Generator[fx.Effect, fx.Outcome, None]:
    """Everything is down: the fault is ours. Take the taints away and wait."""
    for node in nodes:
        if current_no_execute(node):
            yield _patch(node, with_taints(node, "NoExecute", (NOT_READY, UNREACHABLE), [], env.now))


def _patch(node: Json, taints: Sequence[Mapping[str, Any]]) -> fx.Patch:
    patch = {"spec": {"taints": list(taints) or None}}
    return fx.Patch("nodes", "", meta.name(node), patch, rv=node["metadata"]["resourceVersion"])
