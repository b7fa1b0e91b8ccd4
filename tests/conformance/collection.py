"""What conformance asks of the garbage collector."""

from __future__ import annotations

from typing import Any

from tests.conformance.deployments import complete
from tests.conformance.deployments import rooms as deployment_rooms
from tests.conformance.door import STRATEGIC, Door
from tests.conformance.objects import all_of, controller, is_running, owner_of, pod, reference, workload
from tests.conformance.replicas import of_controllers, ready
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-api-machinery] Garbage collector "
MANY = 10


async def with_controller(door: Door, name: str, replicas: int) -> tuple[str, str]:
    """Paths of the pods and of a ready ReplicationController."""
    pods, controllers = await of_controllers(door, name)
    await door.create(controllers, controller("gc", replicas))
    await door.eventually(f"{controllers}/gc", ready(replicas))
    return pods, f"{controllers}/gc"


@on_nodes(PREFIX + "should delete pods created by rc when not orphaning")
async def background(door: Door) -> None:
    pods, path = await with_controller(door, "gc-background", 2)
    await door.delete(path, {"propagationPolicy": "Background"})
    await door.gone(path, 1)
    await door.eventually(pods, lambda found: not found["items"])


@on_nodes(PREFIX + "should orphan pods created by rc if delete options say so [Serial]")
async def orphans(door: Door) -> None:
    pods, path = await with_controller(door, "gc-orphans", MANY)
    await door.delete(path, {"propagationPolicy": "Orphan"})
    await door.gone(path)
    await door.always(pods, all_of(MANY, lambda each: not each["metadata"].get("ownerReferences")), 30)


@on_nodes(
    PREFIX + "should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial]"
)
async def foreground(door: Door) -> None:
    pods, path = await with_controller(door, "gc-foreground", MANY)
    watch = await door.watch(pods, await door.revision(pods))
    answer = await door.ask("DELETE", path, {"propagationPolicy": "Foreground"})
    assert answer.value["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert answer.value["metadata"]["deletionTimestamp"]
    gone = 0
    while gone < MANY:
        gone += (await watch.next())["type"] == "DELETED"
        still = (await door.ask("GET", path)).status == 200
        assert still or (gone == MANY or not await door.items(pods)), "the owner went before its pods"
    await door.gone(path)


@on_nodes(PREFIX + "should delete RS created by deployment when not orphaning")
async def of_deployment(door: Door) -> None:
    pods, sets, deployments = await deployment_rooms(door, "gc-deployment")
    await door.create(deployments, workload("gc", 2))
    await door.eventually(f"{deployments}/gc", complete(2))
    await door.delete(f"{deployments}/gc", {"propagationPolicy": "Background"})
    await door.eventually(sets, lambda found: not found["items"])
    await door.eventually(pods, lambda found: not found["items"])


@on_nodes(PREFIX + "should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan")
async def orphaned_set(door: Door) -> None:
    pods, sets, deployments = await deployment_rooms(door, "gc-orphaned-set")
    await door.create(deployments, workload("gc", 2))
    await door.eventually(f"{deployments}/gc", complete(2))
    await door.delete(f"{deployments}/gc", {"propagationPolicy": "Orphan"})
    await door.gone(f"{deployments}/gc")
    await door.always(sets, all_of(1, lambda each: not each["metadata"].get("ownerReferences")), 30)
    (name,) = await door.names(sets)
    assert all(owner_of(each) == name and is_running(each) for each in await door.items(pods))


@on_nodes(
    PREFIX
    + "should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial]"
)
async def two_owners(door: Door) -> None:
    pods, path = await with_controller(door, "gc-two-owners", MANY)
    stays = await door.create(path.rpartition("/")[0], controller("stays", 0))
    half = (await door.names(pods))[: MANY // 2]
    patch = {"metadata": {"ownerReferences": [reference("v1", "ReplicationController", stays)]}}
    for name in half:
        await door.patch(f"{pods}/{name}", patch, STRATEGIC)
    await door.delete(path, {"propagationPolicy": "Foreground"})
    await door.gone(path)

    def kept(each: Json) -> bool:
        owners = [owner["name"] for owner in each["metadata"]["ownerReferences"]]
        return owners == ["stays"] and "deletionTimestamp" not in each["metadata"]

    await door.always(pods, all_of(len(half), kept), 30)
    assert sorted(await door.names(pods)) == sorted(half)


@on_nodes(PREFIX + "should not be blocked by dependency circle")
async def circle(door: Door) -> None:
    pods = await door.namespace("gc-circle") + "/pods"
    made = {name: await door.create(pods, pod(name)) for name in ("pod1", "pod2", "pod3")}
    for name, owner in (("pod1", "pod3"), ("pod2", "pod1"), ("pod3", "pod2")):
        owners = [reference("v1", "Pod", made[owner], controller=True, blockOwnerDeletion=True)]
        await door.patch(f"{pods}/{name}", {"metadata": {"ownerReferences": owners}}, STRATEGIC)
    await door.delete(f"{pods}/pod1", {"propagationPolicy": "Foreground"})
    await door.eventually(pods, lambda found: not found["items"])
