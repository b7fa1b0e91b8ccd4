"""ServiceCIDR: a range that is in use stays until nothing depends on it alone.

What is in use are the IPAddresses that the API server made with Services.
Source: k8s v1.36 pkg/controller/servicecidrs/servicecidrs_controller.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.times import parse_time

Json = dict[str, Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
RANGES = "servicecidrs.networking.k8s.io"
FINALIZER = "networking.k8s.io/service-cidr-finalizer"
GRACE = timedelta(seconds=10)
"""How long after its deletion a range is kept, so that nobody still gives addresses out of it."""
MANAGED_BY, ALLOCATOR = "ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"
READY = "Kubernetes Service CIDR is ready"
NOT_READY = "The ServiceCIDR Status can not be set to Ready=True"
IN_USE = (
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
)


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    cidr = view.ranges.get(key)
    if cidr is None:
        return
    if not meta.is_deleting(cidr):
        yield from _make_ready(cidr, env)
        return
    if FINALIZER not in meta.finalizers(cidr):
        return
    if not may_go(cidr, view):
        yield _ready(cidr, "False", "Terminating", IN_USE, env)
        return
    left_s = (parse_time(cidr["metadata"]["deletionTimestamp"]) + GRACE - env.now).total_seconds()
    if left_s > 0:
        yield fx.RequeueAfter(left_s)
        return
    yield _finalizers(cidr, [f for f in meta.finalizers(cidr) if f != FINALIZER])


def _make_ready(cidr: Json, env: fx.Env) -> Generator[fx.Effect, fx.Outcome, None]:
    if FINALIZER not in meta.finalizers(cidr):
        outcome = yield _finalizers(cidr, [*meta.finalizers(cidr), FINALIZER])
        if outcome.object is None:
            return
        cidr = outcome.object
    ready = meta.condition(cidr, "Ready") or {}
    if (ready.get("status"), ready.get("message")) != ("True", READY):
        outcome = yield _ready(cidr, "True", "", READY, env)
        if outcome.error is not None:
            yield fx.Event(cidr, "Warning", "KubernetesServiceCIDRError", NOT_READY)


def _finalizers(cidr: Json, finalizers: list[str]) -> fx.Patch:
    patch = {"metadata": {"finalizers": finalizers or None}}
    return fx.Patch(RANGES, "", meta.name(cidr), patch, rv=meta.resource_version(cidr))


def _ready(cidr: Json, status: str, reason: str, message: str, env: fx.Env) -> fx.Status:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": message}
    before = cidr.get("status") or {}
    conditions = meta.set_condition(before.get("conditions"), condition, env.now)
    return fx.Status(RANGES, cidr, {**before, "conditions": conditions})


def networks(cidr: Json) -> list[Network]:
    return [ipaddress.ip_network(text, strict=False) for text in cidr["spec"].get("cidrs") or ()]


def may_go(cidr: Json, view: fx.View) -> bool:
    """Each of its ranges lies in another ServiceCIDR, or no address is in it alone."""
    others = [
        n for other in view.ranges.list() if meta.name(other) != meta.name(cidr) for n in networks(other)
    ]
    lonely = [network for network in networks(cidr) if not _is_within(network, others)]
    if not lonely:
        return True
    return not any(
        any(address in network for network in lonely) and not any(address in other for other in others)
        for address in _addresses(view)
    )


def _is_within(network: Network, others: Sequence[Network]) -> bool:
    low, high = network.network_address, network.broadcast_address
    return any(other.version == network.version and low in other and high in other for other in others)


def _addresses(view: fx.View) -> Iterator[Address]:
    for held in view.addresses.list():
        if meta.labels(held).get(MANAGED_BY) == ALLOCATOR:
            yield ipaddress.ip_address(meta.name(held))


def touched_range(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """A range that comes may let another go; one that goes may have held another's addresses."""
    keys = {meta.name(new): None} if new is not None else {}
    if old is None or new is None:
        keys.update(dict.fromkeys(_going(readers)))
    return list(keys)


def freed(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """An address that goes may have been the last of a range that is going."""
    return _going(readers) if old is not None else []


def _going(readers: Mapping[str, Any]) -> list[str]:
    return [meta.name(cidr) for cidr in readers["ranges"].list() if meta.is_deleting(cidr)]


CONTROLLER = Controller(
    name="service-cidr-controller",
    identity="service-cidrs-controller",
    plan=plan,
    watches={
        "ranges": Fan(RANGES, keys=touched_range),
        "addresses": Fan("ipaddresses.networking.k8s.io", keys=freed),
    },
)
