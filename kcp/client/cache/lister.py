"""Read-only views of an informer's store, as code asks for objects: by namespace, name and label selector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kcp.base.values import frozen
from kcp.client.cache.indexer import Indexer
from kcp.machinery.errors import NotFound

Json = dict[str, Any]


class LabelMatcher(Protocol):
    """What a label selector offers (kcp.machinery.labels.Selector)."""

    def matches(self, labels: Mapping[str, str], /) -> bool: ...


@frozen
class Lister:
    """Objects are shared and read-only; lists are ordered by key."""

    resource: str
    indexer: Indexer

    def find(self, name: str, namespace: str = "") -> Json | None:
        return self.indexer.get(f"{namespace}/{name}" if namespace else name)

    def get(self, name: str, namespace: str = "") -> Json:
        """Raises NotFound, with the text the API server gives."""
        obj = self.find(name, namespace)
        if obj is None:
            plural, _, group = self.resource.partition(".")
            raise NotFound.of(group, plural, name)
        return obj

    def list(self, namespace: str | None = None, selector: LabelMatcher | None = None) -> Sequence[Json]:
        objects = self.indexer.list(namespace)
        return objects if selector is None else _matching(objects, selector.matches)


def _matching(objects: Sequence[Json], matches: Callable[[Mapping[str, str]], bool]) -> Sequence[Json]:
    return [obj for obj in objects if matches(obj["metadata"].get("labels") or {})]
