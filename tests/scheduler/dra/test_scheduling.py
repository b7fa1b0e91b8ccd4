"""Claims through the whole scheduler: what it waits for, what it writes, what it takes back, and all of it again."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio

from kcp.machinery import meta
from kcp.machinery.errors import ApiError
from kcp.scheduler.dra.devices import CLAIMS, CLASSES, SLICES
from tests.scheduler.dra.objects import claim, device, device_class, exactly, slice_of
from tests.scheduler.harness import Bench, condition, pod, scheduled
from tests.scheduler.test_remake import remade

Json = dict[str, Any]


async def world(bench: Bench, *nodes: str, devices: int = 1) -> None:
    await bench.client.create(CLASSES, device_class())
    for name in nodes:
        await bench.node(name)
        await bench.client.create(SLICES, slice_of(name, [device(f"d{n}") for n in range(devices)]))


async def make(bench: Bench, name: str, *requests: Json) -> Json:
    obj = claim(name, *requests)
    del obj["metadata"]["uid"]
    return (await bench.client.create(CLAIMS, obj, "default")).object or {}


async def with_claim(bench: Bench, name: str, claim_name: str, **spec: Any) -> Json:
    entries = [{"name": "c", "resourceClaimName": claim_name}]
    return await bench.pod(name, resourceClaims=entries, **spec)


async def claim_of(bench: Bench, name: str) -> Json:
    return await bench.client.get(CLAIMS, name, "default")


def assert_all_alike(pairs: list[tuple[Json, Json]]) -> None:
    assert pairs and [pair for pair in pairs if pair[0] != pair[1]] == []


def test_the_claim_is_allocated_protected_and_reserved_before_the_pod_is_bound() -> None:
    found: list[Any] = []

    async def check(bench: Bench) -> None:
        await world(bench, "a", "b")
        await make(bench, "c", exactly())
        await with_claim(bench, "web", "c")
        await anyio.sleep(1)
        web, held = await bench.get("web"), await claim_of(bench, "c")
        (result,) = held["status"]["allocation"]["devices"]["results"]
        assert web["spec"]["nodeName"] == result["pool"]
        assert held["status"]["reservedFor"] == [{"resource": "pods", "name": "web", "uid": meta.uid(web)}]
        assert meta.finalizers(held) == ["resource.kubernetes.io/delete-protection"]
        assert held["status"]["allocation"]["allocationTimestamp"]
        assert int(meta.resource_version(held)) < int(meta.resource_version(web))
        assert bench.scheduler.state.devices.under_way == {}
        found.extend(await remade(bench))
        (row,) = bench.sink.rows
        assert row.effects[0]["allocations"]["default/c"]["devices"]["results"] == [result]

    scheduled(check)
    assert_all_alike(found)


def test_a_pod_whose_claim_is_missing_is_not_tried() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "a")
        await with_claim(bench, "web", "c")
        await anyio.sleep(30)
        assert bench.sink.rows == [] and condition(await bench.get("web"))[2] == ""
        assert bench.scheduler.queue.sizes()["gated"] == 1
        await make(bench, "c", exactly())
        await anyio.sleep(1)
        assert await bench.node_of("web") == "a"

    scheduled(check)


def test_a_pod_waits_for_the_claim_of_its_template() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "a")
        entry = {"name": "c", "resourceClaimTemplateName": "t"}
        web = await bench.pod("web", resourceClaims=[entry])
        await anyio.sleep(5)
        assert (
            bench.scheduler.queue.pods[meta.uid(web)].why
            == 'pod "default/web": ResourceClaim not created yet'
        )
        obj = claim("made", exactly())
        obj["metadata"] = {
            "name": "made", "namespace": "default", "ownerReferences": [meta.owner_reference(web, block=False)],
        }  # fmt: skip
        await bench.client.create(CLAIMS, obj, "default")
        status = {"status": {"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "made"}]}}
        await bench.client.patch("pods", "web", status, "merge", "default", subresource="status")
        await anyio.sleep(1)
        assert await bench.node_of("web") == "a"

    scheduled(check)


def test_a_missing_class_is_named_and_helps_when_it_comes() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "a")
        await make(bench, "c", exactly(device_class="tpu"))
        await with_claim(bench, "web", "c")
        await anyio.sleep(1)
        text = (
            "0/1 nodes are available: request r0: device class tpu does not exist. no new claims to deallocate, "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
        assert condition(await bench.get("web"))[2] == text
        await bench.client.create(CLASSES, device_class("tpu"))
        await anyio.sleep(10)
        assert await bench.node_of("web") == "a"

    scheduled(check)


def test_an_idle_claim_in_the_wrong_place_is_freed() -> None:
    found: list[Any] = []

    async def check(bench: Bench) -> None:
        await world(bench, "a", "b")
        await make(bench, "c", exactly())
        await with_claim(bench, "first", "c", nodeSelector={"kubernetes.io/hostname": "a"})
        await anyio.sleep(1)
        held = await claim_of(bench, "c")
        await bench.client.update_status(CLAIMS, {**held, "status": {**held["status"], "reservedFor": []}})
        await with_claim(bench, "second", "c", nodeSelector={"kubernetes.io/hostname": "b"})
        await anyio.sleep(0.5)
        text = (
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
            "1 resourceclaim not available on the node. deallocation of ResourceClaim completed, "
            "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        )
        assert text in [row.effects[0].get("text") for row in bench.sink.rows]
        await anyio.sleep(10)
        assert await bench.node_of("second") == "b"
        (result,) = (await claim_of(bench, "c"))["status"]["allocation"]["devices"]["results"]
        assert result["pool"] == "b"
        found.extend(await remade(bench))

    scheduled(check)
    assert_all_alike(found)


def test_a_claim_that_others_use_is_not_taken_from_them() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "a", "b")
        await make(bench, "c", exactly())
        await with_claim(bench, "first", "c", nodeSelector={"kubernetes.io/hostname": "a"})
        await anyio.sleep(1)
        await with_claim(bench, "second", "c", nodeSelector={"kubernetes.io/hostname": "b"})
        await anyio.sleep(1)
        assert "still not schedulable" in condition(await bench.get("second"))[2]
        assert (await claim_of(bench, "c"))["status"]["allocation"]

    scheduled(check)


def test_devices_come_free_when_a_claim_is_freed() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "a")
        for name in ("c", "d"):
            await make(bench, name, exactly())
        await with_claim(bench, "first", "c")
        await anyio.sleep(1)
        await with_claim(bench, "second", "d")
        await anyio.sleep(5)
        assert await bench.node_of("second") == ""
        held = await claim_of(bench, "c")
        await bench.client.update_status(CLAIMS, {**held, "status": {}})
        await anyio.sleep(11)
        assert await bench.node_of("second") == "a"

    scheduled(check)


def test_a_refused_status_gives_the_devices_back_and_the_pod_is_tried_again() -> None:
    found: list[Any] = []

    async def check(bench: Bench) -> None:
        await world(bench, "a")
        await make(bench, "c", exactly())
        client = bench.scheduler.client
        update, refused = client.update_status, [0]

        async def refuse_once(resource: str, obj: Json, **options: Any) -> Any:
            if resource == CLAIMS and not refused[0]:
                refused[0] += 1
                raise ApiError("the disk is full")
            return await update(resource, obj, **options)

        client.update_status = refuse_once  # type: ignore[method-assign]
        await with_claim(bench, "web", "c")
        await anyio.sleep(0.5)
        text = (
            'binding rejected: running PreBind plugin "DynamicResources": '
            "add allocation and reservation to claim default/c: the disk is full"
        )
        assert condition(await bench.get("web")) == ("False", "SchedulerError", text)
        assert bench.scheduler.state.devices.dedicated == {}
        await anyio.sleep(5)
        assert await bench.node_of("web") == "a"
        found.extend(await remade(bench))

    scheduled(check)
    assert_all_alike(found)


def test_a_pod_that_cannot_be_bound_leaves_its_claim_allocated_but_not_reserved() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "a")
        await make(bench, "c", exactly())
        client = bench.scheduler.client
        send, refused = client.request, [0]

        async def refuse(method: str, path: str, **options: Any) -> Any:
            refused[0] += 1
            if refused[0] < 2:
                raise ApiError("no")
            return await send(method, path, **options)

        client.request = refuse  # type: ignore[method-assign]
        await with_claim(bench, "web", "c")
        await anyio.sleep(0.5)
        held = await claim_of(bench, "c")
        assert held["status"]["allocation"] and not held["status"].get("reservedFor")
        await anyio.sleep(5)
        assert await bench.node_of("web") == "a"
        assert len((await claim_of(bench, "c"))["status"]["reservedFor"]) == 1

    scheduled(check)


def test_devices_that_must_be_ready_hold_the_pod_back() -> None:
    async def check(bench: Bench) -> None:
        await bench.client.create(CLASSES, device_class())
        await bench.node("a")
        attached = device("d", bindingConditions=["Attached"], bindingFailureConditions=["Broken"])
        await bench.client.create(SLICES, slice_of("a", [attached]))
        await make(bench, "c", exactly())
        await with_claim(bench, "web", "c")
        await anyio.sleep(5)
        assert await bench.node_of("web") == ""
        assert "waiting for binding conditions for device on node a" in await bench.events(
            "BindingConditionsPending"
        )
        held = await claim_of(bench, "c")
        (result,) = held["status"]["allocation"]["devices"]["results"]
        assert result["bindingConditions"] == ["Attached"]
        ready = {
            "type": "Attached", "status": "True", "reason": "Done", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        said = {**{f: result[f] for f in ("driver", "pool", "device")}, "conditions": [ready]}
        await bench.client.update_status(CLAIMS, {**held, "status": {**held["status"], "devices": [said]}})
        await anyio.sleep(1)
        assert await bench.node_of("web") == "a"

    scheduled(check)


def test_a_busy_hour_with_devices_is_remade_and_no_device_is_held_twice() -> None:
    found: list[Any] = []

    async def check(bench: Bench) -> None:
        await world(bench, "a", "b", "c", devices=3)
        rng = Random(3)
        for number in range(40):
            await make(bench, f"c{number}", exactly(rng.choice([1, 1, 2])))
            await with_claim(bench, f"p{number}", f"c{number}", cpu="50m")
            if rng.random() < 0.4:
                await anyio.sleep(rng.uniform(0, 3))
            if rng.random() < 0.5:
                await _end(bench, rng.randint(0, number))
            await _assert_no_device_twice(bench)
        await anyio.sleep(30)
        await _assert_no_device_twice(bench)
        found.extend(await remade(bench))

    scheduled(check, seed=3)
    assert_all_alike(found)
    kinds = [theirs["kind"] for _, theirs in found]
    assert kinds.count("Bind") > 9 and kinds.count("Status") > 9


async def _end(bench: Bench, number: int) -> None:
    """The pod goes, and what the claim controller does then."""
    try:
        await bench.client.delete("pods", f"p{number}", "default", grace_s=0)
        held = await claim_of(bench, f"c{number}")
        await bench.client.update_status(CLAIMS, {**held, "status": {}})
    except ApiError:
        return


async def _assert_no_device_twice(bench: Bench) -> None:
    claims = (await bench.client.list(CLAIMS, "default")).items
    held = [
        (result["pool"], result["device"])
        for each in claims
        for result in ((each.get("status") or {}).get("allocation") or {})
        .get("devices", {})
        .get("results", ())
    ]
    assert len(held) == len(set(held))


def test_a_pod_on_a_plain_node_needs_no_declared_feature_but_one_that_restarts_all_does() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("plain")
        await bench.node("able")
        rules = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [3]}}]
        obj = pod("web")
        obj["spec"]["containers"][0].update(restartPolicy="Never", restartPolicyRules=rules)
        obj["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "able"}
        await bench.client.create("pods", obj, "default")
        await anyio.sleep(1)
        assert (
            condition(await bench.get("web"))[2]
            .removeprefix("0/2 nodes are available: ")
            .startswith(
                "1 node(s) didn't match Pod's node affinity/selector, 1 node(s) didn't match Pod's required features."
            )
        )
        features = {"status": {"declaredFeatures": ["RestartAllContainersOnContainerExits"]}}
        await bench.client.patch("nodes", "able", features, "merge", subresource="status")
        await anyio.sleep(11)
        assert await bench.node_of("web") == "able"

    scheduled(check)
