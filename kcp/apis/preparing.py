"""What several kinds do to a new object before it is written.

That the main resource keeps `status`, and /status everything else, is the registry's work for every kind.
Source: k8s v1.36 apimachinery/pkg/apis/meta/v1/helpers.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kcp.apis.kind import Json

STATUS_RESETS: Mapping[str, tuple[tuple[str, ...], ...]] = {"": (("status",),), "status": (("spec",),)}
"""`Strategy.reset_fields` of a kind with spec and status."""

STATUS_AND_METADATA_RESETS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "": (("status",),),
    "status": (("spec",), ("metadata",)),
}
"""The same for a kind whose /status keeps labels and annotations too."""


def zero_status(**fields: Any) -> Callable[[Json], None]:
    """Gives a new object's status what Go writes of the zero value: the fields without omitempty."""

    def prepare(obj: Json) -> None:
        obj["status"] = {**fields, **(obj.get("status") or {})}

    return prepare


_FOREIGN_TO_STATUS = (
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
)


def keep_metadata(new: Json, old: Json) -> None:
    """For the /status of kinds where not even labels and annotations may come along. ResetObjectMetaForStatus."""
    for key in _FOREIGN_TO_STATUS:
        if key in old["metadata"]:
            new["metadata"][key] = old["metadata"][key]
        else:
            new["metadata"].pop(key, None)
