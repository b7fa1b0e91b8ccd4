"""A real etcd for a test: filled and snapshotted over its HTTP/JSON gateway, since etcdctl is another package."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

Json = dict[str, Any]


@attrs.frozen
class Etcd:
    url: str

    def ask(self, path: str, body: Json) -> bytes:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})  # fmt: skip
        with urllib.request.urlopen(request, timeout=20) as answer:
            data: bytes = answer.read()
        return data

    def _revision(self, answer: bytes) -> int:
        return int(json.loads(answer)["header"]["revision"])

    def put(self, key: str, value: bytes) -> int:
        return self._revision(
            self.ask("/v3/kv/put", {"key": _text(key), "value": base64.b64encode(value).decode()})
        )

    def delete(self, key: str, end: str = "") -> int:
        """One key, or all up to `end`, in one revision."""
        return self._revision(
            self.ask("/v3/kv/deleterange", {"key": _text(key), **({"range_end": _text(end)} if end else {})})
        )

    def compact(self, revision: int) -> None:
        self.ask("/v3/kv/compaction", {"revision": str(revision), "physical": True})

    def snapshot(self, file: Path) -> Path:
        """What `etcdctl snapshot save` writes: the chunks of the stream, a checksum at the end."""
        lines = self.ask("/v3/maintenance/snapshot", {}).splitlines()
        file.write_bytes(
            b"".join(base64.b64decode(json.loads(line)["result"].get("blob", "")) for line in lines if line)
        )
        return file


def _text(key: str) -> str:
    return base64.b64encode(key.encode()).decode()


def is_here() -> bool:
    return shutil.which("etcd") is not None


@contextmanager
def running(directory: Path) -> Iterator[Etcd]:
    port, peer = _free_port(), _free_port()
    url, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    process = subprocess.Popen(
        [
            "etcd", "--data-dir", str(directory / "data"), "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}",
            "--log-level", "error", "--enable-v2=false",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _await_healthy(url, process)
        yield Etcd(url)
    finally:
        process.terminate()
        process.wait(20)


def _await_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while True:
        assert process.poll() is None and time.monotonic() < until, "etcd did not start"
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                if json.loads(answer.read()).get("health") in ("true", True):
                    return
        except OSError:
            pass
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
