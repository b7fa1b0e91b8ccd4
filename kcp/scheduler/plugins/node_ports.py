"""Host ports are taken once per node, protocol and address; 0.0.0.0 is every address.

Source: k8s v1.36 pkg/scheduler/framework/plugins/nodeports.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.framework.plugin import Codes, Cycle, Reasons, Rows
from kcp.scheduler.framework.status import UNSCHEDULABLE

ANY = "0.0.0.0"


class NodePorts:
    name = "NodePorts"
    reasons: ClassVar[Reasons] = {
        1: (UNSCHEDULABLE, "node(s) didn't have free ports for the requested pod ports")
    }

    def active(self, cycle: Cycle) -> bool:
        ports = cycle.state.ports
        return any((protocol, port) in ports for _, protocol, port in cycle.cls.ports)

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        state = cycle.state
        codes = np.zeros(len(state), np.int8)
        for address, protocol, port in cycle.cls.ports:
            for name, used in state.ports.get((protocol, port), {}).items():
                index = _index(state, name)
                if index >= 0 and (address == ANY or ANY in used or address in used):
                    codes[index] = 1
        found: Codes = codes[rows]
        return found


def _index(state: ClusterState, name: str) -> int:
    return state.nodes[name].index
