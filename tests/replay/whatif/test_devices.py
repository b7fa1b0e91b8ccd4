"""Extended resources that devices stand behind, in a what-if."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from kcp.client.client import Client
from kcp.controllers import garbage_collector, resource_claim
from kcp.controlplane.cluster import ClusterOptions
from kcp.replay.incident import Incident
from kcp.replay.whatif.arrivals import read_arrivals
from kcp.replay.whatif.comparison import Side, compare, configured_as_recorded
from kcp.replay.whatif.deciding import decide_by
from kcp.replay.whatif.machines import Machines
from kcp.scheduler.dra.devices import CLASSES, SLICES
from kcp.scheduler.profiles import Configuration
from tests.replay.placements import record
from tests.scheduler.dra.test_extended import container, devices_on, serving
from tests.scheduler.harness import node, pod

Json = dict[str, Any]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device on each of two nodes: two pods that get them, one that waits until the first is gone."""
    file = tmp_path_factory.mktemp("devices") / "log.kcp"

    async def story(client: Client) -> None:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await client.create("serviceaccounts", account, "default")
        await client.create(CLASSES, serving())
        for name in ("a", "b"):
            await client.create("nodes", node(name))
            await client.patch("nodes", name, {"spec": {"taints": None}}, "merge")
            await client.create(SLICES, devices_on(name, 1))
        for number in range(3):
            await client.create("pods", pod(f"p{number}", containers=[container("main", 1)]), "default")
            await anyio.sleep(2)
        await client.delete("pods", "p0", "default", grace_s=0)
        await anyio.sleep(20)

    record(file, story, ClusterOptions(controllers=(resource_claim.CONTROLLER, garbage_collector.CONTROLLER)))
    return file


def test_the_same_configuration_gives_the_same_devices(log: Path) -> None:
    with Incident.open(log) as incident:
        recorded = Side("recorded", configured_as_recorded(incident), follows=True)
        found = compare(read_arrivals(incident), recorded, Side("again", decide_by(Configuration())))
    assert found.same and found.before.usage == found.after.usage
    assert found.after.placed == 3 and found.after.waiting == {}


def test_on_one_node_less_the_pods_wait_for_the_one_device_there_is(log: Path) -> None:
    with Incident.open(log) as incident:
        recorded = Side("recorded", configured_as_recorded(incident), follows=True)
        fewer = Side("fewer", decide_by(Configuration()), machines=Machines(without=frozenset({"b"})))
        found = compare(read_arrivals(incident), recorded, fewer)
    assert found.after.placed == 2
    assert [text.partition(". ")[0] for text in found.after.waiting.values()] == [
        "0/1 nodes are available: 1 cannot allocate all claims"
    ]
