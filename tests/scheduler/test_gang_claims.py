"""Gangs with volumes and devices: everything is prepared before anything is bound, and taken back when it comes to nothing."""

from __future__ import annotations

from typing import Any

import anyio

from kcp.machinery import meta
from kcp.machinery.errors import ApiError
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.dra.devices import CLAIMS
from kcp.scheduler.plugins.volume_binding import Provision
from kcp.scheduler.volumes import release_volumes
from tests.scheduler.dra.objects import exactly
from tests.scheduler.dra.test_scheduling import claim_of, make, world
from tests.scheduler.harness import Bench, condition, scheduled
from tests.scheduler.test_gang_scheduling import (
    all_remade,
    gangs,
    member,
    nodes_of,
    pod_group,
    says,
)
from tests.scheduler.test_volumes import storage_class

Json = dict[str, Any]
PVCS = "persistentvolumeclaims"
SELECTED = "volume.kubernetes.io/selected-node"


def volume(name: str) -> Json:
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]}


def devices(*names: str) -> Json:
    return {"resourceClaims": [{"name": name, "resourceClaimName": name} for name in names]}


async def claim(bench: Bench, name: str) -> None:
    spec = {
        "accessModes": ["ReadWriteMany"], "storageClassName": "disk", "resources": {"requests": {"storage": "1Gi"}},
    }  # fmt: skip
    obj = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
    await bench.client.create(PVCS, obj, "default")


async def selected(bench: Bench, name: str) -> str:
    found = await bench.client.get(PVCS, name, "default")
    return meta.annotations(found).get(SELECTED, "")


async def provision(bench: Bench, name: str) -> None:
    """What a provisioner and the volume controller do."""
    spec = {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "disk",
        "csi": {"driver": "disk.example.com", "volumeHandle": name},
    }  # fmt: skip
    obj = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"pv-{name}"}, "spec": spec}
    await bench.client.create("persistentvolumes", obj)
    done = {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}
    patch = {"metadata": done, "spec": {"volumeName": f"pv-{name}"}}
    await bench.client.patch(PVCS, name, patch, "merge", "default")


async def in_one_transaction(bench: Bench, *names: str) -> bool:
    revisions = sorted([int(meta.resource_version(await bench.get(name))) for name in names])
    return revisions == list(range(revisions[0], revisions[0] + len(names)))


def nothing_is_under_way(bench: Bench) -> bool:
    state = bench.scheduler.state
    return not (
        state.assumed or state.reserved or state.selecting or state.devices.under_way or state.together
    )


# --- volumes ---


