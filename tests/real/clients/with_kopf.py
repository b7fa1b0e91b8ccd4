"""kopf, unmodified, running the operator of examples/kopf_checksums.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.daemon import ROOT, Daemon, environment, eventually
from tests.real.https import Api

OPERATOR = ROOT / "examples" / "kopf_checksums.py"
CHECKSUM = "example.com/checksum"


@pytest.fixture
def operator(daemon: Daemon, namespace: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", namespace, str(OPERATOR)]
    log = daemon.home / f"{namespace}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            env={**environment(daemon.home), "KUBECONFIG": str(daemon.kubeconfig)},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    yield process
    print(log.read_text())
    process.terminate()
    assert process.wait(20) == 0


def path(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps" + (f"/{name}" if name else "")


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"checksum": "yes"}}, "data": data}


def checksum(api: Api, namespace: str, name: str) -> str:
    answer = api.request("GET", path(namespace, name))
    found = answer.json() if answer.status == 200 else {"metadata": {}}
    return str((found["metadata"].get("annotations") or {}).get(CHECKSUM, ""))


def test_the_operator_handles_create_update_and_delete(api: Api, namespace: str, operator: Any) -> None:
    assert api.request("POST", path(namespace), config_map("a", x="1")).status == 201
    assert operator.poll() is None
    first = eventually(lambda: checksum(api, namespace, "a") or None, "the checksum of a")
    merge = "application/merge-patch+json"
    assert api.request("PATCH", path(namespace, "a"), {"data": {"x": "2"}}, content_type=merge).status == 200
    eventually(lambda: checksum(api, namespace, "a") not in ("", first), "another checksum")
    held = api.get(path(namespace, "a"))["metadata"]["finalizers"]
    assert held == ["kopf.zalando.org/KopfFinalizerMarker"]
    assert api.request("DELETE", path(namespace, "a")).status == 200
    eventually(lambda: api.request("GET", path(namespace, "a")).status == 404, "a is let go")
    assert api.get(path(namespace, "farewells"))["data"] == {"a": "gone"}


def test_the_operator_finds_what_was_there_before_it(api: Api, namespace: str, request: Any) -> None:
    assert api.request("POST", path(namespace), config_map("old", x="1")).status == 201
    assert api.request("POST", path(namespace), {"metadata": {"name": "other"}}).status == 201
    request.getfixturevalue("operator")
    eventually(lambda: checksum(api, namespace, "old") or None, "the checksum of old")
    assert checksum(api, namespace, "other") == ""

    def noted() -> bool:
        events = api.get(f"/api/v1/namespaces/{namespace}/events")["items"]
        return any(
            event["reason"] == "Checked" and event["involvedObject"]["name"] == "old" for event in events
        )

    eventually(noted, "the event about old")
