"""Tables: columns, cells, what is included of the object."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from kcp.api.results import ListResult, ObjectResult
from kcp.apis.catalog import build_catalog
from kcp.apis.kind import Kind
from kcp.machinery.document import Document, normal
from kcp.machinery.errors import BadRequest
from kcp.machinery.gvk import GroupVersionKind
from tests.api.support import call, rendered

CATALOG = build_catalog()
TABLE = "application/json;as=Table;v={};g=meta.k8s.io"
Json = dict[str, Any]


def document(kind: Kind, name: str, **more: Any) -> Document:
    metadata = {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"}}
    value = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **more}
    return Document.at(normal(value), 5, value)


def table(kind: Kind, *documents: Document, query: str = "", version: str = "v1") -> Json:
    path = (
        f"/apis/{kind.group}/{kind.version}/{kind.plural}"
        if kind.group
        else f"/api/{kind.version}/{kind.plural}"
    )
    made = call("GET", f"{path}?{query}", TABLE.format(version))
    made.kind = kind
    value: Json = orjson.loads(rendered(made, ListResult(kind, documents, 7)).body)
    return value


def test_a_table_has_columns_and_a_row_per_object() -> None:
    kind = CATALOG.by_resource("", "v1", "configmaps")
    assert kind is not None
    value = table(kind, document(kind, "a", data={"k": "v"}), document(kind, "b"))
    assert (value["kind"], value["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert value["metadata"] == {"resourceVersion": "7"}
    assert [column["name"] for column in value["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert value["columnDefinitions"][0]["format"] == "name"
    assert [row["cells"][:2] for row in value["rows"]] == [["a", 1], ["b", 0]]


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_rows_carry_the_metadata_in_the_version_asked_for(version: str) -> None:
    kind = CATALOG.by_resource("", "v1", "configmaps")
    assert kind is not None
    value = table(kind, document(kind, "a"), version=version)
    shown = value["rows"][0]["object"]
    assert value["apiVersion"] == shown["apiVersion"] == f"meta.k8s.io/{version}"
    assert shown["kind"] == "PartialObjectMetadata"
    assert shown["metadata"]["labels"] == {"a": "b"}
    assert shown["metadata"]["resourceVersion"] == "5"


def test_the_object_is_included_whole_or_not_at_all_on_request() -> None:
    kind = CATALOG.by_resource("", "v1", "configmaps")
    assert kind is not None
    a = document(kind, "a", data={"k": "v"})
    assert table(kind, a, query="includeObject=Object")["rows"][0]["object"] == a.value
    assert table(kind, a, query="includeObject=None")["rows"][0]["object"] is None
    with pytest.raises(BadRequest, match="Unable to convert to Table as requested"):
        table(kind, a, query="includeObject=Everything")


def test_kinds_without_a_printer_show_name_and_creation() -> None:
    kind = Kind(GroupVersionKind("example.com", "v1", "Thing"), "things", "thing", True, ("get", "list"))
    value = table(kind, document(kind, "a"))
    assert [column["name"] for column in value["columnDefinitions"]] == ["Name", "Created At"]
    assert value["rows"][0]["cells"] == ["a", "2026-01-01T00:00:00Z"]


def test_one_object_is_a_table_of_one_row() -> None:
    kind = CATALOG.by_resource("", "v1", "configmaps")
    assert kind is not None
    made = call("GET", "/api/v1/namespaces/d/configmaps/a", TABLE.format("v1"))
    value = orjson.loads(rendered(made, ObjectResult(document(kind, "a"), kind)).body)
    assert value["metadata"] == {"resourceVersion": "5"}
    assert len(value["rows"]) == 1


@pytest.mark.parametrize("kind", [k for k in CATALOG.kinds() if k.stored], ids=lambda k: str(k.gvk))
def test_every_kind_prints_its_barest_object(kind: Kind) -> None:
    """A column function that cannot stand a missing field would break `kubectl get`."""
    value = table(kind, document(kind, "a"))
    assert len(value["rows"][0]["cells"]) == len(value["columnDefinitions"])
