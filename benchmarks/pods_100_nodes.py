"""8,000 pods created at once on 100 simulated nodes: pods per second until all are bound, and until all are Running.

    python benchmarks/pods_100_nodes.py [--pods 8000] [--nodes 100] [--json FILE]
    python benchmarks/pods_100_nodes.py --pods 10000 --nodes 5000

It starts when the nodes are Ready and the daemon is at rest, and counts from the first request to the last pod that is
bound in the log; and from there to the last one that is Running. `kB per node` is what the nodes at rest add to a daemon
without any, `kB per pod` what the running pods add to that.

The field notes saw about two minutes on a real cluster with default client limits (50 pods/s). A real stack (etcd,
kube-apiserver, kube-scheduler 1.36 with raised limits) on a two-core machine like this one binds about 470 pods/s: the
ratio is to that. Progress is read from the log's projections, read-only, so that measuring costs the server nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.daemon import Daemon, daemon, fsync_per_s
from benchmarks.load import Connection, spread, tls_context

REAL_STACK_BOUND_PER_S = 470.0
PODS = "/api/v1/namespaces/default/pods"
TIMEOUT_S = 600.0
REST_S, REST_EVENTS_PER_S = 2.0, 100


def pod(number: int) -> bytes:
    resources = {"cpu": "100m", "memory": "500Mi"}
    container = {
        "name": "pause",
        "image": "registry.example/pause:1",
        "resources": {"requests": resources, "limits": resources},
    }
    metadata = {"name": f"pod-{number:06d}", "labels": {"app": "bench"}}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    ).encode()


class Progress(threading.Thread):
    """Notes when all pods were bound and when all were Running, and the server's CPU time until then."""

    def __init__(self, server: Daemon, pods: int) -> None:
        super().__init__(daemon=True)
        self.server, self.log, self.pods = server, server.data / "kcp.db", pods
        self.reached: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}
        self.started_s = time.perf_counter()

    def run(self) -> None:
        connection = sqlite3.connect(f"file:{self.log}?mode=ro", uri=True)
        queries = {
            "bound": "SELECT count(DISTINCT oid) FROM facts_pod WHERE node IS NOT NULL",
            "running": "SELECT count(DISTINCT oid) FROM facts_pod WHERE phase = 'Running'",
        }
        while len(self.reached) < len(queries) and time.perf_counter() - self.started_s < TIMEOUT_S:
            for name, query in queries.items():
                if name not in self.reached and connection.execute(query).fetchone()[0] >= self.pods:
                    self.reached[name] = time.perf_counter() - self.started_s
                    self.cpu_s[name] = self.server.cpu_s()
            time.sleep(0.1)
        connection.close()


def wait_for_rest(server: Daemon) -> None:
    """Until hardly any events are written (renewals of Leases are none): what follows from the nodes' arrival is done."""
    connection = sqlite3.connect(f"file:{server.data / 'kcp.db'}?mode=ro", uri=True)
    revision = 0
    for _ in range(int(TIMEOUT_S / REST_S)):
        time.sleep(REST_S)
        events = connection.execute("SELECT count(*) FROM events WHERE rv > ?", (revision,)).fetchone()[0]
        if revision and events < REST_EVENTS_PER_S * REST_S:
            connection.close()
            return
        revision = connection.execute("SELECT rv FROM head").fetchone()[0]
    raise SystemExit("the daemon does not come to rest")


def measure(server: Daemon, pods: int, connections: int) -> dict[str, float]:
    async def create(connection: Connection, number: int) -> None:
        status, body = await connection.request("POST", PODS, pod(number))
        assert status == 201, (status, body[:300])

    async def load() -> float:
        return await spread(server.url, tls_context(server.kubeconfig), connections, pods, create)

    progress = Progress(server, pods)
    cpu = server.cpu_s()
    progress.start()
    created_s = asyncio.run(load())
    progress.join()
    if len(progress.reached) < 2:
        raise SystemExit(f"gave up after {TIMEOUT_S:.0f} s: {progress.reached}")
    return {
        "created s": created_s,
        "created per s": pods / created_s,
        "all bound s": progress.reached["bound"],
        "bound per s": pods / progress.reached["bound"],
        "all running s": progress.reached["running"],
        "running per s": pods / progress.reached["running"],
        "cpu ms per bound pod": (progress.cpu_s["bound"] - cpu) / pods * 1e3,
        "cpu ms per running pod": (progress.cpu_s["running"] - cpu) / pods * 1e3,
        "rss MiB": server.rss_mib(),
    }


def empty_rss_mib() -> float:
    with daemon() as server:
        wait_for_rest(server)
        return server.rss_mib()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=8000)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with daemon("--nodes", str(arguments.nodes), "--node-cpu", "32", "--node-memory", "256Gi") as server:
        rate = fsync_per_s(server.data)
        wait_for_rest(server)
        at_rest_mib = server.rss_mib()
        figures = measure(server, arguments.pods, arguments.connections)
    figures["kB per node"] = (at_rest_mib - empty_rss_mib()) * 1024 / arguments.nodes
    figures["kB per pod"] = (figures["rss MiB"] - at_rest_mib) * 1024 / arguments.pods
    for name, value in figures.items():
        print(f"{name:24}{value:10.1f}")
    figures["ratio to the real stack"] = figures["bound per s"] / REAL_STACK_BOUND_PER_S
    print(
        f"{'ratio to the real stack':24}{figures['ratio to the real stack']:10.2f}   (bound pods/s against {REAL_STACK_BOUND_PER_S:.0f})"
    )
    print(f"\n8 KiB fdatasync on this disk: {rate:.0f}/s")
    if arguments.json:
        arguments.json.write_text(json.dumps({**figures, "fdatasync per s": rate}, indent=2) + "\n")


if __name__ == "__main__":
    main()
