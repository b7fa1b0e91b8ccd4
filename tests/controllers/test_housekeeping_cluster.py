"""The housekeeping controllers at work in a whole control plane: through the API, each under its own identity."""

from __future__ import annotations

import base64
from contextlib import suppress
from datetime import timedelta
from typing import Any

import anyio
import pytest

from kcp.base.certs import create_request, generate_key, identity_of, load_certificate
from kcp.base.entropy import SeededEntropy
from kcp.client.client import Client
from kcp.controllers.certificates.requests import API_CLIENT, KUBELET_CLIENT, REQUESTS
from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT
from kcp.controlplane.cluster import Cluster, node_identity
from kcp.machinery import meta
from kcp.machinery.errors import ApiError, NotFound, TooManyRequests
from kcp.machinery.times import format_time
from tests.support.builders import deployment, metadata, node, pod
from tests.support.clusters import in_cluster, names, until

Json = dict[str, Any]


async def gone(client: Client, resource: str, name: str, namespace: str = "") -> bool:
    try:
        await client.get(resource, name, namespace)
    except NotFound:
        return True
    return False


def claim(name: str, storage: str = "1Gi", **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(name),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage}},
            **spec,
        },
    }


def volume(name: str, storage: str = "1Gi", **spec: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": storage},
            "hostPath": {"path": f"/data/{name}"},
            "persistentVolumeReclaimPolicy": "Retain",
            **spec,
        },
    }


def test_a_budget_blocks_evictions_until_there_are_enough_pods() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata("web"),
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
        }
        await client.create("poddisruptionbudgets.policy", budget, "default")
        await client.create("deployments.apps", deployment("web", replicas=2), "default")

        async def status() -> Json:
            found = await client.get("poddisruptionbudgets.policy", "web", "default")
            answer: Json = found.get("status", {})
            return answer

        await until(lambda: _when(status, currentHealthy=2, disruptionsAllowed=0))
        (victim, *_) = await names(client, "pods", "default")
        with pytest.raises(TooManyRequests, match="disruption budget"):
            await evict(client, victim)
        await client.patch("deployments.apps", "web", {"spec": {"replicas": 3}}, "merge", "default")
        await until(lambda: _when(status, currentHealthy=3, disruptionsAllowed=1, expectedPods=3))
        await evict(client, victim)
        await until(lambda: _when(status, currentHealthy=3, disruptionsAllowed=1))
        assert "disruptedPods" not in await status()

    in_cluster(check, nodes=2)


async def _when(status: Any, **wanted: Any) -> bool:
    found = await status()
    return all(found.get(field) == value for field, value in wanted.items())


async def evict(client: Client, name: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    await client.request("POST", f"/api/v1/namespaces/default/pods/{name}/eviction", body=body)


def test_a_quota_is_counted_for_what_is_there_and_follows_its_limits() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("pods", pod("one", cpu="100m"), "default")
        await anyio.sleep(1)
        quota: Json = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": metadata("team"),
            "spec": {"hard": {"pods": "2", "requests.cpu": "1", "count/deployments.apps": "3"}},
        }
        await client.create("resourcequotas", quota, "default")

        async def status() -> Json:
            answer: Json = (await client.get("resourcequotas", "team", "default")).get("status", {})
            return answer

        used = {"pods": "1", "requests.cpu": "100m", "count/deployments.apps": "0"}
        await until(lambda: _when(status, used=used, hard=quota["spec"]["hard"]))
        hard = {"pods": "5", "configmaps": "10"}
        patch = {"spec": {"hard": {"pods": "5", "configmaps": "10", "requests.cpu": None}}}
        patch["spec"]["hard"]["count/deployments.apps"] = None
        await client.patch("resourcequotas", "team", patch, "merge", "default")
        await until(lambda: _when(status, used={"pods": "1", "configmaps": "1"}, hard=hard))

    in_cluster(check, scheduler=False)


