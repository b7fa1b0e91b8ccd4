"""A node must declare the features that the pod needs.

Source: k8s v1.36 pkg/scheduler/framework/plugins/nodedeclaredfeatures.
"""

from __future__ import annotations

from typing import ClassVar

from kcp.apis.semantics.declared_features import required_features
from kcp.scheduler.framework.plugin import Codes, Reasons, codes_where
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.framework.status import UNRESOLVABLE
from kcp.scheduler.pod_class import PodClass


class NodeDeclaredFeatures:
    name = "NodeDeclaredFeatures"
    reasons: ClassVar[Reasons] = {1: (UNRESOLVABLE, "node(s) didn't match Pod's required features")}

    def static_codes(self, framework: Framework, cls: PodClass) -> Codes | None:
        needed = frozenset(required_features(cls.sample["spec"]))
        if not needed:
            return None
        return codes_where(framework.state.each_node(lambda node: not needed <= node.features))
