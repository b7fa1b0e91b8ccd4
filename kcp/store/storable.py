"""What no engine can keep, looked for when a batch has failed: it shall fail alone, not with those it shared a batch with.

Text with lone surrogates has no UTF-8, PostgreSQL's text has no U+0000, columns for numbers end at int64. Nothing of that
comes out of a decoded request, so writes are not searched for it before an engine has refused them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from kcp.store import rows
from kcp.store.protocol import (
    Cause,
    Committed,
    Decision,
    Head,
    Input,
    Keep,
    Operation,
    Put,
    Record,
    Remove,
    StoreError,
)


def fault_of(operation: Operation, outcome: Committed | Exception) -> str | None:
    """Why this change cannot be stored; None when it can, or when there is nothing to store."""
    if isinstance(outcome, Exception) or outcome.op is None or outcome.record is None:
        return None
    key, record, cause = operation.key, outcome.record, operation.cause
    if any("\0" in text for text in (key.namespace, key.name, record.uid)):
        return f"{str(key)!r}: a name or uid with U+0000"
    actor = cause.actor
    texts = (actor.username, *actor.groups, actor.user_agent, actor.field_manager, actor.source_ip)
    return _fault(
        (key.namespace, key.name, record.uid, cause.request_id, *texts, cause.decision_id, record.expires_us)
    )


def fault_of_record(entry: Decision | Input) -> str | None:
    try:
        return _fault(
            rows.decision_values(0, entry) if isinstance(entry, Decision) else rows.input_values(0, 0, entry)
        )
    except (TypeError, ValueError) as error:
        return str(error)


def _fault(values: Iterable[Any]) -> str | None:
    for value in values:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"{value} is no 64-bit integer"
        if isinstance(value, str) and not _has_utf8(value):
            return f"{value!r} has no UTF-8"
    return None


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refused(operation: Operation, why: str) -> Operation:
    """In its place: one that fails with the reason."""

    def change(current: Record | None, head: Head) -> Put | Remove | Keep:
        del current, head
        raise StoreError(f"cannot be stored: {why}")

    return attrs.evolve(operation, change=change, cause=Cause())
