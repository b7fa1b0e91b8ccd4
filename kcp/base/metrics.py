"""Counters, gauges and histograms over prometheus-client, one registry per instance, under Kubernetes' names.

    requests = metrics.counter("apiserver_request_total", "Counter of …", ("verb", "code"))
    requests.of("GET", "200").inc()

Children are looked up once per combination of label values; on hot paths keep the child itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Generic, Literal, TypeVar

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

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


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """`count` bounds, each `factor` times the one before."""
    return tuple(start * factor**number for number in range(count))


class Buckets:
    """A histogram that costs next to nothing to add to: for paths that are walked once a pod."""

    __slots__ = ("bounds", "count", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value

    def cumulated(self) -> list[tuple[str, float]]:
        """(upper bound as text, how many were not above it)."""
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class Labelled:
    """Buckets by label values."""

    __slots__ = ("_bounds", "_found")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._found: dict[tuple[str, ...], Buckets] = {}

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        found = self._found.get(labels)
        if found is None:
            found = self._found[labels] = Buckets(self._bounds)
        found.observe(value)

    def items(self) -> Iterable[tuple[tuple[str, ...], Buckets]]:
        return self._found.items()


@attrs.frozen
class Series:
    """One metric at the moment of a scrape; of a histogram the values are `Buckets`."""

    name: str
    help: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float | Buckets]

    def family(self) -> Metric:
        if self.kind == "histogram":
            histogram = HistogramMetricFamily(self.name, self.help, labels=self.labels)
            for labels, buckets in self.values.items():
                assert isinstance(buckets, Buckets)
                histogram.add_metric(list(labels), buckets.cumulated(), buckets.total)
            return histogram
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        plain = kind(self.name, self.help, labels=self.labels)
        for labels, value in self.values.items():
            assert not isinstance(value, Buckets)
            plain.add_metric(list(labels), value)
        return plain


class _Sources(Collector):
    """Parts that are asked when somebody scrapes, by name: a part that begins anew takes its place again."""

    def __init__(self) -> None:
        self.by_name: dict[str, Callable[[], Iterable[Series]]] = {}

    def collect(self) -> Iterator[Metric]:
        for read in self.by_name.values():
            for series in read():
                yield series.family()

    def describe(self) -> Iterator[Metric]:
        return iter(())


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
    _sources: _Sources = attrs.field(factory=_Sources, init=False)
    _counters: dict[str, Family[Counter]] = attrs.field(init=False, factory=dict)
    _gauges: dict[str, Family[Gauge]] = attrs.field(init=False, factory=dict)
    _histograms: dict[str, Family[Histogram]] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.registry.register(self._sources)

    def collect(self, source: str, read: Callable[[], Iterable[Series]]) -> None:
        """From now on what `read` gives is part of every scrape; it replaces what that source gave before."""
        self._sources.by_name[source] = read

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
