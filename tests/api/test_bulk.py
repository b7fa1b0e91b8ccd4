"""Many creates, many deletes in one request: each is judged alone, all are committed together."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.api.auth.protocol import UserInfo
from kcp.client.answers import WriteResult
from kcp.client.client import Client
from kcp.controllers.effects import Delete
from kcp.controlplane.cluster import Cluster, service_account
from kcp.machinery.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound
from kcp.wire.http import Request
from tests.controlplane.test_cluster import in_cluster
from tests.support.builders import pod

Json = dict[str, Any]


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_every_item_has_its_own_outcome() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("configmaps", config_map("there"), "default")
        before = cluster.store.rv
        results = await client.create_all(
            [
                ("configmaps", config_map("a", x="1"), "default"),
                ("configmaps", config_map("there"), "default"),
                ("configmaps", config_map("Bad Name"), "default"),
                ("configmaps", config_map("b"), "nowhere"),
                ("configmaps", config_map("c"), "default"),
            ]
        )
        kinds = [WriteResult, AlreadyExists, Invalid, NotFound, WriteResult]
        assert [type(result) for result in results] == kinds
        assert (await client.get("configmaps", "a", "default"))["data"] == {"x": "1"}
        first, last = results[0], results[-1]
        assert isinstance(first, WriteResult) and isinstance(last, WriteResult)
        assert (first.revision, last.revision) == (before + 1, before + 2)

    in_cluster(check, controllers=(), scheduler=False)


def test_generated_names_differ() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}}
        results = await client.create_all([("configmaps", item, "default")] * 20)
        names = {result.object["metadata"]["name"] for result in results if isinstance(result, WriteResult)}
        assert len(names) == 20 and all(name.startswith("made-") for name in names)
        assert item["metadata"] == {"generateName": "made-"}, "the caller's object is its own"

    in_cluster(check, controllers=(), scheduler=False)


def test_nobody_creates_what_they_may_not() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del client
        stranger = cluster.client(service_account("deployment-controller"))
        (result,) = await stranger.create_all([("configmaps", config_map("a"), "default")])
        assert isinstance(result, Forbidden)
        assert 'cannot create resource "configmaps"' in result.message

    in_cluster(check, controllers=(), scheduler=False)


def test_a_quota_counts_every_item() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "few"},
            "spec": {"hard": {"count/configmaps": "2"}},
        }
        made = await client.create("resourcequotas", quota, "default")
        await client.update_status(
            "resourcequotas",
            {**made.object, "status": {"hard": {"count/configmaps": "2"}, "used": {"count/configmaps": "0"}}},
        )
        results = await client.create_all([("configmaps", config_map(f"c{i}"), "default") for i in range(4)])
        assert [isinstance(result, WriteResult) for result in results] == [True, True, False, False]
        refused = results[-1]
        assert isinstance(refused, ApiError) and "exceeded quota: few" in refused.message

    in_cluster(check, controllers=(), scheduler=False)


def test_sockets_do_not_reach_it() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del client
        body = b'{"items": []}'
        response = await cluster.handler(
            Request("POST", "/kcp/v1/creates", "", {"content-type": "application/json"}, body)
        )
        assert response.status in (401, 403, 404)

    in_cluster(check, controllers=(), scheduler=False)


@pytest.mark.parametrize("count", [0, 1])
def test_few_items_are_fine(count: int) -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        assert len(await client.create_all([("configmaps", config_map("a"), "default")] * count)) == count

    in_cluster(check, controllers=(), scheduler=False)


def test_identity_is_the_callers() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del client
        admin = UserInfo("alice", groups=("kubeadm:cluster-admins", "system:authenticated"))
        seen: list[str] = []
        cluster.store.listen(
            lambda events: seen.extend(e.cause.actor.username for e in events if e.key.name == "a")
        )
        await cluster.client(admin).create_all([("configmaps", config_map("a"), "default")])
        assert seen == ["alice"]

    in_cluster(check, controllers=(), scheduler=False)


def removal(name: str, resource: str = "configmaps", namespace: str = "default", **more: Any) -> Delete:
    return Delete(resource, namespace, name, **more)


def test_every_delete_has_its_own_outcome() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        for name in ("a", "b", "kept"):
            await client.create("configmaps", config_map(name), "default")
        uid = (await client.get("configmaps", "b", "default"))["metadata"]["uid"]
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await client.create("serviceaccounts", account, "default")
        await client.create("pods", pod("web", node="node-1", spec={"terminationGracePeriodSeconds": 7}))
        before = cluster.store.rv
        results = await client.delete_all(
            [
                removal("a"),
                removal("absent"),
                removal("kept", uid="another"),
                removal("b", uid=uid, propagation="Background"),
                removal("a"),
                removal("web", "pods"),
            ]
        )
        kinds = [WriteResult, NotFound, Conflict, WriteResult, NotFound, WriteResult]
        assert [type(result) for result in results] == kinds
        done = [result.revision for result in results if isinstance(result, WriteResult)]
        assert done == [before + 1, before + 2, before + 3]
        left = [obj["metadata"]["name"] for obj in (await client.list("configmaps", "default")).items]
        assert left == ["kept"]
        assert (await client.get("pods", "web", "default"))["metadata"]["deletionGracePeriodSeconds"] == 7

    in_cluster(check, controllers=(), scheduler=False)


def test_a_resource_that_is_not_served_any_more_costs_the_others_nothing() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        widgets = "widgets.example.com"
        widget = {**config_map("a"), "apiVersion": "example.com/v1", "kind": "Widget"}
        made = await client.create_all(
            [(widgets, widget, "default"), ("configmaps", config_map("a"), "default")]
        )
        assert [type(result) for result in made] == [NotFound, WriteResult]
        gone = await client.delete_all([removal("w", widgets), removal("a"), removal("v", widgets)])
        assert [type(result) for result in gone] == [NotFound, WriteResult, NotFound]
        assert (
            await client.delete_all([removal("w", widgets)])
            and not (await client.list("configmaps", "default")).items
        )

    in_cluster(check, controllers=(), scheduler=False)


def test_nobody_deletes_what_they_may_not() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("configmaps", config_map("a"), "default")
        stranger = cluster.client(service_account("deployment-controller"))
        (result,) = await stranger.delete_all([removal("a")])
        assert isinstance(result, Forbidden)
        assert result.message.startswith('configmaps "a" is forbidden: User ')
        assert 'cannot delete resource "configmaps"' in result.message
        assert await client.get("configmaps", "a", "default")

    in_cluster(check, controllers=(), scheduler=False)


def test_a_quota_is_given_back_by_every_delete() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "few"},
            "spec": {"hard": {"count/configmaps": "5"}},
        }
        made = await client.create("resourcequotas", quota, "default")
        status = {"hard": {"count/configmaps": "5"}, "used": {"count/configmaps": "0"}}
        await client.update_status("resourcequotas", {**made.object, "status": status})
        await client.create_all([("configmaps", config_map(f"c{i}"), "default") for i in range(4)])
        await client.delete_all([removal(f"c{i}") for i in range(3)])
        used = (await client.get("resourcequotas", "few", "default"))["status"]["used"]
        assert used == {"count/configmaps": "1"}

    in_cluster(check, controllers=(), scheduler=False)
