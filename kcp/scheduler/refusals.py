"""The numbers behind a refusal: what a plugin saw on one node that made it say no.

`numbers(cycle, plugin, index)` gives a JSON object whose form depends on the plugin:

    NodeResourcesFit     {"pods": {"running", "allowed"}, "cpu": {"needs", "free", "allocatable", "held by": […]}, …}
    TaintToleration      {"taint": {…}}
    NodeAffinity         {"selector": [{"key", "operator", "values", "has"}], "terms": [[…what fails in each term…]]}
    NodePorts            {"ports": [{"port", "protocol", "address", "held by": […]}]}
    PodTopologySpread    {"constraints": [{"key", "domain", "matching", "least", "self", "max skew"}]}
    InterPodAffinity     {"terms": [{"says", "key", "domain", "selector", "pods": […]}]}
    NodeVolumeLimits     {"drivers": [{"driver", "attached", "new", "limit"}]}
    VolumeRestrictions   {"held by": […]}
    VolumeZone           {"zones": [{"key", "wants": […], "has"}]}
    VolumeBinding        {"claims": [{"claim", "volume", "storage class", "asks"}]}
    DynamicResources     {"claims": […, that cannot be used there], "requests": [{"claim", "request", "wants", "devices": [{"device", "why"}]}]}
    NodeDeclaredFeatures {"needs": […], "lacks": […]}
    NodeName             {"wants"}
    TenantQueue          {"queues": [{"queue", "used", "capability", "due"}]}, from the pod's to the topmost

A user's plugin may have a method `explain(pod, node)` that gives such an object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kcp.apis.semantics import affinity, taints
from kcp.apis.semantics import volumes as volume_facts
from kcp.apis.semantics.declared_features import required_features
from kcp.machinery import meta
from kcp.scheduler.cluster_state import NodeInfo
from kcp.scheduler.dra.refusals import requests_on
from kcp.scheduler.framework.node_views import Node
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.plugins import (
    dynamic_resources,
    node_ports,
    node_volume_limits,
    pod_topology_spread,
    volume_matching,
    volume_restrictions,
    volume_zone,
)
from kcp.scheduler.pod_class import PodInfo, claim_names
from kcp.scheduler.terms import Term

Json = dict[str, Any]


def numbers(cycle: Cycle, plugin: Any, index: int) -> Json:
    """What stands behind the refusal of `plugin` on the node of that index."""
    own = getattr(getattr(plugin, "plugin", None), "explain", None)
    if own is not None:
        return dict(own(cycle.info.pod, Node(cycle.state.infos[index])) or {})
    known = _NUMBERS.get(plugin.name)
    return known(cycle, index) if known is not None else {}


def _keys(pods: list[PodInfo]) -> list[str]:
    return sorted(pod.key for pod in pods)


def _room(cycle: Cycle, index: int) -> Json:
    state, node = cycle.state, cycle.state.infos[index]
    found: Json = {"pods": {"running": state.pod_count.item(index), "allowed": state.max_pods.item(index)}}
    for name, amount in cycle.cls.shape.real:
        column = state.column(name)
        allocatable = column.allocatable.item(index)
        found[name] = {
            "needs": amount,
            "free": allocatable - column.requested.item(index),
            "allocatable": allocatable,
            "held by": _keys([p for p in node.pods.values() if p.cls.shape.request(name)]),
        }
    return found


def _taint(cycle: Cycle, index: int) -> Json:
    found = taints.find_untolerated(cycle.state.infos[index].taints, cycle.cls.tolerations)
    return {"taint": found} if found is not None else {}


def _name(cycle: Cycle, index: int) -> Json:
    return {"wants": cycle.info.pod["spec"].get("nodeName")}


# --- node affinity ---


def _selection(cycle: Cycle, index: int) -> Json:
    node = cycle.state.infos[index]
    selector = cycle.info.pod["spec"].get("nodeSelector") or {}
    found: Json = {}
    wrong = [_with_label(node, _equals(key, value)) for key, value in selector.items()]
    wrong = [entry for entry in wrong if entry["has"] != entry["values"][0]]
    if wrong:
        found["selector"] = wrong
    required = affinity.node_affinity(cycle.info.pod).get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is not None and not affinity.node_selector_matches(required, node.labels, node.name):
        found["terms"] = [_failing(node, term) for term in required.get("nodeSelectorTerms") or ()]
    return found


def _equals(key: str, value: str) -> Json:
    return {"key": key, "operator": "In", "values": [value]}


def _failing(node: NodeInfo, term: Json) -> list[Json]:
    labels = {"metadata.name": node.name}
    failing = [
        e for e in term.get("matchExpressions") or () if not affinity.requirement_matches(e, node.labels)
    ]
    fields = [e for e in term.get("matchFields") or () if not affinity.requirement_matches(e, labels)]
    return [
        *(_with_label(node, e) for e in failing),
        *({**_shown(e), "has": node.name} for e in fields),
    ]


def _shown(expression: Json) -> Json:
    return {
        "key": expression.get("key", ""),
        "operator": expression.get("operator", ""),
        "values": list(expression.get("values") or ()),
    }


def _with_label(node: NodeInfo, expression: Json) -> Json:
    return {**_shown(expression), "has": node.labels.get(expression.get("key", ""))}


# --- what other pods do ---


def _ports(cycle: Cycle, index: int) -> Json:
    node = cycle.state.infos[index]
    found = []
    for address, protocol, port in cycle.cls.ports:
        holders = [
            pod
            for pod in node.pods.values()
            if any(
                (protocol, port) == (theirs, number)
                and (address == there or node_ports.ANY in (address, there))
                for there, theirs, number in pod.cls.ports
            )
        ]
        if holders:
            found.append({"port": port, "protocol": protocol, "address": address, "held by": _keys(holders)})
    return {"ports": found}


def _spread(cycle: Cycle, index: int) -> Json:
    plugin = cycle.framework.plugins.spread
    rows = plugin.skews(cycle, index) if plugin is not None else []
    return {"constraints": [row for row in rows if pod_topology_spread.fails(row)]}


def _neighbours(cycle: Cycle, index: int) -> Json:
    found = []
    for term in cycle.cls.required:
        near = _near(cycle, index, term, partial(_meant, cycle, term))
        if not near["pods"]:
            found.append({"says": "wants to be near", **near})
    for term in cycle.cls.required_anti:
        near = _near(cycle, index, term, partial(_meant, cycle, term))
        if near["pods"]:
            found.append({"says": "must not be near", **near})
    for term, kind, _ in cycle.cls.symmetric:
        near = _near(cycle, index, term, partial(_avoids, term)) if kind == "anti" else {"pods": []}
        if near["pods"]:
            found.append({"says": "is not wanted by", **near})
    return {"terms": found}


def _avoids(term: Term, pod: PodInfo) -> bool:
    return term in pod.cls.required_anti


def _meant(cycle: Cycle, term: Term, pod: PodInfo) -> bool:
    labels = cycle.state.namespace_labels(pod.cls.namespace)
    return term.matcher.matches(pod.cls.namespace, pod.cls.labels, labels)


def _near(cycle: Cycle, index: int, term: Term, chosen: Callable[[PodInfo], bool]) -> Json:
    """The chosen pods in the node's domain of the term's key; `domain` None: the node is in none."""
    state = cycle.state
    domain = state.infos[index].labels.get(term.key)
    pods = [
        pod
        for info in state.infos
        if domain is not None and info.labels.get(term.key) == domain
        for pod in info.pods.values()
        if chosen(pod)
    ]
    selector = str(term.matcher.selector)
    return {"key": term.key, "domain": domain, "selector": selector, "pods": _keys(pods)}


# --- volumes ---


def _volume_limits(cycle: Cycle, index: int) -> Json:
    state, node = cycle.state, cycle.state.infos[index]
    attached = node_volume_limits.attached_volumes(state, node.pods.values())
    still = node_volume_limits.attachments_of(state, node.name)
    wanted = set(node_volume_limits.csi_volumes(state, cycle.info))
    found = []
    for driver, limit in node_volume_limits.driver_limits(state, node.name).items():
        there = sum(1 for owner, _ in attached | still if owner == driver)
        fresh = sum(1 for volume in wanted if volume[0] == driver and volume not in attached)
        if fresh and there + fresh > limit:
            found.append({"driver": driver, "attached": there, "new": fresh, "limit": limit})
    return {"drivers": found}


def _disks(cycle: Cycle, index: int) -> Json:
    return {"held by": _keys(volume_restrictions.holders(cycle, cycle.state.infos[index]))}


def _zones(cycle: Cycle, index: int) -> Json:
    labels = cycle.state.infos[index].labels
    found: list[Json] = []
    for key, values in volume_zone.wanted_zones(cycle):
        has = volume_zone.zone_of(labels, key)
        if has not in values:
            found.append({"key": key, "wants": sorted(values), "has": has})
    return {"zones": found}


def _claims(cycle: Cycle, index: int) -> Json:
    node = cycle.state.infos[index]
    found = []
    for name, _ in claim_names(cycle.info):
        claim = cycle.state.objects["persistentvolumeclaims"].get(f"{cycle.cls.namespace}/{name}")
        if claim is None:
            continue
        volume_name = (claim.get("spec") or {}).get("volumeName") or ""
        volume = cycle.state.objects["persistentvolumes"].get(volume_name)
        if volume is not None and volume_facts.node_affinity_matches(volume, node.labels, node.name):
            continue
        found.append(
            {
                "claim": meta.key_of(claim),
                "volume": volume_name,
                "storage class": volume_facts.claim_class(claim),
                "asks": volume_matching.requested_bytes(claim),
            }
        )
    return {"claims": found}


# --- tenants ---


def _queues(cycle: Cycle, index: int) -> Json:
    plugin = cycle.framework.plugins.tenants
    return dict(plugin.numbers(cycle)) if plugin is not None else {}


# --- devices, features ---


def _devices(cycle: Cycle, index: int) -> Json:
    plugin, node = cycle.framework.plugins.devices, cycle.state.infos[index]
    asked = dynamic_resources.pod_claims(cycle)
    return {
        "claims": [meta.key_of(c) for c in asked.claims if not dynamic_resources.suits(c, node)],
        "requests": requests_on(
            cycle.state, asked.variant(cycle.state, index).to_allocate, node, plugin.selectors
        ),
    }


def _features(cycle: Cycle, index: int) -> Json:
    needed = required_features(cycle.info.pod["spec"])
    declared = cycle.state.infos[index].features
    return {"needs": list(needed), "lacks": [name for name in needed if name not in declared]}


_NUMBERS: Mapping[str, Callable[[Cycle, int], Json]] = {
    "NodeResourcesFit": _room,
    "TaintToleration": _taint,
    "NodeName": _name,
    "NodeAffinity": _selection,
    "NodePorts": _ports,
    "PodTopologySpread": _spread,
    "InterPodAffinity": _neighbours,
    "NodeVolumeLimits": _volume_limits,
    "VolumeRestrictions": _disks,
    "VolumeZone": _zones,
    "VolumeBinding": _claims,
    "DynamicResources": _devices,
    "NodeDeclaredFeatures": _features,
    "TenantQueue": _queues,
}
