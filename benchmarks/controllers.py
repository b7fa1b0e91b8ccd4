"""What the controllers cost: a large Deployment rolled out, changed and deleted; mass deletion; a big cluster at rest.

    python benchmarks/controllers.py [--only rollout,collection,owner,configmaps,idle] [--scale 1.0] [--json FILE]

rollout      a Deployment of 5,000 replicas on 500 simulated nodes: created until all run, a new image until all run, deleted
collection   8,000 running pods deleted by one DELETE of the collection, until none is left
owner        8,000 running pods of a ReplicaSet, deleted by the garbage collector after their owner
configmaps   10,000 ConfigMaps that one object owns, collected after it
idle         a cluster of 1,000 nodes and 10,000 pods with nothing to do: share of a core over 30 s

A real stack on a two-core machine deletes about 160 pods per second: the ratio is to that. Progress is read from the log,
read-only, so that measuring costs the server nothing. `--scale` makes every number smaller, for a quick look.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.daemon import Daemon, daemon, fsync_per_s
from benchmarks.load import Connection, spread, tls_context

REAL_STACK_DELETED_PER_S = 160.0
TIMEOUT_S = 600.0
IDLE_S = 30.0
DEFAULT = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default"
Json = dict[str, Any]
Figures = dict[str, float]

LIVE = "SELECT count(*) FROM objects o JOIN kinds k USING (kind_id) WHERE k.plural = ? AND o.ns = 'default' AND o.delete_rv IS NULL"
RUNNING = (
    "SELECT count(*) FROM objects o JOIN kinds k USING (kind_id) JOIN events e ON e.rv = o.rv WHERE k.plural = 'pods'"
    " AND o.ns = 'default' AND o.delete_rv IS NULL AND e.body ->> '$.status.phase' = 'Running'"
    " AND e.body ->> '$.metadata.deletionTimestamp' IS NULL AND e.body ->> '$.spec.containers[0].image' = ?"
)


@attrs.frozen
class Bench:
    """One daemon under measurement."""

    server: Daemon
    log: sqlite3.Connection

    def count(self, query: str, *arguments: object) -> int:
        (found,) = self.log.execute(query, arguments).fetchone()
        return int(found)

    def until(self, query: str, arguments: tuple[object, ...], wanted: int) -> None:
        deadline = time.perf_counter() + TIMEOUT_S
        while self.count(query, *arguments) != wanted:
            if time.perf_counter() > deadline:
                raise SystemExit(f"gave up: {self.count(query, *arguments)} of {wanted}: {query} {arguments}")
            time.sleep(0.1)

    def measure(self, name: str, act: Callable[[], None], done: Callable[[], None]) -> Figures:
        """Seconds, decisions, writes and CPU of a phase."""
        decisions, head = "SELECT count(*) FROM decisions", "SELECT rv FROM head"
        before, writes, cpu = self.count(decisions), self.count(head), self.server.cpu_s()
        started = time.perf_counter()
        act()
        done()
        took = time.perf_counter() - started
        return {
            f"{name} s": took,
            f"{name} cpu s": self.server.cpu_s() - cpu,
            f"{name} decisions": float(self.count(decisions) - before),
            f"{name} writes": float(self.count(head) - writes),
        }

    def requests(self, count: int, one: Callable[[Connection, int], Awaitable[None]]) -> None:
        async def load() -> float:
            return await spread(self.server.url, tls_context(self.server.kubeconfig), 16, count, one)

        asyncio.run(load())

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        found: list[Json] = []

        async def one(connection: Connection, number: int) -> None:
            del number
            payload = json.dumps(body).encode() if body is not None else b""
            status, answer = await connection.request(method, path, payload)
            assert status < 300, (status, answer[:300])
            found.append(json.loads(answer))

        async def load() -> float:
            return await spread(self.server.url, tls_context(self.server.kubeconfig), 1, 1, one)

        asyncio.run(load())
        return found[0]


def template(image: str) -> Json:
    container = {"name": "main", "image": image, "resources": {"requests": {"cpu": "10m"}}}
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}


def owner_of(kind: str, replicas: int, image: str) -> Json:
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(image)}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web"}, "spec": spec}


def rollout(bench: Bench, scale: float) -> Figures:
    replicas = round(5000 * scale)
    first, second = "registry.example/web:1", "registry.example/web:2"
    changed = owner_of("Deployment", replicas, second)
    figures = bench.measure(
        "created",
        lambda: void(bench.request("POST", f"{APPS}/deployments", owner_of("Deployment", replicas, first))),
        lambda: bench.until(RUNNING, (first,), replicas),
    )
    figures |= bench.measure(
        "rolled over",
        lambda: void(bench.request("PUT", f"{APPS}/deployments/web", changed)),
        lambda: (bench.until(RUNNING, (second,), replicas), bench.until(LIVE, ("pods",), replicas))[1],
    )
    return figures | bench.measure(
        "deleted",
        lambda: void(bench.request("DELETE", f"{APPS}/deployments/web")),
        lambda: bench.until(LIVE, ("pods",), 0),
    )


def void(_: object) -> None:
    """For its effect alone."""


def running(bench: Bench, pods: int) -> None:
    image = "registry.example/web:1"
    bench.request("POST", f"{APPS}/replicasets", owner_of("ReplicaSet", pods, image))
    bench.until(RUNNING, (image,), pods)
    time.sleep(2.0)


def collection(bench: Bench, scale: float) -> Figures:
    pods = round(8000 * scale)
    running(bench, pods)
    bench.request("DELETE", f"{APPS}/replicasets/web?propagationPolicy=Orphan")
    bench.until(LIVE, ("replicasets",), 0)
    figures = bench.measure(
        "pods",
        lambda: void(bench.request("DELETE", f"{DEFAULT}/pods?gracePeriodSeconds=0")),
        lambda: bench.until(LIVE, ("pods",), 0),
    )
    return figures | _per_s(figures, "pods", pods)


def owner(bench: Bench, scale: float) -> Figures:
    pods = round(8000 * scale)
    running(bench, pods)
    figures = bench.measure(
        "pods",
        lambda: void(bench.request("DELETE", f"{APPS}/replicasets/web")),
        lambda: bench.until(LIVE, ("pods",), 0),
    )
    return figures | _per_s(figures, "pods", pods)


def _per_s(figures: Figures, name: str, count: int) -> Figures:
    rate = count / figures[f"{name} s"]
    return {f"{name} per s": rate, "ratio to the real stack": rate / REAL_STACK_DELETED_PER_S}


def configmaps(bench: Bench, scale: float) -> Figures:
    count = round(10_000 * scale)
    plain: Json = {"apiVersion": "v1", "kind": "ConfigMap"}
    made = bench.request("POST", f"{DEFAULT}/configmaps", {**plain, "metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": made["metadata"]["uid"]}
    metadata: Json = {"ownerReferences": [reference], "labels": {"owned": "yes"}}

    async def create(connection: Connection, number: int) -> None:
        body = {**plain, "metadata": {**metadata, "name": f"cm-{number:05d}"}, "data": {"k": "v"}}
        status, answer = await connection.request("POST", f"{DEFAULT}/configmaps", json.dumps(body).encode())
        assert status == 201, (status, answer[:300])

    left = bench.count(LIVE, "configmaps") - 1
    bench.requests(count, create)
    time.sleep(2.0)
    return bench.measure(
        "configmaps",
        lambda: void(bench.request("DELETE", f"{DEFAULT}/configmaps/owner")),
        lambda: bench.until(LIVE, ("configmaps",), left),
    )


def idle(bench: Bench, scale: float) -> Figures:
    running(bench, round(10_000 * scale))
    time.sleep(20.0)
    cpu, started = bench.server.cpu_s(), time.perf_counter()
    time.sleep(IDLE_S)
    share = (bench.server.cpu_s() - cpu) / (time.perf_counter() - started)
    return {"share of a core %": share * 100, "rss MiB": bench.server.rss_mib()}


SCENARIOS: dict[str, tuple[Callable[[Bench, float], Figures], int]] = {
    "rollout": (rollout, 500),
    "collection": (collection, 100),
    "owner": (owner, 100),
    "configmaps": (configmaps, 0),
    "idle": (idle, 1000),
}
"""What is done, and on how many nodes."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Figures] = {}
    rate = 0.0
    for name in arguments.only.split(","):
        scenario, nodes = SCENARIOS[name]
        count = round(nodes * arguments.scale) if nodes else 0
        with daemon("--nodes", str(count), "--node-cpu", "32", "--node-memory", "256Gi", "--node-pods", "500") as server:  # fmt: skip
            rate = fsync_per_s(server.data)
            log = sqlite3.connect(f"file:{server.data / 'kcp.db'}?mode=ro", uri=True)
            found[name] = scenario(Bench(server, log), arguments.scale)
            log.close()
        for figure, value in found[name].items():
            print(f"{name:12}{figure:28}{value:12.1f}", flush=True)
    print(f"\n8 KiB fdatasync on this disk: {rate:.0f}/s")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
