"""How long questions about the past take: the how-to's statements and lists at old revisions, on both engines.

    python benchmarks/incident_queries.py [--events 200000] [--json FILE]

The log is generated (tests/store/generated.py: 600 pods on 20 nodes that start, flap, restart, move and go). Of each
statement the best of three runs. Lists: 10,000 ConfigMaps at the head and at a revision with all later history above it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import SystemClock, VirtualClock
from kcp.store.facts import projections
from kcp.store.query import Session
from tests.store import generated, postgres
from tests.store.changes import create, key, open_for_test
from tests.store.test_incident_queries import queries

OBJECTS = 10_000


async def fill(where: Path | str, events: int) -> tuple[float, int]:
    """Returns the seconds it took and the revision at which the ConfigMaps were there."""
    clock = VirtualClock()
    before = time.perf_counter()
    async with open_for_test(where, clock, projections=projections(FACTS)) as store:
        shop = await generated.fill(store, clock, 1000, pods=600, nodes=20)
        for first in range(0, OBJECTS, 500):
            await store.append_all(
                [create(key(f"c{i:05}"), data={"i": "x" * 200}) for i in range(first, first + 500)]
            )
        early = store.rv
        await generated.fill(store, clock, early + events, shop=shop)
    return time.perf_counter() - before, early


async def best_ms(work: Callable[[], Awaitable[Any]], runs: int = 3) -> float:
    took = []
    for _ in range(runs):
        before = time.perf_counter()
        await work()
        took.append((time.perf_counter() - before) * 1e3)
    return min(took)


async def lists(where: Path | str, early: int) -> dict[str, float]:
    async with open_for_test(where) as store:
        last = store.rv
        driver = store._driver

        async def at(rv: int) -> None:
            assert len(await driver.list_at("configmaps", rv, "default", None, None)) == OBJECTS

        async def page() -> None:
            await driver.list_at("configmaps", early, "default", ("default", "c05000"), 500)

        async def resume() -> None:
            await driver.events_since(early, last, None, 1000)

        return {
            "list of 10,000 from the table at the head": await best_ms(lambda: at(last)),
            "list of 10,000 before all that history": await best_ms(lambda: at(early)),
            "page of 500 of it": await best_ms(page),
            "1,000 events from there on": await best_ms(resume),
        }


async def measure(where: Path | str, engine: str, events: int) -> dict[str, float]:
    took_s, early = await fill(where, events)
    found = {"events per second while filling": (events + OBJECTS) / took_s}
    found |= await lists(where, early)
    with Session(where, SystemClock(), deadline_s=300) as session:
        for heading, by_engine in queries().items():

            async def run(sql: str = by_engine[engine]) -> None:
                session.run(sql)

            found[heading] = await best_ms(run)
    return found


def main(events: int, file: str | None) -> None:
    results: dict[str, dict[str, float]] = {}
    directory = Path(tempfile.mkdtemp(prefix="kcp-bench-"))
    results["sqlite"] = asyncio.run(measure(directory, "sqlite", events))
    shutil.rmtree(directory)
    if postgres.binaries() is not None:
        results["postgresql"] = asyncio.run(measure(postgres.database(), "postgresql", events))
    print(
        f"{events} events above {OBJECTS} objects; ms\n{'':46}" + "".join(f"{name:>12}" for name in results)
    )
    for name in results["sqlite"]:
        print(f"{name:46}" + "".join(f"{found[name]:12.1f}" for found in results.values()))
    if file:
        Path(file).write_text(json.dumps({"events": events, "results": results}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    main(arguments.events, arguments.json)
