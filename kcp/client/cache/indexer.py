"""The store of an informer: objects by key, with indexes that always agree with it.

Reads return the shared objects themselves, ordered by key. Nothing here awaits, so within one task a read sees one
revision. Cost: reads are O(result); a write is O(log n) plus a memory move per ordered list it touches.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kcp.machinery.meta import key_of

Json = dict[str, Any]
_Buckets = dict[str, list[str]]
IndexFunction = Callable[[Json], Sequence[str]]


def by_namespace(obj: Json) -> Sequence[str]:
    """The index function of client-go's "namespace" index."""
    return (obj["metadata"].get("namespace", ""),)


class _Index:
    """Keys by value. Remembers each key's values, so that a function is asked once per version of an object."""

    __slots__ = ("_values", "buckets", "function")

    def __init__(self, function: IndexFunction) -> None:
        self.function = function
        self.buckets: dict[str, list[str]] = {}
        self._values: dict[str, Sequence[str]] = {}

    def put(self, key: str, obj: Json) -> None:
        after = self.function(obj)
        before = self._values.get(key)
        if before == after or (not before and not after):
            return
        if after:
            self._values[key] = after
        elif before:
            del self._values[key]
        self._move(key, before or (), after)

    def remove(self, key: str) -> None:
        before = self._values.pop(key, None)
        if before:
            self._move(key, before, ())

    def _move(self, key: str, before: Sequence[str], after: Sequence[str]) -> None:
        for value in dict.fromkeys(before):
            if value not in after:
                bucket = self.buckets[value]
                _take(bucket, key)
                if not bucket:
                    del self.buckets[value]
        for value in dict.fromkeys(after):
            if value not in before:
                insort(self.buckets.setdefault(value, []), key)


class Indexer:
    """Objects by key, by namespace and by declared indexes.

    `rv` is the revision that the whole store stands at. `get("ns/name")`, `list("ns")`, `index("owner", uid)`.
    """

    def __init__(
        self, indexers: Mapping[str, IndexFunction] | None = None, key: Callable[[Json], str] = key_of
    ) -> None:
        self.rv = 0
        self._key = key
        self._objects: dict[str, Json] = {}
        self._keys: list[str] = []
        self._by_namespace: _Buckets = {}
        self._indexers: dict[str, IndexFunction] = dict(indexers or {})
        self._indexes = {name: _Index(function) for name, function in self._indexers.items()}

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    def __iter__(self) -> Iterator[Json]:
        """All objects ordered by key."""
        return iter([self._objects[key] for key in self._keys])

    def key(self, obj: Json) -> str:
        return self._key(obj)

    def get(self, key: str) -> Json | None:
        return self._objects.get(key)

    def keys(self) -> Sequence[str]:
        """All keys, sorted. A snapshot."""
        return list(self._keys)

    def list(self, namespace: str | None = None) -> Sequence[Json]:
        """Ordered by key; None means every namespace."""
        objects = self._objects
        keys = self._keys if namespace is None else self._by_namespace.get(namespace, ())
        return [objects[key] for key in keys]

    def index(self, name: str, value: str) -> Sequence[Json]:
        """Objects whose index function gave `value`, ordered by key. KeyError for an index that was not declared."""
        objects = self._objects
        return [objects[key] for key in self._indexes[name].buckets.get(value, ())]

    def index_keys(self, name: str, value: str) -> Sequence[str]:
        return tuple(self._indexes[name].buckets.get(value, ()))

    def index_values(self, name: str) -> Sequence[str]:
        """The values an index has objects for, sorted."""
        return sorted(self._indexes[name].buckets)

    @property
    def indexers(self) -> Mapping[str, IndexFunction]:
        return self._indexers

    def add_indexers(self, indexers: Mapping[str, IndexFunction]) -> None:
        """Add indexes, filled at once. A name that exists with another function is an error."""
        for name, function in indexers.items():
            known = self._indexers.get(name)
            if known is not None and known is not function:
                raise ValueError(f"indexer conflict: {name}")
            if known is None:
                self._indexers[name] = function
                self._indexes[name] = self._built(function)

    def _built(self, function: IndexFunction) -> _Index:
        index = _Index(function)
        for key in self._keys:
            index.put(key, self._objects[key])
        return index

    def put(self, obj: Json) -> Json | None:
        """Insert or replace; returns what was there."""
        key = self._key(obj)
        old = self._objects.get(key)
        self._objects[key] = obj
        if old is None:
            insort(self._keys, key)
            insort(self._by_namespace.setdefault(_namespace(obj), []), key)
        for index in self._indexes.values():
            index.put(key, obj)
        return old

    def remove(self, key: str) -> Json | None:
        """Remove; returns what was there."""
        old = self._objects.pop(key, None)
        if old is None:
            return None
        _take(self._keys, key)
        namespace = _namespace(old)
        bucket = self._by_namespace[namespace]
        _take(bucket, key)
        if not bucket:
            del self._by_namespace[namespace]
        for index in self._indexes.values():
            index.remove(key)
        return old

    def replace(self, objects: Sequence[Json], rv: int) -> None:
        """From now on exactly these objects, at revision `rv`."""
        self._objects = {self._key(obj): obj for obj in objects}
        self._keys = sorted(self._objects)
        self._by_namespace = {}
        for key in self._keys:
            self._by_namespace.setdefault(_namespace(self._objects[key]), []).append(key)
        self._indexes = {name: self._built(function) for name, function in self._indexers.items()}
        self.rv = rv


def _namespace(obj: Json) -> str:
    return obj["metadata"].get("namespace", "")  # type: ignore[no-any-return]


def _take(keys: list[str], key: str) -> None:
    del keys[bisect_left(keys, key)]
