"""The slow scheduler: one node at a time, one plugin at a time, pods scanned one by one. The oracle of the tests.

It is written from the rules and shares no code with the vectorised scheduler beyond the pure questions about one object
(effective requests, selectors, taints). Never used in production.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kcp.apis.semantics import affinity, pods, taints, topology
from kcp.apis.semantics.declared_features import required_features
from kcp.base.values import frozen
from kcp.machinery.labels import Selector, from_label_selector
from kcp.scheduler import reference_devices
from kcp.scheduler.reference_world import (
    World,
    allocatable,
    labels_of,
    name_of,
    node_named,
    pods_on,
    requested,
    used,
)

Json = dict[str, Any]
MASK = 2**64 - 1
MIB = 1024 * 1024


@frozen
class Verdict:
    """`failures`: node -> (first failing plugin, its reasons). What follows is about preemption and what is told."""

    node: str
    total: int
    ties: int
    feasible: int
    failures: Mapping[str, tuple[str, tuple[str, ...]]]
    nominated: str = ""
    victims: tuple[str, ...] = ()
    pdb_violations: int = 0
    text: str = ""


def draw(seed: int, cycle: int) -> int:
    z = (seed + (cycle + 1) * 0x9E3779B97F4A7C15) & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def decide(world: World, pod: Json, *, cycle: int, seed: int) -> Verdict:
    failures: dict[str, tuple[str, tuple[str, ...]]] = {}
    feasible: list[Json] = []
    for node in sorted(world.nodes, key=name_of):
        failure = first_failure(world, pod, node)
        if failure is None:
            feasible.append(node)
        else:
            failures[name_of(node)] = failure
    if not feasible:
        return Verdict("", 0, 0, 0, failures)
    if len(feasible) == 1:
        return Verdict(name_of(feasible[0]), 0, 1, 1, failures)
    totals = total_scores(world, pod, feasible)
    best = max(totals)
    ties = [node for node, total in zip(feasible, totals, strict=True) if total == best]
    chosen = ties[draw(seed, cycle) % len(ties)]
    return Verdict(name_of(chosen), best, len(ties), len(feasible), failures)


# --- filters, in the order of the default profile ---


def first_failure(world: World, pod: Json, node: Json) -> tuple[str, tuple[str, ...]] | None:
    pinned = affinity.pinned_names(pod)
    if pinned is not None and name_of(node) not in pinned:
        return "NodeAffinity", ("node(s) didn't satisfy plugin(s) [NodeAffinity]",)
    for plugin, check in FILTERS:
        reasons = check(world, pod, node)
        if reasons:
            return plugin, tuple(reasons)
    reasons = world.tenants.refusal(world, pod, node) if world.tenants is not None else []
    return ("TenantQueue", tuple(reasons)) if reasons else None


def _unschedulable(world: World, pod: Json, node: Json) -> list[str]:
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    cordoned = (node.get("spec") or {}).get("unschedulable")
    if cordoned and not any(taints.tolerates(t, taint) for t in taints.tolerations(pod)):
        return ["node(s) were unschedulable"]
    return []


def _tainted(world: World, pod: Json, node: Json) -> list[str]:
    for taint in taints.taints(node):
        if taint["effect"] in ("NoSchedule", "NoExecute") and not taints.is_tolerated(
            taint, taints.tolerations(pod)
        ):
            return ["node(s) had untolerated taint(s)"]
    return []


def _not_selected(world: World, pod: Json, node: Json) -> list[str]:
    if affinity.pod_matches_node(pod, labels_of(node), name_of(node)):
        return []
    return ["node(s) didn't match Pod's node affinity/selector"]


def _ports_taken(world: World, pod: Json, node: Json) -> list[str]:
    for ip, protocol, port in pods.host_ports(pod):
        for other in pods_on(world, node):
            for other_ip, other_protocol, other_port in pods.host_ports(other):
                same = (protocol, port) == (other_protocol, other_port)
                if same and (ip == other_ip or "0.0.0.0" in (ip, other_ip)):
                    return ["node(s) didn't have free ports for the requested pod ports"]
    return []


def is_left_to_devices(world: World, node: Json, resource: str) -> bool:
    """A class serves the resource, and the node has none of it by count."""
    return bool(reference_devices.serves(world.devices, resource)) and not allocatable(world, node, resource)


def _no_room(world: World, pod: Json, node: Json) -> list[str]:
    reasons = []
    if len(pods_on(world, node)) + 1 > allocatable(world, node, "pods"):
        reasons.append("Too many pods")
    for resource, amount in world.amounts_of(pod, pods.requests).items():
        if is_left_to_devices(world, node, resource):
            continue
        if amount and amount > allocatable(world, node, resource) - used(world, node, resource):
            reasons.append(f"Insufficient {resource}")
    return reasons


def _disk_in_use(world: World, pod: Json, node: Json) -> list[str]:
    for volume in pod["spec"].get("volumes") or ():
        for other in pods_on(world, node):
            for taken in other["spec"].get("volumes") or ():
                if _is_same_disk(volume, taken):
                    return ["node(s) had no available disk"]
    text = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use"
    for key, claim in _claims(world, pod):
        alone = "ReadWriteOncePod" in claim["spec"]["accessModes"]
        if alone and any(key in [k for k, _ in _claims(world, other)] for other, _ in world.placed):
            return [f"{text} by another pod"]
    return []


def _is_same_disk(one: Json, other: Json) -> bool:
    if "awsElasticBlockStore" in one and "awsElasticBlockStore" in other:
        same: bool = one["awsElasticBlockStore"]["volumeID"] == other["awsElasticBlockStore"]["volumeID"]
        return same
    if "gcePersistentDisk" in one and "gcePersistentDisk" in other:
        a, b = one["gcePersistentDisk"], other["gcePersistentDisk"]
        return a["pdName"] == b["pdName"] and not (a.get("readOnly") and b.get("readOnly"))
    return False


def _claims(world: World, pod: Json) -> list[tuple[str, Json]]:
    """(namespace/name, claim) of the pod's volumes; every claim exists."""
    namespace = pod["metadata"]["namespace"]
    names = [
        v["persistentVolumeClaim"]["claimName"]
        for v in pod["spec"].get("volumes") or ()
        if "persistentVolumeClaim" in v
    ]
    return [(f"{namespace}/{name}", world.claims[f"{namespace}/{name}"]) for name in names]


