"""Captures of watches, as kubectl prints them: several files, merged by revision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kcp.base.clock import SystemClock
from kcp.replay.importers.formats import Imported, detect, import_incident
from kcp.replay.importers.reading import Malformed
from kcp.store import check
from kcp.store.protocol import Key, Op
from kcp.store.reader import LogReader

Json = dict[str, Any]


def obj(kind: str, name: str, rv: int, created: str = "10:00:00", changed: str = "", **fields: Any) -> Json:
    metadata = {
        "name": name, "namespace": "default", "uid": f"u-{name}", "resourceVersion": str(rv),
        "creationTimestamp": f"2026-03-01T{created}Z",
        "managedFields": [{"manager": "kubelet", "operation": "Update", "time": f"2026-03-01T{changed or created}Z"}],
    }  # fmt: skip
    version = "apps/v1" if kind == "ReplicaSet" else "v1"
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def capture(path: Path, *told: tuple[str, Json], indent: int | None = 4) -> Path:
    path.write_text(
        "".join(json.dumps({"type": verb, "object": each}, indent=indent) + "\n" for verb, each in told)
    )
    return path


def load(tmp_path: Path, *files: Path, **options: Any) -> tuple[Imported, LogReader]:
    done = import_incident(files, str(tmp_path / "log"), clock=SystemClock(), **options)
    assert check.problems(tmp_path / "log") == []
    return done, LogReader(tmp_path / "log")


PODS = (
    ("ADDED", obj("Pod", "a", 90, "09:00:00", "09:30:00", status={"phase": "Running"})),
    ("ADDED", obj("Pod", "b", 80, "09:00:00", "09:10:00")),
    ("ADDED", obj("Pod", "c", 100)),
    ("MODIFIED", obj("Pod", "c", 104, changed="10:00:05", status={"phase": "Running"})),
    ("BOOKMARK", {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "105"}}),
    ("DELETED", obj("Pod", "a", 110, "09:00:00", "09:30:00")),
)
SETS = (
    ("ADDED", obj("ReplicaSet", "web", 95, "09:00:00", "09:50:00")),
    ("MODIFIED", obj("ReplicaSet", "web", 102, "09:00:00", "10:00:02")),
)


@pytest.mark.parametrize("indent", [None, 4], ids=["a line each", "as kubectl indents"])
def test_two_captures_are_one_history(tmp_path: Path, indent: int | None) -> None:
    pods = capture(tmp_path / "pods.json", *PODS, indent=indent)
    sets = capture(tmp_path / "sets.json", *SETS, indent=indent)
    assert detect(pods) == "watch"
    done, log = load(tmp_path, pods, sets)
    with log:
        events = list(log.events(after=0))
        assert [(e.rv, e.key.name, e.op) for e in events] == [
            (80, "b", Op.MODIFIED), (90, "a", Op.MODIFIED), (95, "web", Op.MODIFIED), (100, "c", Op.ADDED),
            (102, "web", Op.MODIFIED), (104, "c", Op.MODIFIED), (110, "a", Op.DELETED),
        ]  # fmt: skip
        assert log.get_at(Key("pods", "default", "a"), 109) is not None
        assert log.get_at(Key("pods", "default", "a"), 110) is None
    assert done.written.base_rv == 0, (
        "the one object of the second capture may have been written before our eyes"
    )


def test_the_base_is_what_was_there_when_it_began(tmp_path: Path) -> None:
    done, log = load(tmp_path, capture(tmp_path / "pods.json", *PODS))
    with log:
        assert done.written.base_rv == log.base_rv == 90
        assert sorted(record.key.name for record in log.base()) == ["a", "b"]


def test_times_and_managers_are_those_of_the_objects(tmp_path: Path) -> None:
    _, log = load(tmp_path, capture(tmp_path / "pods.json", *PODS))
    with log:
        events = {e.rv: e for e in log.events(after=0)}
    assert events[104].ts_us - events[100].ts_us == 5_000_000
    assert events[104].cause.actor.field_manager == "kubelet" and events[104].cause.actor.username == ""


def test_lists_are_a_base_too(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    items = [each for _, each in PODS[:3]]
    file.write_text(json.dumps({"kind": "List", "apiVersion": "v1", "items": items}, indent=4))
    done, log = load(tmp_path, file)
    with log:
        assert (done.written.base_rv, len(log.base())) == (100, 3)


def test_an_error_of_the_watch_and_a_cut_off_end_are_faults(tmp_path: Path) -> None:
    file = capture(tmp_path / "pods.json", *PODS, ("ERROR", {"kind": "Status", "message": "too old resource version"}), indent=None)  # fmt: skip
    with pytest.raises(
        Malformed, match=r"pods\.json:7: the watch ended with an error: too old resource version"
    ):
        load(tmp_path / "1", file)
    file.write_text(file.read_text() + '{"type": "MODIFIED", "object": {"ki')
    done, log = load(tmp_path, file, skip_bad=True)
    log.close()
    assert done.faults.count == 2 and "pods.json:8: no JSON" in done.faults.kept[1]


def test_custom_kinds_take_their_names_from_their_crd(tmp_path: Path) -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "oxen.example.com", "uid": "c", "resourceVersion": "1", "creationTimestamp": "2026-03-01T09:00:00Z"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"kind": "Ox", "plural": "oxen"}, "versions": [{"name": "v1", "storage": True}]},
    }  # fmt: skip
    ox = {
        "apiVersion": "example.com/v1",
        "kind": "Ox",
        "metadata": {"name": "bo", "uid": "o", "resourceVersion": "2"},
    }
    _, log = load(
        tmp_path,
        capture(tmp_path / "crds.json", ("ADDED", crd)),
        capture(tmp_path / "oxen.json", ("ADDED", ox)),
    )
    with log:
        assert [str(e.key) for e in log.events(after=0)][1] == "oxen.example.com/bo"
