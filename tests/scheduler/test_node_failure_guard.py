"""Three accidents of large clusters: a deleted node that is still used, a broken empty node, a pod that kills nodes."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio
import pytest

from kcp.machinery import meta
from kcp.machinery.times import format_time
from kcp.scheduler.plugins.guard_memory import Record, config_map, records_of
from kcp.scheduler.profiles import API_VERSION, ConfigError, Configuration, parse_configuration
from kcp.store.protocol import Op
from tests.scheduler.harness import Bench, _start, condition, node, pod, scheduled
from tests.scheduler.test_gang_scheduling import all_remade

Json = dict[str, Any]
READY = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
LOST = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
NO_SANDBOX = {"name": "main", "image": "x:1", "imageID": "", "ready": False, "restartCount": 0}


def guarded(**args: int) -> Configuration:
    profile: Json = {
        "plugins": {"multiPoint": {"enabled": [{"name": "NodeFailureGuard"}]}},
        "pluginConfig": [{"name": "NodeFailureGuard", "args": args}],
    }
    return parse_configuration(
        {"apiVersion": API_VERSION, "kind": "KubeSchedulerConfiguration", "profiles": [profile]}
    )


def owned(name: str, workload: str, **spec: Any) -> Json:
    obj = pod(name, **spec)
    obj["metadata"]["ownerReferences"] = [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": workload, "uid": workload, "controller": True}
    ]
    return obj


async def create(bench: Bench, name: str, workload: str, **spec: Any) -> None:
    await bench.client.create("pods", owned(name, workload, **spec), "default")


async def ready_node(bench: Bench, name: str, **amounts: str) -> None:
    await bench.client.create("nodes", node(name, allocatable=amounts))
    await bench.client.patch("nodes", name, {"spec": {"taints": None}}, "merge")
    await report(bench, name, READY)


async def report(bench: Bench, name: str, found: Json) -> None:
    await bench.client.patch(
        "nodes", name, {"status": {"conditions": [found]}}, "merge", subresource="status"
    )


async def says(bench: Bench, name: str, **status: Any) -> None:
    """What a kubelet writes about a pod."""
    await bench.client.patch("pods", name, {"status": status}, "merge", "default", subresource="status")


def fails(reason: str) -> Json:
    return {"containerStatuses": [{**NO_SANDBOX, "state": {"waiting": {"reason": reason, "message": ""}}}]}


STARTED: Json = {"phase": "Running"}


async def on(bench: Bench, name: str) -> list[str]:
    """The pods on a node."""
    page = await bench.client.list("pods", "default")
    return [meta.name(p) for p in page.items if p["spec"].get("nodeName") == name]


# --- a deleted node ---


def test_a_deleted_node_is_never_used_again() -> None:
    """Nodes come and go while pods come; no binding stands in the log behind its node's end."""

    async def check(bench: Bench) -> None:
        rng = Random(7)
        alive: list[str] = []
        for step in range(60):
            if len(alive) < 2 or rng.random() < 0.3:
                alive.append(f"n{step}")
                await bench.node(alive[-1], cpu="64")
            if len(alive) > 1 and rng.random() < 0.4:
                gone = alive.pop(rng.randrange(len(alive)))
                async with anyio.create_task_group() as group:
                    group.start_soon(bench.pod, f"with-{step}")
                    group.start_soon(bench.client.delete, "nodes", gone)
            await bench.pod(f"p-{step}", cpu="10m")
            await anyio.sleep(rng.choice((0, 0.01, 1)))
        await anyio.sleep(20)
        ended: dict[str, int] = {}
        late = []
        for event in await bench.cluster.store.events_since(0, limit=100_000):
            value = event.record.value
            if event.key.resource == "nodes" and event.op == Op.DELETED:
                ended[event.key.name] = event.rv
            elif event.key.resource == "pods":
                bound = value["spec"].get("nodeName")
                before = event.previous.value["spec"].get("nodeName") if event.previous else None
                if bound and not before and bound in ended:
                    late.append((event.key.name, bound))
        assert ended and late == []
        assert all([(await bench.node_of(f"p-{step}")) for step in range(60)])
        await all_remade(bench)

    scheduled(check)


def test_a_node_that_goes_while_its_binding_is_under_way_gets_no_pod() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        send = bench.scheduler.client.request

        async def late(*args: Any, **options: Any) -> Any:
            if args[1] == "/kcp/v1/bindings":
                await bench.client.delete("nodes", "n")
            return await send(*args, **options)

        bench.scheduler.client.request = late  # type: ignore[method-assign]
        await bench.pod("web")
        await anyio.sleep(0.5)
        bench.scheduler.client.request = send  # type: ignore[method-assign]
        assert await bench.node_of("web") == ""
        await bench.node("m")
        await anyio.sleep(10)
        assert await bench.node_of("web") == "m"

    scheduled(check)