def test_a_status_that_somebody_else_wrote_is_put_right_with_the_next_full_count() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        hard = {"cpu": "1", "memory": "1Gi"}
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": metadata("q"),
            "spec": {"hard": hard},
        }
        await client.create("resourcequotas", quota, "default")
        await anyio.sleep(1)
        patch = {"status": {"hard": {"cpu": "2", "memory": "2Gi"}}}
        await client.patch("resourcequotas", "q", patch, "strategic", "default", subresource="status")
        await anyio.sleep(10)
        found = await client.get("resourcequotas", "q", "default")
        assert (found["spec"]["hard"], found["status"]["hard"]) == (hard, {"cpu": "2", "memory": "2Gi"})
        await anyio.sleep(300)
        found = await client.get("resourcequotas", "q", "default")
        assert found["status"] == {"hard": hard, "used": {"cpu": "0", "memory": "0"}}

    in_cluster(check, scheduler=False)


def test_a_claim_is_bound_to_the_smallest_volume_and_both_are_protected() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("persistentvolumes", volume("large", "5Gi"))
        await client.create("persistentvolumes", volume("small", "1Gi"))
        await anyio.sleep(1)
        await client.create("persistentvolumeclaims", claim("data"), "default")
        bound = await until(lambda: _claim(client, "data", "Bound"))
        assert bound["spec"]["volumeName"] == "small"
        assert bound["status"]["capacity"] == {"storage": "1Gi"}
        user = pod("user", spec={"volumes": [_uses("data")], "nodeName": "n1"})
        await client.create("pods", user, "default")
        await client.delete("persistentvolumeclaims", "data", "default")
        await client.delete("persistentvolumes", "small")
        await anyio.sleep(5)
        assert meta.is_deleting(await client.get("persistentvolumeclaims", "data", "default"))
        await client.delete("pods", "user", "default", grace_s=0)
        await until(lambda: gone(client, "persistentvolumeclaims", "data", "default"))
        await until(lambda: gone(client, "persistentvolumes", "small"))
        large = await client.get("persistentvolumes", "large")
        assert large["status"]["phase"] == "Available"

    in_cluster(check, scheduler=False)


async def _claim(client: Client, name: str, phase: str) -> Json | None:
    found = await client.get("persistentvolumeclaims", name, "default")
    return found if found.get("status", {}).get("phase") == phase else None


def _uses(name: str) -> Json:
    return {"name": "data", "persistentVolumeClaim": {"claimName": name}}


def test_a_local_path_class_makes_a_volume_where_the_pod_goes_and_takes_it_back() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        storage_class = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "local-path"},
            "provisioner": "kcp.io/local-path",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        await client.create("storageclasses.storage.k8s.io", storage_class)
        await client.create("persistentvolumeclaims", claim("data", storageClassName="local-path"), "default")
        await anyio.sleep(2)
        assert (await client.get("persistentvolumeclaims", "data", "default"))["status"]["phase"] == "Pending"
        patch = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "node-2"}}}
        await client.patch("persistentvolumeclaims", "data", patch, "merge", "default")
        bound = await until(lambda: _claim(client, "data", "Bound"))
        made = await client.get("persistentvolumes", bound["spec"]["volumeName"])
        await client.create("pods", pod("user", node="node-2", spec={"volumes": [_uses("data")]}), "default")
        await until(lambda: _running(client, "user"))
        (term,) = made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        assert term["matchExpressions"][0]["values"] == ["node-2"]
        assert sorted(made["metadata"]["finalizers"]) == [
            "kubernetes.io/pv-controller",
            "kubernetes.io/pv-protection",
        ]
        await client.delete("pods", "user", "default")
        await client.delete("persistentvolumeclaims", "data", "default")
        await until(lambda: gone(client, "persistentvolumes", meta.name(made)))

    in_cluster(check, nodes=2, scheduler=False)


async def _running(client: Client, name: str) -> Json | None:
    found = await client.get("pods", name, "default")
    return found if found.get("status", {}).get("phase") == "Running" else None


def test_an_ephemeral_volume_has_a_claim_that_goes_with_its_pod() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        template = {"metadata": {"labels": {"of": "scratch"}}, "spec": claim("x")["spec"]}
        scratch = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}
        await client.create("persistentvolumes", volume("v1"))
        await client.create("pods", pod("web", spec={"volumes": [scratch]}), "default")
        bound = await until(lambda: _found_bound(client, "web-scratch"))
        assert meta.labels(bound) == {"of": "scratch"}
        assert meta.owner_references(bound)[0]["name"] == "web"
        await client.delete("pods", "web", "default")
        await until(lambda: gone(client, "persistentvolumeclaims", "web-scratch", "default"))
        assert (await client.get("persistentvolumes", "v1"))["status"]["phase"] == "Released"

    in_cluster(check, scheduler=False)


