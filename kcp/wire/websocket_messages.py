"""WebSocket messages over an upgraded connection, for both ends: RFC 6455 frames by wsproto.

Loaded by the first WebSocket: most servers never see one.
"""

from __future__ import annotations

from collections import deque

import attrs
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import RemoteProtocolError

from kcp.wire.tunnel import Tunnel, TunnelClosed

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
GOING_AWAY, NORMAL, PROTOCOL_ERROR, TOO_BIG = 1001, 1000, 1002, 1009


@attrs.define
class WebSocket:
    """Messages both ways. Owned by one task for receiving; sending is safe from the same loop."""

    _tunnel: Tunnel
    _is_client: bool
    subprotocol: str = ""
    _frames: Connection = attrs.field(init=False)
    _messages: deque[bytes | str] = attrs.field(factory=deque)
    _partial: list[bytes | str] = attrs.field(factory=list)
    _partial_size: int = 0
    close_code: int | None = None

    def __attrs_post_init__(self) -> None:
        self._frames = Connection(ConnectionType.CLIENT if self._is_client else ConnectionType.SERVER)

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
