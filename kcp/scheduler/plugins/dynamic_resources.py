"""Devices for the pod's claims: on which nodes those that it has can be used and those that it needs can be had.

What a node can give is remembered per kind of claims until something of its pools is taken or changes.
Source: k8s v1.36 pkg/scheduler/framework/plugins/dynamicresources/dynamicresources.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import numpy as np
import orjson

from kcp.apis.semantics import resource_claims as facts
from kcp.apis.semantics.affinity import node_selector_matches
from kcp.machinery import meta
from kcp.scheduler.cluster_state import ClusterState, NodeInfo
from kcp.scheduler.dra import allocator
from kcp.scheduler.dra.allocator import Chosen, NotOnThisNode, Search
from kcp.scheduler.dra.claims import ClaimUnusable, claims_of, has_claims
from kcp.scheduler.dra.device_cel import compile_selector
from kcp.scheduler.dra.devices import CLAIMS, CLASSES, NodePools, allocation_of
from kcp.scheduler.dra.pools import PoolId
from kcp.scheduler.dra.results import allocation_result, offers_alternatives, rank
from kcp.scheduler.dra.selectors import AllocationFailed, Compile, Selectors
from kcp.scheduler.framework.plugin import MAX_SCORE, Codes, Cycle, Reasons, Rejected, Rows
from kcp.scheduler.framework.status import NO_CLAIMS_TO_DEALLOCATE, UNRESOLVABLE
from kcp.scheduler.framework.user_plugin import PluginFailed
from kcp.scheduler.terms import Bools, Ints

Json = dict[str, Any]
NAME = "DynamicResources"
IN_USE = "resourceclaim in use"
NOT_AVAILABLE = "resourceclaim not available on the node"
NOT_ALL = "cannot allocate all claims"
DEALLOCATED = "deallocation of ResourceClaim completed"
STILL_NOT = "still not schedulable"
MAX_REMEMBERED = 100_000
MAX_KINDS = 256
"""Of claims, for which it is known what each node can give."""
_MEMORY = "devices"
_PASSES, _UNAVAILABLE, _NOT_ALL, _INVALID, _TIMED_OUT = range(5)
_UNKNOWN = -1
_CODES: Mapping[str, int] = {allocator.INVALID_POOLS: _INVALID, allocator.TIMED_OUT: _TIMED_OUT}


@attrs.frozen(eq=False)
class Outcome:
    """What a node can give: a code, and the devices for each claim if it passes."""

    code: int
    chosen: tuple[tuple[Chosen, ...], ...] = ()


@attrs.define(eq=False)
class Outcomes:
    """What the nodes can give to claims of one kind; `codes` has -1 where that must be found out (again).

    `read` is how far the pools touched since then were looked at, `reaching` by pool the nodes that reach it.
    """

    stamp: tuple[int, ...]
    codes: Codes
    found: list[Outcome | None]
    reaching: dict[PoolId, list[int]] = attrs.field(factory=dict)
    reached: set[int] = attrs.field(factory=set)
    read: int = 0

    def refresh(self, touched: Sequence[PoolId]) -> None:
        for pool in dict.fromkeys(touched[self.read :]):
            for index in self.reaching.get(pool, ()):
                self.codes[index] = _UNKNOWN
        self.read = len(touched)


@attrs.define(eq=False)
class PodClaims:
    """The pod's claims in one cycle. `unavailable` are the places of those that some node did not suit."""

    claims: list[Json]
    to_allocate: list[Json]
    signature: bytes
    fault: str = ""
    outcomes: Outcomes | None = None
    unavailable: dict[int, None] = attrs.field(factory=dict)


