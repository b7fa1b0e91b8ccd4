"""JSON bodies as the API server reads them.

orjson does the work; what it does differently from Kubernetes is put right only when a cheap test says so:
repeated keys are found and named, integral floats become ints, numbers beyond int64 floats, bytes that are no UTF-8
and lone surrogates become U+FFFD. Malformed bodies raise with the text of Go's encoding/json.
Source: k8s v1.36 sigs.k8s.io/json; Go encoding/json/scanner.go; apiserver/pkg/endpoints/handlers/rest.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import isinf
from typing import Any, Final

import orjson

from kcp.machinery.errors import go_quote

MAX_DEPTH: Final = 254
"""Objects and lists within each other: what the encoder can write. Kubernetes stops reading at 10,000."""

_MAX_STRICT_ERRORS: Final = 100
_SCAN_MAX: Final = 64 * 1024
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_SURROGATES = re.compile("[\ud800-\udfff]")

# Escapes that hide a `":` from counting, or make one that is none.
_HIDING = (b"\\u0022", b"\\u003a", b"\\u003A")
_spaced_colon = re.compile(rb'"[ \t\r\n]+:').search
# Without digits and signs a float begins like this, wherever it stands; so do a few words in strings.
_E_TO_DOT = bytes.maketrans(b"e", b".")
_SIGN_AND_DIGITS = b"-0123456789"


class JsonError(ValueError):
    """Raised when a body is no JSON, or too deep; the message is Go's."""


def decode_json(body: bytes) -> tuple[Any, list[str]]:
    """The value, fresh and unshared, and a text for each repeated key: `duplicate field "spec.replicas"`.

    Of a repeated key the last value counts. Raises JsonError: `invalid character '}' looking for beginning of value`,
    `unexpected end of JSON input`. The caller tells the client with `undecodable(kind, body, parse_fault(error))`.
    Cost: about twice orjson's for a clean body.
    """
    try:
        value = orjson.loads(body)
        again = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER)
    except (orjson.JSONDecodeError, TypeError):
        return _decode_exactly(body)
    if again != body and (again.count(b'":') != body.count(b'":') or _may_hide_keys(body)):
        return _decode_exactly(body)
    if _may_have_floats(again):
        value = _whole(value)
    return value, []


def _may_have_floats(compact: bytes) -> bool:
    folded = (b'":' + compact).translate(_E_TO_DOT, _SIGN_AND_DIGITS)
    return b'":.' in folded or b",." in folded or b"[." in folded


def _may_hide_keys(body: bytes) -> bool:
    """Whether counting `":` may miss a key of this body. One byte is looked for far quicker than two."""
    if b"\\" in body and b"\\u00" in body and any(escape in body for escape in _HIDING):
        return True
    has_blanks = b"\n" in body or b"\t" in body or b"\r" in body or b'" ' in body
    return has_blanks and _spaced_colon(body) is not None


def parse_fault(error: ValueError) -> str:
    """What the server says was wrong when even apiVersion and kind could not be read."""
    return f"couldn't get version/kind; json parse error: {error}"


def undecodable(kind: str, body: bytes, why: str) -> str:
    """The message of the 400 for a body of unknown kind, where an object of `kind` was expected.

    It ends with the first 30 bytes, as text when they start with a brace, else in hex.
    """
    return f"the object provided is unrecognized (must be of type {kind}): {why} ({_summary(body)})"


def _summary(body: bytes, limit: int = 30) -> str:
    if not body:
        return "<empty>"
    head, more = body[:limit], " ..." if len(body) > limit else ""
    return (head.decode("utf-8", "replace") if body[:1] == b"{" else head.hex()) + more


_FIND_KIND = (
    'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
)


def interpret(value: Any) -> tuple[str, str]:
    """apiVersion and kind, "" where absent. Raises JsonError when the value or one of them has the wrong type."""
    if value is None:
        return "", ""
    if not isinstance(value, dict):
        raise JsonError(f"json: cannot unmarshal {go_type(value)} into Go value of type {_FIND_KIND}")
    for field in ("apiVersion", "kind"):
        found = value.get(field)
        if found is not None and not isinstance(found, str):
            what = f"cannot unmarshal {go_type(found)} into Go struct field .{field} of type string"
            raise JsonError(f"json: {what}")
    return value.get("apiVersion") or "", value.get("kind") or ""


