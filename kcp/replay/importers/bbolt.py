"""Reads a bbolt file, the database of etcd, as it lies on the disk: buckets, their keys and values, in key order.

    page      id u64 · flags u16 · count u16 · overflow u32 · elements
    meta      magic u32 · version u32 · page size u32 · flags u32 · root bucket {page u64, sequence u64} · freelist u64
              · end u64 · transaction u64 · checksum u64; pages 0 and 1 are two metas, the newer valid one counts
    branch    position u32 · key size u32 · page u64          position is counted from the element itself
    leaf      flags u32 · position u32 · key size u32 · value size u32; flag 1: the value is a bucket {page, sequence},
              and where its page is 0 the bucket's own page follows inline

Numbers are little-endian. A file of a running etcd is safe to read when it is a snapshot; another may be torn.
Source: go.etcd.io/bbolt internal/common/{page,meta,bucket}.go.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from kcp.replay.importers.reading import Malformed

MAGIC = 0xED0CDAED
VERSION = 2
_PAGE, _META, _BRANCH, _LEAF, _BUCKET = (
    struct.Struct(f) for f in ("<QHHI", "<IIIIQQQQQQ", "<IIQ", "<IIII", "<QQ")
)
_IS_BRANCH, _IS_LEAF, _IS_META = 1, 2, 4
_NESTED = 1
MAX_DEPTH = 64


def is_bbolt(beginning: bytes) -> bool:
    return len(beginning) >= 20 and int.from_bytes(beginning[16:20], "little") == MAGIC


class Bolt:
    """One file. Raises Malformed where it is damaged."""

    def __init__(self, data: bytes, name: str = "the file") -> None:
        self._data = memoryview(data)
        self._name = name
        self._page_size, self._root = self._meta()

    def items(self, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of a top-level bucket; nothing when it is absent."""
        for key, value, flags in self._walk(self._root, 0):
            if key == bucket and flags & _NESTED:
                page, _ = self._unpack(_BUCKET, value, 0)
                found = self._inline(value[_BUCKET.size :]) if page == 0 else self._walk(page, 0)
                yield from ((bytes(k), bytes(v)) for k, v, nested in found if not nested & _NESTED)

    def _meta(self) -> tuple[int, int]:
        """(page size, root page) of the newer of the two metas that is whole."""
        found: list[tuple[int, int, int]] = []
        for start in (0, self._guess_page_size()):
            if start + _PAGE.size + _META.size > len(self._data):
                continue
            meta = self._data[start + _PAGE.size :]
            magic, version, size, _, root, _, _, _, transaction, checksum = _META.unpack_from(meta)
            if (magic, version) == (MAGIC, VERSION) and checksum == _fnv(bytes(meta[: _META.size - 8])):
                found.append((transaction, size, root))
        if not found:
            raise Malformed(f"{self._name}: no bbolt database, or both of its meta pages are damaged")
        _, size, root = max(found)
        return size, root

    def _guess_page_size(self) -> int:
        size = int.from_bytes(self._data[24:28], "little")
        return size if 512 <= size <= 1 << 20 and size & (size - 1) == 0 else 4096

    def _walk(self, page: int, depth: int) -> Iterator[tuple[memoryview, memoryview, int]]:
        if depth > MAX_DEPTH:
            raise Malformed(f"{self._name}: damaged: pages that contain each other")
        start = page * self._page_size
        if start + _PAGE.size > len(self._data):
            raise Malformed(f"{self._name}: cut off: page {page} lies beyond its end")
        _, flags, count, overflow = _PAGE.unpack_from(self._data, start)
        view = self._data[start : start + (overflow + 1) * self._page_size]
        if flags & _IS_BRANCH:
            for index in range(count):
                _, _, child = self._unpack(_BRANCH, view, _PAGE.size + index * _BRANCH.size)
                yield from self._walk(child, depth + 1)
        elif flags & _IS_LEAF:
            yield from self._leaf(view, count)
        else:
            raise Malformed(f"{self._name}: damaged: page {page} is neither branch nor leaf")

    def _inline(self, view: memoryview) -> Iterator[tuple[memoryview, memoryview, int]]:
        _, _, count, _ = self._unpack(_PAGE, view, 0)
        return self._leaf(view, count)

    def _leaf(self, view: memoryview, count: int) -> Iterator[tuple[memoryview, memoryview, int]]:
        for index in range(count):
            at = _PAGE.size + index * _LEAF.size
            flags, position, key_size, value_size = self._unpack(_LEAF, view, at)
            start = at + position
            end = start + key_size + value_size
            if end > len(view):
                raise Malformed(f"{self._name}: damaged: an element reaches beyond its page")
            yield view[start : start + key_size], view[start + key_size : end], flags

    def _unpack(self, form: struct.Struct, view: memoryview, at: int) -> tuple[int, ...]:
        try:
            return form.unpack_from(view, at)
        except struct.error:
            raise Malformed(f"{self._name}: damaged: a page ends too early") from None


def _fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return found