class DynamicResources:
    name = NAME
    per_node = True
    reasons: ClassVar[Reasons] = {
        _UNAVAILABLE: (UNRESOLVABLE, NOT_AVAILABLE),
        _NOT_ALL: (UNRESOLVABLE, NOT_ALL),
        _INVALID: (UNRESOLVABLE, allocator.INVALID_POOLS),
        _TIMED_OUT: (UNRESOLVABLE, allocator.TIMED_OUT),
    }

    def __init__(self, compile: Compile = compile_selector) -> None:
        self.selectors = Selectors(compile)
        self._outcomes: dict[bytes, Outcomes] = {}
        self._remembered: dict[tuple[bytes, str], tuple[Any, Outcome]] = {}

    def pre_filter(self, cycle: Cycle) -> Rejected | None:
        if not has_claims(cycle.info.pod):
            return None
        fault = pod_claims(cycle).fault
        return Rejected(NAME, fault, UNRESOLVABLE) if fault else None

    def active(self, cycle: Cycle) -> bool:
        return has_claims(cycle.info.pod) and bool(pod_claims(cycle).claims)

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        return self.codes_at(cycle, np.arange(len(cycle.state))[rows])

    def codes_at(self, cycle: Cycle, indexes: Ints) -> Codes:
        """Of these nodes. An allocation is tried even where another claim does not suit: its code counts before that."""
        asked, state = pod_claims(cycle), cycle.state
        codes: Codes = np.zeros(len(indexes), np.int8)
        if asked.to_allocate:
            outcomes = self._outcomes_of(state, asked)
            codes = outcomes.codes[indexes]
            for place in np.flatnonzero(codes == _UNKNOWN).tolist():
                codes[place] = self._find_out(state, asked, outcomes, indexes.item(place))
        passing = codes == _PASSES
        for number, claim in enumerate(asked.claims):
            unsuited = passing & ~_suiting(cycle, claim)[indexes]
            if unsuited.any():
                asked.unavailable[number] = None
                codes[unsuited] = _UNAVAILABLE
        return codes

    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        """Earlier alternatives of a `firstAvailable` are better; the best node gets 100."""
        if not has_claims(cycle.info.pod):
            return None
        asked = pod_claims(cycle)
        if not any(offers_alternatives(claim) for claim in asked.to_allocate):
            return None
        indexes = np.arange(len(cycle.state))[feasible].tolist()
        raw = np.array([self._rank(asked, index) for index in indexes], np.int64)
        best = int(raw.max())
        return MAX_SCORE * raw // best if best else None

    def _rank(self, asked: PodClaims, index: int) -> int:
        outcome = asked.outcomes.found[index] if asked.outcomes is not None else None
        return rank(asked.to_allocate, outcome.chosen) if outcome is not None and outcome.chosen else 0

    # --- one node ---

    def _outcomes_of(self, state: ClusterState, asked: PodClaims) -> Outcomes:
        """As they are now; looked up once in a cycle."""
        if asked.outcomes is not None:
            return asked.outcomes
        devices = state.devices
        stamp = (state.epoch, devices.index.changes, devices.classes_version, devices.touched_epoch)
        found = self._outcomes.get(asked.signature)
        if found is None or found.stamp != stamp:
            if len(self._outcomes) >= MAX_KINDS:
                self._outcomes.clear()
            codes: Codes = np.full(len(state), _UNKNOWN, np.int8)
            nothing: list[Outcome | None] = [None] * len(state)
            found = Outcomes(stamp, codes, nothing, read=len(devices.touched))
            self._outcomes[asked.signature] = found
        found.refresh(devices.touched)
        asked.outcomes = found
        return found

    def _find_out(self, state: ClusterState, asked: PodClaims, outcomes: Outcomes, index: int) -> int:
        node = state.infos[index]
        reached = state.devices.pools_of(node.name, node.labels, state.epoch)
        if index not in outcomes.reached:
            outcomes.reached.add(index)
            for pool in reached.pools:
                outcomes.reaching.setdefault(pool.id, []).append(index)
        outcome = self._allocate(state, asked, node, reached)
        outcomes.found[index] = outcome
        outcomes.codes[index] = outcome.code
        return outcome.code

    def _allocate(self, state: ClusterState, asked: PodClaims, node: NodeInfo, reached: NodePools) -> Outcome:
        stamp = (reached.version, reached.epoch, state.devices.classes_version, reached.taken_version)
        key = (asked.signature, node.name)
        known = self._remembered.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        outcome = self._search(state, asked.to_allocate, reached)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = (stamp, outcome)
        return outcome

    def _search(self, state: ClusterState, claims: list[Json], reached: NodePools) -> Outcome:
        classes = state.objects[CLASSES]
        try:
            found = Search(claims, reached.pools, state.devices, classes, self.selectors).run()
        except NotOnThisNode as why:
            return Outcome(_CODES[str(why)])
        except AllocationFailed as failure:
            raise PluginFailed(f'running "{NAME}" filter plugin: {failure}') from failure
        if found is None:
            return Outcome(_NOT_ALL)
        return Outcome(_PASSES, tuple(tuple(chosen) for chosen in found))

    # --- what follows from a decision ---

    def allocations(self, cycle: Cycle, node: str) -> dict[str, Json]:
        """The allocation of each claim that gets one when the pod goes to this feasible node."""
        if not has_claims(cycle.info.pod):
            return {}
        asked = pod_claims(cycle)
        info = cycle.state.nodes[node]
        outcome = asked.outcomes.found[info.index] if asked.outcomes is not None else None
        if outcome is None or not outcome.chosen:
            return {}
        return {
            meta.key_of(claim): allocation_result(claim, chosen, node)
            for claim, chosen in zip(asked.to_allocate, outcome.chosen, strict=True)
        }

    def to_deallocate(self, cycle: Cycle) -> tuple[str, str]:
        """(what the post-filter says, the claim to be freed or ""): one that nobody but this pod has kept."""
        asked = pod_claims(cycle) if has_claims(cycle.info.pod) else None
        if asked is None or not asked.claims:
            return NO_CLAIMS_TO_DEALLOCATE, ""
        for place in sorted(asked.unavailable):
            claim = asked.claims[place]
            reserved = (claim.get("status") or {}).get("reservedFor") or ()
            if all(consumer.get("uid") == cycle.info.uid for consumer in reserved):
                return DEALLOCATED, meta.key_of(claim)
        return STILL_NOT, ""


