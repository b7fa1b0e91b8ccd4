"""YAML bodies as sigs.k8s.io/yaml reads and writes them."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.codec.json import MAX_DEPTH
from kcp.machinery.codec.yaml import YamlError, decode_yaml, encode_yaml, strict_fault


def value(text: str) -> Any:
    decoded, duplicates = decode_yaml(text.encode())
    assert duplicates == []
    return decoded


def message(text: str | bytes) -> str:
    with pytest.raises(YamlError) as caught:
        decode_yaml(text if isinstance(text, bytes) else text.encode())
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        *((word, True) for word in ("y", "Y", "yes", "YES", "on", "On", "true", "TRUE")),
        *((word, False) for word in ("n", "no", "No", "off", "OFF", "false", "False")),
        *((word, None) for word in ("", "~", "null", "Null", "NULL")),
        ("oN", "oN"),
        ("0", 0),
        ("-12", -12),
        ("+1", 1),
        ("1_000", 1000),
        ("017", 15),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0b11", -3),
        ("08", 8),
        ("1e3", 1000),
        ("1.0", 1),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1),
        ("1e-7", 1e-7),
        ("18446744073709551616", 2.0**64),
        ("0xFFFFFFFFFFFFFFFF", 2.0**64),
        ("1:30", "1:30"),
        ("1.2.3", "1.2.3"),
        ("0x", "0x"),
        ("1e", "1e"),
        ("-", ["~"]),
        ("100m", "100m"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("'yes'", "yes"),
        ('"1"', "1"),
        ("=", "="),
    ],
)
def test_words(word: str, meaning: Any) -> None:
    if word == "-":
        meaning = [None]
    decoded = value(f"a: {word}\n" if word != "-" else "a:\n-\n")["a"]
    assert decoded == meaning
    assert type(decoded) is type(meaning)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a: !!str 1", "1"),
        ('a: !!int "3"', 3),
        ("a: !!float 3", 3),
        ("a: !!binary aGk=", "hi"),
        ("a: !custom 3", "3"),
        ("a: ! 3", "3"),
        ("a: !!null ''", None),
        ('a: !!bool "yes"', True),
    ],
)
def test_tags(text: str, meaning: Any) -> None:
    assert value(text)["a"] == meaning


def test_keys_become_strings() -> None:
    assert value("1: a\ntrue: b\n1.5: c\n0x10: d\n1e10: e\n") == {
        "1": "a", "true": "b", "1.5": "c", "16": "d", "1e+10": "e",
    }  # fmt: skip
    assert message("? [a]\n: b\n") == "error converting YAML to JSON: yaml: invalid map key: []interface {}"
    assert "unsupported map key of type" in message("~: a\n")


def test_documents() -> None:
    assert value("") is None
    assert value("---\n# nothing\n") is None
    assert value("a: 1\n---\nb: 2\n") == {"a": 1}
    assert value("- a\n- [b, {c: d}]\n") == ["a", ["b", {"c": "d"}]]
    assert value('{"a": {"b": [1, true, null]}}') == {"a": {"b": [1, True, None]}}
    assert value("a: |\n  x\n  y\nb: >-\n  x\n  y\n") == {"a": "x\ny\n", "b": "x y"}


@pytest.mark.parametrize(
    ("text", "decoded", "texts"),
    [
        ("a: 1\nb: 2\na: 3\n", {"a": 3, "b": 2}, ['line 3: key "a" already set in map']),
        ("a:\n  b: 1\n  b:\n    c: 1\n", {"a": {"b": {"c": 1}}}, ['line 4: key "b" already set in map']),
        ("x: {a: 1, a: 1}\nx: 2\n", {"x": 2}, ['line 1: key "a" already set in map', 'line 2: key "x" already set in map']),
        ("1: a\n1: b\n", {"1": "b"}, ["line 2: key 1 already set in map"]),
    ],
)  # fmt: skip
def test_repeated_keys_are_named_by_line(text: str, decoded: Any, texts: list[str]) -> None:
    assert decode_yaml(text.encode()) == (decoded, texts)


def test_all_repeated_keys_make_one_strict_error() -> None:
    _, duplicates = decode_yaml(b"a: 1\na: 2\na: 3\n")
    assert strict_fault(duplicates) == (
        "error converting YAML to JSON: yaml: unmarshal errors:\n"
        '  line 2: key "a" already set in map\n  line 3: key "a" already set in map'
    )


def test_merge_keys() -> None:
    base = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\n"
    assert value(base + "z:\n  <<: *x\n  d: 5\n")["z"] == {"a": 1, "b": 2, "d": 5}
    merged, duplicates = decode_yaml((base + "z:\n  <<: [*x, *y]\n").encode())
    assert merged["z"] == {"a": 1, "b": 2, "c": 4}
    assert duplicates == ['line 4: key "b" already set in map']
    assert "map merge requires map or sequence of maps as the value" in message("<<: 3\n")
    assert value("'<<': 3\n") == {"<<": 3}


def test_aliases_are_copies() -> None:
    decoded = value("a: &a {b: [1]}\nc: *a\nd: &s text\ne: *s\n")
    assert decoded == {"a": {"b": [1]}, "c": {"b": [1]}, "d": "text", "e": "text"}
    decoded["c"]["b"].append(2)
    assert decoded["a"] == {"b": [1]}


def test_aliases_are_bounded() -> None:
    rows = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    rows += [f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}'] * 9)}]" for i in range(20)]
    assert (
        message("\n".join(rows))
        == "error converting YAML to JSON: yaml: document contains excessive aliasing"
    )
    chain = ["a0: &a0 []"] + [f"a{i + 1}: &a{i + 1} [*a{i}]" for i in range(MAX_DEPTH)]
    assert message("\n".join(chain)).startswith("error converting YAML to JSON: yaml: exceeded max depth")
    assert message("a: *x\n") == "error converting YAML to JSON: yaml: unknown anchor 'x' referenced"
    assert message("a: &x [*x]\n") == "error converting YAML to JSON: yaml: anchor 'x' value contains itself"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: b: c\n", "yaml: mapping values are not allowed in this context"),
        ("x: 1\na: b: c\n", "yaml: line 2: mapping values are not allowed in this context"),
        ("x: 1\na: [1\nb: 2\n", "yaml: line 2: did not find expected ',' or ']'"),
        ("x: 1\n\tb: 2\n", "yaml: line 2: found character that cannot start any token"),
        ("a: @x\n", "yaml: found character that cannot start any token"),
        ("a: \x01\n", "yaml: control characters are not allowed"),
        (b"a: \xff\n", "yaml: invalid leading UTF-8 octet"),
        ("a: .nan\n", "json: unsupported value: NaN"),
        ("a: [-.inf]\n", "json: unsupported value: -Inf"),
        ("a: !!int x\n", "yaml: cannot decode !!str `x` as a !!int"),
    ],
)  # fmt: skip
def test_malformed_bodies(text: str | bytes, fault: str) -> None:
    assert message(text) == f"error converting YAML to JSON: {fault}"


@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? "])
def test_nesting_is_bounded(unit: str) -> None:
    for depth in (MAX_DEPTH + 1, 50_000):
        assert message(unit * depth).startswith("error converting YAML to JSON: yaml: ")


def test_output_is_what_kubectl_prints() -> None:
    deployment = {
        "kind": "Deployment",
        "apiVersion": "apps/v1",
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {}, "annotations": None},
        "spec": {
            "replicas": 3,
            "paused": False,
            "ratio": 0.5,
            "template": {"spec": {"containers": [{"name": "c", "args": ["-x", "1", "yes", "a: b", ""], "env": []}]}},
        },
    }  # fmt: skip
    assert encode_yaml(deployment).decode() == (
        "apiVersion: apps/v1\n"
        "kind: Deployment\n"
        "metadata:\n"
        "  annotations: null\n"
        '  creationTimestamp: "2026-01-01T00:00:00Z"\n'
        "  labels: {}\n"
        "  name: web\n"
        "spec:\n"
        "  paused: false\n"
        "  ratio: 0.5\n"
        "  replicas: 3\n"
        "  template:\n"
        "    spec:\n"
        "      containers:\n"
        "      - args:\n"
        "        - -x\n"
        '        - "1"\n'
        '        - "yes"\n'
        "        - 'a: b'\n"
        '        - ""\n'
        "        env: []\n"
        "        name: c\n"
    )


def test_strings_of_several_lines_are_literal_blocks() -> None:
    assert encode_yaml({"a": "x\ny\n", "b": "x\ny", "c": ["\n"]}).decode() == (
        "a: |\n  x\n  y\nb: |-\n  x\n  y\nc:\n- |2+\n\n"
    )


def test_keys_are_in_natural_order() -> None:
    keys = ["a10", "a2", "a", "B", "b", "_", "a-1", "a1b", "0", "10", "9", "a02", "é"]
    printed = [
        line.rpartition(":")[0].strip("\"'")
        for line in encode_yaml(dict.fromkeys(keys)).decode().splitlines()
    ]
    assert printed == ["_", "0", "9", "10", "B", "a", "a-1", "a1b", "a2", "a02", "a10", "b", "é"]


def test_an_object_used_twice_is_written_twice() -> None:
    shared = {"a": 1}
    assert encode_yaml([shared, shared]) == b"- a: 1\n- a: 1\n"
