"""Random requests against a whole API server: never a 500, never a hang, always an object or a Status.

An ordinary run sends the same requests each time; KCP_FUZZ_REQUESTS=20000 asks for that many, and others each time. A
failure prints the request and its seed.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcp.wire.http import Request, Response
from tests.api.fuzzing import Shot, shots
from tests.conformance.clusters import ask_cluster
from tests.conformance.door import Door

PER_CLUSTER = 50
REQUESTS = int(os.environ.get("KCP_FUZZ_REQUESTS", "2000"))
HANG_S = 90.0
"""Virtual seconds; a request may take its own deadline of 60."""
LIKE_KUBERNETES = (
    b'"message":"target.',
    b'"message":"[target.',
    b'"message":"failed to create typed patch object',
    b'"message":"list element types are not identical',
    b"does not contain declared merge key",
    b"merging an object in json but data type is not map or struct",
    b"unable to find api field in struct",
    b'"message":"resourceVersion should not be set on objects to be created',
    b'"message":"Component not found: ',
)
"""What Kubernetes, too, answers with a 500: a Binding without a target, patches whose types do not fit, …"""
_MESSAGE = re.compile(rb"\"?\bmessage\"?: ?['\"]?")
"""However the Status is written: compact, pretty or as YAML."""
OF_UPDATES = b'"message":"strconv.ParseUint: parsing'
"""And an update, not a create, of an object whose resourceVersion is no number."""


async def fire(door: Door, shot: Shot) -> Response:
    request = Request(
        shot.method, shot.path, shot.query, dict(shot.headers), shot.body, peer_certificate=door.certificate
    )
    with anyio.fail_after(HANG_S):
        response = await door.cluster.handler(request)
        if response.stream is not None:
            response.body = await _first(response.stream)
    return response


async def _first(stream: Any) -> bytes:
    """What a watch sends within its first second, or until it ends."""
    seen = b""
    with anyio.move_on_after(1.5):
        async for chunk in stream:
            seen += chunk
            if len(seen) > 100_000:
                break
    await stream.aclose()
    return seen


def judge(shot: Shot, response: Response) -> None:
    """Raises AssertionError for an answer that no client could make sense of."""
    texts = LIKE_KUBERNETES if shot.method == "POST" else (*LIKE_KUBERNETES, OF_UPDATES)
    body = _MESSAGE.sub(b'"message":"', response.body)
    known = response.status == 500 and any(text in body for text in texts)
    assert (response.status != 500 or known) and 200 <= response.status < 600
    assert (
        response.status != 503
        or shot.path.startswith(("/readyz", "/livez", "/healthz"))
        or "proxy" in shot.path
    )
    media_type = response.header("content-type").partition(";")[0]
    if shot.method == "HEAD" or media_type != "application/json" or response.status == 101:
        return
    if response.stream is not None:
        for line in response.body.splitlines():
            assert set(json.loads(line)) == {"type", "object"}
        return
    packed = response.header("content-encoding") == "gzip"
    value = json.loads(gzip.decompress(response.body) if packed else response.body)
    assert isinstance(value, dict) and value, value
    if response.status >= 400:
        assert (value["kind"], value["status"], value["code"]) == ("Status", "Failure", response.status)
        assert value["message"]


async def all_of(door: Door, seed: int, count: int) -> None:
    await door.namespace("fuzz")
    await door.ask("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    for number, shot in enumerate(shots(seed, count)):
        try:
            response = await fire(door, shot)
            judge(shot, response)
        except Exception as error:
            error.add_note(f"request {number} of seed {seed}: {shot}")
            raise


@settings(
    max_examples=max(1, REQUESTS // PER_CLUSTER),
    deadline=None,
    derandomize="KCP_FUZZ_REQUESTS" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**32))
@pytest.mark.timeout(3600)
def test_no_request_breaks_the_server(seed: int) -> None:
    ask_cluster(lambda door: all_of(door, seed, PER_CLUSTER))
