"""Node selectors and node affinity.

Source: k8s v1.36 component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go, apimachinery/pkg/labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Json = dict[str, Any]
Labels = Mapping[str, str]


def _integers(value: str | None, values: list[str]) -> tuple[int, int] | None:
    if value is None or len(values) != 1:
        return None
    try:
        return int(value), int(values[0])
    except ValueError:
        return None


def _greater(value: str | None, values: list[str]) -> bool:
    pair = _integers(value, values)
    return pair is not None and pair[0] > pair[1]


def _less(value: str | None, values: list[str]) -> bool:
    pair = _integers(value, values)
    return pair is not None and pair[0] < pair[1]


_OPERATORS: Mapping[str, Callable[[str | None, list[str]], bool]] = {
    "In": lambda value, values: value is not None and value in values,
    "NotIn": lambda value, values: value is None or value not in values,
    "Exists": lambda value, values: value is not None,
    "DoesNotExist": lambda value, values: value is None,
    "Gt": _greater,
    "Lt": _less,
}


def requirement_matches(requirement: Json, labels: Labels) -> bool:
    """One expression of a node selector term; an unknown operator matches nothing."""
    operator = _OPERATORS.get(requirement.get("operator", ""))
    if operator is None:
        return False
    return operator(labels.get(requirement.get("key", "")), requirement.get("values") or [])


def term_matches(term: Json | None, labels: Labels, name: str) -> bool:
    """All expressions and fields hold. A term without any matches nothing. `metadata.name` is the only field."""
    expressions = (term or {}).get("matchExpressions") or ()
    fields = (term or {}).get("matchFields") or ()
    if not expressions and not fields:
        return False
    if not all(requirement_matches(expression, labels) for expression in expressions):
        return False
    return all(requirement_matches(field, {"metadata.name": name}) for field in fields)


def node_selector_matches(selector: Json | None, labels: Labels, name: str) -> bool:
    """A NodeSelector: one of its terms matches. None matches everything, an empty list of terms nothing."""
    if selector is None:
        return True
    return any(term_matches(term, labels, name) for term in selector.get("nodeSelectorTerms") or ())


def node_affinity(pod: Json) -> Json:
    found: Json = ((pod.get("spec") or {}).get("affinity") or {}).get("nodeAffinity") or {}
    return found


def pod_matches_node(pod: Json, labels: Labels, name: str) -> bool:
    """nodeSelector and required node affinity of a pod against a node's labels and name."""
    wanted = (pod.get("spec") or {}).get("nodeSelector")
    if wanted and any(labels.get(key) != value for key, value in wanted.items()):
        return False
    required = node_affinity(pod).get("requiredDuringSchedulingIgnoredDuringExecution")
    return node_selector_matches(required, labels, name)


def preferred_terms(pod: Json) -> list[Json]:
    found: list[Json] = node_affinity(pod).get("preferredDuringSchedulingIgnoredDuringExecution") or []
    return found


def preferred_weight(terms: list[Json], labels: Labels, name: str) -> int:
    """Sum of the weights of the matching preferred terms; a term with an empty preference counts nothing."""
    return sum(
        int(term.get("weight", 0)) for term in terms if term_matches(term.get("preference"), labels, name)
    )


def _pinned_by_term(term: Json) -> set[str] | None:
    pinned: set[str] | None = None
    for field in term.get("matchFields") or ():
        if field.get("key") == "metadata.name" and field.get("operator") == "In":
            names = set(field.get("values") or ())
            pinned = names if pinned is None else pinned & names
    return pinned


def pinned_names(pod: Json) -> frozenset[str] | None:
    """The node names that the required affinity allows, if every term pins `metadata.name` with In; else None.

    Source: pkg/scheduler/framework/plugins/nodeaffinity (PreFilter).
    """
    required = node_affinity(pod).get("requiredDuringSchedulingIgnoredDuringExecution")
    terms = (required or {}).get("nodeSelectorTerms") or ()
    if not terms:
        return None
    names: set[str] = set()
    for term in terms:
        pinned = _pinned_by_term(term)
        if pinned is None:
            return None
        names |= pinned
    return frozenset(names)