def _attachments(world: World, pod: Json) -> list[tuple[str, str]]:
    """(driver, handle) of every bound volume."""
    found = [world.volumes.get(claim["spec"]["volumeName"]) for _, claim in _claims(world, pod)]
    return [(v["spec"]["csi"]["driver"], v["spec"]["csi"]["volumeHandle"]) for v in found if v is not None]


def _too_many_volumes(world: World, pod: Json, node: Json) -> list[str]:
    attached = {handle for other in pods_on(world, node) for handle in _attachments(world, other)}
    fresh = set(_attachments(world, pod)) - attached
    for name, where in world.attachments:
        volume = world.volumes.get(name)
        if where == name_of(node) and volume is not None:
            attached.add((volume["spec"]["csi"]["driver"], volume["spec"]["csi"]["volumeHandle"]))
    for driver, limit in world.volume_limits.get(name_of(node), {}).items():
        new = [v for v in fresh if v[0] == driver]
        if new and len([v for v in attached if v[0] == driver]) + len(new) > limit:
            return ["node(s) exceed max volume count"]
    return []


def _volume_elsewhere(world: World, pod: Json, node: Json) -> list[str]:
    for _, claim in _claims(world, pod):
        volume = world.volumes.get(claim["spec"]["volumeName"])
        if volume is None:
            return ["node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"]
        required = (volume["spec"].get("nodeAffinity") or {}).get("required")
        if required and not affinity.node_selector_matches(required, labels_of(node), name_of(node)):
            return ["node(s) didn't match PersistentVolume's node affinity"]
    return []


def _volume_in_other_zone(world: World, pod: Json, node: Json) -> list[str]:
    keys = (topology.ZONE, topology.REGION, topology.ZONE_BETA, topology.REGION_BETA)
    if not any(key in labels_of(node) for key in keys):
        return []
    for _, claim in _claims(world, pod):
        volume = world.volumes.get(claim["spec"]["volumeName"])
        for key in keys:
            zones = labels_of(volume).get(key) if volume is not None else None
            if zones is not None and labels_of(node).get(key) not in zones.split("__"):
                return ["node(s) had no available volume zone"]
    return []


