"""NoSchedule and NoExecute taints must be tolerated; PreferNoSchedule taints cost score.

Source: k8s v1.36 pkg/scheduler/framework/plugins/tainttoleration.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from kcp.apis.semantics import taints
from kcp.scheduler.framework.plugin import MAX_SCORE, Codes, Cycle, Reasons, Rows, codes_where
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.framework.status import UNRESOLVABLE
from kcp.scheduler.pod_class import PodClass
from kcp.scheduler.terms import Bools, Ints


class TaintToleration:
    name = "TaintToleration"
    reasons: ClassVar[Reasons] = {1: (UNRESOLVABLE, "node(s) had untolerated taint(s)")}

    def static_codes(self, framework: Framework, cls: PodClass) -> Codes | None:
        failing = untolerated(framework, cls)
        return codes_where(failing) if failing is not None else None

    def static_score(self, framework: Framework, cls: PodClass) -> Ints | int | None:
        """Without an intolerable PreferNoSchedule taint anywhere every node gets 100."""
        return MAX_SCORE if _intolerable(framework, cls) is None else None

    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        counts = _intolerable(cycle.framework, cycle.cls)
        if counts is None:
            return np.full(count, MAX_SCORE, np.int64)
        raw = counts[feasible]
        highest = int(raw.max())
        if highest == 0:
            return np.full(count, MAX_SCORE, np.int64)
        scaled: Ints = MAX_SCORE - MAX_SCORE * raw // highest
        return scaled


def untolerated(framework: Framework, cls: PodClass) -> Bools | None:
    """Nodes with a hard taint that the pod does not tolerate; None when there is none."""
    facts = framework.node_facts()
    table = [taints.find_untolerated(each, cls.tolerations) is not None for each in facts.taint_sets]
    if not any(table):
        return None
    failing: Bools = np.array(table, np.bool_)[facts.taint_set]
    return failing


def _intolerable(framework: Framework, cls: PodClass) -> Ints | None:
    """PreferNoSchedule taints per node that the pod does not tolerate; None when no node has one."""

    def count() -> Ints | None:
        facts = framework.node_facts()
        table = [taints.count_intolerable_prefer(each, cls.tolerations) for each in facts.taint_sets]
        return np.array(table, np.int64)[facts.taint_set] if any(table) else None

    found: Ints | None = framework.once(("prefer taints", cls.number), count)
    return found
