"""Node IPAM: each node gets a range of pod addresses of its own out of each cluster CIDR.

One key does all: what is given and not seen yet must not be given again, and the barrier is per key. Without cluster
CIDRs (the default, as without --allocate-node-cidrs) nothing is given.
Source: k8s v1.36 pkg/controller/nodeipam/ipam/{range_allocator.go,cidrset/cidr_set.go}.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kcp.apis.semantics import nodes as node_facts
from kcp.base.ipam import OutOfRange, SubnetRange
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.errors import NotFound, ServerTimeout, Timeout

Json = dict[str, Any]
KEY = ":range"
MASKS = {4: 24, 6: 64}
IPV6_MAX_BITS = 16
PATCH_ATTEMPTS = 3


def subnet_range(cidr: str, mask: int = 0) -> SubnetRange:
    """The node ranges of a cluster CIDR. Raises ValueError when it cannot be divided so."""
    network = ipaddress.ip_network(cidr)
    mask = mask or MASKS[network.version]
    if network.version == 6 and mask - network.prefixlen > IPV6_MAX_BITS:
        raise ValueError(
            "New CIDR set failed; the node CIDR size is too big, "
            "the node CIDR mask must be at most 16 bits longer than the cluster CIDR mask"
        )
    return SubnetRange(cidr, mask)


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    """The memo: where each range stands, and what was given to nodes whose patch timed out (it may have been made)."""
    del key
    cidrs = env.settings["cluster_cidrs"]
    waiting = view.nodes.index("waiting", "yes")
    if not cidrs or not waiting:
        return
    memo = env.memo or {}
    ranges = _ranges(cidrs, env.settings, memo.get("next") or [0] * len(cidrs), view.nodes.list())
    held = {
        name: given
        for name, given in memo.get("held", {}).items()
        if any(meta.name(n) == name for n in waiting)
    }
    for given in held.values():
        _occupy(ranges, given)
    for node in waiting:
        name = meta.name(node)
        given = held.get(name) or _take(ranges)
        if given is None:
            yield fx.Event(node, "Normal", "CIDRNotAvailable", f"Node {name} status is now: CIDRNotAvailable")
            continue
        outcome = yield from _assign(node, given)
        held.pop(name, None)
        if isinstance(outcome.error, (Timeout, ServerTimeout)):
            held[name] = given
        if outcome.error is not None and not isinstance(outcome.error, NotFound):
            text = f"Node {name} status is now: CIDRAssignmentFailed"
            yield fx.Event(node, "Normal", "CIDRAssignmentFailed", text)
    yield fx.Memo({"next": [subnets.next for subnets in ranges], "held": held})


def _ranges(
    cidrs: Sequence[str], settings: Mapping[str, Any], starts: Sequence[int], nodes: Sequence[Json]
) -> list[SubnetRange]:
    masks = settings["node_cidr_masks"]
    ranges = [subnet_range(cidr, masks[i] if i < len(masks) else 0) for i, cidr in enumerate(cidrs)]
    for subnets, start in zip(ranges, starts, strict=False):
        subnets.next = start % subnets.size
    _occupy(ranges, settings["service_cidrs"])
    for node in nodes:
        _occupy(ranges, node_facts.pod_cidrs(node))
    return ranges


def _occupy(ranges: Sequence[SubnetRange], cidrs: Sequence[str]) -> None:
    """Nothing of these may be given; what lies outside is none of our business."""
    for cidr in cidrs:
        for subnets in ranges:
            with suppress(OutOfRange):
                subnets.occupy(cidr)


def _take(ranges: Sequence[SubnetRange]) -> list[str] | None:
    """One subnet of each range; None, and nothing given, when one of them is used up."""
    if any(subnets.free == 0 for subnets in ranges):
        return None
    return [subnets.allocate_next() for subnets in ranges]


def _assign(node: Json, given: list[str]) -> Generator[fx.Effect, fx.Outcome, fx.Outcome]:
    patch = {"spec": {"podCIDR": given[0], "podCIDRs": given}}
    outcome = fx.Outcome()
    for _ in range(PATCH_ATTEMPTS):
        outcome = yield fx.Patch("nodes", "", meta.name(node), patch, type="strategic", uid=meta.uid(node))
        if outcome.ok or isinstance(outcome.error, NotFound):
            break
    return outcome


def touched_node(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A node without ranges, or one that goes and leaves its own."""
    return [KEY] if new is None or waiting_node(new) else []


def waiting_node(node: Json) -> list[str]:
    return [] if node_facts.pod_cidrs(node) or meta.is_deleting(node) else ["yes"]


CONTROLLER = Controller(
    name="node-ipam-controller",
    event_source="cidrAllocator",
    identity="node-controller",
    plan=plan,
    watches={"nodes": Fan("nodes", keys=touched_node, indexes={"waiting": waiting_node})},
    workers=1,
    settings={"cluster_cidrs": (), "service_cidrs": (), "node_cidr_masks": ()},
)
