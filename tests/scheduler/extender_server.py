"""A scheduler extender of the tests: a real HTTP server that answers as the test tells it and remembers what it was asked."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs

Json = Any
Verb = Callable[[Json], Json]


@attrs.define
class ExtenderServer:
    """`answers[verb]` gives the answer to a body; an int is a status to fail with; `delay_s` comes before every answer."""

    url: str
    answers: dict[str, Verb | int]
    asked: list[tuple[str, Json]] = attrs.field(factory=list)
    delay_s: float = 0.0

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.asked]


@contextmanager
def extender_server(
    answers: dict[str, Verb | int], tls: ssl.SSLContext | None = None, delay_s: float = 0.0
) -> Iterator[ExtenderServer]:
    scheme = "http" if tls is None else "https"
    extender = ExtenderServer("", answers, delay_s=delay_s)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            verb = self.path.rpartition("/")[2]
            extender.asked.append((verb, body))
            time.sleep(extender.delay_s)
            answer = extender.answers[verb]
            status = answer if isinstance(answer, int) else 200
            self._send(status, b"no" if isinstance(answer, int) else json.dumps(answer(body)).encode())

        def _send(self, status: int, body: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the scheduler gave up waiting

        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    extender.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/scheduler"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield extender
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
