"""SimKube traces, and the MessagePack under them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcp.base.clock import SystemClock
from kcp.replay.importers.formats import detect, import_incident
from kcp.replay.importers.msgpack import MsgpackError, decode
from kcp.replay.importers.reading import Malformed
from kcp.store import check
from kcp.store.protocol import Op
from kcp.store.reader import LogReader
from tests.replay.importers.packing import pack

Json = dict[str, Any]
WEB: Json = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"replicas": 1},
}


def trace(**fields: Any) -> bytes:
    events = [
        {"ts": 1709241485, "applied_objs": [WEB], "deleted_objs": []},
        {"ts": 1709241500, "applied_objs": [{**WEB, "spec": {"replicas": 3}}], "deleted_objs": []},
        {"ts": 1709242000, "applied_objs": [], "deleted_objs": [WEB]},
    ]
    lives = {("apps/v1.Deployment", "default/web"): {17506443: [{"start_ts": 1709241490, "end_ts": None}]}}
    whole = {
        "version": 2,
        "config": {"trackedObjects": {}},
        "events": events,
        "index": {},
        "pod_lifecycles": lives,
        **fields,
    }
    return pack(whole)


def write(tmp_path: Path, data: bytes) -> Path:
    file = tmp_path / "trace"
    file.write_bytes(data)
    return file


def test_applied_and_deleted_objects_are_the_history(tmp_path: Path) -> None:
    file = write(tmp_path, trace())
    assert detect(file) == "simkube"
    import_incident([file], str(tmp_path / "log"), clock=SystemClock())
    assert check.problems(tmp_path / "log") == []
    with LogReader(tmp_path / "log") as log:
        events = list(log.events())
        assert [(e.rv, e.op, e.ts_us // 1_000_000) for e in events] == [
            (1, Op.ADDED, 1709241485), (2, Op.MODIFIED, 1709241500), (3, Op.DELETED, 1709242000),
        ]  # fmt: skip
        assert events[0].record.uid == events[1].record.uid != ""
        ((_, _, given),) = log.inputs()
    assert given.kind == "simkube-pod-lifecycles"
    assert given.payload["lifecycles"][0]["pods"] == {"17506443": [{"start_ts": 1709241490, "end_ts": None}]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (trace(version=1), "the trace has version 1"),
        (trace(events=None), "no SimKube trace: it has no events"),
        (trace()[:-5], "no MessagePack: it ends too early, at byte"),
        (trace() + b"\0", "no MessagePack: there are 1 bytes after its end"),
        (trace(events=[{"applied_objs": []}]), "event 1: an event without ts"),
        (trace(events=[{"ts": 1, "applied_objs": [{"kind": "Pod"}]}]), "event 1: applied_objs has an object without"),
    ],
)  # fmt: skip
def test_what_is_no_trace(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Malformed, match=reason):
        import_incident([write(tmp_path, data)], str(tmp_path / "log"), clock=SystemClock())


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=20,
)


@given(values)
@settings(max_examples=150, deadline=None)
def test_messagepack_comes_back(value: Any) -> None:
    assert decode(pack(value)) == value


@given(st.binary(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_value_or_a_fault(data: bytes) -> None:
    with contextlib.suppress(MsgpackError):
        decode(data)
