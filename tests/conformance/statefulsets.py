"""What conformance asks of StatefulSets."""

from __future__ import annotations

from typing import Any

import anyio
import attrs

from tests.conformance.door import STRATEGIC, Door
from tests.conformance.objects import APPS, IMAGE, OTHER_IMAGE, condition, is_running, pod, workload
from tests.conformance.replicas import scales, statuses
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] "
HASH = "controller-revision-hash"


async def rooms(door: Door, name: str) -> tuple[str, str]:
    """Paths of the pods and StatefulSets of a fresh namespace, which has a headless Service `test`."""
    core = await door.namespace(name)
    service = {"clusterIP": "None", "selector": {"app": "ss"}, "ports": [{"port": 80, "name": "http"}]}
    await door.create(f"{core}/services", {"metadata": {"name": "test"}, "spec": service})
    return f"{core}/pods", f"{APPS.format(name)}/statefulsets"


def stateful(name: str, replicas: int = 1, **more: Any) -> Json:
    return workload(name, replicas, serviceName="test", **more)


def settled(replicas: int) -> Any:
    def holds(found: Json) -> bool:
        status = found["status"]
        return bool(
            status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            and status.get("readyReplicas", 0) == status["replicas"] == replicas
        )

    return holds


async def revisions(door: Door, pods: str) -> dict[str, str]:
    return {each["metadata"]["name"]: each["metadata"]["labels"][HASH] for each in await door.items(pods)}


@on_nodes(PREFIX + "should have a working scale subresource")
async def scale(door: Door) -> None:
    _, sets = await rooms(door, "stateful-scale")
    await door.create(sets, stateful("ss"))
    await door.eventually(f"{sets}/ss", settled(1))
    await scales(door, f"{sets}/ss", 1)


@on_nodes(PREFIX + "should list, patch and delete a collection of StatefulSets")
async def of_many(door: Door) -> None:
    pods, sets = await rooms(door, "stateful-many")
    await door.create(sets, stateful("ss"))
    await door.eventually(f"{sets}/ss", settled(1))
    patch: Json = {
        "metadata": {"labels": {"test-ss": "patched"}},
        "spec": {
            "replicas": 2,
            "template": {"spec": {"containers": [{"name": "main", "image": OTHER_IMAGE}]}},
        },
    }
    await door.patch(f"{sets}/ss", patch, STRATEGIC)
    await door.eventually(f"{sets}/ss", settled(2))
    everywhere = "/apis/apps/v1/statefulsets?labelSelector=test-ss=patched"
    (found,) = await door.items(everywhere)
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == OTHER_IMAGE
    await door.delete(f"{sets}?labelSelector=test-ss=patched")
    assert await door.names(everywhere) == []
    await door.eventually(pods, lambda left: not left["items"])


@on_nodes(PREFIX + "should validate Statefulset Status endpoints")
async def status_endpoints(door: Door) -> None:
    _, sets = await rooms(door, "stateful-status")
    watch = await door.watch(sets, await door.revision(sets), "app=ss")
    await door.create(sets, stateful("ss"))
    await door.eventually(f"{sets}/ss", settled(1))
    await statuses(door, f"{sets}/ss", watch)


async def replaced(door: Door, path: str) -> None:
    """Delete a pod; another one of that name runs soon."""
    uid = (await door.get(path))["metadata"]["uid"]
    await door.delete(path)
    await door.eventually(path, lambda found: found["metadata"]["uid"] != uid and is_running(found))


