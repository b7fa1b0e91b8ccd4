"""Purging inside sealed files: a file with the object in it is written anew under another name, without its bodies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kcp.base.values import frozen
from kcp.store import parquet
from kcp.store.archive import SEGMENTS, Segment
from kcp.store.columns import PURGED

_NAME = re.compile(r"(?:purged-(?P<times>\d+)-)?(?P<name>.+)")
_FLAGS, _BODY = parquet.COLUMNS.index("flags"), parquet.COLUMNS.index("body")


class Life(Protocol):
    """One incarnation: `live_rv` is its version that stays, 0 for none; `body` is what is left of the others."""

    @property
    def oid(self) -> int: ...

    @property
    def live_rv(self) -> int: ...

    @property
    def body(self) -> str: ...


class Tables(Protocol):
    def fetch(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]: ...


@frozen
class Rewritten:
    """One sealed file. `old` and `new` are as in `segments.uri`; `rvs` are the versions purged in it."""

    seg_id: int
    old: str
    new: str
    sha256: str
    rvs: tuple[int, ...]


@frozen
class Plan:
    """`read` are the files that were looked at, `files` those among them that had to be written anew."""

    read: tuple[str, ...] = ()
    files: tuple[Rewritten, ...] = ()

    @property
    def rvs(self) -> list[int]:
        return sorted({rv for file in self.files for rv in file.rvs})


def segments(tables: Tables) -> list[Segment]:
    """Those that have a file."""
    found = [Segment(*row) for row in tables.fetch(SEGMENTS.format(""))]
    return [segment for segment in found if segment.uri]


def rewrite(tables: Tables, folder: Path, lives: Sequence[Life]) -> Plan:
    """Write the new files, to the disk; nothing names them yet. Reads of the others only what their statistics ask for."""
    by_oid = {life.oid: life for life in lives}
    found, done = segments(tables), []
    for segment in found:
        oids = [oid for oid in by_oid if oid <= segment.last_rv]
        if oids and (rvs := _versions(segment.file(folder), by_oid, oids)):
            done.append(_again(segment, folder, by_oid, rvs))
    return Plan(tuple(segment.uri for segment in found), tuple(done))


def _versions(file: Path, lives: Mapping[int, Life], oids: Sequence[int]) -> frozenset[int]:
    """Revisions in the file that still have a body and are not the live one."""
    return frozenset(
        row[parquet.RV]
        for page in parquet.rows_where(file, "oid", oids)
        for row in page
        if row[_BODY] is not None
        and row[parquet.RV] != lives[row[parquet.OID]].live_rv
        and not row[_FLAGS] & PURGED
    )


def _again(segment: Segment, folder: Path, lives: Mapping[int, Life], rvs: frozenset[int]) -> Rewritten:
    def pages() -> Iterator[list[parquet.Row]]:
        for page in parquet.read(segment.file(folder)):
            yield [_without_body(row, lives) if row[parquet.RV] in rvs else row for row in page]

    name = renamed(segment.uri)
    written = parquet.write(folder / name, pages())
    return Rewritten(segment.number, segment.uri, name, written.sha256, tuple(sorted(rvs)))


def renamed(uri: str) -> str:
    """Another prefix than that of sealing, which clears away files of its own that nothing names."""
    found = _NAME.fullmatch(Path(uri).name)
    assert found is not None
    return f"purged-{int(found['times'] or 0) + 1}-{found['name']}"


def _without_body(row: parquet.Row, lives: Mapping[int, Life]) -> parquet.Row:
    values = list(row)
    values[_FLAGS] |= PURGED
    values[_BODY] = lives[row[parquet.OID]].body
    return tuple(values)


def remove(folder: Path, uris: Sequence[str]) -> None:
    """Delete sealed files that nothing names any more; those already gone are fine."""
    for uri in uris:
        (folder / Path(uri).name).unlink(missing_ok=True)
