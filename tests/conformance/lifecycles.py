"""Kinds whose behaviour is to support every verb: one row each, one scenario for all."""

from __future__ import annotations

import base64
import functools
from typing import Any

import attrs

from kcp.base.certs import create_request, generate_key
from kcp.base.entropy import SeededEntropy
from tests.conformance.door import MERGE, Door
from tests.conformance.scoreboard import PROOFS, Proof

Json = dict[str, Any]
NAMESPACE = "lifecycles"
LABEL = "conformance=lifecycle"


@attrs.frozen
class Lifecycle:
    """`path` has {ns} where the namespace goes; `body` is the object without its metadata.

    `status`: what the status subresource is patched with; `open_metadata`: whether annotations change there too.
    """

    name: str
    path: str
    body: Json
    status: Json | None = None
    names: tuple[str, str, str] = ("a", "b", "c")
    bodies: tuple[Json, Json, Json] | None = None
    open_metadata: bool = True

    @property
    def collection(self) -> str:
        return self.path.format(ns=NAMESPACE)

    @property
    def resource(self) -> str:
        return self.path.rpartition("/")[2]


def _pod_template(image: str = "registry.example/app:1") -> Json:
    container = {"name": "main", "image": image}
    return {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [container], "restartPolicy": "OnFailure"},
    }


def _signing_request() -> Json:
    pem = create_request(generate_key(SeededEntropy(7)), "someone", ["dev"])
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": "example.com/own",
        "usages": ["client auth"],
    }
    return {"spec": spec}


def _many(make: Any) -> tuple[Json, Json, Json]:
    return make(1), make(2), make(3)