async def _found_bound(client: Client, name: str) -> Json | None:
    if await gone(client, "persistentvolumeclaims", name, "default"):
        return None
    return await _claim(client, name, "Bound")


def signing_request(name: str, signer: str, usages: list[str], pem: bytes) -> Json:
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": usages},
    }


def test_a_kubelet_gets_its_certificate_by_itself_and_others_when_approved() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("clusterrolebindings.rbac.authorization.k8s.io", _self_approval())
        key = generate_key(SeededEntropy(7))
        pem = create_request(key, "system:node:n1", ["system:nodes"])
        usages = ["digital signature", "client auth"]
        kubelet = cluster.client(node_identity("n1"))
        await kubelet.create(REQUESTS, signing_request("n1", KUBELET_CLIENT, usages, pem))
        issued = await until(lambda: _issued(client, "n1"))
        approved = next(c for c in issued["status"]["conditions"] if c["type"] == "Approved")
        assert approved["reason"] == "AutoApproved"
        certificate = load_certificate(base64.b64decode(issued["status"]["certificate"]))
        assert identity_of(certificate) == ("system:node:n1", ("system:nodes",))

        mine = signing_request("jane", API_CLIENT, ["client auth"], create_request(key, "jane", ["dev"]))
        await client.create(REQUESTS, mine)
        await anyio.sleep(2)
        pending = await client.get(REQUESTS, "jane")
        assert "certificate" not in pending.get("status", {})
        condition = {"type": "Approved", "status": "True", "reason": "Ok", "message": "fine"}
        await client.update(
            REQUESTS, {**pending, "status": {"conditions": [condition]}}, subresource="approval"
        )
        await until(lambda: _issued(client, "jane"))
        await anyio.sleep(2 * 3600 + 60)
        assert await names(client, REQUESTS) == []

    in_cluster(check, scheduler=False)


async def _issued(client: Client, name: str) -> Json | None:
    found = await client.get(REQUESTS, name)
    return found if found.get("status", {}).get("certificate") else None


def _self_approval() -> Json:
    role = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "auto-approve"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    }


def test_an_aggregated_role_has_the_rules_of_its_parts() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        roles = "clusterroles.rbac.authorization.k8s.io"
        rule = {"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]}
        part = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {
                "name": "widgets",
                "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"},
            },
            "rules": [rule],
        }
        await client.create(roles, part)

        async def aggregated() -> bool:
            return rule in (await client.get(roles, "view"))["rules"]

        await until(aggregated)
        assert rule in (await client.get(roles, "admin"))["rules"]
        await client.delete(roles, "widgets")
        await anyio.sleep(2)
        assert not await aggregated()

    in_cluster(check, scheduler=False)


def test_pods_of_a_vanished_node_fail_and_go() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("pods", pod("lost", node="nowhere"), "default")
        seen: list[str] = []
        cluster.store.listen(
            lambda events: seen.extend(
                e.record.value.get("status", {}).get("phase", "") for e in events if e.key.name == "lost"
            )
        )
        await anyio.sleep(30)
        assert await names(client, "pods", "default") == ["lost"]
        await until(lambda: gone(client, "pods", "lost", "default"))
        assert "Failed" in seen

    in_cluster(check, scheduler=False)


def test_a_token_secret_is_filled_works_and_goes_with_its_account() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("robot")}
        made = (await client.create("serviceaccounts", account, "default")).object
        annotations = {"kubernetes.io/service-account.name": "robot"}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata("robot-token", annotations=annotations),
            "type": "kubernetes.io/service-account-token",
        }
        await client.create("secrets", secret, "default")

        async def token() -> str:
            found = await client.get("secrets", "robot-token", "default")
            text: str = found.get("data", {}).get("token", "")
            return base64.b64decode(text).decode()

        text = await until(token)
        filled = await client.get("secrets", "robot-token", "default")
        assert meta.annotations(filled)["kubernetes.io/service-account.uid"] == meta.uid(made)
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": text},
        }
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        answer = (await client.request("POST", path, body=review)).object
        assert answer["status"]["user"]["username"] == "system:serviceaccount:default:robot"
        await anyio.sleep(61)
        used = await client.get("secrets", "robot-token", "default")
        since = await client.get(
            "configmaps", "kube-apiserver-legacy-service-account-token-tracking", "kube-system"
        )
        assert meta.labels(used)["kubernetes.io/legacy-token-last-used"] == since["data"]["since"]
        await client.delete("serviceaccounts", "robot", "default")
        await until(lambda: gone(client, "secrets", "robot-token", "default"))
        answer = (await client.request("POST", path, body=review)).object
        assert not answer["status"].get("authenticated")

    in_cluster(check, scheduler=False)


