"""A small HTTP/1.1 client for load: keep-alive connections over TLS, one request at a time on each."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import yaml


def tls_context(kubeconfig: Path) -> ssl.SSLContext:
    """The client side of the cluster in a kubeconfig that carries its certificates inside."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(
        cadata=base64.b64decode(cluster["certificate-authority-data"]).decode()
    )
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(
            base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"])
        )
        pair.flush()
        context.load_cert_chain(pair.name)
    return context


@attrs.define
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    host: str

    @classmethod
    async def open(cls, url: str, context: ssl.SSLContext) -> Connection:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context, limit=2**24)
        return cls(reader, writer, parts.netloc)

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nhost: {self.host}\r\naccept: application/json\r\n"
        if body:
            media = "application/merge-patch+json" if method == "PATCH" else "application/json"
            head += f"content-type: {media}\r\ncontent-length: {len(body)}\r\n"
        self.writer.write(head.encode() + b"\r\n" + body)
        answer = await self.reader.readuntil(b"\r\n\r\n")
        status = int(answer[9:12])
        headers = answer.lower()
        if b"content-length:" in headers:
            length = int(headers.split(b"content-length:")[1].split(b"\r\n")[0])
            return status, await self.reader.readexactly(length)
        return status, await self._chunks()

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body

    def close(self) -> None:
        self.writer.close()


async def spread(
    url: str,
    context: ssl.SSLContext,
    connections: int,
    total: int,
    one: Callable[[Connection, int], Awaitable[Any]],
) -> float:
    """Run `one(connection, number)` for `total` numbers over so many connections; seconds it took."""
    numbers = iter(range(total))
    opened = [await Connection.open(url, context) for _ in range(connections)]

    async def work(connection: Connection) -> None:
        for number in numbers:
            await one(connection, number)

    started = time.perf_counter()
    await asyncio.gather(*(work(connection) for connection in opened))
    took = time.perf_counter() - started
    for connection in opened:
        connection.close()
    return took
