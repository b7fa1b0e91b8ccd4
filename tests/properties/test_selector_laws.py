"""Laws of label and field selectors, against a plain reading of their terms."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.machinery.fields import FieldSelector, FieldSelectorError, Term, parse_field_selector
from kcp.machinery.labels import (
    Requirement,
    Selector,
    SelectorError,
    from_label_selector,
    from_set,
    parse_selector,
    validate_label_selector,
)

LAWS = settings(max_examples=200, deadline=None)

keys = st.sampled_from(["a", "b", "in", "notin", "x.y/z"])
values = st.sampled_from(["", "1", "2", "10", "in", "A_b.c"])
numbers = st.integers(0, 12).map(str)
requirements = st.one_of(
    st.builds(Requirement, keys, st.sampled_from(["exists", "!"])),
    st.builds(lambda k, o, v: Requirement(k, o, (v,)), keys, st.sampled_from(["=", "==", "!="]), values),
    st.builds(lambda k, o, v: Requirement(k, o, (v,)), keys, st.sampled_from(["gt", "lt"]), numbers),
    st.builds(
        lambda k, o, v: Requirement(k, o, tuple(sorted(v))),
        keys,
        st.sampled_from(["in", "notin"]),
        st.sets(values, min_size=1, max_size=3),
    ),
)
selectors = st.lists(requirements, max_size=4).map(
    lambda rs: Selector(tuple(sorted(rs, key=lambda r: r.key)))
)
labels = st.dictionaries(keys, values, max_size=4)


def holds(requirement: Requirement, given: dict[str, str]) -> bool:
    value, wanted = given.get(requirement.key), requirement.values
    match requirement.operator:
        case "exists":
            return value is not None
        case "!":
            return value is None
        case "=" | "==" | "in":
            return value is not None and value in wanted
        case "!=" | "notin":
            return value is None or value not in wanted
        case "gt":
            return value is not None and value.isdigit() and int(value) > int(wanted[0])
        case _:
            return value is not None and value.isdigit() and int(value) < int(wanted[0])


@given(selectors, labels)
@LAWS
def test_a_selector_matches_when_all_its_requirements_hold(selector: Selector, given: dict[str, str]) -> None:
    assert selector.matches(given) == all(holds(r, given) for r in selector.requirements)


@given(selectors)
@LAWS
def test_a_printed_selector_reads_back(selector: Selector) -> None:
    again = parse_selector(str(selector))
    assert again == selector
    assert str(again) == str(selector)


@given(selectors, labels)
@LAWS
def test_the_exact_value_is_the_only_one_that_matches(selector: Selector, given: dict[str, str]) -> None:
    for key in sorted({r.key for r in selector.requirements}):
        exact = selector.exact(key)
        if exact is not None and selector.matches(given):
            assert given[key] == exact


@given(labels, labels)
@LAWS
def test_a_set_selects_its_supersets(wanted: dict[str, str], given: dict[str, str]) -> None:
    selector = from_set(wanted)
    assert selector.matches({**given, **wanted})
    assert selector.matches(given) == (wanted.items() <= given.items())
    assert from_label_selector({"matchLabels": wanted}) == selector


expressions = st.fixed_dictionaries(
    {"key": st.one_of(keys, st.just("-bad")), "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt"])},
    optional={"values": st.lists(st.one_of(values, st.just("-bad")), max_size=2)},
)  # fmt: skip


@given(st.lists(expressions, max_size=3), labels)
@LAWS
def test_a_valid_label_selector_can_be_used_and_an_invalid_one_cannot(
    matches: list[dict[str, object]], wanted: dict[str, str]
) -> None:
    selector = {"matchLabels": wanted, "matchExpressions": matches}
    try:
        from_label_selector(selector)
    except SelectorError:
        assert validate_label_selector(selector, "p")
    else:
        assert not validate_label_selector(selector, "p")


@given(st.text(alphabet="ab1=!,()<> inot.-/\t", max_size=16))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_selector_or_an_error(text: str) -> None:
    try:
        selector = parse_selector(text)
    except SelectorError:
        return
    assert parse_selector(str(selector)) == selector


terms = st.builds(
    Term,
    st.sampled_from(["a", "spec.nodeName", "metadata.name"]),
    st.sampled_from(["=", "!="]),
    st.text(max_size=6),
)


@given(
    st.lists(terms, max_size=4), st.dictionaries(st.sampled_from(["a", "spec.nodeName"]), st.text(max_size=6))
)
@LAWS
def test_field_selectors_read_back_and_match(given_terms: list[Term], fields: dict[str, str]) -> None:
    selector = FieldSelector(tuple(given_terms))
    again = parse_field_selector(str(selector))
    assert sorted(map(str, again.terms)) == sorted(map(str, given_terms))
    expected = all((fields.get(t.field, "") == t.value) == (t.op == "=") for t in given_terms)
    assert again.matches(fields) == selector.matches(fields) == expected


@given(st.text(alphabet="ab=!,\\. ", max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_field_selector_or_an_error(text: str) -> None:
    try:
        selector = parse_field_selector(text)
    except FieldSelectorError:
        return
    assert parse_field_selector(str(selector)) == selector
