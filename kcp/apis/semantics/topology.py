"""Topology: zones, regions, host names, and the spread constraints that refer to them.

Source: k8s v1.36 component-helpers/node/topology/helpers.go, pkg/scheduler/framework/plugins/podtopologyspread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]
Labels = Mapping[str, str]

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"
ZONE_BETA = "failure-domain.beta.kubernetes.io/zone"
REGION_BETA = "failure-domain.beta.kubernetes.io/region"


def zone(labels: Labels) -> str:
    """The GA label wins over the beta one; empty when the node has neither."""
    return labels.get(ZONE) or labels.get(ZONE_BETA, "")


def region(labels: Labels) -> str:
    return labels.get(REGION) or labels.get(REGION_BETA, "")


def zone_key(labels: Labels) -> str:
    """Unique per zone and region; empty when the node has neither."""
    region_, zone_ = region(labels), zone(labels)
    return f"{region_}:\0:{zone_}" if region_ or zone_ else ""


def pair(labels: Labels, key: str) -> tuple[str, str] | None:
    """(key, value): the domain of a node for a topology key, or None when it has no such label."""
    value = labels.get(key)
    return None if value is None else (key, value)


def domain_matches(one: Labels, other: Labels, key: str) -> bool:
    """Whether two nodes lie in the same domain of a non-empty topology key that both have."""
    return bool(key) and key in one and one[key] == other.get(key)


def has_all_keys(labels: Labels, keys: Sequence[str]) -> bool:
    return all(key in labels for key in keys)


def spread_constraints(pod: Json, when: str) -> list[Json]:
    """The pod's constraints with this `whenUnsatisfiable`: DoNotSchedule or ScheduleAnyway."""
    found = (pod.get("spec") or {}).get("topologySpreadConstraints") or ()
    return [constraint for constraint in found if constraint.get("whenUnsatisfiable") == when]


def _key_expressions(keys: Sequence[str], operator: str, labels: Labels) -> list[Json]:
    return [{"key": key, "operator": operator, "values": [labels[key]]} for key in keys if key in labels]


def selector_with_label_keys(
    selector: Json | None, labels: Labels, match: Sequence[str] = (), mismatch: Sequence[str] = ()
) -> Json | None:
    """A label selector with matchLabelKeys and mismatchLabelKeys merged in.

    Keys that the pod lacks are ignored and an expression that is already there is not added again, because the API
    server merges them too. A selector of None stays None. Source: pkg/registry/core/pod/strategy.go.
    """
    if selector is None:
        return None
    added = _key_expressions(match, "In", labels) + _key_expressions(mismatch, "NotIn", labels)
    present = selector.get("matchExpressions") or []
    fresh = [expression for expression in added if expression not in present]
    return {**selector, "matchExpressions": [*present, *fresh]} if fresh else selector


def constraint_selector(constraint: Json, pod_labels: Labels) -> Json | None:
    """The label selector of a spread constraint for this pod."""
    return selector_with_label_keys(
        constraint.get("labelSelector"), pod_labels, constraint.get("matchLabelKeys") or ()
    )


def term_selector(term: Json, pod_labels: Labels) -> Json | None:
    """The label selector of a pod affinity term for this pod."""
    return selector_with_label_keys(
        term.get("labelSelector"),
        pod_labels,
        term.get("matchLabelKeys") or (),
        term.get("mismatchLabelKeys") or (),
    )


def affinity_terms(pod: Json, kind: str, *, required: bool) -> list[Json]:
    """`kind` is podAffinity or podAntiAffinity. Preferred terms are {weight, podAffinityTerm}."""
    affinity = ((pod.get("spec") or {}).get("affinity") or {}).get(kind) or {}
    prefix = "required" if required else "preferred"
    found: list[Json] = affinity.get(f"{prefix}DuringSchedulingIgnoredDuringExecution") or []
    return found
