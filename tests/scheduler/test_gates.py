"""What keeps pods out of the queue keeps nothing of pods that are gone."""

from __future__ import annotations

from typing import Any

from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.dra.claims import CLEAN_AT, ClaimGate
from kcp.scheduler.gates import Gates
from kcp.scheduler.own_plugins import own_plugins
from tests.scheduler.harness import pod
from tests.scheduler.test_gang_scheduling import gangs, member

Json = dict[str, Any]


def known(name: str, **spec: Any) -> Json:
    obj = pod(name, **spec)
    obj["metadata"]["uid"] = name
    return obj


def test_claims_that_nobody_waits_for_any_more_are_forgotten() -> None:
    state = ClusterState()
    gate = ClaimGate(state)
    for number in range(CLEAN_AT + 50):
        obj = known(f"p{number}", resourceClaims=[{"name": "gpu", "resourceClaimName": f"c{number}"}])
        state.apply("pods", None, obj)
        assert gate.gate(obj)
        if number:
            state.apply("pods", obj, None)
    assert gate.waiting_for("default/c0") == ["p0"]
    assert gate.waiting_for("default/c1") == [] and gate.waiting_for(f"default/c{CLEAN_AT + 40}") != []


def test_a_gated_pod_that_is_deleted_is_not_watched_any_more() -> None:
    state = ClusterState()
    own = own_plugins(gangs(), state, {}, lambda: 0)
    assert own is not None and isinstance(own.gates, Gates)
    obj = known("w", **member("train"))
    state.apply("pods", None, obj)
    own.follow("pods", None, obj)
    assert own.gates(obj) is not None and own.gates.due_us() == 5_000_000
    state.apply("pods", obj, None)
    own.follow("pods", obj, None)
    assert own.gates.due(6_000_000) == []
