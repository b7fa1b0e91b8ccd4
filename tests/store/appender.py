"""A process that appends under load and notes every acknowledgement in a file, to be killed by the test."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from kcp.store.log import EventLog
from tests.store.changes import key, open_for_test, write

WRITERS = 32


async def _write(store: EventLog, writer: int, acknowledged: int) -> None:
    life = store.epoch
    for i in range(1_000_000):
        at = key(f"w{writer}-{life}-{i // 5}")
        verb = ("create", "update", "update", "update", "delete")[i % 5]
        done = await store.append(write(verb, at, i=str(i)))
        os.write(acknowledged, f"{done.rv} {at} {i % 5}\n".encode())


async def main(directory: Path) -> None:
    acknowledged = os.open(directory / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    store = open_for_test(directory / "kcp.db")
    await asyncio.gather(*[_write(store, writer, acknowledged) for writer in range(WRITERS)])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
