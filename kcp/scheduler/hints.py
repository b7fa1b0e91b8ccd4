"""Which events can make a rejected pod schedulable: per plugin, the events it waits for and a look at the event.

A hint that is not sure says yes: a needless attempt costs little, a missed one leaves a pod waiting for five minutes.
Source: k8s v1.36 pkg/scheduler/framework/plugins/*/ (EventsToRegister and their queueing hint functions).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from kcp.apis.semantics import affinity, pods, taints
from kcp.apis.semantics.declared_features import required_features
from kcp.apis.semantics.resource_claims import claim_statuses
from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.scheduler.cluster_state import ATTACHMENTS, RESOURCES, ClusterState
from kcp.scheduler.dra.claims import ClaimUnusable, claims_of
from kcp.scheduler.dra.devices import CLAIMS, CLASSES, SLICES, allocation_of
from kcp.scheduler.dra.extended import backed, is_special, owner_of
from kcp.scheduler.pod_class import PodInfo, claim_names

Json = dict[str, Any]
Action = Literal["add", "delete", "allocatable", "label", "taint", "features", "scale down", "update"]
"""What happened: `add` and `delete` of nodes and of pods that run on a node; else what changed."""


@frozen
class ClusterEvent:
    resource: str
    actions: tuple[Action, ...]
    old: Json | None
    new: Json | None

    @property
    def object(self) -> Json:
        obj = self.new if self.new is not None else self.old
        assert obj is not None
        return obj


Hint = Callable[[ClusterState, PodInfo, ClusterEvent], bool]


def node_changes(old: Json, new: Json) -> tuple[Action, ...]:
    found: list[Action] = []
    before, after = old.get("status") or {}, new.get("status") or {}
    if before.get("allocatable") != after.get("allocatable"):
        found.append("allocatable")
    if meta.labels(old) != meta.labels(new):
        found.append("label")
    old_spec, new_spec = old.get("spec") or {}, new.get("spec") or {}
    if old_spec.get("taints") != new_spec.get("taints") or old_spec.get("unschedulable") != new_spec.get(
        "unschedulable"
    ):
        found.append("taint")
    if before.get("declaredFeatures") != after.get("declaredFeatures"):
        found.append("features")
    return tuple(found)


def pod_changes(old: Json, new: Json) -> tuple[Action, ...]:
    """What changed of a pod that runs on a node, as far as it can free something for others."""
    found: list[Action] = []
    if meta.labels(old) != meta.labels(new):
        found.append("label")
    if old["spec"] != new["spec"] or _allocated(old) != _allocated(new):
        before, after = pods.requests(old), pods.requests(new)
        if any(name not in after or after[name] < amount for name, amount in before.items()):
            found.append("scale down")
    return tuple(found)


def _allocated(pod: Json) -> list[Any]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return [(s.get("resources"), s.get("allocatedResources")) for s in statuses if "resources" in s]


def always(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    return True


def _amounts(node: Json) -> dict[str, int]:
    return pods.amounts(pods.resource_list((node.get("status") or {}).get("allocatable")))


def node_can_fit(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    """The node, were it empty, has room; and, if it was there before, more of something the pod asks for."""
    after = _amounts(event.object)
    if after.get("pods", 0) < 1 or any(after.get(name, 0) < amount for name, amount in info.cls.shape.real):
        return False
    if event.old is None:
        return True
    before = _amounts(event.old)
    wanted = ("pods", *(name for name, _ in info.cls.shape.real))
    return any(after.get(name, 0) > before.get(name, 0) for name in wanted)


def node_selected_now(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    def selected(node: Json) -> bool:
        return affinity.pod_matches_node(info.pod, meta.labels(node), meta.name(node))

    return selected(event.object) and (event.old is None or not selected(event.old))


def node_tolerated_now(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    def tolerated(node: Json) -> bool:
        return taints.find_untolerated(taints.taints(node), info.cls.tolerations) is None

    return tolerated(event.object) and (event.old is None or not tolerated(event.old))


def node_uncordoned(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    def cordoned(node: Json | None) -> bool:
        return node is None or bool((node.get("spec") or {}).get("unschedulable"))

    return cordoned(event.old) and not cordoned(event.new)


def node_has_a_key(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    """The node (as it was or is) lies in a domain of one of the pod's terms; pods without own terms always ask."""
    cls = info.cls
    keys = {term.key for term in (*cls.required, *cls.required_anti)}
    return not keys or any(key in meta.labels(node) for key in keys for node in _both(event))


