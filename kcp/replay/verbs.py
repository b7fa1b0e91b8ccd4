"""What the operations of a simulated user do to the cluster, by verb.

None of them insists: what is not there or may not be raises the API's error, and the script goes on.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from kcp.base.certs import create_request, generate_key
from kcp.base.entropy import SeededEntropy
from kcp.client.client import Client
from kcp.machinery.errors import NotFound
from kcp.replay import manifests
from kcp.replay.device_verbs import DEVICE_VERBS

Json = dict[str, Any]
DEPLOYMENTS, STATEFULSETS, DAEMONSETS = "deployments.apps", "statefulsets.apps", "daemonsets.apps"
CONTROLLERS, JOBS, CRONJOBS = "replicationcontrollers", "jobs.batch", "cronjobs.batch"
CLAIMS, VOLUMES, CLASSES = "persistentvolumeclaims", "persistentvolumes", "storageclasses.storage.k8s.io"
BUDGETS, QUOTAS, CONFIGS = "poddisruptionbudgets.policy", "resourcequotas", "configmaps"
REQUESTS, CIDRS = "certificatesigningrequests.certificates.k8s.io", "servicecidrs.networking.k8s.io"
ROLES = "clusterroles.rbac.authorization.k8s.io"

SLICES, MANAGED_BY = "endpointslices.discovery.k8s.io", "endpointslice.kubernetes.io/managed-by"
MANAGERS = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")


async def chosen(client: Client, resource: str, index: int) -> Json:
    items = (await client.list(resource)).items
    if not items:
        raise NotFound("simulated: there is none")
    return items[index % len(items)]


async def _create_deployment(
    client: Client,
    namespace: str,
    name: str,
    replicas: int,
    surge: Any,
    unavailable: Any,
    recreate: bool,
    tolerate_s: int | None,
) -> None:
    made = manifests.deployment(name, replicas, surge, unavailable, recreate=recreate, tolerate_s=tolerate_s)
    await client.create(DEPLOYMENTS, made, namespace)


async def _create_statefulset(
    client: Client, namespace: str, name: str, replicas: int, parallel: bool, claims: bool, partition: int
) -> None:
    if claims:
        await _ensure_class(client)
    made = manifests.stateful_set(name, replicas, parallel=parallel, claims=claims, partition=partition)
    await client.create(STATEFULSETS, made, namespace)


async def _create_daemonset(client: Client, namespace: str, name: str, surge: int) -> None:
    await client.create(DAEMONSETS, manifests.daemon_set(name, surge=surge), namespace)


async def _create_controller(client: Client, namespace: str, name: str, replicas: int) -> None:
    await client.create(CONTROLLERS, manifests.replication_controller(name, replicas), namespace)


async def _create_job(
    client: Client,
    namespace: str,
    name: str,
    command: str,
    completions: int,
    parallelism: int,
    indexed: bool,
    backoff_limit: int,
    ttl_s: int | None,
) -> None:
    spec = manifests.job_spec(
        command, completions, parallelism, indexed=indexed, backoff_limit=backoff_limit, ttl_s=ttl_s
    )
    await client.create(JOBS, manifests.job(name, spec), namespace)


async def _create_cronjob(client: Client, namespace: str, name: str, policy: str, command: str) -> None:
    await client.create(CRONJOBS, manifests.cron_job(name, policy, command), namespace)


async def _create_pod(
    client: Client, namespace: str, name: str, command: str, restart: str, claim: str, ephemeral: bool
) -> None:
    if ephemeral:
        await _ensure_class(client)
    made = manifests.bare_pod(name, command, restart, claim, ephemeral=ephemeral)
    await client.create("pods", made, namespace)


async def _ensure_class(client: Client) -> None:
    try:
        await client.get(CLASSES, manifests.STORAGE_CLASS)
    except NotFound:
        await client.create(CLASSES, manifests.storage_class())


async def _create_claim(client: Client, namespace: str, name: str, made_on_demand: bool) -> None:
    if made_on_demand:
        await _ensure_class(client)
    storage_class = manifests.STORAGE_CLASS if made_on_demand else ""
    await client.create(CLAIMS, manifests.claim(name, storage_class), namespace)


async def _create_volume(client: Client, name: str, policy: str) -> None:
    await client.create(VOLUMES, manifests.volume(name, policy))


async def _create_service(client: Client, namespace: str, name: str) -> None:
    await client.create("services", manifests.service(name), namespace)


async def _create_endpoints(client: Client, namespace: str, name: str, addresses: int) -> None:
    """A Service without selector, and by hand what it leads to."""
    await client.create("services", manifests.service(name, selects=False), namespace)
    await client.create("endpoints", manifests.endpoints(name, addresses), namespace)


async def _set_endpoints(client: Client, namespace: str, name: str, addresses: int) -> None:
    subsets = manifests.endpoints(name, addresses)["subsets"]
    await client.patch("endpoints", name, {"subsets": subsets}, "merge", namespace)


async def _create_budget(client: Client, namespace: str, name: str, minimum: Any) -> None:
    await client.create(BUDGETS, manifests.budget(name, minimum), namespace)


async def _create_quota(client: Client, namespace: str, name: str, pods: int, configs: int) -> None:
    await client.create(QUOTAS, manifests.quota(name, pods, configs), namespace)


async def _set_quota(client: Client, namespace: str, name: str, pods: int) -> None:
    await client.patch(QUOTAS, name, {"spec": {"hard": {"pods": str(pods)}}}, "merge", namespace)


async def _create_config(client: Client, namespace: str, name: str) -> None:
    await client.create(CONFIGS, manifests.config(name), namespace)


async def _owned_config(client: Client, namespace: str, name: str, config: str) -> None:
    reference = manifests.owner(await client.get(DEPLOYMENTS, name, namespace))
    await client.create(CONFIGS, manifests.config(config, [reference]), namespace)


async def _own_in_a_circle(client: Client, namespace: str, name: str, blocks: bool) -> None:
    """Two objects that own each other: neither goes unless somebody deletes one."""
    one = await client.get(CONFIGS, name, namespace)
    other = manifests.config(f"{name}-twin", [manifests.owner(one, blocks=blocks)])
    twin = (await client.create(CONFIGS, other, namespace)).object
    patch = {"metadata": {"ownerReferences": [manifests.owner(twin, blocks=blocks)]}}
    await client.patch(CONFIGS, name, patch, "merge", namespace)


async def _delete_namespaced(
    resource: str, client: Client, namespace: str, name: str, propagation: str = ""
) -> None:
    await client.delete(resource, name, namespace, propagation=propagation)


async def _delete_cluster_wide(resource: str, client: Client, name: str) -> None:
    await client.delete(resource, name)


async def _scale_to(resource: str, client: Client, namespace: str, name: str, replicas: int) -> None:
    await client.patch(resource, name, {"spec": {"replicas": replicas}}, "merge", namespace)


async def _set_image_of(resource: str, client: Client, namespace: str, name: str, image: str) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
    await client.patch(resource, name, patch, "strategic", namespace)


async def _set_field(
    resource: str, field: str, value: Any, client: Client, namespace: str, name: str
) -> None:
    await client.patch(resource, name, {"spec": {field: value}}, "merge", namespace)


async def _create_namespace(client: Client, name: str) -> None:
    await client.create("namespaces", manifests.namespace(name))


async def _delete_pod(client: Client, index: int) -> None:
    metadata = (await chosen(client, "pods", index))["metadata"]
    await client.delete("pods", metadata["name"], metadata["namespace"], uid=metadata["uid"])


async def _force_delete_pod(client: Client, index: int) -> None:
    """Gone at once, whatever the node says."""
    metadata = (await chosen(client, "pods", index))["metadata"]
    await client.delete("pods", metadata["name"], metadata["namespace"], uid=metadata["uid"], grace_s=0)


async def _evict_pod(client: Client, index: int) -> None:
    metadata = (await chosen(client, "pods", index))["metadata"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    }
    await client.create(
        "pods", eviction, metadata["namespace"], name=metadata["name"], subresource="eviction"
    )


async def _release_pod(client: Client, index: int) -> None:
    """Relabel a pod so that its owner's selector no longer matches."""
    metadata = (await chosen(client, "pods", index))["metadata"]
    patch = {"metadata": {"labels": {"app": "released"}}}
    await client.patch("pods", metadata["name"], patch, "merge", metadata["namespace"])


