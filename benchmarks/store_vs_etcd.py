"""Durable writes per second and latency: our event log on SQLite and PostgreSQL against etcd, on the same disk.

    python benchmarks/store_vs_etcd.py [--rounds 4] [--seconds 2] [--writers 1,16,256] [--json FILE]

25 % creates, 75 % compare-and-set updates of a Pod of 1.5 KiB; all durable before they are answered. The stores take
turns in each round, so that a slow minute of the disk hits all; the table shows medians of the rounds and the ratio to
etcd. etcd comes from Debian's etcd-server and is reached over loopback (it has no other way); SQLite is in this process;
PostgreSQL is reached over a unix socket. Loop and memory are set up as the daemon does it. The rate of fdatasync of the same disk stands beside the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import etcd
from benchmarks.daemon import fsync_per_s
from kcp.base import interpreter
from kcp.base.clock import SystemClock
from kcp.machinery.document import normal
from kcp.store.log import EventLog
from kcp.store.open import open_store
from kcp.store.protocol import Head, Key, KindRow, Operation, Put, Record
from tests.store import postgres

PODS = KindRow("pods", "", "v1", "Pod", "pods", True)
Write = Callable[[int, int, int], Awaitable[int]]
"""(number of the object, number of the version, revision to compare) to the new revision."""


_CONDITION = {"lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z", "status": "True"}
_OWNERS = [
    [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f8c7b9", "uid": f"{number:032x}", "controller": True, "blockOwnerDeletion": True}]
    for number in range(100)
]  # fmt: skip
_SPECS = [
    {
        "nodeName": f"node-{number}", "restartPolicy": "Always", "serviceAccountName": "default", "schedulerName": "default-scheduler",
        "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "enableServiceLinks": True, "priority": 0,
        "containers": [{"name": "main", "image": "registry.example/team/web:1.2.3", "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log",
                        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}}],
    }
    for number in range(50)
]  # fmt: skip
_STATUS = {
    "phase": "Running", "hostIP": "192.168.1.7", "qosClass": "Burstable", "startTime": "2026-01-01T00:00:01Z",
    "conditions": [{"type": kind, **_CONDITION} for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")],
    "containerStatuses": [{"name": "main", "ready": True, "restartCount": 0, "started": True, "containerID": "containerd://0123456789abcdef0123"}],
}  # fmt: skip


def pod(number: int, version: int) -> dict[str, Any]:
    """1.5 KiB, as a running Pod of one container has; parts that many Pods have in common are shared, as decoding is not measured."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"web-{number:07d}", "namespace": f"ns-{number % 20}", "uid": f"{number:032x}", "generation": version,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9", "version": str(version)},
            "ownerReferences": _OWNERS[number % 100],
        },
        "spec": _SPECS[number % 50],
        "status": {**_STATUS, "podIP": f"10.0.{number % 250}.{version % 250}"},
    }  # fmt: skip


@attrs.define
class Result:
    """One store with one number of writers: of each round operations per second, p50 and p99 in ms, CPU µs per operation."""

    rate: list[float] = attrs.field(factory=list)
    p50_ms: list[float] = attrs.field(factory=list)
    p99_ms: list[float] = attrs.field(factory=list)
    cpu_us: list[float] = attrs.field(factory=list)


