"""Which volume a waiting claim gets on which node, on a state without an API."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.scheduler import profiles
from kcp.scheduler.cluster_state import ATTACHMENTS, ClusterState
from kcp.scheduler.cycle import Decision, decide
from kcp.scheduler.explain import explain
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.plugins.volume_binding import plans_for
from tests.scheduler.harness import node, pod

Json = dict[str, Any]
VOLUMES, CLAIMS = "persistentvolumes", "persistentvolumeclaims"
CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
NONE_TO_BIND = "node(s) didn't find available persistent volumes to bind"
NO_ROOM = "node(s) did not have enough free storage"


class Cluster:
    def __init__(self, *nodes: str, provisioner: str = "kubernetes.io/no-provisioner") -> None:
        self.state = ClusterState()
        for name in nodes:
            self.state.apply("nodes", None, node(name))
        self.put(
            "storageclasses.storage.k8s.io", "local", provisioner=provisioner,
            volumeBindingMode="WaitForFirstConsumer",
        )  # fmt: skip
        self.framework = profiles.build(self.state, profiles.Profile())

    def put(self, resource: str, name: str, namespace: str = "", **fields: Any) -> None:
        metadata: Json = {"name": name, "uid": name, **fields.pop("metadata", {})}
        if namespace:
            metadata["namespace"] = namespace
        self.state.apply(resource, None, {"metadata": metadata, **fields})

    def volume(self, name: str, size: str, where: str = "", phase: str = "Available", **spec: Any) -> None:
        fields = spec.pop("metadata", {})
        if where:
            expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": where.split()}
            spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
        spec = {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "local",
            **spec,
        }
        self.put(VOLUMES, name, metadata=fields, spec=spec, status={"phase": phase})

    def claim(self, name: str, size: str = "1Gi", *, annotations: Json | None = None, **spec: Any) -> None:
        asked = {"accessModes": ["ReadWriteOnce"], "storageClassName": "local", **spec}
        asked["resources"] = {"requests": {"storage": size}}
        self.put(CLAIMS, name, "default", metadata={"annotations": annotations or {}}, spec=asked)

    def decided(self, *claims: str) -> tuple[Decision, list[tuple[str, str]]]:
        """(the decision about a pod with these claims, (claim, volume or "") of what is to be bound)."""
        used = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
        obj = pod("p", volumes=used)
        obj["metadata"]["uid"] = "p"
        self.state.apply("pods", None, obj)
        info = self.state.pods["p"]
        decision = decide(self.framework, info, cycle=1, seed=1)
        if not decision.node:
            return decision, []
        plans = plans_for(Cycle(self.state, info, self.framework), self.state.nodes[decision.node])
        return decision, [(plan.claim["metadata"]["name"], plan.volume) for plan in plans]


def test_the_smallest_volume_that_the_node_reaches_is_taken() -> None:
    cluster = Cluster("a", "b")
    cluster.volume("small-elsewhere", "1Gi", where="c")
    cluster.volume("large", "9Gi", where="a b")
    cluster.volume("medium", "2Gi", where="b")
    cluster.volume("tiny", "1Mi", where="b")
    cluster.claim("data")
    cluster.state.apply("nodes", node("a"), {**node("a"), "spec": {"unschedulable": True}})
    decision, plans = cluster.decided("data")
    assert (decision.node, plans) == ("b", [("data", "medium")])


def test_a_volume_that_is_kept_for_the_claim_comes_before_smaller_ones_and_alone() -> None:
    cluster = Cluster("a", "b")
    mine = {"namespace": "default", "name": "data"}
    cluster.volume("mine", "9Gi", where="b", claimRef=mine, phase="Pending")
    cluster.volume("small", "1Gi", where="a b")
    cluster.claim("data")
    decision, plans = cluster.decided("data")
    assert (decision.node, plans) == ("b", [("data", "mine")])


@pytest.mark.parametrize(
    "unfit",
    [
        {"phase": "Pending"},
        {"phase": "Released"},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"volumeAttributesClassName": "gold"},
        {"volumeMode": "Block"},
        {"accessModes": ["ReadOnlyMany"]},
        {"claimRef": {"namespace": "default", "name": "other"}},
        {"storageClassName": "remote"},
    ],
)
def test_a_volume_that_is_not_free_or_not_of_the_kind_serves_nobody(unfit: Json) -> None:
    cluster = Cluster("a")
    cluster.volume("pv", "9Gi", where="a", **unfit)
    cluster.claim("data")
    decision, _ = cluster.decided("data")
    assert decision.text.startswith(f"0/1 nodes are available: 1 {NONE_TO_BIND}.")


def test_two_claims_of_a_pod_do_not_get_one_volume() -> None:
    cluster = Cluster("a", "b")
    cluster.volume("a1", "5Gi", where="a")
    cluster.volume("b1", "5Gi", where="b")
    cluster.volume("everywhere", "7Gi")
    cluster.claim("more", "3Gi")
    cluster.claim("less", "1Gi")
    decision, plans = cluster.decided("more", "less")
    assert plans == [("less", f"{decision.node}1"), ("more", "everywhere")]


def test_a_claim_with_a_chosen_node_is_provisioned_there_and_matched_no_more() -> None:
    cluster = Cluster("a", "b", provisioner="disk.example.com")
    cluster.volume("pv", "9Gi", where="a")
    cluster.claim("data", annotations={"volume.kubernetes.io/selected-node": "b"})
    decision, plans = cluster.decided("data")
    assert (decision.node, plans) == ("b", [("data", "")])


def test_a_node_can_have_two_reasons_for_two_claims() -> None:
    cluster = Cluster("a", "b")
    cluster.volume("bound", "1Gi", where="b", claimRef={"namespace": "default", "name": "old", "uid": "old"})
    cluster.claim("old", volumeName="bound", annotations={"pv.kubernetes.io/bind-completed": "yes"})
    cluster.claim("new")
    decision, _ = cluster.decided("old", "new")
    assert decision.text.startswith(f"0/2 nodes are available: 1 {CONFLICT}, 2 {NONE_TO_BIND}.")


def test_what_is_still_attached_to_a_node_counts_until_it_is_not() -> None:
    cluster = Cluster("a")
    driver = {"name": "disk.example.com", "nodeID": "a", "allocatable": {"count": 1}}
    cluster.put("csinodes.storage.k8s.io", "a", spec={"drivers": [driver]})
    for name in ("old", "new"):
        csi = {"driver": "disk.example.com", "volumeHandle": name}
        cluster.volume(name, "1Gi", claimRef={"namespace": "default", "name": name, "uid": name}, csi=csi)
    cluster.claim("new", volumeName="new", annotations={"pv.kubernetes.io/bind-completed": "yes"})
    spec = {"attacher": "disk.example.com", "nodeName": "a", "source": {"persistentVolumeName": "old"}}
    attachment = {"metadata": {"name": "va", "uid": "va"}, "spec": spec}
    cluster.state.apply(ATTACHMENTS, None, attachment)
    decision, _ = cluster.decided("new")
    assert decision.text.startswith("0/1 nodes are available: 1 node(s) exceed max volume count.")
    (refusal,) = explain(cluster.framework, cluster.state.pods["p"]).nodes[0].refusals
    assert refusal.details["drivers"] == [{"driver": "disk.example.com", "attached": 1, "new": 1, "limit": 1}]
    cluster.state.apply(ATTACHMENTS, attachment, None)
    assert cluster.decided("new")[0].node == "a" and cluster.state.attachments == {}


def test_storage_is_provisioned_where_its_driver_has_room() -> None:
    cluster = Cluster("a", "b", "c", provisioner="disk.example.com")
    cluster.put("csidrivers.storage.k8s.io", "disk.example.com", spec={"storageCapacity": True})
    segments: dict[str, tuple[str, Json]] = {
        "in-a": ("1Gi", {"matchLabels": {"kubernetes.io/hostname": "a"}}),
        "in-b": ("9Gi", {"matchLabels": {"kubernetes.io/hostname": "b"}}),
    }
    for name, (size, topology) in segments.items():
        cluster.put(
            "csistoragecapacities.storage.k8s.io", name, "default", storageClassName="local", capacity=size,
            nodeTopology=topology,
        )  # fmt: skip
    cluster.claim("data", "5Gi")
    assert cluster.decided("data")[0].node == "b"
    cluster.claim("huge", "50Gi")
    assert f"3 {NO_ROOM}." in cluster.decided("huge")[0].text