# --- a broken empty node ---


async def _broken_node_among_loaded_ones(bench: Bench) -> int:
    """40 pods of ten workloads; a node where none starts is empty, the others are half full. Where do they end?"""
    for name in ("a", "b", "c"):
        await ready_node(bench, name, cpu="16")
        for number in range(8):
            taken = owned(f"old-{name}-{number}", "old", cpu="1")
            taken["spec"]["nodeName"] = name
            await bench.client.create("pods", taken, "default")
            await says(bench, f"old-{name}-{number}", **STARTED)
    await ready_node(bench, "broken", cpu="16")
    swallowed = 0
    for number in range(40):
        name = f"p-{number}"
        await create(bench, name, f"w-{number % 10}", cpu="100m")
        await anyio.sleep(1)
        if await bench.node_of(name) == "broken":
            swallowed += 1
            await says(bench, name, **fails("CreateContainerError"))
            await anyio.sleep(1)
            await bench.client.delete("pods", name, "default", grace_s=0)
        else:
            await says(bench, name, **STARTED)
    return swallowed


def test_a_broken_empty_node_swallows_every_new_pod_without_the_guard() -> None:
    async def check(bench: Bench) -> None:
        assert await _broken_node_among_loaded_ones(bench) == 40

    scheduled(check)


def test_a_broken_empty_node_does_not_swallow_every_new_pod() -> None:
    async def check(bench: Bench) -> None:
        assert await _broken_node_among_loaded_ones(bench) == 2
        guard = bench.scheduler.state.guard
        assert guard == {"broken": 1}
        assert [row.effects[0].get("guard") for row in bench.sink.rows][-1] == guard
        await all_remade(bench)

    scheduled(check, configuration=guarded())


def test_a_quarantined_node_is_used_when_there_is_no_other_and_freed_by_a_pod_that_starts() -> None:
    async def check(bench: Bench) -> None:
        await ready_node(bench, "only", cpu="16")
        for number in range(4):
            await create(bench, f"p-{number}", f"w-{number}")
            await anyio.sleep(1)
            await says(bench, f"p-{number}", **fails("ImagePullBackOff"))
        await anyio.sleep(1)
        assert bench.scheduler.state.guard == {"only": 2}
        await create(bench, "more", "w-9")
        await anyio.sleep(1)
        assert await bench.node_of("more") == "only"
        await says(bench, "more", **STARTED)
        await anyio.sleep(1)
        assert bench.scheduler.state.guard == {}

    scheduled(check, configuration=guarded())


def test_failures_are_forgotten_after_a_while_and_so_are_pods_that_never_start() -> None:
    async def check(bench: Bench) -> None:
        await ready_node(bench, "silent", cpu="16")
        for number in range(2):
            await create(bench, f"p-{number}", f"w-{number}")
        await anyio.sleep(100)
        assert bench.scheduler.state.guard == {}
        await anyio.sleep(30)
        assert bench.scheduler.state.guard == {"silent": 1}, "two minutes without a sign are a failure"
        await anyio.sleep(700)
        assert bench.scheduler.state.guard == {}

    scheduled(check, configuration=guarded())


def test_one_workload_that_fails_everywhere_says_nothing_about_nodes() -> None:
    async def check(bench: Bench) -> None:
        for name in ("a", "b", "c", "d"):
            await ready_node(bench, name)
        for number in range(12):
            await create(bench, f"p-{number}", f"w-{number % 2}")
            await anyio.sleep(1)
            await says(bench, f"p-{number}", **fails("ErrImagePull"))
        await anyio.sleep(1)
        assert bench.scheduler.state.guard == {}

    scheduled(check, configuration=guarded())


def test_never_more_than_a_share_of_the_nodes_is_meant() -> None:
    """The registry is down: pods start nowhere, and no node is worse than another."""

    async def check(bench: Bench) -> None:
        for number in range(10):
            await ready_node(bench, f"n{number}")
        for number in range(60):
            await create(bench, f"p-{number}", f"w-{number}")
        await anyio.sleep(2)
        for number in range(60):
            await says(bench, f"p-{number}", **fails("ImagePullBackOff"))
        await anyio.sleep(1)
        assert len(bench.scheduler.state.guard) == 2

    scheduled(check, configuration=guarded())


