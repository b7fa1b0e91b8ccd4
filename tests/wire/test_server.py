"""The server on real sockets: what reaches the handler, what reaches the client, and what a bad peer costs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.wire.connect import Pool, Target, client_tls, send
from kcp.wire.http import Request, Response
from kcp.wire.protocol import SLICE_BYTES, Exchange, Limits, encode_head, slices
from kcp.wire.server import ListenError, ServerTls, bind
from tests.wire.support import make_ca, served, write


async def echo(request: Request) -> Response:
    text = f"{request.method} {request.path}?{request.query} {len(request.body)}"
    return Response(200, [("content-type", "text/plain")], text.encode())


async def raw(target: Target, data: bytes) -> bytes:
    """Send bytes, read until the server closes or falls silent after an answer."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write(data)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


async def test_a_request_reaches_the_handler_decoded() -> None:
    async with served(echo) as target:
        response = await send(Request("POST", "/a b/c", "x=1&y=%20", body=b"hello"), target, 5)
    assert (response.status, response.body) == (200, b"POST /a b/c?x=1&y=%20 5")
    assert response.header("date").endswith("GMT")


async def test_repeated_headers_are_kept_apart() -> None:
    seen: list[list[str]] = []

    async def handler(request: Request) -> Response:
        seen.append(request.values("impersonate-group"))
        return Response()

    async with served(handler) as target:
        await raw(target, b"GET / HTTP/1.0\r\nImpersonate-Group: a,b\r\nImpersonate-Group: c\r\n\r\n")
    assert seen == [["a,b", "c"]]


async def test_connections_are_kept_alive_and_pipelined_requests_answered_in_order() -> None:
    async with served(echo) as target:
        answer = await raw(
            target,
            b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
    assert answer.index(b"GET /1") < answer.index(b"GET /2")
    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_head_has_the_length_but_no_body() -> None:
    async with served(echo) as target:
        answer = await raw(target, b"HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"content-length: 10" in answer
    assert answer.endswith(b"\r\n\r\n")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2 * SLICE_BYTES), max_size=12))
def test_slices_are_the_parts_in_order_and_never_too_large(sizes: list[int]) -> None:
    parts = [bytes([65 + at]) * size for at, size in enumerate(sizes)]
    found = list(slices(parts))
    assert b"".join(found) == b"".join(parts)
    assert all(0 < len(piece) <= SLICE_BYTES for piece in found)


@pytest.mark.parametrize("sizes", [(10, 20), (0, 3 * SLICE_BYTES, 1), (1000,) * 900])
async def test_a_body_in_parts_arrives_as_one(sizes: tuple[int, ...]) -> None:
    parts = [bytes([at % 251]) * size for at, size in enumerate(sizes)]

    async def handler(request: Request) -> Response:
        return Response(200, [("content-type", "application/octet-stream")], parts=parts)

    async with served(handler) as target:
        for method in ("GET", "HEAD", "GET"):
            response = await send(Request(method, "/"), target, 10)
            assert response.header("content-length") == str(sum(sizes))
            assert response.body == (b"" if method == "HEAD" else b"".join(parts))


async def test_the_same_headers_on_a_connection_are_the_same_object() -> None:
    seen: list[Any] = []

    async def handler(request: Request) -> Response:
        seen.append(request.headers)
        return Response(200, [], b"ok")

    async with served(handler) as target:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        for extra in ("", "", "x-a: 1\r\n"):
            writer.write(f"GET / HTTP/1.1\r\nhost: a\r\n{extra}\r\n".encode())
            await reader.readuntil(b"ok")
        writer.close()
    assert seen[0] is seen[1] and seen[2] == {"host": "a", "x-a": "1"}


async def test_large_bodies_arrive_whole() -> None:
    body = bytes(range(256)) * 20_000

    async def handler(request: Request) -> Response:
        return Response(200, [], body)

    async with served(handler) as target:
        assert (await send(Request("GET", "/"), target, 10)).body == body


async def test_a_body_over_the_limit_is_cut_one_byte_behind_it_and_still_answered() -> None:
    async with served(echo, limits=Limits(body_bytes=1000)) as target:
        response = await send(Request("POST", "/", body=b"x" * 3500), target, 5)
    assert response.body == b"POST /? 1001"


async def test_expect_100_continue_is_answered_before_the_body() -> None:
    async with served(echo) as target:
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readline()) == b"HTTP/1.1 100 Continue\r\n"
        writer.write(b"abc")
        await reader.readline()
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 3000, b"431"),
        (b"GET / HTTP/1.1\r\nX: never finished", b"408"),
    ],
)
async def test_a_bad_or_slow_head_is_refused_and_the_connection_closed(data: bytes, status: bytes) -> None:
    async with served(echo, limits=Limits(header_bytes=2000, header_timeout_s=0.05)) as target:
        assert (await raw(target, data)).startswith(b"HTTP/1.1 " + status)


