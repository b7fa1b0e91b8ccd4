"""YAML bodies as the API server reads and writes them: sigs.k8s.io/yaml, which is YAML 1.1 as go-yaml v2 has it.

libyaml makes the events; the meaning of plain words (`yes`, `1e3`, `0o17`, `y`), of merge keys and of keys that are no
strings is go-yaml's, not PyYAML's. Timestamps stay strings. Only the first document of a stream is read.
Source: k8s v1.36 sigs.k8s.io/yaml (yaml.go, goyaml.v2/{resolve,decode,encode,sorter}.go).
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cmp_to_key, lru_cache
from io import BytesIO
from math import isinf, isnan
from typing import Any, Final

import yaml
from yaml import _yaml as _libyaml

from kcp.machinery.codec.json import MAX_DEPTH, JsonError, decode_json
from kcp.machinery.errors import go_quote

_PREFIX = "error converting YAML to JSON: "
_TAG = "tag:yaml.org,2002:"
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_MERGE: Final = object()
_NO_KEY: Final = object()

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_FIRST_OF_NUMBER = frozenset("+-.0123456789")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII).fullmatch
_INTEGER: tuple[tuple[re.Pattern[str], int], ...] = tuple(
    (re.compile(pattern, re.ASCII), base)
    for pattern, base in (
        (r"([-+]?)([1-9][0-9]*|0)", 10),
        (r"([-+]?)0[xX]([0-9a-fA-F]+)", 16),
        (r"([-+]?)0[bB]([01]+)", 2),
        (r"([-+]?)0[oO]?([0-7]+)", 8),
    )
)
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", re.ASCII).fullmatch
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(?:[Tt][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:[.,][0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})"
    r"| [0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(?:[.,][0-9]+)?)?",
    re.ASCII,
).fullmatch


class YamlError(ValueError):
    """Raised when a body is no YAML that JSON can hold; the message is that of sigs.k8s.io/yaml."""


def decode_yaml(body: bytes) -> tuple[Any, list[str]]:
    """The first document as a JSON value, and a text for each repeated key: `line 5: key "a" already set in map`.

    The value is fresh: what an alias repeats is copied, within go-yaml's bound on repetition. Raises YamlError,
    `error converting YAML to JSON: yaml: line 2: mapping values are not allowed in this context`.
    """
    if body[:1] == b"{" and (value := _as_json(body)) is not None:
        return value, []
    builder = _Builder()
    try:
        builder.read(_libyaml.CParser(body))
    except yaml.reader.ReaderError as error:
        raise YamlError(f"{_PREFIX}yaml: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        problem = _GO_TEXTS.get(error.problem or "", error.problem)
        raise YamlError(f"{_PREFIX}yaml: {_where(error)}{problem}") from None
    return builder.value, builder.duplicates


def _as_json(body: bytes) -> Any:
    """The value of a body that is JSON without repeated keys, which is what most clients send as YAML; else None."""
    try:
        value, duplicates = decode_json(body)
    except JsonError:
        return None
    return None if duplicates else value


# libyaml tells a tab apart, go-yaml does not.
_GO_TEXTS = {
    "found a tab character that violates indentation": "found character that cannot start any token",
}


def strict_fault(duplicates: Sequence[str]) -> str:
    """The one strict-decoding error that Kubernetes makes of all repeated keys of a YAML body."""
    return f"{_PREFIX}yaml: unmarshal errors:\n  " + "\n  ".join(duplicates)


def _where(error: yaml.MarkedYAMLError) -> str:
    """`line N: ` as go-yaml counts: the scanner from one, the parser from zero, and never line zero."""
    problem = error.problem_mark.line if error.problem_mark else 0
    context = error.context_mark.line if error.context_mark else 0
    if problem and isinstance(error, yaml.scanner.ScannerError):
        problem += 1
    line = problem or context
    return f"line {line}: " if line else ""


def _fail(text: str) -> YamlError:
    return YamlError(f"{_PREFIX}yaml: {text}")


class _Frame:
    """A mapping or sequence being filled."""

    __slots__ = ("anchor", "count", "items", "key", "line")

    def __init__(self, items: dict[str, Any] | list[Any], anchor: str | None, line: int, count: int) -> None:
        self.items = items
        self.anchor = anchor
        self.line = line
        self.count = count
        self.key: Any = _NO_KEY


class _Builder:
    """Makes a value of events without recursion.

    `count` is the number of nodes so far with aliases written out, `aliased` the part of it that aliases brought.
    """

    def __init__(self) -> None:
        self.value: Any = None
        self.duplicates: list[str] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._open_anchors: list[str] = []
        self._count = 0
        self._aliased = 0

    def read(self, parser: Any) -> None:
        handlers: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._on_scalar,
            yaml.MappingStartEvent: self._on_start,
            yaml.SequenceStartEvent: self._on_start,
            yaml.MappingEndEvent: self._on_end,
            yaml.SequenceEndEvent: self._on_end,
            yaml.AliasEvent: self._on_alias,
        }
        while (event := parser.get_event()) is not None:
            if type(event) is yaml.DocumentEndEvent:
                break
            if handler := handlers.get(type(event)):
                handler(event)
        if self._aliased and _depth(self.value) > MAX_DEPTH:
            raise _fail(f"exceeded max depth of {MAX_DEPTH}")

    def _on_scalar(self, event: Any) -> None:
        self._count += 1
        plain = event.implicit[0] and event.style in (None, "") and event.tag is None
        frame = self._stack[-1] if self._stack else None
        if plain and event.value == "<<" and frame and isinstance(frame.items, dict) and frame.key is _NO_KEY:
            frame.key = _MERGE
            return
        value = _resolve_plain(event.value) if plain else _resolve_tagged(event.tag, event.value)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1)
        self._attach(value, event.start_mark.line)

    def _on_start(self, event: Any) -> None:
        self._count += 1
        if len(self._stack) >= MAX_DEPTH:
            raise _fail(f"exceeded max depth of {MAX_DEPTH}")
        items: dict[str, Any] | list[Any] = {} if type(event) is yaml.MappingStartEvent else []
        if event.anchor:
            self._anchors.pop(event.anchor, None)
            self._open_anchors.append(event.anchor)
        self._stack.append(_Frame(items, event.anchor, event.start_mark.line, self._count - 1))

    def _on_end(self, event: Any) -> None:
        frame = self._stack.pop()
        if frame.anchor:
            self._open_anchors.remove(frame.anchor)
            self._anchors[frame.anchor] = (frame.items, self._count - frame.count)
        self._attach(frame.items, frame.line)

    def _on_alias(self, event: Any) -> None:
        found = self._anchors.get(event.anchor)
        if found is None:
            contained = event.anchor in self._open_anchors
            text = "value contains itself" if contained else "referenced"
            raise _fail(
                f"anchor '{event.anchor}' {text}" if contained else f"unknown anchor '{event.anchor}' {text}"
            )
        value, size = found
        self._count += size + 1
        self._aliased += size
        if (
            self._aliased > 100
            and self._count > 1000
            and self._aliased / self._count > _alias_share(self._count)
        ):
            raise _fail("document contains excessive aliasing")
        self._attach(_copy(value), event.start_mark.line)

    def _attach(self, value: Any, line: int) -> None:
        if not self._stack:
            self.value = _json_number(value)
            return
        frame = self._stack[-1]
        if isinstance(frame.items, list):
            frame.items.append(_json_number(value))
        elif frame.key is _NO_KEY:
            frame.key = _checked_key(value)
        elif frame.key is _MERGE:
            frame.key = _NO_KEY
            self._merge(frame.items, value, line)
        else:
            key, frame.key = frame.key, _NO_KEY
            self._set(frame.items, key, _json_number(value), line)

    def _set(self, items: dict[str, Any], key: Any, value: Any, line: int) -> None:
        name = key if type(key) is str else _key_text(key)
        if name in items:
            shown = go_quote(key) if type(key) is str else name
            self.duplicates.append(f"line {line + 1}: key {shown} already set in map")
        items[name] = value

    def _merge(self, items: dict[str, Any], value: Any, line: int) -> None:
        """`<<`: the keys of a mapping, or of several of which the first counts most."""
        sources = [value] if isinstance(value, dict) else value
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            raise _fail("map merge requires map or sequence of maps as the value")
        for source in reversed(sources):
            for key, item in source.items():
                self._set(items, key, item, line)


def _alias_share(count: int) -> float:
    """How much of a document aliases may bring: nearly all of a small one, a tenth of a large one."""
    low, high = 400_000, 4_000_000
    if count <= low:
        return 0.99
    return 0.10 if count >= high else 0.99 - 0.89 * (count - low) / (high - low)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _depth(value: Any) -> int:
    """Containers within each other; stops counting one above the limit."""
    level, depth = [value], -1
    while level and depth <= MAX_DEPTH:
        containers = [item for item in level if isinstance(item, (dict, list))]
        level = [item for c in containers for item in (c.values() if isinstance(c, dict) else c)]
        depth += 1
        if not containers:
            break
    return depth


def _json_number(value: Any) -> Any:
    """As the number comes back from Go's JSON."""
    if type(value) is float:
        if isnan(value) or isinf(value):
            text = "NaN" if isnan(value) else "+Inf" if value > 0 else "-Inf"
            raise YamlError(f"{_PREFIX}json: unsupported value: {text}")
        if value.is_integer() and _INT64_MIN <= value < _INT64_MAX:
            return int(value)
    elif type(value) is int and not _INT64_MIN <= value <= _INT64_MAX:
        return float(value)
    return value


