"""Limits on the life of a request: how long it may take, how many run at once.

Source: k8s v1.36 apiserver/pkg/endpoints/filters/request_deadline.go, apiserver/pkg/server/filters/maxinflight.go.
"""

from __future__ import annotations

import attrs

from kcp.api.auth.protocol import MASTERS
from kcp.api.context import Call, Server
from kcp.api.request_info import is_long_running
from kcp.machinery.errors import BadRequest, TooManyRequests
from kcp.machinery.times import parse_go_duration

_READ_VERBS = frozenset({"get", "list", "watch"})


def timeout_s(call: Call, maximum_s: float) -> float | None:
    """How long this request may take; None for long-running ones. Raises BadRequest for a malformed `timeout`."""
    if is_long_running(call.info):
        return None
    asked = call.params.get("timeout")
    if not asked:
        return maximum_s
    try:
        seconds = parse_go_duration(asked)
    except ValueError as error:
        raise BadRequest(f"invalid timeout specified in the request URL - {error}") from None
    return seconds if 0 < seconds < maximum_s else maximum_s


@attrs.define
class InFlight:
    """Counts requests from sockets: reads and writes apart, long-running ones apart and without a limit."""

    read_limit: int
    write_limit: int
    reading: int = 0
    writing: int = 0
    _entered: dict[int, str] = attrs.field(factory=dict)

    @classmethod
    def of(cls, server: Server) -> InFlight:
        settings = server.settings
        flight = cls(settings.max_requests_inflight, settings.max_mutating_requests_inflight)
        server.extras["in_flight"] = flight
        return flight

    def enter(self, call: Call) -> None:
        """Raises TooManyRequests at the limit, except for system:masters, who always get an answer."""
        if call.request.identity is not None or is_long_running(call.info):
            return
        if call.info.verb in _READ_VERBS:
            if self.reading >= self.read_limit and MASTERS not in call.user.groups:
                raise TooManyRequests("Too many requests, please try again later.")
            self.reading += 1
            self._entered[id(call)] = "read"
        else:
            if self.writing >= self.write_limit and MASTERS not in call.user.groups:
                raise TooManyRequests("Too many requests, please try again later.")
            self.writing += 1
            self._entered[id(call)] = "write"

    def release(self, call: Call) -> None:
        """Runs for every outcome, also when the request was cancelled or never counted."""
        what = self._entered.pop(id(call), "")
        if what == "read":
            self.reading -= 1
        elif what == "write":
            self.writing -= 1
