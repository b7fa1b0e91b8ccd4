"""The store of an informer: objects by key, with indexes that always agree with it.

Reads return the shared objects themselves, ordered by key. Nothing here awaits, so within one task a read sees one
revision. Cost: reads are O(result); a write is O(log n) plus a memory move per ordered list it touches.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from kcp.base.values import frozen
from kcp.machinery.meta import key_of

Json = dict[str, Any]
_Buckets = dict[str, list[str]]
IndexFunction = Callable[[Json], Sequence[str]]
_NOTHING: Mapping[Hashable, int] = {}


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
                _add(self.buckets.setdefault(value, []), key)


@frozen
class Tally:
    """What to count: `by` gives the values that an object counts for, as an index function, `of` what it counts as.

    Tally(by=owner, of=phase)      tally("phases", owner_uid) -> {"Running": 4998, "Pending": 2}
    """

    by: IndexFunction
    of: Callable[[Json], Hashable]


class _Counts:
    """The counts of one tally, moved by each change of an object, so that asking costs nothing per object."""

    __slots__ = ("_counted", "counts", "tally")

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.counts: dict[str, dict[Hashable, int]] = {}
        self._counted: dict[str, tuple[Sequence[str], Hashable]] = {}

    def put(self, key: str, obj: Json) -> None:
        before = self._counted.get(key)
        after = self._counted[key] = (self.tally.by(obj), self.tally.of(obj))
        if before == after:
            return
        if before is not None:
            self._move(*before, -1)
        self._move(*after, 1)

    def remove(self, key: str) -> None:
        self._move(*self._counted.pop(key), -1)

    def _move(self, values: Sequence[str], of: Hashable, by: int) -> None:
        for value in dict.fromkeys(values):
            counts = self.counts.setdefault(value, {})
            left = counts.get(of, 0) + by
            if left:
                counts[of] = left
                continue
            del counts[of]
            if not counts:
                del self.counts[value]


class Indexer:
    """Objects by key, by namespace and by declared indexes; how many of them there are of which sort.

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
        self._distinct: list[_Index] = []
        self._indexes = {name: self._shared(function) for name, function in self._indexers.items()}
        self._tallies: dict[str, _Counts] = {}
        self._counting: list[_Counts] = []

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

    def count(self) -> int:
        return len(self._objects)

    def index(self, name: str, value: str) -> Sequence[Json]:
        """Objects whose index function gave `value`, ordered by key. KeyError for an index that was not declared."""
        keys = self._indexes[name].buckets.get(value)
        if keys is None:
            return []
        objects = self._objects
        return [objects[key] for key in keys]

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
                self._indexes[name] = self._shared(function)

    def _shared(self, function: IndexFunction) -> _Index:
        """The index of this function: controllers that ask for the same share it under their own names."""
        for index in self._distinct:
            if index.function is function:
                return index
        self._distinct.append(built := self._built(function))
        return built

    def tally(self, name: str, value: str) -> Mapping[Hashable, int]:
        """How many objects of `value` there are of each sort, in no order. KeyError for one that was not declared."""
        return self._tallies[name].counts.get(value, _NOTHING)

    def add_tallies(self, tallies: Mapping[str, Tally]) -> None:
        """Add tallies, counted at once. Equal ones share their counts, whatever their names."""
        for name, tally in tallies.items():
            known = next((each for each in self._counting if each.tally == tally), None)
            if known is None:
                self._counting.append(known := self._counted(tally))
            self._tallies[name] = known

    def _counted(self, tally: Tally) -> _Counts:
        counts = _Counts(tally)
        for key, obj in self._objects.items():
            counts.put(key, obj)
        return counts

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
            _add(self._keys, key)
            _add(self._by_namespace.setdefault(_namespace(obj), []), key)
        for index in self._distinct:
            index.put(key, obj)
        for counts in self._counting:
            counts.put(key, obj)
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
        for index in self._distinct:
            index.remove(key)
        for counts in self._counting:
            counts.remove(key)
        return old

    def replace(self, objects: Sequence[Json], rv: int) -> None:
        """From now on exactly these objects, at revision `rv`."""
        self._objects = {self._key(obj): obj for obj in objects}
        self._keys = sorted(self._objects)
        self._by_namespace = {}
        for key in self._keys:
            self._by_namespace.setdefault(_namespace(self._objects[key]), []).append(key)
        self._distinct = []
        self._indexes = {name: self._shared(function) for name, function in self._indexers.items()}
        names = {name: counts.tally for name, counts in self._tallies.items()}
        self._counting = []
        self.add_tallies(names)
        self.rv = rv


def _namespace(obj: Json) -> str:
    return obj["metadata"].get("namespace", "")  # type: ignore[no-any-return]


def _add(keys: list[str], key: str) -> None:
    """In order; what is made in a row mostly comes in order of its names."""
    if keys and key < keys[-1]:
        insort(keys, key)
    else:
        keys.append(key)


def _take(keys: list[str], key: str) -> None:
    del keys[bisect_left(keys, key)]
