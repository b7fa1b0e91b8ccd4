"""Priority: a pod's priority and preemption policy come from its PriorityClass, or the default one.

Source: k8s v1.36 plugin/pkg/admission/priority/admission.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from kcp.api.admission.plugin import Attributes, refused
from kcp.base.values import frozen
from kcp.store.protocol import Head, Key, Record

CLASSES = "priorityclasses.scheduling.k8s.io"
_PREEMPTS = "PreemptLowerPriority"

Json = dict[str, Any]


def _copied_from_old(spec: Json, old: Json) -> None:
    """A client that knows neither field must not remove them by an update."""
    for field in ("priority", "preemptionPolicy"):
        if spec.get(field) is None and old.get(field) is not None:
            spec[field] = old[field]


@frozen
class Priority:
    store: Head
    name: str = "Priority"
    _default: list[tuple[Sequence[Record], Json | None]] = attrs.field(factory=list, eq=False)
    """The classes that were there last, and which of them is the default. The list is shared until one changes."""

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource in ("pods", CLASSES)
            and attributes.subresource == ""
            and attributes.operation in ("CREATE", "UPDATE")
        )

    def _default_class(self) -> Json | None:
        """Of several default classes the one with the lowest value counts."""
        records = self.store.list(CLASSES)
        if not self._default or self._default[0][0] is not records:
            classes = [record.value for record in records if record.value.get("globalDefault")]
            found = min(classes, key=lambda c: int(c.get("value", 0)), default=None)
            self._default[:] = ((records, found),)
        return self._default[0][1]

    def _class_of(self, attributes: Attributes, spec: Json) -> Json | None:
        name = spec.get("priorityClassName")
        if not name:
            found = self._default_class()
            if found is not None:
                spec["priorityClassName"] = found["metadata"]["name"]
            return found
        record = self.store.get(Key(CLASSES, "", name))
        if record is None:
            raise refused(attributes, f"no PriorityClass with name {name} was found")
        return record.value

    def admit(self, attributes: Attributes) -> None:
        if attributes.kind.resource != "pods":
            return
        spec = attributes.new["spec"]
        if attributes.operation == "UPDATE":
            _copied_from_old(spec, (attributes.old or {}).get("spec") or {})
            return
        found = self._class_of(attributes, spec) or {}
        value, policy = int(found.get("value", 0)), found.get("preemptionPolicy", _PREEMPTS)
        given, given_policy = spec.get("priority"), spec.get("preemptionPolicy")
        computed = "from the given PriorityClass name"
        if given is not None and given != value:
            raise refused(
                attributes,
                f"the integer value of priority ({given}) must not be provided in pod spec;"
                f" priority admission controller computed {value} {computed}",
            )
        if given_policy is not None and given_policy != policy:
            raise refused(
                attributes,
                f"the string value of PreemptionPolicy ({given_policy}) must not be provided in pod spec;"
                f" priority admission controller computed {policy} {computed}",
            )
        spec["priority"], spec["preemptionPolicy"] = value, policy

    def validate(self, attributes: Attributes) -> None:
        if attributes.kind.resource == "pods" or not attributes.new.get("globalDefault"):
            return
        other = self._default_class()
        if other is None:
            return
        name = other["metadata"]["name"]
        if attributes.operation == "CREATE" or name != attributes.name:
            raise refused(
                attributes, f"PriorityClass {name} is already marked as default. Only one default can exist"
            )
