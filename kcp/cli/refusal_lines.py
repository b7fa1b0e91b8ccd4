"""The numbers behind a refusal as lines of text; their forms are those of `kcp.scheduler.refusals`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from kcp.scheduler.explain import NodeVerdict, Refusal

Json = dict[str, Any]
MAX_HOLDERS = 20
"""How many of the pods that hold something are named."""
_BINARY = (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))
_IN_BYTES = ("memory", "ephemeral-storage", "hugepages-")


def refusal_lines(refusal: Refusal, *, only_short: bool) -> list[str]:
    """`only_short`: the lines that fit into a table, without who holds what."""
    lines = _LINES.get(refusal.plugin, _anything)
    return list(lines(refusal.details, only_short))


def first_refusal(verdict: NodeVerdict) -> str:
    """The decisive refusal of a node in one line."""
    first = verdict.refusals[0]
    numbers = "; ".join(refusal_lines(first, only_short=True))
    reasons = ", ".join(first.reasons) or "no reason given"
    return f"{first.plugin}: {reasons}" + (f" ({numbers})" if numbers else "")


def amount_text(resource: str, amount: int) -> str:
    """As people write quantities. The scheduler counts cpu in thousandths, all else in units."""
    if resource == "cpu":
        return f"{amount}m" if amount % 1000 else str(amount // 1000)
    if resource.startswith(_IN_BYTES):
        for suffix, size in _BINARY:
            if amount and amount % size == 0:
                return f"{amount // size}{suffix}"
    return str(amount)


def _held_by(pods: list[str], only_short: bool) -> Iterator[str]:
    if pods and not only_short:
        more = f" and {len(pods) - MAX_HOLDERS} more" if len(pods) > MAX_HOLDERS else ""
        yield f"    held by {', '.join(pods[:MAX_HOLDERS])}{more}"


def _room(details: Json, only_short: bool) -> Iterator[str]:
    for name, detail in details.items():
        if name == "pods":
            if not only_short or detail["running"] >= detail["allowed"]:
                yield f"pods: {detail['running']} of {detail['allowed']}"
        elif not only_short or detail["needs"] > detail["free"]:
            needs, free, all_ = (amount_text(name, detail[part]) for part in ("needs", "free", "allocatable"))
            yield f"{name}: needs {needs}, free {free} of {all_}"
            yield from _held_by(detail["held by"], only_short)


def _taint(details: Json, only_short: bool) -> Iterator[str]:
    taint = details.get("taint")
    if taint is not None:
        value = f"={taint['value']}" if taint.get("value") else ""
        yield f"taint {taint['key']}{value}:{taint['effect']}"


def _expression(row: Json) -> str:
    values = f" ({', '.join(row['values'])})" if row["values"] else ""
    has = "has no such label" if row["has"] is None else f"has {row['has']}"
    return f"{row['key']} {row['operator']}{values}: {has}"


def _selection(details: Json, only_short: bool) -> Iterator[str]:
    if "names" in details:
        yield f"only on {', '.join(details['names'])}"
    for row in details.get("selector") or ():
        yield f"nodeSelector {_expression(row)}"
    for number, term in enumerate(details.get("terms") or ()):
        for row in term:
            yield f"term {number}: {_expression(row)}"


def _ports(details: Json, only_short: bool) -> Iterator[str]:
    for row in details["ports"]:
        yield f"port {row['port']}/{row['protocol']} on {row['address']} is taken"
        yield from _held_by(row["held by"], only_short)


def _spread(details: Json, only_short: bool) -> Iterator[str]:
    for row in details["constraints"]:
        if row["domain"] is None:
            yield f"no label {row['key']}"
            continue
        skew = row["matching"] + row["self"] - row["least"]
        yield (
            f"{row['key']}={row['domain']} has {row['matching']} matching pods, the least is {row['least']}: skew "
            f"{skew} of at most {row['max skew']}"
        )


def _terms(details: Json, only_short: bool) -> Iterator[str]:
    for row in details["terms"]:
        where = f"no label {row['key']}" if row["domain"] is None else f"{row['key']}={row['domain']}"
        what = f"{row['says']} pods with {row['selector'] or 'any labels'}"
        if not row["pods"]:
            yield f"{what}: none in {where}"
            continue
        pods = row["pods"][:3] if only_short else row["pods"][:MAX_HOLDERS]
        more = len(row["pods"]) - len(pods)
        yield f"{what}: {', '.join(pods)}{f' and {more} more' if more else ''} in {where}"


def _limits(details: Json, only_short: bool) -> Iterator[str]:
    for row in details["drivers"]:
        yield f"{row['driver']}: {row['attached']} attached, {row['new']} more, limit {row['limit']}"


def _holders(details: Json, only_short: bool) -> Iterator[str]:
    if details.get("held by"):
        yield f"in use by {', '.join(details['held by'][:MAX_HOLDERS])}"


def _zones(details: Json, only_short: bool) -> Iterator[str]:
    for row in details["zones"]:
        has = "has no such label" if row["has"] is None else f"has {row['has']}"
        yield f"{row['key']} must be {' or '.join(row['wants'])}: {has}"


def _claims(details: Json, only_short: bool) -> Iterator[str]:
    for row in details["claims"]:
        if row["volume"]:
            yield f"claim {row['claim']}: volume {row['volume']} cannot be reached from here"
        else:
            asks = amount_text("memory", row["asks"])
            yield f"claim {row['claim']}: asks {asks} of storage class {row['storage class'] or 'none'}"


def _name(details: Json, only_short: bool) -> Iterator[str]:
    if details.get("wants"):
        yield f"the pod names {details['wants']}"


def _devices(details: Json, only_short: bool) -> Iterator[str]:
    for claim in details["claims"]:
        yield f"claim {claim}: its devices cannot be used from here"
    for row in details["requests"]:
        about = f"claim {row['claim']}, request {row['request']}"
        free = sum(1 for device in row["devices"] if not device["why"])
        count = "all devices" if row["wants"] == "all" else f"{row['wants']} of the devices"
        yield f"{about}: wants {count}; {free} of {len(row['devices'])} would do"
        if only_short:
            continue
        for pool in row["pools"]:
            yield f"    pool {pool['pool']}: {pool['why']}"
        for device in row["devices"][:MAX_HOLDERS]:
            yield f"    {device['device']}: {device['why'] or 'would do'}"


def _features(details: Json, only_short: bool) -> Iterator[str]:
    yield f"lacks {', '.join(details['lacks'])}"


def _queues(details: Json, only_short: bool) -> Iterator[str]:
    for row in details["queues"][:1] if only_short else details["queues"]:
        resources = sorted({*row["capability"], *row["due"]} - {"pods"})
        for resource in resources:
            used = amount_text(resource, row["used"].get(resource, 0))
            limit = row["capability"].get(resource)
            of = "" if limit is None else f" of {amount_text(resource, limit)}"
            due = amount_text(resource, row["due"].get(resource, 0))
            yield f"queue {row['queue']}, {resource}: {used}{of} used, {due} are its due"


def _anything(details: Json, only_short: bool) -> Iterator[str]:
    """What a user's plugin tells about itself."""
    for name, value in details.items():
        yield f"{name}: {value if isinstance(value, str) else orjson.dumps(value, default=str).decode()}"


_LINES: Mapping[str, Callable[[Json, bool], Iterator[str]]] = {
    "NodeResourcesFit": _room,
    "TaintToleration": _taint,
    "NodeAffinity": _selection,
    "NodePorts": _ports,
    "PodTopologySpread": _spread,
    "InterPodAffinity": _terms,
    "NodeVolumeLimits": _limits,
    "TenantQueue": _queues,
    "VolumeRestrictions": _holders,
    "VolumeZone": _zones,
    "VolumeBinding": _claims,
    "DynamicResources": _devices,
    "NodeDeclaredFeatures": _features,
    "NodeName": _name,
}
