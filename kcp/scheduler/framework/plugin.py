"""What a plugin is: pure functions over the cluster state, on all nodes at once or on some.

`rows` says which nodes: `slice(None)` for all of them, `slice(i, i + 1)` for one. Codes are small integers per node: 0
passes, others are keys of `reasons`. Nothing here reads a clock, draws a number or waits; else a decision could not be
made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from kcp.base.values import frozen
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.framework.status import Status
from kcp.scheduler.pod_class import PodClass, PodInfo
from kcp.scheduler.terms import Bools, Ints

if TYPE_CHECKING:
    from kcp.scheduler.framework.runtime import Framework

Json = dict[str, Any]
Codes = NDArray[np.int8]
Reasons = Mapping[int, tuple[Status, str]]
Rows = Any

MAX_SCORE = 100
ALL: Rows = slice(None)
"""Every node."""


def how_many(state: ClusterState, rows: Rows) -> int:
    """Number of nodes that `rows`, all of them or a slice of one, means."""
    return len(state) if rows is ALL else int(rows.stop - rows.start)


def codes_where(failing: Bools, code: int = 1) -> Codes:
    """`code` where it fails, else 0."""
    return failing.astype(np.int8) * np.int8(code)


@attrs.define(eq=False)
class Cycle:
    """One attempt to schedule one pod. `memory` is what plugins keep between their own steps."""

    state: ClusterState
    info: PodInfo
    framework: Framework
    memory: dict[str, Any] = attrs.field(factory=dict)

    @property
    def cls(self) -> PodClass:
        return self.info.cls


@frozen
class Rejected:
    """A pre-filter turned the pod down for every node, with one text."""

    plugin: str
    text: str
    status: Status


class Plugin(Protocol):
    """The one thing that all plugins have."""

    name: str


class StaticFilter(Plugin, Protocol):
    """Depends on the pod's class and on node objects only: computed once per class and epoch."""

    reasons: Reasons

    def static_codes(self, framework: Framework, cls: PodClass) -> Codes | None:
        """None: no node fails."""
        ...


class DynamicFilter(Plugin, Protocol):
    """Depends on pods or claims too."""

    reasons: Reasons

    def active(self, cycle: Cycle) -> bool:
        """Whether any node can fail for this pod."""
        ...

    def codes(self, cycle: Cycle, rows: Rows) -> Codes: ...


class PreFilter(Plugin, Protocol):
    def pre_filter(self, cycle: Cycle) -> Rejected | None: ...


class StaticScore(Plugin, Protocol):
    """Scores that follow from class and nodes, where no normalising over the feasible nodes is needed."""

    def static_score(self, framework: Framework, cls: PodClass) -> Ints | int | None:
        """0..100 per node or for all nodes; None when it must be normalised over the feasible nodes."""
        ...


class Score(Plugin, Protocol):
    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        """0..100 for each of the `count` feasible nodes, normalised; None: the plugin skips and adds nothing."""
        ...
