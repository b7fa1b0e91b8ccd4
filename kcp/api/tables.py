"""Tables and PartialObjectMetadata: what kubectl prints, and what metadata-only clients read.

A table row carries the cells of the kind's printer and, unless asked otherwise, the metadata of its object.
Source: k8s v1.36 apiserver/pkg/registry/rest/table.go, apiserver/pkg/endpoints/handlers/response.go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import attrs
import orjson

from kcp.apis.kind import Column, Kind, Printer
from kcp.machinery.document import Document
from kcp.machinery.errors import BadRequest

IncludeObject = Literal["None", "Metadata", "Object"]
_INCLUDES: dict[str, IncludeObject] = {
    "": "Metadata",
    "None": "None",
    "Metadata": "Metadata",
    "Object": "Object",
}
METADATA_CACHE_SIZE = 16_384

_NAME_DESCRIPTION = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow "
    "a client to request the generation of an appropriate name automatically. Name is primarily intended for creation "
    "idempotence and configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
_CREATED_DESCRIPTION = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed "
    "to be set in happens-before order across separate operations. Clients may not set this value. It is represented "
    "in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)


def _default_cells(obj: dict[str, Any], now: datetime) -> list[Any]:
    del now
    metadata = obj["metadata"]
    return [metadata.get("name", ""), metadata.get("creationTimestamp", "<unknown>")]


DEFAULT_PRINTER = Printer(
    (
        Column("Name", "string", "name", _NAME_DESCRIPTION),
        Column("Created At", "date", "", _CREATED_DESCRIPTION),
    ),
    _default_cells,
)
"""For kinds without columns of their own."""

_metadata_bytes: OrderedDict[tuple[int, int], bytes] = OrderedDict()
"""(rv, length of the object) -> its metadata, encoded. A revision belongs to one object, hence no key is needed."""


def include_object(params: Mapping[str, str]) -> IncludeObject:
    """The `includeObject` parameter. Raises BadRequest."""
    asked = params.get("includeObject", "")
    if asked not in _INCLUDES:
        raise BadRequest(
            "Unable to convert to Table as requested: includeObject: Invalid value: "
            f"\"{asked}\": must be 'Metadata', 'Object', 'None', or empty"
        )
    return _INCLUDES[asked]


def metadata(rv: str, continue_token: str = "", remaining: int | None = None) -> bytes:
    """A list's metadata."""
    out: dict[str, Any] = {"resourceVersion": rv} if rv != "0" else {}
    if continue_token:
        out["continue"] = continue_token
    if remaining is not None:
        out["remainingItemCount"] = remaining
    return orjson.dumps(out)


def partial_metadata(document: Document, version: str) -> bytes:
    """The object's metadata as a PartialObjectMetadata of meta.k8s.io."""
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%b","metadata":%b}' % (
        version.encode(),
        _encoded_metadata(document),
    )


def _encoded_metadata(document: Document) -> bytes:
    key = (document.rv, len(document.encoded))
    encoded = _metadata_bytes.get(key)
    if encoded is None or not document.rv:
        encoded = bytes(
            memoryview(orjson.dumps(document.value["metadata"]))
        )  # orjson's own has room for more
        _metadata_bytes[key] = encoded
        if len(_metadata_bytes) > METADATA_CACHE_SIZE:
            _metadata_bytes.popitem(last=False)
    return encoded


@attrs.define
class TableWriter:
    """Writes tables of one kind. The columns stand in the first table only, as watches want it."""

    kind: Kind
    version: str
    include: IncludeObject
    now: datetime
    _columns_written: bool = False

    @property
    def printer(self) -> Printer:
        return self.kind.printer or DEFAULT_PRINTER

    def whole(self, documents: Sequence[Document], head: bytes, *, blank: bool = False) -> bytes:
        """One Table over these documents; `head` is its metadata. `blank` cells are for bookmarks."""
        columns = b"null" if self._columns_written else column_definitions(self.printer)
        self._columns_written = True
        rows = b",".join([self.row(document, blank) for document in documents])
        return (
            b'{"kind":"Table","apiVersion":"meta.k8s.io/%b","metadata":%b,"columnDefinitions":%b,"rows":[%b]}'
            % (
                self.version.encode(),
                head,
                columns,
                rows,
            )
        )

    def row(self, document: Document, blank: bool = False) -> bytes:
        printer = self.printer
        values = [""] * len(printer.columns) if blank else printer.cells(document.value, self.now)
        cells = orjson.dumps(values)
        if self.include == "Metadata":
            shown = partial_metadata(document, self.version)
        elif self.include == "Object":
            shown = document.encoded
        else:
            shown = b"null"
        return b'{"cells":%b,"object":%b}' % (cells, shown)


def column_definitions(printer: Printer) -> bytes:
    return orjson.dumps(
        [
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            }
            for column in printer.columns
        ]
    )
