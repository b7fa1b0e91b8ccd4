"""RuntimeClass: its overhead and its scheduling rules become the pod's.

Source: k8s v1.36 plugin/pkg/admission/runtimeclass/admission.go.
"""

from __future__ import annotations

from typing import Any

from kcp.api.admission.plugin import Attributes, refused
from kcp.base.values import frozen
from kcp.machinery.errors import go_quote
from kcp.machinery.quantity import parse
from kcp.store.protocol import Head, Key

CLASSES = "runtimeclasses.node.k8s.io"

Json = dict[str, Any]


def _amounts(overhead: Json | None) -> Json:
    return {name: parse(value) for name, value in (overhead or {}).items()}


def _set_overhead(attributes: Attributes, spec: Json, runtime_class: Json) -> None:
    overhead = (runtime_class.get("overhead") or {}).get("podFixed")
    if not overhead:
        return
    if spec.get("overhead") and _amounts(spec["overhead"]) != _amounts(overhead):
        raise refused(
            attributes, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
        )
    spec["overhead"] = dict(overhead)


def _set_scheduling(attributes: Attributes, spec: Json, runtime_class: Json) -> None:
    scheduling = runtime_class.get("scheduling") or {}
    selector, own = scheduling.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
    for key in sorted(selector):
        if key in own and own[key] != selector[key]:
            raise refused(
                attributes,
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {selector[key]};"
                f" pod.spec.nodeSelector[{key}] = {own[key]}",
            )
    if selector:
        spec["nodeSelector"] = {**own, **selector}
    present = spec.get("tolerations") or []
    wanted = [t for t in scheduling.get("tolerations") or () if t not in present]
    if wanted:
        spec["tolerations"] = [*present, *wanted]


@frozen
class RuntimeClass:
    store: Head
    name: str = "RuntimeClass"

    def handles(self, attributes: Attributes) -> bool:
        return (
            attributes.kind.resource == "pods"
            and attributes.subresource == ""
            and attributes.operation == "CREATE"
        )

    def _class_of(self, attributes: Attributes) -> Json | None:
        name = attributes.new["spec"].get("runtimeClassName")
        if not name:
            return None
        record = self.store.get(Key(CLASSES, "", name))
        if record is None:
            raise refused(attributes, f"pod rejected: RuntimeClass {go_quote(name)} not found")
        return record.value

    def admit(self, attributes: Attributes) -> None:
        runtime_class = self._class_of(attributes)
        if runtime_class is not None:
            _set_overhead(attributes, attributes.new["spec"], runtime_class)
            _set_scheduling(attributes, attributes.new["spec"], runtime_class)

    def validate(self, attributes: Attributes) -> None:
        spec = attributes.new["spec"]
        if not spec.get("overhead"):
            return
        runtime_class = self._class_of(attributes)
        if runtime_class is None or not (runtime_class.get("overhead") or {}).get("podFixed"):
            raise refused(
                attributes,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            )
