"""Purging: what the past versions of one object said goes; that they were, when and by whom stays.

    purge(url, key, clock=clock, who="root", why="leaked")

The one act that changes history, so it leaves a mark: a row `purge` in `inputs` says which object, who, why and when.
A purged version keeps its revision, time, actor and cause; its body only says which object it was, and that it was purged.
Copies of it in decisions, inputs, facts and sealed files go with it. Backups and exports made before still have it.

On SQLite kcp must be stopped. On PostgreSQL daemons wait meanwhile; they hold the live state only.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson

from kcp.base.clock import Clock, microseconds
from kcp.base.values import frozen
from kcp.machinery.document import normal
from kcp.store import schema, sealed_purge
from kcp.store.archive import FOLDER, PLACE
from kcp.store.columns import FACTS, PURGED
from kcp.store.open import is_postgres, lock_existing, sqlite_path
from kcp.store.protocol import Key, StoreError
from kcp.store.redaction import blank, blank_inside
from kcp.store.source import plain_json
from kcp.store.sqlite import connect

MARK = "purge"
"""Kind of the row in `inputs`."""


class StillAlive(StoreError):
    """Raised when the object exists and its past alone was not asked for."""


@frozen
class Purged:
    """`versions` were purged, `sealed` of them in files; `live_rv` is the version that stays, 0 when none lives."""

    versions: int
    sealed: int = 0
    live_rv: int = 0


@frozen
class Incarnation:
    """One life of the object. `live_rv` is its newest event while it lives, else 0."""

    oid: int
    live_rv: int
    body: str
    """What is left of each of its versions."""


class Editor(Protocol):
    """One transaction that may write, with `?` for arguments on either engine."""

    mentions: str
    """Whether `{column}` has the text that its only argument gives."""

    def fetch(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]: ...

    def run(self, sql: str, rows: Sequence[Sequence[Any]]) -> object: ...

    def json(self, value: Any) -> str:
        """For a JSON column of `decisions` or `inputs`."""
        ...


class SqliteEditor:
    mentions = "instr({column}, ?)"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def fetch(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, arguments).fetchall()

    def run(self, sql: str, rows: Sequence[Sequence[Any]]) -> object:
        return self._connection.executemany(sql, rows)

    def json(self, value: Any) -> str:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def purge(
    url_or_path: str | Path, key: Key, *, clock: Clock, who: str, why: str, history_only: bool = False
) -> Purged:
    """Purge every past version of an object; `history_only` lets a live one stay, with its newest version.

    Raises StillAlive, Locked while kcp runs on SQLite, StoreError when there is nothing to purge.
    """
    told = {"key": str(key), "who": who, "why": why, "at_us": microseconds(clock.now())}
    if is_postgres(url_or_path):
        return _purge_postgres(str(url_or_path), key, told, history_only)
    path = sqlite_path(url_or_path)
    release = lock_existing(path)
    try:
        connection = connect(path)
        try:
            schema.check(connection, path)
            return _purge_file(connection, path, key, told, history_only)
        except sqlite3.Error as error:
            raise StoreError(f"cannot purge {path}: {error}") from error
        finally:
            connection.close()
    finally:
        release()


def _purge_file(
    connection: sqlite3.Connection, path: Path, key: Key, told: dict[str, Any], history_only: bool
) -> Purged:
    editor = SqliteEditor(connection)
    connection.execute("PRAGMA secure_delete=ON")
    folder = folder_of(editor) or path.parent / FOLDER
    with _sealed_files(editor, folder, key, history_only) as sealed:
        connection.execute("BEGIN IMMEDIATE")
        done = _purge_rows(editor, key, told, history_only, sealed)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return done


def _purge_postgres(url: str, key: Key, told: dict[str, Any], history_only: bool) -> Purged:
    """The files are written before the head row is locked, since that may take a while."""
    from kcp.store.postgres_reader import PostgresReader
    from kcp.store.postgres_transfer import PostgresEditor

    with PostgresReader(url) as reader:
        looking = PostgresEditor(reader)
        folder = folder_of(looking) or Path(FOLDER)
        with (
            _sealed_files(looking, folder, key, history_only) as sealed,
            PostgresReader(url, writing=True) as log,
        ):
            return _purge_rows(PostgresEditor(log), key, told, history_only, sealed)


def folder_of(editor: Editor) -> Path | None:
    """Where the sealed files are, when the log says so."""
    found = editor.fetch("SELECT value FROM about WHERE key = ?", PLACE)
    return Path(found[0][0]) if found else None


@contextlib.contextmanager
def _sealed_files(editor: Editor, folder: Path, key: Key, history_only: bool) -> Iterator[sealed_purge.Plan]:
    """New files for the caller's transaction to name; when it has, the old ones go, else the new ones.

    A purge that was killed in between is finished first: its mark tells which files it replaced.
    """
    kept = {Path(segment.uri).name for segment in sealed_purge.segments(editor)}
    for (payload,) in editor.fetch(
        f"SELECT payload FROM inputs WHERE kind = '{MARK}' ORDER BY rv_after, seq"
    ):
        replaced = plain_json(payload).get("files", [])
        sealed_purge.remove(folder, [uri for uri in replaced if Path(uri).name not in kept])
    plan = sealed_purge.rewrite(editor, folder, _incarnations(editor, key, history_only))
    try:
        yield plan
    except BaseException:
        sealed_purge.remove(folder, [file.new for file in plan.files])
        raise
    sealed_purge.remove(folder, [file.old for file in plan.files])


def _purge_rows(
    editor: Editor,
    key: Key,
    told: dict[str, Any],
    history_only: bool,
    sealed: sealed_purge.Plan,
) -> Purged:
    """Inside the caller's transaction."""
    lives = _incarnations(editor, key, history_only)
    hot = [(life, rv) for life in lives for rv in _versions(editor, life)]
    purged = sorted({rv for _, rv in hot} | set(sealed.rvs))
    if not purged:
        raise StoreError(f"there is no past version of {key}")
    editor.run(
        f"UPDATE events SET body = ?, body_raw = NULL, flags = flags | {PURGED} WHERE rv = ?",
        [(life.body, rv) for life, rv in hot],
    )
    _swap(editor, sealed)
    _purge_copies(editor, key, frozenset(purged))
    for life in lives:
        _purge_facts(editor, life)
    _leave_mark(editor, {**told, "rows": len(purged), "files": [file.old for file in sealed.files]})
    return Purged(len(purged), len(sealed.rvs), max(life.live_rv for life in lives))


