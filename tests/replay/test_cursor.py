"""Folds: wherever one stands, the caches are what the store had there, on whatever way they came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcp.replay import cursor
from kcp.replay.cursor import Log
from kcp.replay.incident import Incident
from kcp.replay.run import remake_all
from kcp.store.reader import LogReader
from tests.replay import stories

Json = dict[str, Any]
RESOURCES = ("pods", "replicasets.apps", "nodes", "leases.coordination.k8s.io")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stories.rollout(tmp_path_factory.mktemp("cursor") / "log.kcp")


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """Anchors, pages and undo so short that a small log has many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cursor, "ANCHOR_REVISIONS", 40)
        patch.setattr(cursor, "PAGE_REVISIONS", 16)
        patch.setattr(cursor, "UNDO_KEPT", 4)
        patch.setattr(cursor, "PAGES_KEPT", 2)
        yield


@pytest.fixture(scope="module")
def reader(log: Path) -> Iterator[LogReader]:
    with LogReader(log) as opened:
        yield opened


def names(objects: Any) -> list[tuple[str, str]]:
    return [(o["metadata"]["uid"], o["metadata"]["resourceVersion"]) for o in objects]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.lists(st.integers(0, 400), min_size=1, max_size=12))
def test_a_fold_stands_where_it_is_told_to(narrow: None, reader: LogReader, where: list[int]) -> None:
    log = Log(reader)
    seen: dict[str, dict[str, Json]] = {resource: {} for resource in RESOURCES}

    def follow(resource: str) -> Any:
        def change(old: Json | None, new: Json | None) -> None:
            for obj in (old, new):
                if obj is not None:
                    seen[resource].pop(obj["metadata"]["uid"], None)
            if new is not None:
                seen[resource][new["metadata"]["uid"]] = new

        return change

    folds = {resource: log.fold(resource, follow(resource)) for resource in RESOURCES}
    for rv in where:
        for resource, fold in folds.items():
            fold.move_to(rv)
            if resource.startswith("leases"):
                continue
            wanted = names(record.value for record in reader.list_at(resource, rv))
            assert names(fold.indexer.list()) == wanted, (resource, rv)
            assert sorted(names(seen[resource].values())) == sorted(wanted)
            assert fold.rv == fold.indexer.rv == rv


def test_decisions_are_identical_from_any_anchor(narrow: None, log: Path) -> None:
    with Incident.open(log) as incident:
        results = list(remake_all(incident))
        assert len(results) == len(incident.ids()) > 50
        assert [result.decision.id for result in results if not result.identical] == []


def test_any_decision_has_the_frontier_that_all_in_a_row_have(log: Path) -> None:
    with Incident.open(log) as whole, Incident.open(log) as single:
        rows = {d.id: (d, f) for name in whole.controllers for d, f in whole.decisions_of(name)}
        assert list(rows) != sorted(rows)
        for number in sorted(rows, reverse=True):
            assert single.decision(number) == rows[number]
        with pytest.raises(KeyError):
            single.decision(5)


def test_opening_reads_no_event_and_no_decision(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("nobody has asked for anything yet")

    for name in ("events", "list_at", "positions", "decisions"):
        monkeypatch.setattr(LogReader, name, refuse)
    with Incident.open(log):
        pass
