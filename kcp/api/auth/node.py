"""The node authorizer: a kubelet may do what its role says, and read only what its own pods refer to.

Users are `system:node:<name>` in group system:nodes. The role `system:node` gives the verbs; secrets, config maps,
claims, volumes and service-account tokens are further limited to those that a pod bound to the node uses, leases and
CSINodes to the node's own. The references are read off the node's pods when asked; there is no graph to keep.
Source: k8s v1.36 plugin/pkg/auth/authorizer/node/node_authorizer.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from kcp.api.auth.protocol import Attributes, Verdict
from kcp.api.auth.rules import Rule
from kcp.apis.semantics.resource_claims import claim_names

Json = dict[str, Any]
NODES_GROUP = "system:nodes"
USER_PREFIX = "system:node:"

PodsOnNode = Callable[[str], Sequence[Json]]
GetObject = Callable[[str, str, str], "Json | None"]
_READS = ("get", "list", "watch")


def node_name(attributes: Attributes) -> str | None:
    """The node that asks; "" for a member of system:nodes without a node's name; None for others."""
    if NODES_GROUP not in attributes.user.groups:
        return None
    name = attributes.user.name
    return name.removeprefix(USER_PREFIX) if name.startswith(USER_PREFIX) else ""


@attrs.define
class NodeAuthorizer:
    """`rules` are those of the ClusterRole system:node."""

    rules: Sequence[Rule]
    pods_on_node: PodsOnNode
    get: GetObject

    def authorize(self, attributes: Attributes) -> tuple[Verdict, str]:
        node = node_name(attributes)
        if node is None:
            return "no opinion", ""
        if not node:
            return "no opinion", f'unknown node for user "{attributes.user.name}"'
        if attributes.resource_request:
            check = _CHECKS.get((attributes.group, attributes.resource))
            if check is not None:
                problem = check(self, attributes, node)
                return ("no opinion", problem) if problem else self._by_role(attributes)
        return self._by_role(attributes)

    def _by_role(self, asked: Attributes) -> tuple[Verdict, str]:
        for rule in self.rules:
            if asked.resource_request:
                allowed = rule.allows_resource(asked.verb, asked.group, asked.resource, asked.subresource)
            else:
                allowed = rule.allows_path(asked.verb, asked.path)
            if allowed:
                return "allow", ""
        return "no opinion", ""


def _referenced(references: Callable[[Json], Iterator[str]], what: str) -> Callable[..., str]:
    """A check that some pod on the node names the object."""

    def check(authorizer: NodeAuthorizer, asked: Attributes, node: str) -> str:
        if asked.verb not in _READS or asked.subresource:
            return f"can only read resources of this type: {asked.verb} is not allowed"
        if not asked.name:
            return f"No Object name found: {what} can only be read one by one"
        for pod in authorizer.pods_on_node(node):
            if pod["metadata"].get("namespace", "") == asked.namespace and asked.name in references(
                pod["spec"]
            ):
                return ""
        return f"no relationship found between node '{node}' and this object"

    return check


def secrets_of(spec: Json) -> Iterator[str]:
    """The Secrets that a pod needs."""
    for reference in spec.get("imagePullSecrets") or ():
        yield reference.get("name", "")
    for volume in spec.get("volumes") or ():
        if "secret" in volume:
            yield volume["secret"].get("secretName", "")
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield (source.get("secret") or {}).get("name", "")
        for plugin in volume.values():
            if isinstance(plugin, dict):
                yield (plugin.get("secretRef") or plugin.get("nodePublishSecretRef") or {}).get("name", "")
    yield from _environment(spec, "secretRef", "secretKeyRef")


def config_maps_of(spec: Json) -> Iterator[str]:
    """The ConfigMaps that a pod needs."""
    for volume in spec.get("volumes") or ():
        yield (volume.get("configMap") or {}).get("name", "")
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield (source.get("configMap") or {}).get("name", "")
    yield from _environment(spec, "configMapRef", "configMapKeyRef")


