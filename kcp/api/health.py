"""/healthz, /livez, /readyz: named checks, each also a path of its own.

A component adds its checks to the server's `Health`; a check answers "" or what is wrong.
Source: k8s v1.36 apiserver/pkg/server/healthz/healthz.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs
import structlog

from kcp.api.context import Call, Server
from kcp.machinery.errors import go_quote
from kcp.wire.http import Response

log = structlog.get_logger(__name__)

Endpoint = Literal["healthz", "livez", "readyz"]
Check = Callable[[], str]
ENDPOINTS: tuple[Endpoint, ...] = ("healthz", "livez", "readyz")

_HEADERS = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]


def _fine() -> str:
    return ""


@attrs.define
class Health:
    """The checks of one server. `draining` makes /readyz fail, so that load balancers turn away."""

    draining: bool = False
    _checks: dict[Endpoint, dict[str, Check]] = attrs.field(factory=lambda: {name: {} for name in ENDPOINTS})

    @classmethod
    def of(cls, server: Server) -> Health:
        """The server's health: the extra `health` if there is one already, else a fresh one."""
        found = server.extras.get("health")
        if isinstance(found, Health):
            return found
        health = cls()
        health.add("ping", _fine)
        health.add("log", _fine)
        health.add("etcd", lambda: "" if server.store.rv >= 0 else "the event log cannot be read")
        health.add("shutdown", lambda: "process is shutting down" if health.draining else "", ("readyz",))
        server.extras["health"] = health
        return health

    def add(self, name: str, check: Check, endpoints: tuple[Endpoint, ...] = ENDPOINTS) -> None:
        """Make `check` part of these endpoints, after those already there."""
        for endpoint in endpoints:
            self._checks[endpoint][name] = check

    def paths(self) -> list[str]:
        """The path of every check."""
        return [f"/{endpoint}/{name}" for endpoint, checks in self._checks.items() for name in checks]

    def serve(self, call: Call) -> Response | None:
        """The answer for a health path; None when no such check exists."""
        endpoint, _, name = call.info.path.strip("/").partition("/")
        checks = self._checks.get(endpoint)  # type: ignore[call-overload]
        if checks is None:
            return None
        if name:
            return _single(checks[name]()) if name in checks else None
        return _all(endpoint, checks, call)


def _single(problem: str) -> Response:
    if problem:
        return Response(500, list(_HEADERS), f"internal server error: {problem}\n".encode())
    return Response(200, [("content-type", "text/plain; charset=utf-8")], b"ok")


def _all(endpoint: str, checks: dict[str, Check], call: Call) -> Response:
    excluded = list(dict.fromkeys(call.repeated.get("exclude", ())))
    lines: list[str] = []
    failed: dict[str, str] = {}
    for name, check in checks.items():
        if name in excluded:
            lines.append(f"[+]{name} excluded: ok")
        elif problem := check():
            lines.append(f"[-]{name} failed: reason withheld")
            failed[name] = problem
        else:
            lines.append(f"[+]{name} ok")
    unknown = sorted(name for name in excluded if name not in checks)
    if unknown:
        names = ",".join(go_quote(name) for name in unknown)
        lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
    text = "".join(f"{line}\n" for line in lines)
    if failed:
        log.info("health check failed", endpoint=endpoint, problems=failed)
        return Response(500, list(_HEADERS), f"{text}{endpoint} check failed\n".encode())
    body = f"{text}{endpoint} check passed\n" if "verbose" in call.params else "ok"
    return Response(200, list(_HEADERS), body.encode())
