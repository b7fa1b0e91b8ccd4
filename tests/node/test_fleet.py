"""Nodes: registration, signs of life, silence and return, pressure, taking up what an earlier process left."""

from __future__ import annotations

import hashlib

import anyio
import attrs
import pytest

from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import run_deterministic
from kcp.client.transport import Transport, Unreachable
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.node.fleet import NodeSpec
from kcp.store.open import open_store
from kcp.wire.http import Request, Response
from tests.node.support import Json, Nodes, condition, fleet_of, main, simple_pod, state, with_nodes

LEASES = "leases.coordination.k8s.io"


async def lease(nodes: Nodes, name: str = "node-1") -> Json:
    return await nodes.client.get(LEASES, name, "kube-node-lease")


def test_a_node_registers_with_what_schedulers_and_people_look_at() -> None:
    async def check(nodes: Nodes) -> None:
        node = await nodes.client.get("nodes", "big")
        assert node["metadata"]["labels"] == {
            "beta.kubernetes.io/arch": "amd64",
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": "big",
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": "a",
        }
        status = node["status"]
        assert (status["allocatable"]["cpu"], status["capacity"]["memory"]) == ("64", "256Gi")
        assert status["capacity"]["example.com/gpu"] == "8"
        assert {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]} == {
            "NetworkUnavailable": ("False", "RouteCreated"),
            "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
            "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
            "PIDPressure": ("False", "KubeletHasSufficientPID"),
            "Ready": ("True", "KubeletReady"),
        }
        assert status["nodeInfo"]["kubeletVersion"].startswith("v1.36.")
        assert [a["type"] for a in status["addresses"]] == ["InternalIP", "Hostname"]
        events = await nodes.events("big")
        assert ("Normal", "NodeReady", "Node big status is now: NodeReady") in events

    spec = NodeSpec(
        "big",
        cpu="64",
        memory="256Gi",
        extended={"example.com/gpu": "8"},
        labels={"topology.kubernetes.io/zone": "a"},
    )
    with_nodes(check, spec)


def test_addresses_are_unique_in_the_cluster() -> None:
    async def check(nodes: Nodes) -> None:
        ips = [
            (await nodes.run(simple_pod(f"p-{i}"), f"node-{i % 3}", 0.2))["status"]["podIP"] for i in range(9)
        ]
        hosts = [(await nodes.pod(f"p-{i}"))["status"]["hostIP"] for i in range(3)]
        ranges = [n["spec"]["podCIDR"] for n in (await nodes.client.list("nodes")).items]
        assert len(set(ips + hosts)) == 12
        assert len(set(ranges)) == 3

    with_nodes(check, *(NodeSpec(f"node-{i}", pods=300 if i else 10) for i in range(3)))


def test_a_lease_is_renewed_every_ten_seconds_without_log_rows() -> None:
    async def check(nodes: Nodes) -> None:
        first = await lease(nodes)
        assert (first["spec"]["holderIdentity"], first["spec"]["leaseDurationSeconds"]) == ("node-1", 40)
        assert first["metadata"]["ownerReferences"][0]["kind"] == "Node"
        seen = set()
        for _ in range(6):
            await anyio.sleep(10.5)
            seen.add((await lease(nodes))["spec"]["renewTime"])
        assert len(seen) == 6

    with_nodes(check)


def test_a_heartbeat_is_posted_every_five_minutes() -> None:
    async def check(nodes: Nodes) -> None:
        before = await nodes.client.get("nodes", "node-1")
        await anyio.sleep(200)
        assert await nodes.client.get("nodes", "node-1") == before
        await anyio.sleep(150)
        after = await nodes.client.get("nodes", "node-1")
        was, now = condition(before, "Ready"), condition(after, "Ready")
        assert was["lastHeartbeatTime"] < now["lastHeartbeatTime"]
        assert was["lastTransitionTime"] == now["lastTransitionTime"]

    with_nodes(check)


def test_a_silent_node_is_given_up_and_comes_back() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod())
        nodes.fleet.stop_node("node-1")
        await anyio.sleep(70)
        node = await nodes.client.get("nodes", "node-1")
        assert condition(node, "Ready")["reason"] == "NodeStatusUnknown"
        assert condition(await nodes.pod("web"), "Ready")["status"] == "False"
        await nodes.fleet.start_node("node-1")
        await anyio.sleep(10)
        node, pod = await nodes.client.get("nodes", "node-1"), await nodes.pod("web")
        assert condition(node, "Ready")["status"] == "True"
        assert (condition(pod, "Ready")["status"], state(pod)["restartCount"]) == ("True", 0)
        assert node["spec"].get("taints") in (None, [])

    with_nodes(check, controllers=True)