@on_nodes(PREFIX + "should perform canary updates and phased rolling updates of template modifications")
async def canary(door: Door) -> None:
    pods, sets = await rooms(door, "stateful-canary")
    path = f"{sets}/ss"

    async def partition(ordinal: int) -> None:
        await door.patch(path, {"spec": {"updateStrategy": {"rollingUpdate": {"partition": ordinal}}}})

    async def shows(*images: str) -> None:
        def holds(found: Json) -> bool:
            by_name = {p["metadata"]["name"]: p for p in found["items"]}
            return sorted(by_name) == ["ss-0", "ss-1", "ss-2"] and all(
                by_name[f"ss-{i}"]["spec"]["containers"][0]["image"] == image
                and is_running(by_name[f"ss-{i}"])
                for i, image in enumerate(images)
            )

        await door.eventually(pods, holds)

    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 3}}
    await door.create(sets, stateful("ss", 3, updateStrategy=strategy))
    first = (await door.eventually(path, settled(3)))["status"]
    assert first["currentRevision"] == first["updateRevision"]
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": OTHER_IMAGE}]}}}}
    await door.patch(path, image, STRATEGIC)
    second = (
        await door.eventually(
            path, lambda found: found["status"]["updateRevision"] != first["updateRevision"]
        )
    )["status"]
    old, new = second["currentRevision"], second["updateRevision"]
    await door.always(
        pods, lambda found: all(p["metadata"]["labels"][HASH] == old for p in found["items"]), 30
    )
    await partition(2)
    await shows(IMAGE, IMAGE, OTHER_IMAGE)
    assert await revisions(door, pods) == {"ss-0": old, "ss-1": old, "ss-2": new}
    for name in ("ss-0", "ss-2"):
        await replaced(door, f"{pods}/{name}")
    assert await revisions(door, pods) == {"ss-0": old, "ss-1": old, "ss-2": new}
    await partition(1)
    await shows(IMAGE, OTHER_IMAGE, OTHER_IMAGE)
    assert (await door.get(path))["status"]["currentRevision"] == old
    await partition(0)
    await shows(OTHER_IMAGE, OTHER_IMAGE, OTHER_IMAGE)
    done = await door.eventually(path, lambda found: found["status"]["currentRevision"] == new)
    assert done["status"]["updateRevision"] == new and done["status"].get("updatedReplicas") in (3, None)


@on_nodes(PREFIX + "Should recreate evicted statefulset")
async def evicted(door: Door) -> None:
    pods, sets = await rooms(door, "stateful-evicted")
    node = (await door.names("/api/v1/nodes"))[0]
    ports = [{"name": "conflict", "containerPort": 21017, "hostPort": 21017}]
    blocking = pod("test-pod", nodeName=node)
    blocking["spec"]["containers"][0]["ports"] = ports
    await door.create(pods, blocking)
    await door.eventually(f"{pods}/test-pod", is_running)
    watch = await door.watch(pods, await door.revision(pods), "app=ss")
    body = stateful("ss", pod={"nodeName": node})
    body["spec"]["template"]["spec"]["containers"][0]["ports"] = ports
    await door.create(sets, body)
    first = await watch.until("ADDED", "ss-0")
    while (seen := await watch.until("MODIFIED", "ss-0"))["status"].get("phase") != "Failed":
        pass
    assert (seen["status"]["reason"], seen["metadata"]["uid"]) == ("NodePorts", first["metadata"]["uid"])
    await watch.until("DELETED", "ss-0")
    assert (await watch.until("ADDED", "ss-0"))["metadata"]["uid"] != first["metadata"]["uid"]
    await door.delete(f"{pods}/test-pod")
    await door.gone(f"{pods}/test-pod")
    again = await door.eventually(f"{pods}/ss-0", is_running)
    assert condition(again, "Ready")["status"] == "True"


GATE = "example.com/healthy"


@attrs.define
class Nurse:
    """Says of each pod of a path whether it is healthy, through a readiness gate; of all but the `sick` ones yes."""

    door: Door
    pods: str
    sick: set[str] = attrs.field(factory=set)

    async def run(self) -> None:
        while True:
            for each in await self.door.items(self.pods):
                name = each["metadata"]["name"]
                wanted = "False" if name in self.sick else "True"
                if condition(each, GATE).get("status") != wanted:
                    patch = {"status": {"conditions": [{"type": GATE, "status": wanted}]}}
                    await self.door.ask("PATCH", f"{self.pods}/{name}/status", patch, STRATEGIC)
            await anyio.sleep(0.5)


async def nursed(door: Door, name: str, replicas: int, **more: Any) -> tuple[str, str, Nurse]:
    """Paths of the pods and of a StatefulSet whose pods are ready when the nurse says so."""
    pods, sets = await rooms(door, name)
    nurse = Nurse(door, pods)
    door.group.start_soon(nurse.run)
    await door.create(
        sets, stateful("ss", replicas, pod={"readinessGates": [{"conditionType": GATE}]}, **more)
    )
    await door.eventually(f"{sets}/ss", settled(replicas))
    return pods, f"{sets}/ss", nurse


