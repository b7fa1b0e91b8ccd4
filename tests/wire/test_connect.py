"""The client's side: pooling, deadlines, streams, failures."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kcp.wire.connect import ConnectError, Pool, RequestTimeout, Target, send
from kcp.wire.http import Request, Response
from tests.wire.support import served


async def test_requests_reuse_one_connection() -> None:
    peers: list[object] = []

    async def handler(request: Request) -> Response:
        peers.append(request.path)
        return Response(200, [], request.body)

    pool = Pool()
    async with served(handler) as target:
        for n in range(3):
            await pool.send(Request("POST", f"/{n}", body=b"x"), target, 5)
        assert len(pool._idle[target]) == 1
        await pool.close()
    assert peers == ["/0", "/1", "/2"]


async def test_a_late_answer_is_a_timeout() -> None:
    async def handler(request: Request) -> Response:
        await asyncio.sleep(30)
        return Response()

    async with served(handler, drain_timeout_s=0.01) as target:
        with pytest.raises(RequestTimeout, match=r"within 0\.05 s"):
            await send(Request("GET", "/"), target, 0.05)


async def test_nobody_listening_is_a_connect_error() -> None:
    with pytest.raises(ConnectError, match=r"cannot connect to 127\.0\.0\.1:1"):
        await send(Request("GET", "/"), Target("127.0.0.1", 1), 5)


async def test_a_get_is_repeated_when_the_pooled_connection_had_died() -> None:
    closing: list[asyncio.StreamWriter] = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.read(1)
        writer.transport.abort()
        closing.append(writer)

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
    pool = Pool()
    for _ in range(2):
        assert (await pool.send(Request("GET", "/"), target, 5)).body == b"ok"
    assert len(closing) == 1
    with pytest.raises(ConnectError):
        await pool.send(Request("POST", "/"), target, 5)
    await pool.close()
    server.close()


async def test_a_stream_that_breaks_off_raises() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
    response = await Pool().send(Request("GET", "/"), target, 5, stream=True)
    assert response.stream is not None
    with pytest.raises(ConnectError):
        [chunk async for chunk in response.stream]
    server.close()


async def test_a_stream_delivers_in_order_under_back_pressure() -> None:
    async def numbers() -> AsyncIterator[bytes]:
        for n in range(300):
            yield b"%05d" % n * 1000

    async def handler(request: Request) -> Response:
        return Response(200, [], stream=numbers())

    pool = Pool()
    async with served(handler) as target:
        response = await pool.send(Request("GET", "/"), target, 5, stream=True)
        assert response.stream is not None
        data = b"".join([chunk async for chunk in response.stream])
        await pool.close()
    assert data == b"".join(b"%05d" % n * 1000 for n in range(300))


async def test_unix_sockets(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end")
        writer.close()

    path = str(tmp_path / "s.sock")
    server = await asyncio.start_unix_server(answer, path)
    assert (await send(Request("GET", "/"), Target(unix_path=path), 5)).body == b"to the end"
    server.close()


async def test_a_peer_that_is_silent_is_asked_for_a_sign_of_life() -> None:
    """Or a watch over a connection that nothing can pass any more would wait for its next event for ever."""

    async def handler(request: Request) -> Response:
        return Response(200, [], b"ok")

    pool = Pool()
    async with served(handler) as target:
        await pool.send(Request("GET", "/"), target, 5)
        (connection,) = pool._idle[target]
        assert connection.transport is not None
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle_s, gap_s, tries = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle_s + gap_s * tries <= 90
        await pool.close()
