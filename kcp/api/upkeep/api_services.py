"""The local APIServices: one for each group version that this server serves, made at its start.

One that an administrator deletes stays away until the next start, as in Kubernetes; one whose version is served no more
goes. Only those that bear the label are the server's to change.
Source: k8s v1.36 pkg/controlplane/apiserver/aggregator.go, cmd/kube-apiserver/app/aggregator.go,
kube-aggregator/pkg/controllers/autoregister/autoregister_controller.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from kcp.api.context import Server
from kcp.api.own_writes import ensure, remove
from kcp.apis.kind import Json
from kcp.machinery import meta

API_SERVICES = "apiservices.apiregistration.k8s.io"
LABEL, ON_START = "kube-aggregator.kubernetes.io/automanaged", "onstart"
PRIORITIES: Mapping[str, tuple[int, int]] = {
    "v1": (18000, 1),
    "apps/v1": (17800, 15),
    "events.k8s.io/v1": (17750, 15),
    "authentication.k8s.io/v1": (17700, 15),
    "authorization.k8s.io/v1": (17600, 15),
    "autoscaling/v1": (17500, 15),
    "autoscaling/v2": (17500, 30),
    "batch/v1": (17400, 15),
    "certificates.k8s.io/v1": (17300, 15),
    "networking.k8s.io/v1": (17200, 15),
    "policy/v1": (17100, 15),
    "rbac.authorization.k8s.io/v1": (17000, 15),
    "storage.k8s.io/v1": (16800, 15),
    "apiextensions.k8s.io/v1": (16700, 15),
    "admissionregistration.k8s.io/v1": (16700, 15),
    "scheduling.k8s.io/v1": (16600, 15),
    "scheduling.k8s.io/v1alpha2": (16600, 9),
    "coordination.k8s.io/v1": (16500, 15),
    "node.k8s.io/v1": (16300, 15),
    "discovery.k8s.io/v1": (16200, 15),
    "resource.k8s.io/v1": (16200, 20),
    "flowcontrol.apiserver.k8s.io/v1": (16100, 21),
}
"""Group and version priority. apiregistration.k8s.io is the aggregator's own and has no APIService."""


def local_services(server: Server) -> list[Json]:
    served = dict.fromkeys(kind.api_version for kind in server.catalog.kinds() if not kind.custom)
    return [_service(api_version) for api_version in served if api_version in PRIORITIES]


def _service(api_version: str) -> Json:
    group, _, version = api_version.rpartition("/")
    of_group, of_version = PRIORITIES[api_version]
    spec: Json = {"version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version}
    if group:
        spec["group"] = group
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{version}.{group}", "labels": {LABEL: ON_START}},
        "spec": spec,
    }


def _as_served(wanted: Json, found: Json) -> Json | None:
    if meta.labels(found).get(LABEL) != ON_START or found.get("spec") == wanted["spec"]:
        return None
    return {**found, "spec": wanted["spec"]}


async def register(server: Server) -> None:
    services = local_services(server)
    for service in services:
        await ensure(server, service, _as_served)
    names = [service["metadata"]["name"] for service in services]
    for record in server.store.list(API_SERVICES):
        if meta.labels(record.value).get(LABEL) == ON_START and record.key.name not in names:
            await remove(server, record.value)