async def load(write: Write, first: int, writers: int, seconds: float) -> tuple[int, list[float]]:
    """Each writer creates an object and updates it three times, again and again; returns operations and latencies."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def work(writer: int) -> int:
        count = 0
        while time.perf_counter() < until:
            number, revision = first + writer + writers * count, 0
            for version in range(4):
                before = time.perf_counter()
                revision = await write(number, version, revision)
                took.append(time.perf_counter() - before)
            count += 1
        return writer + writers * count

    used = await asyncio.gather(*[work(i) for i in range(writers)])
    return max(used), took


def store_writer(store: EventLog) -> Write:
    async def write(number: int, version: int, revision: int) -> int:
        value = pod(number, version)
        body = normal(value)

        def change(current: Record | None, head: Head) -> Put:
            assert (current.rv if current else 0) == revision
            return Put(body, value)

        metadata = value["metadata"]
        done = await store.append(Operation(Key("pods", metadata["namespace"], metadata["name"]), change))
        return done.rv

    return write


def etcd_writer(client: etcd.Client) -> Write:
    async def write(number: int, version: int, revision: int) -> int:
        value = pod(number, version)
        key = f"/registry/pods/{value['metadata']['namespace']}/{value['metadata']['name']}".encode()
        return await client.put(key, normal(value), revision)

    return write


@attrs.define
class Contestant:
    name: str
    write: Write
    server_cpu_s: Callable[[], float] = lambda: 0.0
    used: int = 0


async def compete(
    found: list[Contestant], writers: list[int], rounds: int, seconds: float
) -> dict[tuple[str, int], Result]:
    results: dict[tuple[str, int], Result] = {}
    interpreter.settle()
    for _ in range(rounds):
        for count in writers:
            for one in found:
                cpu = _own_cpu_s() + one.server_cpu_s()
                before = time.perf_counter()
                used, took = await load(one.write, one.used, count, seconds)
                one.used += used
                elapsed = time.perf_counter() - before
                took.sort()
                result = results.setdefault((one.name, count), Result())
                result.rate.append(len(took) / elapsed)
                result.p50_ms.append(took[len(took) // 2] * 1e3)
                result.p99_ms.append(took[int(len(took) * 0.99)] * 1e3)
                result.cpu_us.append((_own_cpu_s() + one.server_cpu_s() - cpu) / len(took) * 1e6)
    return results


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def table(results: dict[tuple[str, int], Result], writers: list[int]) -> list[str]:
    lines = [f"{'store':12} {'writers':>7} {'op/s':>8} {'best':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs/op':>10} {'rate ×':>7} {'p50 ×':>6}"]  # fmt: skip
    for count in writers:
        peer = results.get(("etcd", count))
        for (name, number), r in results.items():
            if number != count:
                continue
            rate, p50 = statistics.median(r.rate), statistics.median(r.p50_ms)
            times = rate / statistics.median(peer.rate) if peer else float("nan")
            slower = p50 / statistics.median(peer.p50_ms) if peer else float("nan")
            lines.append(
                f"{name:12} {count:7} {rate:8.0f} {max(r.rate):8.0f} {p50:8.2f} {statistics.median(r.p99_ms):8.2f}"
                f" {statistics.median(r.cpu_us):10.0f} {times:7.2f} {slower:6.2f}"
            )
    return lines


async def run(arguments: argparse.Namespace) -> None:
    writers = [int(part) for part in arguments.writers.split(",")]
    directory = Path(tempfile.mkdtemp(prefix="kcp-bench-"))
    probe = [fsync_per_s(directory)]
    sqlite = open_store(directory / "kcp.db", clock=SystemClock())
    sqlite.register([PODS])
    found = [Contestant("sqlite", store_writer(sqlite))]
    shared: EventLog | None = None
    server: postgres.Server | None = None
    peer: etcd.Etcd | None = None
    how = ["sqlite: in process"]
    try:
        if postgres.binaries() is not None:
            server = postgres.Server(
                {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB", "max_wal_size": "4GB"}
            )
            server.execute("CREATE DATABASE bench")
            shared = open_store(server.url("bench"), clock=SystemClock())
            shared.register([PODS])
            found.append(Contestant("postgresql", store_writer(shared), lambda: _tree_cpu_s(server.process)))
            how.append("postgresql: unix socket")
        if shutil.which("etcd"):
            peer = etcd.Etcd()
            async with etcd.connect(peer.port) as client:
                how.append(f"etcd {etcd.version()}: {client.how} over loopback")
                found.append(Contestant("etcd", etcd_writer(client), peer.cpu_s))
                results = await compete(found, writers, arguments.rounds, arguments.seconds)
        else:
            results = await compete(found, writers, arguments.rounds, arguments.seconds)
    finally:
        await sqlite.close()
        if shared is not None:
            await shared.close()
        for thing in (server, peer):
            if thing is not None:
                thing.remove()
    probe.append(fsync_per_s(directory))
    shutil.rmtree(directory)
    print("\n".join(table(results, writers)))
    print(
        f"\n{'; '.join(how)}; document {len(normal(pod(1, 1)))} bytes; rounds {arguments.rounds} of {arguments.seconds:g} s"
    )
    print(f"fdatasync of this disk: {probe[0]:.0f}/s before, {probe[1]:.0f}/s after")
    if arguments.json:
        figures = {f"{name}/{count}": attrs.asdict(r) for (name, count), r in results.items()}
        Path(arguments.json).write_text(
            json.dumps({"how": how, "fdatasync_per_s": probe, "results": figures}, indent=1)
        )


def _tree_cpu_s(process: subprocess.Popen[bytes] | None) -> float:
    assert process is not None
    parent = process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    total = 0.0
    for pid in (str(parent), *children):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            continue
        total += (int(fields[11]) + int(fields[12])) / 100
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--writers", default="1,16,256")
    parser.add_argument("--json", metavar="FILE")
    uvloop.run(run(parser.parse_args()))
