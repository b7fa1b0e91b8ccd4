"""Compile OpenAPI definitions into a tree of `Schema` nodes: one form for checking, pruning, defaulting and patches.

Named definitions are compiled once and shared; a recursive type (JSONSchemaProps) is a cycle in the graph. Where a
field refers to a definition and adds marks of its own (patch strategy, map type), the node is a copy that shares
the definition's fields.

Source: k8s v1.36 kube-openapi/pkg/schemaconv/openapi.go (who owns what),
apiextensions-apiserver/pkg/apiserver/schema (structural schemas).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, Final, Literal

import attrs

from kcp.machinery.gvk import GroupVersionKind
from kcp.schemas import load

Json = dict[str, Any]
Resolve = Callable[[str], Json]
Ownership = Literal["leaf", "map", "list", "any"]
Special = Literal["", "quantity", "time", "micro_time", "int_or_string", "raw"]


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()
"""Stands for a default that is not there; null is a value."""


@attrs.define(slots=True, eq=False, repr=False)
class Schema:
    """One node: what a value at this place may be, and how it merges.

    Nodes are frozen once compiled, but for `checker`, which belongs to schema/validate.py, and the plans, which belong
    to patch/ownership.py: what they derived from the node.
    """

    name: str = ""
    """The Go type's bare name: `DeploymentSpec`; "" for anonymous types and custom resources."""
    go_type: str = ""
    """The Go type as errors print it: `v1.DeploymentSpec`, `[]v1.Container`, `int32`; "" outside built-in kinds."""
    type: str = ""
    """object, array, string, integer, number, boolean; "" accepts any JSON."""
    format: str = ""
    special: Special = ""
    fields: dict[str, Schema] = attrs.field(factory=dict)
    required: tuple[str, ...] = ()
    additional: Schema | None = None
    """What values of keys outside `fields` are, when the schema declares them (a map)."""
    items: Schema | None = None
    ownership: Ownership = "leaf"
    """How field managers see it: a leaf has one owner; maps and lists are owned item by item; any: by its value."""
    element: Schema | None = None
    """For maps: the schema of keys outside `fields` in merges; None forbids them."""
    list_type: Literal["atomic", "set", "map"] = "atomic"
    list_map_keys: tuple[str, ...] = ()
    patch_strategies: tuple[str, ...] = ()
    patch_merge_key: str = ""
    nullable: bool = False
    preserve_unknown: bool = False
    embedded: bool = False
    default: Any = UNSET
    in_zero: frozenset[str] = frozenset()
    """Fields that the zero value of the Go type holds: structs that are no pointers, and fields without omitempty."""
    written_empty: frozenset[str] = frozenset()
    """Lists and maps that Go writes when they are empty too; the others vanish."""
    checker: Any = None
    plan: Any = None
    spec_plan: Any = None

    def omits_empty(self, key: str, field: Schema) -> bool:
        """Whether Go leaves this field out when it is an empty list or map."""
        if field.special or not self.go_type or key in self.written_empty:
            return False
        return field.items is not None or (field.additional is not None and not field.fields)

    @property
    def builtin(self) -> bool:
        """Whether a Go type stands behind it, whose decoder complains about types and drops nulls."""
        return bool(self.go_type)

    def child(self, key: str) -> Schema | None:
        """The schema of a member in merges; None when the key is not allowed."""
        return self.fields.get(key) or self.element

    def __repr__(self) -> str:
        return f"<Schema {self.name or self.type or 'any'}>"


DEDUCED: Final = Schema(ownership="any", preserve_unknown=True)
"""Where no schema is known: maps are granular, lists atomic. Source: structured-merge-diff typed.DeducedParseableType."""
DEDUCED.element = DEDUCED