def test_what_happened_during_silence_is_made_good() -> None:
    async def check(nodes: Nodes) -> None:
        for name in ("stays", "deleted", "forced"):
            await nodes.run(simple_pod(name))
        nodes.fleet.stop_node("node-1")
        await nodes.client.delete("pods", "deleted", "default")
        await nodes.client.delete("pods", "forced", "default", grace_s=0)
        await nodes.run(simple_pod("late"))
        assert (await nodes.pod("late"))["status"]["phase"] == "Pending"
        assert await nodes.pods() == ["deleted", "late", "stays"]
        await nodes.fleet.start_node("node-1")
        await anyio.sleep(1)
        assert await nodes.pods() == ["late", "stays"]
        assert (await nodes.pod("late"))["status"]["phase"] == "Running"
        agent = nodes.fleet.agents["node-1"]
        assert (len(agent.workers), agent.room.pods, len(await agent.runtime.pod_uids())) == (2, 2, 2)

    with_nodes(check)


def test_a_power_cut_restarts_the_containers() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod())
        nodes.fleet.power_off_node("node-1")
        await nodes.fleet.start_node("node-1")
        await anyio.sleep(1)
        pod = await nodes.pod("web")
        assert (pod["status"]["phase"], state(pod)["restartCount"]) == ("Running", 1)
        text = "Pod sandbox changed, it will be killed and re-created."
        assert ("Normal", "SandboxChanged", text) in await nodes.events("web")
        assert len(pod["status"]["podIPs"]) == 1
        boot = (await nodes.client.get("nodes", "node-1"))["status"]["nodeInfo"]["bootID"]
        text = f"Node node-1 has been rebooted, boot id: {boot}"
        assert ("Warning", "Rebooted", text) in await nodes.events("node-1")

    with_nodes(check)


@attrs.define
class Cut:
    """A transport that can be cut off."""

    inner: Transport
    in_process: bool = True
    cut: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        if self.cut:
            raise Unreachable("dial tcp: connection refused")
        return await self.inner.request(request, timeout_s)

    async def close(self) -> None: ...


def test_a_cut_network_delays_writes_but_loses_none() -> None:
    async def check(nodes: Nodes) -> None:
        client = nodes.fleet.agents["node-1"].client
        cut = Cut(client.transport)
        client.transport = cut
        pod = await nodes.run(simple_pod(), settle_s=15)
        assert pod["status"]["phase"] == "Pending"
        silent = (await lease(nodes))["spec"]["renewTime"]
        cut.cut = False
        await anyio.sleep(15)
        assert (await nodes.pod("web"))["status"]["phase"] == "Running"
        assert (await lease(nodes))["spec"]["renewTime"] > silent

    with_nodes(check)


@attrs.define
class Slow:
    """A transport that takes a second for each request."""

    inner: Transport
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        await anyio.sleep(1)
        return await self.inner.request(request, timeout_s)

    async def close(self) -> None: ...


def test_what_happens_while_a_node_comes_back_is_not_missed() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod())
        nodes.fleet.stop_node("node-1")
        client = nodes.fleet.agents["node-1"].client
        client.transport = Slow(client.transport)
        async with anyio.create_task_group() as group:
            group.start_soon(nodes.fleet.start_node, "node-1")
            await anyio.sleep(0.5)
            await nodes.client.delete("pods", "web", "default")
        await anyio.sleep(40)
        assert await nodes.pods() == []

    with_nodes(check)


def test_pressure_by_annotation_evicts_and_refuses() -> None:
    async def check(nodes: Nodes) -> None:
        requests = {"requests": {"memory": "1Gi"}}
        await nodes.run(simple_pod("modest", containers=[main(resources=requests)]))
        await nodes.run(simple_pod("greedy"))
        patch = {"metadata": {"annotations": {"sim.kcp/memory-pressure": "true"}}}
        await nodes.client.patch("nodes", "node-1", patch)
        await anyio.sleep(1)
        node = await nodes.client.get("nodes", "node-1")
        assert condition(node, "MemoryPressure")["reason"] == "KubeletHasInsufficientMemory"
        status = (await nodes.pod("greedy"))["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Evicted")
        assert condition({"status": status}, "DisruptionTarget")["reason"] == "TerminationByKubelet"
        assert (await nodes.pod("modest"))["status"]["phase"] == "Running"
        refused = (await nodes.run(simple_pod("late")))["status"]
        assert refused["message"] == "Pod was rejected: The node had condition: [MemoryPressure]. "
        await nodes.client.patch(
            "nodes", "node-1", {"metadata": {"annotations": {"sim.kcp/memory-pressure": None}}}
        )
        await anyio.sleep(1)
        node = await nodes.client.get("nodes", "node-1")
        assert condition(node, "MemoryPressure")["status"] == "False"
        text = "Node node-1 status is now: NodeHasSufficientMemory"
        assert ("Normal", "NodeHasSufficientMemory", text) in await nodes.events("node-1")

    with_nodes(check)


