"""The conformance behaviours of kubectl that need only an API server (rows `kubectl` of tests/conformance/scoreboard.csv)."""

from __future__ import annotations

import http.client
import json
import re
import selectors
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.scoreboard import rows
from tests.real.kubectl import Kubectl

pytestmark = pytest.mark.real
PROVED = {
    "[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info",
    "[sig-cli] Kubectl client Kubectl version should check is all data is printed",
    "[sig-cli] Kubectl client Proxy server should support --unix-socket=/path",
    "[sig-cli] Kubectl client Proxy server should support proxy with --port 0",
}
DEADLINE_S = 20.0


def test_the_board_and_this_file_agree() -> None:
    assert {row.name for row in rows() if (row.status, row.needs) == ("passing", "kubectl")} == PROVED


def test_cluster_info(kubectl: Kubectl) -> None:
    assert "Kubernetes control plane" in re.sub(r"\x1b\[[0-9;]*m", "", kubectl("cluster-info"))


def test_version(kubectl: Kubectl) -> None:
    found = json.loads(kubectl("version", "-o", "json"))
    for side in ("clientVersion", "serverVersion"):
        for field in ("major", "minor", "gitVersion", "goVersion", "platform", "compiler"):
            assert found[side][field], (side, field)
    assert found["serverVersion"]["gitVersion"].startswith("v1.36")


@contextmanager
def proxy(kubectl: Kubectl, *options: str) -> Iterator[str]:
    """`kubectl proxy` until the block ends; gives the line that it prints first."""
    command = [str(kubectl.program), "proxy", *options]
    with subprocess.Popen(command, env=kubectl.environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                assert selector.select(DEADLINE_S), "kubectl proxy prints nothing"
            yield process.stdout.readline()
        finally:
            process.terminate()


def versions(connection: http.client.HTTPConnection) -> list[str]:
    connection.request("GET", "/api/")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return list(answer["versions"])


def test_proxy_with_port_0(kubectl: Kubectl) -> None:
    with proxy(kubectl, "--port=0", "--disable-filter") as line:
        found = re.fullmatch(r"Starting to serve on 127\.0\.0\.1:(\d+)\n", line)
        assert found is not None, line
        assert versions(http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=DEADLINE_S)) == ["v1"]


def test_proxy_with_unix_socket(kubectl: Kubectl, tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    with proxy(kubectl, f"--unix-socket={path}") as line:
        assert line == f"Starting to serve on {path}\n"
        connection = http.client.HTTPConnection("localhost", timeout=DEADLINE_S)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(str(path))
        assert versions(connection) == ["v1"]