_META = "io.k8s.apimachinery.pkg."
_SPECIAL: Mapping[str, Special] = {
    f"{_META}api.resource.Quantity": "quantity",
    f"{_META}util.intstr.IntOrString": "int_or_string",
    f"{_META}apis.meta.v1.Time": "time",
    f"{_META}apis.meta.v1.MicroTime": "micro_time",
    f"{_META}runtime.RawExtension": "raw",
    f"{_META}apis.meta.v1.FieldsV1": "raw",
    f"{_META}apis.meta.v1.Patch": "raw",
}
_GO_SCALARS: Mapping[tuple[str, str], str] = {
    ("string", "byte"): "[]uint8",
    ("integer", "int64"): "int64",
    ("integer", ""): "int64",
    ("integer", "int32"): "int32",
    ("number", "double"): "float64",
    ("number", ""): "float64",
    ("boolean", ""): "bool",
}
_SITE_MARKS = (
    "x-kubernetes-map-type",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-patch-merge-key",
    "x-go-type",
    "default",
    "nullable",
)
_WRITTEN_EMPTY: Mapping[str, tuple[str, ...]] = {
    "ClusterRole": ("rules",),
    "ContainerImage": ("names",),
    "CustomResourceDefinitionStatus": ("conditions", "storedVersions"),
    "EndpointSlice": ("ports",),
    "HorizontalPodAutoscalerStatus": ("currentMetrics",),
    "Role": ("rules",),
}
"""Lists without omitempty that OpenAPI does not call required. Source: k8s v1.36 staging/src/k8s.io/api/**/types.go."""
_OBJECT_META = f"{_META}apis.meta.v1.ObjectMeta"


def _reference(openapi: Json) -> str:
    """The definition a schema refers to, directly or as the only member of allOf (OpenAPI v3); "" when to none."""
    if "$ref" not in openapi and len(openapi.get("allOf", ())) == 1:
        openapi = openapi["allOf"][0]
    ref: str = openapi.get("$ref", "")
    return ref.rpartition("/")[2]


def _go_name(definition: str) -> tuple[str, str]:
    """`io.k8s.api.core.v1.Container` -> ("Container", "v1.Container")."""
    package, _, name = definition.rpartition(".")
    return name, f"{package.rpartition('.')[2]}.{name}"


def _inline_go_type(node: Schema) -> str:
    if node.items is not None:
        return "[]" + node.items.go_type
    if node.type == "object":
        return "map[string]" + (node.additional.go_type if node.additional else "interface {}")
    return _GO_SCALARS.get((node.type, node.format), "string")


def _list_marks(openapi: Json) -> tuple[Literal["atomic", "set", "map"], tuple[str, ...]]:
    """List type and keys; without a list type the patch strategy decides."""
    kind = openapi.get("x-kubernetes-list-type")
    if kind is not None:
        return kind, tuple(openapi.get("x-kubernetes-list-map-keys", ()))
    if openapi.get("x-kubernetes-patch-strategy") in ("merge", "merge,retainKeys"):
        key = openapi.get("x-kubernetes-patch-merge-key")
        return ("map", (key,)) if key else ("set", ())
    return "atomic", ()


def _ownership(node: Schema, openapi: Json) -> Ownership:
    if node.special:
        return "leaf"
    if node.type == "object" or node.fields:
        return "leaf" if openapi.get("x-kubernetes-map-type") == "atomic" else "map"
    if node.type == "array":
        return "leaf" if node.list_type == "atomic" else "list"
    return "leaf" if node.type else "any"


