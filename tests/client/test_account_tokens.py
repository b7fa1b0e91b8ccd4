"""Tokens of service accounts as credentials, in virtual time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import orjson
import pytest

from kcp.apis.catalog import build_catalog
from kcp.base.clock import LoopClock
from kcp.client.account_tokens import LIFETIME_S, AccountToken
from kcp.client.client import Client
from kcp.client.transport import InProcessTransport
from kcp.machinery.errors import Forbidden, NotFound, Unauthorized
from kcp.machinery.times import format_time
from kcp.wire.http import Request, Response

pytestmark = pytest.mark.sim

Json = dict[str, Any]
CATALOG = build_catalog()


class Issuer:
    """Answers TokenRequests for the accounts that it has."""

    def __init__(self) -> None:
        self.accounts: list[str] = []
        self.issued = 0
        self.requests: list[Json] = []
        self.forbidden = False

    async def __call__(self, request: Request) -> Response:
        parts = request.path.strip("/").split("/")
        if self.forbidden:
            return _failure(Forbidden("no"))
        body = orjson.loads(request.body)
        if parts[-1] == "serviceaccounts":
            self.accounts.append(body["metadata"]["name"])
            return Response(201, document=body)
        if parts[-2] not in self.accounts:
            return _failure(NotFound.of("", "serviceaccounts", parts[-2]))
        return self._issue(body)

    def _issue(self, body: Json) -> Response:
        self.issued += 1
        self.requests.append(body)
        expires = LoopClock().now() + timedelta(seconds=body["spec"]["expirationSeconds"])
        status = {"token": f"token-{self.issued}", "expirationTimestamp": format_time(expires)}
        return Response(201, document={**body, "status": status})


def _failure(error: Any) -> Response:
    return Response(error.code, document=error.status())


def token(api: Issuer) -> AccountToken:
    client = Client(InProcessTransport(api, identity="manager", in_process=False), CATALOG)
    return AccountToken(client, "kube-system", "job-controller", LoopClock())


async def test_the_account_is_made_when_there_is_none() -> None:
    api = Issuer()
    assert await token(api).headers() == {"authorization": "Bearer token-1"}
    assert api.accounts == ["job-controller"]
    assert api.requests[0]["spec"] == {"expirationSeconds": LIFETIME_S}


async def test_it_is_kept_for_four_fifths_of_its_life() -> None:
    api = Issuer()
    credentials = token(api)
    await credentials.headers()
    await anyio.sleep(LIFETIME_S * 0.79)
    assert await credentials.headers() == {"authorization": "Bearer token-1"}
    await anyio.sleep(LIFETIME_S * 0.02)
    assert await credentials.headers() == {"authorization": "Bearer token-2"}


async def test_one_that_was_rejected_is_replaced() -> None:
    api = Issuer()
    credentials = token(api)
    await credentials.headers()
    credentials.rejected()
    assert await credentials.headers() == {"authorization": "Bearer token-2"}


async def test_many_who_need_it_at_once_ask_once() -> None:
    api = Issuer()
    credentials = token(api)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(credentials.headers)
    assert api.issued == 1


async def test_without_one_the_request_fails_and_says_why() -> None:
    api = Issuer()
    api.forbidden = True
    started_s = anyio.current_time()
    with pytest.raises(Unauthorized, match="failed to get token for kube-system/job-controller: no"):
        await token(api).headers()
    assert anyio.current_time() - started_s == pytest.approx(0.5 + 1 + 2)