async def fell_ill(door: Door, nurse: Nurse, *names: str) -> None:
    nurse.sick = set(names)
    for name in names:
        await door.eventually(
            f"{nurse.pods}/{name}", lambda found: condition(found, "Ready").get("status") == "False"
        )


def named(*names: str) -> Any:
    return lambda found: sorted(each["metadata"]["name"] for each in found["items"]) == list(names)


@on_nodes(
    PREFIX + "Scaling should happen in predictable order and halt if any stateful pod is unhealthy [Slow]"
)
async def ordered(door: Door) -> None:
    pods, path, nurse = await nursed(door, "stateful-ordered", 1)
    watch = await door.watch(pods, await door.revision(pods))
    await fell_ill(door, nurse, "ss-0")
    await door.patch(path, {"spec": {"replicas": 3}})
    await door.always(pods, named("ss-0"), 30)
    nurse.sick = set()
    await door.eventually(path, settled(3))
    assert [each["object"]["metadata"]["name"] for each in watch.take() if each["type"] == "ADDED"] == [
        "ss-1",
        "ss-2",
    ]
    await fell_ill(door, nurse, "ss-0", "ss-1", "ss-2")
    await door.patch(path, {"spec": {"replicas": 0}})
    await door.always(pods, named("ss-0", "ss-1", "ss-2"), 30)
    nurse.sick = set()
    await door.eventually(path, settled(0))
    await door.eventually(pods, named())
    gone = [each["object"]["metadata"]["name"] for each in watch.take() if each["type"] == "DELETED"]
    assert gone == ["ss-2", "ss-1", "ss-0"]


@on_nodes(PREFIX + "Burst scaling should run to completion even with unhealthy pods [Slow]")
async def burst(door: Door) -> None:
    pods, path, nurse = await nursed(door, "stateful-burst", 1, podManagementPolicy="Parallel")
    await fell_ill(door, nurse, "ss-0")
    await door.patch(path, {"spec": {"replicas": 3}})
    await door.eventually(pods, named("ss-0", "ss-1", "ss-2"))
    nurse.sick = set()
    await door.eventually(path, settled(3))
    await fell_ill(door, nurse, "ss-0")
    await door.patch(path, {"spec": {"replicas": 0}})
    await door.eventually(pods, named())
    await door.eventually(path, settled(0))


@on_nodes(PREFIX + "should perform rolling updates and roll backs of template modifications")
async def updates(door: Door) -> None:
    pods, path, nurse = await nursed(door, "stateful-updates", 3)

    async def to(image: str, sick: str) -> Json:
        """Change the image while one pod is ill; it is replaced like the others, in descending order."""
        before = (await door.get(path))["status"]
        await fell_ill(door, nurse, sick)
        watch = await door.watch(pods, await door.revision(pods))
        template = {"spec": {"containers": [{"name": "main", "image": image}]}}
        await door.patch(path, {"spec": {"template": template}}, STRATEGIC)
        changed = await door.eventually(
            path, lambda found: found["status"]["updateRevision"] != before["currentRevision"]
        )
        assert changed["status"]["currentRevision"] == before["currentRevision"]
        await anyio.sleep(30)
        nurse.sick = set()
        done = await door.eventually(
            path,
            lambda found: (
                settled(3)(found)
                and found["status"]["currentRevision"] == changed["status"]["updateRevision"]
            ),
        )
        made = [each["object"]["metadata"]["name"] for each in watch.take() if each["type"] == "ADDED"]
        assert made == ["ss-2", "ss-1", "ss-0"]
        revision = done["status"]["currentRevision"]
        assert await revisions(door, pods) == {f"ss-{ordinal}": revision for ordinal in range(3)}
        status: Json = done["status"]
        return status

    first = (await door.get(path))["status"]["currentRevision"]
    second = (await to(OTHER_IMAGE, "ss-1"))["currentRevision"]
    assert second != first
    assert (await to(IMAGE, "ss-1"))["currentRevision"] == first, "going back makes no new revision"
