"""Index lists are sets of numbers, whatever they are written as."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kcp.controllers.job import indexes

numbers = st.sets(st.integers(0, 60))


def as_set(intervals: indexes.Intervals) -> set[int]:
    return {number for first, last in intervals for number in range(first, last + 1)}


@given(numbers, numbers)
def test_merging_is_union(one: set[int], other: set[int]) -> None:
    merged = indexes.merge(indexes.of_numbers(one), indexes.of_numbers(other))
    assert as_set(merged) == one | other
    assert indexes.total(merged) == len(one | other)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(merged))


@given(numbers, st.integers(0, 60))
def test_what_is_written_can_be_read(given_: set[int], completions: int) -> None:
    written = indexes.text(indexes.of_numbers(given_))
    assert as_set(indexes.parse(written, completions)) == {n for n in given_ if n < completions}


@given(numbers, st.integers(0, 20), st.integers(0, 60))
def test_missing_indexes_are_the_lowest_that_are_not_taken(
    taken: set[int], count: int, completions: int
) -> None:
    free = [number for number in range(completions) if number not in taken]
    assert indexes.first_missing(indexes.of_numbers(taken), count, completions) == free[:count]


@given(numbers, numbers)
def test_overlap_counts_common_numbers(one: set[int], other: set[int]) -> None:
    assert indexes.overlap(indexes.of_numbers(one), indexes.of_numbers(other)) == len(one & other)


def test_the_written_form_is_kubernetes_own() -> None:
    assert indexes.text(indexes.of_numbers([1, 3, 4, 5, 7])) == "1,3-5,7"
    assert indexes.text(indexes.of_numbers([1, 2])) == "1,2"
    assert indexes.parse("x,2-y,5", 10) == ((5, 5),)
