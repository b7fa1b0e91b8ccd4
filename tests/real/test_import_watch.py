"""What a real kubectl captures of a real daemon imports to the objects that the daemon had."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kcp.base.clock import SystemClock
from kcp.replay.importers.formats import detect, import_incident
from kcp.store import check
from kcp.store.protocol import Key, Op
from kcp.store.reader import LogReader
from tests.real.daemon import eventually
from tests.real.kubectl import Kubectl

pytestmark = pytest.mark.real


def test_a_capture_of_kubectl(kubectl: Kubectl, namespace: str, tmp_path: Path) -> None:
    kubectl("create", "configmap", "there", "--from-literal=n=0")
    kubectl("create", "configmap", "already", "--from-literal=n=0")
    file = tmp_path / "configmaps.json"
    command = [
        str(kubectl.program),
        "-n",
        namespace,
        "get",
        "configmaps",
        "-o",
        "json",
        "--watch",
        "--output-watch-events",
    ]
    with file.open("wb") as output:
        watching = subprocess.Popen(
            command, env=kubectl.environment, stdout=output, stderr=subprocess.DEVNULL
        )
        try:
            eventually(lambda: b'"there"' in file.read_bytes(), "the watch began")
            kubectl("patch", "configmap", "there", "--type=merge", "-p", '{"data": {"n": "1"}}')
            kubectl("create", "configmap", "new", "--from-literal=n=0")
            kubectl("delete", "configmap", "already")
            eventually(lambda: b"DELETED" in file.read_bytes(), "the watch saw the last change")
        finally:
            watching.terminate()
            watching.wait(20)
    assert detect(file) == "watch"
    now = {
        item["metadata"]["name"]: item
        for item in json.loads(kubectl("get", "configmaps", "-o", "json", "--show-managed-fields"))["items"]
    }
    done = import_incident([file], str(tmp_path / "log"), clock=SystemClock(), skip_bad=True)
    assert done.faults.count <= 1, "the last document may be cut off"
    assert check.problems(tmp_path / "log") == []
    with LogReader(tmp_path / "log") as log:
        found = {record.key.name: record.value for record in log.list_at("configmaps", log.last_rv)}
        changes = [
            (e.key.name, e.op) for e in log.events(after=0) if e.key == Key("configmaps", namespace, "there")
        ]
    assert found == now
    assert changes[-1] == ("there", Op.MODIFIED) and len(changes) == 2