def test_of_a_gang_with_volumes_nothing_is_bound_before_the_last_volume_is_there() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await storage_class(bench, "WaitForFirstConsumer")
        await pod_group(bench, "train", 3)
        for name in ("a", "b"):
            await claim(bench, name)
            await bench.pod(f"w-{name}", **member("train"), **volume(name))
        await bench.pod("w-plain", **member("train"))
        await anyio.sleep(1)
        assert [await selected(bench, name) for name in ("a", "b")] == ["n", "n"]
        await provision(bench, "a")
        await anyio.sleep(5)
        assert await nodes_of(bench, "w-a", "w-b", "w-plain") == ["", "", ""]
        assert (await says(bench, "train"))[0] == ""
        await provision(bench, "b")
        await anyio.sleep(1)
        assert await nodes_of(bench, "w-a", "w-b", "w-plain") == ["n", "n", "n"]
        assert await in_one_transaction(bench, "w-a", "w-b", "w-plain")
        assert await says(bench, "train") == ("True", "Scheduled", "")
        assert nothing_is_under_way(bench)
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_a_gang_one_of_whose_volumes_does_not_come_gives_the_others_back() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await storage_class(bench, "WaitForFirstConsumer")
        await pod_group(bench, "train", 2)
        for name in ("a", "b"):
            await claim(bench, name)
            await bench.pod(f"w-{name}", **member("train"), **volume(name))
        await anyio.sleep(0.5)
        assert await selected(bench, "a") == "n"
        await bench.node("m")
        await bench.client.patch("nodes", "n", {"spec": {"unschedulable": True}}, "merge")
        await bench.client.patch(
            PVCS, "b", {"metadata": {"annotations": {SELECTED: None}}}, "merge", "default"
        )
        await anyio.sleep(0.1)
        assert nothing_is_under_way(bench) and await nodes_of(bench, "w-a", "w-b") == ["", ""]
        reset = 'binding rejected: running PreBind plugin "VolumeBinding": selectedNode annotation reset for PVC "b"'
        assert condition(await bench.get("w-b")) == ("False", "SchedulerError", reset)
        other = "binding rejected: failed to bind other pod from a pod group: default/w-b"
        assert condition(await bench.get("w-a")) == ("False", "SchedulerError", other)
        await anyio.sleep(5)
        assert [await selected(bench, name) for name in ("a", "b")] == ["m", "m"]
        for name in ("a", "b"):
            await provision(bench, name)
        await anyio.sleep(1)
        assert await nodes_of(bench, "w-a", "w-b") == ["m", "m"]
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_what_was_written_is_taken_back_even_if_the_cache_does_not_show_it_yet() -> None:
    async def check(bench: Bench) -> None:
        await storage_class(bench, "WaitForFirstConsumer")
        await claim(bench, "a")
        before = await bench.client.get(PVCS, "a", "default")
        patch = {"metadata": {"annotations": {SELECTED: "n"}}}
        written = (await bench.client.patch(PVCS, "a", patch, "merge", "default")).object or {}
        late = ClusterState()
        late.apply(PVCS, None, before)
        plans = [Provision(before, "")]
        await release_volumes(bench.client, late, plans, "n", 0, {})
        assert await selected(bench, "a") == "n", "nothing is known of it"
        await release_volumes(bench.client, late, plans, "m", 0, {"default/a": written})
        assert await selected(bench, "a") == "n", "that is another node"
        await release_volumes(bench.client, late, plans, "n", 0, {"default/a": written})
        assert await selected(bench, "a") == ""

    scheduled(check)


def test_a_volume_that_was_kept_for_a_gang_that_comes_to_nothing_is_free_again() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await storage_class(bench, "WaitForFirstConsumer", "kubernetes.io/no-provisioner")
        await pod_group(bench, "train", 2)
        spec: Json = {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "disk",
            "hostPath": {"path": "/x"},
        }  # fmt: skip
        for name in ("v1", "v2"):
            obj = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
            await bench.client.create("persistentvolumes", obj)
            free = {"status": {"phase": "Available"}}
            await bench.client.patch("persistentvolumes", name, free, "merge", subresource="status")
        for name in ("a", "b"):
            await claim(bench, name)
            await bench.pod(f"w-{name}", **member("train"), **volume(name))
        await anyio.sleep(0.5)
        taken = [
            (await bench.client.get("persistentvolumes", v))["spec"]["claimRef"]["name"] for v in ("v1", "v2")
        ]
        assert taken == ["a", "b"]
        await bench.client.delete("pods", "w-a", "default", grace_s=0)
        await bench.client.delete(PVCS, "a", "default")
        await bench.client.patch(PVCS, "a", {"metadata": {"finalizers": None}}, "merge", "default")
        await anyio.sleep(1)
        assert nothing_is_under_way(bench) and await nodes_of(bench, "w-b") == [""]
        left = await bench.client.get("persistentvolumes", "v2")
        assert "claimRef" not in left[
            "spec"
        ] and "pv.kubernetes.io/bound-by-controller" not in meta.annotations(left)

    scheduled(check, configuration=gangs())


def test_pods_that_share_a_claim_whose_volume_is_being_made_go_to_one_node() -> None:
    async def check(bench: Bench) -> None:
        for name in ("n", "m"):
            await bench.node(name)
        await storage_class(bench, "WaitForFirstConsumer")
        await claim(bench, "shared")
        for number in range(4):
            await bench.pod(f"w-{number}", **volume("shared"))
        await anyio.sleep(1)
        chosen = await selected(bench, "shared")
        await provision(bench, "shared")
        await anyio.sleep(1)
        names = [f"w-{number}" for number in range(4)]
        assert chosen and await nodes_of(bench, *names) == [chosen] * 4
        assert nothing_is_under_way(bench)
        await all_remade(bench)

    scheduled(check)


