"""A daemon among several: its components run while they hold their Leases, and stop when they do not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import pytest

from kcp.client.client import Client
from kcp.client.leader_election import LEASES
from kcp.controlplane.cluster import Cluster
from kcp.controlplane.election import Election
from kcp.machinery import meta
from kcp.machinery.errors import Conflict
from tests.controlplane.test_cluster import in_cluster
from tests.support.builders import deployment

Json = dict[str, Any]
ME = "here_1_a"
COMPONENTS = ("kube-controller-manager", "kube-scheduler", "kcp-simulated-nodes")


async def hand_to(client: Client, name: str, holder: str) -> None:
    """Give the Lease to another daemon, which then dies."""
    while True:
        lease = await client.get(LEASES, name, "kube-system")
        transitions = lease["spec"]["leaseTransitions"] + 1
        spec = {**lease["spec"], "holderIdentity": holder, "leaseTransitions": transitions}
        if lease["spec"]["holderIdentity"] == ME:
            try:
                await client.update(LEASES, {**lease, "spec": spec})
            except Conflict:
                continue
            return
        await anyio.sleep(0.5)


async def ready(client: Client) -> int:
    found = await client.get("deployments.apps", "web", "default")
    return int((found.get("status") or {}).get("readyReplicas") or 0)


def test_every_component_holds_its_lease_and_works() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("deployments.apps", deployment("web", replicas=3), "default")
        await anyio.sleep(60)
        assert await ready(client) == 3
        for name in COMPONENTS:
            lease = await client.get(LEASES, name, "kube-system")
            assert lease["spec"]["holderIdentity"] == ME
        assert cluster.runs[0].epoch() == 0

    in_cluster(check, election=Election(ME), nodes=1)


def test_who_lost_its_lease_stops_and_leads_again_once_the_other_is_dead() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await anyio.sleep(5)
        await hand_to(client, "kube-controller-manager", "there_1_b")
        await anyio.sleep(5)
        await client.create("deployments.apps", deployment("web", replicas=2), "default")
        await anyio.sleep(5)
        assert (await client.list("replicasets.apps", "default")).items == []
        await anyio.sleep(60)
        assert await ready(client) == 2
        sets = (await client.list("replicasets.apps", "default")).items
        assert len([meta.name(each) for each in sets]) == 1
        assert cluster.runs[0].epoch() == 2

    in_cluster(check, election=Election(ME), nodes=1)


def test_a_write_on_its_way_when_the_turn_ends_is_refused() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await anyio.sleep(5)
        late = cluster.runs[0].client
        assert late.fence is not None
        before = late.fence()
        await hand_to(client, "kube-controller-manager", "there_1_b")
        obj = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "late"}}
        refused = await _reason(late, obj)
        await anyio.sleep(4)
        assert late.fence() == before
        assert (refused, await _reason(late, obj)) == ("LeaseFenced", "LeaseFenced")

    in_cluster(check, election=Election(ME), nodes=0)


async def _reason(client: Client, obj: Json) -> str:
    try:
        await client.create("events", obj, "default")
    except Conflict as error:
        return str(error.details["causes"][0]["reason"])
    return ""


Write = Callable[[Cluster, Json], Awaitable[Any]]


async def _controller_scales(cluster: Cluster, pod: Json) -> None:
    run = next(each for each in cluster.runs if each.controller.name == "replicaset-controller")
    await run.client.delete("pods", pod["metadata"]["name"], "default")


async def _scheduler_binds(cluster: Cluster, pod: Json) -> None:
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod["metadata"]["name"]},
        "target": {"name": "node-2"},
    }
    assert cluster.scheduler is not None
    await cluster.scheduler.client.create(
        "pods", binding, "default", name=pod["metadata"]["name"], subresource="binding"
    )


async def _node_reports(cluster: Cluster, pod: Json) -> None:
    assert cluster.fleet is not None
    status = {"status": {"phase": "Failed"}}
    agent = cluster.fleet.agents[pod["spec"]["nodeName"]]
    await agent.client.patch(
        "pods", pod["metadata"]["name"], status, "merge", "default", subresource="status"
    )


LATE: Sequence[tuple[str, Write]] = (
    ("kube-controller-manager", _controller_scales),
    ("kube-scheduler", _scheduler_binds),
    ("kcp-simulated-nodes", _node_reports),
)


@pytest.mark.parametrize(("lease", "write"), LATE, ids=[lease for lease, _ in LATE])
def test_what_a_leader_writes_that_slept_through_its_lease_is_refused(lease: str, write: Write) -> None:
    """Stopped before a write and woken after another one has led: it knows nothing of that yet, the log does."""

    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("deployments.apps", deployment("web", replicas=1), "default")
        await anyio.sleep(10)
        (pod,) = (await client.list("pods", "default")).items
        await hand_to(client, lease, "there_1_b")
        with pytest.raises(Conflict) as refused:
            await write(cluster, pod)
        assert refused.value.details["causes"][0]["reason"] == "LeaseFenced"
        assert (await client.get("pods", pod["metadata"]["name"], "default"))["metadata"] == pod["metadata"]

    in_cluster(check, election=Election(ME), nodes=2)
