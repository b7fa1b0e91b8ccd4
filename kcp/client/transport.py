"""How a client reaches an API server: one request in, one response out, streams included.

`InProcessTransport` calls the API's handler directly with the caller's identity: the same pipeline (authorization,
admission, validation), minus sockets and codecs. `kcp.client.https` has the one that speaks HTTPS.
"""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from kcp.machinery.errors import ServiceUnavailable
from kcp.wire.http import Handler, Request, Response


class Unreachable(ServiceUnavailable):
    """Raised when no connection to the server can be made or it broke off: nothing says that the server is at fault."""


class Transport(Protocol):
    """The same contract suite runs over every implementation (tests/contracts/test_transport.py)."""

    in_process: bool
    """Whether requests may carry decoded documents instead of bytes."""

    async def request(self, request: Request, timeout_s: float) -> Response:
        """Send and wait for the head of the answer (and its body, unless it streams).

        Raises Unreachable when the server cannot be reached, Timeout when it does not answer in time.
        API failures are responses, not exceptions.
        """
        ...

    async def close(self) -> None: ...


@attrs.define
class InProcessTransport:
    """Calls the handler with a fixed identity (a UserInfo, opaque here)."""

    handler: Handler
    identity: Any
    user_agent: str = "kcp"
    in_process: bool = True

    async def request(self, request: Request, timeout_s: float) -> Response:
        del timeout_s  # the server bounds every request itself
        if request.identity is None:
            request.identity = self.identity
        if "user-agent" not in request.headers:
            request.headers = {**request.headers, "user-agent": self.user_agent}
        return await self.handler(request)

    async def close(self) -> None: ...