def go_type(value: Any) -> str:
    """What Go's json errors call the JSON type of a value: object, array, string, number, bool, null."""
    names = {dict: "object", list: "array", str: "string", bool: "bool", type(None): "null"}
    return names.get(type(value), "number")


def _decode_exactly(body: bytes) -> tuple[Any, list[str]]:
    repeated: dict[int, list[tuple[str, Any]]] = {}
    kept: list[dict[str, Any]] = []

    def pairs_to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            repeated[id(out)] = pairs
            kept.append(out)
        return out

    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs_to_dict,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_no_constant,
        )
    except (json.JSONDecodeError, RecursionError, _Constant) as error:
        raise JsonError(_fault(body, error)) from None
    duplicates = list(_limited(_duplicates(value, "", repeated))) if repeated else []
    if "\\u" in text:
        value = _well_formed(value)
    try:
        orjson.dumps(value)
    except TypeError:
        raise JsonError(_depth_fault(body)) from None
    return value, duplicates


class _Constant(Exception):
    """Raised for NaN and Infinity, which Python's parser would take."""


def _no_constant(name: str) -> Any:
    raise _Constant(name)


def _fault(body: bytes, error: Exception) -> str:
    """The text of a syntax error. In the far part of a long body it is told from Python's error, for the scan is slow."""
    if isinstance(error, RecursionError):
        return _depth_fault(body)
    if len(body) <= _SCAN_MAX or not isinstance(error, json.JSONDecodeError):
        return syntax_fault(body) or str(error)
    if error.pos <= _SCAN_MAX:
        return syntax_fault(body)
    if error.pos >= len(error.doc) or error.msg.startswith("Unterminated"):
        return "unexpected end of JSON input"
    context = next((text for head, text in _ROUGH if error.msg.startswith(head)), "in string literal")
    return f"invalid character {_quote_char(error.doc[error.pos])} {context}"


def _depth_fault(body: bytes) -> str:
    fault = syntax_fault(body[:_SCAN_MAX])
    return fault if fault.endswith("max depth") else "invalid character '{' exceeded max depth"


