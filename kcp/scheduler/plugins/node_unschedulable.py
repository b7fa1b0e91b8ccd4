"""Cordoned nodes take only pods that tolerate `node.kubernetes.io/unschedulable:NoSchedule`.

Source: k8s v1.36 pkg/scheduler/framework/plugins/nodeunschedulable.
"""

from __future__ import annotations

from typing import ClassVar

from kcp.apis.semantics import taints
from kcp.scheduler.framework.plugin import Codes, Reasons, codes_where
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.framework.status import UNRESOLVABLE
from kcp.scheduler.pod_class import PodClass

_TAINT = {"key": taints.UNSCHEDULABLE, "effect": taints.NO_SCHEDULE}


class NodeUnschedulable:
    name = "NodeUnschedulable"
    reasons: ClassVar[Reasons] = {1: (UNRESOLVABLE, "node(s) were unschedulable")}

    def static_codes(self, framework: Framework, cls: PodClass) -> Codes | None:
        cordoned = framework.node_facts().unschedulable
        if not cordoned.any() or taints.is_tolerated(_TAINT, cls.tolerations):
            return None
        return codes_where(cordoned)
