"""Label selectors: syntax, meaning, texts."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.labels import (
    EVERYTHING,
    NOTHING,
    Requirement,
    Selector,
    SelectorError,
    from_label_selector,
    from_set,
    parse_selector,
    requirement,
    validate_label_selector,
)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", ""),
        ("  ", ""),
        ("x=a,y=b,z=c", "x=a,y=b,z=c"),
        ("z==c,x = a", "x=a,z==c"),
        ("x!=a", "x!=a"),
        ("x=", "x="),
        ("x= , z= ", "x=,z="),
        ("x,!y", "x,!y"),
        ("! y", "!y"),
        ("x in (b,a),y notin(c)", "x in (a,b),y notin (c)"),
        ("x in ()", "x in ()"),
        ("x in (,a,,b)", "x in (,a,b)"),
        ("x in (a,)", "x in (,a)"),
        ("x>1,y<7", "x>1,y<7"),
        ("in in (in),notin", "in in (in),notin"),
        ("a.b/c=d_e.f", "a.b/c=d_e.f"),
    ],
)
def test_selectors_print_sorted(text: str, printed: str) -> None:
    assert str(parse_selector(text)) == printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("x,,y", "found ',', expected: identifier after ','"),
        ("x,", "found '', expected: identifier after ','"),
        ("x=a=b", "found '=', expected: ',' or 'end of string'"),
        ("!x=a", "found '=', expected: ',' or 'end of string'"),
        ("x y", "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"),
        ("x!", "unable to parse requirement: found '!', expected: in, notin, =, ==, !=, gt, lt"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("x in a", "unable to parse requirement: found 'a' expected: '('"),
        ("x in (a", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("x in (a b)", "unable to parse requirement: found 'b', expected: ',' or ')'"),
        ("x in (=)", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("x in (a,=)", "unable to parse requirement: found '=', expected: ',', or identifier"),
        ("x=(", "unable to parse requirement: found '(', expected: identifier"),
        ("x>a", "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer"),
    ],
)  # fmt: skip
def test_syntax_errors(text: str, message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        parse_selector(text)
    assert str(caught.value) == message


def test_bad_keys_and_values_are_explained() -> None:
    with pytest.raises(SelectorError) as caught:
        parse_selector("a b/c=d")
    assert str(caught.value).startswith("unable to parse requirement: found 'b/c', expected: in, notin")
    with pytest.raises(SelectorError) as caught:
        parse_selector("-a=d")
    assert str(caught.value).startswith(
        'unable to parse requirement: <nil>: Invalid value: "-a": name part must consist of alphanumeric'
    )
    with pytest.raises(SelectorError) as caught:
        parse_selector("a=-d")
    assert str(caught.value).startswith(
        'unable to parse requirement: values[0][a]: Invalid value: "-d": a valid label must be an empty string'
    )


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("x=y", {"x": "y"}, True),
        ("x=y", {}, False),
        ("x=y,z=w", {"x": "y", "z": "w"}, True),
        ("x=y,z=w", {"x": "y"}, False),
        ("x!=y", {}, True),
        ("x!=y", {"x": "y"}, False),
        ("x=", {}, False),
        ("x=", {"x": ""}, True),
        ("x in (a,b)", {"x": "b"}, True),
        ("x in ()", {"x": ""}, True),
        ("x in (a)", {}, False),
        ("x notin (a)", {}, True),
        ("x notin (a)", {"x": "a"}, False),
        ("x", {"x": ""}, True),
        ("!x", {"x": ""}, False),
        ("!x,y", {"y": "1"}, True),
        ("x>1", {"x": "2"}, True),
        ("x>1", {"x": "1"}, False),
        ("x<10", {"x": "9"}, True),
        ("x<10", {"x": "nine"}, False),
        ("x<10", {}, False),
        ("x>1", {"x": "99999999999999999999"}, False),
    ],
)
def test_matching(text: str, labels: dict[str, str], matches: bool) -> None:
    assert parse_selector(text).matches(labels) is matches


def test_the_empty_selectors() -> None:
    assert from_label_selector(None) is NOTHING
    assert not NOTHING.matches({"a": "b"})
    assert not NOTHING.empty
    assert NOTHING.plus(Requirement("a", "exists")) is NOTHING
    assert from_label_selector({}) == from_set(None) == from_set({}) == EVERYTHING
    assert EVERYTHING.empty
    assert EVERYTHING.matches({})
    assert EVERYTHING != NOTHING


def test_from_a_label_selector() -> None:
    selector = from_label_selector(
        {
            "matchLabels": {"z": "1", "a": "2"},
            "matchExpressions": [
                {"key": "k", "operator": "In", "values": ["v2", "v1"]},
                {"key": "e", "operator": "Exists"},
                {"key": "d", "operator": "DoesNotExist"},
                {"key": "n", "operator": "NotIn", "values": ["x"]},
            ],
        }
    )
    assert str(selector) == "a=2,!d,e,k in (v1,v2),n notin (x),z=1"
    assert selector.matches({"a": "2", "e": "", "k": "v1", "z": "1"})


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"key": "a", "operator": "Gt", "values": ["1"]}, '"Gt" is not a valid label selector operator'),
        ({"key": "a", "operator": "In"}, "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"),
        ({"key": "a", "operator": "Exists", "values": ["x"]}, 'values: Invalid value: ["x"]: values set must be empty for exists and does not exist'),
    ],
)  # fmt: skip
def test_label_selectors_that_cannot_be_used(expression: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectorError) as caught:
        from_label_selector({"matchExpressions": [expression]})
    assert str(caught.value) == message


def test_several_faults_are_bracketed() -> None:
    with pytest.raises(SelectorError) as caught:
        requirement("", "in", [])
    assert str(caught.value).startswith("[key: Invalid value: ")
    assert str(caught.value).endswith(
        ", values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty]"
    )


def test_validation_of_a_label_selector() -> None:
    selector = {
        "matchLabels": {"a": "-"},
        "matchExpressions": [
            {"key": "k", "operator": "In"},
            {"key": "k", "operator": "Exists", "values": ["x"]},
            {"key": "k", "operator": "Gt"},
            {"key": "k", "operator": "NotIn", "values": ["ok", "-"]},
        ],
    }
    texts = [str(e) for e in validate_label_selector(selector, "spec.selector")]
    assert texts[0].startswith('spec.selector.matchLabels: Invalid value: "-": a valid label must be')
    assert texts[1:4] == [
        "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        "spec.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        'spec.selector.matchExpressions[2].operator: Invalid value: "Gt": not a valid selector operator',
    ]
    assert texts[4].startswith(
        'spec.selector.matchExpressions[3].values[1]: Invalid value: "-": a valid label'
    )
    assert len(texts) == 5
    lenient = validate_label_selector(selector, "p", allow_invalid_values=True, allow_unknown_operator=True)
    assert len(lenient) == 3
    assert validate_label_selector(None, "p") == validate_label_selector({}, "p") == []


def test_the_exact_value_of_a_key() -> None:
    selector = parse_selector("a=1,b in (2),c in (3,4),d,!e")
    assert [selector.exact(key) for key in "abcdex"] == ["1", "2", None, None, None, None]


def test_selectors_are_values() -> None:
    assert parse_selector("b=2,a=1") == from_set({"a": "1", "b": "2"})
    assert hash(parse_selector("a=1")) == hash(Selector((Requirement("a", "=", ("1",)),)))
    assert str(from_set({"a": "1"}).plus(Requirement("B", "exists"))) == "B,a=1"