def _spread_unevenly(world: World, pod: Json, node: Json) -> list[str]:
    text = "node(s) didn't match pod topology spread constraints"
    hard = topology.spread_constraints(pod, "DoNotSchedule")
    for constraint in hard:
        key = constraint["topologyKey"]
        if key not in labels_of(node):
            return [f"{text} (missing required label)"]
        counts = _domain_counts(world, pod, constraint, [c["topologyKey"] for c in hard])
        least = 0 if len(counts) < constraint.get("minDomains", 1) else min(counts.values())
        self_matches = int(_selector(constraint, pod).matches(labels_of(pod)))
        skew = counts.get(labels_of(node)[key], 0) + self_matches - least
        if skew > constraint["maxSkew"]:
            return [text]
    return []


def _selector(constraint: Json, pod: Json) -> Selector:
    given = constraint.get("_selector")
    if given is not None:
        chosen: Selector = given
        return chosen
    return from_label_selector(topology.constraint_selector(constraint, labels_of(pod)))


def _domain_counts(world: World, pod: Json, constraint: Json, keys: Sequence[str]) -> dict[str, int]:
    """Matching pods by value of the constraint's key, over the nodes whose pods count."""
    counts: dict[str, int] = {}
    for node in world.nodes:
        labels = labels_of(node)
        if all(key in labels for key in keys) and _is_eligible(pod, constraint, node):
            value = labels.get(constraint["topologyKey"])
            if value is not None:
                counts[value] = counts.get(value, 0) + _matching_on(world, pod, constraint, node)
    return counts


def _is_eligible(pod: Json, constraint: Json, node: Json) -> bool:
    honor_affinity = constraint.get("nodeAffinityPolicy", "Honor") == "Honor"
    if honor_affinity and not affinity.pod_matches_node(pod, labels_of(node), name_of(node)):
        return False
    honor_taints = constraint.get("nodeTaintsPolicy", "Ignore") == "Honor"
    return not (honor_taints and _tainted(World([], []), pod, node))


def _matching_on(world: World, pod: Json, constraint: Json, node: Json) -> int:
    selector = _selector(constraint, pod)
    if selector.empty:
        return 0
    namespace = pod["metadata"]["namespace"]
    return sum(
        1
        for other in pods_on(world, node)
        if other["metadata"]["namespace"] == namespace
        and "deletionTimestamp" not in other["metadata"]
        and selector.matches(labels_of(other))
    )


def _term_matches(world: World, owner: Json, term: Json, other: Json) -> bool:
    """Whether `other` is meant by a pod affinity term of `owner`."""
    namespace = other["metadata"]["namespace"]
    listed, chosen = term.get("namespaces") or [], term.get("namespaceSelector")
    if not listed and chosen is None:
        listed = [owner["metadata"]["namespace"]]
    in_namespace = namespace in listed or (
        chosen is not None and from_label_selector(chosen).matches(world.namespaces.get(namespace, {}))
    )
    return in_namespace and from_label_selector(topology.term_selector(term, labels_of(owner))).matches(
        labels_of(other)
    )


def _same_domain(world: World, node: Json, name: str, key: str) -> bool:
    other = node_named(world, name)
    if other is None:
        return False
    return key in labels_of(node) and labels_of(node)[key] == labels_of(other).get(key)


def _not_near(world: World, pod: Json, node: Json) -> list[str]:
    text = "node(s) didn't match pod affinity rules"
    terms = topology.affinity_terms(pod, "podAffinity", required=True)
    if not terms:
        return []
    if any(term["topologyKey"] not in labels_of(node) for term in terms):
        return [text]
    wanted = [
        (other, name)
        for other, name in world.placed
        if all(_term_matches(world, pod, term, other) for term in terms)
    ]
    if all(any(_same_domain(world, node, name, t["topologyKey"]) for _, name in wanted) for t in terms):
        return []
    counted_somewhere = any(
        term["topologyKey"] in labels_of(node_named(world, name) or {"metadata": {}})
        for _, name in wanted
        for term in terms
    )
    if not counted_somewhere and all(_term_matches(world, pod, term, pod) for term in terms):
        return []
    return [text]


def _too_near(world: World, pod: Json, node: Json) -> list[str]:
    for term in topology.affinity_terms(pod, "podAntiAffinity", required=True):
        for other, name in world.placed:
            if _term_matches(world, pod, term, other) and _same_domain(
                world, node, name, term["topologyKey"]
            ):
                return ["node(s) didn't match pod anti-affinity rules"]
    return []


def _repelled(world: World, pod: Json, node: Json) -> list[str]:
    for other, name in world.placed:
        for term in topology.affinity_terms(other, "podAntiAffinity", required=True):
            if _term_matches(world, other, term, pod) and _same_domain(
                world, node, name, term["topologyKey"]
            ):
                return ["node(s) didn't satisfy existing pods anti-affinity rules"]
    return []


