"""SimKube traces, version 2 and later (MessagePack): the objects that users apply, and how long their pods lived.

    {version, config, events: [{ts, applied_objs, deleted_objs}], index, pod_lifecycles, initial_state?}

Times are whole seconds; there are no revisions and no uids, so both are made here. Pods are not recorded, only lifetimes by
a hash of their spec: they are kept as an input of the kind `simkube-pod-lifecycles`.
Source: acrlabs/simkube sk-store/src/{trace,event}.rs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from kcp.replay.importers.kinds import Kinds, change_of
from kcp.replay.importers.msgpack import MsgpackError, decode
from kcp.replay.importers.reading import Faults, Malformed, content
from kcp.replay.importers.source import Told
from kcp.store.foreign import Change
from kcp.store.protocol import Input, Key

Json = dict[str, Any]
OLDEST = 2


def is_trace(beginning: bytes) -> bool:
    """A map whose first key is `version`, as SimKube writes it."""
    head = 3 if beginning[:1] == b"\xde" else 1
    is_map = head == 3 or b"\x81" <= beginning[:1] <= b"\x8f"
    return is_map and beginning[head : head + 8] == b"\xa7version"


def read(files: Sequence[Path], faults: Faults, kinds: Kinds) -> Told:
    changes: list[Change] = []
    inputs: list[Input] = []
    for file in files:
        trace = _trace(file)
        live: set[Key] = set()
        for where, event in _events(file, trace):
            changes += _changes(where, event, faults, kinds, live)
        lifetimes = [
            {"owner": _text(owner), "pods": _text(pods)}
            for owner, pods in trace.get("pod_lifecycles", {}).items()
        ]
        if lifetimes:
            inputs.append(Input("simkube-pod-lifecycles", {"lifecycles": lifetimes}))
    notes = ["it records neither revisions nor uids: they were made up, in the order of the trace"]
    return Told(changes, inputs=inputs, notes=notes)


def _trace(file: Path) -> Json:
    try:
        trace = decode(content(file))
    except MsgpackError as error:
        raise Malformed(f"{file}: no MessagePack: {error}") from None
    if not isinstance(trace, dict) or not isinstance(trace.get("events"), list):
        raise Malformed(f"{file}: no SimKube trace: it has no events")
    version = trace.get("version")
    if not isinstance(version, int) or version < OLDEST:
        raise Malformed(
            f"{file}: the trace has version {version}, which SimKube itself reads no more; record it anew"
        )
    return trace


def _events(file: Path, trace: Json) -> Iterator[tuple[str, Any]]:
    initial = trace.get("initial_state")
    first = trace["events"][0] if trace["events"] else {}
    if initial:
        ts = first.get("ts", 0) if isinstance(first, dict) else 0
        yield f"{file}: initial state", {"ts": ts, "applied_objs": initial, "deleted_objs": []}
    for number, event in enumerate(trace["events"], 1):
        yield f"{file}: event {number}", event


def _changes(where: str, event: Any, faults: Faults, kinds: Kinds, live: set[Key]) -> Iterator[Change]:
    if not isinstance(event, dict) or not isinstance(event.get("ts"), int):
        faults.add(where, "an event without ts")
        return
    ts_us = event["ts"] * 1_000_000
    for removed, field in ((False, "applied_objs"), (True, "deleted_objs")):
        for obj in event.get(field) or ():
            change = change_of(kinds, obj, ts_us=ts_us, removed=removed) if isinstance(obj, dict) else None
            if change is None:
                faults.add(where, f"{field} has an object without apiVersion, kind or name")
                continue
            yield _known(change, live)


def _known(change: Change, live: set[Key]) -> Change:
    """An object that is applied for the first time is new."""
    if change.removed:
        live.discard(change.key)
        return change
    created = change.key not in live
    live.add(change.key)
    return attrs.evolve(change, created=created)


def _text(value: Any) -> Any:
    """As JSON: keys are texts there."""
    if isinstance(value, dict):
        return {str(key): _text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_text(item) for item in value]
    return value
