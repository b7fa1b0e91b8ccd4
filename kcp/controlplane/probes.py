"""The door of a component apart from the API server: /healthz, /livez, /readyz for everyone, /metrics for who may.

Who may is asked of the API server: a TokenReview says who a bearer token is, a SubjectAccessReview whether that one may
get /metrics. Its answers hold for ten seconds.
Source: k8s v1.36 apiserver/pkg/server/options (DelegatingAuthenticationOptions, DelegatingAuthorizationOptions).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import anyio
import attrs
from anyio.abc import TaskGroup

from kcp.base.certs import Authority
from kcp.base.clock import Clock
from kcp.base.metrics import CONTENT_TYPE, Metrics
from kcp.base.settings import host_name
from kcp.base.ttl_cache import TtlCache
from kcp.client.client import Client
from kcp.machinery.errors import ApiError
from kcp.wire.http import Request, Response
from kcp.wire.server import ServerTls, address, bind, serve

Json = dict[str, Any]
Check = Callable[[], str]
"""What is wrong, "" when nothing is."""

REMEMBER_S = 10.0
REMEMBERED = 1024
TEXT = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]
HEALTH = ("healthz", "livez", "readyz")


@attrs.define
class Reviewer:
    """Asks the API server who a token is and what it may do."""

    client: Client
    clock: Clock
    _answers: TtlCache[tuple[str, str], int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._answers = TtlCache(self.clock, REMEMBERED, REMEMBER_S)

    async def status(self, request: Request) -> int:
        """200 when the request may be served, else 401 or 403; 500 when nobody could be asked."""
        scheme, _, token = request.header("authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return 403
        key = (token, request.path)
        known = self._answers.get(key)
        if known is None:
            try:
                known = await self._ask(token, request.path)
            except ApiError:
                return 500
            self._answers.put(key, known)
        return known

    async def _ask(self, token: str, path: str) -> int:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        answer = (await self.client.create("tokenreviews.authentication.k8s.io", review)).object["status"]
        if not answer.get("authenticated"):
            return 401
        user: Json = answer.get("user") or {}
        asked = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.get("username", ""),
                "uid": user.get("uid", ""),
                "groups": user.get("groups") or [],
                "extra": user.get("extra") or {},
                "nonResourceAttributes": {"path": path, "verb": "get"},
            },
        }
        granted = await self.client.create("subjectaccessreviews.authorization.k8s.io", asked)
        return 200 if granted.object["status"].get("allowed") else 403


def _fine() -> str:
    return ""


@attrs.define
class Door:
    """Handler of the component's own port. Parts add their checks while they run."""

    metrics: Metrics
    reviewer: Reviewer
    checks: dict[str, Check] = attrs.field(factory=lambda: {"ping": _fine})

    async def __call__(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return Response(405, list(TEXT), b"Method Not Allowed\n")
        endpoint, _, name = request.path.strip("/").partition("/")
        if endpoint in HEALTH:
            return self._health(endpoint, name, "verbose" in request.query)
        if request.path == "/metrics":
            return await self._metrics(request)
        return Response(404, list(TEXT), b"404 page not found\n")

    async def _metrics(self, request: Request) -> Response:
        status = await self.reviewer.status(request)
        if status != 200:
            text = {401: "Unauthorized", 403: "Forbidden"}.get(status, "Internal Server Error")
            return Response(status, list(TEXT), f"{text}\n".encode())
        return Response(200, [("content-type", CONTENT_TYPE)], self.metrics.exposition())

    def _health(self, endpoint: str, name: str, verbose: bool) -> Response:
        if name:
            return self._one(name)
        problems = {name: check() for name, check in self.checks.items()}
        lines = [f"[-]{n} failed: reason withheld" if p else f"[+]{n} ok" for n, p in problems.items()]
        failed = any(problems.values())
        if not failed and not verbose:
            return Response(200, list(TEXT), b"ok")
        last = f"{endpoint} check {'failed' if failed else 'passed'}"
        return Response(500 if failed else 200, list(TEXT), "\n".join([*lines, last, ""]).encode())

    def _one(self, name: str) -> Response:
        check = self.checks.get(name)
        if check is None:
            return Response(404, list(TEXT), b"404 page not found\n")
        problem = check()
        if problem:
            return Response(500, list(TEXT), f"internal server error: {problem}\n".encode())
        return Response(200, list(TEXT), b"ok")


async def serve_door(
    door: Door, host: str, port: int, certificate: str, key: str, clock: Clock, group: TaskGroup
) -> str:
    """Serve in the group's background; the URL, "" for port 0. Without a pair of files it makes a self-signed one.

    Raises ListenError, or OSError for files that cannot be read.
    """
    if not port:
        return ""
    sock = bind(host, port)
    listening = anyio.Event()
    if certificate:
        tls = ServerTls(certificate, key)
        group.start_soon(partial(serve, door, sockets=[sock], tls=tls, on_ready=lambda _: listening.set()))
    else:
        with tempfile.TemporaryDirectory(prefix="kcp-") as directory:
            tls = _self_signed(Path(directory), host, clock)
            group.start_soon(
                partial(serve, door, sockets=[sock], tls=tls, on_ready=lambda _: listening.set())
            )
            await listening.wait()
    await listening.wait()
    return f"https://{address(host, port)}"


def _self_signed(directory: Path, host: str, clock: Clock) -> ServerTls:
    """The files are read when the server starts and gone thereafter."""
    authority = Authority.create(f"{host_name()}-ca", clock)
    names = dict.fromkeys(("localhost", host_name(), "127.0.0.1", host))
    ips = [name for name in names if _is_ip(name)]
    dns_names = [name for name in names if not _is_ip(name)]
    pem, key_pem = authority.issue(host_name(), server=True, client=False, dns_names=dns_names, ips=ips)
    certificate, key = directory / "tls.crt", directory / "tls.key"
    certificate.write_bytes(pem)
    key.touch(mode=0o600)
    key.write_bytes(key_pem)
    return ServerTls(str(certificate), str(key))


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
