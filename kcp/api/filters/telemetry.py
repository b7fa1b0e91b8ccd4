"""Request metrics under Kubernetes' names.

Source: k8s v1.36 apiserver/pkg/endpoints/metrics/metrics.go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
from prometheus_client import Counter, Gauge, Histogram

from kcp.api.context import Call, RequestInfo, Server
from kcp.api.request_info import is_long_running
from kcp.base.clock import Clock
from kcp.base.metrics import Family, Metrics
from kcp.wire.http import Request, Response

_VERBS = {
    "get": "GET",
    "list": "LIST",
    "watch": "WATCH",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETECOLLECTION",
}
_METHODS = frozenset({"get", "head", "post", "put", "patch", "delete", "options"})
_CONNECT = frozenset({"exec", "attach", "portforward", "proxy", "log"})
_COMPONENT = "apiserver"


def metrics_of(server: Server) -> Metrics:
    """The server's metrics: those it was given as the extra `metrics`, else its own."""
    metrics = server.extras.setdefault("metrics", Metrics())
    assert isinstance(metrics, Metrics)
    return metrics


def metric_verb(request: Request, info: RequestInfo) -> str:
    if not info.is_resource:
        return info.verb.upper() if info.verb in _METHODS else "other"
    if info.subresource in _CONNECT:
        return "CONNECT"
    if info.verb == "patch" and request.header("content-type").startswith("application/apply-patch"):
        return "APPLY"
    return _VERBS.get(info.verb, "other")


def scope(info: RequestInfo) -> str:
    if not info.is_resource:
        return ""
    if info.name or info.verb == "create":
        return "resource"
    return "namespace" if info.namespace else "cluster"


_LABELS = ("verb", "group", "version", "resource", "subresource", "scope", "component")


@attrs.define
class Telemetry:
    _requests: Family[Counter]
    _durations: Family[Histogram]
    _long_running: Family[Gauge]
    _clock: Clock
    _started: dict[int, float] = attrs.field(factory=dict)

    @classmethod
    def of(cls, server: Server) -> Telemetry:
        metrics = metrics_of(server)
        return cls(
            metrics.counter(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, "
                "scope, component, and HTTP response code.",
                (*_LABELS, "dry_run", "code"),
            ),
            metrics.histogram(
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, "
                "subresource, scope and component.",
                (*_LABELS, "dry_run"),
            ),
            metrics.gauge(
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, "
                "scope and component. Not all requests are tracked this way.",
                _LABELS,
            ),
            server.clock,
        )

    def enter(self, call: Call) -> None:
        self._started[id(call)] = self._clock.monotonic()

    def children(self, call: Call, status: int) -> tuple[Counter, Histogram]:
        """Where an answer to such a request is counted, and how long it took."""
        labels = _labels(call)
        dry_run = "All" if "dryRun" in call.params else ""
        return self._requests.of(*labels, dry_run, str(status)), self._durations.of(*labels, dry_run)

    def release(self, call: Call) -> None:
        self._started.pop(id(call), None)

    def leave(self, call: Call, response: Response) -> None:
        info = call.info
        labels = _labels(call)
        dry_run = "All" if "dryRun" in call.params else ""
        self._requests.of(*labels, dry_run, str(response.status)).inc()
        if is_long_running(info):
            if response.stream is not None:
                response.stream = _counted(response.stream, self._long_running.of(*labels))
            return
        started = self._started.get(id(call))
        if started is not None:
            self._durations.of(*labels, dry_run).observe(self._clock.monotonic() - started)


def _labels(call: Call) -> tuple[str, ...]:
    """In the order of _LABELS. Unknown resources share one child: anybody may ask for anything."""
    info, verb = call.info, metric_verb(call.request, call.info)
    if info.is_resource and call.kind is None:
        return verb, "", "", "", "", scope(info), _COMPONENT
    known = not info.subresource or (
        call.kind is not None and call.kind.subresource(info.subresource) is not None
    )
    subresource = info.subresource if known else ""
    return verb, info.group, info.version, info.resource, subresource, scope(info), _COMPONENT


async def _counted(stream: AsyncIterator[bytes], gauge: Gauge) -> AsyncIterator[bytes]:
    gauge.inc()
    try:
        async for chunk in stream:
            yield chunk
    finally:
        gauge.dec()
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
