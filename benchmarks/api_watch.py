"""What it costs to tell many: CPU µs per watch event delivered over TLS, with 200 watchers of one resource.

    python benchmarks/api_watch.py [--watchers 200] [--changes 300] [--json FILE]
    python benchmarks/api_watch.py --peer URL --peer-kubeconfig FILE --peer-pid PID[,PID]

Watchers are HTTPS connections of another process, each reads every event. Changes are merge patches, one after the
other (`paced`), then from 16 connections at once (`burst`: batches of the log go out together). CPU is the server
process's own accounting, less what the same changes cost without watchers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import attrs

from benchmarks.api_create import cpu_of
from benchmarks.daemon import daemon
from benchmarks.load import Connection, spread, tls_context

MAPS = "/api/v1/namespaces/default/configmaps"
PAYLOAD = "x" * 500
OBJECTS = 16
WAIT_S = 120.0


@attrs.define
class Watcher:
    """One watch. Events are counted by their line ends; `seen` includes those of the start."""

    connection: Connection
    seen: int = 0

    @classmethod
    async def start(cls, url: str, context: ssl.SSLContext) -> Watcher:
        watcher = cls(await Connection.open(url, context))
        connection = watcher.connection
        head = f"GET {MAPS}?watch=true HTTP/1.1\r\nhost: {connection.host}\r\n\r\n"
        connection.writer.write(head.encode())
        answer = await connection.reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return watcher

    async def read(self) -> None:
        while data := await self.connection.reader.read(2**18):
            self.seen += data.count(b"}\n")


@attrs.define
class Changes:
    """Merge patches that each give one event."""

    url: str
    context: ssl.SSLContext
    made: int = 0

    async def make(self, count: int, connections: int) -> None:
        await spread(self.url, self.context, connections, count, self._one)

    async def _one(self, connection: Connection, number: int) -> None:
        del number
        self.made += 1
        body = json.dumps({"data": {"n": str(self.made), "x": PAYLOAD}}).encode()
        status, answer = await connection.request("PATCH", f"{MAPS}/m{self.made % OBJECTS}", body)
        assert status == 200, (status, answer[:300])


async def measure(
    url: str, kubeconfig: Path, cpu_s: Callable[[], float], watchers: int, changes: int
) -> dict[str, float]:
    context = tls_context(kubeconfig)
    await _objects(url, context)
    source = Changes(url, context)
    await source.make(changes, 16)
    alone = {width: await _cost(source, cpu_s, changes, width, []) for width in (1, 16)}
    opened = [await Watcher.start(url, context) for _ in range(watchers)]
    reading = [asyncio.create_task(watcher.read()) for watcher in opened]
    figures: dict[str, float] = {}
    for name, width in (("paced", 1), ("burst", 16)):
        cost = await _cost(source, cpu_s, changes, width, opened)
        figures[f"{name}: cpu us per change alone"] = alone[width] / changes * 1e6
        figures[f"{name}: cpu us per delivered event"] = (cost - alone[width]) / changes / watchers * 1e6
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    for watcher in opened:
        watcher.connection.close()
    return figures


async def _objects(url: str, context: ssl.SSLContext) -> None:
    async def create(connection: Connection, number: int) -> None:
        body = json.dumps({"metadata": {"name": f"m{number}"}}).encode()
        status, _ = await connection.request("POST", MAPS, body)
        assert status == 201

    await spread(url, context, 1, OBJECTS, create)


async def _cost(
    source: Changes, cpu_s: Callable[[], float], changes: int, width: int, watchers: list[Watcher]
) -> float:
    """CPU seconds for so many changes, until every watcher has seen them all."""
    before, wanted = cpu_s(), [watcher.seen + changes for watcher in watchers]
    await source.make(changes, width)
    async with asyncio.timeout(WAIT_S):
        while any(watcher.seen < count for watcher, count in zip(watchers, wanted, strict=True)):
            await asyncio.sleep(0.02)
    return cpu_s() - before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", help="URL of another Kubernetes API server on this machine")
    parser.add_argument("--peer-kubeconfig", type=Path)
    parser.add_argument("--peer-pid", default="", help="its processes, separated by commas")
    arguments = parser.parse_args()
    size = (arguments.watchers, arguments.changes)
    with daemon() as server:
        ours = asyncio.run(measure(server.url, server.kubeconfig, server.cpu_s, *size))
    theirs: dict[str, float] = {}
    if arguments.peer:
        pids = [int(pid) for pid in arguments.peer_pid.split(",") if pid]
        theirs = asyncio.run(measure(arguments.peer, arguments.peer_kubeconfig, cpu_of(pids), *size))
    for name, value in ours.items():
        print(
            f"{name:36}{value:10.1f}"
            + (f"{theirs[name]:10.1f}{value / theirs[name]:8.2f}" if theirs.get(name) else "")
        )
    if arguments.json:
        document: dict[str, Any] = {"kcp": ours, "peer": theirs}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
