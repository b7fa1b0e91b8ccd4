"""WebSocket messages over an upgraded connection, for both ends: RFC 6455 frames by wsproto, the handshake by hand.

The handshake is ours because Kubernetes' subprotocols (`SPDY/3.1+portforward.k8s.io`) are no RFC tokens, which
stricter libraries refuse.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Sequence

import attrs
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import RemoteProtocolError

from kcp.wire.http import Request
from kcp.wire.protocol import Exchange
from kcp.wire.tunnel import Tunnel, TunnelClosed

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
GOING_AWAY, NORMAL, PROTOCOL_ERROR, TOO_BIG = 1001, 1000, 1002, 1009


class HandshakeError(Exception):
    """Raised when a request is no proper WebSocket handshake."""


def is_websocket(request: Request) -> bool:
    """Whether the request asks to become a WebSocket, and the connection can."""
    return isinstance(request.upgrade, Exchange) and request.upgrade.upgrade_protocol.lower() == "websocket"


def offered_subprotocols(request: Request) -> list[str]:
    joined = ",".join(request.values("sec-websocket-protocol"))
    return [name.strip() for name in joined.split(",") if name.strip()]


def accept_key(key: str) -> str:
    """The proof that the server read the client's key. Source: RFC 6455 section 4.2.2."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def choose(offered: Sequence[str], supported: Sequence[str]) -> str | None:
    """The client's first choice that the server speaks; "" when none was offered; None when none fits."""
    if not offered:
        return ""
    return next((name for name in offered if name in supported), None)


def accept(
    request: Request,
    supported: Sequence[str] = (),
    headers: Sequence[tuple[str, str]] = (),
    *,
    cancel_when_lost: bool = False,
) -> WebSocket:
    """Become a WebSocket, speaking the client's first subprotocol among `supported`.

    `cancel_when_lost` as in `Exchange.accept`. Raises HandshakeError when the handshake is malformed or no offered subprotocol is supported.
    """
    key = request.header("sec-websocket-key")
    if not key or request.header("sec-websocket-version") != "13":
        raise HandshakeError("not a WebSocket version 13 handshake")
    chosen = choose(offered_subprotocols(request), supported)
    if chosen is None:
        raise HandshakeError(f"no supported subprotocol among {offered_subprotocols(request)}")
    lines = [("sec-websocket-accept", accept_key(key)), *headers]
    if chosen:
        lines.append(("sec-websocket-protocol", chosen))
    assert isinstance(request.upgrade, Exchange)
    return WebSocket(
        request.upgrade.accept(lines, cancel_when_lost=cancel_when_lost), ConnectionType.SERVER, chosen
    )


def handshake_headers(key: bytes, subprotocols: Sequence[str]) -> dict[str, str]:
    """What a client sends to upgrade; `key` are 16 random bytes."""
    headers = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(key).decode(),
    }
    if subprotocols:
        headers["sec-websocket-protocol"] = ", ".join(subprotocols)
    return headers


@attrs.define
class WebSocket:
    """Messages both ways. Owned by one task for receiving; sending is safe from the same loop."""

    _tunnel: Tunnel
    _type: ConnectionType
    subprotocol: str = ""
    _frames: Connection = attrs.field(init=False)
    _messages: deque[bytes | str] = attrs.field(factory=deque)
    _partial: list[bytes | str] = attrs.field(factory=list)
    _partial_size: int = 0
    close_code: int | None = None

    def __attrs_post_init__(self) -> None:
        self._frames = Connection(self._type)

    async def receive(self) -> bytes | str | None:
        """The next whole message; None when the peer closed. Pings are answered on the way."""
        while not self._messages:
            if self.close_code is not None:
                return None
            data = await self._tunnel.receive()
            if not data:
                self.close_code = self.close_code or 1006
                return None
            await self._feed(data)
        return self._messages.popleft()

    async def _feed(self, data: bytes) -> None:
        try:
            self._frames.receive_data(data)
            for event in self._frames.events():
                if isinstance(event, Ping):
                    await self._tunnel.send(self._frames.send(event.response()))
                elif isinstance(event, CloseConnection):
                    await self._closed_by_peer(event)
                elif isinstance(event, (TextMessage, BytesMessage)):
                    self._gather(event)
        except RemoteProtocolError:
            await self.close(PROTOCOL_ERROR)
        except _TooBig:
            await self.close(TOO_BIG)
        except TunnelClosed:
            self.close_code = self.close_code or 1006

    def _gather(self, event: TextMessage | BytesMessage) -> None:
        data = event.data if isinstance(event.data, str) else bytes(event.data)
        self._partial_size += len(data)
        if self._partial_size > MAX_MESSAGE_BYTES:
            raise _TooBig
        self._partial.append(data)
        if event.message_finished:
            parts, self._partial, self._partial_size = self._partial, [], 0
            self._messages.append(
                "".join(p for p in parts if isinstance(p, str))
                if isinstance(data, str)
                else b"".join(p for p in parts if isinstance(p, bytes))
            )

    async def _closed_by_peer(self, event: CloseConnection) -> None:
        self.close_code = int(event.code)
        if not self._tunnel.closed:
            await self._tunnel.send(self._frames.send(event.response()))
        self._tunnel.close()

    async def send(self, message: bytes | str) -> None:
        """Send one message. Raises TunnelClosed when the peer has gone."""
        if self.close_code is not None:
            raise TunnelClosed("the peer closed the WebSocket")
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        await self._tunnel.send(self._frames.send(event))

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        if self.close_code is None:
            self.close_code = code
            if not self._tunnel.closed:
                await self._tunnel.send(self._frames.send(CloseConnection(code, reason or None)))
        self._tunnel.close()


class _TooBig(Exception):
    """Raised when a message exceeds MAX_MESSAGE_BYTES."""


def client(tunnel: Tunnel, subprotocol: str) -> WebSocket:
    """The client's end, after the server answered 101."""
    return WebSocket(tunnel, ConnectionType.CLIENT, subprotocol)