def _affinity(world: World, pod: Json, node: Json) -> list[str]:
    for check in (_not_near, _too_near, _repelled):
        reasons = check(world, pod, node)
        if reasons:
            return reasons
    return []


def _no_devices(world: World, pod: Json, node: Json) -> list[str]:
    return reference_devices.refusal(world.devices, pod, node)


def _lacks_features(world: World, pod: Json, node: Json) -> list[str]:
    declared = (node.get("status") or {}).get("declaredFeatures") or []
    lacking = [name for name in required_features(pod["spec"]) if name not in declared]
    return ["node(s) didn't match Pod's required features"] if lacking else []


FILTERS: tuple[tuple[str, Callable[[World, Json, Json], list[str]]], ...] = (
    ("NodeUnschedulable", _unschedulable),
    ("TaintToleration", _tainted),
    ("NodeAffinity", _not_selected),
    ("NodePorts", _ports_taken),
    ("NodeResourcesFit", _no_room),
    ("VolumeRestrictions", _disk_in_use),
    ("NodeVolumeLimits", _too_many_volumes),
    ("VolumeBinding", _volume_elsewhere),
    ("VolumeZone", _volume_in_other_zone),
    ("PodTopologySpread", _spread_unevenly),
    ("InterPodAffinity", _affinity),
    ("DynamicResources", _no_devices),
    ("NodeDeclaredFeatures", _lacks_features),
)


# --- scores ---


def total_scores(world: World, pod: Json, feasible: Sequence[Json]) -> list[int]:
    totals = [0] * len(feasible)
    for weight, scores in (
        (3, _taint_scores(world, pod, feasible)),
        (2, _preferred_node_scores(world, pod, feasible)),
        (1, [_least_allocated(world, pod, node) for node in feasible]),
        (2, _spread_scores(world, pod, feasible)),
        (2, _affinity_scores(world, pod, feasible)),
        (2, reference_devices.scores(world.devices, pod, feasible)),
        (1, [_balanced(world, pod, node) for node in feasible]),
        (1, [_image_locality(world, pod, node) for node in feasible]),
    ):
        for position, score in enumerate(scores):
            totals[position] += weight * score
    return totals


