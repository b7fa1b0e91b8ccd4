"""Raw HTTPS requests with the client certificate of a kubeconfig: every byte of an answer as it came."""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import yaml

TIMEOUT_S = 30.0


@attrs.frozen
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        return str(self.json().get("reason", ""))

    @property
    def message(self) -> str:
        return str(self.json()["message"])

    @property
    def warnings(self) -> list[str]:
        return self.headers.get_all("Warning") or []


@attrs.frozen
class Api:
    """One API server, one identity. Each request is a connection of its own."""

    host: str
    port: int
    tls: ssl.SSLContext

    @classmethod
    def of(cls, kubeconfig: Path) -> Api:
        config = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        tls = ssl.create_default_context(cadata=b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile(suffix=".pem") as pair:
            pair.write(b64decode(user["client-certificate-data"]) + b64decode(user["client-key-data"]))
            pair.flush()
            tls.load_cert_chain(pair.name)
        server = urlsplit(cluster["server"])
        assert server.hostname is not None and server.port is not None
        return cls(server.hostname, server.port, tls)

    def connect(self, timeout_s: float = TIMEOUT_S) -> http.client.HTTPSConnection:
        """A connection for many requests; the caller closes it."""
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=self.tls)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """`body`: bytes as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Accept": "application/json", **({"Content-Type": content_type} if data is not None else {})}
        connection = self.connect()
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The decoded answer of a GET that must succeed."""
        answer = self.request("GET", path)
        assert answer.status == 200, (path, answer.status, answer.body)
        return answer.json()

    def watch(self, path: str, timeout_s: float = TIMEOUT_S) -> Iterator[Any]:
        """Watch events until the server ends the watch, or nothing comes for `timeout_s`."""
        connection = self.connect(timeout_s)
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            assert answer.status == 200, (path, answer.status, answer.read())
            for line in answer:
                yield json.loads(line)
        finally:
            connection.close()
