from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.machinery.errors import BadRequest
from kcp.machinery.fence import MAX_HEADER_LENGTH, LeaseFence, parse

TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


@given(st.builds(LeaseFence, TEXTS, TEXTS, TEXTS, TEXTS, st.integers(0, 2**31)))
def test_a_claim_survives_its_way_through_a_header(claim: LeaseFence) -> None:
    text = claim.header()
    assert text.isascii() and text.isprintable()
    assert parse(text) == claim


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "namespace=a&name=b&uid=c&holder=d",
        "namespace=a&name=b&uid=c&holder=d&epoch=soon",
        "namespace=a&name=b&uid=c&holder=d&epoch=1&more=x",
        "x" * (MAX_HEADER_LENGTH + 1),
    ],
)
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse(text)
