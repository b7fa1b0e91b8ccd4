"""The transport over sockets: pooled TLS connections to any Kubernetes API server.

transport = HttpsTransport(Endpoint("10.0.0.5", 6443, tls=context), credentials)
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs, urlsplit

import anyio
import attrs

from kcp.client.credentials import Credentials, StaticCredentials
from kcp.client.transport import Unreachable
from kcp.machinery import fence
from kcp.machinery.errors import Timeout
from kcp.wire.connect import ConnectError, Pool, RequestTimeout, Target
from kcp.wire.http import Request, Response

CONCURRENCY = 32
"""Requests under way at once, watches and logs apart; as many as the pool keeps connections for."""
_YES = ("true", "1")
_TOO_SLOW = (
    "the server was unable to return a response in the time allotted, but may still be processing the request"
)


def target_of(url: str, tls: ssl.SSLContext | None, server_name: str = "") -> Target:
    """Where a server URL points. Raises ValueError for anything but http(s) and unix."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme == "unix":
        return Target(unix_path=parts.path)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"unsupported server address {url!r}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return Target(parts.hostname, port, tls if parts.scheme == "https" else None, server_name)


class HttpsTransport:
    """Requests to one server. A path in the server's URL is put in front of every request's.

    Beyond `concurrency` requests wait their turn, first come, first served; that counts as part of their time.
    """

    in_process = False

    def __init__(
        self,
        target: Target,
        credentials: Credentials | None = None,
        *,
        prefix: str = "",
        user_agent: str = "kcp",
        impersonate: dict[str, str] | None = None,
        tls_for: Callable[[tuple[str, str]], ssl.SSLContext] | None = None,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self.target = target
        self.credentials = credentials or StaticCredentials()
        self.prefix = prefix.rstrip("/")
        self.user_agent = user_agent
        self._impersonate = impersonate or {}
        self._tls_for = tls_for
        self._pair: tuple[str, str] | None = None
        self._pool = Pool()
        self._turns = anyio.Semaphore(concurrency, fast_acquire=True)

    async def request(self, request: Request, timeout_s: float) -> Response:
        stream = streams(request)
        response = await (
            self._send(request, timeout_s, stream) if stream else self._in_turn(request, timeout_s)
        )
        if response.status == 401:
            self.credentials.rejected()
        if stream and response.status >= 400 and response.stream is not None:
            response.body, response.stream = b"".join([chunk async for chunk in response.stream]), None
        if response.stream is not None:
            response.stream = _translated(response.stream)
        return response

    async def _in_turn(self, request: Request, timeout_s: float) -> Response:
        if self._turns.value == 0:
            try:
                with anyio.fail_after(timeout_s):
                    await self._turns.acquire()
            except TimeoutError as error:
                raise Timeout(_TOO_SLOW) from error
        else:
            self._turns.acquire_nowait()
        try:
            return await self._send(request, timeout_s, False)
        finally:
            self._turns.release()

    async def _send(self, request: Request, timeout_s: float, stream: bool) -> Response:
        headers = {
            "user-agent": self.user_agent,
            **self._impersonate,
            **await self.credentials.headers(),
            **request.headers,
        }
        if isinstance(request.fence, fence.LeaseFence):
            headers[fence.HEADER] = request.fence.header()
        self._follow_certificate()
        out = Request(request.method, self.prefix + request.path, request.query, headers, request.body)
        try:
            return await self._pool.send(out, self.target, timeout_s, stream=stream)
        except ConnectError as error:
            raise Unreachable(str(error)) from error
        except RequestTimeout as error:
            raise Timeout(_TOO_SLOW) from error

    def _follow_certificate(self) -> None:
        """Connect anew with the client certificate that the credentials came with, when it is another one."""
        pair = self.credentials.pair
        if pair is not None and pair != self._pair and self._tls_for is not None:
            self.target = attrs.evolve(self.target, tls=self._tls_for(pair))
            self._pair = pair

    async def close(self) -> None:
        await self._pool.close()


def streams(request: Request) -> bool:
    """Whether the answer of a request is open-ended: a watch, or a log that is followed."""
    if request.method != "GET" or "=" not in request.query:
        return False
    parameters = parse_qs(request.query)
    return any(parameters.get(name, [""])[-1] in _YES for name in ("watch", "follow"))


async def _translated(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks; a connection that breaks off raises Unreachable."""
    try:
        async for chunk in stream:
            yield chunk
    except ConnectError as error:
        raise Unreachable(str(error)) from error
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
