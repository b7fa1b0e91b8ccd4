"""What conformance asks of the deletion of namespaces."""

from __future__ import annotations

from tests.conformance.door import Door
from tests.conformance.objects import condition, is_running, pod
from tests.conformance.scoreboard import on_nodes

PREFIX = "[sig-api-machinery] "
FINALIZER = "example.com/stays"


async def ended(door: Door, name: str) -> str:
    """Delete the namespace, wait for its end and make it anew; the path of what is in it."""
    path = f"/api/v1/namespaces/{name}"
    await door.delete(path)
    found = await door.ask("GET", path)
    assert found.status == 404 or found.value["status"]["phase"] == "Terminating"
    await door.gone(path)
    return await door.namespace(name)


@on_nodes(PREFIX + "Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted")
async def pods_are_removed(door: Door) -> None:
    core = await door.namespace("nsdelete-pods")
    await door.create(f"{core}/pods", pod("test-pod"))
    await door.eventually(f"{core}/pods/test-pod", is_running)
    again = await ended(door, "nsdelete-pods")
    await door.refused(404, "GET", f"{again}/pods/test-pod")


@on_nodes(
    PREFIX + "Namespaces [Serial] should ensure that all services are removed when a namespace is deleted"
)
async def services_are_removed(door: Door) -> None:
    core = await door.namespace("nsdelete-services")
    spec = {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": 80}]}
    await door.create(f"{core}/services", {"metadata": {"name": "test-service"}, "spec": spec})
    again = await ended(door, "nsdelete-services")
    await door.refused(404, "GET", f"{again}/services/test-service")


@on_nodes(PREFIX + "OrderedNamespaceDeletion namespace deletion should delete pod first")
async def pods_go_first(door: Door) -> None:
    core = await door.namespace("nsdelete-ordered")
    held = pod("held")
    held["metadata"]["finalizers"] = [FINALIZER]
    await door.create(f"{core}/pods", held)
    await door.eventually(f"{core}/pods/held", is_running)
    await door.create(f"{core}/configmaps", {"metadata": {"name": "later"}, "data": {"a": "1"}})
    await door.delete(core)
    await door.eventually(f"{core}/pods/held", lambda found: found["metadata"].get("deletionTimestamp"))
    await door.always(f"{core}/configmaps/later", lambda found: found["data"] == {"a": "1"}, 30)
    waiting = await door.get(core)
    assert waiting["status"]["phase"] == "Terminating"
    remaining = condition(waiting, "NamespaceFinalizersRemaining")
    assert (remaining["status"], remaining["reason"]) == ("True", "SomeFinalizersRemain")
    assert f"{FINALIZER} in 1 resource instances" in remaining["message"]
    await door.patch(f"{core}/pods/held", {"metadata": {"finalizers": None}})
    await door.gone(f"{core}/pods/held")
    await door.gone(core)
    await door.refused(404, "GET", f"{core}/configmaps/later")
