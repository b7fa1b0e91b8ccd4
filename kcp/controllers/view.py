"""The read-only view that a planner gets: one reader per watched resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs

from kcp.controllers.effects import Reader

Json = dict[str, Any]


class Indexed(Protocol):
    """The part of an Indexer that reading needs (kcp.client.cache.indexer, or replay's fold of the log)."""

    def get(self, key: str) -> Json | None: ...

    def list(self, namespace: str | None = None) -> Sequence[Json]: ...

    def index(self, name: str, value: str) -> Sequence[Json]: ...


@attrs.frozen(slots=True)
class IndexReader:
    """A Reader over one Indexer. Index names are prefixed by their controller, since indexers are shared."""

    source: Indexed
    prefix: str

    def get(self, key: str) -> Json | None:
        return self.source.get(key)

    def list(self, namespace: str | None = None) -> Sequence[Json]:
        return self.source.list(namespace)

    def index(self, name: str, value: str) -> Sequence[Json]:
        return self.source.index(self.prefix + name, value)


@attrs.frozen(slots=True)
class ManyReader:
    """A Reader over the indexers of many resources, for what watches everything. Keys are not unique across them."""

    readers: Mapping[str, IndexReader]

    def get(self, key: str) -> Json | None:
        """By `resource/namespace/name` (the namespace empty for cluster-scoped objects)."""
        resource, _, rest = key.partition("/")
        reader = self.readers.get(resource)
        return reader.get(rest.lstrip("/")) if reader else None

    def list(self, namespace: str | None = None) -> Sequence[Json]:
        return [obj for resource in sorted(self.readers) for obj in self.readers[resource].list(namespace)]

    def index(self, name: str, value: str) -> Sequence[Json]:
        return [obj for resource in sorted(self.readers) for obj in self.readers[resource].index(name, value)]


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
