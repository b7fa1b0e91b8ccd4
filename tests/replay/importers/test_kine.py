"""kine's table: revisions, creations, removals and the compaction, with values as API servers store them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest

from kcp.base.clock import SystemClock
from kcp.machinery.codec.protobuf import encode_protobuf
from kcp.replay.importers.formats import Imported, detect, import_incident
from kcp.replay.importers.reading import Malformed
from kcp.store import check
from kcp.store.protocol import Op
from kcp.store.reader import LogReader
from kcp.store.redaction import is_untold

Json = dict[str, Any]
TABLE = """
CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name INTEGER, created INTEGER, deleted INTEGER,
  create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB)
"""


def stored(kind: str, name: str, version: str = "v1", at: str = "10:00:00", namespace: str = "default", **fields: Any) -> Json:  # fmt: skip
    metadata = {"name": name, "uid": f"u-{name}", "creationTimestamp": f"2026-03-01T{at}Z", **({"namespace": namespace} if namespace else {})}  # fmt: skip
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def database(path: Path, *rows: tuple[int, str, int, int, int, int, bytes]) -> Path:
    """(id, name, created, deleted, create_revision, prev_revision, value)"""
    connection = sqlite3.connect(path)
    connection.execute(TABLE)
    connection.executemany(
        "INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease, value) VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
        rows,
    )
    connection.commit()
    connection.close()
    return path


def load(tmp_path: Path, file: Path, **options: Any) -> tuple[Imported, LogReader]:
    done = import_incident([file], str(tmp_path / "log"), clock=SystemClock(), **options)
    assert check.problems(tmp_path / "log") == []
    return done, LogReader(tmp_path / "log")


POD = encode_protobuf(stored("Pod", "a", spec={"nodeName": "n1"}))
MOVED = encode_protobuf(stored("Pod", "a", spec={"nodeName": "n2"}))
WIDGET = orjson.dumps(stored("Widget", "w", "example.com/v1"))


def test_rows_become_the_history(tmp_path: Path) -> None:
    file = database(
        tmp_path / "state.db",
        (1, "compact_rev_key", 1, 0, 0, 4, b""),
        (3, "/registry/namespaces/default", 1, 0, 0, 0, encode_protobuf(stored("Namespace", "default", namespace=""))),
        (5, "/registry/pods/default/a", 1, 0, 0, 0, POD),
        (6, "gap-6", 1, 1, 0, 0, b""),
        (7, "/registry/pods/default/a", 0, 0, 5, 5, MOVED),
        (8, "/registry/example.com/widgets/default/w", 1, 0, 0, 0, WIDGET),
        (9, "/registry/pods/default/a", 0, 1, 5, 7, b""),
        (10, "/registry/pods/default/a", 1, 0, 0, 9, POD),
        (11, "/registry/ranges/serviceips", 1, 0, 0, 0, b"k8s\0rest"),
    )  # fmt: skip
    assert detect(file) == "kine"
    done, log = load(tmp_path, file)
    with log:
        assert [(e.rv, str(e.key), e.op, e.record.oid) for e in log.events(after=0)] == [
            (3, "namespaces/default", Op.ADDED, 3), (5, "pods/default/a", Op.ADDED, 5),
            (7, "pods/default/a", Op.MODIFIED, 5), (8, "widgets.example.com/default/w", Op.ADDED, 8),
            (9, "pods/default/a", Op.DELETED, 5), (10, "pods/default/a", Op.ADDED, 10),
        ]  # fmt: skip
        assert (log.base_rv, [str(r.key) for r in log.base()]) == (4, ["namespaces/default"])
    assert done.notes == ["1 revisions of keys that are no objects of an API"]


def test_what_was_created_before_the_compaction_keeps_that_revision(tmp_path: Path) -> None:
    file = database(tmp_path / "state.db", (20, "/registry/pods/default/a", 0, 0, 5, 7, MOVED))
    _, log = load(tmp_path, file)
    with log:
        (event,) = log.events(after=0)
        assert (event.op, event.record.oid) == (Op.MODIFIED, 5)


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("/registry/secrets/default/s", b"k8s:enc:aescbc:v1:key1:x", "secrets/default/s"),
        ("/registry/services/specs/default/web", b"k8s:enc:x", "services/default/web"),
        ("/registry/minions/n1", b"k8s:enc:x", "nodes/n1"),
        ("/registry/example.com/widgets/default/w", b"k8s:enc:x", "widgets.example.com/default/w"),
        ("/registry/deployments/default/web", b"k8s:enc:x", "deployments.apps/default/web"),
    ],
)
def test_encrypted_values_leave_the_key(key: str, value: bytes, place: str, tmp_path: Path) -> None:
    done, log = load(tmp_path, database(tmp_path / "state.db", (5, key, 1, 0, 0, 0, value)))
    with log:
        (event,) = log.events(after=0)
        assert (str(event.key), event.op) == (place, Op.ADDED) and is_untold(event.record.value)
    assert done.written.untold == 1 and done.notes == ["1 values without a readable body: encrypted"]


def test_a_value_that_is_nothing_names_its_row(tmp_path: Path) -> None:
    file = database(
        tmp_path / "state.db",
        (5, "/registry/pods/default/a", 1, 0, 0, 0, b"\x01\x02"),
        (6, "/registry/pods/default/a", 0, 0, 5, 5, POD),
    )
    with pytest.raises(Malformed, match=r"state\.db: row 5: neither protobuf nor JSON of an object"):
        load(tmp_path / "1", file)
    done, log = load(tmp_path, file, skip_bad=True)
    log.close()
    assert done.faults.count == 1
