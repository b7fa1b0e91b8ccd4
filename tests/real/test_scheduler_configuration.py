"""A scheduler with a configuration on PostgreSQL: elected, recorded, replayed and explained from the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from kcp.apis.semantics.facts import FACTS
from kcp.base.clock import SystemClock
from kcp.base.entropy import SeededEntropy
from kcp.client.client import Client
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.controlplane.election import Election
from kcp.replay.explaining import explain_pod
from kcp.replay.incident import Incident
from kcp.replay.run import remake_all
from kcp.scheduler.profiles import Configuration, parse_configuration
from kcp.store.facts import projections
from kcp.store.open import open_store
from tests.scheduler.harness import node, pod
from tests.store import postgres

Json = dict[str, Any]
PLUGIN = 'class Favourite:\n    def score(self, pod, node):\n        return 100 if node.name == "b" else 0\n'


def configured(folder: Path) -> Configuration:
    (folder / "favourite.py").write_text(PLUGIN)
    plugins = {"multiPoint": {"enabled": [{"name": "favourite.py:Favourite", "weight": 9}]}}
    document = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [{"schedulerName": "default-scheduler"}, {"schedulerName": "loyal", "plugins": plugins}],
    }
    return parse_configuration(document, str(folder))


async def play(url: str, options: ClusterOptions) -> None:
    clock, entropy = SystemClock(), SeededEntropy(1)
    store = open_store(url, clock=clock, entropy=entropy.stream("store"), projections=projections(FACTS))
    cluster = Cluster.build(store, clock, entropy, options)
    async with anyio.create_task_group() as group:
        await group.start(cluster.run)
        client = cluster.client(ADMIN)
        account: Json = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await client.create("serviceaccounts", account, "default")
        for name in ("a", "b"):
            await client.create("nodes", node(name))
            await client.patch("nodes", name, {"spec": {"taints": None}}, "merge")
        for name, scheduler in (("loyal", "loyal"), ("plain", "default-scheduler")):
            await client.create("pods", pod(name, schedulerName=scheduler), "default")
            await placed(client, name)
        await anyio.sleep(1.5)  # decisions are written within a second
        group.cancel_scope.cancel()


async def placed(client: Client, name: str) -> None:
    with anyio.fail_after(20):
        while not (await client.get("pods", name, "default"))["spec"].get("nodeName"):
            await anyio.sleep(0.05)


async def test_the_configuration_is_recorded_in_the_database(tmp_path: Path) -> None:
    url = postgres.database()
    options = ClusterOptions(
        controllers=(), scheduler_configuration=configured(tmp_path), election=Election("one_1")
    )
    await play(url, options)
    found = await anyio.to_thread.run_sync(check, url)
    assert found == ["default-scheduler", "loyal"]


def check(url: str) -> list[str]:
    with Incident.open(url) as incident:
        explained = explain_pod(incident, "default/loyal")
        assert explained.agrees and explained.chosen == "b"
        assert explained.on("b").scores["Favourite"] == 900
        results = list(remake_all(incident))
        assert results and all(r.identical and not r.code_changed for r in results)
        return sorted({r.decision.controller for r in results})
