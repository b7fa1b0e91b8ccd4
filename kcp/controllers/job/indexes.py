"""Completion indexes: sets of numbers as ordered intervals, written as `1,3-5,7`; and a pod's own index.

Source: k8s v1.36 pkg/controller/job/indexed_job_utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kcp.machinery import meta

Json = dict[str, Any]
Intervals = tuple[tuple[int, int], ...]
"""(first, last) in order, never touching."""

INDEX = "batch.kubernetes.io/job-completion-index"
FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURE_COUNT = "batch.kubernetes.io/job-index-ignored-failure-count"
_INT32 = 2**31


def merge(*parts: Iterable[tuple[int, int]]) -> Intervals:
    """The union; touching intervals become one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(interval for part in parts for interval in part):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def of_numbers(numbers: Iterable[int]) -> Intervals:
    return merge((number, number) for number in numbers)


def total(intervals: Intervals) -> int:
    return sum(last - first + 1 for first, last in intervals)


def contains(intervals: Intervals, number: int) -> bool:
    return any(first <= number <= last for first, last in intervals)


def overlap(one: Intervals, other: Intervals) -> int:
    """How many numbers are in both."""
    return sum(max(0, min(b, d) - max(a, c) + 1) for a, b in one for c, d in other)


def text(intervals: Intervals) -> str:
    """Two neighbours are written with a comma, more with a dash."""
    parts = []
    for first, last in intervals:
        dash = "-" if last > first + 1 else ","
        parts.append(str(first) if first == last else f"{first}{dash}{last}")
    return ",".join(parts)


def parse(written: str | None, completions: int) -> Intervals:
    """Read `1,3-5`, without what is not below `completions` or is no number."""
    found: list[tuple[int, int]] = []
    for part in (written or "").split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or int(first) >= completions:
            continue
        found.append((int(first), min(int(last if dash else first), completions - 1)))
    return merge(found)


def first_missing(taken: Intervals, count: int, completions: int) -> list[int]:
    """The lowest `count` numbers below `completions` that are not taken."""
    missing: list[int] = []
    candidate = 0
    for first, last in (*taken, (completions, completions)):
        stop = min(first, completions, candidate + count - len(missing))
        missing.extend(range(candidate, stop))
        if len(missing) >= count:
            break
        candidate = max(candidate, last + 1)
    return missing


def index_of(pod: Json) -> int:
    """The pod's completion index; -1 when it has none."""
    written = meta.annotations(pod).get(INDEX, "")
    return int(written) if written.isascii() and written.isdigit() else -1


def indexes_of(pods: Sequence[Json]) -> Intervals:
    return of_numbers(index for pod in pods if (index := index_of(pod)) >= 0)


def failures_of(pod: Json) -> tuple[int, int]:
    """(counted, ignored) failures of the pod's index before this pod."""
    return _count(pod, FAILURE_COUNT), _count(pod, IGNORED_FAILURE_COUNT)


def _count(pod: Json, annotation: str) -> int:
    written = meta.annotations(pod).get(annotation, "")
    value = int(written) if written.isascii() and written.isdigit() else 0
    return value if value < _INT32 else 0
