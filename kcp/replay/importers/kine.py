"""kine's table in SQLite, where k3s and others keep what would be in etcd: one row a revision.

    id = revision · name = key · created · deleted · create_revision · prev_revision · lease · value · old_value

kine fills holes with rows named `gap-N` and notes compactions under `compact_rev_key`; rows that were superseded before the
last compaction are gone, the newest one of each living key stays. The file may be in use: it is read in one transaction.
Source: k3s-io/kine pkg/drivers/generic/generic.go, pkg/logstructured/sqllog/sql.go.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from kcp.replay.importers.kinds import Kinds
from kcp.replay.importers.reading import Faults, Malformed
from kcp.replay.importers.registry import Registry
from kcp.replay.importers.source import Told
from kcp.store.foreign import Change

COMPACTED = "compact_rev_key"


def read(files: Sequence[Path], faults: Faults, kinds: Kinds) -> Told:
    registry = Registry(kinds, faults)
    changes: list[Change] = []
    base = 0
    for file in files:
        connection = sqlite3.connect(
            f"file:{file.resolve().as_posix().replace('?', '%3f')}?mode=ro", uri=True
        )
        try:
            base = max(base, _read(connection, file, registry, changes))
        except sqlite3.DatabaseError as error:
            raise Malformed(f"{file}: no kine database, or damaged: {error}") from None
        finally:
            connection.close()
    return Told(changes, base_rv=base, notes=registry.notes())


def _read(connection: sqlite3.Connection, file: Path, registry: Registry, changes: list[Change]) -> int:
    """Appends to `changes`; gives the revision of the last compaction, which is the `prev_revision` of its key."""
    connection.execute("BEGIN")
    found = connection.execute(
        "SELECT id, CAST(name AS BLOB), created, deleted, create_revision, CAST(value AS BLOB) FROM kine ORDER BY id"
    )
    for rv, name, created, deleted, create_revision, value in found:
        if name is None or not name.startswith(b"/"):
            continue
        if deleted:
            change = registry.delete(name, rv)
        else:
            made = rv if created or not create_revision else create_revision
            change = registry.put(f"{file}: row {rv}", name, value or b"", rv, made)
        if change is not None:
            changes.append(change)
    (base,) = connection.execute(
        "SELECT coalesce(max(prev_revision), 0) FROM kine WHERE name = ?", (COMPACTED,)
    ).fetchone()
    return int(base)
