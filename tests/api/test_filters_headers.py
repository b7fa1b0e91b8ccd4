"""Warning headers."""

from __future__ import annotations

import pytest

from kcp.api.filters.headers import MAX_WARNINGS_BYTES, Headers, quoted
from kcp.base.entropy import SeededEntropy
from kcp.wire.http import Response
from tests.api.support import call


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('unknown field "spec.x"', '"unknown field \\"spec.x\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("two\r\nlines", '"two  lines"'),
    ],
)
def test_texts_are_quoted_and_cannot_break_out(text: str, expected: str) -> None:
    assert quoted(text) == expected


def _warnings(*texts: str) -> list[str]:
    made = call("GET", "/api/v1/pods")
    for text in texts:
        made.warn(text)
    response = Response()
    Headers(SeededEntropy(1)).leave(made, response)
    return [value for name, value in response.headers if name == "warning"]


def test_each_warning_is_a_header_once() -> None:
    assert _warnings("a", "b", "a") == ['299 - "a"', '299 - "b"']


def test_many_warnings_are_cut_not_refused() -> None:
    headers = _warnings(*[f"{n:03}" + "x" * 400 for n in range(40)])
    assert 0 < sum(len(value) for value in headers) <= MAX_WARNINGS_BYTES + 10 * len(headers)
    assert headers[0].startswith('299 - "000x')
