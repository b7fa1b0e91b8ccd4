"""Watch events: what a watch delivers, one by one, in resourceVersion order."""

from __future__ import annotations

from typing import Any, Literal

from kcp.base.values import frozen
from kcp.machinery.document import Document

WatchType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
"""Annotation of the BOOKMARK that ends the initial events of a watch-list."""


@frozen
class WatchEvent:
    """One message of a watch.

    `document` is the object for ADDED, MODIFIED, DELETED (the last state, at the revision of the deletion)
    and BOOKMARK (only metadata.resourceVersion and annotations count); for ERROR it is a Status.
    """

    type: WatchType
    document: Document

    @property
    def object(self) -> dict[str, Any]:
        return self.document.value
