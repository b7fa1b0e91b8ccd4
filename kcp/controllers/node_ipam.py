"""Node IPAM: each node gets a range of pod addresses of its own out of each cluster CIDR.

One key does all: what is given and not seen yet must not be given again, and the barrier is per key. Without cluster
CIDRs (the default, as without --allocate-node-cidrs) nothing is given.
Source: k8s v1.36 pkg/controller/nodeipam/ipam/{range_allocator.go,cidrset/cidr_set.go}.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import attrs

from kcp.apis.semantics import nodes as node_facts
from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.errors import NotFound, ServerTimeout, Timeout

Json = dict[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
KEY = ":range"
MASKS = {4: 24, 6: 64}
IPV6_MAX_BITS = 16
PATCH_ATTEMPTS = 3


class BadRange(ValueError):
    """Raised when the configured ranges cannot be divided as asked."""


@attrs.define
class Subnets:
    """The subnets of one cluster CIDR by number; owned by one plan. `next` is where the search for a free one starts."""

    network: Network
    mask: int
    next: int = 0
    taken: set[int] = attrs.field(factory=set)

    @classmethod
    def of(cls, cidr: str, mask: int = 0) -> Subnets:
        network = ipaddress.ip_network(cidr)
        mask = mask or MASKS[network.version]
        if mask < network.prefixlen:
            raise BadRange(f"New CIDR set failed; the node CIDR size /{mask} is larger than {cidr}")
        if network.version == 6 and mask - network.prefixlen > IPV6_MAX_BITS:
            raise BadRange(
                "New CIDR set failed; the node CIDR size is too big, "
                "the node CIDR mask must be at most 16 bits longer than the cluster CIDR mask"
            )
        return cls(network, mask)

    @property
    def size(self) -> int:
        return 1 << (self.mask - self.network.prefixlen)

    def occupy(self, other: Network) -> None:
        """Nothing of `other` may be given; what lies outside is none of our business."""
        if other.version != self.network.version or not _overlap(other, self.network):
            return
        first = max(int(other.network_address), int(self.network.network_address))
        last = min(int(other.broadcast_address), int(self.network.broadcast_address))
        base, width = int(self.network.network_address), self.network.max_prefixlen - self.mask
        self.taken.update(range((first - base) >> width, ((last - base) >> width) + 1))

    def take(self) -> str | None:
        """The next free subnet after the last one given, around the end; None when all are taken."""
        if len(self.taken) >= self.size:
            return None
        number = next(
            n % self.size for n in range(self.next, self.next + self.size) if n % self.size not in self.taken
        )
        self.taken.add(number)
        self.next = (number + 1) % self.size
        width = self.network.max_prefixlen - self.mask
        address = int(self.network.network_address) + (number << width)
        return str(ipaddress.ip_network((address, self.mask)))


def _overlap(one: Network, other: Network) -> bool:
    return int(one.network_address) <= int(other.broadcast_address) and int(other.network_address) <= int(
        one.broadcast_address
    )


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
) -> list[Subnets]:
    masks = settings["node_cidr_masks"]
    ranges = [Subnets.of(cidr, masks[i] if i < len(masks) else 0) for i, cidr in enumerate(cidrs)]
    for subnets, start in zip(ranges, starts, strict=False):
        subnets.next = start % subnets.size
    _occupy(ranges, settings["service_cidrs"])
    for node in nodes:
        _occupy(ranges, node_facts.pod_cidrs(node))
    return ranges


def _occupy(ranges: Sequence[Subnets], cidrs: Sequence[str]) -> None:
    for cidr in cidrs:
        network = ipaddress.ip_network(cidr, strict=False)
        for subnets in ranges:
            subnets.occupy(network)


def _take(ranges: Sequence[Subnets]) -> list[str] | None:
    """One subnet of each range; None, and nothing given, when one of them is used up."""
    if any(len(subnets.taken) >= subnets.size for subnets in ranges):
        return None
    return [cidr for subnets in ranges if (cidr := subnets.take()) is not None]


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
    identity="node-controller",
    plan=plan,
    watches={"nodes": Fan("nodes", keys=touched_node, indexes={"waiting": waiting_node})},
    workers=1,
    settings={"cluster_cidrs": (), "service_cidrs": (), "node_cidr_masks": ()},
)
