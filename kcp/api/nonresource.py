"""Paths that are no resources: discovery, OpenAPI, health, version, metrics, the token issuer's documents.

Source: k8s v1.36 apiserver/pkg/server/routes.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable

import orjson

from kcp.api import metrics_endpoint
from kcp.api.auth.service_account import TokenIssuer
from kcp.api.context import Call, Server
from kcp.api.discovery import Discovery
from kcp.api.health import ENDPOINTS, Health
from kcp.api.negotiation import JSON_TYPE
from kcp.api.openapi import OpenApi, no_schema
from kcp.base.values import frozen
from kcp.machinery.errors import MethodNotAllowed
from kcp.wire.http import Response

Serve = Callable[[Call], Response | None]

_READ_METHODS = ("GET", "HEAD")
_ROOT_PATHS = (
    "/.well-known/openid-configuration",
    "/api",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
)


def version_info(git_version: str) -> dict[str, str]:
    """What /version says; major and minor follow from the version that kcp is compatible with."""
    found = re.match(r"v(\d+)\.(\d+)", git_version)
    assert found is not None, f"not a version: {git_version}"
    major, minor = found.groups()
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": git_version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"{platform.system().lower()}/{_ARCHITECTURES.get(platform.machine(), platform.machine())}",
    }


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@frozen
class Endpoints:
    """The handlers of one server, by the first segment of the path."""

    discovery: Discovery
    by_segment: dict[str, Serve]

    @classmethod
    def of(cls, server: Server) -> Endpoints:
        settings = server.settings
        address = f"{settings.external_address}:{settings.external_port}"
        discovery = Discovery(server.catalog, address)
        custom_schema = server.extras.get("custom_schema", no_schema)
        openapi = OpenApi(server.catalog, settings.git_version, custom_schema)
        health = Health.of(server)
        metrics_endpoint.install(server)
        version = orjson.dumps(version_info(settings.git_version), option=orjson.OPT_INDENT_2)

        def read_discovery(call: Call) -> Response | None:
            return discovery.serve(call.request)

        by_segment: dict[str, Serve] = {
            "": lambda call: json_response(orjson.dumps({"paths": _paths(discovery, health)})),
            "api": read_discovery,
            "apis": read_discovery,
            "version": lambda call: json_response(version) if _is(call, "/version") else None,
            "metrics": lambda call: metrics_endpoint.serve(server) if _is(call, "/metrics") else None,
            "openapi": openapi.serve,
            ".well-known": lambda call: _openid_configuration(server, call),
            "openid": lambda call: _key_set(server, call),
        }
        by_segment |= dict.fromkeys(ENDPOINTS, health.serve)
        return cls(discovery, by_segment)

    async def serve(self, call: Call) -> Response:
        """Raises MethodNotAllowed for writes to what exists; unknown paths get Go's plain 404."""
        serve = self.by_segment.get(call.info.path.strip("/").partition("/")[0])
        response = serve(call) if serve is not None else None
        if response is None:
            return plain_not_found()
        if call.request.method not in _READ_METHODS:
            raise MethodNotAllowed.http()
        return response


def plain_not_found() -> Response:
    """What Go's server answers where nothing is registered."""
    headers = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]
    return Response(404, headers, b"404 page not found\n")


def json_response(body: bytes, content_type: str = JSON_TYPE) -> Response:
    return Response(200, [("content-type", content_type)], body)


def _is(call: Call, path: str) -> bool:
    return call.info.path.rstrip("/") == path


def _paths(discovery: Discovery, health: Health) -> list[str]:
    return sorted({*_ROOT_PATHS, *discovery.paths(), *health.paths()})


def _issuer(server: Server) -> TokenIssuer | None:
    issuer = server.extras.get("token_issuer")
    return issuer if isinstance(issuer, TokenIssuer) else None


def _openid_configuration(server: Server, call: Call) -> Response | None:
    issuer = _issuer(server)
    if issuer is None or not _is(call, "/.well-known/openid-configuration"):
        return None
    settings = server.settings
    keys_url = f"https://{settings.external_address}:{settings.external_port}/openid/v1/jwks"
    response = json_response(orjson.dumps(issuer.configuration(keys_url)))
    response.headers.append(("cache-control", "public, max-age=3600"))
    return response


def _key_set(server: Server, call: Call) -> Response | None:
    issuer = _issuer(server)
    if issuer is None or not _is(call, "/openid/v1/jwks"):
        return None
    response = json_response(orjson.dumps(issuer.key_set()), "application/jwk-set+json")
    response.headers.append(("cache-control", "public, max-age=3600"))
    return response