def _taint_scores(world: World, pod: Json, feasible: Sequence[Json]) -> list[int]:
    raw = [taints.count_intolerable_prefer(taints.taints(n), taints.tolerations(pod)) for n in feasible]
    most = max(raw)
    return [100 - 100 * r // most if most else 100 for r in raw]


def _preferred_node_scores(world: World, pod: Json, feasible: Sequence[Json]) -> list[int]:
    terms = affinity.preferred_terms(pod)
    raw = [affinity.preferred_weight(terms, labels_of(n), name_of(n)) for n in feasible]
    most = max(raw)
    return [100 * r // most if most else r for r in raw]


def _least_allocated(world: World, pod: Json, node: Json) -> int:
    scores = []
    for position, resource in enumerate(("cpu", "memory")):
        capacity = allocatable(world, node, resource)
        if not capacity:
            continue
        used = sum(pods.non_zero_requests(p)[position] for p in (*pods_on(world, node), pod))
        scores.append(0 if used > capacity else (capacity - used) * 100 // capacity)
    return sum(scores) // len(scores) if scores else 0


def _evenness(world: World, node: Json, extra: Json | None) -> int:
    fractions = []
    for resource in ("cpu", "memory"):
        capacity = allocatable(world, node, resource)
        if capacity:
            there = used(world, node, resource) + (requested(world, extra, resource) if extra else 0)
            fractions.append(min(1.0, there / capacity))
    deviation = abs((fractions[0] - fractions[1]) / 2) if len(fractions) == 2 else 0.0
    return int((1 - deviation) * 100.0)


def _balanced(world: World, pod: Json, node: Json) -> int:
    if not requested(world, pod, "cpu") and not requested(world, pod, "memory"):
        return 0
    return 50 + (50 + _evenness(world, node, pod) - _evenness(world, node, None)) // 2


def _image_name(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _node_images(node: Json) -> dict[str, int]:
    images = (node.get("status") or {}).get("images") or []
    return {_image_name(name): image["sizeBytes"] for image in images for name in image["names"]}


def _image_locality(world: World, pod: Json, node: Json) -> int:
    spec = pod["spec"]
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    here, total = _node_images(node), 0
    for container in containers:
        name = _image_name(container["image"])
        if name in here:
            having = sum(name in _node_images(other) for other in world.nodes)
            total += int(here[name] * (having / len(world.nodes)))
    low, high = 23 * MIB, 1000 * MIB * len(containers)
    return 100 * (min(max(total, low), high) - low) // (high - low)


def _default_constraints(world: World, pod: Json) -> list[Json]:
    """The system defaults, with what the pod's Services and its owner select."""
    namespace = pod["metadata"]["namespace"]
    merged: dict[str, str] = {}
    for service in world.services:
        wanted = service["spec"].get("selector")
        if service["metadata"]["namespace"] != namespace or wanted is None:
            continue
        if all(labels_of(pod).get(k) == v for k, v in wanted.items()):
            merged.update(wanted)
    terms: list[Json] = [{"matchLabels": merged}]
    for reference in pod["metadata"].get("ownerReferences") or ():
        for owner in world.owners:
            same = (owner["kind"], owner["metadata"]["name"]) == (reference["kind"], reference["name"])
            if same and owner["metadata"]["namespace"] == namespace and reference.get("controller"):
                terms.append(owner["spec"]["selector"])
    labels = {k: v for term in terms for k, v in (term.get("matchLabels") or {}).items()}
    expressions = [e for term in terms for e in term.get("matchExpressions") or ()]
    selector = from_label_selector({"matchLabels": labels, "matchExpressions": expressions})
    if selector.empty:
        return []
    return [
        {"topologyKey": topology.HOSTNAME, "maxSkew": 3, "_selector": selector},
        {"topologyKey": topology.ZONE, "maxSkew": 5, "_selector": selector},
    ]


def _spread_scores(world: World, pod: Json, feasible: Sequence[Json]) -> list[int]:
    own = pod["spec"].get("topologySpreadConstraints")
    soft = topology.spread_constraints(pod, "ScheduleAnyway") if own else _default_constraints(world, pod)
    if not soft:
        return [0] * len(feasible)
    keys = [c["topologyKey"] for c in soft]
    ignored = [bool(own) and any(key not in labels_of(n) for key in keys) for n in feasible]
    kept = [n for n, skip in zip(feasible, ignored, strict=True) if not skip]
    raw = [0 if skip else _soft_score(world, pod, soft, keys if own else [], n, kept)
           for n, skip in zip(feasible, ignored, strict=True)]  # fmt: skip
    judged = [r for r, skip in zip(raw, ignored, strict=True) if not skip]
    if not judged:
        return [0] * len(feasible)
    most, least = max(judged), min(judged)

    def normal(score: int) -> int:
        return 100 * (most + least - score) // most if most else 100

    return [0 if skip else normal(r) for r, skip in zip(raw, ignored, strict=True)]


def _soft_score(
    world: World, pod: Json, soft: Sequence[Json], keys: Sequence[str], node: Json, kept: Sequence[Json]
) -> int:
    score = 0.0
    for constraint in soft:
        key = constraint["topologyKey"]
        if key not in labels_of(node):
            continue
        if key == topology.HOSTNAME:
            count, size = _matching_on(world, pod, constraint, node), len(kept)
        else:
            counts = _domain_counts(world, pod, constraint, keys)
            count = counts.get(labels_of(node)[key], 0)
            size = len({labels_of(n).get(key, "") for n in kept})
        score += count * math.log(size + 2) + float(constraint["maxSkew"] - 1)
    whole = math.floor(score)
    return whole + (score - whole >= 0.5)


def _affinity_scores(world: World, pod: Json, feasible: Sequence[Json]) -> list[int]:
    raw = [_affinity_score(world, pod, node) for node in feasible]
    least, most = min(raw), max(raw)
    if least == most:
        return [0] * len(feasible)
    return [int(100.0 * ((r - least) / float(most - least))) for r in raw]


def _affinity_score(world: World, pod: Json, node: Json) -> int:
    score = 0
    for other, name in world.placed:
        for owner, target in ((pod, other), (other, pod)):
            for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
                for preferred in topology.affinity_terms(owner, kind, required=False):
                    term = preferred["podAffinityTerm"]
                    if _term_matches(world, owner, term, target) and _same_domain(
                        world, node, name, term["topologyKey"]
                    ):
                        score += sign * preferred["weight"]
        for term in topology.affinity_terms(other, "podAffinity", required=True):
            if _term_matches(world, other, term, pod) and _same_domain(
                world, node, name, term["topologyKey"]
            ):
                score += world.hard_affinity_weight
    return score
