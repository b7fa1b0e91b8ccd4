"""Read the schema data: OpenAPI definitions of every built-in type by name and by group, version and kind.

A definition is a swagger schema: `type`, `format`, `properties`, `items`, `additionalProperties`, `required`,
`$ref` as `#/definitions/<name>`, and the x-kubernetes-* extensions. Two keys are ours: `x-go-value` (a struct, not a
pointer) and `x-go-type` (the Go name of a named type); `published` leaves them out. Descriptions are in a file of
their own that is read when the first one is asked for. All answers are shared: never change them.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson
import zstandard

Json = dict[str, Any]

_HERE = Path(__file__).resolve().parent
_REF = "#/definitions/"
_GVK = "x-kubernetes-group-version-kind"
_OURS = frozenset({"x-go-value", "x-go-type"})


class SchemaDataMissing(RuntimeError):
    """Raised when the files that an install builds are not there."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"kcp's schema data is missing ({path.name}): run `make update`, or install kcp again"
        )


class NamedKind(Protocol):
    """Anything with group, version and kind, such as machinery's GroupVersionKind."""

    @property
    def group(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def kind(self) -> str: ...


class Gvk(NamedTuple):
    group: str
    version: str
    kind: str


def _read(name: str) -> Any:
    path = _HERE / name
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        raise SchemaDataMissing(path) from None
    return orjson.loads(zstandard.ZstdDecompressor().decompress(packed))


def _exact(text: bytes) -> bytes:
    """A copy as large as its content: orjson leaves room for more."""
    return bytes(memoryview(text))


@cache
def _data() -> tuple[dict[str, bytes], dict[Gvk, str]]:
    """Each definition by name, as JSON; and the names by kind. A server needs few: decoded they take six times as much."""
    definitions: dict[str, Json] = _read("definitions.json.zst")["definitions"]
    texts = {name: _exact(orjson.dumps(definition)) for name, definition in definitions.items()}
    named = {
        Gvk(entry["group"], entry["version"], entry["kind"]): name
        for name, definition in definitions.items()
        for entry in definition.get(_GVK, ())
    }
    return texts, named


@lru_cache(maxsize=16)
def _definition(name: str) -> Json | None:
    text = _data()[0].get(name)
    found: Json | None = None if text is None else orjson.loads(text)
    return found


@cache
def _descriptions() -> dict[str, dict[str, str]]:
    data: dict[str, dict[str, str]] = _read("descriptions.json.zst")
    return data


def names() -> list[str]:
    """The names of all definitions, sorted: `io.k8s.api.apps.v1.Deployment` …"""
    return list(_data()[0])


def gvks() -> list[Gvk]:
    """Every group, version, kind that has a definition, lists and options included, in the order of names."""
    return list(_data()[1])


def definition(gvk: NamedKind) -> tuple[str, Json] | None:
    """Name and definition of a built-in kind; None for an unknown one."""
    name = _data()[1].get(Gvk(gvk.group, gvk.version, gvk.kind))
    found = None if name is None else _definition(name)
    return None if name is None or found is None else (name, found)


def definition_by_name(name: str) -> Json | None:
    """A definition by its name or by a `$ref` to it."""
    return _definition(name.removeprefix(_REF))


def description(name: str, field: str | None = None) -> str:
    """The text of a definition, or of one of its fields; "" when there is none."""
    return _descriptions().get(name.removeprefix(_REF), {}).get(field or "", "")


def published(name: str) -> Json:
    """A definition as Kubernetes publishes it: with descriptions, without the keys that are ours. A fresh dict."""
    texts = _descriptions().get(name, {})
    out = _without_ours(orjson.loads(_data()[0][name]))
    if text := texts.get(""):
        out["description"] = text
    for field, schema in out.get("properties", {}).items():
        if text := texts.get(field):
            schema["description"] = text
    return out


def _without_ours(schema: Json) -> Json:
    out = {key: value for key, value in schema.items() if key not in _OURS}
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _without_ours(out[key])
    if "properties" in out:
        out["properties"] = {name: _without_ours(field) for name, field in out["properties"].items()}
    return out
