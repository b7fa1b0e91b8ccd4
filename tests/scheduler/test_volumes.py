"""Claims and the scheduler, through the API."""

from __future__ import annotations

from typing import Any

import anyio

from tests.scheduler.harness import Bench, condition, scheduled

Json = dict[str, Any]
CLAIM_VOLUME: Json = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}


async def claim(bench: Bench, **spec: Any) -> None:
    await bench.client.create(
        "persistentvolumeclaims",
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
                **spec,
            },
        },
        "default",
    )


async def storage_class(bench: Bench, mode: str, provisioner: str = "disk.example.com") -> None:
    await bench.client.create(
        "storageclasses.storage.k8s.io",
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "disk"},
            "provisioner": provisioner,
            "volumeBindingMode": mode,
        },
    )


def test_a_missing_claim_is_named() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await bench.pod("web", **CLAIM_VOLUME)
        await anyio.sleep(1)
        text = '0/1 nodes are available: persistentvolumeclaim "data" not found. not found'
        assert condition(await bench.get("web"))[2] == text

    scheduled(check)


def test_an_immediate_claim_must_be_bound_first() -> None:
    async def check(bench: Bench) -> None:
        await bench.node("n")
        await storage_class(bench, "Immediate")
        await claim(bench, storageClassName="disk")
        await bench.pod("web", **CLAIM_VOLUME)
        await anyio.sleep(1)
        text = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
        assert condition(await bench.get("web"))[2] == text

    scheduled(check)


async def _bound(bench: Bench, node: str) -> None:
    """What a provisioner and the volume controller do once a node is chosen."""
    await bench.client.create(
        "persistentvolumes",
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "pv"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "disk",
                "csi": {"driver": "disk.example.com", "volumeHandle": "pv"},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
                                ]
                            }
                        ]
                    }
                },
            },
        },
    )
    done = {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}
    patch = {"metadata": done, "spec": {"volumeName": "pv"}}
    await bench.client.patch("persistentvolumeclaims", "data", patch, "merge", "default")


def test_a_claim_that_waits_for_its_consumer_learns_the_node_and_the_pod_follows() -> None:
    async def check(bench: Bench) -> None:
        for name in ("a", "b"):
            await bench.node(name)
        await storage_class(bench, "WaitForFirstConsumer")
        await claim(bench, storageClassName="disk")
        await bench.pod("web", **CLAIM_VOLUME)
        await anyio.sleep(1)
        waiting = await bench.client.get("persistentvolumeclaims", "data", "default")
        chosen = waiting["metadata"]["annotations"]["volume.kubernetes.io/selected-node"]
        assert chosen in ("a", "b") and await bench.node_of("web") == ""
        await _bound(bench, chosen)
        await anyio.sleep(1)
        assert await bench.node_of("web") == chosen

    scheduled(check)


def test_a_bound_volume_keeps_its_pod_on_the_nodes_it_reaches() -> None:
    async def check(bench: Bench) -> None:
        for name in ("a", "b", "c"):
            await bench.node(name)
        await storage_class(bench, "Immediate")
        await claim(bench, storageClassName="disk")
        await _bound(bench, "b")
        await bench.pod("web", **CLAIM_VOLUME)
        await anyio.sleep(1)
        assert await bench.node_of("web") == "b"

    scheduled(check)
