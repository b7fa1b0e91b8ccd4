"""Pods get nodes: through the API, end to end."""

from __future__ import annotations

from typing import Any

import anyio
import attrs

from kcp.client.client import Client
from kcp.client.transport import Transport, Unreachable
from kcp.controlplane.cluster import Cluster
from kcp.scheduler.scheduler import SYNC_TIMEOUT_S
from kcp.scheduler.writes import Eviction
from kcp.wire.http import Request, Response
from tests.controlplane.test_cluster import in_cluster
from tests.scheduler.harness import Bench, condition, pod, scheduled

NOT_HELPFUL = "Preemption is not helpful for scheduling."


def test_pods_get_nodes_and_the_event_says_so() -> None:
    async def check(bench: Bench) -> None:
        for number in range(3):
            await bench.node(f"n{number}")
        for number in range(6):
            await bench.pod(f"p{number}")
        await anyio.sleep(2)
        nodes = [await bench.node_of(f"p{number}") for number in range(6)]
        assert sorted(nodes) == ["n0", "n0", "n1", "n1", "n2", "n2"]
        assert condition(await bench.get("p0"))[0] == "True"
        assert f"Successfully assigned default/p0 to {nodes[0]}" in await bench.events("Scheduled")
        assert bench.scheduler.queue.sizes()["in_flight_events"] == 0

    scheduled(check)


def test_a_pod_without_room_waits_until_a_node_comes() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("small", cpu="1")
        await bench.pod("big", cpu="2")
        await anyio.sleep(1)
        text = (
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: "
            f"0/1 nodes are available: 1 {NOT_HELPFUL}"
        )
        assert condition(await bench.get("big")) == ("False", "Unschedulable", text)
        assert await bench.events("FailedScheduling") == [text]
        await bench.node("large")
        await anyio.sleep(3)
        assert await bench.node_of("big") == "large"

    scheduled(check)


def test_no_node_at_all() -> None:
    async def check(bench: Bench) -> None:
        await bench.pod("lonely")
        await anyio.sleep(1)
        expected = ("False", "Unschedulable", "no nodes available to schedule pods")
        assert condition(await bench.get("lonely")) == expected
        await bench.node("first")
        await anyio.sleep(3)
        assert await bench.node_of("lonely") == "first"

    scheduled(check)


def test_a_gated_pod_waits_for_its_gates() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await bench.pod("gated", schedulingGates=[{"name": "example.com/hold"}])
        await anyio.sleep(5)
        gated = await bench.get("gated")
        assert condition(gated)[1] == "SchedulingGated"
        assert bench.scheduler.queue.sizes()["gated"] == 1
        await bench.client.patch("pods", "gated", {"spec": {"schedulingGates": []}}, "merge", "default")
        await anyio.sleep(2)
        assert await bench.node_of("gated") == "n"

    scheduled(check)


def test_a_pod_that_goes_makes_room() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n", cpu="1")
        await bench.pod("first", cpu="800m")
        await anyio.sleep(1)
        await bench.pod("second", cpu="800m")
        await anyio.sleep(1)
        assert await bench.node_of("second") == ""
        await bench.client.delete("pods", "first", "default", grace_s=0)
        await anyio.sleep(3)
        assert await bench.node_of("second") == "n"

    scheduled(check)


def test_a_more_important_pod_evicts_the_least_important_ones() -> None:
    async def check(bench: Bench) -> None:
        await bench.client.create(
            "priorityclasses.scheduling.k8s.io",
            {
                "apiVersion": "scheduling.k8s.io/v1",
                "kind": "PriorityClass",
                "metadata": {"name": "high"},
                "value": 1000,
            },
        )
        await bench.node("n", cpu="1")
        await bench.pod("low", cpu="800m")
        await anyio.sleep(1)
        victim = await bench.get("low")
        preemptor = await bench.pod("high", cpu="800m", priorityClassName="high")
        await anyio.sleep(0.5)
        waiting = await bench.get("high")
        assert waiting["status"]["nominatedNodeName"] == "n"
        low = await bench.get("low")
        assert low["metadata"]["uid"] == victim["metadata"]["uid"] and "deletionTimestamp" in low["metadata"]
        disruption = next(c for c in low["status"]["conditions"] if c["type"] == "DisruptionTarget")
        assert disruption["reason"] == "PreemptionByScheduler"
        assert disruption["message"] == "default-scheduler: preempting to accommodate a higher priority pod"
        await bench.client.delete("pods", "low", "default", grace_s=0)
        await anyio.sleep(3)
        assert await bench.node_of("high") == "n"
        uid = preemptor["metadata"]["uid"]
        assert await bench.events("Preempted") == [f"Preempted by pod {uid} on node n"]
        kinds = [row.effects[0]["kind"] for row in bench.sink.rows]
        assert kinds[:2] == ["Bind", "Preempt"] and kinds[-1] == "Bind"

    scheduled(check)


def test_the_same_seed_gives_the_same_decisions() -> None:
    async def check(bench: Bench) -> None:
        for number in range(7):
            await bench.node(f"n{number}")
        for number in range(20):
            await bench.pod(f"p{number}", cpu="1")
        await anyio.sleep(3)

    one, two = scheduled(check, seed=3), scheduled(check, seed=3)
    assert [row.effects for row in one.sink.rows] == [row.effects for row in two.sink.rows]
    assert len(one.sink.rows) == 20


def test_a_scheduler_that_is_cut_off_starts_anew_from_the_log() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        client, send = bench.scheduler.client, bench.scheduler.client.request

        async def never(*args: Any, **options: Any) -> Any:
            await anyio.sleep_forever()

        client.request = never  # type: ignore[method-assign]
        await bench.pod("web")
        await anyio.sleep(1)
        assert bench.scheduler.state.assumed and await bench.node_of("web") == ""
        client.request = send  # type: ignore[method-assign]
        bench.restart()
        await anyio.sleep(2)
        assert await bench.node_of("web") == "n"
        assert bench.scheduler.state.assumed == {}

    scheduled(check)


def test_what_was_still_to_be_evicted_is_not_when_the_scheduler_starts_anew() -> None:
    """Its decisions count for nothing then, so nobody may lose a pod for one."""

    async def check(bench: Bench) -> None:
        await bench.node("n")
        victim = await bench.pod("low")
        await anyio.sleep(1)
        bench.running.cancel()
        await anyio.sleep(0.1)
        ended: list[str] = []
        bench.scheduler.writes.put(Eviction(victim, "n", (victim,), 0, lambda: ended.append("done")))
        bench.restart()
        await anyio.sleep(2)
        assert "deletionTimestamp" not in (await bench.get("low"))["metadata"] and ended == []

    scheduled(check)


@attrs.define
class Volumeless:
    """A transport over which no volumes can be read while `down`."""

    inner: Transport
    down: list[bool]
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        if self.down and request.path.endswith("/persistentvolumes"):
            raise Unreachable("no volumes today")
        return await self.inner.request(request, timeout_s)

    async def close(self) -> None: ...


def test_nothing_is_scheduled_before_every_cache_is_filled() -> None:
    down = [True]

    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await client.create("serviceaccounts", account, "default")
        await client.create("pods", pod("early", tolerations=[{"operator": "Exists"}]), "default")
        await anyio.sleep(2 * SYNC_TIMEOUT_S + 60)
        assert "nodeName" not in (await client.get("pods", "early", "default"))["spec"]
        down.clear()
        await anyio.sleep(120)
        assert "nodeName" in (await client.get("pods", "early", "default"))["spec"]

    in_cluster(check, nodes=1, controllers=(), wrap_transport=lambda inner: Volumeless(inner, down))
