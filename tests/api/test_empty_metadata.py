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


def test_empty_lists_and_maps_of_a_spec_vanish_but_structs_and_what_go_always_writes_stay() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        container = {"name": "c", "image": "i", "args": [], "env": [], "resources": {"limits": {}}}
        spec = {
            "nodeSelector": {},
            "tolerations": [],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "affinity": {"nodeAffinity": {}},
            "automountServiceAccountToken": False,
            "containers": [container],
        }
        template = {"metadata": {"labels": {"a": "b"}, "annotations": {}}, "spec": spec}
        body = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "t"},
            "template": template,
        }
        made = (await client.create("podtemplates", body, "default")).object["template"]
        assert "annotations" not in made["metadata"]
        assert "nodeSelector" not in made["spec"] and "tolerations" not in made["spec"]
        assert made["spec"]["volumes"][0]["emptyDir"] == {}
        assert made["spec"]["affinity"] == {"nodeAffinity": {}}
        (first,) = made["spec"]["containers"]
        assert "args" not in first and "env" not in first and first["resources"] == {}
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "r"},
            "rules": [],
        }
        made = (await client.create("roles.rbac.authorization.k8s.io", role, "default")).object
        assert made["rules"] == []

    in_cluster(check, controllers=(), scheduler=False)


def test_a_new_object_has_the_status_that_go_writes_for_nothing() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        del cluster
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "b"},
            "spec": {"minAvailable": 1, "selector": {}},
            "status": {"expectedPods": 7},
        }
        made = (await client.create("poddisruptionbudgets.policy", budget, "default")).object
        assert made["status"] == dict.fromkeys(
            ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"), 0
        )
        cidr = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "more"},
            "spec": {"cidrs": ["10.200.0.0/24"]},
        }
        assert (await client.create("servicecidrs.networking.k8s.io", cidr)).object["status"] == {}

    in_cluster(check, controllers=(), scheduler=False)
