from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.base.heap import KeyedHeap

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["push", "delete", "pop"]), st.sampled_from("abcdef"), st.integers(0, 5)),
    max_size=200,
)


@given(operations=OPERATIONS)
def test_pops_the_smallest_live_value_ties_by_first_insertion(operations: list[tuple[str, str, int]]) -> None:
    heap: KeyedHeap[str, int] = KeyedHeap(lambda value: value)
    model: dict[str, tuple[int, int]] = {}
    sequence = 0
    for what, key, value in operations:
        if what == "push":
            sequence += 1
            first = model[key][1] if key in model else sequence
            heap.push(key, value)
            model[key] = (value, first)
        elif what == "delete":
            assert heap.delete(key) == (model.pop(key)[0] if key in model else None)
        elif model:
            expected = min(model, key=lambda k: model[k])
            assert heap.pop() == (expected, model.pop(expected)[0])
        else:
            with pytest.raises(IndexError):
                heap.pop()
        assert len(heap) == len(model)
        assert all(heap.get(k) == v[0] for k, v in model.items())
    assert len(heap._heap) <= 2 * len(model) + 64


def test_push_if_absent_and_membership() -> None:
    heap: KeyedHeap[str, int] = KeyedHeap(lambda value: -value)
    assert heap.push_if_absent("a", 1)
    assert not heap.push_if_absent("a", 9)
    heap.push("b", 5)
    assert heap.peek() == ("b", 5)
    assert "a" in heap
    assert list(heap) == [1, 5]
