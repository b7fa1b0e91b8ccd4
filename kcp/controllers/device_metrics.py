"""What the controllers of devices count, under Kubernetes' names; read off their decisions and their claims.

    meter = DeviceMeter()
    sink = meter.around(sink)                           # what a controller's run writes to
    metrics.collect("devices", lambda: meter.series(claims))

Source: k8s v1.36 pkg/controller/resourceclaim/metrics, pkg/controller/devicetainteviction/metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from kcp.apis.semantics import resource_claims as facts
from kcp.base.metrics import Series
from kcp.controllers import device_taint_eviction, resource_claim
from kcp.controllers.decisions import Decided, DecisionSink
from kcp.machinery import meta

Json = dict[str, Any]
EXTENDED = "resource.kubernetes.io/extended-resource-claim"
CLAIMS = resource_claim.CLAIMS


@attrs.define(eq=False)
class DeviceMeter:
    """Of one process; outlives controllers that begin anew in it."""

    created: dict[tuple[str, ...], int] = attrs.field(factory=dict)
    evicted: int = 0

    def around(self, sink: DecisionSink) -> DecisionSink:
        return _Counting(sink, self)

    def look_at(self, decided: Decided) -> None:
        for effect in decided.effects:
            kind, resource, outcome = effect["kind"], effect.get("resource"), effect.get("outcome")
            if outcome == "skipped":
                continue
            if kind == "Create" and resource == CLAIMS:
                key = ("success" if outcome == "ok" else "failure", _text(_asks_for_admin(effect)))
                self.created[key] = self.created.get(key, 0) + 1
            elif kind == "Delete" and resource == "pods":
                self.evicted += outcome == "ok"

    def series(self, claims: Iterable[Json]) -> Iterator[Series]:
        """`claims` are all there are."""
        yield Series(
            "resourceclaim_controller_creates_total",
            "Number of ResourceClaims creation requests, categorized by creation status and admin access",
            "counter",
            ("status", "admin_access"),
            dict(self.created),
        )
        there: dict[tuple[str, ...], float] = {}
        for claim in claims:
            key = _text(facts.is_allocated(claim)), _text(is_for_admins(claim)), source_of(claim)
            there[key] = there.get(key, 0) + 1
        yield Series(
            "resourceclaim_controller_resource_claims",
            "Number of ResourceClaims, categorized by allocation status, admin access and source. The source label can be "
            "'resource_claim_template' (created from a template), 'extended_resource' (extended resources), or empty "
            "(manually created by a user).",
            "gauge",
            ("allocated", "admin_access", "source"),
            there,
        )
        yield Series(
            "device_taint_eviction_controller_pod_deletions_total",
            "Total number of Pods deleted by DeviceTaintEvictionController since its start.",
            "counter",
            (),
            {(): self.evicted},
        )


@attrs.define(eq=False)
class _Counting:
    """A sink that lets the meter see what the controllers of devices did."""

    inner: DecisionSink
    meter: DeviceMeter

    def next_id(self) -> int:
        return self.inner.next_id()

    def record(self, decided: Decided) -> None:
        self.inner.record(decided)
        self.meter.look_at(decided)


MEASURED = frozenset({resource_claim.CONTROLLER.name, device_taint_eviction.CONTROLLER.name})
"""The controllers whose decisions are worth looking at."""


def _text(truth: bool) -> str:
    return "true" if truth else "false"


def _asks_for_admin(effect: Json) -> bool:
    """Of a claim that is to be made; one that is too large to stand in the decision counts as one that does not."""
    claim = (effect.get("args") or {}).get("object")
    return isinstance(claim, dict) and is_for_admins(claim)


def is_for_admins(claim: Json) -> bool:
    requests = ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ()
    return any((request.get("exactly") or {}).get("adminAccess") for request in requests)


def source_of(claim: Json) -> str:
    annotations = meta.annotations(claim)
    if annotations.get(EXTENDED) == "true":
        return "extended_resource"
    return "resource_claim_template" if facts.POD_CLAIM_ANNOTATION in annotations else ""
