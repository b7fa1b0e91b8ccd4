"""A simulated user: a script of operations made from a seed before anything runs, so that it can be cut short.

    12.40 s  scale         {"name": "web-1", "namespace": "default", "replicas": 5}

An operation that finds nothing to act on does nothing: a script stays a script when operations are left out of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
import attrs

from kcp.base.entropy import Entropy, SeededEntropy
from kcp.client.client import Client
from kcp.machinery.errors import ApiError, NotFound

Json = dict[str, Any]
DEPLOYMENTS = "deployments.apps"
OPERATION_TIMEOUT_S = 30.0
REGISTRY = "registry.example"


@attrs.frozen
class Operation:
    at_s: float
    verb: str
    args: Mapping[str, Any]

    def as_json(self) -> Json:
        return {"at_s": self.at_s, "verb": self.verb, "args": dict(self.args)}


def script(seed: int, duration_s: float, nodes: int = 3) -> tuple[Operation, ...]:
    """What the user of this seed does within `duration_s`, one operation every few seconds."""
    entropy = SeededEntropy(seed, "user")
    writer = _Writer(entropy, nodes)
    operations: list[Operation] = []
    at_s = 0.0
    while True:
        at_s = round(at_s + entropy.uniform(0.0, 0.2 if entropy.below(3) == 0 else 12.0), 3)
        if at_s >= duration_s:
            return tuple(operations)
        verb, args = writer.next()
        operations.append(Operation(at_s, verb, args))


@attrs.define
class _Writer:
    """Knows what the script has made so far, so that most operations find their target."""

    entropy: Entropy
    nodes: int
    apps: list[tuple[str, str]] = attrs.field(factory=list)
    namespaces: list[str] = attrs.field(factory=lambda: ["default"])
    made: int = 0

    def next(self) -> tuple[str, Json]:
        verb = _WEIGHTED[self.entropy.below(len(_WEIGHTED))]
        if not self.apps and verb in _NEED_APP:
            verb = "create-deployment"
        args = getattr(self, "_" + verb.replace("-", "_"), self._an_app)()
        return verb, args

    def _number(self) -> int:
        self.made += 1
        return self.made

    def _an_app(self) -> Json:
        namespace, name = self.apps[self.entropy.below(len(self.apps))]
        return {"namespace": namespace, "name": name}

    def _create_deployment(self) -> Json:
        namespace = self.namespaces[self.entropy.below(len(self.namespaces))]
        name = f"web-{self.entropy.below(6)}"
        if (namespace, name) not in self.apps:
            self.apps.append((namespace, name))
        surge, unavailable = _BOUNDS[self.entropy.below(len(_BOUNDS))]
        return {
            "namespace": namespace,
            "name": name,
            "replicas": self.entropy.below(7),
            "surge": surge,
            "unavailable": unavailable,
            "recreate": self.entropy.below(6) == 0,
            "tolerate_s": (None, None, 45)[self.entropy.below(3)],
        }

    def _scale(self) -> Json:
        return {**self._an_app(), "replicas": self.entropy.below(10)}

    def _set_image(self) -> Json:
        return {**self._an_app(), "image": f"{REGISTRY}/app:{self.entropy.below(4)}"}

    def _delete_deployment(self) -> Json:
        app = self._an_app()
        return {**app, "propagation": ("Background", "Foreground", "Orphan")[self.entropy.below(3)]}

    def _create_namespace(self) -> Json:
        name = f"team-{self.entropy.below(3)}"
        if name not in self.namespaces:
            self.namespaces.append(name)
        return {"name": name}

    def _delete_namespace(self) -> Json:
        return {"name": f"team-{self.entropy.below(3)}"}

    def _pick(self) -> Json:
        return {"index": self.entropy.below(1000)}

    _delete_pod = _pick
    _release_pod = _pick
    _delete_replicaset = _pick

    def _owned_config(self) -> Json:
        return {**self._an_app(), "config": f"config-{self._number()}"}

    def _node(self) -> Json:
        return {"node": self.entropy.below(max(1, self.nodes))}

    def _taint_node(self) -> Json:
        return {**self._node(), "effect": ("NoSchedule", "NoExecute")[self.entropy.below(2)]}

    _untaint_node = _node
    _label_node = _node


_BOUNDS = (("25%", "25%"), (1, 0), (0, 1), ("100%", 0), (2, 1))
_WEIGHTS = (
    ("create-deployment", 8),
    ("scale", 8),
    ("set-image", 8),
    ("pause", 1),
    ("resume", 2),
    ("delete-deployment", 3),
    ("create-service", 3),
    ("delete-service", 1),
    ("create-namespace", 2),
    ("delete-namespace", 1),
    ("delete-pod", 4),
    ("release-pod", 1),
    ("delete-replicaset", 1),
    ("owned-config", 2),
    ("taint-node", 2),
    ("untaint-node", 3),
    ("label-node", 1),
)
_WEIGHTED = tuple(verb for verb, weight in _WEIGHTS for _ in range(weight))
_NEED_APP = frozenset(
    {
        "scale",
        "set-image",
        "pause",
        "resume",
        "delete-deployment",
        "create-service",
        "delete-service",
        "owned-config",
    }
)


async def play(client: Client, operations: Sequence[Operation], said: list[str]) -> None:
    """Do all of it at its time; `said` gets a line per operation."""
    started_s = anyio.current_time()
    for operation in operations:
        await anyio.sleep_until(started_s + operation.at_s)
        said.append(
            f"{operation.at_s:9.3f} {operation.verb} {dict(operation.args)}: {await perform(client, operation)}"
        )


async def perform(client: Client, operation: Operation) -> str:
    """`ok`, or why the API refused; a user does not insist."""
    try:
        with anyio.fail_after(OPERATION_TIMEOUT_S):
            await _VERBS[operation.verb](client, **operation.args)
    except ApiError as error:
        return f"{error.reason}: {error.message}"
    except TimeoutError:
        return "no answer"
    return "ok"


async def tidy(client: Client) -> None:
    """Take back what would keep a cluster from coming to rest: taints of ours, pauses."""
    for node in (await client.list("nodes")).items:
        await _untaint(client, node)
    for deployment in (await client.list(DEPLOYMENTS)).items:
        if deployment["spec"].get("paused"):
            metadata = deployment["metadata"]
            await client.patch(
                DEPLOYMENTS, metadata["name"], {"spec": {"paused": False}}, "merge", metadata["namespace"]
            )


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
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    container = {
        "name": "main",
        "image": f"{REGISTRY}/app:0",
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}},
    }
    spec: Json = {"containers": [container], "terminationGracePeriodSeconds": 5}
    if tolerate_s is not None:
        spec["tolerations"] = [
            {"key": "simulated", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": tolerate_s}
        ]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "Recreate"} if recreate else rolling,
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }
    await client.create(DEPLOYMENTS, deployment, namespace)


async def _scale(client: Client, namespace: str, name: str, replicas: int) -> None:
    await client.patch(DEPLOYMENTS, name, {"spec": {"replicas": replicas}}, "merge", namespace)


async def _set_image(client: Client, namespace: str, name: str, image: str) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
    await client.patch(DEPLOYMENTS, name, patch, "strategic", namespace)


async def _pause(client: Client, namespace: str, name: str) -> None:
    await client.patch(DEPLOYMENTS, name, {"spec": {"paused": True}}, "merge", namespace)


async def _resume(client: Client, namespace: str, name: str) -> None:
    await client.patch(DEPLOYMENTS, name, {"spec": {"paused": False}}, "merge", namespace)


async def _delete_deployment(client: Client, namespace: str, name: str, propagation: str) -> None:
    await client.delete(DEPLOYMENTS, name, namespace, propagation=propagation)


async def _create_service(client: Client, namespace: str, name: str) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "type": "NodePort", "ports": [{"port": 80, "targetPort": 8080}]},
    }
    await client.create("services", service, namespace)


async def _delete_service(client: Client, namespace: str, name: str) -> None:
    await client.delete("services", name, namespace)


async def _create_namespace(client: Client, name: str) -> None:
    await client.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


async def _delete_namespace(client: Client, name: str) -> None:
    await client.delete("namespaces", name)


async def _chosen(client: Client, resource: str, index: int) -> Json:
    items = (await client.list(resource)).items
    if not items:
        raise NotFound("simulated: there is none")
    return items[index % len(items)]


async def _delete_pod(client: Client, index: int) -> None:
    metadata = (await _chosen(client, "pods", index))["metadata"]
    await client.delete("pods", metadata["name"], metadata["namespace"], uid=metadata["uid"])


async def _release_pod(client: Client, index: int) -> None:
    """Relabel a pod so that its owner's selector no longer matches."""
    metadata = (await _chosen(client, "pods", index))["metadata"]
    patch = {"metadata": {"labels": {"app": "released"}}}
    await client.patch("pods", metadata["name"], patch, "merge", metadata["namespace"])


