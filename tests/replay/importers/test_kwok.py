"""KWOK recordings: objects at the start, then patches after so many nanoseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kcp.base.clock import SystemClock
from kcp.replay.importers.formats import Imported, detect, import_incident
from kcp.replay.importers.reading import Malformed
from kcp.store import check
from kcp.store.protocol import Key, Op
from kcp.store.reader import LogReader

NODE = """\
apiVersion: v1
kind: Node
metadata:
  name: n1
  uid: u-n1
status:
  conditions:
  - {type: Ready, status: "True"}
  - {type: DiskPressure, status: "False"}
"""
PATCH = """\
apiVersion: action.kwok.x-k8s.io/v1alpha1
kind: ResourcePatch
resource: {{group: "{group}", version: v1, resource: {resource}}}
target: {{name: {name}, namespace: "{namespace}"}}
durationNanosecond: {after}
method: {method}
"""


def patch(resource: str, name: str, after_s: float, method: str, template: str = "", group: str = "", namespace: str = "") -> str:  # fmt: skip
    text = PATCH.format(
        resource=resource,
        name=name,
        after=int(after_s * 1e9),
        method=method,
        group=group,
        namespace=namespace,
    )
    return text + (f"template: {template}\n" if template else "")


RECORDING = "---\n".join(
    [
        NODE,
        patch("pods", "a", 1, "create", '{metadata: {name: a, namespace: default, uid: u-a}, spec: {nodeName: n1}}', namespace="default"),
        patch("nodes", "n1", 2.5, "patch", '{status: {conditions: [{type: Ready, status: "False"}]}}'),
        patch("pods", "a", 4, "delete", namespace="default"),
    ]
)  # fmt: skip


def load(tmp_path: Path, text: str, **options: Any) -> tuple[Imported, LogReader]:
    file = tmp_path / "recording.yaml"
    file.write_text(text)
    assert detect(file) == "kwok"
    done = import_incident([file], str(tmp_path / "log"), clock=SystemClock(), **options)
    assert check.problems(tmp_path / "log") == []
    return done, LogReader(tmp_path / "log")


def test_patches_are_played_from_the_objects_at_the_start(tmp_path: Path) -> None:
    start = 1_767_225_600_000_000
    _, log = load(tmp_path, RECORDING, start_us=start)
    with log:
        events = list(log.events(after=0))
        assert [(e.rv, str(e.key), e.op) for e in events] == [
            (1, "nodes/n1", Op.MODIFIED), (2, "pods/default/a", Op.ADDED), (3, "nodes/n1", Op.MODIFIED),
            (4, "pods/default/a", Op.DELETED),
        ]  # fmt: skip
        assert [e.ts_us - start for e in events] == [0, 1_000_000, 2_500_000, 4_000_000]
        node = log.get_at(Key("nodes", "", "n1"), 3)
    assert node is not None
    conditions = {c["type"]: c["status"] for c in node.value["status"]["conditions"]}
    assert conditions == {"Ready": "False", "DiskPressure": "False"}, "the patch is a strategic one"


def test_the_same_recording_gives_the_same_log(tmp_path: Path) -> None:
    text = RECORDING.replace("  uid: u-n1\n", "").replace(", uid: u-a", "")
    sums = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        done, log = load(tmp_path / name, text)
        log.close()
        sums.add(done.written.checksum)
    assert len(sums) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (patch("pods", "x", 1, "patch", "{spec: {}}", namespace="default"), r"yaml:11: it patches pods/default/x, which nothing before it made"),
        (patch("pods", "x", 1, "replace", "{}", namespace="default"), r"yaml:11: a ResourcePatch with method 'replace'"),
        (patch("pods", "x", 1, "create", "12", namespace="default"), r"yaml:11: a ResourcePatch whose template is no object"),
        ("apiVersion: [\n", r"yaml:11: error converting YAML to JSON: yaml: line 1"),
    ],
)  # fmt: skip
def test_faults_name_the_line_of_their_document(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    with pytest.raises(Malformed, match=reason):
        load(tmp_path / "1", NODE + "---\n" + text)
    done, log = load(tmp_path, NODE + "---\n" + text, skip_bad=True)
    log.close()
    assert (done.written.events, done.faults.count) == (1, 1)
