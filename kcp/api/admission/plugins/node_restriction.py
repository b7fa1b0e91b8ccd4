"""NodeRestriction: a node agent changes its own Node, its own Lease and the pods that run on it, and nothing else.

Source: k8s v1.36 plugin/pkg/admission/noderestriction/admission.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kcp.api.admission.plugin import Attributes, refused
from kcp.api.admission.plugins.service_account import MIRROR_ANNOTATION
from kcp.api.auth.protocol import UserInfo
from kcp.base.values import frozen
from kcp.machinery.errors import Forbidden, go_quote
from kcp.store.protocol import Head, Key

NODES_GROUP = "system:nodes"
NODE_PREFIX = "system:node:"
LEASE_NAMESPACE = "kube-node-lease"
RESTRICTED_LABEL_DOMAIN = "node-restriction.kubernetes.io"
_KUBELET_LABELS = frozenset({
    "kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os", "node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
})  # fmt: skip
_KUBELET_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")

Json = dict[str, Any]


def node_of(user: UserInfo) -> str | None:
    """The node that a user is, "" for a member of system:nodes with a wrong name, None for anybody else."""
    if NODES_GROUP not in user.groups:
        return None
    return user.name[len(NODE_PREFIX) :] if user.name.startswith(NODE_PREFIX) else ""


def _domain(label: str) -> str:
    return label.partition("/")[0] if "/" in label else ""


def _within(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith(f".{parent}")


def _forbidden_labels(labels: list[str]) -> list[str]:
    """Labels of Kubernetes' own domains that a kubelet may not set on its node."""
    found = []
    for label in labels:
        domain = _domain(label)
        if _within(domain, RESTRICTED_LABEL_DOMAIN):
            found.append(label)
        elif not (_within(domain, "kubernetes.io") or _within(domain, "k8s.io")):
            continue
        elif label not in _KUBELET_LABELS and not any(_within(domain, d) for d in _KUBELET_LABEL_DOMAINS):
            found.append(label)
    return sorted(found)


def _changed_labels(new: Json, old: Json) -> list[str]:
    before, after = old["metadata"].get("labels") or {}, new["metadata"].get("labels") or {}
    return [label for label in {**before, **after} if before.get(label) != after.get(label)]


def _runs_on(pod: Json | None, node: str) -> bool:
    return ((pod or {}).get("spec") or {}).get("nodeName") == node


