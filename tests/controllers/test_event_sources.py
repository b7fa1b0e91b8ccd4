"""Events name the component that Kubernetes' own controllers name; people filter by it."""

from __future__ import annotations

from typing import Any

from kcp.client.client import Client
from kcp.controllers import node_lifecycle
from kcp.controllers.table import CONTROLLERS
from kcp.controlplane.cluster import Cluster
from tests.support.clusters import in_cluster, until

Json = dict[str, Any]

OTHERWISE = {
    "disruption-controller": "controllermanager",
    "endpoints-controller": "endpoint-controller",
    "endpointslice-controller": "endpoint-slice-controller",
    "endpointslice-mirroring-controller": "endpoint-slice-mirroring-controller",
    "ephemeral-volume-controller": "ephemeral_volume",
    "node-ipam-controller": "cidrAllocator",
    "node-lifecycle-controller": "node-controller",
    "persistentvolume-binder-controller": "persistentvolume-controller",
    "replicationcontroller-controller": "replication-controller",
    "resourceclaim-controller": "resource_claim",
}
"""Source: k8s v1.36 pkg/controller/**, NewRecorder."""


def test_who_reports_an_event() -> None:
    assert {each.name: each.reporter for each in CONTROLLERS if each.reporter != each.name} == OTHERWISE


def test_the_events_of_a_cluster_bear_it() -> None:
    async def registered(client: Client) -> list[Json]:
        page = await client.list("events", "default", field_selector="reason=RegisteredNode")
        return list(page.items)

    async def run(cluster: Cluster, client: Client) -> None:
        (event, *_) = await until(lambda: registered(client))
        assert event["source"] == {"component": "node-controller"}
        assert event["reportingComponent"] == "node-controller"

    in_cluster(run, nodes=1, controllers=(node_lifecycle.CONTROLLER,), scheduler=False)
