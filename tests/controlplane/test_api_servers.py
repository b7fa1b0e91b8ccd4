"""Several API servers on one log: the Service `kubernetes` names those that live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from kcp.api.own_writes import IDENTITY, MANAGER
from kcp.client.client import Client
from kcp.client.leader_election import LEASES
from kcp.controlplane.api_servers import ApiServers, Identity, Watchman, split_address
from kcp.controlplane.cluster import Cluster
from kcp.controlplane.election import Election
from kcp.machinery.errors import NotFound
from tests.controlplane.test_cluster import in_cluster

Json = dict[str, Any]
SELECTOR = "apiserver.kubernetes.io/identity=kube-apiserver"


def another(cluster: Cluster, number: int, port: int = 6443) -> ApiServers:
    """A second daemon on the same log, as far as the others can see."""
    endpoint = f"192.0.2.{number}:{port}"
    me = Identity(f"there_{number}_x", f"host-{number}", f"198.51.100.{number}:{port}", endpoint)
    return ApiServers(cluster.client(IDENTITY, MANAGER), me, cluster.clock)


def several(test: Any) -> None:
    """The cluster itself is the server 192.0.2.1:6443."""
    in_cluster(test, election=Election("here_1_a"), scheduler=False, controllers=())


async def endpoints(client: Client) -> list[str]:
    """What Endpoints says, which the slices must say too."""
    found = await client.get("endpoints", "kubernetes", "default")
    flat = [
        f"{address['ip']}:{subset['ports'][0]['port']}"
        for subset in found["subsets"]
        for address in subset["addresses"]
    ]
    slices = (await client.list("endpointslices.discovery.k8s.io", "default")).items
    told = [
        f"{each['addresses'][0]}:{piece['ports'][0]['port']}"
        for piece in slices
        for each in piece["endpoints"]
    ]
    assert sorted(told) == sorted(flat)
    return flat


async def holders(client: Client) -> list[str]:
    items = (await client.list(LEASES, "kube-system", label_selector=SELECTOR)).items
    return sorted(lease["spec"]["holderIdentity"] for lease in items)


def test_a_server_is_there_when_it_has_started_and_its_lease_says_where() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        assert await endpoints(client) == ["192.0.2.1:6443"]
        (lease,) = (await client.list(LEASES, "kube-system", label_selector=SELECTOR)).items
        assert lease["metadata"]["name"].startswith("apiserver-")
        assert lease["metadata"]["annotations"]["kubernetes.io/peer-advertise-address"] == "192.0.2.1:6443"
        assert lease["spec"]["holderIdentity"] == "here_1_a"

    several(check)


def test_who_comes_is_in_at_once_and_who_leaves_is_out_at_once() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        second, third = another(cluster, 2), another(cluster, 1, 6444)
        await second.look()
        await third.look()
        assert await endpoints(client) == ["192.0.2.1:6443", "192.0.2.2:6443", "192.0.2.1:6444"]
        await second.leave()
        assert await endpoints(client) == ["192.0.2.1:6443", "192.0.2.1:6444"]
        await third.leave()
        assert await endpoints(client) == ["192.0.2.1:6443"]
        assert await holders(client) == ["here_1_a"]
        await third.look()
        assert await holders(client) == ["here_1_a"]

    several(check)


def test_who_was_killed_is_out_when_its_lease_has_run_out_and_not_before() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await another(cluster, 2).look()
        await anyio.sleep(14)
        assert await endpoints(client) == ["192.0.2.1:6443", "192.0.2.2:6443"]
        await anyio.sleep(5)
        assert await endpoints(client) == ["192.0.2.1:6443"]
        assert await holders(client) == ["here_1_a"]

    several(check)


def test_who_lives_stays_for_ever_and_its_renewals_write_no_history() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        second = another(cluster, 2)
        seen: list[str] = []
        async with anyio.create_task_group() as group:
            await second.look()
            group.start_soon(second.run)
            await anyio.sleep(3)
            cluster.store.listen(lambda events: seen.extend(e.op.name for e in events))
            await anyio.sleep(120)
            assert await endpoints(client) == ["192.0.2.1:6443", "192.0.2.2:6443"]
            group.cancel_scope.cancel()
        assert set(seen[:40]) == {"RENEWED"}
        assert await endpoints(client) == ["192.0.2.1:6443"]

    several(check)


def test_a_server_that_was_paused_comes_back() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        second = another(cluster, 2)
        await second.look()
        await anyio.sleep(30)
        assert await endpoints(client) == ["192.0.2.1:6443"]
        await second.look()
        assert await endpoints(client) == ["192.0.2.1:6443", "192.0.2.2:6443"]
        await anyio.sleep(10)
        assert await endpoints(client) == ["192.0.2.1:6443", "192.0.2.2:6443"]

    several(check)


def test_who_could_not_look_does_not_bury_those_that_could_not_write() -> None:
    """The database was away: nobody renewed, and the first one to see it again must not think the others dead."""

    async def check(cluster: Cluster, client: Client) -> None:
        second, third = another(cluster, 2), another(cluster, 3)
        await second.look()
        await third.look()
        await anyio.sleep(4)
        await second.look()
        await third.look()
        server = cluster.api_servers
        assert server is not None
        async with server._turn:  # as if every request of the cluster's own server hung
            await anyio.sleep(40)
        await second.look()
        assert len(await endpoints(client)) == 3

    several(check)


def test_a_restart_takes_the_lease_of_the_dead_over() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        before, after = another(cluster, 2), another(cluster, 2)
        await before.look()
        after.me = Identity("there_9_y", "host-2", before.me.peer_address, before.me.endpoint)
        await after.look()
        assert await holders(client) == ["here_1_a", "there_9_y"]
        await before.leave()
        assert await holders(client) == ["here_1_a", "there_9_y"]

    several(check)


def test_what_somebody_changed_is_put_right() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.patch("endpoints", "kubernetes", {"subsets": None}, namespace="default")
        stray = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "stray", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.99"]}],
            "ports": [],
        }
        await client.create("endpointslices.discovery.k8s.io", stray, "default")
        await anyio.sleep(5)
        assert await endpoints(client) == ["192.0.2.1:6443"]

    several(check)


def test_the_last_one_leaves_the_endpoints_as_they_are() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        assert cluster.api_servers is not None
        await cluster.api_servers.leave()
        assert await holders(client) == []
        assert await endpoints(client) == ["192.0.2.1:6443"]

    several(check)


def test_a_daemon_alone_has_no_lease_and_an_endpoint() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        assert cluster.api_servers is None
        assert await endpoints(client) == ["192.0.2.1:6443"]
        assert await holders(client) == []
        with pytest.raises(NotFound):
            await client.get("clusterroles.rbac.authorization.k8s.io", "kcp:peer")

    in_cluster(check, scheduler=False, controllers=())


class Hand:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


def lease(rv: str, seconds: int = 15) -> Json:
    return {
        "metadata": {"name": "a", "resourceVersion": rv},
        "spec": {"leaseDurationSeconds": seconds},
    }


@pytest.mark.parametrize(
    ("looks", "dead"),
    [
        ([(0, "1"), (14, "1")], False),
        ([(0, "1"), (15, "1")], True),
        ([(0, "1"), (14, "2"), (28, "2")], False),
        ([(0, "1"), (14, "2"), (29, "2")], True),
    ],
)
def test_a_lease_lives_while_it_is_seen_to_change(looks: Sequence[tuple[int, str]], dead: bool) -> None:
    hand = Hand()
    watchman = Watchman(hand)  # type: ignore[arg-type]
    found: list[Json] = []
    for at_s, rv in looks:
        hand.now_s = at_s
        found = watchman.dead([lease(rv)])
    assert bool(found) is dead


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("192.0.2.1:6443", ("192.0.2.1", 6443)),
        ("[2001:db8::1]:6443", ("2001:db8::1", 6443)),
        ("", None),
        ("host", None),
        ("host:port", None),
        ("host:99999", None),
        ("[", None),
    ],
)
def test_an_address_in_an_annotation_is_one_or_none(text: str, parts: tuple[str, int] | None) -> None:
    assert split_address(text) == parts
