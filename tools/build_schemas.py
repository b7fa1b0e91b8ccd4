"""Make kcp's schema data from the definitions that the PyPI package kubernetes-validate carries.

Runs as the hatch build hook of every install (wheel and editable) and by hand: `python tools/build_schemas.py`.
It writes two files into kcp/schemas, both git-ignored:

    definitions.json.zst    {"version", "definitions"}: the swagger definitions without descriptions
    descriptions.json.zst   {definition: {"": its description, field: description}}

What the package lost on the way from swagger.json is repaired (the null-unions, Quantity's and IntOrString's types,
the defaults that are no zero values), what it added is removed (enums made from the GVK), and two facts of the Go
types are added that decide who owns a field or how an error reads: `x-go-value` (a struct that is no pointer, hence
present in the zero value) and `x-go-type` (a named string or map type).
Source of the data: kubernetes-validate 1.36.0 (Apache-2.0), derived from k8s v1.36 api/openapi-spec/swagger.json.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import zstandard

Json = dict[str, Any]

VERSION = "v1.36.0"
ROOT = Path(__file__).resolve().parent.parent
FACTS = Path(__file__).resolve().parent / "go_facts.json"
OUTPUT = ("definitions.json.zst", "descriptions.json.zst")

_PREFIX = "#/$defs/"
_VALUE_BY_NAME = ("metadata", "spec", "status")
_META = "io.k8s.apimachinery.pkg."
_QUANTITY = f"{_META}api.resource.Quantity"
_INT_OR_STRING = f"{_META}util.intstr.IntOrString"


def source_file() -> Path:
    """Where the installed package keeps the definitions; found without importing it (it drags in jsonschema)."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(
            "kubernetes-validate==1.36.0 is needed to build kcp's schema data; run `make update`"
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    return package / "kubernetes-json-schema" / f"{VERSION}-local" / "_definitions.json"


def _plain_type(schema: Json) -> str | None:
    kind = schema.get("type")
    return next(k for k in kind if k != "null") if isinstance(kind, list) else kind


def _repaired(schema: Json) -> Json:
    """One schema without descriptions, null-unions and the package's own reference prefix; children included."""
    out: Json = {k: v for k, v in schema.items() if k not in ("description", "type", "properties")}
    if kind := _plain_type(schema):
        out["type"] = kind
    if "$ref" in out:
        out["$ref"] = "#/definitions/" + out["$ref"].removeprefix(_PREFIX)
    for key in ("items", "additionalProperties"):
        if isinstance(out.get(key), dict):
            out[key] = _repaired(out[key])
    if "properties" in schema:
        out["properties"] = {name: _repaired(field) for name, field in schema["properties"].items()}
    return out


def _drop_made_up_enums(definition: Json) -> None:
    if "x-kubernetes-group-version-kind" in definition:
        for name in ("apiVersion", "kind"):
            definition["properties"].get(name, {}).pop("enum", None)


def _add_facts(definitions: dict[str, Json], facts: Json) -> None:
    """Mark non-pointer structs and named types, and put back the defaults."""
    for definition in definitions.values():
        for name in _VALUE_BY_NAME:
            field = definition.get("properties", {}).get(name, {})
            if "$ref" in field:
                field["x-go-value"] = True
    for table, key in (("values", "x-go-value"), ("types", "x-go-type"), ("defaults", "default")):
        for name, fields in facts[table].items():
            for field, value in fields.items():
                schema = definitions[name]["properties"][field]
                if value is False and key == "x-go-value":
                    schema.pop(key, None)
                else:
                    schema[key] = value


def _descriptions(source: dict[str, Json], facts: Json) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for name, definition in source.items():
        texts = {"": definition.get("description", "")}
        texts |= {field: s.get("description", "") for field, s in definition.get("properties", {}).items()}
        out[name] = {field: text for field, text in texts.items() if text}
    for name, text in facts["descriptions"].items():
        out[name][""] = text
    return out


def build(source: dict[str, Json], facts: Json) -> tuple[Json, Json]:
    """The contents of the two files, from the package's definitions and our table of facts."""
    definitions = {name: _repaired(definition) for name, definition in sorted(source.items())}
    definitions[_QUANTITY] = {"type": "string"}
    definitions[_INT_OR_STRING] = {"type": "string", "format": "int-or-string"}
    for definition in definitions.values():
        _drop_made_up_enums(definition)
    _add_facts(definitions, facts)
    return {"version": VERSION, "definitions": definitions}, _descriptions(source, facts)


def contents() -> dict[str, bytes]:
    """File name -> uncompressed JSON, from what is installed."""
    source = json.loads(source_file().read_text(encoding="utf-8"))["$defs"]
    parts = build(source, json.loads(FACTS.read_text(encoding="utf-8")))
    return {
        name: json.dumps(part, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        for name, part in zip(OUTPUT, parts, strict=True)
    }


def write(directory: Path) -> list[Path]:
    """Write both files into `directory`; returns their paths. A half-written file never replaces a whole one."""
    compressor = zstandard.ZstdCompressor(level=19)
    paths = []
    for name, data in contents().items():
        path = directory / name
        partial = path.with_suffix(".partial")
        partial.write_bytes(compressor.compress(data))
        partial.replace(path)
        paths.append(path)
    return paths


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # by hand, outside an isolated build
    pass
else:

    class SchemaBuildHook(BuildHookInterface):  # type: ignore[misc,type-arg,unused-ignore]
        """Hatch calls this before it collects files, for wheels, editable installs and source distributions."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            del version, build_data
            write(Path(self.root) / "kcp" / "schemas")


if __name__ == "__main__":
    for written in write(ROOT / "kcp" / "schemas"):
        print(f"{written.relative_to(ROOT)}: {written.stat().st_size} bytes")
