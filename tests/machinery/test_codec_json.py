"""JSON bodies: values as Kubernetes holds them, repeated keys, and Go's texts about malformed ones."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from kcp.machinery.codec.json import (
    MAX_DEPTH,
    JsonError,
    decode_json,
    go_type,
    interpret,
    parse_fault,
    undecodable,
)


def message(body: bytes) -> str:
    with pytest.raises(JsonError) as caught:
        decode_json(body)
    return str(caught.value)


def test_a_clean_body() -> None:
    body = b'{"apiVersion":"v1","kind":"Pod","spec":{"a":[1,-2,1.5,true,null,"x:1.0"]}}'
    assert decode_json(body) == (json.loads(body), [])


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"1.0", 1),
        (b"-0.0", 0),
        (b"1e3", 1000),
        (b"1.5", 1.5),
        (b"[1.0, 2.50, 3E0]", [1, 2.5, 3]),
        (b'{"a": 1.0}', {"a": 1}),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"9223372036854775808", float(2**63)),
        (b'{"a":[18446744073709551615]}', {"a": [float(2**64)]}),
        (b"123456789012345678901234567890", 1.2345678901234568e29),
        (b"1e22", 1e22),
    ],
)
def test_numbers_are_int64_or_float64(body: bytes, value: Any) -> None:
    decoded, _ = decode_json(body)
    assert decoded == value
    assert orjson.dumps(decoded) == orjson.dumps(value), "int and float are told apart"


def test_numbers_beyond_a_float_are_refused() -> None:
    assert message(b'{"a":1e999}') == "json: cannot unmarshal number 1e999 into Go value of type float64"


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (b'{"a":1,"a":2}', ['duplicate field "a"']),
        (b'{"spec":{"replicas":1,"x":0,"replicas":2}}', ['duplicate field "spec.replicas"']),
        (b'{"c":[{"n":1},{"n":1,"n":1}]}', ['duplicate field "c[1].n"']),
        (b'{"a":{"b":1,"b":2},"c":1,"a":{"d":1,"d":1}}', ['duplicate field "a.b"', 'duplicate field "a"', 'duplicate field "a.d"']),
        (b'{"a":1,"a":1,"a":1}', ['duplicate field "a"']),
        (b'{"a" : 1, "b" : 1}', []),
        (b'{"a" : 1, "a" : 1}', ['duplicate field "a"']),
        (b'{"x\\u0022":1,"x\\"":2}', ['duplicate field "x\\""']),
        (b'{"a":1,"\\u0061":2}', ['duplicate field "a"']),
        (b'{"k":"\\"\\u003a\\"\\u003A","a":1,"a":2}', ['duplicate field "a"']),
        (b'{"k":"\\":\\":"}', []),
        (b'[[{"a":1,"a":1}]]', ['duplicate field "[0][0].a"']),
    ],
)  # fmt: skip
def test_repeated_keys_are_named_in_order(body: bytes, texts: list[str]) -> None:
    assert decode_json(body) == (json.loads(body), texts)


def test_at_most_a_hundred_repeated_keys_are_named() -> None:
    body = b"{" + b",".join(b'"k%d":1,"k%d":2' % (i, i) for i in range(150)) + b"}"
    assert len(decode_json(body)[1]) == 100


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'"\\ud800"', "\ufffd"),
        (b'{"\\udc00":["a\\ud800b"]}', {"\ufffd": ["a\ufffdb"]}),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\xff"', "\ufffd"),
        (b'{"a":"\xc3("}', {"a": "\ufffd("}),
        (b'"\\u0000"', "\x00"),
    ],
)
def test_what_is_no_text_becomes_the_replacement_character(body: bytes, value: Any) -> None:
    assert decode_json(body) == (value, [])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "unexpected end of JSON input"),
        (b"  ", "unexpected end of JSON input"),
        (b"{", "unexpected end of JSON input"),
        (b'{"a":1', "unexpected end of JSON input"),
        (b'"a', "unexpected end of JSON input"),
        (b"[1,2", "unexpected end of JSON input"),
        (b"hello", "invalid character 'h' looking for beginning of value"),
        (b"<html>", "invalid character '<' looking for beginning of value"),
        (b"apiVersion: v1", "invalid character 'a' looking for beginning of value"),
        (b'{"a":}', "invalid character '}' looking for beginning of value"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b"NaN", "invalid character 'N' looking for beginning of value"),
        (b"[-Infinity]", "invalid character 'I' in numeric literal"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
        (b"{1:2}", "invalid character '1' looking for beginning of object key string"),
        (b'{"a"}', "invalid character '}' after object key"),
        (b'{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
        (b'{"a":[1}', "invalid character '}' after array element"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b"{} x", "invalid character 'x' after top-level value"),
        (b"01", "invalid character '1' after top-level value"),
        (b"{}\x00", r"invalid character '\x00' after top-level value"),
        (b'"\n"', r"invalid character '\n' in string literal"),
        (b'"\\x"', "invalid character 'x' in string escape code"),
        (b'"\\u12g4"', r"invalid character 'g' in \u hexadecimal character escape"),
        (b"nulL", "invalid character 'L' in literal null (expecting 'l')"),
        (b"tru", "invalid character ' ' in literal true (expecting 'e')"),
        (b"-", "invalid character ' ' in numeric literal"),
        (b"1.x", "invalid character 'x' after decimal point in numeric literal"),
        (b"1e+", "invalid character ' ' in exponent of numeric literal"),
    ],
)
def test_malformed_bodies(body: bytes, text: str) -> None:
    assert message(body) == text


def test_nesting_is_bounded() -> None:
    assert decode_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)[1] == []
    for depth in (MAX_DEPTH + 1, 600, 10_001, 200_000):
        assert message(b"[" * depth + b"]" * depth) == "invalid character '[' exceeded max depth"
    assert message(b'{"a":' * 9000 + b"1" + b"}" * 9000) == "invalid character '{' exceeded max depth"


@pytest.mark.parametrize(
    ("tail", "text"),
    [
        (b"}", "invalid character '}' looking for beginning of value"),
        (b"1", "unexpected end of JSON input"),
        (b"1]]", "invalid character ']' after top-level value"),
        (b'{"a" 1}]', "invalid character '1' after object key"),
        (b"{1}]", "invalid character '1' looking for beginning of object key string"),
    ],
)
def test_a_fault_far_into_a_long_body(tail: bytes, text: str) -> None:
    assert message(b"[" + b"1," * 100_000 + tail) == text


def test_what_the_server_tells_about_a_body() -> None:
    with pytest.raises(JsonError) as caught:
        decode_json(b"apiVersion: v1\nkind: PersistentVolume\n")
    assert undecodable("PersistentVolume", b"apiVersion: v1\nkind: Persiste", parse_fault(caught.value)) == (
        "the object provided is unrecognized (must be of type PersistentVolume): couldn't get version/kind; json parse "
        "error: invalid character 'a' looking for beginning of value "
        "(61706956657273696f6e3a2076310a6b696e643a205065727369737465)"
    )
    assert undecodable("Pod", b"", "x").endswith(": x (<empty>)")
    assert undecodable("Pod", b'{"kind":"Pod","apiVersion":"v1","x"', "x").endswith(
        '({"kind":"Pod","apiVersion":"v1 ...)'
    )
    assert undecodable("Pod", b"\x00" * 31, "x").endswith(f"({'00' * 30} ...)")


def test_apiversion_and_kind_must_be_strings() -> None:
    assert interpret({"apiVersion": "v1", "kind": "Pod"}) == ("v1", "Pod")
    assert interpret({}) == interpret(None) == ("", "")
    with pytest.raises(
        JsonError, match=r"json: cannot unmarshal number into Go struct field \.kind of type string"
    ):
        interpret({"kind": 1})
    with pytest.raises(JsonError) as caught:
        interpret([])
    assert str(caught.value) == (
        'json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; '
        'Kind string "json:\\"kind,omitempty\\"" }'
    )
    one_of_each: list[Any] = [{}, [], "", True, 1, 1.5, None]
    assert [go_type(v) for v in one_of_each] == [
        "object", "array", "string", "bool", "number", "number", "null",
    ]  # fmt: skip