class _Compiler:
    """Compiles one family of definitions; `go` says that Go types stand behind them."""

    def __init__(self, resolve: Resolve, *, go: bool) -> None:
        self._resolve = resolve
        self._go = go
        self._named: dict[str, Schema] = {}

    def named(self, name: str) -> Schema:
        known = self._named.get(name)
        if known is not None:
            return known
        openapi = self._resolve(name)
        node = self._named[name] = Schema(special=_SPECIAL.get(name, ""))
        if self._go:
            node.name, node.go_type = _go_name(name)
        self._fill(node, openapi)
        return node

    def node(self, openapi: Json) -> Schema:
        ref = _reference(openapi)
        if ref:
            target = self.named(ref)
            return self._marked(target, openapi) if any(mark in openapi for mark in _SITE_MARKS) else target
        node = Schema()
        self._fill(node, openapi)
        if self._go:
            node.go_type = openapi.get("x-go-type") or _inline_go_type(node)
        return node

    def _marked(self, target: Schema, openapi: Json) -> Schema:
        """A copy of a definition's node with the marks of the field that refers to it."""
        node = attrs.evolve(target, checker=None, plan=None)
        self._patch_marks(node, openapi)
        node.go_type = openapi.get("x-go-type", node.go_type)
        node.default = openapi.get("default", node.default)
        node.nullable = openapi.get("nullable", node.nullable)
        map_type = openapi.get("x-kubernetes-map-type")
        if map_type and not node.special:
            node.ownership = "leaf" if map_type == "atomic" else "map"
        return node

    def _patch_marks(self, node: Schema, openapi: Json) -> None:
        strategy = openapi.get("x-kubernetes-patch-strategy", "")
        node.patch_strategies = tuple(strategy.split(",")) if strategy else ()
        node.patch_merge_key = openapi.get("x-kubernetes-patch-merge-key", "")

    def _fill(self, node: Schema, openapi: Json) -> None:
        """Scalars first: a cycle through the children may copy the node before they are there."""
        node.type, node.format = openapi.get("type", ""), openapi.get("format", "")
        node.nullable = openapi.get("nullable", False)
        node.default = openapi.get("default", UNSET)
        node.required = tuple(openapi.get("required", ()))
        node.preserve_unknown = (
            openapi.get("x-kubernetes-preserve-unknown-fields", False) or node.special == "raw"
        )
        node.embedded = openapi.get("x-kubernetes-embedded-resource", False)
        if openapi.get("x-kubernetes-int-or-string"):
            node.special = "int_or_string"
        node.list_type, node.list_map_keys = _list_marks(openapi)
        self._patch_marks(node, openapi)
        properties: Json = openapi.get("properties", {})
        if self._go:
            value_structs = (name for name, field in properties.items() if field.get("x-go-value"))
            node.in_zero = frozenset((*value_structs, *node.required))
            node.written_empty = frozenset((*node.required, *_WRITTEN_EMPTY.get(node.name, ())))
        node.ownership = _ownership(node, openapi)
        if properties and not node.type:
            node.ownership = "map"
        self._fill_children(node, openapi, properties)

    def _fill_children(self, node: Schema, openapi: Json, properties: Json) -> None:
        for name, field in properties.items():
            node.fields[name] = self.node(field)
        if node.embedded:
            _embed_object_meta(node)
        if isinstance(openapi.get("items"), dict):
            node.items = self.node(openapi["items"])
        more = openapi.get("additionalProperties")
        if isinstance(more, dict):
            node.additional = self.node(more)
        elif more is True:
            node.additional = DEDUCED
        free_form = node.preserve_unknown or (more is None and not properties)
        node.element = node.additional or (DEDUCED if free_form else None)


def _embed_object_meta(node: Schema) -> None:
    """A custom resource, or a resource inside one, has the metadata of every object, whatever its schema says."""
    node.fields.setdefault("apiVersion", Schema(type="string"))
    node.fields.setdefault("kind", Schema(type="string"))
    node.fields["metadata"] = named_schema(_OBJECT_META)


def _builtin_definition(name: str) -> Json:
    found = load.definition_by_name(name)
    assert found is not None, f"no definition {name}"
    return found


@cache
def _builtin() -> _Compiler:
    return _Compiler(_builtin_definition, go=True)


def named_schema(name: str) -> Schema:
    """The compiled form of a built-in definition by its full name."""
    return _builtin().named(name)


@lru_cache(maxsize=4096)
def schema_for(gvk: GroupVersionKind) -> Schema | None:
    """The compiled schema of a built-in kind; None when there is none. Cost: milliseconds once, then a lookup."""
    found = load.definition(gvk)
    return None if found is None else named_schema(found[0])


def compile_definition(openapi: Json, resolve: Resolve | None = None) -> Schema:
    """Compile a schema that is no built-in definition; `resolve` maps the names that its references use."""
    return _Compiler(resolve or _no_references, go=False).node(openapi)


def compile_custom_resource(openapi: Json) -> Schema:
    """Compile the schema of a CustomResourceDefinition's version (its openAPIV3Schema), metadata added."""
    node = compile_definition(openapi)
    if node.ownership == "any":
        node.ownership = "map"
    _embed_object_meta(node)
    return node


def _no_references(name: str) -> Json:
    raise ValueError(f"a structural schema has no references, found {name}")
