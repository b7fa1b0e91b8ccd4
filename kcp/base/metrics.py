"""Counters, gauges and histograms over prometheus-client, one registry per instance, under Kubernetes' names.

    requests = metrics.counter("apiserver_request_total", "Counter of …", ("verb", "code"))
    requests.of("GET", "200").inc()

Children are looked up once per combination of label values; on hot paths keep the child itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
DURATION_BUCKETS_S = (
    0.005,
    0.025,
    0.05,
    0.1,
    0.2,
    0.4,
    0.6,
    0.8,
    1.0,
    1.25,
    1.5,
    2,
    3,
    4,
    5,
    6,
    8,
    10,
    15,
    20,
    30,
    45,
    60,
)
"""Buckets of apiserver_request_duration_seconds. Source: k8s v1.36 apiserver/pkg/endpoints/metrics."""


M = TypeVar("M", Counter, Gauge, Histogram)


class Family(Generic[M]):
    """One metric with labels. `of` gives the child of these label values."""

    __slots__ = ("_children", "_metric")

    def __init__(self, metric: M) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {}

    def of(self, *values: str) -> M:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values) if values else self._metric
        return child

    def forget(self, *values: str) -> None:
        """Drop a child, for label values that no longer exist."""
        if self._children.pop(values, None) is not None:
            self._metric.remove(*values)


@attrs.define(slots=False)
class Metrics:
    """The metrics of one process part. Asking twice for a name gives the same family."""

    registry: CollectorRegistry = attrs.field(factory=lambda: CollectorRegistry(auto_describe=True))
    _counters: dict[str, Family[Counter]] = attrs.field(init=False, factory=dict)
    _gauges: dict[str, Family[Gauge]] = attrs.field(init=False, factory=dict)
    _histograms: dict[str, Family[Histogram]] = attrs.field(init=False, factory=dict)

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Family[Counter]:
        family = self._counters.get(name)
        if family is None:
            family = self._counters[name] = Family(Counter(name, help, labels, registry=self.registry))
        return family

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Family[Gauge]:
        family = self._gauges.get(name)
        if family is None:
            family = self._gauges[name] = Family(Gauge(name, help, labels, registry=self.registry))
        return family

    def gauge_from(self, name: str, help: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is scraped."""
        self.gauge(name, help).of().set_function(read)

    def histogram(
        self,
        name: str,
        help: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = DURATION_BUCKETS_S,
    ) -> Family[Histogram]:
        family = self._histograms.get(name)
        if family is None:
            histogram = Histogram(name, help, labels, registry=self.registry, buckets=tuple(buckets))
            family = self._histograms[name] = Family(histogram)
        return family

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)
