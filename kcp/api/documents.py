"""Documents in the version that a request asked for, and private copies of shared values."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from kcp.apis.kind import Kind
from kcp.machinery.document import Document, Json, normal, splice_revision

CONVERTED_KEPT = 8192


def private_copy(value: Any) -> Any:
    """A copy that its owner may change. The fastest deep copy of a JSON value there is."""
    return orjson.loads(orjson.dumps(value))


@lru_cache(maxsize=CONVERTED_KEPT)
def _converted(kind: Kind, document: Document) -> Document:
    assert kind.from_storage is not None
    value = kind.from_storage(document.value)
    return Document(splice_revision(normal(value), document.rv), document.rv, value)


def served(kind: Kind, document: Document) -> Document:
    """The document in the version of `kind`; the very same one unless another version owns the storage.

    Conversions are made once per version of an object and shared by all readers.
    """
    return document if kind.from_storage is None else _converted(kind, document)


@lru_cache(maxsize=1024)
def at_revision(document: Document, rv: int) -> Document:
    """The same object under a later revision: what a watcher gets when an object leaves its selector."""
    return Document.at(normal(document.value), rv, document.value)


def unsaved(body: bytes, value: Json, rv: int = 0) -> Document:
    """What a dry run answers with: the object as it would be, at the revision it has (0: none yet)."""
    if rv:
        return Document.at(body, rv, value)
    return Document(body, 0, value)