def _swap(editor: Editor, sealed: sealed_purge.Plan) -> None:
    """Raises StoreError when other files hold the sealed ranges by now than those that were read."""
    if tuple(segment.uri for segment in sealed_purge.segments(editor)) != sealed.read:
        raise StoreError("the log was sealed meanwhile: nothing was purged, try again")
    editor.run(
        "UPDATE segments SET uri = ?, sha256 = ? WHERE seg_id = ?",
        [(file.new, file.sha256, file.seg_id) for file in sealed.files],
    )


def _incarnations(editor: Editor, key: Key, history_only: bool) -> list[Incarnation]:
    """Every life of the name. Raises StillAlive, or StoreError when the log does not know it."""
    found = editor.fetch(
        "SELECT o.oid, o.rv, o.delete_rv, o.uid, k.kind, k.grp, k.version FROM objects o"
        " JOIN kinds k ON k.kind_id = o.kind_id WHERE k.plural = ? AND k.grp = ? AND o.ns = ? AND o.name = ? ORDER BY o.oid",
        *_plural_and_group(key), key.namespace, key.name,
    )  # fmt: skip
    if not found:
        raise StoreError(f"there is no past version of {key}")
    lives = []
    for oid, rv, delete_rv, uid, kind, grp, version in found:
        if delete_rv is None and not history_only:
            raise StillAlive(f"{key} is alive: delete it first, or purge its past alone (--history-only)")
        body = normal(blank(key, kind, grp, version, uid)).decode()
        lives.append(Incarnation(oid, rv if delete_rv is None else 0, body))
    return lives


def _versions(editor: Editor, life: Incarnation) -> list[int]:
    """Its versions in the hot table that still have a body and are not the live one."""
    found = editor.fetch(
        "SELECT rv FROM events WHERE oid = ? AND rv <> ? AND (body IS NOT NULL OR body_raw IS NOT NULL)"
        f" AND flags & {PURGED} = 0 ORDER BY rv",
        life.oid, life.live_rv,
    )  # fmt: skip
    return [rv for (rv,) in found]


_DOCUMENTS = (
    ("decisions", "effects", ("decision_id",)),
    ("decisions", "memo", ("decision_id",)),
    ("inputs", "payload", ("rv_after", "seq")),
)


def _purge_copies(editor: Editor, key: Key, revisions: frozenset[int]) -> None:
    """Versions of the object that decisions and inputs carry become blank, and what effects would have written."""
    ((kind,),) = editor.fetch("SELECT kind FROM kinds WHERE plural = ? AND grp = ?", *_plural_and_group(key))
    for table, column, places in _DOCUMENTS:
        names = ", ".join(places)
        found = editor.fetch(
            f"SELECT {names}, {column} FROM {table} WHERE {editor.mentions.format(column=column)} ORDER BY {names}",
            f'"{key.name}"',
        )
        changed = []
        for *place, text in found:
            old = plain_json(text)
            new = blank_inside(old, kind, key, revisions)
            if new != old:
                changed.append((editor.json(new), *place))
        where = " AND ".join(f"{name} = ?" for name in places)
        editor.run(f"UPDATE {table} SET {column} = ? WHERE {where}", changed)


def _plural_and_group(key: Key) -> tuple[str, str]:
    plural, _, group = key.resource.partition(".")
    return plural, group


def _purge_facts(editor: Editor, life: Incarnation) -> None:
    """Facts of a past life go; those of a live one are said to be of its newest version."""
    for table in FACTS:
        if life.live_rv:
            newest = f"(SELECT max(f.rv) FROM {table} f WHERE f.oid = ?)"
            editor.run(f"DELETE FROM {table} WHERE oid = ? AND rv < {newest}", [(life.oid, life.oid)])
            editor.run(f"UPDATE {table} SET rv = ? WHERE oid = ?", [(life.live_rv, life.oid)])
        else:
            editor.run(f"DELETE FROM {table} WHERE oid = ?", [(life.oid,)])


def _leave_mark(editor: Editor, told: dict[str, Any]) -> None:
    ((rv,),) = editor.fetch("SELECT rv FROM head WHERE id = 1")
    ((seq,),) = editor.fetch("SELECT coalesce(max(seq), 0) FROM inputs WHERE rv_after = ?", rv)
    editor.run(
        f"INSERT INTO inputs (rv_after, seq, kind, payload) VALUES (?, ?, '{MARK}', ?)",
        [(rv, seq + 1, editor.json(told))],
    )
