"""Small pieces that most strategies are made of: resetting and keeping status, spec and other parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kcp.apis.core.checks import Json

STATUS_RESET: Mapping[str, tuple[tuple[str, ...], ...]] = {"": (("status",),), "status": (("spec",),)}
"""The main resource resets the status, the status subresource the spec."""


def empty_status(obj: Json) -> None:
    obj["status"] = {}


def drop_status(obj: Json) -> None:
    obj.pop("status", None)


def keep(new: Json, old: Json, field: str) -> None:
    """Make a top-level field what it was."""
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def keep_status(new: Json, old: Json) -> None:
    keep(new, old, "status")


def keep_spec(new: Json, old: Json) -> None:
    keep(new, old, "spec")


def spec_of(obj: Json) -> Json:
    spec: Json = obj.get("spec") or {}
    return spec


def status_of(obj: Json) -> Json:
    status: Json = obj.get("status") or {}
    return status


def metadata_of(obj: Json) -> Json:
    metadata: Json = obj.get("metadata") or {}
    return metadata


def text_at(*path: str) -> Callable[[Json], str]:
    """A selectable field: the text at a path, empty when absent."""

    def read(obj: Json) -> str:
        value: Any = obj
        for key in path:
            value = (value or {}).get(key)
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)

    return read
