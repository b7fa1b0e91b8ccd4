"""What an object tells about when it was written, for sources that do not say."""

from __future__ import annotations

from typing import Any

from kcp.base.clock import microseconds
from kcp.machinery.times import parse_time

Json = dict[str, Any]
_OF_EVENTS = ("eventTime", "lastTimestamp", "firstTimestamp")


def micros(text: Any) -> int:
    """An RFC 3339 time in microseconds; 0 for what is none."""
    if not isinstance(text, str):
        return 0
    try:
        return microseconds(parse_time(text))
    except ValueError:
        return 0


def written_us(obj: Json) -> int:
    """The newest moment that an object carries the mark of: its creation, its fields' managers, a Lease's renewal.

    Whole seconds, mostly, and never later than the write. 0 when it carries none.
    """
    metadata = obj.get("metadata") or {}
    marks = [metadata.get("creationTimestamp")]
    marks += [entry.get("time") for entry in metadata.get("managedFields") or () if isinstance(entry, dict)]
    if obj.get("kind") == "Lease":
        marks.append((obj.get("spec") or {}).get("renewTime"))
    elif obj.get("kind") == "Event":
        marks += [obj.get(field) for field in _OF_EVENTS]
        marks.append((obj.get("series") or {}).get("lastObservedTime"))
    return max(micros(mark) for mark in marks)


def untouched(obj: Json) -> bool:
    """Whether nobody seems to have changed it since it was created."""
    metadata = obj.get("metadata") or {}
    created = micros(metadata.get("creationTimestamp"))
    return created > 0 and written_us(obj) < created + 1_000_000 and not metadata.get("deletionTimestamp")


def manager_of(obj: Json) -> str:
    """Who wrote last, by managedFields; "" when it does not tell."""
    entries = (obj.get("metadata") or {}).get("managedFields") or ()
    newest = max(
        (e for e in entries if isinstance(e, dict)), key=lambda e: micros(e.get("time")), default=None
    )
    return str(newest.get("manager") or "") if newest is not None else ""