def _checked_key(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        kind = "map[interface {}]interface {}" if isinstance(value, dict) else "[]interface {}"
        raise _fail(f"invalid map key: {kind}")
    if value is None:
        raise YamlError(f"{_PREFIX}unsupported map key of type: %!s(<nil>), key: <nil>")
    return value


def _key_text(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key) if isinstance(key, int) else _float32_text(key)


def _float32_text(value: float) -> str:
    """The shortest text that reads back as the same 32-bit float, which is how sigs.k8s.io/yaml writes such keys."""
    if isnan(value):
        return ".nan"
    try:
        (nearest,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        nearest = float("inf") if value > 0 else float("-inf")
    if isinf(nearest):
        return ".inf" if nearest > 0 else "-.inf"
    for precision in range(1, 10):
        text = f"{value:.{precision}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == nearest:
            break
    return text


@lru_cache(maxsize=4096)
def _resolve_plain(text: str) -> Any:
    """What an unquoted word means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _FIRST_OF_NUMBER:
        return text
    if text[0] == ".":
        return _number(text, text) if _FLOAT(text) else text
    return _number(text.replace("_", ""), text)


def _number(digits: str, text: str) -> Any:
    for pattern, base in _INTEGER:
        match = pattern.fullmatch(digits)
        if match:
            return _bounded(int(match[2], base), match[1]) if len(digits) < 1000 else _as_float(digits, text)
    return _as_float(digits, text) if _FLOAT(digits) else text


def _bounded(value: int, sign: str) -> int | float:
    """Beyond 64 bits a decimal is a float; so is the rest once it was JSON."""
    value = -value if sign == "-" else value
    return value if _INT64_MIN <= value <= _INT64_MAX else float(value)


def _as_float(digits: str, text: str) -> Any:
    try:
        value = float(digits)
    except ValueError:
        return text
    return text if isinf(value) else value


def _resolve_tagged(tag: str | None, text: str) -> Any:
    """A quoted or tagged word."""
    if tag is None or not tag.startswith(_TAG):
        return text
    kind = tag[len(_TAG) :]
    if kind == "binary":
        return _binary(text)
    if kind not in ("bool", "int", "float", "null"):
        return text
    value = _resolve_plain(text)
    if kind == "float" and type(value) is int:
        return float(value)
    found = _yaml_type(value)
    if found != kind:
        raise _fail(f"cannot decode !!{found} `{text}` as a !!{kind}")
    return value


def _binary(text: str) -> str:
    try:
        return base64.b64decode(text, validate=False).decode("utf-8", "replace")
    except binascii.Error:
        raise _fail("!!binary value contains invalid base64 data") from None


def _yaml_type(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float", type(None): "null"}
    return names.get(type(value), "str")


def encode_yaml(value: Any) -> bytes:
    """Block style, keys in go-yaml's natural order (`a2` before `a10`), no aliases, as `kubectl get -o yaml` prints.

    Takes JSON values only.
    """
    stream = BytesIO()
    emitter = _libyaml.CEmitter(stream, allow_unicode=True, encoding="utf-8")
    try:
        for event in _events(value):
            emitter.emit(event)
    finally:
        emitter.dispose()
    out = stream.getvalue()
    # libyaml ends a document that ends in blank lines; go-yaml does not.
    return out.removesuffix(b"...\n") if isinstance(value, (dict, list)) else out


def _events(value: Any) -> Iterator[Any]:
    yield yaml.StreamStartEvent(encoding="utf-8")
    yield yaml.DocumentStartEvent(explicit=False)
    yield from _node_events(value)
    yield yaml.DocumentEndEvent(explicit=False)
    yield yaml.StreamEndEvent()


def _node_events(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield yaml.MappingStartEvent(None, None, True, flow_style=False)
        for key in _in_order(value):
            yield _scalar_event(key, _string_style(key))
            yield from _node_events(value[key])
        yield yaml.MappingEndEvent()
    elif isinstance(value, (list, tuple)):
        yield yaml.SequenceStartEvent(None, None, True, flow_style=False)
        for item in value:
            yield from _node_events(item)
        yield yaml.SequenceEndEvent()
    elif isinstance(value, str):
        yield _scalar_event(value, _string_style(value))
    else:
        yield _scalar_event(_plain_text(value), None)


def _scalar_event(text: str, style: str | None) -> Any:
    return yaml.ScalarEvent(None, None, (True, True), text, style=style)


def _plain_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def _string_style(text: str) -> str | None:
    if "\n" in text:
        return "|"
    if text == "<<" or not isinstance(_resolve_plain(text), str) or _BASE_60(text) or _TIMESTAMP(text):
        return '"'
    return None


def _in_order(value: dict[str, Any]) -> list[str]:
    if all(key.isalpha() for key in value):
        return sorted(value)
    return sorted(value, key=cmp_to_key(_compare_keys))


def _compare_keys(a: str, b: str) -> int:
    """Letters after other characters, runs of digits by their number. Source: goyaml.v2/sorter.go."""
    after_digit = False
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x == y:
            after_digit = x.isdigit()
            continue
        x_letter, y_letter = x.isalpha(), y.isalpha()
        if x_letter and y_letter:
            return -1 if x < y else 1
        if x_letter or y_letter:
            return -1 if x_letter == after_digit else 1
        return _compare_numbers(a, b, i)
    return len(a) - len(b)


def _compare_numbers(a: str, b: str, at: int) -> int:
    lead = ""
    if "0" in (a[at], b[at]):
        run = re.search(r"\d*$", a[:at])
        lead = "1" if run and run[0].strip("0") else ""
    x, y = _digits(a, at), _digits(b, at)
    left, right = int(lead + x or "0"), int(lead + y or "0")
    if left != right:
        return left - right
    return len(x) - len(y) or (-1 if a[at] < b[at] else 1)


def _digits(text: str, at: int) -> str:
    match = re.compile(r"\d*").match(text, at)
    return match[0][:1000] if match else ""
