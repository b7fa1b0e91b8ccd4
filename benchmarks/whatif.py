"""How long a what-if takes: 10,000 recorded decisions again, by the same and by another configuration.

    python -m benchmarks.whatif [--pods 10000] [--nodes 1000] [--json FILE]

The log is that of a scheduler which really decided: pods of five kinds, created in bursts, each bound as soon as it is there.
`read` is paid once per log; `again` and `packing` once for each configuration that is tried.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kcp.base import interpreter, logs
from kcp.client.client import Client
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay.incident import Incident
from kcp.replay.whatif.arrivals import read_arrivals
from kcp.replay.whatif.comparison import Side, compare, configured_as_recorded
from kcp.replay.whatif.deciding import decide_by
from kcp.scheduler.profiles import parse_configuration
from tests.replay.placements import record
from tests.scheduler.harness import node, pod

T = TypeVar("T")
Json = dict[str, Any]
BURST = 500
PACKING: Json = {
    "apiVersion": "kubescheduler.config.k8s.io/v1",
    "kind": "KubeSchedulerConfiguration",
    "profiles": [{
        "pluginConfig": [{
            "name": "NodeResourcesFit",
            "args": {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]}},
        }]
    }],
}  # fmt: skip


def write_log(file: Path, pods: int, nodes: int) -> None:
    async def story(client: Client) -> None:
        machines = [
            node(f"node-{number}", allocatable={"cpu": "32", "memory": "128Gi"}) for number in range(nodes)
        ]
        await client.create_all([("nodes", machine, "") for machine in machines])
        for machine in machines:
            await client.patch("nodes", machine["metadata"]["name"], {"spec": {"taints": None}}, "merge")
        for first in range(0, pods, BURST):
            burst = [
                pod(f"p-{n}", cpu=f"{100 + n % 5 * 150}m", memory="500Mi")
                for n in range(first, min(first + BURST, pods))
            ]
            await client.create_all([("pods", each, "default") for each in burst])
            await anyio.sleep(1)

    record(file, story, ClusterOptions(controllers=()))


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Processor time, so that what else runs on the machine does not count."""
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def measure(directory: Path, pods: int, nodes: int) -> dict[str, float]:
    file = directory / "log.kcp"
    made_s, _ = timed(lambda: write_log(file, pods, nodes))
    with Incident.open(file) as incident:
        read_s, arrivals = timed(lambda: read_arrivals(incident))
        recorded = Side("recorded", configured_as_recorded(incident), follows=True)
        again_s, again = timed(
            lambda: compare(arrivals, recorded, Side("again", configured_as_recorded(incident)))
        )
        packing = Side("packing", decide_by(parse_configuration(PACKING)))
        packing_s, other = timed(lambda: compare(arrivals, recorded, packing))
    assert again.same, "the same configuration decides the same"
    return {
        "decisions": arrivals.attempts, "made_s": made_s, "read_s": read_s, "again_s": again_s, "packing_s": packing_s,
        "decisions_per_s": arrivals.attempts / again_s, "elsewhere": len(other.elsewhere),
    }  # fmt: skip


def main(pods: int, nodes: int, file: str | None) -> None:
    logs.configure(level="error")
    interpreter.settle()
    with tempfile.TemporaryDirectory(prefix="kcp-bench-") as name:
        found = measure(Path(name), pods, nodes)
    for name, value in found.items():
        print(f"{name:32} {value:14,.3f}" if isinstance(value, float) else f"{name:32} {value:14,}")
    if file is not None:
        Path(file).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    main(arguments.pods, arguments.nodes, arguments.json)
