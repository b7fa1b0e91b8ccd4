"""What a person waits for who opens an incident, and how fast decisions are re-made.

    python -m benchmarks.replay [--events 1000000] [--minutes 10] [--json FILE]

The large log is generated: 3,000 pods on 100 nodes that start, flap, move and go, with three decisions per ten events, about
a day of such a cluster. Decisions to re-make come from a simulated cluster, since only a real controller decides anything. What is
run again as a whole was recorded a moment before: a daemon in this process, whose Deployments grow, are rolled out and go.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import fixture
from kcp.apis.semantics.facts import FACTS
from kcp.base import logs
from kcp.base.clock import EPOCH_OF_SIMULATION, SystemClock, VirtualClock, microseconds
from kcp.replay.equality import compare
from kcp.replay.exploration import Scenario
from kcp.replay.incident import IDS_PER_RUN, Incident
from kcp.replay.reexecution import rerun
from kcp.replay.run import cores, plan_work, remake_parallel
from kcp.replay.session import Session
from kcp.store import rows
from kcp.store.facts import projections
from kcp.store.protocol import Decision
from kcp.store.reader import LogReader
from kcp.store.transfer import export_incident, restore
from kcp.testing import BlockingClient, serve
from tests.store import generated
from tests.store.changes import open_for_test
from tests.support.builders import deployment

T = TypeVar("T")
PODS, NODES = 3000, 100
DECISIONS_PER_EVENT = 0.3
WHOLE_EVERY = 64
DEPLOYMENTS = "deployments.apps"
NAMES = [f"web-{number}" for number in range(10)]
REST_S = 2.0
"""A log has hours in which little happens; these are few, and count as such."""


def timed(work: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def decisions(events: int) -> Iterator[tuple[int, Decision]]:
    """Rows as a ReplicaSet controller writes them, spread over the log."""
    for number in range(int(events * DECISIONS_PER_EVENT)):
        rv = 1 + int(number / DECISIONS_PER_EVENT)
        frontier = {"#": number, "pods": rv}
        if number % WHOLE_EVERY == 0:
            frontier |= {"*": 1, "replicasets.apps": rv}
        effect = {"kind": "Status", "resource": "replicasets.apps", "namespace": "shop", "name": "web", "digest": "0" * 16, "outcome": "ok"}  # fmt: skip
        now_us = microseconds(EPOCH_OF_SIMULATION) + rv * 86_400
        yield rv, Decision(
            IDS_PER_RUN + number, "replicaset-controller", "shop/web", "event", frontier, now_us, [effect], None, "code", "config",
        )  # fmt: skip


def generate(file: Path, events: int) -> None:
    async def fill() -> None:
        clock = VirtualClock()
        async with open_for_test(file, clock, projections=projections(FACTS)) as store:
            await generated.fill(store, clock, events, pods=PODS, nodes=NODES)

    asyncio.run(fill())
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM decisions")
        values = (rows.decision_values(rv, decision) for rv, decision in decisions(events))
        connection.executemany(rows.INSERT_DECISION, values)
    connection.close()


def first_screen(file: Path) -> Session:
    """What `kcp replay FILE --until …` does before it shows something: in the middle of the log, with full caches."""
    session = Session(Incident.open(file))
    session.step(len(session.ids) // 2)
    session.nearby(100, 100)
    session.caches()
    return session


def of_the_large_log(directory: Path, events: int) -> dict[str, float]:
    file, copy, again = directory / "kcp.db", directory / "copy.kcp", directory / "again" / "kcp.db"
    generated_s, _ = timed(lambda: generate(file, events))
    clock = SystemClock()
    export_s, exported = timed(lambda: export_incident(file, copy, clock=clock, mask_key=b"k" * 32))
    assert exported.events == events
    again.parent.mkdir()
    import_s, _ = timed(lambda: restore(copy, again))
    open_s, incident = timed(lambda: Incident.open(copy))
    screen_s, session = timed(lambda: first_screen(copy))
    jump_s, _ = timed(lambda: (session.go("first"), session.caches(), session.go("last"), session.caches()))
    fold = incident.log.fold("pods")
    fold.move_to(0)
    fold_s, _ = timed(lambda: [fold.move_to(rv) for rv in range(1000, events + 1, 1000)])
    return {
        "events": events, "decisions": len(session.ids), "generated_s": generated_s, "export_s": export_s, "import_s": import_s,
        "open_s": open_s, "first_screen_s": screen_s, "to_both_ends_s": jump_s, "folded_per_s": events / fold_s,
        "bytes_per_event": copy.stat().st_size / events,
    }  # fmt: skip


def of_a_simulated_cluster(directory: Path, minutes: int) -> dict[str, float]:
    file = directory / "simulated.kcp"
    run_s, run = timed(lambda: Scenario(1, minutes=minutes).run(file))
    found = {"virtual_s_per_s": run.virtual_s / run_s}
    with Incident.open(file) as incident:
        for jobs in sorted({1, cores()}):
            pieces = plan_work(incident, size=100)
            took_s, batches = timed(lambda: list(remake_parallel(incident, pieces, jobs)))  # noqa: B023 - called at once
            results = [each for batch in batches for each in batch]
            assert all(each.identical for each in results)
            found |= {"remade": len(results), f"remade_per_s_{jobs}_processes": len(results) / took_s}
    return found


def of_a_recorded_cluster(directory: Path) -> dict[str, float]:
    """A log that nobody simulated, run again as a whole, and whether it came to the same."""
    file, again = directory / "recorded.kcp", directory / "again.kcp"
    with serve(directory / "recorded", nodes=10) as cluster:
        roll_out(cluster.client)
    export_incident(directory / "recorded", file, clock=SystemClock(), mask_key=b"k" * 32)
    rerun_s, _ = timed(lambda: rerun(str(file), again))
    with LogReader(file) as one, LogReader(again) as other:
        events = [event.ts_us for event in one.events()]
        found = compare(one, other)
    pairs = found.otherwise, found.elsewhere, found.different
    return {
        "rerun_events": len(events), "rerun_events_per_s": len(events) / rerun_s,
        "rerun_virtual_s_per_s": (events[-1] - events[0]) / 1e6 / rerun_s, "rerun_alike": found.alike,
        "rerun_other_steps": len(pairs[0]), "rerun_other_nodes": len(pairs[1]), "rerun_different": len(pairs[2]),
    }  # fmt: skip


def roll_out(client: BlockingClient) -> None:
    for name in NAMES:
        client.create(deployment(name, replicas=3))
    for change in ({"spec": {"replicas": 8}}, image("web:2"), {"spec": {"replicas": 2}}):
        for name in NAMES:
            client.patch(DEPLOYMENTS, name, change, type="strategic")
        client.wait_for(
            lambda: all(is_through(client.get(DEPLOYMENTS, name)) for name in NAMES), timeout_s=60.0
        )
        time.sleep(REST_S)
    client.delete(DEPLOYMENTS, NAMES[0], "default", propagation="Foreground")
    client.wait_for(lambda: len(client.list(DEPLOYMENTS, "default")) < len(NAMES))


def image(name: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": name}]}}}}


def is_through(found: dict[str, Any]) -> bool:
    status, wanted = found["status"], found["spec"]["replicas"]
    counts = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return bool(
        status.get("observedGeneration") == found["metadata"]["generation"] and counts == [wanted] * 3
    )


def main(events: int, minutes: int, file: str | None) -> None:
    logs.configure(level="error")
    with tempfile.TemporaryDirectory(prefix="kcp-bench-") as name:
        directory = Path(name)
        found: dict[str, Any] = of_the_large_log(directory, events)
        found |= of_a_simulated_cluster(directory, minutes)
        found |= of_a_recorded_cluster(directory)
        found["fixture_first_s"] = fixture.start_s(directory / "fixture-1")
        found["fixture_next_s"] = fixture.start_s(directory / "fixture-2")
    for name, value in found.items():
        print(f"{name:32} {value:14,.3f}" if isinstance(value, float) else f"{name:32} {value:14,}")
    if file is not None:
        Path(file).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    main(arguments.events, arguments.minutes, arguments.json)
