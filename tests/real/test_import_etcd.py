"""A snapshot of a real etcd, with values as an API server stores them, becomes the history that etcd had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from kcp.base.clock import SystemClock
from kcp.machinery.codec.protobuf import encode_protobuf
from kcp.replay.importers.formats import Imported, detect, import_incident
from kcp.replay.importers.reading import Malformed
from kcp.store import check
from kcp.store.protocol import Key, Op
from kcp.store.reader import LogReader
from tests.real import etcd
from tests.real.etcd import Etcd

pytestmark = [pytest.mark.real, pytest.mark.skipif(not etcd.is_here(), reason="no etcd on PATH")]

Json = dict[str, Any]


def stored(kind: str, name: str, version: str = "v1", at: str = "10:00:00", **fields: Any) -> bytes:
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": f"u-{name}",
        "creationTimestamp": f"2026-03-01T{at}Z",
    }
    return encode_protobuf({"apiVersion": version, "kind": kind, "metadata": metadata, **fields})


@attrs.frozen
class Filled:
    file: Path
    revisions: dict[str, int]


def _fill(server: Etcd) -> dict[str, int]:
    pod = "/registry/pods/default/a"
    did = {
        "old": server.put("/registry/configmaps/default/old", stored("ConfigMap", "old", data={"n": "0"})),
        "old again": server.put("/registry/configmaps/default/old", stored("ConfigMap", "old", data={"n": "1"})),
        "deployment": server.put("/registry/deployments/default/web", stored("Deployment", "web", "apps/v1", spec={"replicas": 2})),
        "born": server.put(pod, stored("Pod", "a", spec={"containers": [], "nodeName": "n1"})),
        "changed": server.put(pod, stored("Pod", "a", spec={"containers": [], "nodeName": "n2"})),
        "gone": server.delete(pod),
        "born again": server.put(pod, stored("Pod", "a", at="10:00:09", spec={"containers": []})),
        "service": server.put("/registry/services/specs/default/web", stored("Service", "web", spec={"ports": [{"port": 80}]})),
        "ranges": server.put("/registry/ranges/serviceips", b"k8s\0something"),
        "event 1": server.put("/registry/events/default/e1", stored("Event", "e1", reason="Pulled")),
        "event 2": server.put("/registry/events/default/e2", stored("Event", "e2", reason="Started")),
        "events expire": server.delete("/registry/events/default/e1", "/registry/events/default/e3"),
    }  # fmt: skip
    for number in range(200):
        did[f"many {number}"] = server.put(f"/registry/configmaps/default/m{number}", stored("ConfigMap", f"m{number}", data={"k": "x" * 500}))  # fmt: skip
    return did


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    directory = tmp_path_factory.mktemp("etcd")
    with etcd.running(directory) as server:
        did = _fill(server)
        server.compact(did["old again"])
        yield Filled(server.snapshot(directory / "snapshot.db"), did)


def load(tmp_path: Path, file: Path) -> tuple[Imported, LogReader]:
    done = import_incident([file], str(tmp_path / "log"), clock=SystemClock())
    assert check.problems(tmp_path / "log") == []
    return done, LogReader(tmp_path / "log")


def test_revisions_creations_and_tombstones(filled: Filled, tmp_path: Path) -> None:
    assert detect(filled.file) == "etcd"
    did = filled.revisions
    done, log = load(tmp_path, filled.file)
    with log:
        told = [
            (e.rv, e.op, e.record.oid) for e in log.events(after=0) if e.key == Key("pods", "default", "a")
        ]
        assert told == [
            (did["born"], Op.ADDED, did["born"]), (did["changed"], Op.MODIFIED, did["born"]),
            (did["gone"], Op.DELETED, did["born"]), (did["born again"], Op.ADDED, did["born again"]),
        ]  # fmt: skip
        assert len(log.list_at("configmaps", log.last_rv)) == 201
        assert {e.key.resource for e in log.events(after=0)} == {
            "pods",
            "configmaps",
            "deployments.apps",
            "services",
            "events",
        }
    assert done.notes == ["1 revisions of keys that are no objects of an API"]


def test_what_the_compaction_left_is_the_base(filled: Filled, tmp_path: Path) -> None:
    did = filled.revisions
    _, log = load(tmp_path, filled.file)
    with log:
        assert log.base_rv == did["old again"]
        (old,) = log.base()
        assert (old.rv, old.oid, old.value["data"]) == (did["old again"], did["old"], {"n": "1"})


def test_keys_that_expire_together_go_one_after_the_other(filled: Filled, tmp_path: Path) -> None:
    done, log = load(tmp_path, filled.file)
    with log:
        gone = [e for e in log.events(after=0) if e.key.resource == "events" and e.op is Op.DELETED]
    assert [e.key.name for e in gone] == ["e1", "e2"] and gone[0].rv == filled.revisions["events expire"]
    assert done.written.moved == 1


def test_a_snapshot_that_is_cut_off_says_so(filled: Filled, tmp_path: Path) -> None:
    whole = filled.file.read_bytes()
    cut = tmp_path / "cut.db"
    cut.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(Malformed, match=r"cut\.db: (cut off|damaged)"):
        load(tmp_path, cut)