def _environment(spec: Json, whole: str, one: str) -> Iterator[str]:
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            for source in container.get("envFrom") or ():
                yield (source.get(whole) or {}).get("name", "")
            for variable in container.get("env") or ():
                yield ((variable.get("valueFrom") or {}).get(one) or {}).get("name", "")


def claims_of(spec: Json) -> Iterator[str]:
    """The PersistentVolumeClaims that a pod mounts by name."""
    for volume in spec.get("volumes") or ():
        yield (volume.get("persistentVolumeClaim") or {}).get("claimName", "")


def _resource_claim(authorizer: NodeAuthorizer, asked: Attributes, node: str) -> str:
    """A claim that a pod on the node names, or that was made for it."""
    if asked.verb != "get" or asked.subresource or not asked.name:
        return "can only get individual resources of this type"
    for pod in authorizer.pods_on_node(node):
        if pod["metadata"].get("namespace") == asked.namespace and asked.name in claim_names(pod):
            return ""
    return f"no relationship found between node '{node}' and this object"


def _volume(authorizer: NodeAuthorizer, asked: Attributes, node: str) -> str:
    """A PersistentVolume is reached through a claim that a pod on the node mounts."""
    if asked.verb != "get" or asked.subresource or not asked.name:
        return "can only get individual resources of this type"
    volume = authorizer.get("persistentvolumes", "", asked.name)
    claim = ((volume or {}).get("spec") or {}).get("claimRef") or {}
    namespace, name = claim.get("namespace"), claim.get("name", "")
    for pod in authorizer.pods_on_node(node):
        if pod["metadata"].get("namespace") == namespace and name in claims_of(pod["spec"]):
            return ""
    return f"no relationship found between node '{node}' and this object"


def _account(authorizer: NodeAuthorizer, asked: Attributes, node: str) -> str:
    """Tokens only for accounts of pods on the node; reading accounts is not limited further."""
    if asked.subresource != "token":
        return ""
    for pod in authorizer.pods_on_node(node):
        if (
            pod["metadata"].get("namespace") == asked.namespace
            and pod["spec"].get("serviceAccountName") == asked.name
        ):
            return ""
    return f"no relationship found between node '{node}' and this object"


def _own_lease(authorizer: NodeAuthorizer, asked: Attributes, node: str) -> str:
    if asked.namespace != "kube-node-lease":
        return "can only access leases in the 'kube-node-lease' system namespace"
    if asked.verb != "create" and asked.name != node:
        return f"can only access node lease with the same name as the requesting node: '{node}'"
    return ""


def _own_csi_node(authorizer: NodeAuthorizer, asked: Attributes, node: str) -> str:
    if asked.verb != "create" and asked.name != node:
        return f"can only access CSINode with the same name as the requesting node: '{node}'"
    return ""


def _own_attachment(authorizer: NodeAuthorizer, asked: Attributes, node: str) -> str:
    """A VolumeAttachment of its own, one at a time."""
    if asked.verb != "get" or not asked.name:
        return "can only get individual resources of this type"
    attachment = authorizer.get("volumeattachments.storage.k8s.io", "", asked.name) or {}
    if (attachment.get("spec") or {}).get("nodeName") == node:
        return ""
    return f"no relationship found between node '{node}' and this object"


_CHECKS: dict[tuple[str, str], Callable[[NodeAuthorizer, Attributes, str], str]] = {
    ("", "secrets"): _referenced(secrets_of, "secrets"),
    ("", "configmaps"): _referenced(config_maps_of, "config maps"),
    ("", "persistentvolumeclaims"): _referenced(claims_of, "claims"),
    ("", "persistentvolumes"): _volume,
    ("", "serviceaccounts"): _account,
    ("coordination.k8s.io", "leases"): _own_lease,
    ("storage.k8s.io", "csinodes"): _own_csi_node,
    ("storage.k8s.io", "volumeattachments"): _own_attachment,
    ("resource.k8s.io", "resourceclaims"): _resource_claim,
}
"""(group, resource) -> what else must hold; answers "" or why not."""