_ROUGH = (
    ("Expecting value", "looking for beginning of value"),
    ("Expecting property name", "looking for beginning of object key string"),
    ("Illegal trailing comma", "looking for beginning of value"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Extra data", "after top-level value"),
    ("Invalid \\escape", "in string escape code"),
    ("Invalid \\u", "in \\u hexadecimal character escape"),
)


def _integer(digits: str) -> int | float:
    if len(digits) < 19:
        return int(digits)
    if len(digits) <= 20 and _INT64_MIN <= (value := int(digits)) <= _INT64_MAX:
        return value
    return _float(digits)


def _float(digits: str) -> int | float:
    value = float(digits)
    if isinf(value):
        raise JsonError(f"json: cannot unmarshal number {digits} into Go value of type float64")
    return _as_go_prints(value)


def _as_go_prints(value: float) -> int | float:
    whole = value.is_integer() and _INT64_MIN <= value < _INT64_MAX
    return int(value) if whole else value


def _whole(value: Any) -> Any:
    """The value with its numbers as Kubernetes holds them; changed in place."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(item) not in (str, bool):
                value[key] = _whole(item)
    elif kind is list:
        value[:] = map(_whole, value)
    elif kind is float:
        return _as_go_prints(value)
    return value


def _well_formed(value: Any) -> Any:
    """Lone surrogates replaced."""
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    return [_well_formed(item) for item in value] if isinstance(value, list) else value


def _duplicates(value: Any, path: str, repeated: dict[int, list[tuple[str, Any]]]) -> Iterator[str]:
    """Paths of repeated keys in the order of the text, those in overwritten values too."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _duplicates(item, f"{path}[{i}]", repeated)
    if not isinstance(value, dict):
        return
    seen: set[str] = set()
    for key, item in repeated.get(id(value), value.items()):
        here = f"{path}.{key}" if path else key
        if key in seen:
            yield here
        seen.add(key)
        yield from _duplicates(item, here, repeated)


def _limited(paths: Iterator[str]) -> Iterator[str]:
    """Each path once, a hundred at most."""
    seen: set[str] = set()
    for path in paths:
        if len(seen) == _MAX_STRICT_ERRORS:
            return
        if path not in seen:
            seen.add(path)
            yield f"duplicate field {go_quote(path)}"


_SPACE = " \t\r\n"
_STRING_RUN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX = frozenset("0123456789abcdefABCDEF")
_DIGITS = frozenset("0123456789")


class _Fault(Exception):
    pass


def syntax_fault(body: bytes) -> str:
    """What Go's scanner says about the body; "" when it is well-formed and not too deep."""
    scanner = _Scanner(body.decode("latin-1"))
    try:
        scanner.run()
    except _Fault as fault:
        return str(fault)
    return ""


class _Scanner:
    """Goes over the bytes (as Latin-1 characters) until the first that cannot stand where it stands.

    The end of the input reads as one space, as in Go: `tru` is an invalid `' '` in a literal.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.open: list[str] = []

    def run(self) -> None:
        self.value()
        while self.open:
            self.after_value()
        if (char := self.skip_space()) is not None:
            raise self.fault(char, "after top-level value")

    def fault(self, char: str, context: str) -> _Fault:
        return _Fault(f"invalid character {_quote_char(char)} {context}")

    def take(self) -> str | None:
        """The next character, None at the end."""
        if self.at >= len(self.text):
            return None
        self.at += 1
        return self.text[self.at - 1]

    def take_or_space(self) -> str:
        return self.take() or " "

    def skip_space(self) -> str | None:
        """The next character that is no space, taken."""
        char = self.take()
        while char is not None and char in _SPACE:
            char = self.take()
        return char

    def need(self) -> str:
        char = self.skip_space()
        if char is None:
            raise _Fault("unexpected end of JSON input")
        return char

    def value(self) -> None:
        """One value; of an object or list only the beginning, up to and with its first simple value."""
        char = self.need()
        while char in "{[":
            self.open.append(char)
            if len(self.open) > MAX_DEPTH:
                raise self.fault(char, "exceeded max depth")
            opened, char = char, self.need()
            if char == ("}" if opened == "{" else "]"):
                self.open.pop()
                return
            if opened == "{":
                self.key(char)
                char = self.need()
        self.simple(char)

    def key(self, char: str) -> None:
        if char != '"':
            raise self.fault(char, "looking for beginning of object key string")
        self.string()
        if (char := self.need()) != ":":
            raise self.fault(char, "after object key")

    def after_value(self) -> None:
        char, inside = self.need(), self.open[-1]
        if char == ("}" if inside == "{" else "]"):
            self.open.pop()
        elif char != ",":
            raise self.fault(char, "after object key:value pair" if inside == "{" else "after array element")
        else:
            if inside == "{":
                self.key(self.need())
            self.value()

    def simple(self, char: str) -> None:
        if char == '"':
            self.string()
        elif char == "-" or char in _DIGITS:
            self.number(char)
        elif char in "tfn":
            self.literal({"t": "true", "f": "false", "n": "null"}[char])
        else:
            raise self.fault(char, "looking for beginning of value")

    def string(self) -> None:
        while True:
            match = _STRING_RUN.match(self.text, self.at)
            self.at = match.end() if match else self.at
            char = self.take()
            if char is None:
                raise _Fault("unexpected end of JSON input")
            if char == '"':
                return
            if char != "\\":
                raise self.fault(char, "in string literal")
            self.escape()

    def escape(self) -> None:
        char = self.take_or_space()
        if char == "u":
            for _ in range(4):
                if (char := self.take_or_space()) not in _HEX:
                    raise self.fault(char, "in \\u hexadecimal character escape")
        elif char not in 'bfnrt\\/"':
            raise self.fault(char, "in string escape code")

    def number(self, char: str) -> None:
        if char == "-":
            char = self.take_or_space()
            if char not in _DIGITS:
                raise self.fault(char, "in numeric literal")
        if char != "0":
            self.digits()
        if self.take_if("."):
            self.digit("after decimal point in numeric literal")
        if self.take_if("e") or self.take_if("E"):
            if not self.take_if("+"):
                self.take_if("-")
            self.digit("in exponent of numeric literal")

    def take_if(self, char: str) -> bool:
        found = self.text.startswith(char, self.at)
        self.at += found
        return found

    def digit(self, context: str) -> None:
        char = self.take_or_space()
        if char not in _DIGITS:
            raise self.fault(char, context)
        self.digits()

    def digits(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _DIGITS:
            self.at += 1

    def literal(self, word: str) -> None:
        for expected in word[1:]:
            if (char := self.take_or_space()) != expected:
                raise self.fault(char, f"in literal {word} (expecting '{expected}')")


def _quote_char(char: str) -> str:
    if char == "'":
        return r"'\''"
    if char == '"':
        return "'\"'"
    return f"'{go_quote(char)[1:-1]}'"
