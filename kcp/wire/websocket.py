"""The WebSocket handshake, for both ends; what follows is in `websocket_messages`.

It is ours because Kubernetes' subprotocols (`SPDY/3.1+portforward.k8s.io`) are no RFC tokens, which
stricter libraries refuse.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kcp.wire.http import Request
from kcp.wire.protocol import Exchange
from kcp.wire.tunnel import Tunnel

if TYPE_CHECKING:
    from kcp.wire.websocket_messages import WebSocket

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


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
    return _speaking(request.upgrade.accept(lines, cancel_when_lost=cancel_when_lost), False, chosen)


def _speaking(tunnel: Tunnel, is_client: bool, subprotocol: str) -> WebSocket:
    from kcp.wire.websocket_messages import WebSocket

    return WebSocket(tunnel, is_client, subprotocol)


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


def client(tunnel: Tunnel, subprotocol: str) -> WebSocket:
    """The client's end, after the server answered 101."""
    return _speaking(tunnel, True, subprotocol)
