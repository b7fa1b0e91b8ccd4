"""Claims in a whole control plane: templates, scheduler, nodes and the claim controller together, on the examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kcp.client.client import Client
from kcp.controlplane.cluster import Cluster
from kcp.machinery import meta
from kcp.machinery.errors import NotFound
from tests.support.clusters import in_cluster, until

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[2] / "examples/devices"
CLAIMS = "resourceclaims.resource.k8s.io"
_RESOURCES = {
    "DeviceClass": "deviceclasses.resource.k8s.io",
    "ResourceSlice": "resourceslices.resource.k8s.io",
    "ResourceClaim": CLAIMS,
    "ResourceClaimTemplate": "resourceclaimtemplates.resource.k8s.io",
    "Pod": "pods",
}


async def apply(client: Client, *files: str) -> None:
    for file in files:
        for document in yaml.safe_load_all((EXAMPLES / f"{file}.yaml").read_text()):
            namespace = "" if document["kind"] in ("DeviceClass", "ResourceSlice") else "default"
            await client.create(_RESOURCES[document["kind"]], document, namespace)


async def pod(client: Client, name: str) -> Json:
    return await client.get("pods", name, "default")


async def running(client: Client, name: str) -> Json:
    async def look() -> Json | None:
        found = await pod(client, name)
        return found if (found.get("status") or {}).get("phase") == "Running" else None

    found: Json = await until(look)
    return found


def results(claim: Json) -> list[tuple[str, str, str]]:
    return [
        (r["request"], r["pool"], r["device"]) for r in claim["status"]["allocation"]["devices"]["results"]
    ]


async def gone(client: Client, resource: str, name: str) -> bool:
    try:
        await client.get(resource, name, "default")
    except NotFound:
        return True
    return False


def test_a_pod_gets_the_claim_of_its_template_and_the_claim_goes_with_it() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await apply(client, "gpus", "template")
        trainer = await running(client, "trainer")
        assert trainer["spec"]["nodeName"] == "node-2"
        (status,) = trainer["status"]["resourceClaimStatuses"]
        claim = await client.get(CLAIMS, status["resourceClaimName"], "default")
        assert status["name"] == "gpu" and meta.name(claim).startswith("trainer-gpu-")
        assert results(claim) == [("gpu", "node-2", "gpu-0")]
        (consumer,) = claim["status"]["reservedFor"]
        assert consumer == {"resource": "pods", "name": "trainer", "uid": meta.uid(trainer)}
        assert meta.finalizers(claim) == ["resource.kubernetes.io/delete-protection"]
        assert meta.annotations(claim)["resource.kubernetes.io/pod-claim-name"] == "gpu"
        await client.delete("pods", "trainer", "default")
        await until(lambda: gone(client, CLAIMS, meta.name(claim)))

    in_cluster(check, nodes=2)


def test_two_pods_share_a_claim_and_the_last_one_frees_it() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await apply(client, "gpus", "shared")
        left, right = await running(client, "left"), await running(client, "right")
        assert left["spec"]["nodeName"] == right["spec"]["nodeName"]
        claim = await client.get(CLAIMS, "pair", "default")
        assert [device for _, _, device in results(claim)] == ["gpu-0", "gpu-1"]
        assert sorted(c["name"] for c in claim["status"]["reservedFor"]) == ["left", "right"]
        await client.delete("pods", "left", "default")

        async def reserved() -> list[str]:
            found = await client.get(CLAIMS, "pair", "default")
            return [c["name"] for c in (found.get("status") or {}).get("reservedFor") or ()]

        await until(lambda: _equals(reserved, ["right"]))
        assert (await client.get(CLAIMS, "pair", "default"))["status"]["allocation"]
        await client.delete("pods", "right", "default")
        await until(lambda: _equals(reserved, []))
        free = await client.get(CLAIMS, "pair", "default")
        assert not (free.get("status") or {}).get("allocation")
        await until(lambda: _unprotected(client, "pair"))

    in_cluster(check, nodes=2)


async def _equals(ask: Any, expected: Any) -> bool:
    return bool(await ask() == expected)


async def _unprotected(client: Client, name: str) -> bool:
    return meta.finalizers(await client.get(CLAIMS, name, "default")) == []


def test_a_claim_that_nobody_can_serve_is_served_when_a_slice_comes() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await apply(client, "gpus", "huge")

        async def told() -> str:
            condition = meta.condition(await pod(client, "patient"), "PodScheduled") or {}
            return str(condition.get("message", ""))

        text = (
            "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, "
            "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        )
        await until(lambda: _equals(told, text))
        await apply(client, "more")
        await running(client, "patient")
        claim = await client.get(CLAIMS, "huge", "default")
        assert results(claim) == [("gpu/huge", "fabric", "gpu-huge")]
        assert "nodeSelector" not in claim["status"]["allocation"]

    in_cluster(check, nodes=2)


def test_a_pod_leaves_a_device_that_falls_ill() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await apply(client, "gpus", "template")
        await running(client, "trainer")
        resource = "resourceslices.resource.k8s.io"
        found = await client.get(resource, "node-2-gpu.example.com")
        taints = [{"key": "example.com/sick", "effect": "NoExecute"}]
        devices = [{**device, "taints": taints} for device in found["spec"]["devices"]]
        await client.update(resource, {**found, "spec": {**found["spec"], "devices": devices}})
        await until(lambda: gone(client, "pods", "trainer"))
        await until(lambda: _none_left(client))

    in_cluster(check, nodes=2)


async def _none_left(client: Client) -> bool:
    return not (await client.list(CLAIMS, "default")).items