async def _delete_replicaset(client: Client, index: int) -> None:
    metadata = (await chosen(client, "replicasets.apps", index))["metadata"]
    await client.delete("replicasets.apps", metadata["name"], metadata["namespace"])


async def _delete_job(client: Client, index: int, propagation: str) -> None:
    metadata = (await chosen(client, JOBS, index))["metadata"]
    await client.delete(JOBS, metadata["name"], metadata["namespace"], propagation=propagation)


async def _delete_slice(client: Client, index: int) -> None:
    """What a controller made, it must make again; the slice of the API itself is nobody's."""
    items = (await client.list(SLICES, label_selector=f"{MANAGED_BY} in ({', '.join(MANAGERS)})")).items
    if items:
        metadata = items[index % len(items)]["metadata"]
        await client.delete(SLICES, metadata["name"], metadata["namespace"])


async def _taint_node(client: Client, node: int, effect: str) -> None:
    found = await chosen(client, "nodes", node)
    taints = [t for t in found["spec"].get("taints", ()) if t["key"] != "simulated"]
    taints.append({"key": "simulated", "value": "yes", "effect": effect})
    await _set_taints(client, found, taints)


async def _untaint_node(client: Client, node: int) -> None:
    await untaint(client, await chosen(client, "nodes", node))


async def untaint(client: Client, node: Json) -> None:
    taints = node["spec"].get("taints", ())
    kept = [t for t in taints if t["key"] != "simulated"]
    if len(kept) != len(taints):
        await _set_taints(client, node, kept)


async def _set_taints(client: Client, node: Json, taints: list[Json]) -> None:
    metadata = node["metadata"]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": {"taints": taints or None}}
    await client.patch("nodes", metadata["name"], patch, "merge")


