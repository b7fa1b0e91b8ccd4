"""A whole control plane with a fleet of simulated nodes, in virtual time. Tests bind the pods themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs

from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import run_deterministic
from kcp.client.client import Client
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions, node_identity
from kcp.node.fleet import Fleet, NodeSpec, recorders
from kcp.store.open import open_store
from tests.support.builders import container, metadata

Json = dict[str, Any]


@attrs.define
class Nodes:
    """What a test works with: an administrator's client, the fleet, the clock."""

    client: Client
    fleet: Fleet
    cluster: Cluster
    clock: LoopClock

    async def run(self, pod: Json, node: str = "node-1", settle_s: float = 1.0) -> Json:
        """Create a pod bound to a node, let it settle and read it again."""
        pod = {**pod, "spec": {**pod["spec"], "nodeName": node}}
        await self.client.create("pods", pod, "default")
        await anyio.sleep(settle_s)
        return await self.pod(pod["metadata"]["name"])

    async def pod(self, name: str) -> Json:
        return await self.client.get("pods", name, "default")

    async def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in (await self.client.list("pods", "default")).items]

    async def events(self, name: str) -> list[tuple[str, str, str]]:
        """(type, reason, message) of the Events about an object, oldest first."""
        await anyio.sleep(0.5)
        found = (await self.client.list("events")).items
        about = [each for each in found if each["involvedObject"]["name"] == name]
        about.sort(key=lambda each: int(each["metadata"]["resourceVersion"]))
        return [(each["type"], each["reason"], each["message"]) for each in about]


def fleet_of(cluster: Cluster, clock: LoopClock, seed: int) -> Fleet:
    entropy = SeededEntropy(seed).stream("nodes")

    def client_for(name: str) -> Client:
        return cluster.client(node_identity(name), "kubelet")

    return Fleet(
        client_for=client_for,
        pods=cluster.informers.informer("pods"),
        nodes=cluster.informers.informer("nodes"),
        recorder_for=recorders(client_for, clock, entropy),
        clock=clock,
        entropy=entropy,
    )


def with_nodes(
    test: Callable[[Nodes], Awaitable[None]], *specs: NodeSpec, seed: int = 1, controllers: bool = False
) -> None:
    """Run `test` against nodes of its own (`node-1` by default)."""

    async def main() -> None:
        clock, entropy = LoopClock(), SeededEntropy(seed)
        store = open_store("memory:", clock=clock, inline=True, entropy=entropy.stream("store"))
        options = ClusterOptions(scheduler=False)
        if not controllers:
            options = attrs.evolve(options, controllers=())
        cluster = Cluster.build(store, clock, entropy, options)
        fleet = fleet_of(cluster, clock, seed)
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            group.start_soon(fleet.run)
            if not controllers:
                group.start_soon(cluster.informers.run)
            client = cluster.client(ADMIN)
            if not controllers:
                account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("default")}
                await client.create("serviceaccounts", account, "default")
            await fleet.add_nodes(specs or (NodeSpec("node-1"),))
            await anyio.sleep(1)
            await test(Nodes(client, fleet, cluster, clock))
            group.cancel_scope.cancel()

    run_deterministic(main, seed)


def simple_pod(name: str = "web", *, annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    """A pod of one container `main`, unless `containers` says otherwise."""
    meta = metadata(name)
    if annotations:
        meta["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [container()], **spec},
    }


def main(command: str = "", name: str = "main", **more: Any) -> Json:
    """A container that runs a shell script."""
    built: Json = {"name": name, "image": "registry.example/app:1", **more}
    if command:
        built["command"] = ["sh", "-c", command]
    return built


def condition(obj: Json, type_: str) -> Json:
    return next(entry for entry in obj["status"]["conditions"] if entry["type"] == type_)


def state(pod: Json, name: str = "main") -> Json:
    """The state of a container, by name."""
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for entry in pod["status"].get(field) or ():
            if entry["name"] == name:
                return entry  # type: ignore[no-any-return]
    raise AssertionError(f"no status of container {name}")
