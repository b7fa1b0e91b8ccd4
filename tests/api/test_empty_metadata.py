"""Empty maps and lists of metadata vanish, as Go's omitempty has it."""

from __future__ import annotations

from kcp.client.client import Client
from kcp.controlplane.cluster import Cluster
from tests.controlplane.test_cluster import in_cluster


def test_the_last_label_leaves_nothing_behind() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        metadata = {"name": "a", "labels": {"x": "1"}, "annotations": {}, "finalizers": []}
        made = await client.create(
            "configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, "default"
        )
        assert "annotations" not in made.object["metadata"] and "finalizers" not in made.object["metadata"]
        patched = await client.patch(
            "configmaps", "a", {"metadata": {"labels": {"x": None}}}, "merge", "default"
        )
        assert "labels" not in patched.object["metadata"]

    in_cluster(check, controllers=(), scheduler=False)
