"""Types from schemas: field names, formats, list types, sizes."""

from __future__ import annotations

import pytest

from kcp.machinery.cel.environment import compile, environment
from kcp.machinery.cel.schema_types import escaped, open_object, openapi_type, schema_type
from kcp.machinery.cel.source import CompileError
from kcp.machinery.cel.types import INT, STRING
from kcp.machinery.cel.values import CelError
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.schema.compile import schema_for


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("simple", "simple"), ("my-field", "my__dash__field"), ("a.b", "a__dot__b"), ("a/b", "a__slash__b"), ("namespace", "__namespace__"),
        ("in", "__in__"), ("a__b", "a__underscores__b"), ("a_b", "a_b"), ("a_-b", "a___dash__b"), ("_x", "_x"), ("$ref", None), ("1a", None), ("é", None),
    ],
)  # fmt: skip
def test_names_that_cel_cannot_have_are_written_another_way(name: str, written: str | None) -> None:
    assert escaped(name) == written


def test_escaped_fields_reach_the_document() -> None:
    type = openapi_type(
        {"type": "object", "properties": {"my-field": {"type": "integer"}, "$x": {"type": "string"}}}
    )
    assert type is not None and type.fields is not None and list(type.fields) == ["my__dash__field"]
    program = compile(environment({"self": type}), "self.my__dash__field > 1 && has(self.my__dash__field)")
    assert program({"self": {"my-field": 2}}) is True


def test_what_no_schema_describes_cannot_be_used() -> None:
    schema = {
        "type": "object",
        "properties": {
            "unknown": {"x-kubernetes-preserve-unknown-fields": True},
            "open": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {"known": {"type": "integer"}},
            },
            "list": {"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": True}},
        },
    }
    env = environment({"self": openapi_type(schema) or STRING})
    assert compile(env, "self.open.known == 1")({"self": {"open": {"known": 1, "more": 2}}}) is True
    for source in ("self.unknown", "self.list", "self.open.more"):
        with pytest.raises(CompileError, match="undefined field"):
            compile(env, source)


def test_roots_have_their_metadata() -> None:
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    }
    env = environment({"self": openapi_type(schema, root=True) or STRING})
    value = {"self": {"kind": "Foo", "metadata": {"name": "a"}, "spec": {"x": 1}}}
    assert compile(env, "self.kind == 'Foo' && self.metadata.name == 'a' && self.spec.x == 1")(value) is True
    with pytest.raises(CompileError, match="undefined field 'labels'"):
        compile(env, "self.metadata.labels")


def test_sizes_come_from_the_schema() -> None:
    schema = {
        "type": "object",
        "required": ["s"],
        "properties": {
            "s": {"type": "string", "maxLength": 10}, "e": {"type": "string", "enum": ["ab", "abc"]}, "t": {"type": "string"},
            "l": {"type": "array", "maxItems": 5, "items": {"type": "string"}}, "b": {"type": "array", "items": {"type": "boolean"}},
            "m": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "integer"}},
            "d": {"type": "string", "format": "date-time"}, "u": {"x-kubernetes-int-or-string": True},
        },
    }  # fmt: skip
    type = openapi_type(schema)
    assert type is not None and type.fields is not None
    sizes = {name: field.type.max_size for name, field in type.fields.items()}
    assert sizes == {"s": 40, "e": 3, "t": 3145726, "l": 5, "b": 629145, "m": 3, "d": 37, "u": 3145726}
    assert type.fields["s"].required and not type.fields["e"].required


@pytest.mark.parametrize(
    ("format", "text", "rule"),
    [
        ("duration", "1h30m", "self == duration('90m')"), ("duration", "3 days", "self == duration('72h')"),
        ("duration", "1 week 2 hours", "self.getHours() == 170"), ("date", "2020-02-29", "self.getDate() == 29"),
        ("date-time", "2020-01-01T00:00:00+01:00", "self == timestamp('2019-12-31T23:00:00Z')"),
        ("date-time", "2020-01-01T00:00:00", "self.getFullYear() == 2020"), ("byte", "QUI=", "self == b'AB' && size(self) == 2"),
    ],
)  # fmt: skip
def test_formats_make_values(format: str, text: str, rule: str) -> None:
    env = environment({"self": openapi_type({"type": "string", "format": format}) or STRING})
    assert compile(env, rule)({"self": text}) is True


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("duration", "soon"),
        ("date-time", "now"),
        ("byte", "*"),
        ("date", "2020-02-30"),
    ],
)
def test_what_is_not_of_its_format_has_no_value(format: str, text: str) -> None:
    field = {"type": "object", "properties": {"x": {"type": "string", "format": format}}}
    env = environment({"self": openapi_type(field) or STRING})
    with pytest.raises(CelError):
        compile(env, "self.x == self.x")({"self": {"x": text}})
    assert compile(env, "self.x == self.x || true")({"self": {"x": text}}) is True


def test_built_in_kinds_have_types_too() -> None:
    pod = schema_for(GroupVersionKind("", "v1", "Pod"))
    assert pod is not None
    env = environment(
        {
            "object": schema_type(pod, root=True) or STRING,
            "request": open_object("request", {"operation": STRING, "n": INT}),
        }
    )
    rule = (
        "object.spec.containers.all(c, c.image.startsWith('registry/') && !has(c.securityContext.privileged)) && "
        "object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z') && request.operation == 'CREATE' && "
        "object.metadata.__namespace__ == 'a' || object.spec.nope"
    )
    with pytest.raises(CompileError, match="undefined field 'nope'"):
        compile(env, rule)
    value = {
        "object": {
            "metadata": {"creationTimestamp": "2020-01-01T00:00:00Z", "namespace": "a"},
            "spec": {"containers": [{"name": "a", "image": "registry/a", "securityContext": {}}]},
        },
        "request": {"operation": "CREATE", "n": 1},
    }
    assert compile(env, rule.replace(" || object.spec.nope", ""))(value) is True
