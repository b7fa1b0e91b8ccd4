"""Leases of many nodes renewed in one request: to each the same happens as by an update of its own."""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest

from kcp.client.answers import bulk_outcome
from kcp.client.client import Client
from kcp.client.transport import Transport
from kcp.controlplane.cluster import SIMULATED_NODES, Cluster, node_identity
from kcp.machinery.errors import ApiError, Conflict, Forbidden, NotFound
from kcp.machinery.times import parse_time
from kcp.node import renewals
from kcp.node.renewals import MANAGER, PATH
from kcp.store.protocol import Op
from kcp.wire.http import Request, Response
from tests.controlplane.test_cluster import in_cluster

Json = dict[str, Any]
LEASES, NAMESPACE = "leases.coordination.k8s.io", "kube-node-lease"
LATER = "2026-01-01T00:01:00.000000Z"


async def lease_of(cluster: Cluster, name: str) -> Json:
    """A node's Lease as its kubelet makes it."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": "u"}
    spec = {
        "holderIdentity": name,
        "leaseDurationSeconds": 40,
        "renewTime": "2026-01-01T00:00:01.000000Z",
    }
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]},
        "spec": spec,
    }
    return (await cluster.client(node_identity(name), "kubelet").create(LEASES, lease)).object


def renewal(lease: Json, user: str = "", **changes: Any) -> Json:
    metadata = lease["metadata"]
    item = {
        "user": node_identity(user or metadata["name"]),
        "namespace": NAMESPACE,
        "name": metadata["name"],
        "holder": metadata["name"],
        "revision": int(metadata["resourceVersion"]),
        "renewTime": LATER,
    }
    return {**item, **changes}


async def renew(cluster: Cluster, *items: Json) -> list[Json | ApiError]:
    client = cluster.client(SIMULATED_NODES, "kcp-simulated-nodes")
    done = await client.request("POST", PATH, query=MANAGER, body={"items": list(items)})
    outcomes = [bulk_outcome(result, 200) for result in done.object["results"]]
    return [each if isinstance(each, ApiError) else each.object for each in outcomes]


async def update(cluster: Cluster, lease: Json) -> Json:
    """The same by an update, as one node does it."""
    client = cluster.client(node_identity(lease["metadata"]["name"]), "kubelet")
    spec = {**lease["spec"], "renewTime": LATER}
    return (await client.update(LEASES, {**lease, "metadata": dict(lease["metadata"]), "spec": spec})).object


def without_identity(lease: Json) -> Json:
    hidden = ("name", "uid", "resourceVersion", "creationTimestamp", "ownerReferences")
    metadata = {key: value for key, value in lease["metadata"].items() if key not in hidden}
    return {**lease, "metadata": metadata, "spec": {**lease["spec"], "holderIdentity": ""}}


def test_it_is_what_an_update_would_be_and_writes_no_event() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del client
        one, two, three = [await lease_of(cluster, name) for name in ("n1", "n2", "n3")]
        await anyio.sleep(30)
        operations: list[tuple[str, Op]] = []
        cluster.store.listen(lambda events: operations.extend((e.key.name, e.op) for e in events))
        renewed = await renew(cluster, renewal(one), renewal(two))
        updated = await update(cluster, three)
        assert operations == [("n1", Op.RENEWED), ("n2", Op.RENEWED), ("n3", Op.RENEWED)]
        for lease in renewed:
            assert isinstance(lease, dict)
            assert without_identity(lease) == without_identity(updated)
            assert lease["spec"]["renewTime"] == LATER

    in_cluster(check, controllers=(), scheduler=False)


def test_a_lease_that_others_have_touched_goes_the_ordinary_way() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        touched = []
        for name in ("n1", "n2"):
            await lease_of(cluster, name)
            patch = {"metadata": {"labels": {"looked": "at"}}}
            touched.append((await client.patch(LEASES, name, patch, "merge", NAMESPACE)).object)
        await anyio.sleep(30)
        (renewed,) = await renew(cluster, renewal(touched[0]))
        assert isinstance(renewed, dict)
        assert without_identity(renewed) == without_identity(await update(cluster, touched[1]))
        assert len(renewed["metadata"]["managedFields"]) == 2

    in_cluster(check, controllers=(), scheduler=False)


def test_each_is_refused_alone() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del client
        one, two, three = [await lease_of(cluster, name) for name in ("n1", "n2", "n3")]
        stale = renewal(two)
        await update(cluster, two)
        gone = renewal(two, name="n9", user="n9")
        outcomes = await renew(cluster, renewal(one, user="n2"), stale, gone, renewal(three))
        assert [type(each) for each in outcomes] == [Forbidden, Conflict, NotFound, dict]
        assert 'User "system:node:n2" cannot update resource "leases"' in str(outcomes[0])

    in_cluster(check, controllers=(), scheduler=False)


def test_only_the_fleet_gets_in() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del client
        lease = await lease_of(cluster, "n1")
        node = cluster.client(node_identity("n1"), "kubelet")
        try:
            await node.request("POST", PATH, body={"items": [renewal(lease)]})
        except Forbidden as refused:
            assert "cannot post path" in str(refused)
        else:
            raise AssertionError("a node has no business there")
        headers = {"content-type": "application/json"}
        response = await cluster.handler(Request("POST", PATH, "", headers, b'{"items": []}'))
        assert response.status in (401, 403, 404)

    in_cluster(check, controllers=(), scheduler=False)


@attrs.define
class Breaking:
    """A transport on which the first requests for renewals break off."""

    inner: Transport
    broken: list[str]
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        if request.path == PATH and len(self.broken) < 2:
            self.broken.append(request.path)
            raise RuntimeError("broke off")
        return await self.inner.request(request, timeout_s)

    async def close(self) -> None: ...


def test_a_request_that_breaks_off_costs_no_node_its_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewals, "MAX_TOGETHER", 2)
    broken: list[str] = []

    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        await anyio.sleep(15)
        now = [lease["spec"]["renewTime"] for lease in (await client.list(LEASES, NAMESPACE)).items]
        assert len(broken) == 2 and len(now) == 40
        await anyio.sleep(25)
        later = [lease["spec"]["renewTime"] for lease in (await client.list(LEASES, NAMESPACE)).items]
        assert all(before < after for before, after in zip(now, later, strict=True))

    in_cluster(
        check,
        nodes=40,
        controllers=(),
        scheduler=False,
        wrap_transport=lambda inner: Breaking(inner, broken),
    )


def test_the_leases_of_a_fleet_stay_fresh() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        requests: list[int] = []
        cluster.store.listen(
            lambda events: requests.append(sum(event.op is Op.RENEWED for event in events)),
        )
        await anyio.sleep(61)
        leases = (await client.list(LEASES, NAMESPACE)).items
        assert len(leases) == 40
        for lease in leases:
            age = cluster.clock.now() - parse_time(lease["spec"]["renewTime"])
            assert age.total_seconds() < 11
            assert lease["spec"]["holderIdentity"] == lease["metadata"]["name"]
        assert sum(requests) >= 40 * 5
        assert max(requests) > 1, "some go together"

    in_cluster(check, nodes=40, controllers=(), scheduler=False)
