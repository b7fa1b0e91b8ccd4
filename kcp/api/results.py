"""What a verb returns, before anyone decided how to write it down.

Verbs answer with one of these; `negotiation.render` turns it into a Response: JSON, YAML, Table,
PartialObjectMetadata, or nothing at all for in-process callers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from kcp.apis.kind import Kind
from kcp.base.values import frozen
from kcp.machinery.document import Document
from kcp.machinery.watch import WatchEvent

Json = dict[str, Any]


@frozen
class ObjectResult:
    """One object. `revision` is the store's revision of a write, also when `document` is a Status."""

    document: Document
    kind: Kind | None = None
    status: int = 200
    revision: int = 0


@frozen
class ListResult:
    """A page of a list at revision `rv`, documents in their version's form, in key order."""

    kind: Kind
    documents: Sequence[Document]
    rv: int
    continue_token: str = ""
    remaining: int | None = None


@frozen
class WatchResult:
    """A watch: batches of events, in order. The iterator ends when the watch times out or the server drains."""

    kind: Kind
    events: AsyncIterator[Sequence[WatchEvent]]


@frozen
class StatusResult:
    """A bare document that is no stored object: a Status, a review, a Scale."""

    value: Json
    status: int = 200
    revision: int = 0


Result = ObjectResult | ListResult | WatchResult | StatusResult