def test_a_node_that_comes_back_is_filled_slowly() -> None:
    async def check(bench: Bench) -> None:
        await ready_node(bench, "back", cpu="64")
        await ready_node(bench, "full", cpu="64")
        for number in range(20):
            taken = owned(f"old-{number}", "old", cpu="1")
            taken["spec"]["nodeName"] = "full"
            await bench.client.create("pods", taken, "default")
        await anyio.sleep(1)
        await report(bench, "back", LOST)
        await report(bench, "back", READY)
        await anyio.sleep(0.1)
        for number in range(30):
            await create(bench, f"p-{number}", "w", cpu="100m")
        await anyio.sleep(1)
        assert len(await on(bench, "back")) == 5
        await anyio.sleep(60)
        await create(bench, "later", "w", cpu="100m")
        await anyio.sleep(1)
        assert "later" in await on(bench, "back")
        await all_remade(bench)

    scheduled(check, configuration=guarded(slowStartPods=5))


# --- a pod that kills nodes ---


async def _deaths(bench: Bench, nodes: list[str], bomb: str, bystanders: int) -> int:
    """A workload whose pod takes its node down a minute after it starts; returns how many nodes are lost."""
    for name in nodes:
        await ready_node(bench, name, cpu="64")
    lost = 0
    for life in range(len(nodes)):
        await create(bench, f"{bomb}-{life}", bomb)
        for number in range(bystanders):
            await create(bench, f"w{number}-{life}", f"w{number}")
        await anyio.sleep(2)
        for name in [f"{bomb}-{life}", *(f"w{number}-{life}" for number in range(bystanders))]:
            if await bench.node_of(name):
                await says(bench, name, **STARTED)
        struck = await bench.node_of(f"{bomb}-{life}")
        if not struck:
            break
        await anyio.sleep(60)
        lost += 1
        await report(bench, struck, LOST)
        taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
        await bench.client.patch("nodes", struck, {"spec": {"taints": [taint]}}, "merge")
    return lost


def test_a_workload_that_kills_node_after_node_goes_on_without_the_guard() -> None:
    async def check(bench: Bench) -> None:
        assert await _deaths(bench, [f"n{number}" for number in range(5)], "bomb", 1) == 5

    scheduled(check)


def test_a_workload_that_kills_node_after_node_is_held_with_a_clear_message() -> None:
    """The one that is always beside it has a pod that runs well elsewhere, and is not."""

    async def check(bench: Bench) -> None:
        await ready_node(bench, "well", cpu="100m")
        await create(bench, "w0-well", "w0")
        await anyio.sleep(1)
        await says(bench, "w0-well", **STARTED)
        await anyio.sleep(300)
        assert await _deaths(bench, [f"n{number}" for number in range(5)], "bomb", 1) == 2
        dead = [await bench.node_of(f"bomb-{life}") for life in range(2)]
        text = f"workload killed nodes {dead[0]}, {dead[1]}: rescheduling held"
        assert condition(await bench.get("bomb-2")) == ("False", "SchedulingGated", text)
        assert text in await bench.events("FailedScheduling")
        assert bench.scheduler.queue.sizes()["gated"] == 1
        await create(bench, "other", "other")
        await create(bench, "bomb-new", "bomb-of-the-next-rollout")
        await anyio.sleep(2)
        assert await bench.node_of("other") and await bench.node_of("bomb-new")
        await anyio.sleep(1800)
        assert await bench.node_of("bomb-2"), "a hold ends"
        await all_remade(bench)

    scheduled(check, configuration=guarded())


MEMORY = "node-failure-guard"


async def another_scheduler(bench: Bench) -> Bench:
    """The one that runs ends, and one that has seen nothing takes its place."""
    bench.running.cancel()
    await anyio.sleep(0.1)
    return await _start(bench.cluster, bench.group, 2, bench.scheduler.configuration)


def test_a_workload_that_is_held_stays_held_when_the_scheduler_is_another_one() -> None:
    """Its pods and the nodes that it killed are gone by then."""

    async def check(bench: Bench) -> None:
        assert await _deaths(bench, ["n0", "n1", "n2"], "bomb", 0) == 2
        dead = [await bench.node_of(f"bomb-{life}") for life in range(2)]
        for life in range(3):
            await bench.client.delete("pods", f"bomb-{life}", "default", grace_s=0)
        for name in dead:
            await bench.client.delete("nodes", name)
        await anyio.sleep(1)
        memory = await bench.client.get("configmaps", MEMORY, "kube-system")
        assert list(memory["data"]) == ["bomb"]
        again = await another_scheduler(bench)
        await create(again, "bomb-3", "bomb")
        await create(again, "other", "other")
        await anyio.sleep(2)
        text = f"workload killed nodes {dead[0]}, {dead[1]}: rescheduling held"
        assert condition(await again.get("bomb-3")) == ("False", "SchedulingGated", text)
        assert await again.node_of("other")
        await anyio.sleep(1800)
        assert await again.node_of("bomb-3"), "a hold ends when it would have"
        memory = await bench.client.get("configmaps", MEMORY, "kube-system")
        assert not memory.get("data")

    scheduled(check, configuration=guarded())