def _both(event: ClusterEvent) -> list[Json]:
    return [obj for obj in (event.old, event.new) if obj is not None]


def ports_freed(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    wanted = {(protocol, port) for _, protocol, port in info.cls.ports}
    return any((protocol, port) in wanted for _, protocol, port in pods.host_ports(event.object))


def affinity_changed(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    """A pod came that this one wants to be near, or one went that keeps it away."""
    cls = info.cls

    def matches(terms: Any, pod: Json, every: bool) -> bool:
        namespace = meta.namespace(pod)
        found = (
            t.matcher.matches(namespace, meta.labels(pod), state.namespace_labels(namespace)) for t in terms
        )
        return all(found) if every else any(found)

    came = event.new is not None and bool(cls.required) and matches(cls.required, event.new, True)
    if came:
        return True
    if event.old is None:
        return False
    if matches(cls.required_anti, event.old, False):
        return True
    other = state.class_of(event.old)
    labels = state.namespace_labels(cls.namespace)
    return any(t.matcher.matches(cls.namespace, cls.labels, labels) for t in other.required_anti)


def spread_changed(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    cls = info.cls
    if meta.namespace(event.object) != cls.namespace:
        return False
    constraints = cls.hard_spread
    return not constraints or any(
        c.group.selector.matches(meta.labels(o)) for c in constraints for o in _both(event)
    )


def node_has_spread_keys(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    keys = [c.key for c in info.cls.hard_spread]
    return any(all(key in meta.labels(node) for key in keys) for node in _both(event))


def own_claim(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    claim = event.object
    if meta.namespace(claim) != info.cls.namespace:
        return False
    return meta.name(claim) in [name for name, _ in claim_names(info)]


def used_volumes(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    return bool((event.object.get("spec") or {}).get("volumes"))


def device_claim_changed(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    """Devices came free, or one of the pod's own claims came or changed its status."""
    old, new = event.old, event.new
    if new is None:
        return False
    try:
        own = claims_of(info.pod, state.objects[CLAIMS])
    except ClaimUnusable:
        return False
    if old is not None and allocation_of(old) is not None and allocation_of(new) is None:
        return True
    if all(meta.uid(claim) != meta.uid(new) for claim in own):
        return False
    return old is None or old.get("status") != new.get("status")


def own_special_claim_gone(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    """The claim that was made for its extended resources in an attempt that failed."""
    return is_special(event.object) and owner_of(event.object) == info.uid


def class_serves(state: ClusterState, info: PodInfo, event: ClusterEvent) -> bool:
    """The class stands behind an extended resource that the pod asks for."""
    served = backed(info.cls.shape, state.device_classes)
    return any(state.device_classes[name] == meta.name(event.object) for name in served)


_POD, _NODE = "pods", "nodes"
_CLAIM, _VOLUME = "persistentvolumeclaims", "persistentvolumes"
_CLASS, _CSI_NODE = "storageclasses.storage.k8s.io", "csinodes.storage.k8s.io"
_STORAGE: tuple[tuple[str, tuple[Action, ...], Hint], ...] = (
    (_CLAIM, ("add", "update"), own_claim),
    (_VOLUME, ("add", "update"), always),
    (_CLASS, ("add", "update"), always),
)
ANY = "Any"
"""Stands for plugins that do not say what they wait for, users' and extenders: everything may help."""
ANY_ACTION: tuple[Action, ...] = (
    "add", "delete", "allocatable", "label", "taint", "features", "scale down", "update",
)  # fmt: skip
HINTS: Mapping[str, tuple[tuple[str, tuple[Action, ...], Hint], ...]] = {
    "NodeResourcesFit": (
        (_POD, ("delete", "scale down"), always),
        (_NODE, ("add", "allocatable"), node_can_fit),
        (CLASSES, ("add", "update"), class_serves),
    ),
    "NodeAffinity": ((_NODE, ("add", "label"), node_selected_now),),
    "NodeName": ((_NODE, ("add",), always),),
    "TaintToleration": ((_NODE, ("add", "taint"), node_tolerated_now),),
    "NodeUnschedulable": ((_NODE, ("add", "taint"), node_uncordoned),),
    "NodePorts": ((_POD, ("delete",), ports_freed), (_NODE, ("add",), always)),
    "InterPodAffinity": (
        (_POD, ("add", "label", "delete"), affinity_changed),
        (_NODE, ("add", "label"), node_has_a_key),
    ),
    "PodTopologySpread": (
        (_POD, ("add", "label", "delete"), spread_changed),
        (_NODE, ("add", "delete", "label", "taint"), node_has_spread_keys),
    ),
    "VolumeBinding": (
        *_STORAGE,
        (_CSI_NODE, ("add", "update"), always),
        ("csistoragecapacities.storage.k8s.io", ("add", "update"), always),
        ("csidrivers.storage.k8s.io", ("update",), always),
        (_NODE, ("add", "label"), always),
    ),
    "NodeVolumeLimits": (
        (_CSI_NODE, ("add", "update"), always),
        (_POD, ("delete",), used_volumes),
        (_CLAIM, ("add",), own_claim),
        (ATTACHMENTS, ("delete",), always),
    ),
    "VolumeZone": (*_STORAGE, (_NODE, ("add", "label"), always)),
    "TenantQueue": (
        (_POD, ("delete", "scale down"), always),
        (_NODE, ("add", "allocatable"), always),
    ),
    "VolumeRestrictions": (
        (_POD, ("delete",), used_volumes),
        (_NODE, ("add",), always),
        (_CLAIM, ("add",), own_claim),
    ),
    "DynamicResources": (
        (_NODE, ("add", "label", "allocatable"), always),
        (CLAIMS, ("add", "update"), device_claim_changed),
        (CLAIMS, ("delete",), own_special_claim_gone),
        (CLASSES, ("add", "update"), always),
        (SLICES, ("add", "update"), always),
    ),
    "NodeDeclaredFeatures": ((_NODE, ("add", "features"), always),),
    ANY: tuple((resource, ANY_ACTION, always) for resource in RESOURCES),
}
OWN_CHANGES: Mapping[str, tuple[str, ...]] = {
    ANY: ("labels", "tolerations", "gates", "requests"),
    "NodeResourcesFit": ("requests",),
    "TenantQueue": ("requests", "labels"),
    "TaintToleration": ("tolerations",),
    "NodeUnschedulable": ("tolerations",),
    "InterPodAffinity": ("labels",),
    "PodTopologySpread": ("labels", "tolerations"),
    "SchedulingGates": ("gates",),
    "DynamicResources": ("claims",),
    "NodeDeclaredFeatures": ("features",),
}
"""Which changes of the waiting pod itself can help, by the plugin that rejected it."""


def own_changes(old: Json, new: Json) -> tuple[str, ...]:
    found = []
    if meta.labels(old) != meta.labels(new):
        found.append("labels")
    before, after = old["spec"], new["spec"]
    if before.get("tolerations") != after.get("tolerations"):
        found.append("tolerations")
    if (before.get("schedulingGates") or []) != (after.get("schedulingGates") or []):
        found.append("gates")
    if pods.requests(old) != pods.requests(new):
        found.append("requests")
    if claim_statuses(old) != claim_statuses(new):
        found.append("claims")
    if required_features(before) != required_features(after):
        found.append("features")
    return tuple(found)


def waits_for(plugin: str) -> str:
    """Under which name the events that can help against a plugin are listed."""
    return plugin if plugin in HINTS or plugin in OWN_CHANGES else ANY


def interested(event: ClusterEvent) -> dict[str, list[Hint]]:
    """Plugin -> its hints for this event."""
    found: dict[str, list[Hint]] = {}
    for plugin, rows in HINTS.items():
        for resource, actions, hint in rows:
            if resource == event.resource and any(action in actions for action in event.actions):
                found.setdefault(plugin, []).append(hint)
    return found
