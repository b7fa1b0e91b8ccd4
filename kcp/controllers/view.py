"""The read-only view that a planner gets: one reader per watched resource."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from kcp.base.values import frozen
from kcp.controllers.effects import Reader

Json = dict[str, Any]


class Indexed(Protocol):
    """The part of an Indexer that reading needs (kcp.client.cache.indexer, or replay's fold of the log)."""

    def get(self, key: str) -> Json | None: ...

    def list(self, namespace: str | None = None) -> Sequence[Json]: ...

    def count(self) -> int: ...

    def index(self, name: str, value: str) -> Sequence[Json]: ...

    def tally(self, name: str, value: str) -> Mapping[Hashable, int]: ...


@attrs.define(slots=True)
class Reads:
    """The most objects that a reader of a view has handed out or counted at once. Whoever cares sets it back."""

    objects: int = 0

    def note(self, objects: int) -> None:
        if objects > self.objects:
            self.objects = objects


@frozen
class IndexReader:
    """A Reader over one Indexer. Index names are prefixed by their controller, since indexers are shared."""

    source: Indexed
    prefix: str
    reads: Reads = attrs.field(factory=Reads)

    def get(self, key: str) -> Json | None:
        return self.source.get(key)

    def list(self, namespace: str | None = None) -> Sequence[Json]:
        found = self.source.list(namespace)
        self.reads.note(len(found))
        return found

    def count(self) -> int:
        return self.source.count()

    def index(self, name: str, value: str) -> Sequence[Json]:
        found = self.source.index(self.prefix + name, value)
        self.reads.note(len(found))
        return found

    def tally(self, name: str, value: str) -> Mapping[Hashable, int]:
        counts = self.source.tally(self.prefix + name, value)
        self.reads.note(sum(counts.values()))
        return counts


def _by_resource(readers: Mapping[str, IndexReader]) -> Mapping[str, IndexReader]:
    return dict(sorted(readers.items()))


@frozen
class ManyReader:
    """A Reader over the indexers of many resources, for what watches everything. Keys are not unique across them."""

    readers: Mapping[str, IndexReader] = attrs.field(converter=_by_resource)

    def get(self, key: str) -> Json | None:
        """By `resource/namespace/name` (the namespace empty for cluster-scoped objects)."""
        resource, _, rest = key.partition("/")
        reader = self.readers.get(resource)
        return reader.get(rest.lstrip("/")) if reader else None

    def list(self, namespace: str | None = None) -> Sequence[Json]:
        return [obj for reader in self.readers.values() for obj in reader.list(namespace)]

    def count(self) -> int:
        return sum(reader.count() for reader in self.readers.values())

    def index(self, name: str, value: str) -> Sequence[Json]:
        found: list[Json] = []
        for reader in self.readers.values():
            if some := reader.source.index(reader.prefix + name, value):
                found += some
                reader.reads.note(len(some))
        return found


class Readers:
    """The view itself: `view.pods`. Holds exactly the names that the controller declared."""

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self._readers = readers

    def __getattr__(self, name: str) -> Reader:
        try:
            return self._readers[name]
        except KeyError:
            raise AttributeError(f"this controller does not watch {name!r}") from None

    def __getitem__(self, name: str) -> Reader:
        return self._readers[name]