async def test_a_silent_connection_and_a_stalled_body_are_cut() -> None:
    limits = Limits(header_timeout_s=0.05, body_timeout_s=0.05)
    async with served(echo, limits=limits) as target:
        assert await raw(target, b"") == b""
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(5):
                await reader.readexactly(1)
        writer.close()


async def test_a_handler_that_raises_gives_500(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> Response:
        raise RuntimeError("boom")

    async with served(handler) as target:
        assert (await send(Request("GET", "/"), target, 5)).status == 500
    assert "request failed" in caplog.text


async def test_a_stream_ends_when_the_client_goes_away() -> None:
    ended = asyncio.Event()

    async def ticks() -> AsyncIterator[bytes]:
        try:
            yield b"first\n"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def handler(request: Request) -> Response:
        return Response(200, [], stream=ticks())

    async with served(handler) as target:
        pool = Pool()
        response = await pool.send(Request("GET", "/"), target, 5, stream=True)
        assert response.stream is not None
        assert await anext(response.stream) == b"first\n"
        assert not ended.is_set()
        await response.stream.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_reader_that_stalls_pauses_the_stream_and_is_cut() -> None:
    produced, ended = 0, asyncio.Event()

    async def flood() -> AsyncIterator[bytes]:
        nonlocal produced
        try:
            for _ in range(10_000):
                produced += 1
                yield b"x" * 65536
        finally:
            ended.set()

    async def handler(request: Request) -> Response:
        return Response(200, [], stream=flood())

    async with served(handler, limits=Limits(write_timeout_s=0.1)) as target:
        _, writer = await asyncio.open_connection(target.host, target.port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(20):
            await ended.wait()
        writer.transport.abort()
    assert produced < 10_000


async def test_drain_ends_streams_and_lets_answers_finish() -> None:
    draining, started = asyncio.Event(), asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        yield b"a"
        await draining.wait()
        yield b"z"

    async def handler(request: Request) -> Response:
        if request.path == "/stream":
            return Response(200, [], stream=stream())
        started.set()
        await draining.wait()
        return Response(200, [], b"done")

    pool = Pool()
    async with served(handler, on_drain=draining.set) as target:
        streaming = await pool.send(Request("GET", "/stream"), target, 5, stream=True)
        waiting = asyncio.create_task(pool.send(Request("GET", "/"), target, 5))
        await started.wait()
    assert (await waiting).body == b"done"
    assert streaming.stream is not None
    assert [chunk async for chunk in streaming.stream][-1].endswith(b"z")


async def test_drain_cuts_what_does_not_end() -> None:
    async def forever() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    async def handler(request: Request) -> Response:
        return Response(200, [], stream=forever())

    pool = Pool()
    async with asyncio.timeout(5):
        async with served(handler, drain_timeout_s=0.05) as target:
            response = await pool.send(Request("GET", "/"), target, 5, stream=True)
    with pytest.raises(OSError, match="closed by the server"):
        assert response.stream is not None
        [chunk async for chunk in response.stream]


async def test_the_client_certificate_reaches_the_handler(tmp_path: Path) -> None:
    ca = make_ca()
    certificate, key = ca.issue("localhost", server=True)
    tls = ServerTls(
        write(tmp_path, "tls.crt", certificate),
        write(tmp_path, "tls.key", key),
        (write(tmp_path, "ca.crt", ca.pem),),
    )
    seen: list[bytes] = []

    async def handler(request: Request) -> Response:
        seen.append(request.peer_certificate)
        assert request.peer_address == "127.0.0.1"
        return Response()

    async with served(handler, tls=tls) as plain:
        client, client_key = ca.issue("alice", ("dev",))
        with_certificate = client_tls(ca_pem=ca.pem, certificate_pem=client, key_pem=client_key)
        await send(Request("GET", "/"), Target(plain.host, plain.port, with_certificate), 5)
        await send(Request("GET", "/"), Target(plain.host, plain.port, client_tls(ca_pem=ca.pem)), 5)
        with pytest.raises(OSError, match="TLS with"):
            await send(
                Request("GET", "/"), Target(plain.host, plain.port, client_tls(ca_pem=make_ca().pem)), 5
            )
    assert x509.load_der_x509_certificate(seen[0]).subject.rfc4514_string() == "CN=alice,O=dev"
    assert seen[1] == b""
    assert with_certificate.verify_mode is ssl.CERT_REQUIRED


async def test_an_upgrade_hands_the_connection_over() -> None:
    async def handler(request: Request) -> Response:
        assert isinstance(request.upgrade, Exchange)
        assert request.upgrade.upgrade_protocol == "spdy/3.1"
        tunnel = request.upgrade.accept([("x-stream-protocol-version", "v4.channel.k8s.io")])
        await tunnel.send((await tunnel.receive()).upper())
        return Response()

    headers = {"connection": "Upgrade", "upgrade": "SPDY/3.1"}
    async with served(handler) as target:
        response, tunnel = await Pool().upgrade(Request("POST", "/exec", headers=headers), target, 5)
        assert (response.status, response.header("x-stream-protocol-version")) == (101, "v4.channel.k8s.io")
        assert tunnel is not None
        await tunnel.send(b"frames")
        assert await tunnel.receive() == b"FRAMES"
        assert await tunnel.receive() == b""


async def test_bytes_sent_together_with_the_upgrade_are_not_lost() -> None:
    async def handler(request: Request) -> Response:
        tunnel = request.upgrade.accept([])
        await tunnel.send(await tunnel.receive())
        return Response()

    async with served(handler) as target:
        answer = await raw(target, b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nearly")
    assert answer.endswith(b"\r\n\r\nearly")


async def test_an_upgrade_that_nobody_takes_is_an_ordinary_request() -> None:
    async with served(echo) as target:
        answer = await raw(target, b"GET /x HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer


async def test_a_port_in_use_is_one_clear_error() -> None:
    first = bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
        bind("127.0.0.1", port)
    first.close()


async def test_a_handler_that_never_reads_is_cancelled_when_its_peer_goes() -> None:
    taken, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        request.upgrade.accept([], cancel_when_lost=True)
        taken.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Response()

    async with served(handler) as target:
        request = Request("GET", "/", headers={"connection": "Upgrade", "upgrade": "websocket"})
        _, tunnel = await Pool().upgrade(request, target, 5)
        assert tunnel is not None
        await taken.wait()
        tunnel.close()
        async with asyncio.timeout(5):
            await cancelled.wait()


async def test_several_sockets_serve_the_same_handler() -> None:
    sockets = [bind("127.0.0.1", 0), bind("127.0.0.1", 0)]
    ports = [sock.getsockname()[1] for sock in sockets]
    async with served(echo, sockets=sockets):
        for port in ports:
            assert (await send(Request("GET", "/x"), Target("127.0.0.1", port), 5)).status == 200


def test_a_header_cannot_smuggle_in_another() -> None:
    with pytest.raises(ValueError, match="line break"):
        encode_head(b"HTTP/1.1 200 OK\r\n", [("warning", "a\r\nset-cookie: x")], ())


class Quick:
    """A handler that answers /now without waiting."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def at_once(self, request: Request) -> Response | None:
        if request.path == "/broken":
            raise RuntimeError("broken")
        return Response(200, [], b"at once") if request.path == "/now" else None

    async def __call__(self, request: Request) -> Response:
        self.called.append(f"{request.method} {request.path}")
        await asyncio.sleep(0)
        return Response(200, [], b"waited")


async def test_the_first_request_of_a_piece_is_answered_at_once_the_others_in_order() -> None:
    handler = Quick()
    paths = ("/now", "/later", "/now", "/now", "/later", "/now")
    wanted = b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode() for path in paths)
    async with served(handler) as target:
        answer = await raw(target, wanted + b"GET /now HTTP/1.0\r\n\r\n")
    bodies = [head.rpartition(b"\r\n\r\n")[2] for head in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"at once", *[b"waited"] * 6]
    assert handler.called == [f"GET {path}" for path in (*paths[1:], "/now")]


async def test_thousands_of_requests_in_one_piece_are_answered_one_by_one() -> None:
    async with served(Quick()) as target:
        answer = await raw(
            target, b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n" * 3_000 + b"GET /now HTTP/1.0\r\n\r\n"
        )
    assert answer.count(b"HTTP/1.1 200 OK") == 3_001


async def test_only_gets_without_a_body_are_answered_at_once() -> None:
    handler = Quick()
    async with served(handler) as target:
        for method, body in (("POST", b""), ("GET", b"x"), ("HEAD", b"")):
            await send(Request(method, "/now", body=body), target, 5)
    assert handler.called == ["POST /now", "GET /now", "HEAD /now"]


async def test_a_failure_at_once_is_a_500_like_any_other() -> None:
    async with served(Quick()) as target:
        assert (await send(Request("GET", "/broken"), target, 5)).status == 500
        assert (await send(Request("GET", "/now"), target, 5)).body == b"at once"


async def test_who_asks_much_and_reads_nothing_is_cut() -> None:
    """Answers wait for room in the connection's buffer, so the server keeps few of them, not thousands."""
    asked: list[str] = []

    class Large:
        def at_once(self, request: Request) -> Response:
            asked.append(request.path)
            return Response(200, [], bytes(50_000))

        async def __call__(self, request: Request) -> Response:
            return self.at_once(request)

    async with served(Large(), limits=Limits(write_timeout_s=0.3)) as target:
        reader, writer = await asyncio.open_connection(target.host, target.port, limit=1000)
        writer.write(b"GET /deaf HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 0.8
        while loop.time() < until_s:
            assert (await send(Request("GET", "/other"), target, 5)).status == 200
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(65536):
                    pass
        writer.close()
    assert 0 < asked.count("/deaf") < 500