def test_a_death_before_the_scheduler_was_another_one_counts_with_those_after_and_meanwhile() -> None:
    async def check(bench: Bench) -> None:
        for name in ("n0", "n1", "n2", "n3"):
            await ready_node(bench, name)
        await create(bench, "bomb-0", "bomb", nodeSelector={"kubernetes.io/hostname": "n0"})
        await anyio.sleep(30)
        await report(bench, "n0", LOST)
        await anyio.sleep(1)
        obj = owned("bomb-1", "bomb", nodeSelector={"kubernetes.io/hostname": "n1"})
        await bench.client.create("pods", obj, "default")
        await anyio.sleep(1)
        now = bench.cluster.clock.now()
        await says(bench, "bomb-1", phase="Running", startTime=format_time(now))
        bench.running.cancel()
        await anyio.sleep(20)
        died = {**LOST, "lastTransitionTime": format_time(bench.cluster.clock.now())}
        await report(bench, "n1", died)
        again = await another_scheduler(bench)
        await anyio.sleep(1)
        await create(again, "bomb-2", "bomb")
        await anyio.sleep(2)
        text = "workload killed nodes n0, n1: rescheduling held"
        assert condition(await again.get("bomb-2")) == ("False", "SchedulingGated", text)

    scheduled(check, configuration=guarded())


def test_what_the_guard_cannot_read_it_leaves_alone() -> None:
    broken = {"x": "no json", "y": "{}", "z": '{"killed":{"n":"when?"}}', "v": "[]"}
    assert records_of(broken) == {}
    kept = {"w": Record([(1_000_000, "a"), (2_000_000, "b")], 3_000_000), "u": Record([(5, "c")])}
    assert records_of(config_map(kept)["data"]) == kept


def test_deaths_that_are_long_past_are_forgotten() -> None:
    async def check(bench: Bench) -> None:
        for number in range(4):
            await ready_node(bench, f"n{number}")
            await create(
                bench, f"p-{number}", f"w-{number}", nodeSelector={"kubernetes.io/hostname": f"n{number}"}
            )
            await anyio.sleep(10)
            await report(bench, f"n{number}", LOST)
            await anyio.sleep(2000)
        memory = await bench.client.get("configmaps", MEMORY, "kube-system")
        assert list(memory["data"]) == ["w-3"]

    scheduled(check, configuration=guarded())


def test_who_cannot_be_told_apart_from_many_others_is_not_held() -> None:
    """All pods of a node that dies go to the same next node, which dies too."""

    async def check(bench: Bench) -> None:
        for name in ("n0", "n1", "n2"):
            await ready_node(bench, name)
        for life, name in enumerate(("n0", "n1")):
            for number in range(6):
                obj = owned(f"w{number}-{life}", f"w{number}")
                obj["spec"]["nodeSelector"] = {"kubernetes.io/hostname": name}
                await bench.client.create("pods", obj, "default")
            await anyio.sleep(10)
            await report(bench, name, LOST)
        assert bench.scheduler.own is not None and bench.scheduler.own.guard is not None
        assert bench.scheduler.own.guard.held == {}

    scheduled(check, configuration=guarded())


def test_nodes_that_go_together_count_once() -> None:
    async def check(bench: Bench) -> None:
        for name in ("n0", "n1", "n2"):
            await ready_node(bench, name)
            await create(bench, f"p-{name}", "web", nodeSelector={"kubernetes.io/hostname": name})
        await anyio.sleep(10)
        for name in ("n0", "n1", "n2"):
            await report(bench, name, LOST)
        await create(bench, "again", "web")
        await anyio.sleep(2)
        assert await bench.node_of("again")

    scheduled(check, configuration=guarded())


def test_a_node_that_is_taken_away_in_health_is_nobodys_fault() -> None:
    async def check(bench: Bench) -> None:
        for life, name in enumerate(("n0", "n1", "n2")):
            await ready_node(bench, name)
            await create(bench, f"p-{life}", "web")
            await anyio.sleep(10)
            await bench.client.delete("nodes", name)
        await ready_node(bench, "last")
        await create(bench, "again", "web")
        await anyio.sleep(2)
        assert await bench.node_of("again") == "last"

    scheduled(check, configuration=guarded())


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"killedNodes": 0}, "killedNodes: Invalid value: 0: must be greater than 0"),
        ({"maxPenalizedPercent": 101}, "maxPenalizedPercent: Invalid value: 101: not in valid range [1-100]"),
        ({"patience": 1}, 'unknown field "patience"'),
    ],
)
def test_arguments_are_checked(args: Json, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guarded(**args)
    assert text in str(caught.value)
