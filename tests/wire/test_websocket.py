"""WebSocket over the server's upgrade, both ends ours, subprotocols as Kubernetes names them."""

from __future__ import annotations

import pytest

from kcp.wire.connect import Pool
from kcp.wire.http import Request, Response
from kcp.wire.websocket import (
    HandshakeError,
    accept,
    accept_key,
    choose,
    client,
    handshake_headers,
    is_websocket,
)
from tests.wire.support import served


def test_accept_key_is_the_one_of_the_rfc() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [([], ""), (["v5", "v4"], "v5"), (["x", "v4"], "v4"), (["x"], None)],
)
def test_the_client_s_first_supported_choice_wins(offered: list[str], chosen: str | None) -> None:
    assert choose(offered, ["v4", "v5"]) == chosen


async def test_messages_go_both_ways_and_close_is_answered() -> None:
    async def handler(request: Request) -> Response:
        assert is_websocket(request)
        socket = accept(request, ["SPDY/3.1+portforward.k8s.io"])
        while (message := await socket.receive()) is not None:
            await socket.send(message)
        assert socket.close_code == 1000
        return Response()

    async with served(handler) as target:
        names = ["v9.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"]
        request = Request("GET", "/", headers=handshake_headers(b"0" * 16, names))
        response, tunnel = await Pool().upgrade(request, target, 5)
        assert response.header("sec-websocket-protocol") == "SPDY/3.1+portforward.k8s.io"
        assert response.header("sec-websocket-accept") == accept_key(request.headers["sec-websocket-key"])
        assert tunnel is not None
        socket = client(tunnel, "SPDY/3.1+portforward.k8s.io")
        await socket.send(b"\x01bytes")
        await socket.send("text")
        assert [await socket.receive(), await socket.receive()] == [b"\x01bytes", "text"]
        await socket.close()
        assert await socket.receive() is None


async def test_an_unsupported_subprotocol_is_refused() -> None:
    async def handler(request: Request) -> Response:
        with pytest.raises(HandshakeError):
            accept(request, ["v5.channel.k8s.io"])
        return Response(400)

    async with served(handler) as target:
        request = Request("GET", "/", headers=handshake_headers(b"0" * 16, ["v1"]))
        response, tunnel = await Pool().upgrade(request, target, 5)
        assert (response.status, tunnel) == (400, None)