def test_a_foreign_change_of_a_status_is_put_right() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod())
        patch = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        await nodes.client.patch("pods", "web", patch, "strategic", "default", subresource="status")
        await anyio.sleep(1)
        assert condition(await nodes.pod("web"), "Ready")["status"] == "True"

    with_nodes(check)


def test_another_process_takes_up_what_runs() -> None:
    async def check(nodes: Nodes) -> None:
        waits = simple_pod("waits", containers=[main("sleep 100; exit 0")], restartPolicy="Never")
        before = await nodes.run(simple_pod())
        await nodes.run(waits)
        node = await nodes.client.get("nodes", "node-1")
        nodes.fleet.stop_node("node-1")
        await anyio.sleep(50)
        second = fleet_of(nodes.cluster, nodes.clock, 99)
        async with anyio.create_task_group() as group:
            group.start_soon(second.run)
            await second.add_node(NodeSpec("node-1"))
            await anyio.sleep(1)
            pod = await nodes.pod("web")
            assert pod["status"] == before["status"]
            again = await nodes.client.get("nodes", "node-1")
            assert again["spec"]["podCIDR"] == node["spec"]["podCIDR"]
            assert again["status"]["addresses"] == node["status"]["addresses"]
            await anyio.sleep(45)
            assert (await nodes.pod("waits"))["status"]["phase"] == "Running"
            await anyio.sleep(10)
            assert (await nodes.pod("waits"))["status"]["phase"] == "Succeeded"
            fresh = await nodes.run(simple_pod("fresh"))
            assert fresh["status"]["podIP"] != pod["status"]["podIP"]
            group.cancel_scope.cancel()

    with_nodes(check)


def run_of(seed: int) -> str:
    """A digest of everything a small busy cluster has written."""
    digests = []

    async def program() -> None:
        clock, entropy = LoopClock(), SeededEntropy(seed)
        store = open_store("memory:", clock=clock, inline=True, entropy=entropy.stream("store"))
        cluster = Cluster.build(store, clock, entropy, ClusterOptions(scheduler=False))
        fleet = fleet_of(cluster, clock, seed)
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            group.start_soon(fleet.run)
            await fleet.add_nodes([NodeSpec(f"node-{i}") for i in range(3)])
            client = cluster.client(ADMIN)
            await anyio.sleep(1)
            for i in range(6):
                pod = simple_pod(f"p-{i}", containers=[main("sleep 3; exit 1")])
                await client.create(
                    "pods", {**pod, "spec": {**pod["spec"], "nodeName": f"node-{i % 3}"}}, "default"
                )
            await anyio.sleep(60)
            found = [*(await client.list("pods")).items, *(await client.list("events")).items]
            digests.append(hashlib.sha256(repr(found).encode()).hexdigest())
            group.cancel_scope.cancel()

    run_deterministic(program, seed)
    return digests[0]


def test_the_same_seed_gives_the_same_objects() -> None:
    assert run_of(7) == run_of(7) != run_of(8)


@pytest.mark.parametrize("pods", [40])
def test_many_pods_run_at_once(pods: int) -> None:
    async def check(nodes: Nodes) -> None:
        for i in range(pods):
            await nodes.run(simple_pod(f"p-{i:02}"), f"node-{i % 4}", 0)
        await anyio.sleep(0.5)
        found = (await nodes.client.list("pods", "default")).items
        assert {pod["status"]["phase"] for pod in found} == {"Running"}
        await nodes.client.delete_collection("pods", "default")
        await anyio.sleep(1)
        assert await nodes.pods() == []
        assert all(not agent.workers for agent in nodes.fleet.agents.values())

    with_nodes(check, *(NodeSpec(f"node-{i}") for i in range(4)))


def test_capacity_that_others_add_can_be_allocated_until_they_take_it_away() -> None:
    async def check(nodes: Nodes) -> None:
        async def patch(amount: str | None) -> Json:
            status = {"status": {"capacity": {"example.com/dongle": amount}}}
            await nodes.client.patch("nodes", "node-1", status, "merge", subresource="status")
            await anyio.sleep(1)
            found: Json = (await nodes.client.get("nodes", "node-1"))["status"]
            return found

        status = await patch("5")
        assert status["allocatable"]["example.com/dongle"] == status["capacity"]["example.com/dongle"] == "5"
        assert status["allocatable"]["cpu"] == status["capacity"]["cpu"]
        status = await patch(None)
        assert "example.com/dongle" not in {**status["allocatable"], **status["capacity"]}

    with_nodes(check)
