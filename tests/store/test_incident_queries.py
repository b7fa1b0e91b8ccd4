"""The statements of docs/how-to/incident-queries.md, run on a generated log on both engines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import VirtualClock
from kcp.store.facts import projections
from kcp.store.query import Session
from tests.store import generated, postgres
from tests.store.changes import open_for_test

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "incident-queries.md"
EVENTS = 1200


def queries() -> dict[str, dict[str, str]]:
    """By heading, by engine."""
    found: dict[str, dict[str, str]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading = section.partition("\n")[0]
        for engine, sql in re.findall(r"```sql ?(\w*)\n(.*?)\n```", section, re.S):
            for name in [engine] if engine else ["sqlite", "postgresql"]:
                found.setdefault(heading, {})[name] = sql.rstrip().rstrip(";")
    return found


async def _fill(where: Path | str) -> None:
    clock = VirtualClock()
    async with open_for_test(where, clock, inline=True, projections=projections(FACTS)) as store:
        await generated.fill(store, clock, EVENTS)


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("incident")
    postgres.asyncio_run(_fill(where))
    return where


@pytest.fixture(scope="module")
def shared() -> str:
    where = postgres.database()
    postgres.asyncio_run(_fill(where))
    return where


def run(where: Path | str, sql: str) -> list[list[Any]]:
    with Session(where, VirtualClock()) as session:
        return [list(row) for row in session.run(sql).rows]


def test_there_are_twelve_for_both_engines() -> None:
    found = queries()
    assert len(found) == 12
    assert all(set(by_engine) == {"sqlite", "postgresql"} for by_engine in found.values())


@pytest.mark.parametrize("heading", sorted(queries()))
def test_each_finds_something(sqlite: Path, heading: str) -> None:
    assert run(sqlite, queries()[heading]["sqlite"])


@pytest.mark.real
@pytest.mark.parametrize("heading", sorted(queries()))
def test_each_finds_the_same_on_postgresql(sqlite: Path, shared: str, heading: str) -> None:
    by_engine = queries()[heading]
    ours, theirs = run(sqlite, by_engine["sqlite"]), run(shared, by_engine["postgresql"])
    if "sqlite" in PAGE.read_text().split(f"\n## {heading}")[1].split("\n## ")[0]:
        assert len(theirs) == len(ours) and [row[0] for row in theirs] == [row[0] for row in ours]
    else:
        assert [[_text(v) for v in row] for row in theirs] == [[_text(v) for v in row] for row in ours]


def _text(value: Any) -> Any:
    return value.replace(" ", "") if isinstance(value, str) else value


def test_answers_that_can_be_checked_by_hand(sqlite: Path) -> None:
    by_heading = {heading: by_engine["sqlite"] for heading, by_engine in queries().items()}
    fights = run(sqlite, by_heading["Two writers that fight"])
    assert ["ConfigMap", "shop", "settings"] in [row[:3] for row in fights]
    flips = run(sqlite, by_heading["Pods that flap"])
    assert len(flips) == 10 and flips[0][2] >= flips[-1][2] > 0
    storms = run(sqlite, by_heading["When the storm began"])
    assert storms[0][1] == "Pod"
    total = sum(row[4] for row in run(sqlite, by_heading["Who changed what"]))
    assert total == 401
    why = run(sqlite, by_heading["Why did this happen"])
    assert {row[3] for row in why} == {"replicaset"}