# --- devices ---


def test_the_pods_of_a_gang_share_a_claim() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "n", "m")
        await make(bench, "link", exactly())
        await pod_group(bench, "train", 3)
        names = [f"w-{number}" for number in range(3)]
        for name in names:
            await bench.pod(name, **member("train"), **devices("link"))
        await anyio.sleep(2)
        bound = [await bench.get(name) for name in names]
        claim = await claim_of(bench, "link")
        (result,) = claim["status"]["allocation"]["devices"]["results"]
        assert [obj["spec"].get("nodeName") for obj in bound] == [result["pool"]] * 3
        assert {c["uid"] for c in claim["status"]["reservedFor"]} == {meta.uid(obj) for obj in bound}
        assert await in_one_transaction(bench, *names) and nothing_is_under_way(bench)
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_a_gang_whose_claims_do_not_suffice_together_gets_none_of_them() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "n", devices=2)
        await pod_group(bench, "train", 3)
        for number in range(3):
            await make(bench, f"c{number}", exactly())
            await bench.pod(f"w-{number}", **member("train"), **devices(f"c{number}"))
        await anyio.sleep(2)
        assert await nodes_of(bench, "w-0", "w-1", "w-2") == ["", "", ""]
        for number in range(3):
            assert not (await claim_of(bench, f"c{number}")).get("status")
        assert nothing_is_under_way(bench)
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_a_gang_one_of_whose_claims_cannot_be_written_keeps_no_reservation() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "n", devices=2)
        await pod_group(bench, "train", 2)
        client = bench.scheduler.client
        send = client.update

        async def refused(resource: str, obj: Json, **options: Any) -> Any:
            if meta.name(obj) == "c1":
                raise ApiError("the door is shut")
            return await send(resource, obj, **options)

        client.update = refused  # type: ignore[method-assign]
        for number in range(2):
            await make(bench, f"c{number}", exactly())
            await bench.pod(f"w-{number}", **member("train"), **devices(f"c{number}"))
        await anyio.sleep(0.5)
        assert await nodes_of(bench, "w-0", "w-1") == ["", ""]
        assert not (await claim_of(bench, "c0"))["status"].get("reservedFor")
        assert nothing_is_under_way(bench)
        assert (await says(bench, "train"))[0] == ""
        client.update = send  # type: ignore[method-assign]
        await anyio.sleep(10)
        assert await nodes_of(bench, "w-0", "w-1") == ["n", "n"]
        assert await says(bench, "train") == ("True", "Scheduled", "")
        await all_remade(bench)

    scheduled(check, configuration=gangs())


def test_a_claim_that_is_gone_while_its_gang_is_prepared_ends_the_whole_attempt() -> None:
    async def check(bench: Bench) -> None:
        await world(bench, "n", devices=2)
        await pod_group(bench, "train", 2)
        client = bench.scheduler.client
        send = client.update

        async def late(resource: str, obj: Json, **options: Any) -> Any:
            if meta.name(obj) == "c1":
                client.update = send  # type: ignore[method-assign]
                await bench.client.delete(CLAIMS, "c1", "default")
            return await send(resource, obj, **options)

        client.update = late  # type: ignore[method-assign]
        for number in range(2):
            await make(bench, f"c{number}", exactly())
            await bench.pod(f"w-{number}", **member("train"), **devices(f"c{number}"))
        await anyio.sleep(5)
        assert await nodes_of(bench, "w-0", "w-1") == ["", ""] and nothing_is_under_way(bench)
        await make(bench, "c1", exactly())
        await anyio.sleep(15)
        assert await nodes_of(bench, "w-0", "w-1") == ["n", "n"]
        await all_remade(bench)

    scheduled(check, configuration=gangs())
