"""Event, in core/v1 and in events.k8s.io/v1: the same objects under two sets of field names.

Events live an hour. The newer group is stricter about what it takes.
Source: k8s v1.36 pkg/apis/core/validation/events.go, pkg/registry/core/event/strategy.go, printers.go (printEvent).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.strategies import metadata_of
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import NAME_DESCRIPTION, name_of, since, wide
from kcp.apis.zero_values import write_event
from kcp.machinery.errors import FieldError, invalid, required

TTL_S = 3600
_NEW_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_LIMIT = 128
_NOTE_LIMIT = 1024


def field_of(event: Json, field: str) -> Any:
    """A field under its core name, whichever version the document has."""
    if field in event:
        return event[field]
    return event.get(_NEW_NAMES.get(field, field))


def _involved(event: Json) -> Json:
    found: Json = field_of(event, "involvedObject") or {}
    return found


def _size(errors: Errors, value: str, limit: int, path: str) -> None:
    if len(value.encode()) > limit:
        errors.append(invalid(path, "", f"can have at most {limit} characters"))


def _new_style(errors: Errors, event: Json, namespace: str) -> None:
    """An event with eventTime."""
    involved = _involved(event).get("namespace") or ""
    if not involved and namespace not in ("default", "kube-system"):
        errors.append(invalid("involvedObject.namespace", involved, "does not match event.namespace"))
    controller = field_of(event, "reportingComponent") or ""
    if not controller:
        errors.append(required("reportingController"))
    checks.qualified_name(errors, controller, "reportingController")
    for field in ("reportingInstance", "action", "reason"):
        value = event.get(field) or ""
        if not value:
            errors.append(required(field))
        _size(errors, value, _LIMIT, field)
    _size(errors, field_of(event, "message") or "", _NOTE_LIMIT, "message")


def _old_style(errors: Errors, event: Json, namespace: str) -> None:
    involved = _involved(event).get("namespace") or ""
    agree = namespace == involved if involved else namespace in ("", "default")
    if not agree:
        errors.append(invalid("involvedObject.namespace", involved, "does not match event.namespace"))


def validate_event(event: Json) -> list[FieldError]:
    """What both groups check."""
    errors: Errors = []
    namespace = metadata_of(event).get("namespace") or ""
    (_new_style if event.get("eventTime") else _old_style)(errors, event, namespace)
    checks.dns_subdomain(errors, namespace, "namespace")
    return errors


def _series(errors: Errors, event: Json) -> None:
    series = event.get("series")
    if series is None:
        return
    if (series.get("count") or 0) < 2:
        errors.append(invalid("series.count", "", "should be at least 2"))
    if not series.get("lastObservedTime"):
        errors.append(required("series.lastObservedTime"))


def _validate_strict(event: Json) -> list[FieldError]:
    errors = validate_event(event)
    _series(errors, event)
    if not event.get("eventTime"):
        errors.append(required("eventTime"))
    kind = event.get("type") or ""
    if kind not in ("Normal", "Warning"):
        errors.append(invalid("type", "", f"has invalid value: {kind}"))
    for field in ("firstTimestamp", "lastTimestamp", "count"):
        if field_of(event, field):
            errors.append(invalid(field, "", "needs to be unset"))
    source = field_of(event, "source") or {}
    if source.get("component") or source.get("host"):
        errors.append(invalid("source", "", "needs to be unset"))
    return errors


_FIXED = (
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "reason", "type",
    "eventTime", "action", "related", "reportingComponent", "reportingInstance",
)  # fmt: skip


def _validate_strict_update(new: Json, old: Json) -> list[FieldError]:
    errors = validate_event(new)
    if new.get("series") != old.get("series"):
        _series(errors, new)
    for field in _FIXED:
        shown = "reportingController" if field == "reportingComponent" else field
        checks.same(errors, field_of(new, field) or None, field_of(old, field) or None, shown)
    return errors


def _involved_text(field: str) -> Callable[[Json], str]:
    return lambda event: str(_involved(event).get(field) or "")


def _text(field: str) -> Callable[[Json], str]:
    return lambda event: str(field_of(event, field) or "")


def _source(event: Json) -> str:
    component = (field_of(event, "source") or {}).get("component")
    return str(component or field_of(event, "reportingComponent") or "")


_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_SELECTABLE: dict[str, Callable[[Json], str]] = {
    **{f"involvedObject.{field}": _involved_text(field) for field in _REFERENCE},
    "reason": _text("reason"),
    "reportingComponent": _text("reportingComponent"),
    "source": _source,
    "type": _text("type"),
}
_SELECTABLE_NEW: dict[str, Callable[[Json], str]] = {
    **{f"regarding.{field}": _involved_text(field) for field in _REFERENCE},
    "reason": _text("reason"),
    "reportingController": _text("reportingComponent"),
    "type": _text("type"),
}

_COLUMNS = (
    Column(
        "Last Seen", "string", "", "The time at which the most recent occurrence of this event was recorded."
    ),
    Column(
        "Type", "string", "", "Type of this event (Normal, Warning), new types could be added in the future"
    ),
    Column(
        "Reason",
        "string",
        "",
        "This should be a short, machine understandable string that gives the reason for the transition into the "
        "object's current status.",
    ),
    Column("Object", "string", "", "The object that this event is about."),
    wide("Subobject"),
    wide(
        "Source",
        description="The component reporting this event. Should be a short machine understandable string.",
    ),
    Column("Message", "string", "", "A human-readable description of the status of this operation."),
    wide("First Seen"),
    wide("Count", description="The number of times this event has occurred."),
    Column("Name", "string", "name", NAME_DESCRIPTION, 1),
)


def _object(event: Json) -> str:
    involved = _involved(event)
    kind = (involved.get("kind") or "").lower()
    return f"{kind}/{involved['name']}" if involved.get("name") else kind


def _source_cell(event: Json) -> str:
    """`component, host`. Source: formatEventSource."""
    source = field_of(event, "source") or {}
    component = source.get("component") or field_of(event, "reportingComponent") or ""
    host = source.get("host") or event.get("reportingInstance") or ""
    return ", ".join(part for part in (component, host) if part)


def _cells(event: Json, now: datetime) -> list[Any]:
    first = since(field_of(event, "firstTimestamp") or event.get("eventTime"), now)
    last_time = field_of(event, "lastTimestamp")
    last = since(last_time, now) if last_time else first
    count = field_of(event, "count") or 1
    if (series := event.get("series")) is not None:
        last, count = since(series.get("lastObservedTime"), now), series.get("count") or 0
    return [
        last,
        event.get("type") or "",
        event.get("reason") or "",
        _object(event),
        _involved(event).get("fieldPath") or "",
        _source_cell(event),
        (field_of(event, "message") or "").strip(),
        first,
        count,
        name_of(event),
    ]


STRATEGIES: dict[str, Strategy] = {
    "Event": Strategy(
        prepare_create=write_event,
        prepare_update=lambda new, old: write_event(new),
        validate_create=validate_event,
        validate_update=lambda new, old: validate_event(new),
        selectable=_SELECTABLE,
        name_rule="path_segment",
        has_status=False,
        has_generation=False,
        allow_create_on_update=True,
        ttl_s=TTL_S,
    ),
    "events.k8s.io/Event": Strategy(
        prepare_create=write_event,
        prepare_update=lambda new, old: write_event(new),
        validate_create=_validate_strict,
        validate_update=_validate_strict_update,
        selectable=_SELECTABLE_NEW,
        name_rule="path_segment",
        has_status=False,
        has_generation=False,
        allow_create_on_update=True,
        ttl_s=TTL_S,
    ),
}
PRINTERS: dict[str, Printer] = {"Event": Printer(_COLUMNS, _cells)}
