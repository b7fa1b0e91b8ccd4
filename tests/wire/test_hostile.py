"""Peers that mean no good, on real sockets, against the whole API: clear errors, bounded cost, everyone else still served."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import resource
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from kcp.base.clock import SystemClock
from kcp.base.entropy import SeededEntropy
from kcp.client.client import Client
from kcp.controlplane.cluster import ADMIN, Cluster, ClusterOptions
from kcp.machinery.codec.protobuf_table import json_schema_index, table
from kcp.store.open import open_store
from kcp.wire.connect import Pool, Target
from kcp.wire.http import Request, Response
from kcp.wire.protocol import Limits
from tests.wire.support import served

MAPS = "/api/v1/namespaces/default/configmaps"
SOON_S = 10.0
"""No honest request takes that long here, whatever the others do."""


@attrs.frozen
class Server:
    target: Target
    token: str
    pool: Pool
    opened: list[asyncio.StreamWriter] = attrs.field(factory=list)

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        """An honest request: an administrator's, on a pooled connection."""
        path, _, query = path.partition("?")
        sent = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        return await self.pool.send(Request(method, path, query, sent, body), self.target, SOON_S)

    async def serves(self) -> bool:
        return (await self.ask("GET", f"{MAPS}?limit=1")).status == 200

    async def connect(self, first: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self.target.host, self.target.port, limit=4096)
        self.opened.append(writer)
        writer.write(first)
        return reader, writer

    def get(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\n\r\n".encode()


async def _administrator(client: Client) -> str:
    """The token of a service account that may do everything."""
    await client.create(
        "serviceaccounts", {"metadata": {"name": "default", "namespace": "default"}}, "default"
    )
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    subject = {"kind": "ServiceAccount", "namespace": "default", "name": "default"}
    binding = {"metadata": {"name": "x"}, "roleRef": role, "subjects": [subject]}
    await client.create("clusterrolebindings.rbac.authorization.k8s.io", binding)
    asked = await client.create(
        "serviceaccounts", {"spec": {}}, "default", name="default", subresource="token"
    )
    return str(asked.object["status"]["token"])


@asynccontextmanager
async def server(**limits: Any) -> AsyncIterator[Server]:
    clock = SystemClock()
    store = open_store("memory:", clock=clock, entropy=SeededEntropy(1))
    options = ClusterOptions(controllers=(), scheduler=False)
    cluster = Cluster.build(store, clock, SeededEntropy(2), options)
    started = asyncio.Event()

    async def run() -> None:
        async with anyio.create_task_group() as group:
            await group.start(cluster.run)
            started.set()

    task = asyncio.create_task(run())
    try:
        await started.wait()
        token = await _administrator(cluster.client(ADMIN))
        async with served(
            cluster.handler,
            limits=Limits(**limits),
            on_drain=cluster.server.caches.drain,
            drain_timeout_s=0.2,
        ) as target:
            api = Server(target, token, Pool())
            try:
                yield api
            finally:
                await api.pool.close()
                for writer in api.opened:
                    writer.transport.abort()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes the connection, which it must do soon."""
    async with asyncio.timeout(SOON_S):
        try:
            return await reader.read(-1)
        except (ConnectionResetError, BrokenPipeError):
            return b""


def room_for(connections: int) -> None:
    """Let this process hold so many; skips the test where it must not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 500
    if hard < wanted:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


async def test_slow_loris() -> None:
    """Heads that trickle in are cut, and nobody waits for them meanwhile."""
    async with server(header_timeout_s=0.3) as api:
        slow = [await api.connect(b"GET /api HTTP/1.1\r\nX-A: 1\r\n") for _ in range(50)]
        for number in range(10):
            for _, writer in slow:
                writer.write(b"X-%d: 1\r\n" % number)
            assert await api.serves()
            await asyncio.sleep(0.05)
        answers = [await ended(reader) for reader, _ in slow]
        assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 408", b""}


async def test_bodies_that_trickle_in_are_cut() -> None:
    async with server(body_timeout_s=0.3) as api:
        head = f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{{".encode()
        reader, _ = await api.connect(head)
        assert await api.serves()
        assert await ended(reader) == b""


async def test_half_closed_sockets_get_their_answer_and_are_let_go() -> None:
    async with server() as api:
        for path in ("/version", MAPS):
            reader, writer = await api.connect(api.get(path))
            writer.write_eof()
            answer = await ended(reader)
            assert answer.startswith(b"HTTP/1.1 200") or answer == b""
        reader, writer = await api.connect(b"GET /vers")
        writer.write_eof()
        assert await ended(reader) == b""
        reader, writer = await api.connect(api.get(f"{MAPS}?watch=true"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.write_eof()
        await ended(reader)
        assert await api.serves()


IDLERS = """
import socket, sys
opened = [socket.create_connection((sys.argv[1], int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
print(len(opened), flush=True)
sys.stdin.read()
"""
IDLE_CONNECTION_BYTES = 16 * 1024
"""What a connection without TLS that has asked for nothing may cost the server; it costs about 7 KiB."""


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


@asynccontextmanager
async def idlers(target: Target, count: int) -> AsyncIterator[None]:
    """So many connections from another process, which has descriptors of its own, that never send anything."""
    arguments = [sys.executable, "-c", IDLERS, target.host, str(target.port), str(count)]
    process = await asyncio.create_subprocess_exec(*arguments, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert int(await process.stdout.readline()) == count
        yield
    finally:
        process.stdin.close()
        async with asyncio.timeout(60):
            await process.wait()


@pytest.mark.parametrize("count", [10_000])
async def test_many_idle_connections(count: int) -> None:
    room_for(count)
    async with server(header_timeout_s=60.0) as api:
        before = resident_bytes()
        async with idlers(api.target, count):
            assert await api.serves()
            assert (await api.ask("POST", MAPS, b'{"metadata":{"name":"a"}}')).status == 201
            assert resident_bytes() - before < count * IDLE_CONNECTION_BYTES
        assert await api.serves()


async def test_connections_over_the_limit_are_refused_and_room_comes_back() -> None:
    async with server(connections=5) as api:
        held = [await api.connect(api.get("/version")) for _ in range(5)]
        for reader, _ in held:
            await reader.readline()
        reader, _ = await api.connect(api.get("/version"))
        assert await ended(reader) == b""
        for _, each in held:
            each.close()
            await each.wait_closed()
        async with asyncio.timeout(SOON_S):
            while True:
                with contextlib.suppress(OSError):
                    if await api.serves():
                        break


async def test_a_watcher_that_never_reads() -> None:
    """20 MB of events for it; the server keeps little of them, cuts it, and others see every event meanwhile."""
    async with server(write_timeout_s=0.5) as api:
        deaf_reader, _ = await api.connect(api.get(f"{MAPS}?watch=true"))
        head = await deaf_reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        request = Request("GET", MAPS, "watch=true", {"authorization": f"Bearer {api.token}"})
        listening = await api.pool.send(request, api.target, SOON_S, stream=True)
        assert listening.stream is not None
        hearing = asyncio.create_task(_sees(listening.stream, b'"n":"199"'))
        payload = "x" * 100_000
        await api.ask("POST", MAPS, b'{"metadata":{"name":"m"}}')
        for number in range(200):
            body = json.dumps({"data": {"n": str(number), "x": payload}}).encode()
            changed = await api.ask("PATCH", f"{MAPS}/m", body, content_type="application/merge-patch+json")
            assert changed.status == 200
        await hearing
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 1.5
        while loop.time() < until_s:
            assert await api.serves()
        received = 0
        async with asyncio.timeout(SOON_S):
            with contextlib.suppress(ConnectionResetError):
                while chunk := await deaf_reader.read(65536):
                    received += len(chunk)
        assert received < 15_000_000, "a cut watch gets what fitted into the buffers, no more"
        assert await api.serves()


async def _sees(stream: AsyncIterator[bytes], wanted: bytes) -> None:
    tail = b""
    async with asyncio.timeout(SOON_S):
        async for chunk in stream:
            tail = tail[-200:] + chunk
            if wanted in tail:
                return


async def test_a_head_of_one_mebibyte() -> None:
    async with server() as api:
        reader, _ = await api.connect(b"GET /api HTTP/1.1\r\nX: " + b"a" * (1024 * 1024))
        assert (await ended(reader)).startswith(b"HTTP/1.1 431")
        reader, _ = await api.connect(b"GET /" + b"a" * (1024 * 1024) + b" HTTP/1.1\r\n\r\n")
        assert (await ended(reader)).startswith(b"HTTP/1.1 4")
        many = b"".join(b"X-%d: 1\r\n" % number for number in range(100_000))
        reader, _ = await api.connect(b"GET /api HTTP/1.1\r\n" + many)
        assert (await ended(reader)).startswith(b"HTTP/1.1 4")
        assert await api.serves()


NESTED = 10_000
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b'{"data":' + b'{"a":' * NESTED + b"1" + b"}" * NESTED + b"}", "application/json"),
        (b"[" * NESTED + b"]" * NESTED, "application/json"),
        (b"[" * 1_000_000, "application/json"),
        (b"data: " + b"[" * NESTED + b"]" * NESTED, "application/yaml"),
        (b"".join(b" " * n + b"a:\n" for n in range(1500)), "application/yaml"),
        (b"metadata: {name: b}\n" + BOMB + b"data: *j\n", "application/yaml"),
        (gzip.compress(b" " * 50_000_000), "application/json"),
        (b"k8s\x00" + b"\x0a\xff\xff\xff\xff\x0f" * 1000, "application/vnd.kubernetes.protobuf"),
        (b'{"metadata":{"name":"n"},"data":{"a":' + b"9" * 1_000_000 + b"}}", "application/json"),
        (b'{"metadata":{"name":"n"},"data":{"a":"' + b"\\ud800" * 1000 + b'"},"x":1e999999}', "application/json"),
    ],
    ids=["objects", "lists", "open lists", "yaml lists", "yaml objects", "yaml aliases", "gzip", "protobuf", "digits", "surrogates"],
)  # fmt: skip
async def test_bodies_that_explode(body: bytes, media_type: str) -> None:
    async with server() as api:
        extra = {"content_encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
        answer = await api.ask("POST", MAPS, body, content_type=media_type, **extra)
        assert 400 <= answer.status < 500, (answer.status, answer.body[:300])
        assert len(answer.body) < len(body) + 10_000, "an error quotes no more than was sent"
        assert json.loads(answer.body)["kind"] == "Status"
        assert await api.serves()


async def test_patches_that_explode() -> None:
    async with server() as api:
        assert (await api.ask("POST", MAPS, b'{"metadata":{"name":"m"},"data":{"a":"b"}}')).status == 201
        nested = b'{"metadata":{"annotations":' + b'{"a":' * NESTED + b"1" + b"}" * NESTED + b"}}"
        doubling = [{"op": "copy", "from": "/data", "path": f"/data/x{n}"} for n in range(64)]
        for body, kind in (
            (nested, "merge-patch"),
            (nested, "strategic-merge-patch"),
            (json.dumps(doubling).encode(), "json-patch"),
            (json.dumps([{"op": "test", "path": "/a" * 100_000, "value": 1}]).encode(), "json-patch"),
            (json.dumps([{"op": "remove", "path": "/data"}] * 20_000).encode(), "json-patch"),
        ):
            answer = await api.ask("PATCH", f"{MAPS}/m", body, content_type=f"application/{kind}+json")
            assert 400 <= answer.status < 500, (kind, answer.status, answer.body[:300])
        assert await api.serves()


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


async def test_protobuf_that_nests() -> None:
    """A schema in a schema in a schema: the only message that holds itself."""
    fields = table()[1]
    numbers = {row[1]: row[0] for row in fields[json_schema_index()]}
    schema = b""
    for _ in range(NESTED):
        schema = _field(numbers["not"], schema)
    version = _field(1, b"v1") + _field(4, _field(1, schema))
    type_meta = _field(1, b"apiextensions.k8s.io/v1") + _field(2, b"CustomResourceDefinition")
    crd = _field(1, _field(1, b"x.y")) + _field(2, _field(7, version))
    body = b"k8s\x00" + _field(1, type_meta) + _field(2, crd)
    async with server() as api:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        answer = await api.ask("POST", path, body, content_type="application/vnd.kubernetes.protobuf")
        assert 400 <= answer.status < 500, answer.body[:300]
        assert len(answer.body) < 10_000_000
        assert await api.serves()
