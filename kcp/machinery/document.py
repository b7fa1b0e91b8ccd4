"""One stored version of an object: its bytes, and its value decoded at most once.

The bytes of a version are made once and serve the store, the response, lists and every watcher.

    normal(value)      the normal form: what the log keeps, without resourceVersion
    Document.encoded   the normal form with resourceVersion spliced in: what clients get
    Document.value     the decoded dict, shared by all readers: never change it, copy the path you change

The normal form depends on the JSON value alone: apiVersion, kind, metadata first, then the other top-level
keys sorted; below them all keys sorted; compact separators; UTF-8. With metadata in third place its offset
is found without parsing, so the resourceVersion is spliced and a PartialObjectMetadata cut by slicing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

Json = dict[str, Any]

_SORTED = orjson.OPT_SORT_KEYS
_METADATA = b'"metadata":{'
_REVISION_PREFIX = len(b'"resourceVersion":"')


def normal(value: Json) -> bytes:
    """The normal form of an object, without `metadata.resourceVersion`.

    Cost: about 2 µs for a pod. Top-level `apiVersion`, `kind` and `metadata` must be present.
    """
    rest = {k: v for k, v in value.items() if k not in ("apiVersion", "kind", "metadata")}
    metadata = value["metadata"]
    if "resourceVersion" in metadata:
        metadata = {k: v for k, v in metadata.items() if k != "resourceVersion"}
    head = b'{"apiVersion":%b,"kind":%b,"metadata":%b' % (
        orjson.dumps(value["apiVersion"]),
        orjson.dumps(value["kind"]),
        orjson.dumps(metadata, option=_SORTED),
    )
    if not rest:
        return head + b"}"
    return head + b"," + orjson.dumps(rest, option=_SORTED)[1:]


def splice_revision(body: bytes, rv: int) -> bytes:
    """The bytes to serve: `body` (normal form) with resourceVersion as the first key of metadata."""
    at = body.index(_METADATA) + len(_METADATA)
    comma = b"" if body[at : at + 1] == b"}" else b","
    return b'%b"resourceVersion":"%d"%b%b' % (body[:at], rv, comma, body[at:])


def cut_revision(encoded: bytes, rv: int) -> bytes:
    """What `splice_revision` made it from."""
    start = encoded.index(_METADATA) + len(_METADATA)
    end = start + _REVISION_PREFIX + len(str(rv)) + 1
    if encoded[end : end + 1] == b",":
        end += 1
    return encoded[:start] + encoded[end:]


class Document:
    """An immutable version of an object: `encoded` bytes with resourceVersion, and its number `rv`.

    Of a version that only code in this process reads, `encoded` is never made.
    """

    __slots__ = ("_body", "_value", "encoded", "rv")

    encoded: bytes

    def __init__(self, encoded: bytes, rv: int, value: Json | None = None) -> None:
        self._body: bytes | None = None
        self.encoded = encoded
        self.rv = rv
        self._value = value

    @classmethod
    def at(cls, body: bytes, rv: int, value: Json | None = None) -> Document:
        """From normal bytes. `value`, when given, is the decoded object; its resourceVersion is set here."""
        document = cls.__new__(cls)
        document._body = body
        document.rv = rv
        if value is not None:
            value = {**value, "metadata": {**value["metadata"], "resourceVersion": str(rv)}}
        document._value = value
        return document

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> bytes:
            """`encoded`, at its first use; from then on the slot has it."""
            if name != "encoded":
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            encoded = self.encoded = splice_revision(self._normal(), self.rv)
            self._body = None
            return encoded

    def _normal(self) -> bytes:
        assert self._body is not None
        return self._body

    @property
    def body(self) -> bytes:
        """The normal form that the log keeps: `encoded` without its resourceVersion."""
        return self._body or cut_revision(self.encoded, self.rv)

    @property
    def value(self) -> Json:
        """The decoded object, shared and read-only."""
        value = self._value
        if value is None:
            value = self._value = orjson.loads(self.encoded)
        return value

    @property
    def decoded(self) -> bool:
        """Whether `value` costs nothing any more."""
        return self._value is not None

    def forget_value(self) -> None:
        """Drop the decoded form to save memory; the next reader decodes again."""
        self._value = None

    def __repr__(self) -> str:
        return f"<Document rv={self.rv} {len(self.encoded)} bytes>"
