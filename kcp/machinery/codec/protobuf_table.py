"""The messages of Kubernetes' protobuf: which there are, their fields, and which kind is which message.

The table is `protobuf_fields.json.zst`, read when first needed: `{"names": [message], "fields": [[row]]}`, a row being
`[number, JSON name, kind, flags]`. The kind is a scalar, one of Kubernetes' own wire types (Time, Quantity, …) or the
index of a message; the name is "" for a field whose members belong to the object around it. Flags: `l` list, `m` map,
`p` a Go pointer, `r` printed by Go even when zero. It holds the facts of the generated.proto files of k8s v1.36 (field
numbers never change) and, for `r`, the `required` lists of its OpenAPI.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import orjson
import zstandard

from kcp.machinery.gvk import GroupVersionKind

Kind = str | int
Row = list[Any]

MAGIC: Final = b"k8s\x00"
_TABLE: Final = Path(__file__).with_name("protobuf_fields.json.zst")
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WORD: Final = 1 << 64
NUMBER_WIRE: dict[Kind, int] = {"bool": VARINT, "int32": VARINT, "int64": VARINT, "float64": FIXED64}
ABSENT: Final = object()
"""What a reader returns for a value that JSON leaves out, such as the zero time."""

_API = "io.k8s.api."
_META_V1 = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PACKAGES: dict[str, str] = {
    "": f"{_API}core",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
    "internal.apiserver.k8s.io": f"{_API}apiserverinternal",
    "metrics.k8s.io": "io.k8s.metrics.pkg.apis.metrics",
    "custom.metrics.k8s.io": "io.k8s.metrics.pkg.apis.custom_metrics",
    "external.metrics.k8s.io": "io.k8s.metrics.pkg.apis.external_metrics",
    "meta.k8s.io": "io.k8s.apimachinery.pkg.apis.meta",
}
_IN_EVERY_GROUP = frozenset(
    {
        "ApplyOptions", "CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions",
        "Status", "WatchEvent",
    }
)  # fmt: skip
_IN_CORE = frozenset({"APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "List"})
_IN_META = frozenset({"PartialObjectMetadata", "PartialObjectMetadataList"})


class ProtobufError(ValueError):
    """Raised when a body is no Kubernetes protobuf; the message is Kubernetes' or gogo's."""


class UnknownProtobufKind(ProtobufError):
    """Raised when a kind has no message: a custom resource, or nothing known."""

    def __init__(self, gvk: GroupVersionKind) -> None:
        super().__init__(f'no kind "{gvk.kind}" is registered for version "{gvk.api_version}"')
        self.gvk = gvk


@lru_cache(maxsize=1024)
def message_name(gvk: GroupVersionKind) -> str | None:
    """The message of a kind, such as `io.k8s.api.core.v1.Pod`; None when there is none."""
    package = _PACKAGES.get(gvk.group) or _API + gvk.group.partition(".")[0]
    name = f"{package}.{gvk.version}.{gvk.kind}"
    if name in indexes():
        return name
    anywhere = gvk.kind in _IN_EVERY_GROUP
    core = gvk.group == "" and gvk.kind in _IN_CORE
    meta = gvk.group == "meta.k8s.io" and gvk.kind in _IN_META
    return _META_V1 + gvk.kind if anywhere or core or meta else None


@cache
def table() -> tuple[list[str], list[list[Row]]]:
    table = orjson.loads(zstandard.ZstdDecompressor().decompress(_TABLE.read_bytes()))
    return table["names"], table["fields"]


@cache
def indexes() -> dict[str, int]:
    return {name: index for index, name in enumerate(table()[0])}


@cache
def json_schema_index() -> int:
    """The message of a schema inside a CustomResourceDefinition."""
    return indexes()["io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"]
