"""Each admission plugin, seen from a client."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.api.admission.order import ORDER
from kcp.api.auth.protocol import UserInfo
from kcp.machinery.errors import Forbidden, Invalid, NotFound
from tests.api.harness import PODS, Api, config_map, pod, running_api
from tests.api.requests import signing_request

LIMIT_RANGES = "/api/v1/namespaces/default/limitranges"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
STORAGE_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
QUOTAS = "/api/v1/namespaces/default/resourcequotas"
KUBELET = UserInfo("system:node:n1", "", ("system:nodes", "system:authenticated"))


def _limits(*items: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "limits"}, "spec": {"limits": list(items)}}


def _claim(name: str = "data", size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    resources = {"requests": {"storage": size}}
    return {
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": resources, **spec},
    }


def _with_resources(name: str = "web", **resources: Any) -> dict[str, Any]:
    obj = pod(name)
    obj["spec"]["containers"][0]["resources"] = resources
    return obj


def test_the_order_is_kubernetes() -> None:
    names = [name for name, _ in ORDER]
    assert names.index("NamespaceLifecycle") == 0
    assert names.index("LimitRanger") < names.index("ServiceAccount") < names.index("NodeRestriction")
    assert names.index("Priority") < names.index("DefaultTolerationSeconds")
    assert names[-1] == "ResourceQuota"


async def test_nothing_is_created_in_a_namespace_that_is_absent_or_going() -> None:
    async with running_api() as api:
        with pytest.raises(NotFound, match=r'^namespaces "nowhere" not found$'):
            await api.create("/api/v1/namespaces/nowhere/configmaps", config_map())
        await api.create("/api/v1/namespaces", {"metadata": {"name": "old"}})
        await api.delete("/api/v1/namespaces/old")
        with pytest.raises(Forbidden) as caught:
            await api.create("/api/v1/namespaces/old/configmaps", config_map())
        assert caught.value.message == (
            'configmaps "settings" is forbidden: unable to create new content in namespace old because it is being'
            " terminated"
        )
        assert caught.value.details["causes"] == [
            {
                "reason": "NamespaceTerminating",
                "message": "namespace old is being terminated",
                "field": "metadata.namespace",
            }
        ]


async def test_limit_ranges_fill_in_and_say_so() -> None:
    async with running_api() as api:
        item = {
            "type": "Container",
            "default": {"cpu": "300m", "memory": "500Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "100Mi"},
        }
        await api.create(LIMIT_RANGES, _limits(item))
        created = await api.create(PODS, pod())
        assert created["spec"]["containers"][0]["resources"] == {
            "requests": {"cpu": "100m", "memory": "100Mi"},
            "limits": {"cpu": "300m", "memory": "500Mi"},
        }
        assert created["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
            "LimitRanger plugin set: cpu, memory request for container web; cpu, memory limit for container web"
        )
        assert created["status"]["qosClass"] == "Burstable"


@pytest.mark.parametrize(
    ("item", "resources", "text"),
    [
        (
            {"type": "Container", "max": {"cpu": "1"}},
            {"limits": {"cpu": "2"}},
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        (
            {"type": "Container", "min": {"memory": "1Gi"}},
            {"requests": {"memory": "1Mi"}, "limits": {"memory": "2Gi"}},
            "minimum memory usage per Container is 1Gi, but request is 1Mi",
        ),
        (
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
        (
            {"type": "Pod", "max": {"cpu": "1"}},
            {"requests": {"cpu": "1"}},
            "maximum cpu usage per Pod is 1.  No limit is specified",
        ),
    ],
)
async def test_limit_ranges_refuse(item: dict[str, Any], resources: dict[str, Any], text: str) -> None:
    async with running_api() as api:
        await api.create(LIMIT_RANGES, _limits(item))
        with pytest.raises(Forbidden) as caught:
            await api.create(PODS, _with_resources(**resources))
        assert caught.value.message == f'pods "web" is forbidden: {text}'


async def test_limit_ranges_bound_claims() -> None:
    async with running_api() as api:
        await api.create(LIMIT_RANGES, _limits({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}))
        await api.create(CLAIMS, _claim())
        with pytest.raises(
            Forbidden, match=r"maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"
        ):
            await api.create(CLAIMS, _claim("big", "2Gi"))


async def test_a_pod_gets_its_token() -> None:
    async with running_api() as api:
        created = await api.create(PODS, pod())
        [volume] = created["spec"]["volumes"]
        [mount] = created["spec"]["containers"][0]["volumeMounts"]
        assert volume["name"] == mount["name"]
        assert volume["name"].startswith("kube-api-access-")
        assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
        quiet = await api.create(PODS, pod("quiet", automountServiceAccountToken=False))
        assert "volumes" not in quiet["spec"]


async def test_an_unknown_account_is_refused() -> None:
    async with running_api() as api:
        with pytest.raises(Forbidden) as caught:
            await api.create(PODS, pod(serviceAccountName="x"))
        assert caught.value.message == (
            'pods "web" is forbidden: error looking up service account default/x: serviceaccount "x" not found'
        )


async def test_priorities_come_from_classes() -> None:
    async with running_api() as api:
        await api.create(CLASSES, {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"})
        high = await api.create(PODS, pod("high", priorityClassName="high"))
        assert (high["spec"]["priority"], high["spec"]["preemptionPolicy"]) == (1000, "Never")
        with pytest.raises(Forbidden, match=r"no PriorityClass with name x was found"):
            await api.create(PODS, pod("x", priorityClassName="x"))
        with pytest.raises(Forbidden) as caught:
            await api.create(PODS, pod("y", priorityClassName="high", priority=5))
        assert caught.value.message == (
            'pods "y" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority'
            " admission controller computed 1000 from the given PriorityClass name"
        )


async def test_one_class_may_be_the_default() -> None:
    async with running_api() as api:
        assert (await api.create(PODS, pod("before")))["spec"]["priority"] == 0
        await api.create(CLASSES, {"metadata": {"name": "normal"}, "value": 7, "globalDefault": True})
        created = await api.create(PODS, pod())
        assert (created["spec"]["priority"], created["spec"]["priorityClassName"]) == (7, "normal")
        with pytest.raises(Forbidden, match=r"PriorityClass normal is already marked as default"):
            await api.create(CLASSES, {"metadata": {"name": "other"}, "value": 8, "globalDefault": True})


async def test_new_nodes_are_tainted_and_pods_tolerate_a_while() -> None:
    async with running_api() as api:
        node = await api.create("/api/v1/nodes", {"metadata": {"name": "n1"}})
        assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
        own = {
            "key": "node.kubernetes.io/unreachable",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 5,
        }
        created = await api.create(PODS, pod(tolerations=[own]))
        assert created["spec"]["tolerations"] == [
            own,
            {
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            },
        ]


async def test_claims_get_the_default_class_and_protection() -> None:
    async with running_api() as api:
        marked = {"storageclass.kubernetes.io/is-default-class": "true"}
        await api.create(
            STORAGE_CLASSES, {"metadata": {"name": "fast", "annotations": marked}, "provisioner": "p"}
        )
        created = await api.create(CLAIMS, _claim())
        assert created["spec"]["storageClassName"] == "fast"
        assert created["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
        chosen = await api.create(CLAIMS, _claim("none", storageClassName=""))
        assert chosen["spec"]["storageClassName"] == ""


async def test_only_bound_claims_of_a_willing_class_grow() -> None:
    async with running_api() as api:
        await api.create(STORAGE_CLASSES, {"metadata": {"name": "fixed"}, "provisioner": "p"})
        await api.create(CLAIMS, _claim(storageClassName="fixed"))
        path, grow = f"{CLAIMS}/data", {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
        with pytest.raises(Exception, match=r"bound persistent volume claims|spec is immutable"):
            await api.patch(path, grow)
        await api.patch(f"{path}/status", {"status": {"phase": "Bound"}})
        with pytest.raises(Forbidden, match=r"only dynamically provisioned pvc can be resized"):
            await api.patch(path, grow)


async def test_runtime_classes_bring_overhead_and_places() -> None:
    async with running_api() as api:
        runtime = {
            "metadata": {"name": "vm"},
            "handler": "vm",
            "overhead": {"podFixed": {"memory": "100Mi"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}},
        }
        await api.create("/apis/node.k8s.io/v1/runtimeclasses", runtime)
        created = await api.create(PODS, pod(runtimeClassName="vm"))
        assert created["spec"]["overhead"] == {"memory": "100Mi"}
        assert created["spec"]["nodeSelector"] == {"vm": "yes"}
        with pytest.raises(Forbidden, match=r'pod rejected: RuntimeClass "x" not found'):
            await api.create(PODS, pod("x", runtimeClassName="x"))


async def test_an_ingress_gets_the_default_class() -> None:
    async with running_api() as api:
        marked = {"ingressclass.kubernetes.io/is-default-class": "true"}
        base = "/apis/networking.k8s.io/v1"
        controller = {"controller": "example.com/c"}
        await api.create(
            f"{base}/ingressclasses",
            {"metadata": {"name": "front", "annotations": marked}, "spec": controller},
        )
        backend = {"service": {"name": "web", "port": {"number": 80}}}
        created = await api.create(
            f"{base}/namespaces/default/ingresses",
            {"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}},
        )
        assert created["spec"]["ingressClassName"] == "front"


async def test_masters_are_not_made_by_certificate() -> None:
    async with running_api() as api:
        path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        with pytest.raises(Forbidden, match=r"signer with system:masters group is not allowed"):
            await api.create(path, signing_request("eve", "system:masters"))
        created = await api.create(path, signing_request("alice"))
        api.authorizer.denied.add(("approve", "signers"))
        condition = {"type": "Approved", "status": "True", "reason": "ok", "message": "fine"}
        with pytest.raises(Forbidden, match=r"user not permitted to approve requests with signerName"):
            await api.update(f"{path}/alice/approval", {**created, "status": {"conditions": [condition]}})


async def test_a_node_agent_keeps_to_its_own() -> None:
    async with running_api() as api:
        await api.create("/api/v1/nodes", {"metadata": {"name": "n1"}}, user=KUBELET)
        with pytest.raises(Forbidden, match=r'node "n1" is not allowed to modify node "n2"'):
            await api.create("/api/v1/nodes", {"metadata": {"name": "n2"}}, user=KUBELET)
        with pytest.raises(Forbidden, match=r'node "n1" is not allowed to modify taints'):
            await api.patch("/api/v1/nodes/n1", {"spec": {"taints": []}}, user=KUBELET)
        with pytest.raises(Forbidden, match=r"can only create mirror pods"):
            await api.create(PODS, pod(), user=KUBELET)
        await api.create(PODS, pod())
        await api.create(f"{PODS}/web/binding", {"target": {"name": "n2"}})
        with pytest.raises(
            Forbidden, match=r"can only update pod status for pods with spec.nodeName set to itself"
        ):
            await api.patch(f"{PODS}/web/status", {"status": {"phase": "Running"}}, user=KUBELET)
        with pytest.raises(Forbidden, match=r"can only delete pods with spec.nodeName set to itself"):
            await api.call("DELETE", f"{PODS}/web", user=KUBELET)
        with pytest.raises(
            Forbidden, match=r'can only access leases in the "kube-node-lease" system namespace'
        ):
            await api.create(
                "/apis/coordination.k8s.io/v1/namespaces/default/leases",
                {"metadata": {"name": "n1"}, "spec": {}},
                user=KUBELET,
            )


async def _quota(api: Api, hard: dict[str, str], **spec: Any) -> None:
    await api.create(QUOTAS, {"metadata": {"name": "quota"}, "spec": {"hard": hard, **spec}})


async def _used(api: Api) -> dict[str, str]:
    return dict((await api.get(f"{QUOTAS}/quota"))["status"]["used"])


async def test_a_quota_counts_and_refuses() -> None:
    async with running_api() as api:
        await api.create(PODS, _with_resources("first", requests={"cpu": "1"}))
        await _quota(api, {"pods": "3", "requests.cpu": "2"})
        await api.create(PODS, _with_resources("second", requests={"cpu": "500m"}))
        assert await _used(api) == {"pods": "2", "requests.cpu": "1500m"}
        with pytest.raises(Forbidden) as caught:
            await api.create(PODS, _with_resources("third", requests={"cpu": "1"}))
        assert caught.value.message == (
            'pods "third" is forbidden: exceeded quota: quota, requested: requests.cpu=1,'
            " used: requests.cpu=1500m, limited: requests.cpu=2"
        )
        with pytest.raises(Forbidden, match=r"failed quota: quota: must specify requests.cpu for: web"):
            await api.create(PODS, pod("plain"))
        await api.delete(f"{PODS}/second")
        assert await _used(api) == {"pods": "1", "requests.cpu": "1"}


async def test_creates_at_once_never_pass_a_quota_together() -> None:
    import anyio

    async with running_api() as api:
        await _quota(api, {"count/configmaps": "5"})
        refused = 0

        async def one(number: int) -> None:
            nonlocal refused
            try:
                await api.create("/api/v1/namespaces/default/configmaps", config_map(f"c{number}"))
            except Forbidden:
                refused += 1

        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(one, number)
        assert refused == 7
        assert await _used(api) == {"count/configmaps": "5"}
        await api.call("DELETE", "/api/v1/namespaces/default/configmaps")
        assert await _used(api) == {"count/configmaps": "0"}


async def test_a_finished_pod_no_longer_counts() -> None:
    async with running_api() as api:
        await _quota(api, {"pods": "1", "count/pods": "5"})
        await api.create(PODS, pod("one"))
        await api.create(f"{PODS}/one/binding", {"target": {"name": "n1"}})
        await api.patch(f"{PODS}/one/status", {"status": {"phase": "Succeeded"}})
        assert await _used(api) == {"pods": "0", "count/pods": "1"}
        await api.create(PODS, pod("two"))


async def test_scopes_choose_what_counts() -> None:
    async with running_api() as api:
        await _quota(api, {"pods": "1"}, scopes=["BestEffort"])
        await api.create(PODS, _with_resources("burstable", requests={"cpu": "1"}))
        await api.create(PODS, pod("one"))
        with pytest.raises(
            Forbidden, match=r"exceeded quota: quota, requested: pods=1, used: pods=1, limited: pods=1"
        ):
            await api.create(PODS, pod("two"))


async def test_services_and_storage_count_by_their_own_names() -> None:
    async with running_api() as api:
        await _quota(
            api,
            {
                "services": "2",
                "services.nodeports": "1",
                "requests.storage": "2Gi",
                "persistentvolumeclaims": "9",
            },
        )
        services = "/api/v1/namespaces/default/services"
        port = {"port": 80}
        await api.create(services, {"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [port]}})
        with pytest.raises(Forbidden, match=r"requested: services.nodeports=1"):
            await api.create(
                services, {"metadata": {"name": "b"}, "spec": {"type": "NodePort", "ports": [port]}}
            )
        await api.create(CLAIMS, _claim())
        with pytest.raises(
            Forbidden, match=r"requested: requests.storage=2Gi, used: requests.storage=1Gi, limited"
        ):
            await api.create(CLAIMS, _claim("big", "2Gi"))


async def test_looking_at_devices_in_use_is_for_namespaces_with_the_label() -> None:
    async with running_api() as api:
        requests = [
            {"name": "own", "exactly": {"deviceClassName": "gpu"}},
            {"name": "watch", "exactly": {"deviceClassName": "gpu", "adminAccess": True}},
        ]
        spec = {"devices": {"requests": requests}}
        claim = {"metadata": {"name": "monitor"}, "spec": spec}
        template = {"metadata": {"name": "monitor"}, "spec": {"spec": spec}}
        devices = "/apis/resource.k8s.io/v1/namespaces/default"
        for resource, obj in (("resourceclaims", claim), ("resourceclaimtemplates", template)):
            with pytest.raises(Invalid) as caught:
                await api.create(f"{devices}/{resource}", obj)
            assert caught.value.message.endswith(
                '.resource.k8s.io "monitor" is invalid: spec.devices.requests[1].adminAccess: Forbidden: admin'
                " access to devices requires the `resource.kubernetes.io/admin-access: true` label on the"
                " containing namespace"
            )
        labels = {"resource.kubernetes.io/admin-access": "true"}
        await api.patch("/api/v1/namespaces/default", {"metadata": {"labels": labels}})
        await api.create(f"{devices}/resourceclaims", claim)
        await api.create(f"{devices}/resourceclaimtemplates", template)
