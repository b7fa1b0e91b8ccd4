"""What a request passes on its way to its verb, as one table.

A filter's `enter` runs on the way in, in this order; it may raise an ApiError, which becomes the answer. `leave` runs
on the way out, in reverse, for every answer, errors included. `release` runs however the request ended, cancelled too.
Filters are plain calls: a request is one task, and only authentication ever waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from kcp.api.context import Call, Server
from kcp.api.filters.attribution import Attribution
from kcp.api.filters.audit import Audit
from kcp.api.filters.authentication import Authentication
from kcp.api.filters.authorization import Authorization
from kcp.api.filters.flow_control import FlowControl
from kcp.api.filters.headers import Headers
from kcp.api.filters.impersonation import Impersonation
from kcp.api.filters.lifecycle import InFlight
from kcp.api.filters.telemetry import Telemetry
from kcp.base.values import frozen
from kcp.wire.http import Response

FILTERS: tuple[tuple[str, Callable[[Server], Any]], ...] = (
    ("audit id, cache control, warnings", Headers.of),
    ("metrics", Telemetry.of),
    ("authentication", Authentication.of),
    ("audit log", Audit.of),
    ("impersonation", Impersonation.of),
    ("attribution", Attribution.of),
    ("priority and fairness", FlowControl.of),
    ("requests in flight", InFlight.of),
    ("authorization", Authorization.of),
)
"""Source of the order: k8s v1.36 apiserver/pkg/server/config.go DefaultBuildHandlerChain."""


@frozen
class Chain:
    """The filters of one server, by what they do."""

    enters: tuple[Callable[[Call], Awaitable[None] | None], ...]
    leaves: tuple[Callable[[Call, Response], None], ...]
    releases: tuple[Callable[[Call], None], ...]

    @classmethod
    def of(cls, server: Server) -> Chain:
        filters = [make(server) for _, make in FILTERS]
        return cls(
            enters=tuple(each.enter for each in filters if hasattr(each, "enter")),
            leaves=tuple(each.leave for each in reversed(filters) if hasattr(each, "leave")),
            releases=tuple(each.release for each in filters if hasattr(each, "release")),
        )

    async def enter(self, call: Call) -> None:
        """Raises the ApiError of the first filter that refuses."""
        for enter in self.enters:
            waiting = enter(call)
            if waiting is not None:
                await waiting

    def leave(self, call: Call, response: Response) -> Response:
        for leave in self.leaves:
            leave(call, response)
        return response

    def release(self, call: Call) -> None:
        for release in self.releases:
            release(call)
