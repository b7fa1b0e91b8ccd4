"""A whole control plane in one process, on the deterministic loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import run_deterministic
from kcp.client.client import Client
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions, service_account
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, Forbidden
from kcp.store.open import open_store
from tests.support.builders import deployment, namespace

Json = dict[str, Any]


def in_cluster(test: Callable[[Cluster, Client], Awaitable[None]], seed: int = 1, **options: Any) -> None:
    """Run `test` against a cluster of its own, in virtual time."""

    async def main() -> None:
        clock, entropy = LoopClock(), SeededEntropy(seed)
        store = open_store("memory:", clock=clock, inline=True, entropy=entropy.stream("store"))
        cluster = Cluster.build(store, clock, entropy, ClusterOptions(**options))
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            await test(cluster, cluster.client(ADMIN))
            group.cancel_scope.cancel()

    run_deterministic(main, seed)


async def names(client: Client, resource: str, namespace_: str = "") -> list[str]:
    return [meta.name(obj) for obj in (await client.list(resource, namespace_)).items]


def test_a_fresh_cluster_holds_what_kubernetes_makes() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await anyio.sleep(2)
        assert await names(client, "namespaces") == [
            "default",
            "kube-node-lease",
            "kube-public",
            "kube-system",
        ]
        service = await client.get("services", "kubernetes", "default")
        assert service["spec"]["clusterIP"] == cluster.server.allocator.kubernetes_ip()
        assert await names(client, "endpointslices.discovery.k8s.io", "default") == ["kubernetes"]
        for each in await names(client, "namespaces"):
            assert "default" in await names(client, "serviceaccounts", each)
            assert "kube-root-ca.crt" in await names(client, "configmaps", each)
        classes = await names(client, "priorityclasses.scheduling.k8s.io")
        assert classes == ["system-cluster-critical", "system-node-critical"]

    in_cluster(check)


def test_a_deployment_becomes_pods_and_goes_with_them() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("deployments.apps", deployment("web", replicas=3), "default")
        await anyio.sleep(2)
        assert len(await names(client, "pods", "default")) == 3
        await client.delete("deployments.apps", "web", "default", propagation="Background")
        await anyio.sleep(5)
        assert await names(client, "replicasets.apps", "default") == []
        assert await names(client, "pods", "default") == []

    in_cluster(check, scheduler=False)


def test_foreground_deletion_waits_for_the_dependents() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("deployments.apps", deployment("web", replicas=2), "default")
        await anyio.sleep(2)
        seen: list[str] = []
        cluster.store.listen(lambda events: seen.extend(str(e.key) for e in events if e.op.name == "DELETED"))
        await client.delete("deployments.apps", "web", "default", propagation="Foreground")
        await anyio.sleep(5)
        order = [key.split("/")[0] for key in seen if key.split("/")[0] != "events"]
        assert order == ["pods", "pods", "replicasets.apps", "deployments.apps"]

    in_cluster(check, scheduler=False)


def test_orphaned_dependents_stay() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("deployments.apps", deployment("web", replicas=2), "default")
        await anyio.sleep(2)
        await client.delete("deployments.apps", "web", "default", propagation="Orphan")
        await anyio.sleep(5)
        (rs,) = (await client.list("replicasets.apps", "default")).items
        assert "ownerReferences" not in rs["metadata"]
        assert await names(client, "deployments.apps", "default") == []

    in_cluster(check, scheduler=False)


def test_a_namespace_empties_itself_and_goes() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create(
            "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}
        )
        await anyio.sleep(1)
        obj = deployment("web", replicas=2)
        await client.create(
            "deployments.apps", {**obj, "metadata": {**obj["metadata"], "namespace": "demo"}}, "demo"
        )
        await anyio.sleep(2)
        await client.delete("namespaces", "demo")
        with pytest.raises(Forbidden, match="because it is being terminated"):
            await client.create(
                "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}, "demo"
            )
        await anyio.sleep(20)
        assert "demo" not in await names(client, "namespaces")
        assert await names(client, "pods", "demo") == []

    in_cluster(check, scheduler=False)


def test_each_controller_may_do_only_its_own_work() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del client
        stranger = cluster.client(service_account("deployment-controller"))
        await stranger.list("replicasets.apps")
        with pytest.raises(Forbidden) as refused:
            await stranger.list("secrets")
        assert "system:serviceaccount:kube-system:deployment-controller" in str(refused.value)

    in_cluster(check)


def test_decisions_are_written_down_with_their_effects() -> None:
    recorded: list[Any] = []

    async def check(cluster: Cluster, client: Client) -> None:
        monkeypatch = pytest.MonkeyPatch()
        monkeypatch.setattr(cluster.store, "record", recorded.append)
        await client.create("deployments.apps", deployment("web", replicas=2), "default")
        await anyio.sleep(2)
        monkeypatch.undo()

    in_cluster(check, scheduler=False)
    made = [
        d for d in recorded if d.controller == "replicaset-controller" and d.key.startswith("default/web-")
    ]
    kinds = [effect["kind"] for effect in made[0].effects]
    assert kinds[0] == "All" and made[0].effects[0]["slow_start"]
    assert [part["outcome"] for part in made[0].effects[0]["effects"]] == ["ok", "ok"]
    assert made[0].first_rv and made[0].last_rv > made[0].first_rv


def test_an_unknown_error_of_the_api_reaches_the_caller() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        with pytest.raises(ApiError) as missing:
            await client.get("deployments.apps", "nope", "default")
        assert missing.value.message == 'deployments.apps "nope" not found'
        made = namespace("default")
        with pytest.raises(ApiError) as there:
            await client.create("namespaces", made)
        assert there.value.message == 'namespaces "default" already exists'

    in_cluster(check)
