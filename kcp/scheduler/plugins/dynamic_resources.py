"""Devices for the pod's claims: on which nodes those that it has can be used and those that it needs can be had.

Extended resources that a DeviceClass serves become a claim of the pod's own, on nodes that do not offer them themselves.
What a node can give is remembered per kind of claims until something of its pools is taken or changes.
Source: k8s v1.36 pkg/scheduler/framework/plugins/dynamicresources/dynamicresources.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from kcp.scheduler.dra.extended import backed, is_device_resource, special_claim
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
DELETED = "deletion of ResourceClaim completed"
STILL_NOT = "still not schedulable"
STALE = "cannot schedule extended resource claim"
CANNOT_FIT = "cannot fit resource"
MAX_REMEMBERED = 100_000
MAX_KINDS = 256
"""Of claims, for which it is known what each node can give."""
_MEMORY, _UNKNOWN_RESOURCES = "devices", "unknown resources"
_PASSES, _UNAVAILABLE, _NOT_ALL, _INVALID, _TIMED_OUT, _STALE, _CANNOT_FIT = range(7)
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
class Variant:
    """The claims that need devices, as one kind of node sees them: a node may offer an extended resource itself."""

    to_allocate: list[Json]
    signature: bytes
    outcomes: Outcomes | None = None


@attrs.define(eq=False)
class PodClaims:
    """The pod's claims in one cycle. `unavailable` are the places of those that some node did not suit.

    `backed` are the extended resources that devices may stand behind, `unknown` others that it asks for beside these;
    `stale` is a claim that was made for it before and came to nothing. `variants` are kept by the resources for which a
    node has devices only.
    """

    pod: Json
    claims: list[Json]
    fault: str = ""
    backed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    stale: Json | None = None
    variants: dict[tuple[str, ...], Variant] = attrs.field(factory=dict)
    unavailable: dict[int, None] = attrs.field(factory=dict)

    def variant(self, state: ClusterState, index: int) -> Variant:
        lacking = tuple(name for name in self.backed if not state.column(name).allocatable.item(index))
        found = self.variants.get(lacking)
        if found is None:
            to_allocate = [claim for claim in self.claims if allocation_of(claim) is None]
            if lacking:
                to_allocate.append(special_claim(self.pod, lacking, state.device_classes)[0])
            signature = orjson.dumps([claim.get("spec") for claim in to_allocate])
            found = self.variants[lacking] = Variant(to_allocate, signature)
        return found


def concerns(cycle: Cycle) -> bool:
    """Whether the pod may need devices."""
    return has_claims(cycle.info.pod) or bool(backed(cycle.cls.shape, cycle.state.device_classes))


class DynamicResources:
    name = NAME
    per_node = True
    reasons: ClassVar[Reasons] = {
        _UNAVAILABLE: (UNRESOLVABLE, NOT_AVAILABLE),
        _NOT_ALL: (UNRESOLVABLE, NOT_ALL),
        _INVALID: (UNRESOLVABLE, allocator.INVALID_POOLS),
        _TIMED_OUT: (UNRESOLVABLE, allocator.TIMED_OUT),
        _STALE: (UNRESOLVABLE, STALE),
        _CANNOT_FIT: (UNRESOLVABLE, CANNOT_FIT),
    }

    def __init__(self, compile: Compile = compile_selector) -> None:
        self.selectors = Selectors(compile)
        self._outcomes: dict[bytes, Outcomes] = {}
        self._remembered: dict[tuple[bytes, str], tuple[Any, Outcome]] = {}

    def pre_filter(self, cycle: Cycle) -> Rejected | None:
        if not concerns(cycle):
            return None
        fault = pod_claims(cycle).fault
        return Rejected(NAME, fault, UNRESOLVABLE) if fault else None

    def active(self, cycle: Cycle) -> bool:
        if not concerns(cycle):
            return False
        asked = pod_claims(cycle)
        return bool(asked.claims or asked.backed)

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        return self.codes_at(cycle, np.arange(len(cycle.state))[rows])

    def codes_at(self, cycle: Cycle, indexes: Ints) -> Codes:
        """Of these nodes. An allocation is tried even where another claim does not suit: its code counts before that."""
        asked, state = pod_claims(cycle), cycle.state
        if asked.stale is not None:
            return np.full(len(indexes), _STALE, np.int8)
        codes: Codes = np.zeros(len(indexes), np.int8)
        for variant, places in _by_variant(state, asked, indexes):
            if variant.to_allocate:
                self._allocating(state, variant, indexes, places, codes)
        if asked.unknown:
            codes[(codes == _PASSES) & _unknown_on(cycle, asked)[indexes]] = _CANNOT_FIT
        passing = codes == _PASSES
        for number, claim in enumerate(asked.claims):
            unsuited = passing & ~_suiting(cycle, claim)[indexes]
            if unsuited.any():
                asked.unavailable[number] = None
                codes[unsuited] = _UNAVAILABLE
        return codes

    def _allocating(
        self, state: ClusterState, variant: Variant, indexes: Ints, places: Ints, codes: Codes
    ) -> None:
        """Writes the codes of these places among the nodes."""
        outcomes = self._outcomes_of(state, variant)
        codes[places] = outcomes.codes[indexes[places]]
        for place in places[codes[places] == _UNKNOWN].tolist():
            codes[place] = self._find_out(state, variant, outcomes, indexes.item(place))

    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        """Earlier alternatives of a `firstAvailable` are better; the best node gets 100."""
        if not has_claims(cycle.info.pod):
            return None
        asked = pod_claims(cycle)
        if not any(offers_alternatives(claim) for claim in asked.claims if allocation_of(claim) is None):
            return None
        indexes = np.arange(len(cycle.state))[feasible].tolist()
        raw = np.array([self._rank(cycle.state, asked, index) for index in indexes], np.int64)
        best = int(raw.max())
        return MAX_SCORE * raw // best if best else None

    def _rank(self, state: ClusterState, asked: PodClaims, index: int) -> int:
        variant = asked.variant(state, index)
        outcome = variant.outcomes.found[index] if variant.outcomes is not None else None
        return rank(variant.to_allocate, outcome.chosen) if outcome is not None and outcome.chosen else 0

    # --- one node ---

    def _outcomes_of(self, state: ClusterState, asked: Variant) -> Outcomes:
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

    def _find_out(self, state: ClusterState, asked: Variant, outcomes: Outcomes, index: int) -> int:
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

    def _allocate(self, state: ClusterState, asked: Variant, node: NodeInfo, reached: NodePools) -> Outcome:
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
        if not concerns(cycle):
            return {}
        info = cycle.state.nodes[node]
        variant = pod_claims(cycle).variant(cycle.state, info.index)
        outcome = variant.outcomes.found[info.index] if variant.outcomes is not None else None
        if outcome is None or not outcome.chosen:
            return {}
        return {
            meta.key_of(claim): allocation_result(claim, chosen, node)
            for claim, chosen in zip(variant.to_allocate, outcome.chosen, strict=True)
        }

    def to_deallocate(self, cycle: Cycle) -> tuple[str, str]:
        """(what the post-filter says, the claim to be freed or ""): one that nobody but this pod has kept."""
        asked = pod_claims(cycle) if concerns(cycle) else None
        if asked is None or not (asked.claims or asked.backed):
            return NO_CLAIMS_TO_DEALLOCATE, ""
        for place in sorted(asked.unavailable):
            claim = asked.claims[place]
            reserved = (claim.get("status") or {}).get("reservedFor") or ()
            if all(consumer.get("uid") == cycle.info.uid for consumer in reserved):
                return DEALLOCATED, meta.key_of(claim)
        return (DELETED, meta.key_of(asked.stale)) if asked.stale is not None else (STILL_NOT, "")


def _by_variant(state: ClusterState, asked: PodClaims, indexes: Ints) -> Iterator[tuple[Variant, Ints]]:
    """(variant, the places of the nodes that see the claims so)."""
    everywhere = np.arange(len(indexes))
    if not asked.backed:
        if len(indexes):
            yield asked.variant(state, indexes.item(0)), everywhere
        return
    kinds = np.zeros(len(indexes), np.int64)
    for name in asked.backed:
        kinds = 2 * kinds + (state.column(name).allocatable[indexes] == 0)
    for kind in np.unique(kinds).tolist():
        places = everywhere[kinds == kind]
        yield asked.variant(state, indexes.item(places.item(0))), places


def _unknown_on(cycle: Cycle, asked: PodClaims) -> Bools:
    """The nodes that do not know a resource which no class serves either; looked up once in a cycle."""
    known = cycle.memory.get(_UNKNOWN_RESOURCES)
    if known is None:
        names = asked.unknown
        known = cycle.state.each_node(lambda node: any(name not in node.allocatable for name in names))
        cycle.memory[_UNKNOWN_RESOURCES] = known
    found: Bools = known
    return found


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
        claims = claims_of(pod, state.objects[CLAIMS]) if has_claims(pod) else []
    except ClaimUnusable as unusable:
        return PodClaims(pod, [], str(unusable))
    claims = [_decided_together(state, claim) for claim in claims]
    for claim in claims:
        fault = _fault(state, pod, claim)
        if fault:
            return PodClaims(pod, [], fault)
    found = backed(cycle.cls.shape, state.device_classes)
    if not found:
        return PodClaims(pod, claims)
    stale = state.objects[CLAIMS].get(state.devices.special.get(cycle.info.uid, ""))
    if stale is not None and pod["spec"].get(
        "nodeName"
    ):  # asked about while it runs: the claim is its own, and in use
        return PodClaims(pod, [*claims, stale])
    asked = (name for name, _ in cycle.cls.shape.real)
    unknown = tuple(name for name in asked if name not in found and is_device_resource(name))
    return PodClaims(pod, claims, "", found, unknown, stale)


def _decided_together(state: ClusterState, claim: Json) -> Json:
    """With the devices that another pod of the gang that is being tried gets for it."""
    if not state.together or allocation_of(claim) is not None:
        return claim
    entry = state.devices.under_way.get(meta.key_of(claim))
    if entry is None or entry["pod"] not in state.together:
        return claim
    return {**claim, "status": {**(claim.get("status") or {}), "allocation": entry["allocation"]}}


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