async def _delete_replicaset(client: Client, index: int) -> None:
    metadata = (await _chosen(client, "replicasets.apps", index))["metadata"]
    await client.delete("replicasets.apps", metadata["name"], metadata["namespace"])


async def _owned_config(client: Client, namespace: str, name: str, config: str) -> None:
    owner = await client.get(DEPLOYMENTS, name, namespace)
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": owner["metadata"]["uid"]}
    metadata = {"name": config, "ownerReferences": [reference]}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"of": name}}
    await client.create("configmaps", body, namespace)


async def _taint_node(client: Client, node: int, effect: str) -> None:
    found = await _chosen(client, "nodes", node)
    taints = [t for t in found["spec"].get("taints", ()) if t["key"] != "simulated"]
    taints.append({"key": "simulated", "value": "yes", "effect": effect})
    await _set_taints(client, found, taints)


async def _untaint_node(client: Client, node: int) -> None:
    await _untaint(client, await _chosen(client, "nodes", node))


async def _untaint(client: Client, node: Json) -> None:
    taints = node["spec"].get("taints", ())
    kept = [t for t in taints if t["key"] != "simulated"]
    if len(kept) != len(taints):
        await _set_taints(client, node, kept)


async def _set_taints(client: Client, node: Json, taints: list[Json]) -> None:
    metadata = node["metadata"]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": {"taints": taints or None}}
    await client.patch("nodes", metadata["name"], patch, "merge")


async def _label_node(client: Client, node: int) -> None:
    found = await _chosen(client, "nodes", node)
    zone = "b" if found["metadata"].get("labels", {}).get("topology.kubernetes.io/zone") == "a" else "a"
    patch = {"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}
    await client.patch("nodes", found["metadata"]["name"], patch, "merge")


_VERBS: Mapping[str, Callable[..., Awaitable[None]]] = {
    "create-deployment": _create_deployment,
    "scale": _scale,
    "set-image": _set_image,
    "pause": _pause,
    "resume": _resume,
    "delete-deployment": _delete_deployment,
    "create-service": _create_service,
    "delete-service": _delete_service,
    "create-namespace": _create_namespace,
    "delete-namespace": _delete_namespace,
    "delete-pod": _delete_pod,
    "release-pod": _release_pod,
    "delete-replicaset": _delete_replicaset,
    "owned-config": _owned_config,
    "taint-node": _taint_node,
    "untaint-node": _untaint_node,
    "label-node": _label_node,
}
