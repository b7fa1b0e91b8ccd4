"""An etcd server of our own, and the one request that Kubernetes makes of it: a transaction that compares one revision.

Driven over gRPC where the package grpcio is installed (`pip install grpcio`; only benchmarks use it), else over etcd's
HTTP/JSON gateway, which costs etcd more: then the ratios flatter us, and the table says so.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

CONNECTIONS = 64


class Client(Protocol):
    how: str

    async def put(self, key: bytes, value: bytes, revision: int) -> int:
        """Write if the key is still at `revision` (0: absent); returns the new revision."""
        ...

    async def close(self) -> None: ...


class Etcd:
    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="kcp-etcd-")
        self.port, peer = _free_port(), _free_port()
        url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                "etcd", "--data-dir", f"{self.directory}/data", "--listen-client-urls", url, "--advertise-client-urls", url,
                "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
                "--initial-cluster", f"default=http://127.0.0.1:{peer}", "--log-level", "error",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while not _accepts(self.port):
            assert self.process.poll() is None and time.monotonic() < deadline, "etcd did not start"
            time.sleep(0.05)
        time.sleep(0.5)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def remove(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.directory, ignore_errors=True)


def version() -> str:
    found = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
    return found.splitlines()[0].removeprefix("etcd Version: ")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Client]:
    client: Client
    try:
        import grpc.aio  # type: ignore[import-not-found,import-untyped,unused-ignore]

        client = GrpcClient(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
    except ImportError:
        client = GatewayClient(port)
    try:
        yield client
    finally:
        await client.close()


class GrpcClient:
    how = "gRPC"

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._txn = channel.unary_unary("/etcdserverpb.KV/Txn")

    async def put(self, key: bytes, value: bytes, revision: int) -> int:
        found = await self._txn(_txn(key, value, revision))
        fields = _fields(found)
        assert fields.get(2) == 1, f"{key!r} is not at {revision}"
        header = fields[1]
        assert isinstance(header, bytes)
        new = _fields(header)[3]
        assert isinstance(new, int)
        return new

    async def close(self) -> None:
        await self._channel.close()


def _txn(key: bytes, value: bytes, revision: int) -> bytes:
    """TxnRequest: compare mod_revision, then put. Source: etcd api/etcdserverpb/rpc.proto."""
    compare = b"\x10\x02" + _bytes(3, key) + b"\x30" + _varint(revision)
    put = _bytes(1, key) + _bytes(2, value)
    return _bytes(1, compare) + _bytes(2, _bytes(2, put))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _fields(message: bytes) -> dict[int, int | bytes]:
    """The last value of each field of a protobuf message that has only varints and bytes."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        number, at = _read_varint(message, at)
        if tag & 7 == 2:
            found[tag >> 3] = message[at : at + number]
            at += number
        else:
            found[tag >> 3] = number
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    shift = number = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


class GatewayClient:
    how = "HTTP/JSON gateway"

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._room = asyncio.Semaphore(CONNECTIONS)

    async def put(self, key: bytes, value: bytes, revision: int) -> int:
        name = base64.b64encode(key).decode()
        body = json.dumps(
            {
                "compare": [{"key": name, "target": "MOD", "mod_revision": str(revision)}],
                "success": [{"request_put": {"key": name, "value": base64.b64encode(value).decode()}}],
            }
        ).encode()
        async with self._room:
            reader, writer = (
                self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
            )
            writer.write(
                b"POST /v3/kv/txn HTTP/1.1\r\nHost: e\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = json.loads(await reader.readexactly(length))
            self._idle.append((reader, writer))
        assert answer.get("succeeded"), answer
        return int(answer["header"]["revision"])

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
