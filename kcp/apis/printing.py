"""How objects print as Tables: ages, and the formats that several kinds share.

Every cell is what kubectl shows: a string, an integer or a boolean. Absent things print as `<none>`, `<unset>` or
`<unknown>`, exactly as Kubernetes prints them.
Source: k8s v1.36 pkg/printers/internalversion/printers.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from kcp.apis.kind import Column, Json, Printer
from kcp.machinery.labels import SelectorError, from_label_selector
from kcp.machinery.times import human_duration, parse_time

NONE = "<none>"
UNSET = "<unset>"
UNKNOWN = "<unknown>"

NAME_DESCRIPTION = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow "
    "a client to request the generation of an appropriate name automatically. Name is primarily intended for "
    "creation idempotence and configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
CREATION_DESCRIPTION = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not "
    "guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is "
    "represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)

NAME = Column("Name", "string", "name", NAME_DESCRIPTION)
AGE = Column("Age", "string", "", CREATION_DESCRIPTION)
CREATED_AT = Column("Created At", "date", "", CREATION_DESCRIPTION)
CONTAINERS = Column("Containers", "string", "", "Names of each container in the template.", 1)
IMAGES = Column("Images", "string", "", "Images referenced by each container in the template.", 1)


def columns(*parts: Column | str | tuple[str, str] | tuple[str, str, int]) -> tuple[Column, ...]:
    """Columns from short forms: a Column, a name of type string, or (name, type[, priority])."""
    return tuple(part if isinstance(part, Column) else _column(part) for part in parts)


def _column(part: str | tuple[str, str] | tuple[str, str, int]) -> Column:
    if isinstance(part, str):
        return Column(part)
    name, kind, *priority = part
    return Column(name, kind, priority=int(priority[0]) if priority else 0)


def wide(name: str, kind: str = "string", description: str = "") -> Column:
    """A column that shows only with -o wide."""
    return Column(name, kind, "", description, 1)


def name_of(obj: Json) -> str:
    name: str = obj.get("metadata", {}).get("name", "")
    return name


def since(timestamp: str | None, now: datetime) -> str:
    """The time since an RFC 3339 timestamp as `5m10s`, `3d4h`; without one `<unknown>`."""
    if not timestamp:
        return UNKNOWN
    try:
        then = parse_time(timestamp)
    except ValueError:
        return UNKNOWN
    return human_duration((now - then).total_seconds())


def age(obj: Json, now: datetime) -> str:
    """The time since the object was created."""
    return since(obj.get("metadata", {}).get("creationTimestamp"), now)


def created_at(obj: Json) -> str:
    timestamp: str = obj.get("metadata", {}).get("creationTimestamp") or "0001-01-01T00:00:00Z"
    return timestamp


def format_labels(labels: Mapping[str, str] | None) -> str:
    """`a=1,b=2` in key order, or `<none>`. Source: apimachinery labels.FormatLabels."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def format_label_selector(selector: Json | None) -> str:
    """A LabelSelector as text: `app=web,tier in (a,b)`; empty or absent is `<none>`, a malformed one `<error>`.

    Source: apimachinery meta/v1 FormatLabelSelector.
    """
    try:
        return str(from_label_selector(selector)) or NONE
    except SelectorError:
        return "<error>"


def container_names(containers: Iterable[Json] | None) -> str:
    return ",".join(container.get("name", "") for container in containers or ())


def container_images(containers: Iterable[Json] | None) -> str:
    return ",".join(container.get("image", "") for container in containers or ())


def template_cells(template: Json | None) -> list[Any]:
    """Containers and images of a pod template, the two wide columns of every workload."""
    containers = ((template or {}).get("spec") or {}).get("containers")
    return [container_names(containers), container_images(containers)]


def first_of(texts: Sequence[str], limit: int = 3) -> str:
    """The first `limit` texts and `+ N more...`; nothing at all is `<unset>`. Source: listWithMoreString."""
    shown = ",".join(texts[:limit])
    hidden = len(texts) - limit
    return f"{shown} + {hidden} more..." if hidden > 0 else shown or UNSET


def or_none(text: str | None) -> str:
    return text or NONE


def or_unset(value: Any) -> str:
    """A pointer as text; booleans as `True` and `False`."""
    return UNSET if value is None else str(value)


def _generic_cells(obj: Json, now: datetime) -> list[Any]:
    del now
    return [name_of(obj), created_at(obj)]


GENERIC = Printer((NAME, CREATED_AT), _generic_cells)
"""For a kind that has no columns of its own. Source: apiserver registry/rest/table.go."""


def _name_age_cells(obj: Json, now: datetime) -> list[Any]:
    return [name_of(obj), age(obj, now)]


NAME_AGE = Printer((NAME, AGE), _name_age_cells)
