"""Spread over topology domains: hard constraints filter, soft ones score; most pods of workloads get soft defaults.

Source: k8s v1.36 pkg/scheduler/framework/plugins/podtopologyspread/{filtering,scoring,common}.go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import numpy as np
from numpy.typing import NDArray

from kcp.apis.semantics import topology
from kcp.machinery.labels import Requirement, Selector, from_label_selector, from_set
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.framework.plugin import ALL, MAX_SCORE, Codes, Cycle, Reasons, Rows
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.framework.status import UNRESOLVABLE, UNSCHEDULABLE
from kcp.scheduler.plugins.node_affinity import selected_nodes
from kcp.scheduler.plugins.taint_toleration import untolerated
from kcp.scheduler.pod_class import Constraint, PodClass, spread_constraint
from kcp.scheduler.terms import Bools, Domains, Ids, Ints, Sums

Json = dict[str, Any]
Floats = NDArray[np.float64]

SYSTEM_DEFAULTS: tuple[Json, ...] = (
    {"maxSkew": 3, "topologyKey": topology.HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway"},
    {"maxSkew": 5, "topologyKey": topology.ZONE, "whenUnsatisfiable": "ScheduleAnyway"},
)
_TEXT = "node(s) didn't match pod topology spread constraints"


@attrs.frozen(eq=False)
class Constraints:
    """What applies to a pod. `own`: nodes that lack a key are ignored by soft constraints."""

    hard: tuple[Constraint, ...]
    soft: tuple[Constraint, ...]
    require_keys: bool


class PodTopologySpread:
    name = "PodTopologySpread"
    reasons: ClassVar[Reasons] = {
        1: (UNSCHEDULABLE, _TEXT),
        2: (UNRESOLVABLE, f"{_TEXT} (missing required label)"),
    }

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._system = (args.get("defaultingType") or "System") == "System"
        self._defaults: Sequence[Json] = (
            SYSTEM_DEFAULTS if self._system else args.get("defaultConstraints") or ()
        )

    def constraints(self, framework: Framework, cls: PodClass) -> Constraints:
        if cls.has_spread:
            return Constraints(cls.hard_spread, cls.soft_spread, True)
        version = framework.state.selecting_version.get(cls.namespace, 0)
        known = framework.defaults.get(cls.number)
        if known is not None and known[0] == version:
            found: Constraints = known[1]
            return found
        found = self._default_constraints(framework.state, cls)
        framework.defaults[cls.number] = (version, found)
        return found

    def _default_constraints(self, state: ClusterState, cls: PodClass) -> Constraints:
        selector = default_selector(state, cls) if self._defaults else Selector()
        if selector.empty:
            return Constraints((), (), not self._system)
        made = [
            (c["whenUnsatisfiable"], spread_constraint(c, selector, cls.namespace, cls.labels))
            for c in self._defaults
        ]
        hard = tuple(c for when, c in made if when == "DoNotSchedule")
        soft = tuple(c for when, c in made if when == "ScheduleAnyway")
        return Constraints(hard, soft, not self._system)

    # --- hard constraints ---

    def active(self, cycle: Cycle) -> bool:
        return bool(self.constraints(cycle.framework, cycle.cls).hard)

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        framework, cls = cycle.framework, cycle.cls
        hard = self.constraints(framework, cls).hard
        keys = tuple(c.key for c in hard)
        codes: Codes | None = None
        for constraint in hard:
            sums = _counted(framework, cls, constraint, keys)
            domains = framework.state.domains(constraint.key)
            ids = domains.ids[rows]
            least = _least(constraint, sums)
            limit = constraint.max_skew + least - int(constraint.matches_self)
            too_many = sums.counts > limit
            too_many[domains.count] = False
            failing = np.where(ids == domains.count, np.int8(2), too_many[ids].astype(np.int8))
            codes = failing if codes is None else np.where(codes != 0, codes, failing)
        assert codes is not None
        return codes

    def skews(self, cycle: Cycle, index: int) -> list[Json]:
        """Each hard constraint on one node, with what it counts; `domain` None: the node lacks the key."""
        framework, cls = cycle.framework, cycle.cls
        hard = self.constraints(framework, cls).hard
        keys = tuple(c.key for c in hard)
        found = []
        for constraint in hard:
            sums = _counted(framework, cls, constraint, keys)
            domain = framework.state.domains(constraint.key).ids.item(index)
            found.append(
                {
                    "key": constraint.key,
                    "domain": framework.state.infos[index].labels.get(constraint.key),
                    "matching": sums.counts.item(domain),
                    "least": _least(constraint, sums),
                    "self": int(constraint.matches_self),
                    "max skew": constraint.max_skew,
                }
            )
        return found

    # --- soft constraints ---

    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        framework, cls = cycle.framework, cycle.cls
        constraints = self.constraints(framework, cls)
        soft = constraints.soft
        if not soft:
            return None
        ignored = _ignored(framework.state, soft, feasible, count) if constraints.require_keys else None
        kept = count - (int(ignored.sum()) if ignored is not None else 0)
        keys = tuple(c.key for c in soft) if constraints.require_keys else ()
        raw: Floats | None = None
        for constraint in soft:
            score = _soft_score(framework, cls, constraint, keys, feasible, ignored, kept)
            raw = score if raw is None else raw + score
        assert raw is not None
        return _normalized(_rounded(raw), ignored)


def fails(row: Json) -> bool:
    """Whether a row of `skews` is a refusal."""
    return row["domain"] is None or row["matching"] + row["self"] - row["least"] > row["max skew"]


def default_selector(state: ClusterState, cls: PodClass) -> Selector:
    """Everything that the Services and the owner of a pod select, together. Empty: nothing selects it.

    Source: k8s v1.36 pkg/scheduler/framework/plugins/helper/spread.go.
    """
    labels: dict[str, str] = {}
    prefix = f"{cls.namespace}/"
    for key, service in state.objects["services"].items():
        wanted = (service.get("spec") or {}).get("selector")
        if wanted is not None and key.startswith(prefix) and wanted.items() <= cls.labels.items():
            labels.update(wanted)
    requirements: Sequence[Requirement] = ()
    if cls.owner is not None:
        resource, name = cls.owner
        owner = state.objects[resource].get(f"{cls.namespace}/{name}")
        wanted = (owner.get("spec") or {}).get("selector") if owner is not None else None
        if wanted and resource == "replicationcontrollers":
            labels.update(wanted)
        elif wanted is not None:
            requirements = from_label_selector(wanted).requirements
    return from_set(labels).plus(*requirements)


def _eligible(
    framework: Framework, cls: PodClass, constraint: Constraint, keys: tuple[str, ...]
) -> tuple[Any, Bools | None]:
    """(name, mask) of the nodes whose pods count. A mask of None means all nodes."""
    affinity = cls.node_signature if constraint.honor_affinity and cls.selects_nodes else None
    tolerations = cls.toleration_signature if constraint.honor_taints else None
    name = ("eligible", affinity, tolerations, keys)

    def build() -> Bools | None:
        state = framework.state
        mask = np.ones(len(state), np.bool_)
        for key in keys:
            domains = state.domains(key)
            mask &= domains.ids < domains.count
        if affinity is not None:
            mask &= selected_nodes(framework, cls)
        if tolerations is not None:
            hard = untolerated(framework, cls)
            if hard is not None:
                mask &= ~hard
        return None if mask.all() else mask

    mask: Bools | None = framework.once(name, build)
    return (None if mask is None else name), mask


def _counted(framework: Framework, cls: PodClass, constraint: Constraint, keys: tuple[str, ...]) -> Sums:
    state = framework.state
    name, mask = _eligible(framework, cls, constraint, keys)
    counter = state.spreading(constraint.group)
    return counter.summed((constraint.key, name), state.domains(constraint.key), mask)


def _least(constraint: Constraint, sums: Sums) -> int:
    """The smallest count of an eligible domain; 0 when there are fewer domains than asked for."""
    counts = sums.counts[: sums.domains.count][sums.present]
    if len(counts) < constraint.min_domains:
        return 0
    return int(counts.min())


def _ignored(state: ClusterState, soft: Sequence[Constraint], feasible: Rows, count: int) -> Bools | None:
    """Feasible nodes that lack one of the keys; None when all have all."""
    lacking: Bools | None = None
    for constraint in soft:
        domains = state.domains(constraint.key)
        if domains.lacking:
            there = domains.ids[feasible] == domains.count
            lacking = there if lacking is None else lacking | there
    return lacking if lacking is not None and lacking.any() else None


def _soft_score(
    framework: Framework,
    cls: PodClass,
    constraint: Constraint,
    keys: tuple[str, ...],
    feasible: Rows,
    ignored: Bools | None,
    kept: int,
) -> Floats:
    """`count * ln(size + 2) + maxSkew - 1`; 0 for nodes without the key. On host names each node counts itself."""
    state = framework.state
    domains = state.domains(constraint.key)
    base = float(constraint.max_skew - 1)
    score: Floats
    if constraint.key == topology.HOSTNAME:
        counts = state.spreading(constraint.group).node[feasible]
        score = np.multiply(counts, math.log(kept + 2), dtype=np.float64) + base
        return np.where(domains.ids[feasible] < domains.count, score, 0.0) if domains.lacking else score
    ids = domains.ids[feasible]
    size = _domains_in_play(domains, ids, feasible, ignored)
    counted = _counted(framework, cls, constraint, keys).counts
    by_domain: Floats = np.multiply(counted, math.log(size + 2), dtype=np.float64) + base
    by_domain[domains.count] = 0.0
    score = by_domain[ids]
    return score


def _domains_in_play(domains: Domains, ids: Ids, feasible: Rows, ignored: Bools | None) -> int:
    """How many values the key has on the nodes that are scored; to lack it is a value too."""
    if feasible is ALL and ignored is None:
        return domains.count + domains.lacking
    scored = ids if ignored is None else ids[~ignored]
    return int(np.count_nonzero(np.bincount(scored, minlength=1)))


def _rounded(raw: Floats) -> Ints:
    """Half away from zero, as Go's math.Round; the values are not negative."""
    whole: Ints = raw.astype(np.int64)
    whole += raw - whole >= 0.5
    return whole


def _normalized(scores: Ints, ignored: Bools | None) -> Ints:
    judged = scores if ignored is None else scores[~ignored]
    if not len(judged):
        return np.zeros(len(scores), np.int64)
    highest, lowest = int(judged.max()), int(judged.min())
    if highest == 0:
        scaled = np.full(len(scores), MAX_SCORE, np.int64)
    else:
        scaled = MAX_SCORE * (highest + lowest - scores) // highest
    return scaled if ignored is None else np.where(ignored, 0, scaled)