def test_nodes_get_ranges_of_their_own_and_their_ttl() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        for name in ("a", "b", "c"):
            await client.create("nodes", node(name))
        await anyio.sleep(2)
        nodes = (await client.list("nodes")).items
        given = [n["spec"]["podCIDRs"] for n in nodes]
        assert sorted(given) == [["10.244.0.0/24"], ["10.244.1.0/24"], ["10.244.2.0/24"]]
        assert {meta.annotations(n)["node.alpha.kubernetes.io/ttl"] for n in nodes} == {"0"}

    settings = {"node-ipam-controller": {"cluster_cidrs": ["10.244.0.0/16"]}}
    in_cluster(check, scheduler=False, controller_settings=settings)


def test_a_service_range_in_use_stays_until_another_covers_it() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        ranges = "servicecidrs.networking.k8s.io"

        async def says(text: str) -> Json | None:
            found = await client.get(ranges, "kubernetes")
            return found if (meta.condition(found, "Ready") or {}).get("message") == text else None

        async def made_anew(uid: str) -> Json | None:
            with suppress(NotFound):
                found = await client.get(ranges, "kubernetes")
                return found if found["metadata"]["uid"] != uid else None
            return None

        uid = (await until(lambda: says("Kubernetes Service CIDR is ready")))["metadata"]["uid"]
        await client.delete(ranges, "kubernetes")
        await anyio.sleep(15)
        found = meta.condition(await client.get(ranges, "kubernetes"), "Ready")
        assert found is not None and found["reason"] == "Terminating"
        wider = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": "wider"},
            "spec": {"cidrs": ["10.0.0.0/8"]},
        }
        await client.create(ranges, wider)
        again = await until(lambda: made_anew(uid))
        assert not meta.is_deleting(again), "the server makes the default range again"

    in_cluster(check, scheduler=False)


def test_a_fresh_cluster_comes_to_rest_without_a_refusal() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await anyio.sleep(30)
        written: list[str] = []
        cluster.store.listen(lambda events: written.extend(str(event.key) for event in events))
        await anyio.sleep(600)
        assert [key for key in written if not key.startswith("leases.")] == []

    in_cluster(check, scheduler=False)


def test_an_unknown_volume_keeps_its_claim_waiting() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        await client.create("persistentvolumeclaims", claim("later", volumeName="later"), "default")
        await anyio.sleep(2)
        with pytest.raises(ApiError):
            await client.get("persistentvolumes", "later")
        await client.create("persistentvolumes", volume("later"))
        await until(lambda: _claim(client, "later", "Bound"))

    in_cluster(check, scheduler=False)


def test_bootstrap_tokens_sign_cluster_info_and_expire() -> None:
    async def check(cluster: Cluster, client: Client) -> None:
        info = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata("cluster-info", "kube-public"),
            "data": {"kubeconfig": "some: config"},
        }
        await client.create("configmaps", info, "kube-public")
        expires = cluster.clock.now() + timedelta(minutes=2)
        texts = {
            "token-id": "abcdef",
            "token-secret": "0123456789abcdef",
            "usage-bootstrap-signing": "true",
            "expiration": format_time(expires),
        }
        token = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata("bootstrap-token-abcdef", "kube-system"),
            "type": "bootstrap.kubernetes.io/token",
            "stringData": texts,
        }
        await client.create("secrets", token, "kube-system")

        async def signed() -> bool:
            data = (await client.get("configmaps", "cluster-info", "kube-public"))["data"]
            return "jws-kubeconfig-abcdef" in data

        await until(signed)
        await until(lambda: gone(client, "secrets", "bootstrap-token-abcdef", "kube-system"), 180)
        await anyio.sleep(1)
        assert not await signed()

    in_cluster(check, scheduler=False, controllers=(*CONTROLLERS, *OFF_BY_DEFAULT))
