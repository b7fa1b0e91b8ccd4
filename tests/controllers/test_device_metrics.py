"""What the controllers of devices count, in a cluster of their own."""

from __future__ import annotations

from typing import Any

import anyio

from kcp.api.filters.telemetry import metrics_of
from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.base.loop import run_deterministic
from kcp.controllers import device_taint_eviction, garbage_collector, resource_claim
from kcp.controllers.device_metrics import CLAIMS
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.store.open import open_store
from tests.scheduler.dra.objects import claim, device, device_class, exactly, slice_of
from tests.scheduler.harness import node, pod

Json = dict[str, Any]


async def _story(cluster: Cluster) -> None:
    client = cluster.client(ADMIN)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await client.create("serviceaccounts", account, "default")
    await client.create("deviceclasses.resource.k8s.io", device_class())
    await client.create("nodes", node("n"))
    await client.patch("nodes", "n", {"spec": {"taints": None}}, "merge")
    gpus = slice_of("n", [device("d0"), device("d1")])
    slices = "resourceslices.resource.k8s.io"
    made = (await client.create(slices, gpus)).object or {}
    own = claim("own", exactly())
    template = {
        **own,
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "t"},
        "spec": {"spec": own["spec"]},
    }
    await client.create("resourceclaimtemplates.resource.k8s.io", template, "default")
    del own["metadata"]["uid"]
    await client.create(CLAIMS, own, "default")
    entries = [{"name": "c", "resourceClaimTemplateName": "t"}]
    await client.create("pods", pod("web", resourceClaims=entries), "default")
    await anyio.sleep(2)
    broken = {"taints": [{"key": "broken", "effect": "NoExecute"}]}
    spec = {**made["spec"], "devices": [{**each, **broken} for each in made["spec"]["devices"]]}
    metrics = metrics_of(cluster.server)
    text = metrics.exposition().decode()
    for line in (
        'resourceclaim_controller_creates_total{admin_access="false",status="success"} 1.0',
        'resourceclaim_controller_resource_claims{admin_access="false",allocated="false",source=""} 1.0',
        'resourceclaim_controller_resource_claims{admin_access="false",allocated="true",source="resource_claim_template"} 1.0',
        "device_taint_eviction_controller_pod_deletions_total 0.0",
    ):
        assert line in text.splitlines()
    assert 'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1.0' in text
    await client.update(slices, {**made, "spec": spec})
    await anyio.sleep(2)
    text = metrics.exposition().decode()
    assert "device_taint_eviction_controller_pod_deletions_total 1.0" in text.splitlines()


def test_claims_that_are_made_and_pods_that_devices_send_away_are_counted() -> None:
    async def main() -> None:
        clock, entropy = LoopClock(), SeededEntropy(1)
        store = open_store("memory:", clock=clock, inline=True, entropy=entropy.stream("store"))
        controllers = (
            resource_claim.CONTROLLER, garbage_collector.CONTROLLER, device_taint_eviction.CONTROLLER,
        )  # fmt: skip
        cluster = Cluster.build(store, clock, entropy, ClusterOptions(controllers=controllers))
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            await _story(cluster)
            group.cancel_scope.cancel()

    run_deterministic(main, 1)
