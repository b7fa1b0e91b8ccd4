"""/metrics: what the server and the components in its process count, in the Prometheus text format."""

from __future__ import annotations

from kcp.api.context import Server
from kcp.api.filters.lifecycle import InFlight
from kcp.api.filters.telemetry import metrics_of
from kcp.base.metrics import CONTENT_TYPE
from kcp.wire.http import Response


def install(server: Server) -> None:
    """Gauges that are read when they are scraped."""
    metrics = metrics_of(server)
    in_flight = metrics.gauge(
        "apiserver_current_inflight_requests",
        "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
        ("request_kind",),
    )

    def flight() -> InFlight:
        found = server.extras["in_flight"]
        assert isinstance(found, InFlight)
        return found

    in_flight.of("readOnly").set_function(lambda: float(flight().reading))
    in_flight.of("mutating").set_function(lambda: float(flight().writing))
    metrics.gauge_from(
        "kcp_store_revision", "Newest published revision of the event log.", lambda: server.store.rv
    )


def serve(server: Server) -> Response:
    return Response(200, [("content-type", CONTENT_TYPE)], metrics_of(server).exposition())
