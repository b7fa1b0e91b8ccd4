"""A process that appends under load and notes every acknowledgement in a file, to be killed by the test.

python -m tests.store.appender DIRECTORY [URL]      the log is DIRECTORY/kcp.db, or the one at URL
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import anyio

from kcp.store.log import EventLog
from kcp.store.protocol import Unavailable
from tests.store.changes import key, open_for_test, write

WRITERS = 32


async def _write(store: EventLog, writer: int, acknowledged: int) -> None:
    life = store.next_decision_id() // 10**12
    for i in range(1_000_000):
        at = key(f"w{writer}-{life}-{i // 5}")
        verb = ("create", "update", "update", "update", "delete")[i % 5]
        while True:
            try:
                done = await store.append(write(verb, at, i=str(i)))
            except Unavailable:
                await anyio.sleep(0.05)
                if _done_after_all(store, verb, str(at), i):
                    break
                continue
            os.write(acknowledged, f"{done.rv} {at} {i % 5}\n".encode())
            break


def _done_after_all(store: EventLog, verb: str, name: str, i: int) -> bool:
    """Whether a write of unknown outcome is there: stored and not acknowledged is legal."""
    record = next((r for r in store.list("configmaps") if str(r.key) == name), None)
    if verb == "delete":
        return record is None
    return record is not None and bool(record.value["data"] == {"i": str(i)})


async def main(directory: Path, where: str) -> None:
    acknowledged = os.open(directory / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = open_for_test(where)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.run)
        for writer in range(WRITERS):
            tasks.start_soon(_write, store, writer, acknowledged)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    asyncio.run(main(place, sys.argv[2] if len(sys.argv) > 2 else str(place / "kcp.db")))
