"""Field selectors."""

from __future__ import annotations

import pytest

from kcp.machinery.fields import FieldSelectorError, Term, parse_field_selector


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", ""),
        ("=", ""),
        ("x=a", "x=a"),
        ("x==a,y!=b", "x=a,y!=b"),
        ("y=b,,x=a,", "x=a,y=b"),
        ("spec.nodeName=", "spec.nodeName="),
        (r"x=a\,b", r"x=a\,b"),
        (r"x=a\=\\", r"x=a\=\\"),
    ],
)
def test_selectors_print_sorted_and_escaped(text: str, printed: str) -> None:
    assert str(parse_field_selector(text)) == printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid selector: 'x'; can't understand 'x'"),
        ("a=b,x", "invalid selector: 'a=b,x'; can't understand 'x'"),
        ("x=a=b", "invalid field selector: unescaped character in value: 61"),
        (r"x=a\b", r"invalid field selector: invalid escape sequence: \b"),
        ("x=a\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_selectors_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(FieldSelectorError) as caught:
        parse_field_selector(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "fields", "matches"),
    [
        ("", {}, True),
        ("x=a", {"x": "a"}, True),
        ("x=a", {}, False),
        ("x=", {}, True),
        ("x!=", {"x": "a"}, True),
        ("x!=a", {}, True),
        ("x=a,y!=b", {"x": "a", "y": "b"}, False),
        (r"x=a\,b", {"x": "a,b"}, True),
    ],
)
def test_matching(text: str, fields: dict[str, str], matches: bool) -> None:
    assert parse_field_selector(text).matches(fields) is matches


def test_what_a_selector_tells_an_index() -> None:
    selector = parse_field_selector("spec.nodeName=n1,status.phase!=Running,status.phase!=Failed")
    assert selector.terms[0] == Term("spec.nodeName", "=", "n1")
    assert selector.exact("spec.nodeName") == "n1"
    assert selector.exact("status.phase") is None
    assert selector.fields() == ["spec.nodeName", "status.phase"]
    assert not selector.empty
    assert parse_field_selector("").empty


def test_transforming_renames_and_drops() -> None:
    selector = parse_field_selector("spec.host=a,gone=1")
    renamed = selector.transform(lambda f, v: ("spec.nodeName", v) if f == "spec.host" else ("", ""))
    assert str(renamed) == "spec.nodeName=a"
