"""A pod with claims starts when its devices are allocated and reserved for it, and not before."""

from __future__ import annotations

import anyio

from kcp.machinery import meta
from kcp.node.devices import REASON
from tests.node.support import Json, Nodes, simple_pod, with_nodes
from tests.scheduler.dra.objects import claim, exactly

CLAIMS = "resourceclaims.resource.k8s.io"


def with_claim(name: str) -> Json:
    pod = simple_pod()
    pod["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": name}]
    return pod


def test_a_pod_waits_on_its_node_for_its_claim() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(with_claim("c"))
        assert pod["status"]["phase"] == "Pending"
        missing = 'resourceclaims.resource.k8s.io "c" not found'
        before = "Failed to prepare dynamic resources: prepare dynamic resources: "
        text = f"{before}failed to fetch ResourceClaim c referenced by pod web: {missing}"
        assert ("Warning", REASON, text) in await nodes.events("web")
        wanted = claim("c", exactly())
        del wanted["metadata"]["uid"]
        made = (await nodes.client.create(CLAIMS, wanted, "default")).object or {}
        await anyio.sleep(15)
        who = f"pod web ({meta.uid(pod)})"
        text = f"{before}{who} is not allowed to use ResourceClaim c ({meta.uid(made)})"
        assert ("Warning", REASON, text) in await nodes.events("web")
        result = {"request": "r0", "driver": "gpu.example.com", "pool": "node-1", "device": "gpu-0"}
        status = {
            "allocation": {"devices": {"results": [result]}},
            "reservedFor": [{"resource": "pods", "name": "web", "uid": meta.uid(pod)}],
        }
        await nodes.client.update_status(CLAIMS, {**made, "status": status})
        await anyio.sleep(15)
        assert (await nodes.pod("web"))["status"]["phase"] == "Running"

    with_nodes(check)


def test_simulated_nodes_declare_what_they_can_do() -> None:
    async def check(nodes: Nodes) -> None:
        (node,) = (await nodes.client.list("nodes")).items
        declared = ["GuaranteedQoSPodCPUResize", "RestartAllContainersOnContainerExits"]
        assert node["status"]["declaredFeatures"] == declared

    with_nodes(check)
