"""What mutating admission policies make: `Object{spec: Object.spec{replicas: 3}}` and `JSONPatch{op: "add", …}`.

    env = environment(variables, (*KUBERNETES, mutations.LIBRARY), mutations.messages, mutations.build)

An `Object` becomes a dict, ready to be merged; a `JSONPatch` a dict with op, path, from and value, whose value is JSON.

Source: k8s v1.36 apiserver/pkg/cel/mutation/{jsonpatch,typeresolver}.go, apiserver/pkg/cel/library/jsonpatch.go.
"""

from __future__ import annotations

from typing import Any, Final

from kcp.machinery.cel.functions import Functions, overload, walk
from kcp.machinery.cel.types import DYN, STRING, Field, Type, object_type
from kcp.machinery.cel.values import CelError, Struct, plain

OBJECT: Final = "Object"
JSON_PATCH: Final = object_type(
    "JSONPatch",
    {
        "op": Field("op", STRING, True),
        "path": Field("path", STRING, True),
        "from": Field("from", STRING),
        "value": Field("value", DYN),
    },
)


def messages(name: str) -> Type | None:
    """JSONPatch, Object, and Object.spec.template for what stands at that path; those have any field."""
    if name == JSON_PATCH.name:
        return JSON_PATCH
    root, _, path = name.partition(".")
    return (
        object_type(name, None)
        if root == OBJECT and not name.endswith(".") and (path or root == name)
        else None
    )


def build(name: str, fields: dict[str, Any]) -> Struct:
    """The message, its fields checked: what stands in `spec` of `Object` must be an `Object.spec`. Raises CelError."""
    if name != JSON_PATCH.name:
        for field, value in fields.items():
            _check(f"{name}.{field}", value)
    return Struct(name, fields)


def _check(expected: str, value: Any) -> None:
    if isinstance(value, Struct):
        if value.name != expected:
            raise CelError(
                f'unexpected type name "{value.name}", expected "{expected}", which matches field name path from root Object type'
            )
    elif isinstance(value, list):
        for item in value:
            _check(f"{expected}.item" if isinstance(item, list) else expected, item)


def patch(value: Struct) -> dict[str, Any]:
    """A JSONPatch message as an operation of a JSON patch."""
    return {key: plain(item) for key, item in value.fields.items()}


def _escape_key(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


LIBRARY: Final[Functions] = {
    "jsonpatch.escapeKey": (
        overload("string_jsonpatch_escapeKey_string", (STRING,), STRING, _escape_key, walk),
    ),
}
