from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.client import answers
from kcp.wire.http import Response


@given(spaced=st.booleans(), swapped=st.booleans())
def test_a_watch_event_keeps_the_bytes_it_can(spaced: bool, swapped: bool) -> None:
    obj = {"kind": "Pod", "metadata": {"name": "é}", "resourceVersion": "7"}}
    encoded = orjson.dumps(obj)
    if swapped:
        line = b'{"object":%b,"type":"ADDED"}' % encoded
    else:
        line = b'{"type":"ADDED","object":%b}' % encoded
    event = answers.decode_event(line.replace(b'":', b'": ') if spaced else line)
    assert (event.type, event.document.rv, event.object) == ("ADDED", 7, obj)
    assert orjson.loads(event.document.encoded) == obj


@given(cuts=st.lists(st.integers(0, 400), max_size=6))
async def test_events_are_put_together_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    lines = [
        b'{"type":"ADDED","object":{"metadata":{"name":"p%d","resourceVersion":"%d"}}}' % (i, i)
        for i in range(5)
    ]
    body = b"\n".join(lines) + b"\n"
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})

    async def stream() -> AsyncIterator[bytes]:
        for start, end in pairwise(edges):
            yield body[start:end]

    events = [
        event async for batch in answers.watch_events(Response(200, stream=stream())) for event in batch
    ]
    assert [event.document.rv for event in events] == list(range(5))


def test_lists_give_their_items_the_kind_they_leave_out() -> None:
    value = {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "9", "continue": "t", "remainingItemCount": 4},
        "items": [{"metadata": {"name": "a"}}],
    }
    page = answers.page_of(Response(200, body=orjson.dumps(value)))
    assert page.items[0]["kind"] == "Pod"
    assert (page.rv, page.continue_, page.remaining) == (9, "t", 4)
    with pytest.raises(ValueError, match="expected a list, got Table"):
        answers.page_of(Response(200, body=b'{"kind":"Table"}'))
