"""What many requests in one answer with: each item's object and revision, or the Status of its refusal."""

from __future__ import annotations

from collections.abc import Iterable

from kcp.api.transaction import Written, store_failure
from kcp.apis.kind import Json
from kcp.machinery.errors import ApiError, InternalError
from kcp.store.protocol import Committed


def done(written: Written) -> Json:
    return {"document": written.document, "revision": written.revision}


def refused(error: Exception) -> Json:
    """What failed of the store itself is told as a client of a single request would hear it."""
    failure = store_failure(error)
    refusal = failure if isinstance(failure, ApiError) else InternalError(str(failure))
    return {"status": refusal.status()}


def settled(outcome: Committed | Exception) -> Json:
    """What became of an operation that was committed among others."""
    if not isinstance(outcome, Committed):
        return refused(outcome)
    if outcome.record is None:
        return {"revision": outcome.rv}
    return {"document": outcome.record.document, "revision": outcome.rv}


def newest(results: Iterable[Json]) -> int:
    """The revision of the whole answer: 0 when nothing was written."""
    return max((result.get("revision", 0) for result in results), default=0)
