"""Extended resources that devices stand behind: by count where a node offers them, by a claim of the pod's own elsewhere."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from kcp.machinery import meta
from kcp.machinery.errors import ApiError, NotFound
from kcp.scheduler.cycle import Decision
from kcp.scheduler.dra.devices import CLAIMS, CLASSES, SLICES
from kcp.scheduler.dra.extended import class_by_resource, special_claim
from kcp.scheduler.explain import explain
from kcp.scheduler.fit import fit
from tests.scheduler.dra.objects import World, claim, device, device_class, exactly, slice_of
from tests.scheduler.dra.test_scheduling import assert_all_alike
from tests.scheduler.harness import Bench, condition, node, pod, scheduled
from tests.scheduler.test_gang_claims import nothing_is_under_way
from tests.scheduler.test_gang_scheduling import gangs, member, nodes_of, pod_group
from tests.scheduler.test_remake import remade

Json = dict[str, Any]
GPU = "example.com/gpu"
IMPLICIT = "deviceclass.resource.kubernetes.io/gpu"
NOT_ALL, TOO_FEW = "cannot allocate all claims", f"Insufficient {GPU}"


def container(name: str, gpus: int, resource: str = GPU, **more: Any) -> Json:
    amounts = {"cpu": "100m", resource: str(gpus)} if gpus else {"cpu": "100m"}
    return {"name": name, "image": "x:1", "resources": {"requests": amounts, "limits": dict(amounts)}, **more}


def with_gpus(name: str, gpus: int = 1, resource: str = GPU, **spec: Any) -> Json:
    obj = pod(name, **{"containers": [container("main", gpus, resource)], **spec})
    obj["metadata"]["uid"] = f"uid-{name}"
    return obj


def serving(**spec: Any) -> Json:
    return device_class(**{"extendedResourceName": GPU, **spec})


def devices_on(name: str, count: int) -> Json:
    return slice_of(name, [device(f"d{number}") for number in range(count)])


def schedule(world: World, obj: Json) -> Decision:
    world.state.apply("pods", None, obj)
    found = world.decide(meta.name(obj))
    if found.node:
        world.state.assume(meta.uid(obj), found.node)
        world.state.devices.take(meta.uid(obj), found.allocations)
    return found


def results(found: Decision) -> list[str]:
    (allocation,) = found.allocations.values()
    return [f"{r['request']}={r['pool']}/{r['device']}" for r in allocation["devices"]["results"]]


def why(found: Decision) -> str:
    return found.text.partition(": ")[2].partition(". ")[0]


# --- deciding ---


@pytest.mark.parametrize("resource", [GPU, IMPLICIT])
def test_devices_serve_the_resource_on_nodes_that_do_not_offer_it(resource: str) -> None:
    world = World()
    world.nodes("a")
    world.put(serving(), devices_on("a", 2))
    index = sorted(["cpu", resource]).index(resource)
    assert results(schedule(world, with_gpus("p", 2, resource))) == [
        f"container-0-request-{index}=a/d0", f"container-0-request-{index}=a/d1",
    ]  # fmt: skip
    assert why(schedule(world, with_gpus("q", 1, resource))) == f"1 {NOT_ALL}"


def test_a_node_that_offers_the_resource_gives_it_by_count_and_makes_no_claim() -> None:
    world = World()
    world.put(node("plugin", allocatable={GPU: "1"}), serving(), devices_on("plugin", 3))
    found = schedule(world, with_gpus("p"))
    assert (found.node, found.allocations) == ("plugin", {})
    assert why(schedule(world, with_gpus("q"))) == f"1 {TOO_FEW}"


def test_each_kind_of_node_is_judged_in_its_own_way() -> None:
    world = World()
    world.put(
        node("plugin", allocatable={GPU: "1"}), node("dra"), node("none"), serving(), devices_on("dra", 1)
    )
    placed = [schedule(world, with_gpus(name)) for name in ("p", "q")]
    assert sorted(found.node for found in placed) == ["dra", "plugin"]
    assert why(schedule(world, with_gpus("r"))) == f"1 {TOO_FEW}, 2 {NOT_ALL}"


def test_without_a_class_that_serves_it_nothing_changes() -> None:
    world = World()
    world.nodes("a")
    world.put(device_class(), devices_on("a", 1))
    assert why(schedule(world, with_gpus("p"))) == f"1 {TOO_FEW}"
    world.state.apply(CLASSES, device_class(), serving())
    assert world.decide("p").node == "a"
    world.state.apply(CLASSES, serving(), device_class())
    assert why(world.decide("p")) == f"1 {TOO_FEW}"


def test_claims_of_the_pod_and_its_extended_resources_are_served_together() -> None:
    world = World()
    world.nodes("a", "b")
    world.put(serving(), devices_on("a", 1), devices_on("b", 2), claim("c", exactly()))
    entries = [{"name": "c", "resourceClaimName": "c"}]
    found = schedule(world, with_gpus("p", resourceClaims=entries))
    assert found.node == "b" and sorted(found.allocations) == [
        "default/<extended-resources>/uid-p",
        "default/c",
    ]


def test_the_newest_of_several_classes_serves_the_resource_and_then_the_first_by_name() -> None:
    def made(name: str, created: str) -> Json:
        found = device_class(name, extendedResourceName=GPU)
        found["metadata"]["creationTimestamp"] = created
        return found

    old, new = made("z", "2026-01-01T00:00:00Z"), made("a", "2026-01-02T00:00:00Z")
    assert class_by_resource([old, new])[GPU] == "a"
    old["metadata"]["creationTimestamp"] = "2026-01-03T00:00:00Z"
    assert class_by_resource([new, old])[GPU] == "z"
    old["metadata"]["creationTimestamp"] = new["metadata"]["creationTimestamp"]
    assert class_by_resource([new, old])[GPU] == class_by_resource([old, new])[GPU] == "a"


def asks(pod_spec: Json) -> tuple[dict[str, int], dict[str, list[str]]]:
    """(count by request, the requests that each container uses)."""
    obj = {"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": pod_spec}
    found, rows = special_claim(obj, [GPU], {GPU: "gpu"})
    used: dict[str, list[str]] = {}
    for row in rows:
        used.setdefault(row["containerName"], []).append(row["requestName"])
    return {r["name"]: r["exactly"]["count"] for r in found["spec"]["devices"]["requests"]}, used


def test_init_containers_use_the_devices_of_those_that_come_after_them() -> None:
    spec = {
        "initContainers": [container("first", 3), container("side", 1, restartPolicy="Always"), container("last", 2)],
        "containers": [container("one", 1), container("none", 0), container("two", 1)],
    }  # fmt: skip
    counts, used = asks(spec)
    assert counts == {"container-1-request-1": 1, "container-3-request-1": 1, "container-5-request-1": 1}
    three = ["container-1-request-1", "container-3-request-1", "container-5-request-1"]
    assert used == {
        "side": three[:1], "one": three[1:2], "two": three[2:], "first": three, "last": three[1:],
    }  # fmt: skip


def test_what_init_containers_need_beside_is_asked_for_once_for_the_largest_of_them() -> None:
    spec = {
        "initContainers": [container("a", 2), container("b", 5), container("c", 3)],
        "containers": [container("m", 1)],
    }
    counts, used = asks(spec)
    assert counts == {"container-1-request-1": 4, "container-3-request-1": 1}
    own = ["container-3-request-1", "container-1-request-1"]
    assert used == {"m": own[:1], "a": own, "b": own, "c": own}


def test_one_can_ask_how_many_more_fit_and_why_no_more_do() -> None:
    world = World()
    world.nodes("a", "b")
    world.put(serving(), devices_on("a", 3), devices_on("b", 2))
    found = fit(world.framework, with_gpus("p", 2), cycle=1, seed=1)
    assert dict(found.placed) == {"a": 1, "b": 1} and found.histogram == {NOT_ALL: 2}
    assert world.state.devices.under_way == {}
    world.state.apply("pods", None, with_gpus("big", 4))
    verdict = explain(world.framework, world.state.pods["uid-big"]).nodes[0]
    (request,) = verdict.refusals[0].details["requests"]
    assert (request["wants"], len(request["devices"])) == (4, 3)


# --- through the API ---


async def cluster(bench: Bench, *nodes: str, count: int = 1) -> None:
    await bench.client.create(CLASSES, serving())
    for name in nodes:
        await bench.node(name)
        await bench.client.create(SLICES, devices_on(name, count))


async def gpu_pod(bench: Bench, name: str, gpus: int = 1, **spec: Any) -> Json:
    return await bench.pod(name, containers=[container("main", gpus)], **spec)


async def claims(bench: Bench) -> list[Json]:
    return list((await bench.client.list(CLAIMS, "default")).items)


def test_the_claim_is_made_allocated_and_told_in_the_pod_before_it_is_bound() -> None:
    found: list[Any] = []

    async def check(bench: Bench) -> None:
        await cluster(bench, "n", count=2)
        await gpu_pod(bench, "web", 2)
        await anyio.sleep(1)
        web = await bench.get("web")
        (made,) = await claims(bench)
        assert web["spec"]["nodeName"] == "n"
        assert meta.name(made).startswith("web-extended-resources-")
        assert meta.annotations(made) == {"resource.kubernetes.io/extended-resource-claim": "true"}
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Pod", meta.uid(web), True)
        assert meta.finalizers(made) == ["resource.kubernetes.io/delete-protection"]
        assert [r["device"] for r in made["status"]["allocation"]["devices"]["results"]] == ["d0", "d1"]
        assert made["status"]["reservedFor"] == [{"resource": "pods", "name": "web", "uid": meta.uid(web)}]
        assert web["status"]["extendedResourceClaimStatus"] == {
            "resourceClaimName": meta.name(made),
            "requestMappings": [
                {"containerName": "main", "resourceName": GPU, "requestName": "container-0-request-1"}
            ],
        }
        assert nothing_is_under_way(bench)
        await gpu_pod(bench, "late")
        await anyio.sleep(1)
        assert NOT_ALL in condition(await bench.get("late"))[2]
        found.extend(await remade(bench))
        state, framework = bench.scheduler.state, bench.scheduler.frameworks["default-scheduler"]
        (verdict,) = explain(framework, state.pods[meta.uid(web)]).nodes
        assert verdict.feasible, "a pod that runs has what it asks for"

    scheduled(check)
    assert_all_alike(found)


def test_a_pod_that_waits_for_the_resource_is_tried_when_a_class_serves_it() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await bench.client.create(SLICES, devices_on("n", 1))
        await gpu_pod(bench, "web")
        await anyio.sleep(1)
        assert TOO_FEW in condition(await bench.get("web"))[2]
        await bench.client.create(CLASSES, serving())
        await anyio.sleep(3)
        assert await bench.node_of("web") == "n"

    scheduled(check)


def test_a_claim_that_cannot_be_allocated_is_deleted_and_its_devices_are_free() -> None:
    async def check(bench: Bench) -> None:
        await cluster(bench, "n")
        client = bench.scheduler.client
        send, shut = client.update, True

        async def refused(resource: str, obj: Json, **options: Any) -> Any:
            if shut and options.get("subresource") == "status":
                raise ApiError("the door is shut")
            return await send(resource, obj, **options)

        client.update = refused  # type: ignore[method-assign]
        await gpu_pod(bench, "web")
        await anyio.sleep(0.5)
        assert await claims(bench) == [] and await bench.node_of("web") == ""
        assert nothing_is_under_way(bench)
        shut = False
        await anyio.sleep(5)
        assert await bench.node_of("web") == "n" and len(await claims(bench)) == 1
        assert_all_alike(await remade(bench))

    scheduled(check)


def test_a_claim_left_by_a_scheduler_that_was_cut_off_is_deleted_and_the_pod_tried_again() -> None:
    async def check(bench: Bench) -> None:
        await cluster(bench, "n")
        client = bench.scheduler.client
        send = client.request

        async def never(*args: Any, **options: Any) -> Any:
            await anyio.sleep_forever()

        client.request = never  # type: ignore[method-assign]
        await gpu_pod(bench, "web")
        await anyio.sleep(1)
        (left,) = await claims(bench)
        assert left["status"]["allocation"] and await bench.node_of("web") == ""
        client.request = send  # type: ignore[method-assign]
        bench.restart()
        await anyio.sleep(0.5)
        text = condition(await bench.get("web"))[2]
        assert text.startswith("0/1 nodes are available: 1 cannot schedule extended resource claim.")
        assert "deletion of ResourceClaim completed, preemption: " in text
        await anyio.sleep(10)
        assert await bench.node_of("web") == "n"
        (made,) = await claims(bench)
        assert meta.uid(made) != meta.uid(left)
        with pytest.raises(NotFound):
            await bench.client.get(CLAIMS, meta.name(left), "default")
        assert_all_alike(await remade(bench))

    scheduled(check)


def test_a_gang_gets_its_extended_resources_as_a_whole() -> None:
    async def check(bench: Bench) -> None:
        await cluster(bench, "n", "m")
        await pod_group(bench, "train", 3)
        for number in range(3):
            await gpu_pod(bench, f"w-{number}", **member("train"))
        await anyio.sleep(2)
        assert await nodes_of(bench, "w-0", "w-1", "w-2") == ["", "", ""] and await claims(bench) == []
        await bench.node("o")
        await bench.client.create(SLICES, devices_on("o", 1))
        await anyio.sleep(10)
        assert sorted(await nodes_of(bench, "w-0", "w-1", "w-2")) == ["m", "n", "o"]
        assert len(await claims(bench)) == 3 and nothing_is_under_way(bench)
        assert_all_alike(await remade(bench))

    scheduled(check, configuration=gangs())
