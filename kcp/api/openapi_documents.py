"""OpenAPI documents as JSON values: version 2 for everything, version 3 per group version.

Source: k8s v1.36 api/openapi-spec (what a real server publishes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kcp.api.openapi_operations import (
    DELETE_OPTIONS,
    PARAMETERS,
    PATCH,
    STATUS,
    Operation,
    definition_name,
    list_name,
    operations,
)
from kcp.apis.kind import Kind
from kcp.schemas import load

Json = dict[str, Any]
CustomSchema = Callable[[Kind], "Json | None"]
"""The schema of a custom kind, in the form of a swagger definition; None when it has none."""

_MEDIA = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_PATCH_MEDIA = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_DEFINITIONS, _COMPONENTS = "#/definitions/", "#/components/schemas/"
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_ONE_OF = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ("string", "number"),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ("integer", "string"),
}
"""Types whose union only version 3 can say."""
_SECURITY = {
    "description": "Bearer Token authentication",
    "type": "apiKey",
    "name": "authorization",
    "in": "header",
}


def _custom_definitions(kind: Kind, schema: Json | None) -> dict[str, Json]:
    """The definitions of a custom kind and its list."""
    base: Json = schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"type": "string"}
    properties = {
        **base.get("properties", {}),
        "apiVersion": names,
        "kind": names,
        "metadata": {"$ref": _DEFINITIONS + _OBJECT_META},
    }
    own = definition_name(kind.gvk)
    marks = [{"group": kind.group, "version": kind.version, "kind": kind.kind}]
    items = {"type": "array", "items": {"$ref": _DEFINITIONS + own}}
    return {
        own: {**base, "properties": properties, "x-kubernetes-group-version-kind": marks},
        list_name(kind): {
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": names,
                "kind": names,
                "metadata": {"$ref": _DEFINITIONS + _LIST_META},
                "items": items,
            },
            "x-kubernetes-group-version-kind": [{**marks[0], "kind": f"{kind.kind}List"}],
        },
    }


def definitions(kinds: Sequence[Kind], custom: CustomSchema) -> dict[str, Json]:
    """All definitions that these kinds and their operations need, references followed, sorted by name."""
    found: dict[str, Json] = {}
    wanted = [STATUS, DELETE_OPTIONS, PATCH]
    for kind in kinds:
        if kind.custom:
            found |= _custom_definitions(kind, custom(kind))
        wanted += [definition_name(kind.gvk), list_name(kind)]
        wanted += [definition_name(sub.kind) for sub in kind.subresources if sub.kind is not None]
    for own in list(found.values()):
        wanted += _references(own)
    while wanted:
        name = wanted.pop()
        if name not in found and load.definition_by_name(name) is not None:
            found[name] = load.published(name)
            wanted += _references(found[name])
    return dict(sorted(found.items()))


def _references(schema: Json) -> list[str]:
    out: list[str] = []
    if "$ref" in schema:
        out.append(schema["$ref"].removeprefix(_DEFINITIONS))
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            out += _references(schema[key])
    for field in schema.get("properties", {}).values():
        out += _references(field)
    return out


def _gvk_mark(operation: Operation) -> Json:
    gvk = operation.gvk
    return {"group": gvk.group, "kind": gvk.kind, "version": gvk.version}


def version_2(kinds: Sequence[Kind], git_version: str, custom: CustomSchema) -> Json:
    """The whole swagger document."""
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": git_version},
        "paths": _paths((op for kind in kinds for op in operations(kind)), _path_item_2, _operation_2),
        "definitions": definitions(kinds, custom),
        "securityDefinitions": {"BearerToken": _SECURITY},
        "security": [{"BearerToken": []}],
    }


def version_3(kinds: Sequence[Kind], git_version: str, custom: CustomSchema) -> Json:
    """The document of one group version."""
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": git_version},
        "paths": _paths((op for kind in kinds for op in operations(kind)), _path_item_3, _operation_3),
        "components": {
            "schemas": {name: _schema_3(name, schema) for name, schema in definitions(kinds, custom).items()},
            "securitySchemes": {"BearerToken": _SECURITY},
        },
    }


def _paths(
    every: Iterable[Operation],
    item: Callable[[Operation], Json],
    render: Callable[[Operation], Json],
) -> Json:
    paths: dict[str, Json] = {}
    for operation in every:
        entry = paths.setdefault(operation.path, item(operation))
        entry[operation.method] = render(operation)
    return dict(sorted(paths.items()))


def _parameter_2(name: str, where: str) -> Json:
    kind, text = PARAMETERS[name]
    out: Json = {"name": name, "in": where, "type": kind, "description": text, "uniqueItems": True}
    if where == "path":
        out["required"] = True
    return out


def _parameter_3(name: str, where: str) -> Json:
    kind, text = PARAMETERS[name]
    schema = {"type": kind, "uniqueItems": True}
    out: Json = {"name": name, "in": where, "description": text, "schema": schema}
    if where == "path":
        out["required"] = True
    return out


def _path_item_2(operation: Operation) -> Json:
    fixed = [_parameter_2(name, "path") for name in operation.path_parameters]
    return {"parameters": [*fixed, _parameter_2("pretty", "query")]}


def _path_item_3(operation: Operation) -> Json:
    fixed = [_parameter_3(name, "path") for name in operation.path_parameters]
    return {"parameters": [*fixed, _parameter_3("pretty", "query")]}


def _marks(operation: Operation) -> Json:
    return {
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": _gvk_mark(operation),
    }


def _operation_2(operation: Operation) -> Json:
    parameters = [_parameter_2(name, "query") for name in operation.parameters]
    if operation.body:
        schema = {"$ref": _DEFINITIONS + operation.body}
        parameters.insert(0, {"in": "body", "name": "body", "required": True, "schema": schema})
    answer: Json = {"description": "OK"}
    if operation.answer:
        answer["schema"] = {"$ref": _DEFINITIONS + operation.answer}
    responses: Json = dict.fromkeys(operation.codes, answer)
    responses["401"] = {"description": "Unauthorized"}
    return {
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "schemes": ["https"],
        "consumes": list(_PATCH_MEDIA) if operation.body == PATCH else ["*/*"],
        "produces": list(_MEDIA),
        "parameters": parameters,
        "responses": responses,
        **_marks(operation),
    }


def _operation_3(operation: Operation) -> Json:
    answer: Json = {"description": "OK"}
    if operation.answer:
        schema = {"$ref": _COMPONENTS + operation.answer}
        answer["content"] = {media: {"schema": schema} for media in _MEDIA}
    responses: Json = dict.fromkeys(operation.codes, answer)
    responses["401"] = {"description": "Unauthorized"}
    out: Json = {
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "parameters": [_parameter_3(name, "query") for name in operation.parameters],
        "responses": responses,
        **_marks(operation),
    }
    if operation.body:
        media = _PATCH_MEDIA if operation.body == PATCH else ("*/*",)
        schema = {"$ref": _COMPONENTS + operation.body}
        out["requestBody"] = {"content": {each: {"schema": schema} for each in media}, "required": True}
    return out


def _schema_3(name: str, schema: Json) -> Json:
    if name in _ONE_OF:
        rest = {key: value for key, value in schema.items() if key != "type"}
        return {**rest, "oneOf": [{"type": kind} for kind in _ONE_OF[name]]}
    return _to_3(schema)


def _to_3(schema: Json) -> Json:
    """References into components; a reference with siblings becomes an allOf, which version 3 demands."""
    out = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _to_3(out[key])
    if "properties" in out:
        out["properties"] = {name: _to_3(field) for name, field in out["properties"].items()}
    reference = out.pop("$ref", None)
    if reference is None:
        return out
    target = {"$ref": _COMPONENTS + reference.removeprefix(_DEFINITIONS)}
    return {"allOf": [target], **out} if out else target