def suits(claim: Json, node: NodeInfo) -> bool:
    """Whether the devices that the claim has can be used on the node, and no driver gave them up."""
    allocation = allocation_of(claim)
    if allocation is not None and facts.binding_fault(claim):
        return False
    selector = allocation.get("nodeSelector") if allocation is not None else None
    return node_selector_matches(selector, node.labels, node.name)


def _suiting(cycle: Cycle, claim: Json) -> Bools:
    """By node index, remembered as long as the labels of nodes stay."""
    allocation = allocation_of(claim)
    if allocation is None:
        everywhere: Bools = cycle.framework.once("all nodes", lambda: np.ones(len(cycle.state), np.bool_))
        return everywhere
    if facts.binding_fault(claim):
        return np.zeros(len(cycle.state), np.bool_)
    key = ("claim selector", orjson.dumps(allocation.get("nodeSelector")))
    found: Bools = cycle.framework.once(key, lambda: cycle.state.each_node(lambda node: suits(claim, node)))
    return found


def pod_claims(cycle: Cycle) -> PodClaims:
    known = cycle.memory.get(_MEMORY)
    if known is None:
        known = cycle.memory[_MEMORY] = _look_up(cycle)
    found: PodClaims = known
    return found


def _look_up(cycle: Cycle) -> PodClaims:
    state, pod = cycle.state, cycle.info.pod
    try:
        claims = claims_of(pod, state.objects[CLAIMS])
    except ClaimUnusable as unusable:
        return PodClaims([], [], b"", str(unusable))
    for claim in claims:
        fault = _fault(state, pod, claim)
        if fault:
            return PodClaims([], [], b"", fault)
    to_allocate = [claim for claim in claims if allocation_of(claim) is None]
    return PodClaims(claims, to_allocate, orjson.dumps([claim.get("spec") for claim in to_allocate]))


def _fault(state: ClusterState, pod: Json, claim: Json) -> str:
    if allocation_of(claim) is not None:
        in_use = not facts.can_be_reserved(claim) and not facts.is_reserved_for(claim, pod)
        return IN_USE if in_use else ""
    if meta.key_of(claim) in state.devices.under_way:
        return f"resource claim {meta.key_of(claim)} is in the process of being allocated"
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        fault = _class_fault(state, claim, request)
        if fault:
            return fault
    return ""


def _class_fault(state: ClusterState, claim: Json, request: Json) -> str:
    name = request.get("name") or ""
    if request.get("exactly") is not None:
        wanted = [(name, request["exactly"])]
    else:
        wanted = [(f"{name}/{sub.get('name')}", sub) for sub in request.get("firstAvailable") or ()]
    if not wanted:
        return f"resource claim {meta.key_of(claim)}, request {name}: unknown request type"
    for full_name, spec in wanted:
        class_name = spec.get("deviceClassName") or ""
        if not class_name:
            text = f"request {full_name}: unsupported request type"
            raise PluginFailed(f'running PreFilter plugin "{NAME}": {text}')
        if class_name not in state.objects[CLASSES]:
            return f"request {full_name}: device class {class_name} does not exist"
    return ""
