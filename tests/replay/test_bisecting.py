"""Since when no node takes a pod: the event that took the last one away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kcp.replay import bisecting
from kcp.replay.bisecting import find_loss
from kcp.replay.explaining import NothingToExplain, explain_pod
from kcp.replay.incident import Incident
from kcp.store.protocol import Op
from tests.replay.placements import write_log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bisecting") / "log.kcp"
    write_log(file)
    return file


@pytest.fixture
def incident(log: Path) -> Iterator[Incident]:
    with Incident.open(log) as opened:
        yield opened


def preempted_at(incident: Incident) -> int:
    rows = incident.decisions_of("default-scheduler")
    return next(max(frontier.values()) for row, frontier in rows if row.effects[0]["kind"] == "Preempt")


def test_the_pod_that_took_the_last_room_is_found(incident: Incident) -> None:
    explained = explain_pod(incident, "default/vip", at=preempted_at(incident))
    found = find_loss(incident, explained)
    other = explain_pod(incident, "default/fits-one")
    assert found.event is not None and found.nodes == (other.chosen,)
    assert found.what == f"Pod default/fits-one was bound to {other.chosen}"
    assert other.decision is not None and found.event.cause.decision_id == other.decision.id
    (verdict,) = found.verdicts
    assert verdict.refusals[0].reasons == ("Insufficient cpu",)
    assert verdict.refusals[0].details["cpu"]["held by"] == ["default/fits-one"]


def test_short_steps_find_the_same(incident: Incident, monkeypatch: pytest.MonkeyPatch) -> None:
    explained = explain_pod(incident, "default/vip", at=preempted_at(incident))
    found = find_loss(incident, explained)
    monkeypatch.setattr(bisecting, "STEP_REVISIONS", 3)
    assert find_loss(incident, explained) == found


def test_what_never_had_a_node_and_what_has_one(incident: Incident) -> None:
    never = find_loss(incident, explain_pod(incident, "default/big"))
    assert (never.event, never.nodes, never.rv) == (None, (), incident.log.first_rv)
    with pytest.raises(NothingToExplain, match="the pod is not without a node: a, b would take it"):
        find_loss(incident, explain_pod(incident, "default/web"))


def test_how_events_are_told(incident: Incident) -> None:
    told = {
        (event.key.name, event.op): bisecting.Loss(event.rv, event).what
        for event in incident.log.events(0, incident.log.last_rv)
        if event.key.resource in ("pods", "nodes")
    }
    assert told[("small", Op.ADDED)] == "Node small came"
    assert told[("small", Op.DELETED)] == "Node small was deleted"
    assert told[("red", Op.MODIFIED)] == "Node red changed"
