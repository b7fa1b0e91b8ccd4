"""Health endpoints, version, and the other paths that are no resources."""

from __future__ import annotations

import re

from kcp.api.auth.service_account import SigningKey, TokenIssuer
from kcp.api.health import Health
from kcp.api.nonresource import version_info
from kcp.base.certs import generate_key, private_key_pem
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.wire.http import Handler, Request, Response
from tests.api.support import api, as_json, user

ROOT = user("root", "system:masters")


async def get(handler: Handler, target: str) -> Response:
    path, _, query = target.partition("?")
    return await handler(Request("GET", path, query, identity=ROOT))


async def test_health_says_ok_or_lists_its_checks() -> None:
    async with api() as (_, handler):
        for path in ("/healthz", "/livez", "/readyz"):
            assert (await get(handler, path)).body == b"ok"
        verbose = (await get(handler, "/livez?verbose")).body.decode()
        assert verbose == "[+]ping ok\n[+]log ok\n[+]etcd ok\nlivez check passed\n"
        assert (await get(handler, "/healthz/ping")).body == b"ok"
        assert (await get(handler, "/healthz/nonsense")).status == 404


async def test_a_failing_check_fails_the_endpoint_without_saying_why() -> None:
    async with api() as (server, handler):
        Health.of(server).add("disk", lambda: "full of secrets", ("readyz",))
        response = await get(handler, "/readyz")
        assert response.status == 500
        assert "[-]disk failed: reason withheld\n" in response.body.decode()
        assert response.body.endswith(b"readyz check failed\n")
        assert b"secrets" not in response.body
        assert (await get(handler, "/readyz/disk")).body == b"internal server error: full of secrets\n"
        assert (await get(handler, "/livez")).status == 200
        excluded = await get(handler, "/readyz?exclude=disk&exclude=other&verbose")
        assert excluded.status == 200
        assert b"[+]disk excluded: ok\n" in excluded.body
        assert b'warn: some health checks cannot be excluded: no matches for "other"\n' in excluded.body


async def test_a_draining_server_is_not_ready_but_alive() -> None:
    async with api() as (server, handler):
        Health.of(server).draining = True
        assert (await get(handler, "/readyz")).status == 500
        assert (await get(handler, "/livez")).status == 200


async def test_version_and_the_list_of_paths() -> None:
    async with api() as (_, handler):
        version = as_json(await get(handler, "/version"))
        assert (version["major"], version["minor"]) == ("1", "36")
        assert re.fullmatch(r"v1\.36\.\d+", version["gitVersion"])
        paths = as_json(await get(handler, "/"))["paths"]
        assert {"/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz/ping", "/openapi/v3", "/version"} <= set(
            paths
        )
    assert version_info("v1.36.2")["minCompatibilityMinor"] == "35"


async def test_the_token_issuer_publishes_its_documents() -> None:
    key = SigningKey.load(private_key_pem(generate_key(SeededEntropy(1))))
    issuer = TokenIssuer("https://issuer", key, VirtualClock(), SeededEntropy(2))
    async with api(extras={"token_issuer": issuer}) as (_, handler):
        configuration = as_json(await get(handler, "/.well-known/openid-configuration"))
        assert configuration["issuer"] == "https://issuer"
        assert configuration["jwks_uri"].endswith("/openid/v1/jwks")
        keys = await get(handler, "/openid/v1/jwks")
        assert keys.header("content-type") == "application/jwk-set+json"
        assert as_json(keys)["keys"][0]["kid"] == key.id
    async with api() as (_, handler):
        assert (await get(handler, "/openid/v1/jwks")).status == 404
