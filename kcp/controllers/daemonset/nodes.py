"""Which nodes a DaemonSet runs on, and the pod it makes for one of them.

Source: k8s v1.36 pkg/controller/daemon/daemon_controller.go (NodeShouldRunDaemonPod), util/daemonset_util.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kcp.apis.semantics import affinity, pods, taints
from kcp.apis.semantics.workloads import CONTROLLER_REVISION_HASH
from kcp.base.values import frozen
from kcp.controllers.replicas import pod_from_template
from kcp.machinery import meta

Json = dict[str, Any]

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
TEMPLATE_GENERATION_LABEL = "pod-template-generation"

_EVERYWHERE = (
    (taints.NOT_READY, taints.NO_EXECUTE),
    (taints.UNREACHABLE, taints.NO_EXECUTE),
    (taints.DISK_PRESSURE, taints.NO_SCHEDULE),
    (taints.MEMORY_PRESSURE, taints.NO_SCHEDULE),
    (taints.PID_PRESSURE, taints.NO_SCHEDULE),
    (taints.UNSCHEDULABLE, taints.NO_SCHEDULE),
)
"""What every daemon pod tolerates."""


def tolerations(spec: Json) -> list[Json]:
    """The template's tolerations with those that a daemon needs."""
    wanted = list(spec.get("tolerations") or ())
    extra = ((taints.NETWORK_UNAVAILABLE, taints.NO_SCHEDULE),) if spec.get("hostNetwork") else ()
    for key, effect in (*_EVERYWHERE, *extra):
        wanted = taints.add_toleration(wanted, {"key": key, "operator": "Exists", "effect": effect})
    return wanted


@frozen
class Fitness:
    """Where the pods of one template belong; made once per plan, asked for every node."""

    spec: Json
    tolerations: Sequence[Json]

    @classmethod
    def of(cls, daemon_set: Json) -> Fitness:
        spec = daemon_set["spec"]["template"]["spec"]
        return cls(spec, tolerations(spec))

    def judge(self, node: Json) -> tuple[bool, bool]:
        """(should run, should continue running)"""
        name = meta.name(node)
        if self.spec.get("nodeName") not in (None, "", name):
            return False, False
        if not affinity.pod_matches_node({"spec": self.spec}, meta.labels(node), name):
            return False, False
        of_node = taints.taints(node)
        if taints.find_untolerated(of_node, self.tolerations) is None:
            return True, True
        stays = taints.find_untolerated(of_node, self.tolerations, (taints.NO_EXECUTE,)) is None
        return False, stays


def new_pod(daemon_set: Json, node_name: str, hash_: str) -> Json:
    """The pod for a node. The scheduler binds it: it is pinned by affinity, not by nodeName."""
    pod = pod_from_template(daemon_set, daemon_set["spec"]["template"])
    labels = {**meta.labels(pod), CONTROLLER_REVISION_HASH: hash_}
    generation = template_generation(daemon_set)
    if generation:
        labels[TEMPLATE_GENERATION_LABEL] = generation
    spec = {
        **pod["spec"],
        "affinity": pinned(pod["spec"].get("affinity"), node_name),
        "tolerations": tolerations(pod["spec"]),
    }
    return {**pod, "metadata": {**pod["metadata"], "labels": labels}, "spec": spec}


def pinned(given: Json | None, node_name: str) -> Json:
    """Affinity that allows exactly this node; preferences and pod affinities stay."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node_name]}]}
    node_affinity = {
        **((given or {}).get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
    }
    return {**(given or {}), "nodeAffinity": node_affinity}


def template_generation(daemon_set: Json) -> str:
    return meta.annotations(daemon_set).get(TEMPLATE_GENERATION, "")


def target_node(pod: Json) -> str:
    """Where the pod is or will be; "" when it is not a daemon's pod."""
    if pods.node_name(pod):
        return pods.node_name(pod)
    names = affinity.pinned_names(pod)
    return min(names) if names else ""


def by_node(owned: Sequence[Json]) -> Mapping[str, list[Json]]:
    """The pods by node; those that ended and are on their way out do not count."""
    found: dict[str, list[Json]] = {}
    for pod in owned:
        if not (pods.is_terminal(pod) and pods.is_deleting(pod)):
            found.setdefault(target_node(pod), []).append(pod)
    return {name: sorted(of_node, key=oldest_first) for name, of_node in found.items()}


def oldest_first(pod: Json) -> tuple[bool, str, str]:
    return not pods.is_assigned(pod), pod["metadata"].get("creationTimestamp") or "", meta.name(pod)


def is_updated(daemon_set: Json, pod: Json, hash_: str) -> bool:
    """Whether the pod is of the present template, by hash or by the older generation label."""
    labels = meta.labels(pod)
    generation = template_generation(daemon_set)
    by_generation = bool(generation) and labels.get(TEMPLATE_GENERATION_LABEL) == generation
    return by_generation or (bool(hash_) and labels.get(CONTROLLER_REVISION_HASH) == hash_)
