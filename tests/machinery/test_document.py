"""The normal form and the spliced resourceVersion."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.machinery.document import Document, normal, splice_revision

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)  # fmt: skip
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4).filter(lambda t: t.isprintable()), v, max_size=3), max_leaves=8)  # fmt: skip
objects = st.fixed_dictionaries(
    {
        "apiVersion": st.sampled_from(["v1", "apps/v1", 'x"metadata":{/v1']),
        "kind": st.sampled_from(["Pod", '"metadata":{']),
        "metadata": st.dictionaries(
            st.sampled_from(["name", "labels", "resourceVersion", "uid"]), values, max_size=4
        ),
    },
    optional={"spec": values, "status": values, "data": values, "a": values},
)


def shuffled(value: Any) -> Any:
    """The same value with the keys of every object in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(objects)
@settings(max_examples=150, deadline=None)
def test_the_normal_form_depends_on_the_value_alone(obj: dict[str, Any]) -> None:
    body = normal(obj)
    assert normal(orjson.loads(body)) == body
    assert normal(shuffled(obj)) == body
    assert normal(json.loads(json.dumps(obj))) == body


@given(objects)
@settings(max_examples=150, deadline=None)
def test_the_normal_form_is_the_object_without_its_version(obj: dict[str, Any]) -> None:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    assert orjson.loads(normal(obj)) == {**obj, "metadata": metadata}


@given(objects, st.integers(1, 2**63))
@settings(max_examples=150, deadline=None)
def test_splicing_sets_the_version_and_nothing_else(obj: dict[str, Any], rv: int) -> None:
    spliced = orjson.loads(splice_revision(normal(obj), rv))
    assert spliced == {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(rv)}}


def test_the_order_of_keys() -> None:
    obj = {
        "status": {},
        "b": {"z": 1, "a": 2},
        "metadata": {"uid": "u", "name": "n"},
        "kind": "K",
        "apiVersion": "v1",
    }
    assert normal(obj) == (
        b'{"apiVersion":"v1","kind":"K","metadata":{"name":"n","uid":"u"},"b":{"a":2,"z":1},"status":{}}'
    )
    assert splice_revision(normal(obj), 7).startswith(
        b'{"apiVersion":"v1","kind":"K","metadata":{"resourceVersion":"7","name"'
    )
    bare = {"apiVersion": "v1", "kind": "K", "metadata": {}}
    assert (
        splice_revision(normal(bare), 7)
        == b'{"apiVersion":"v1","kind":"K","metadata":{"resourceVersion":"7"}}'
    )


def test_normalising_leaves_the_object_alone() -> None:
    obj = {
        "apiVersion": "v1",
        "kind": "K",
        "metadata": {"resourceVersion": "1", "name": "n"},
        "spec": {"b": 1, "a": 2},
    }
    normal(obj)
    assert obj["metadata"] == {"resourceVersion": "1", "name": "n"}
    assert list(obj) == ["apiVersion", "kind", "metadata", "spec"]


def test_text_is_utf8_and_lone_surrogates_are_refused() -> None:
    obj: dict[str, Any] = {"apiVersion": "v1", "kind": "K", "metadata": {"name": "é☃"}}
    assert "é☃".encode() in normal(obj)
    with pytest.raises(TypeError):
        normal({**obj, "data": "\ud800"})


def test_a_document_is_decoded_once() -> None:
    document = Document.at(b'{"apiVersion":"v1","kind":"K","metadata":{"name":"n"}}', 5)
    assert not document.decoded
    assert document.value["metadata"] == {"resourceVersion": "5", "name": "n"}
    assert document.value is document.value
    assert document.decoded
    document.forget_value()
    assert not document.decoded
    assert document.rv == 5
    assert repr(document) == f"<Document rv=5 {len(document.encoded)} bytes>"


def test_a_document_made_of_a_value_carries_the_version_and_spares_decoding() -> None:
    value = {"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}}
    document = Document.at(normal(value), 9, value)
    assert document.decoded
    assert document.value == orjson.loads(document.encoded)
    assert "resourceVersion" not in value["metadata"], "the given value is not changed"
