from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kcp.apis.core.checks import diff, semantic_equal

_JSON = st.recursive(
    st.integers(1, 3) | st.text("ab", min_size=1, max_size=2) | st.just(True),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("xyz", min_size=1, max_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)
_EMPTY: st.SearchStrategy[Any] = st.sampled_from([None, "", [], {}])


@given(value=st.dictionaries(st.text("xyz", min_size=1, max_size=1), _JSON), empty=_EMPTY)
def test_an_empty_field_is_as_if_absent(value: dict[str, Any], empty: Any) -> None:
    assert semantic_equal({**value, "extra": empty}, value)
    assert semantic_equal({"deep": {**value, "extra": empty}}, {"deep": value})


@given(value=st.dictionaries(st.text("xyz", min_size=1, max_size=1), _JSON))
def test_another_field_makes_a_difference(value: dict[str, Any]) -> None:
    assert not semantic_equal({**value, "extra": 1}, value)


def test_zero_counts_where_it_is_a_choice() -> None:
    assert not semantic_equal({"replicas": 0}, {})
    assert not semantic_equal({"enableServiceLinks": False}, {})
    assert semantic_equal({"hostNetwork": False}, {})


def test_diff_shows_the_changed_lines() -> None:
    assert diff({"a": 1, "b": 2}, {"a": 1, "b": 3}) == '   "a": 1,\n-  "b": 2\n+  "b": 3\n }'
