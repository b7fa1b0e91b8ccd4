"""A process that appends under load and notes every acknowledgement in a file, to be killed by the test.

python -m tests.store.appender DIRECTORY [URL]      the log is DIRECTORY/kcp.db, or the one at URL
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import anyio

from kcp.base import logs
from kcp.machinery.errors import AlreadyExists, NotFound
from kcp.store import writer as store_writer
from kcp.store.log import EventLog
from kcp.store.protocol import Committed, Operation, Unavailable
from kcp.store.sqlite import SqliteDriver
from tests.store.changes import key, open_for_test, write

WRITERS = 32


async def _write(store: EventLog, writer: int, acknowledged: int) -> None:
    life = store.next_decision_id() // 10**12
    for i in range(1_000_000):
        at = key(f"w{writer}-{life}-{i // 5}")
        verb = ("create", "update", "update", "update", "delete")[i % 5]
        done = await _append(store, write(verb, at, i=str(i)))
        if done is not None:
            os.write(acknowledged, f"{done.rv} {at} {i % 5}\n".encode())


async def _append(store: EventLog, operation: Operation) -> Committed | None:
    """Again until it is answered; None: an attempt of unknown outcome was stored and never acknowledged, which is legal."""
    unknown = False
    while True:
        try:
            return await store.append(operation)
        except Unavailable:
            unknown = True
            await anyio.sleep(0.05)
        except (AlreadyExists, NotFound):
            if not unknown:
                raise
            return None


def _keep_two_on_their_way(store: EventLog) -> None:
    """Small batches follow each other before the outcome of the first is known, on SQLite in its thread."""
    store_writer.EAGER_OPERATIONS = 4
    if isinstance(store._driver, SqliteDriver):
        store._driver._threaded_until_s = float("inf")


async def main(directory: Path, where: str) -> None:
    acknowledged = os.open(directory / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = open_for_test(where)
    if store.next_decision_id() // 10**12 % 2:
        _keep_two_on_their_way(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.run)
        for writer in range(WRITERS):
            tasks.start_soon(_write, store, writer, acknowledged)


if __name__ == "__main__":
    logs.configure(level="error", stream=sys.stderr)
    place = Path(sys.argv[1])
    asyncio.run(main(place, sys.argv[2] if len(sys.argv) > 2 else str(place / "kcp.db")))