async def _label_node(client: Client, node: int) -> None:
    found = await chosen(client, "nodes", node)
    zone = "b" if found["metadata"].get("labels", {}).get("topology.kubernetes.io/zone") == "a" else "a"
    patch = {"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}
    await client.patch("nodes", found["metadata"]["name"], patch, "merge")


async def _create_account(client: Client, namespace: str, name: str) -> None:
    """An account with a token that does not expire."""
    await client.create("serviceaccounts", manifests.service_account(name), namespace)
    await client.create("secrets", manifests.account_token(f"{name}-token", name), namespace)


async def _create_role(client: Client, name: str, resource: str) -> None:
    await client.create(ROLES, manifests.cluster_role(name, resource=resource))


async def _aggregate_roles(client: Client, name: str) -> None:
    await client.create(ROLES, manifests.cluster_role(name, aggregates="all"))


async def _create_cidr(client: Client, name: str, cidr: str) -> None:
    await client.create(CIDRS, manifests.service_cidr(name, cidr))


@lru_cache(maxsize=1)
def _request_pem() -> str:
    key = generate_key(SeededEntropy(0, "certificate of a simulated user"))
    return base64.b64encode(create_request(key, "simulated-user", ())).decode()


async def _request_certificate(client: Client, name: str) -> None:
    await client.create(REQUESTS, manifests.certificate_request(name, _request_pem()))


async def _approve_certificate(client: Client, name: str, verdict: str) -> None:
    request = await client.get(REQUESTS, name)
    condition = {"type": verdict, "status": "True", "reason": "Simulated", "message": "as the script has it"}
    conditions = [*request.get("status", {}).get("conditions", ()), condition]
    decided = {**request, "status": {**request.get("status", {}), "conditions": conditions}}
    await client.update(REQUESTS, decided, subresource="approval")


VERBS: Mapping[str, Callable[..., Awaitable[None]]] = {
    **DEVICE_VERBS,
    "create-deployment": _create_deployment,
    "scale": partial(_scale_to, DEPLOYMENTS),
    "set-image": partial(_set_image_of, DEPLOYMENTS),
    "pause": partial(_set_field, DEPLOYMENTS, "paused", True),
    "resume": partial(_set_field, DEPLOYMENTS, "paused", False),
    "delete-deployment": partial(_delete_namespaced, DEPLOYMENTS),
    "create-service": _create_service,
    "delete-service": partial(_delete_namespaced, "services"),
    "create-endpoints": _create_endpoints,
    "set-endpoints": _set_endpoints,
    "delete-slice": _delete_slice,
    "create-namespace": _create_namespace,
    "delete-namespace": partial(_delete_cluster_wide, "namespaces"),
    "delete-pod": _delete_pod,
    "force-delete-pod": _force_delete_pod,
    "release-pod": _release_pod,
    "evict-pod": _evict_pod,
    "delete-replicaset": _delete_replicaset,
    "create-controller": _create_controller,
    "scale-controller": partial(_scale_to, CONTROLLERS),
    "delete-controller": partial(_delete_namespaced, CONTROLLERS),
    "create-statefulset": _create_statefulset,
    "scale-statefulset": partial(_scale_to, STATEFULSETS),
    "update-statefulset": partial(_set_image_of, STATEFULSETS),
    "delete-statefulset": partial(_delete_namespaced, STATEFULSETS),
    "create-daemonset": _create_daemonset,
    "update-daemonset": partial(_set_image_of, DAEMONSETS),
    "delete-daemonset": partial(_delete_namespaced, DAEMONSETS),
    "create-job": _create_job,
    "suspend-job": partial(_set_field, JOBS, "suspend", True),
    "resume-job": partial(_set_field, JOBS, "suspend", False),
    "delete-job": _delete_job,
    "create-cronjob": _create_cronjob,
    "suspend-cronjob": partial(_set_field, CRONJOBS, "suspend", True),
    "delete-cronjob": partial(_delete_namespaced, CRONJOBS),
    "create-pod": _create_pod,
    "create-claim": _create_claim,
    "delete-claim": partial(_delete_namespaced, CLAIMS),
    "create-volume": _create_volume,
    "delete-volume": partial(_delete_cluster_wide, VOLUMES),
    "create-budget": _create_budget,
    "delete-budget": partial(_delete_namespaced, BUDGETS),
    "create-quota": _create_quota,
    "set-quota": _set_quota,
    "delete-quota": partial(_delete_namespaced, QUOTAS),
    "create-config": _create_config,
    "delete-config": partial(_delete_namespaced, CONFIGS),
    "owned-config": _owned_config,
    "own-in-a-circle": _own_in_a_circle,
    "taint-node": _taint_node,
    "untaint-node": _untaint_node,
    "label-node": _label_node,
    "create-account": _create_account,
    "delete-account": partial(_delete_namespaced, "serviceaccounts"),
    "create-role": _create_role,
    "aggregate-roles": _aggregate_roles,
    "delete-role": partial(_delete_cluster_wide, ROLES),
    "create-cidr": _create_cidr,
    "delete-cidr": partial(_delete_cluster_wide, CIDRS),
    "request-certificate": _request_certificate,
    "approve-certificate": _approve_certificate,
}
