"""The form of a sealed range: a parquet file of event rows, sorted by object, then revision. Needs the extra `kcp[archive]`.

Row groups carry the smallest and largest `oid` and `rv`, pages a checksum. So one object or one moment is read without
the rest of the file, and a damaged page is noticed also then. `body` is the normal form on both engines.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from kcp.store.protocol import StoreError

Row = tuple[Any, ...]
Page = Sequence[Sequence[Any]]

ROW_GROUP = 8192

COLUMNS = (
    "rv", "oid", "op", "prev_rv", "ts_us", "actor_id", "decision_id", "request_id", "flags", "body",
)  # fmt: skip
RV, OID, PREV_RV = COLUMNS.index("rv"), COLUMNS.index("oid"), COLUMNS.index("prev_rv")


MISSING = "sealed events are parquet files: pip install 'kcp-controlplane[archive]'"


def library() -> Any:
    """pyarrow, or StoreError with what to install. It costs 30 MiB: asked for when there is a file to read or write."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise StoreError(MISSING) from error
    return pyarrow


def installed() -> bool:
    """Without loading it."""
    return importlib.util.find_spec("pyarrow") is not None


def require() -> None:
    """Raises StoreError when pyarrow is not installed."""
    if not installed():
        raise StoreError(MISSING)


@attrs.define
class Fingerprint:
    """Number and SHA-256 of rows in their order."""

    count: int = 0
    _digest: Any = attrs.field(factory=hashlib.sha256)

    def add(self, page: Page) -> None:
        self.count += len(page)
        for row in page:
            self._digest.update(repr(tuple(row)).encode())

    @property
    def sha256(self) -> str:
        return str(self._digest.hexdigest())


def write(file: Path, pages: Iterable[Page]) -> Fingerprint:
    """Make the file out of rows in order; under its name only when it is whole, on the disk, and reads as it was written.

    Raises StoreError when it does not: then there is no file.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    try:
        written = _write(partial, pages)
        _sync(partial)
        if fingerprint(partial) != (written.count, written.sha256):
            raise StoreError(f"{file} does not read as it was written: nothing was moved")
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)
    _sync(file.parent)
    return written


def _write(partial: Path, pages: Iterable[Page]) -> Fingerprint:
    arrow = library()
    types = dict.fromkeys(COLUMNS, arrow.int64()) | {
        "op": arrow.int8(), "flags": arrow.int16(), "request_id": arrow.string(), "body": arrow.large_string(),
    }  # fmt: skip
    layout = arrow.schema(list(types.items()))
    written = Fingerprint()
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    with arrow.parquet.ParquetWriter(
        partial, layout, compression="zstd", compression_level=3, write_page_checksum=True
    ) as writer:
        for page in _groups(pages):
            written.add(page)
            columns = [list(column) for column in zip(*page, strict=True)]
            writer.write_table(arrow.table(columns, schema=layout), row_group_size=ROW_GROUP)
    return written


def _groups(pages: Iterable[Page]) -> Iterator[list[Sequence[Any]]]:
    waiting: list[Sequence[Any]] = []
    for page in pages:
        waiting.extend(page)
        while len(waiting) >= ROW_GROUP:
            yield waiting[:ROW_GROUP]
            waiting = waiting[ROW_GROUP:]
    if waiting:
        yield waiting


def _sync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(file: Path) -> tuple[int, str]:
    found = Fingerprint()
    for page in read(file):
        found.add(page)
    return found.count, found.sha256


def read(file: Path) -> Iterator[list[Row]]:
    """All rows. Raises StoreError when the file is damaged or missing."""
    with Opened(file) as opened:
        for group in range(opened.groups):
            yield opened.rows(group)


class Opened:
    """One file, for reading parts of it. Whatever goes wrong with it is a StoreError that names it."""

    def __init__(self, file: Path) -> None:
        arrow = library()
        self._arrow, self._path = arrow, file
        try:
            self._file = arrow.parquet.ParquetFile(file, page_checksum_verification=True)
        except (OSError, arrow.ArrowException) as error:
            raise self._unreadable(error) from error
        self.groups: int = self._file.metadata.num_row_groups
        self.count: int = self._file.metadata.num_rows

    def _unreadable(self, error: Exception) -> StoreError:
        return StoreError(f"the sealed events in {self._path} cannot be read: {error}")

    def rows(self, group: int, places: Any = None) -> list[Row]:
        """The rows of one row group; only those at `places` when they are given."""
        try:
            table = self._file.read_row_group(group, columns=list(COLUMNS), use_threads=False)
            if places is not None:
                table = table.take(self._arrow.array(places))
            return list(zip(*[column.to_pylist() for column in table.columns], strict=True))
        except (OSError, self._arrow.ArrowException) as error:
            raise self._unreadable(error) from error

    def numbers(self, group: int, column: str) -> Any:
        """A column of integers without nulls, as numpy array."""
        try:
            return self._file.read_row_group(group, columns=[column], use_threads=False).column(0).to_numpy()
        except (OSError, self._arrow.ArrowException) as error:
            raise self._unreadable(error) from error

    def groups_with(self, column: str, wanted: Any) -> list[int]:
        """Row groups whose statistics allow one of the wanted integers, which are a sorted numpy array."""
        place = COLUMNS.index(column)
        found = []
        for group in range(self.groups):
            about = self._file.metadata.row_group(group).column(place).statistics
            if (
                about is None
                or not about.has_min_max
                or np.searchsorted(wanted, about.min) < np.searchsorted(wanted, about.max, side="right")
            ):
                found.append(group)
        return found

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sorted(wanted: Collection[int]) -> Any:
    return np.array(sorted(wanted), dtype=np.int64)


def rows_where(file: Path, column: str, wanted: Collection[int]) -> Iterator[list[Row]]:
    """Rows whose `oid` or `rv` is one of the wanted."""
    numbers = _sorted(wanted)
    with Opened(file) as opened:
        for group in opened.groups_with(column, numbers):
            (places,) = np.nonzero(np.isin(opened.numbers(group, column), numbers))
            if len(places):
                yield opened.rows(group, places)


def rows_between(file: Path, after: int, until: int) -> Iterator[list[Row]]:
    """Rows with after < `rv` <= until."""
    with Opened(file) as opened:
        for group in range(opened.groups):
            revisions = opened.numbers(group, "rv")
            (places,) = np.nonzero((revisions > after) & (revisions <= until))
            if len(places):
                yield opened.rows(group, places)


def newest_rows(file: Path, oids: Collection[int], rv: int) -> Iterator[list[Row]]:
    """Of each of these objects its newest row up to a revision, if the file has one."""
    wanted = _sorted(oids)
    with Opened(file) as opened:
        groups = opened.groups_with("oid", wanted)
        found: dict[int, tuple[int, int]] = {}
        for group in groups:
            objects, revisions = opened.numbers(group, "oid"), opened.numbers(group, "rv")
            (places,) = np.nonzero((revisions <= rv) & np.isin(objects, wanted))
            for place, oid in zip(places.tolist(), objects[places].tolist(), strict=True):
                found[oid] = (group, place)  # rows of an object come in the order of their revisions
        by_group: dict[int, list[int]] = {}
        for group, place in found.values():
            by_group.setdefault(group, []).append(place)
        for group, chosen in sorted(by_group.items()):
            yield opened.rows(group, sorted(chosen))
