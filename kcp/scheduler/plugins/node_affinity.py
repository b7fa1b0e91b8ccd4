"""nodeSelector, required and preferred node affinity, and what the profile adds to every pod.

Source: k8s v1.36 pkg/scheduler/framework/plugins/nodeaffinity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from kcp.apis.semantics import affinity
from kcp.scheduler.framework.plugin import MAX_SCORE, Codes, Cycle, Reasons, Rejected, Rows, codes_where
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.framework.status import UNRESOLVABLE
from kcp.scheduler.pod_class import PodClass
from kcp.scheduler.terms import Bools, Ints

Json = dict[str, Any]


class NodeAffinity:
    name = "NodeAffinity"
    reasons: ClassVar[Reasons] = {
        1: (UNRESOLVABLE, "node(s) didn't match Pod's node affinity/selector"),
        2: (UNRESOLVABLE, "node(s) didn't match scheduler-enforced node affinity"),
    }

    def __init__(self, args: Mapping[str, Any]) -> None:
        added = args.get("addedAffinity") or {}
        self._enforced = added.get("requiredDuringSchedulingIgnoredDuringExecution")
        self._preferred: list[Json] = added.get("preferredDuringSchedulingIgnoredDuringExecution") or []

    def pre_filter(self, cycle: Cycle) -> Rejected | None:
        if cycle.cls.pinned is not None and not cycle.cls.pinned:
            return Rejected(self.name, "pod affinity terms conflict", UNRESOLVABLE)
        return None

    def static_codes(self, framework: Framework, cls: PodClass) -> Codes | None:
        codes = None
        if cls.selects_nodes:
            codes = codes_where(~selected_nodes(framework, cls))
        if self._enforced is not None:
            failing = ~selector_mask(framework, self._enforced)
            enforced = codes_where(failing, 2)
            codes = enforced if codes is None else np.where(enforced != 0, enforced, codes)
        return codes

    def static_score(self, framework: Framework, cls: PodClass) -> Ints | int | None:
        return None if cls.preferred_nodes or self._preferred else 0

    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        if not cycle.cls.preferred_nodes and not self._preferred:
            return None
        raw = self._weights(cycle.framework, cycle.cls)[feasible]
        highest = int(raw.max())
        if highest == 0:
            return raw
        scaled: Ints = MAX_SCORE * raw // highest
        return scaled

    def _weights(self, framework: Framework, cls: PodClass) -> Ints:
        def weigh() -> Ints:
            total = np.zeros(len(framework.state), np.int64)
            for term in (*cls.preferred_nodes, *self._preferred):
                total += int(term.get("weight", 0)) * term_mask(framework, term.get("preference"))
            return total

        found: Ints = framework.once(("preferred nodes", cls.number), weigh)
        return found


def selected_nodes(framework: Framework, cls: PodClass) -> Bools:
    """Nodes that nodeSelector and required node affinity allow."""

    def select() -> Bools:
        spec = cls.sample["spec"]
        mask = np.ones(len(framework.state), np.bool_)
        for key, value in (spec.get("nodeSelector") or {}).items():
            mask &= _requirement_mask(framework, {"key": key, "operator": "In", "values": [value]})
        required = affinity.node_affinity(cls.sample).get("requiredDuringSchedulingIgnoredDuringExecution")
        if required is not None:
            mask &= selector_mask(framework, required)
        return mask

    found: Bools = framework.once(("selected nodes", cls.node_signature), select)
    return found


def selector_mask(framework: Framework, selector: Json) -> Bools:
    mask = np.zeros(len(framework.state), np.bool_)
    for term in selector.get("nodeSelectorTerms") or ():
        mask |= term_mask(framework, term)
    return mask


def term_mask(framework: Framework, term: Json | None) -> Bools:
    """A term without expressions and fields matches nothing."""
    expressions = (term or {}).get("matchExpressions") or ()
    fields = (term or {}).get("matchFields") or ()
    mask = np.full(len(framework.state), bool(expressions or fields))
    for expression in expressions:
        mask &= _requirement_mask(framework, expression)
    for field in fields:
        mask &= _field_mask(framework, field)
    return mask


def _requirement_mask(framework: Framework, requirement: Json) -> Bools:
    """Judged once per value of the label, then spread over the nodes."""
    key = requirement.get("key", "")
    domains = framework.state.domains(key)
    judged = [affinity.requirement_matches(requirement, {key: value}) for value in domains.values]
    judged.append(affinity.requirement_matches(requirement, {}))
    mask: Bools = np.array(judged, np.bool_)[domains.ids]
    return mask


def _field_mask(framework: Framework, field: Json) -> Bools:
    return framework.state.each_node(
        lambda info: affinity.requirement_matches(field, {"metadata.name": info.name})
    )
