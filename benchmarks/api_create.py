"""Creates per second over TLS, CPU per create, get and list: the API's hot path with durable commits.

    python benchmarks/api_create.py [--pods 4000] [--connections 32] [--json FILE]
    python benchmarks/api_create.py --peer URL --peer-kubeconfig FILE --peer-pid PID[,PID]   # the ratio to another API server

One server process, the load from another. CPU is the server process's own accounting; with a peer, of its processes (etcd too).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.daemon import Daemon, daemon, fsync_per_s
from benchmarks.load import Connection, spread, tls_context

PODS = "/api/v1/namespaces/default/pods"


def pod(number: int) -> bytes:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"bench-{number:06d}", "labels": {"app": "bench", "n": str(number)}},
            "spec": {
                "schedulerName": "nobody",
                "containers": [
                    {
                        "name": "main",
                        "image": "registry.example/app:1",
                        "ports": [{"containerPort": 80}],
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                        "resources": {
                            "requests": {"cpu": "100m", "memory": "100Mi"},
                            "limits": {"cpu": "300m", "memory": "500Mi"},
                        },
                    }
                ],
            },
        }
    ).encode()


async def measure(
    url: str, kubeconfig: Path, cpu_s: Callable[[], float], pods: int, connections: int
) -> dict[str, float]:
    context = tls_context(kubeconfig)

    async def create(connection: Connection, number: int) -> None:
        status, body = await connection.request("POST", PODS, pod(number))
        assert status == 201, (status, body[:300])

    async def get(connection: Connection, number: int) -> None:
        status, _ = await connection.request("GET", f"{PODS}/bench-{number % pods:06d}")
        assert status == 200

    async def one(connection: Connection, number: int) -> None:
        del number
        status, _ = await connection.request("POST", PODS, pod(900_000 + len(singles)))
        assert status == 201
        singles.append(0)

    async def list_all(connection: Connection, number: int) -> None:
        del number
        status, body = await connection.request("GET", PODS + "?limit=5000")
        assert status == 200
        sizes.append(len(body))

    singles: list[int] = []
    sizes: list[int] = []
    figures: dict[str, float] = {}
    for name, work, width, total in (
        ("create", create, connections, pods),
        ("create, one writer", one, 1, 300),
        ("get", get, connections, pods),
    ):
        before = cpu_s()
        took = await spread(url, context, width, total, work)
        figures[f"{name} per s"] = total / took
        figures[f"{name} cpu us"] = (cpu_s() - before) / total * 1e6
    before = cpu_s()
    took = await spread(url, context, 1, 5, list_all)
    figures["list ms"] = took / 5 * 1e3
    figures["list cpu ms"] = (cpu_s() - before) / 5 * 1e3
    figures["list MB"] = sizes[-1] / 1e6
    return figures


def cpu_of(pids: list[int]) -> Callable[[], float]:
    watched = [Daemon(pid, "", Path()) for pid in pids]
    return lambda: sum(each.cpu_s() for each in watched)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", help="URL of another Kubernetes API server on this machine")
    parser.add_argument("--peer-kubeconfig", type=Path)
    parser.add_argument("--peer-pid", default="", help="its processes, separated by commas")
    arguments = parser.parse_args()
    with daemon() as server:
        rate = fsync_per_s(server.data)
        ours = asyncio.run(
            measure(server.url, server.kubeconfig, server.cpu_s, arguments.pods, arguments.connections)
        )
        ours["rss MiB"] = server.rss_mib()
    theirs: dict[str, float] = {}
    if arguments.peer:
        pids = [int(pid) for pid in arguments.peer_pid.split(",") if pid]
        theirs = asyncio.run(
            measure(
                arguments.peer, arguments.peer_kubeconfig, cpu_of(pids), arguments.pods, arguments.connections
            )
        )
    show(ours, theirs, rate)
    if arguments.json:
        document: dict[str, Any] = {"kcp": ours, "peer": theirs, "fdatasync per s": rate}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


def show(ours: dict[str, float], theirs: dict[str, float], rate: float) -> None:
    print(f"{'':28}{'kcp':>12}" + (f"{'peer':>12}{'ratio':>9}" if theirs else ""))
    for name, value in ours.items():
        line = f"{name:28}{value:12.1f}"
        if name in theirs:
            line += f"{theirs[name]:12.1f}{value / theirs[name] if theirs[name] else 0:9.2f}"
        print(line)
    print(f"\n8 KiB fdatasync on this disk: {rate:.0f}/s")


if __name__ == "__main__":
    main()