def _references(spec: Json) -> str | None:
    if spec.get("serviceAccountName"):
        return "a service account"
    for volume in spec.get("volumes") or ():
        for source, text in (
            ("secret", "secrets"),
            ("configMap", "configmaps"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
        ):
            if source in volume:
                return text
    return None


@frozen
class NodeRestriction:
    store: Head
    name: str = "NodeRestriction"

    def handles(self, attributes: Attributes) -> bool:
        return (attributes.kind.resource, attributes.subresource) in _RULES

    def validate(self, attributes: Attributes) -> None:
        node = node_of(attributes.user)
        if node is None:
            return
        if not node:
            raise refused(attributes, f"could not determine node from user {go_quote(attributes.user.name)}")
        _RULES[(attributes.kind.resource, attributes.subresource)](self, attributes, node)

    def pods(self, attributes: Attributes, node: str) -> None:
        if attributes.operation == "CREATE":
            self._mirror_pod(attributes, node)
        elif attributes.operation == "DELETE":
            if not _runs_on(attributes.old, node):
                raise refused(
                    attributes, f"node {go_quote(node)} can only delete pods with spec.nodeName set to itself"
                )
        else:
            raise refused(
                attributes,
                f"unexpected operation {go_quote(attributes.operation)}, node {go_quote(node)} can only create and"
                " delete mirror pods",
            )

    def _mirror_pod(self, attributes: Attributes, node: str) -> None:
        pod, quoted = attributes.new, go_quote(node)
        if MIRROR_ANNOTATION not in (pod["metadata"].get("annotations") or {}):
            raise refused(
                attributes,
                f"pod does not have {go_quote(MIRROR_ANNOTATION)} annotation, node {quoted} can only create mirror pods",
            )
        if not _runs_on(pod, node):
            raise refused(attributes, f"node {quoted} can only create pods with spec.nodeName set to itself")
        what = _references(pod["spec"])
        if what:
            raise refused(attributes, f"node {quoted} can not create pods that reference {what}")
        self._mirror_owner(attributes, node)

    def _mirror_owner(self, attributes: Attributes, node: str) -> None:
        owners, quoted = attributes.new["metadata"].get("ownerReferences") or (), go_quote(node)
        if not owners:
            raise refused(
                attributes, f"node {quoted} can only create pods with an owner reference set to itself"
            )
        if len(owners) > 1:
            raise refused(
                attributes, f"node {quoted} can only create pods with a single owner reference set to itself"
            )
        owner = owners[0]
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise refused(
                attributes, f"node {quoted} can only create pods with an owner reference set to itself"
            )
        record = self.store.get(Key("nodes", "", node))
        if record is None or record.uid != owner.get("uid"):
            raise refused(
                attributes,
                f"node {quoted} UID mismatch: expected {owner.get('uid')} got {record.uid if record else ''}",
            )

    def pod_status(self, attributes: Attributes, node: str) -> None:
        quoted = go_quote(node)
        if not _runs_on(attributes.old, node):
            raise refused(
                attributes,
                f"node {quoted} can only update pod status for pods with spec.nodeName set to itself",
            )
        if attributes.old is not None and _changed_labels(attributes.new, attributes.old):
            raise refused(attributes, f"node {quoted} cannot update labels through pod status")

    def pod_eviction(self, attributes: Attributes, node: str) -> None:
        record = self.store.get(Key("pods", attributes.namespace, attributes.name))
        if record is not None and not _runs_on(record.value, node):
            raise refused(attributes, f"node {node} can only evict pods with spec.nodeName set to itself")

    def nodes(self, attributes: Attributes, node: str) -> None:
        requested = attributes.name or (attributes.object or {}).get("metadata", {}).get("name", "")
        quoted = go_quote(node)
        if requested != node:
            raise refused(attributes, f"node {quoted} is not allowed to modify node {go_quote(requested)}")
        if attributes.operation == "CREATE":
            labels = _forbidden_labels(list(attributes.new["metadata"].get("labels") or {}))
            if labels:
                raise refused(
                    attributes,
                    f"node {quoted} is not allowed to set the following labels: {', '.join(labels)}",
                )
        elif attributes.operation == "UPDATE" and attributes.old is not None:
            self._node_update(attributes, attributes.old, node)

    def _node_update(self, attributes: Attributes, old: Json, node: str) -> None:
        new, quoted = attributes.new, go_quote(node)
        if ((new.get("spec") or {}).get("taints") or []) != ((old.get("spec") or {}).get("taints") or []):
            raise refused(attributes, f"node {quoted} is not allowed to modify taints")
        labels = _forbidden_labels(_changed_labels(new, old))
        if labels:
            raise refused(attributes, f"is not allowed to modify labels: {', '.join(labels)}")

    def leases(self, attributes: Attributes, node: str) -> None:
        if attributes.namespace != LEASE_NAMESPACE:
            raise refused(attributes, f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
        name = attributes.name or attributes.new["metadata"].get("name", "")
        if name != node:
            raise refused(attributes, "can only access node lease with the same name as the requesting node")

    def csi_nodes(self, attributes: Attributes, node: str) -> None:
        name = attributes.name or attributes.new["metadata"].get("name", "")
        if name != node:
            raise refused(attributes, "can only access CSINode with the same name as the requesting node")

    def tokens(self, attributes: Attributes, node: str) -> None:
        bound = ((attributes.new.get("spec") or {}).get("boundObjectRef")) or {}
        if (bound.get("apiVersion"), bound.get("kind")) != ("v1", "Pod") or not bound.get("name"):
            raise refused(attributes, "node requested token not bound to a pod")
        if not bound.get("uid"):
            raise refused(attributes, "node requested token with a pod binding without a uid")
        record = self.store.get(Key("pods", attributes.namespace, bound["name"]))
        if record is None:
            raise Forbidden.of("", "pods", bound["name"], f'pod "{bound["name"]}" not found')
        if record.uid != bound["uid"]:
            raise refused(
                attributes,
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record."
                " The object might have been deleted and then recreated",
            )
        if not _runs_on(record.value, node):
            raise refused(attributes, "node requested token bound to a pod scheduled on a different node")


_RULES: Mapping[tuple[str, str], Callable[[NodeRestriction, Attributes, str], None]] = {
    ("pods", ""): NodeRestriction.pods,
    ("pods", "status"): NodeRestriction.pod_status,
    ("pods", "eviction"): NodeRestriction.pod_eviction,
    ("nodes", ""): NodeRestriction.nodes,
    ("nodes", "status"): NodeRestriction.nodes,
    ("leases.coordination.k8s.io", ""): NodeRestriction.leases,
    ("csinodes.storage.k8s.io", ""): NodeRestriction.csi_nodes,
    ("serviceaccounts", "token"): NodeRestriction.tokens,
}
