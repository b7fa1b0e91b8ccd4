"""Whether size hurts: lists at an old revision above ever more history, a start with many objects, 1,000 watchers.

    python -m benchmarks.store_scale [--events 200000,2000000] [--objects 100000] [--watchers 1000] [--json FILE]

lists     10,000 pods at the head, and as they were before all the history, read from the table both times: the ratio is
          the question, and whether it grows. The head as clients get it, from memory, stands beside it
start     until the log is open and the watch cache stands, with so many live pods, as the daemon does it
watchers  from the moment a commit is visible until a task that watches has its event, one write at a time: each watcher
          with its own node as kubelets do, and all with everything, where the last of them counts too

Logs are made by bulk insertion: each pod's changes are spread over the whole history, one event in five is a short-lived
pod that comes or goes.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import attrs
import orjson
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kcp.api.context import ServerSettings
from kcp.api.selection import EVERYTHING, select
from kcp.api.watch_cache import WatchCaches, WatchRequest
from kcp.apis.catalog import build_catalog
from kcp.base import interpreter
from kcp.base.clock import SystemClock
from kcp.machinery.document import normal
from kcp.store import rows
from kcp.store.log import EventLog
from kcp.store.open import open_store
from kcp.store.protocol import Event, Head, Key, KindRow, Operation, Put, Record
from tests.store import postgres

LISTED = 10_000
ROUNDS = 5
WRITES = 300
IDLE_S = 0.003
PODS = KindRow("pods", "", "v1", "Pod", "pods", True)
_PADDING = {"annotations": {"example.com/padding": "x" * 200}}


def pod(name: str, node: str, generation: int = 1) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "generation": generation,
        **_PADDING,
    }
    spec = {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/team/web:1.2.3"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": "Running"},
    }


@attrs.define
class Life:
    name: str
    oid: int
    rv: int
    delete_rv: int | None = None


@attrs.define
class History:
    """A log in the making: `events` gives rows of the table, `lives` those of `objects` once all events were taken."""

    objects: int
    length: int
    lives: dict[int, Life] = attrs.field(factory=dict)

    def events(self) -> Iterator[tuple[Any, ...]]:
        """Columns rv, oid, op, prev_rv, ts_us, body."""
        for rv in range(1, self.objects + self.length + 1):
            if rv <= self.objects:
                yield self._born(rv, f"web-{rv:07d}")
            elif rv % 10 == 0:
                yield self._born(rv, f"job-{rv:09d}")
            elif rv % 10 == 5 and rv - 5 in self.lives:
                yield self._gone(rv, self.lives[rv - 5])
            else:
                yield self._changed(rv, self.lives[rv * 7919 % self.objects + 1])

    def _born(self, rv: int, name: str) -> tuple[Any, ...]:
        self.lives[rv] = Life(name, rv, rv)
        return rv, rv, 0, 0, rv * 10_000, normal(pod(name, f"node-{rv % 100}"))

    def _changed(self, rv: int, life: Life) -> tuple[Any, ...]:
        before, life.rv = life.rv, rv
        return rv, life.oid, 1, before, rv * 10_000, normal(pod(life.name, f"node-{life.oid % 100}", rv))

    def _gone(self, rv: int, life: Life) -> tuple[Any, ...]:
        before, life.rv, life.delete_rv = life.rv, rv, rv
        return rv, life.oid, 2, before, rv * 10_000, None

    def object_rows(self) -> Iterator[tuple[Any, ...]]:
        """Columns oid, kind_id, ns, name, uid, rv, delete_rv, expires_us."""
        for life in self.lives.values():
            yield life.oid, 1, "default", life.name, f"uid-{life.name}", life.rv, life.delete_rv, None

    @property
    def last(self) -> int:
        return self.objects + self.length


KIND_VALUES = (1, "", "v1", "Pod", "pods", 1, "full")
ACTOR_VALUES = (1, "system:bench", "[]", "", "", "")


async def make_sqlite(path: Path, history: History) -> str:
    await open_store(path, clock=SystemClock()).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN")
    connection.execute(rows.UPSERT_KIND, KIND_VALUES)
    connection.execute(rows.INSERT_ACTOR, ACTOR_VALUES)
    connection.executemany(
        rows.INSERT_EVENT,
        ((rv, oid, op, prev, ts, 1, None, None, 0, body) for rv, oid, op, prev, ts, body in history.events()),
    )
    connection.executemany(rows.INSERT_OBJECT, history.object_rows())
    connection.execute("UPDATE head SET rv = ?, ts_us = ?", (history.last, history.last * 10_000))
    connection.execute("COMMIT")
    connection.execute("PRAGMA analysis_limit=1000")
    connection.execute("ANALYZE")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return str(path)


async def make_postgres(url: str, history: History) -> str:
    await open_store(url, clock=SystemClock()).close()
    connection = await asyncpg.connect(url)
    kinds = ["kind_id", "grp", "version", "kind", "plural", "namespaced", "history_class"]
    await connection.copy_records_to_table("kinds", records=[KIND_VALUES], columns=kinds)
    await connection.copy_records_to_table("actors", records=[ACTOR_VALUES])
    await connection.copy_records_to_table(
        "events",
        records=(
            (rv, oid, op, prev, ts, 1, None if body is None else body.decode())
            for rv, oid, op, prev, ts, body in history.events()
        ),
        columns=["rv", "oid", "op", "prev_rv", "ts_us", "actor_id", "body"],
    )
    await connection.copy_records_to_table("objects", records=history.object_rows())
    await connection.execute("UPDATE head SET rv = $1, ts_us = $2", history.last, history.last * 10_000)
    await connection.execute("VACUUM ANALYZE events, objects")
    await connection.close()
    return url


async def best_ms(work: Callable[[], Awaitable[Any]]) -> float:
    took = []
    for _ in range(ROUNDS):
        before = time.perf_counter()
        await work()
        took.append((time.perf_counter() - before) * 1e3)
    return min(took)


async def lists(where: str) -> dict[str, float]:
    async with open_store(where, clock=SystemClock()) as store:
        store.register([PODS])
        driver, last = store._driver, store.rv

        async def at(rv: int) -> None:
            assert len(await driver.list_at("pods", rv, None, None, LISTED)) == LISTED

        async def present() -> None:
            assert (
                len(orjson.dumps([orjson.Fragment(r.document.encoded) for r in store.list("pods")])) > LISTED
            )

        past, middle = await best_ms(lambda: at(LISTED)), await best_ms(lambda: at((LISTED + last) // 2))
        head = await best_ms(lambda: at(last))
        return {
            "head ms": head, "past ms": past, "middle ms": middle, "past / head": past / head,
            "middle / head": middle / head, "head from memory, encoded ms": await best_ms(present),
        }  # fmt: skip


async def start(where: str, objects: int) -> dict[str, float]:
    catalog = build_catalog()
    gc.collect()
    before = time.perf_counter()
    store = open_store(where, clock=SystemClock())
    opened = time.perf_counter()
    store.register([PODS])
    caches = WatchCaches(store, catalog, SystemClock(), ServerSettings())
    listed = len(store.list("pods"))
    ready = time.perf_counter()
    caches.close()
    await store.close()
    assert listed == objects
    return {"open s": opened - before, "serving s": ready - before}


@attrs.define
class Deliveries:
    """When each revision became visible, and how long after that each watcher had it."""

    visible: dict[int, float] = attrs.field(factory=dict)
    took_ms: list[float] = attrs.field(factory=list)
    heard: int = 0

    def note(self, events: Sequence[Event]) -> None:
        now = time.perf_counter()
        self.visible.update((event.rv, now) for event in events)

    async def follow(self, caches: WatchCaches, request: WatchRequest) -> None:
        async for batch in caches.watch(request):
            now = time.perf_counter()
            self.heard += len(batch)
            self.took_ms.extend((now - self.visible[event.document.rv]) * 1e3 for event in batch)


def _write(store: EventLog, name: str, node: str, generation: int) -> Operation:
    value = pod(name, node, generation)
    body = normal(value)

    def change(current: Record | None, head: Head) -> Put:
        del current, head
        return Put(body, value)

    return Operation(Key("pods", "default", name), change)


async def watch(watchers: int, writes: int, *, by_node: bool) -> dict[str, float]:
    """One write every IDLE_S after all have heard of the last one."""
    kind = build_catalog().by_resource("", "v1", "pods")
    assert kind is not None
    found = Deliveries()
    with tempfile.TemporaryDirectory(prefix="kcp-bench-") as directory:
        async with open_store(Path(directory) / "kcp.db", clock=SystemClock()) as store:
            store.register([PODS])
            store.listen(found.note)
            caches = WatchCaches(store, build_catalog(), SystemClock(), ServerSettings())
            interpreter.settle()
            async with anyio.create_task_group() as tasks:
                for i in range(watchers):
                    selection = select(kind, "", f"spec.nodeName=node-{i}") if by_node else EVERYTHING
                    request = WatchRequest(kind, selection=selection, rv=store.rv)
                    tasks.start_soon(found.follow, caches, request)
                await anyio.sleep(0.2)
                for number in range(writes):
                    await store.append(
                        _write(store, f"web-{number % 50}", f"node-{number % 50 * 17 % watchers}", number)
                    )
                    expected = (number + 1) * (1 if by_node else watchers)
                    while found.heard < expected:
                        await anyio.sleep(0)
                    await anyio.sleep(IDLE_S)
                caches.close()
    took = sorted(found.took_ms)
    return {"p50 ms": statistics.median(took), "p99 ms": took[int(len(took) * 0.99)], "max ms": took[-1]}


@attrs.define
class Engines:
    """Places for logs on each engine that is there."""

    directory: Path
    server: postgres.Server | None
    made: int = 0

    async def make(self, engine: str, history: History) -> str:
        self.made += 1
        if engine == "sqlite":
            return await make_sqlite(self.directory / f"{self.made}.db", history)
        assert self.server is not None
        self.server.execute(f"CREATE DATABASE b{self.made}")
        return await make_postgres(self.server.url(f"b{self.made}"), history)

    @property
    def names(self) -> list[str]:
        return ["sqlite"] + (["postgresql"] if self.server is not None else [])


def show(title: str, found: dict[str, float]) -> None:
    print(f"{title:34}" + "   ".join(f"{name} {value:.3g}" for name, value in found.items()), flush=True)


async def run(arguments: argparse.Namespace) -> None:
    results: dict[str, dict[str, float]] = {}
    directory = Path(tempfile.mkdtemp(prefix="kcp-bench-"))
    server = (
        postgres.Server({"shared_buffers": "256MB", "max_wal_size": "4GB"}) if postgres.binaries() else None
    )
    engines = Engines(directory, server)

    def note(title: str, found: dict[str, float]) -> None:
        results[title] = found
        show(title, found)

    try:
        for events in [int(part) for part in arguments.events.split(",") if part]:
            for engine in engines.names:
                note(
                    f"lists {engine} {events}",
                    await lists(await engines.make(engine, History(LISTED, events))),
                )
        if arguments.objects:
            for engine in engines.names:
                where = await engines.make(engine, History(arguments.objects, 0))
                note(f"start {engine} {arguments.objects}", await start(where, arguments.objects))
        if arguments.watchers:
            note(
                f"watchers {arguments.watchers} own node",
                await watch(arguments.watchers, WRITES, by_node=True),
            )
            note(
                f"watchers {arguments.watchers} everything",
                await watch(arguments.watchers, 30, by_node=False),
            )
    finally:
        shutil.rmtree(directory)
        if server is not None:
            server.remove()
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", default="200000,2000000", help="lengths of history, none: no lists")
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--json", metavar="FILE")
    uvloop.run(run(parser.parse_args()))
