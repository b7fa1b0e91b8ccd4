"""A pod that names its node can only go there.

Source: k8s v1.36 pkg/scheduler/framework/plugins/nodename.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from kcp.scheduler.framework.plugin import Codes, Cycle, Reasons, Rows
from kcp.scheduler.framework.status import UNRESOLVABLE


class NodeName:
    name = "NodeName"
    reasons: ClassVar[Reasons] = {1: (UNRESOLVABLE, "node(s) didn't match the requested node name")}

    def active(self, cycle: Cycle) -> bool:
        return bool(cycle.info.pod["spec"].get("nodeName"))

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        wanted = cycle.info.pod["spec"].get("nodeName")
        infos = cycle.state.rows(rows)
        return np.array([info.name != wanted for info in infos], np.int8)
