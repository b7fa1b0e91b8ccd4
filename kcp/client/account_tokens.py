"""The token of a service account as credentials: asked for with another client, renewed long before it ends.

    credentials = AccountToken(client, "kube-system", "replicaset-controller", clock)

The account is made where there is none, as kube-controller-manager makes those of its controllers. Tokens live an hour
and are replaced after four fifths of it, or as soon as the server does not take one any more.
Source: k8s v1.36 controller-manager/pkg/clientbuilder/client_builder_dynamic.go.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import attrs

from kcp.base.clock import Clock
from kcp.client.client import Client
from kcp.machinery.errors import AlreadyExists, ApiError, NotFound, Unauthorized
from kcp.machinery.times import parse_time

Json = dict[str, Any]

LIFETIME_S = 3600
SHORTEST_LIFETIME_S = 600.0
"""What a token is taken to live at least: less means that the clocks disagree."""
LEEWAY = 0.2
TRIES, RETRY_S = 4, 0.5


@attrs.define
class AccountToken:
    """Credentials. `client` needs get and create of serviceaccounts, and create of serviceaccounts/token."""

    client: Client
    namespace: str
    name: str
    clock: Clock
    _token: str = ""
    _renew_at_s: float = 0.0
    _asking: anyio.Lock = attrs.field(factory=anyio.Lock)

    @property
    def pair(self) -> tuple[str, str] | None:
        return None

    async def headers(self) -> dict[str, str]:
        """Raises Unauthorized when the account has no token after four tries."""
        if not self._good():
            async with self._asking:
                if not self._good():
                    await self._renew()
        return {"authorization": f"Bearer {self._token}"}

    def rejected(self) -> None:
        self._token = ""

    def _good(self) -> bool:
        return bool(self._token) and self.clock.monotonic() < self._renew_at_s

    async def _renew(self) -> None:
        for attempt in range(TRIES):
            try:
                status = await self._ask()
                break
            except ApiError as error:
                if attempt == TRIES - 1:
                    text = f"failed to get token for {self.namespace}/{self.name}: {error.message}"
                    raise Unauthorized(text) from error
            await anyio.sleep(RETRY_S * 2**attempt)
        left_s = (parse_time(status["expirationTimestamp"]) - self.clock.now()).total_seconds()
        self._token = status["token"]
        self._renew_at_s = self.clock.monotonic() + max(left_s, SHORTEST_LIFETIME_S) * (1 - LEEWAY)

    async def _ask(self) -> Json:
        try:
            return await self._request_token()
        except NotFound:
            await self._create_account()
            return await self._request_token()

    async def _request_token(self) -> Json:
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": LIFETIME_S},
        }
        made = await self.client.create(
            "serviceaccounts", request, self.namespace, name=self.name, subresource="token"
        )
        status: Json = made.object["status"]
        return status

    async def _create_account(self) -> None:
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": self.name, "namespace": self.namespace},
        }
        with suppress(AlreadyExists):  # another process may need it at the same time
            await self.client.create("serviceaccounts", account, self.namespace)