FLOW_SCHEMA = {
    "spec": {
        "matchingPrecedence": 9999,
        "priorityLevelConfiguration": {"name": "workload-low"},
        "rules": [
            {
                "subjects": [{"kind": "User", "user": {"name": "conformance"}}],
                "resourceRules": [
                    {
                        "verbs": ["get"],
                        "apiGroups": ["apps"],
                        "resources": ["deployments"],
                        "clusterScope": True,
                    }
                ],
            }
        ],
    }
}
PRIORITY_LEVEL = {
    "spec": {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}},
    }
}
CONDITION = {"type": "Conformance", "status": "True", "reason": "Patched", "message": "by the test"}
CURRENT = {**CONDITION, "lastTransitionTime": "2026-01-01T00:00:00Z"}
CRON_JOB = {"spec": {"schedule": "*/1 * * * *", "jobTemplate": {"spec": {"template": _pod_template()}}}}
SLICE = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}]}
INGRESS_BACKEND = {"service": {"name": "web", "port": {"number": 80}}}
INGRESS_PATH = {"path": "/", "pathType": "Prefix", "backend": INGRESS_BACKEND}
INGRESS = {"spec": {"rules": [{"host": "x.example", "http": {"paths": [INGRESS_PATH]}}]}}
DEVICE_REQUEST = {"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}
CLAIM = {"spec": {"devices": {"requests": [DEVICE_REQUEST]}}}
REGARDING = {"kind": "Pod", "name": "x", "namespace": NAMESPACE, "apiVersion": "v1"}
API_EVENT = {
    "eventTime": "2026-01-01T00:00:00.000001Z",
    "reason": "Testing",
    "action": "Do",
    "type": "Normal",
    "note": "a note",
    "reportingController": "example.com/test",
    "reportingInstance": "test-1",
    "regarding": REGARDING,
}


def _parent(number: int) -> Json:
    reference = {"group": "", "resource": "services", "namespace": NAMESPACE, "name": f"s-{number}"}
    return {"spec": {"parentRef": reference}}


def _slice(number: int) -> Json:
    pool = {"name": f"pool-{number}", "generation": 1, "resourceSliceCount": 1}
    devices = [{"name": "gpu-0", "attributes": {"example.com/index": {"int": number}}}]
    return {
        "spec": {"driver": "gpu.example.com", "nodeName": f"n-{number}", "pool": pool, "devices": devices}
    }


def _csi_node(number: int) -> Json:
    return {"spec": {"drivers": [{"name": "csi.example.com", "nodeID": f"id-{number}"}]}}


RULE = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
CONSTRAINTS = {"matchPolicy": "Equivalent", "resourceRules": [RULE]}
VALIDATING_POLICY = {
    "spec": {
        "matchConstraints": CONSTRAINTS,
        "validations": [{"expression": "object.spec.replicas <= 5"}],
        "failurePolicy": "Fail",
    }
}
APPLY_CONFIGURATION = {"expression": "Object{spec: Object.spec{replicas: 1}}"}
MUTATING_POLICY = {
    "spec": {
        "matchConstraints": CONSTRAINTS,
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": APPLY_CONFIGURATION}],
        "reinvocationPolicy": "Never",
        "failurePolicy": "Fail",
    }
}
ADMISSION = "/apis/admissionregistration.k8s.io/v1"

LIFECYCLES = (
    Lifecycle(
        "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations",
        f"{ADMISSION}/validatingadmissionpolicies",
        VALIDATING_POLICY,
        {"conditions": [CURRENT]},
        open_metadata=False,
    ),
    Lifecycle(
        "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations",
        f"{ADMISSION}/validatingadmissionpolicybindings",
        {"spec": {"policyName": "p", "validationActions": ["Deny"]}},
    ),
    Lifecycle(
        "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicy API operations",
        f"{ADMISSION}/mutatingadmissionpolicies",
        MUTATING_POLICY,
    ),
    Lifecycle(
        "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicyBinding API operations",
        f"{ADMISSION}/mutatingadmissionpolicybindings",
        {"spec": {"policyName": "p"}},
    ),
    Lifecycle(
        "[sig-api-machinery] API priority and fairness should support FlowSchema API operations",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
        FLOW_SCHEMA,
        {"conditions": [{**CURRENT, "type": "PatchStatusFailed"}]},
        open_metadata=False,
    ),
    Lifecycle(
        "[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations",
        "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
        PRIORITY_LEVEL,
        {"conditions": [CURRENT]},
        open_metadata=False,
    ),
    Lifecycle(
        "[sig-apps] CronJob should support CronJob API operations",
        "/apis/batch/v1/namespaces/{ns}/cronjobs",
        CRON_JOB,
        {"lastScheduleTime": "2026-01-01T00:00:00Z"},
    ),
    Lifecycle(
        "[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations",
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
        {},
        {"conditions": [{**CURRENT, "type": "StatusUpdate"}]},
    ),
    Lifecycle(
        "[sig-network] EndpointSlice should support creating EndpointSlice API operations",
        "/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices",
        SLICE,
    ),
    Lifecycle(
        "[sig-network] Ingress API should support creating Ingress API operations",
        "/apis/networking.k8s.io/v1/namespaces/{ns}/ingresses",
        INGRESS,
        {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}},
    ),
    Lifecycle(
        "[sig-network] IngressClass API should support creating IngressClass API operations",
        "/apis/networking.k8s.io/v1/ingressclasses",
        {"spec": {"controller": "example.com/controller"}},
    ),
    Lifecycle(
        "[sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations",
        "/apis/networking.k8s.io/v1/ipaddresses",
        {},
        names=("192.168.1.1", "192.168.1.2", "2001:db8::3"),
        bodies=_many(_parent),
    ),
    Lifecycle(
        "[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations",
        "/apis/networking.k8s.io/v1/servicecidrs",
        {"spec": {"cidrs": ["10.200.0.0/24"]}},
        {"conditions": [CURRENT]},
    ),
    Lifecycle(
        "[sig-node] RuntimeClass should support RuntimeClasses API operations",
        "/apis/node.k8s.io/v1/runtimeclasses",
        {"handler": "handler-a"},
    ),
    Lifecycle(
        "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass",
        "/apis/resource.k8s.io/v1/deviceclasses",
        {"spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]}},
    ),
    Lifecycle(
        "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim",
        "/apis/resource.k8s.io/v1/namespaces/{ns}/resourceclaims",
        CLAIM,
        {"devices": []},
        open_metadata=False,
    ),
    Lifecycle(
        "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate",
        "/apis/resource.k8s.io/v1/namespaces/{ns}/resourceclaimtemplates",
        {"spec": CLAIM},
    ),
    Lifecycle(
        "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice",
        "/apis/resource.k8s.io/v1/resourceslices",
        {},
        bodies=_many(_slice),
    ),
    Lifecycle(
        "[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver",
        "/apis/storage.k8s.io/v1/csidrivers",
        {"spec": {"volumeLifecycleModes": ["Ephemeral"]}},
    ),
    Lifecycle(
        "[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode",
        "/apis/storage.k8s.io/v1/csinodes",
        {},
        bodies=_many(_csi_node),
    ),
    Lifecycle(
        "[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations",
        "/apis/storage.k8s.io/v1/namespaces/{ns}/csistoragecapacities",
        {"storageClassName": "example"},
    ),
    Lifecycle(
        "[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass",
        "/apis/storage.k8s.io/v1/storageclasses",
        {"provisioner": "csi.example.com"},
    ),
    Lifecycle(
        "[sig-node] PodTemplates should run the lifecycle of PodTemplates",
        "/api/v1/namespaces/{ns}/podtemplates",
        {"template": _pod_template()},
    ),
    Lifecycle(
        "[sig-node] PodTemplates should delete a collection of pod templates",
        "/api/v1/namespaces/{ns}/podtemplates",
        {"template": _pod_template("registry.example/other:1")},
    ),
    Lifecycle(
        "[sig-node] PodTemplates should replace a pod template",
        "/api/v1/namespaces/{ns}/podtemplates",
        {"template": _pod_template("registry.example/third:1")},
    ),
    Lifecycle(
        "[sig-node] ConfigMap should run through a ConfigMap lifecycle",
        "/api/v1/namespaces/{ns}/configmaps",
        {"data": {"a": "1"}},
    ),
    Lifecycle(
        "[sig-node] Secrets should patch a secret",
        "/api/v1/namespaces/{ns}/secrets",
        {"data": {"key": "dmFsdWU="}, "type": "Opaque"},
    ),
    Lifecycle(
        "[sig-node] Node Lifecycle should run through the lifecycle of a node",
        "/api/v1/nodes",
        {"spec": {"unschedulable": True}},
        {"phase": "Running"},
    ),
    Lifecycle(
        "[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount",
        "/api/v1/namespaces/{ns}/serviceaccounts",
        {},
    ),
    Lifecycle(
        "[sig-auth] ServiceAccounts should update a ServiceAccount",
        "/api/v1/namespaces/{ns}/serviceaccounts",
        {"automountServiceAccountToken": False},
    ),
    Lifecycle(
        "[sig-network] Endpoints should test the lifecycle of an Endpoint",
        "/api/v1/namespaces/{ns}/endpoints",
        {"subsets": [{"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80}]}]},
    ),
    Lifecycle(
        "[sig-instrumentation] Events API should delete a collection of events",
        "/apis/events.k8s.io/v1/namespaces/{ns}/events",
        API_EVENT,
    ),
    Lifecycle(
        "[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection",
        "/api/v1/namespaces/{ns}/limitranges",
        {"spec": {"limits": [{"type": "Container", "default": {"cpu": "500m"}}]}},
    ),
    Lifecycle(
        "[sig-network] Services should delete a collection of services",
        "/api/v1/namespaces/{ns}/services",
        {"spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "selector": {"app": "x"}}},
    ),
)  # fmt: skip


async def discovered(door: Door, row: Lifecycle) -> None:
    """The group, its version and the resource (with its status) are in the discovery documents."""
    parts = row.path.split("/")
    root = f"/{parts[1]}/{parts[2]}" if parts[1] == "api" else f"/apis/{parts[2]}/{parts[3]}"
    if parts[1] == "apis":
        assert parts[2] in [group["name"] for group in (await door.get("/apis"))["groups"]]
        versions = [each["version"] for each in (await door.get(f"/apis/{parts[2]}"))["versions"]]
        assert parts[3] in versions
    resources = [each["name"] for each in (await door.get(root))["resources"]]
    assert row.resource in resources
    if row.status is not None:
        assert f"{row.resource}/status" in resources


async def lifecycle(row: Lifecycle, door: Door) -> None:
    """Every verb once: discovery, create, get, list here and everywhere, watch, patch, update, status, deletes."""
    await door.namespace(NAMESPACE)
    await discovered(door, row)
    path, first = row.collection, f"{row.collection}/{row.names[0]}"
    watch = await door.watch(path, await door.revision(path), LABEL)
    body = _signing_request() if row.resource == "certificatesigningrequests" else row.body
    for name, each in zip(row.names, row.bodies or (body, body, body), strict=True):
        made = await door.create(
            path, {"metadata": {"name": name, "labels": {"conformance": "lifecycle"}}, **each}
        )
        assert made["metadata"]["uid"] and made["metadata"]["creationTimestamp"]
    for name in row.names:
        assert await watch.until("ADDED", name)
    everywhere = row.path.replace("/namespaces/{ns}", "")
    for where in (path, everywhere):
        assert await door.names(f"{where}?labelSelector={LABEL}") == sorted(row.names)
    await changes(door, row, first)
    while (await watch.until("MODIFIED", row.names[0]))["metadata"].get("annotations") != {"patched": "yes"}:
        pass  # the server may have had something to say about it before
    if row.status is not None:
        await status_changes(door, row, first)
    await deletions(door, row, watch)


async def changes(door: Door, row: Lifecycle, first: str) -> None:
    patched = await door.patch(first, {"metadata": {"annotations": {"patched": "yes"}}}, MERGE)
    assert patched["metadata"]["annotations"] == {"patched": "yes"}
    read = await door.get(first)
    assert read == patched
    read["metadata"]["annotations"]["updated"] = "yes"
    updated = await door.update(first, read)
    assert updated["metadata"]["annotations"] == {"patched": "yes", "updated": "yes"}
    assert updated["metadata"]["uid"] == read["metadata"]["uid"]
    assert updated["metadata"].get("generation") == read["metadata"].get("generation")


async def status_changes(door: Door, row: Lifecycle, first: str) -> None:
    assert row.status is not None
    patch = {"metadata": {"annotations": {"status": "patched"}}, "status": row.status}
    patched = await door.patch(f"{first}/status", patch)
    assert patched["metadata"]["annotations"].get("status") == ("patched" if row.open_metadata else None)
    assert all(_holds(patched["status"].get(field) or [], value) for field, value in row.status.items())
    code = 409
    while code == 409:  # the server has written a condition of its own meanwhile
        read = await door.get(f"{first}/status")
        read["metadata"]["annotations"]["status"] = "updated"
        answer = await door.ask("PUT", f"{first}/status", read)
        code = answer.status
    updated = answer.value
    assert code == 200 and updated["status"] == read["status"]
    assert updated["metadata"]["annotations"].get("status") == ("updated" if row.open_metadata else None)


def _holds(found: Any, wanted: Any) -> bool:
    """Whether everything wanted is there; servers add timestamps of their own."""
    if isinstance(wanted, dict):
        return all(_holds(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_holds, found, wanted))
    return bool(found == wanted)


async def deletions(door: Door, row: Lifecycle, watch: Any) -> None:
    path = row.collection
    await door.ask("PATCH", f"{path}/{row.names[0]}", {"metadata": {"finalizers": None}}, MERGE)
    await door.delete(f"{path}/{row.names[0]}")
    assert await watch.until("DELETED", row.names[0])
    await door.refused(404, "GET", f"{path}/{row.names[0]}")
    await door.delete(f"{path}?labelSelector={LABEL}")
    assert await door.names(f"{path}?labelSelector={LABEL}") == []


for _row in LIFECYCLES:
    PROOFS[_row.name] = Proof(functools.partial(lifecycle, _row))
