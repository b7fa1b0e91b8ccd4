"""Requests to a node, asked of a daemon that does not run it: passed on to the one that does.

    server.extras["node_peer"] = NodePeers(client, authority, clock, holder_lease)

The holder of the nodes' Lease runs them; its identity Lease says where it is. The request goes there over TLS, under
an identity of the daemons' own that may read logs and nothing else: the user was authorized here, and no header speaks
for anybody there. That is how an API server talks to a kubelet. Who receives such a request does not pass it on.
"""

from __future__ import annotations

import errno
import os
import ssl
from typing import Any

import anyio
import attrs
import orjson

from kcp.api.auth.protocol import PEER
from kcp.api.context import Call
from kcp.base.certs import Authority
from kcp.base.clock import Clock
from kcp.client.client import Client
from kcp.client.leader_election import LEASES
from kcp.controlplane.api_servers import NAMESPACE, PEER_ADDRESS, SELECTOR, annotation, split_address
from kcp.machinery.errors import NotFound, ServiceUnavailable, from_status
from kcp.wire.connect import ConnectError, Pool, RequestTimeout, Target, client_tls
from kcp.wire.http import Request, Response
from kcp.wire.server import address

Json = dict[str, Any]

ANSWER_S = 10.0
"""For the head of the answer; what follows may take as long as it likes."""
CERTIFICATE_FOR_S = 24 * 3600.0
"""How long one client certificate is used; it is good for much longer."""


@attrs.define
class NodePeers:
    """Called for one request at a time or many; `close` ends the idle connections."""

    client: Client
    authority: Authority
    clock: Clock
    lease: str
    """Name of the Lease whose holder runs the nodes."""
    _pool: Pool = attrs.field(factory=Pool)
    _tls: ssl.SSLContext | None = None
    _tls_since_s: float = 0.0

    async def __call__(self, call: Call, node: str) -> Response | None:
        """The other daemon's answer; None when nobody runs the node, or only this one could.

        Raises ServiceUnavailable when that daemon cannot be reached, and whatever error it answers.
        """
        at = await self._address()
        if at is None:
            return None
        request = call.request
        out = Request(request.method, request.path, request.query, {"accept": "application/json, */*"})
        try:
            answer = await self._pool.send(out, Target(*at, self._context()), ANSWER_S, stream=True)
        except ConnectError as error:
            raise self._unreachable(request, at, _dialing(error, at)) from error
        except RequestTimeout as error:
            raise self._unreachable(request, at, "context deadline exceeded") from error
        if answer.status >= 400:
            raise from_status(await self._status(answer, request, at), answer.status)
        return Response(
            answer.status, [("content-type", answer.header("content-type"))], stream=answer.stream
        )

    async def _address(self) -> tuple[str, int] | None:
        try:
            lease = await self.client.get(LEASES, self.lease, NAMESPACE)
        except NotFound:
            return None
        holder = (lease.get("spec") or {}).get("holderIdentity")
        if not holder:
            return None
        servers = (await self.client.list(LEASES, NAMESPACE, label_selector=SELECTOR)).items
        for server in servers:
            if (server.get("spec") or {}).get("holderIdentity") == holder:
                return split_address(annotation(server, PEER_ADDRESS))
        return None

    def _context(self) -> ssl.SSLContext:
        now_s = self.clock.monotonic()
        if self._tls is None or now_s - self._tls_since_s > CERTIFICATE_FOR_S:
            certificate, key = self.authority.issue(PEER.name)
            self._tls = client_tls(
                ca_pem=self.authority.certificate_pem.decode(),
                certificate_pem=certificate.decode(),
                key_pem=key.decode(),
            )
            self._tls_since_s = now_s
        return self._tls

    async def _status(self, answer: Response, request: Request, at: tuple[str, int]) -> Json:
        assert answer.stream is not None
        body = b""
        try:
            with anyio.fail_after(ANSWER_S):
                body = b"".join([chunk async for chunk in answer.stream])
            status = orjson.loads(body)
        except (ConnectError, TimeoutError) as error:
            raise self._unreachable(request, at, str(error) or "context deadline exceeded") from error
        except ValueError:
            return {"message": body.decode(errors="replace")}
        return status if isinstance(status, dict) else {"message": str(status)}

    def _unreachable(self, request: Request, at: tuple[str, int], why: str) -> ServiceUnavailable:
        return ServiceUnavailable(f'Get "https://{address(*at)}{request.path}": {why}')

    async def close(self) -> None:
        await self._pool.close()


def _dialing(error: ConnectError, at: tuple[str, int]) -> str:
    """Why no connection came about, in the words of Go, which people know from nodes that are down."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError) or not isinstance(cause, OSError):
        return str(error)
    if cause.errno is not None and cause.errno in errno.errorcode:
        return f"dial tcp {address(*at)}: connect: {os.strerror(cause.errno).lower()}"
    return str(error)
