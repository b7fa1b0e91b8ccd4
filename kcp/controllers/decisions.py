"""What is written down about a decision, and what replay compares.

An effect is recorded by what it is about and a digest of all it says; small ones are written out. The object a
write produced is in the log at the outcome's revision, so a decision row stays small.

    {"kind": "Create", "resource": "pods", "namespace": "default", "digest": "9f2c…", "outcome": "ok", "rv": 812}
    {"kind": "All", "slow_start": true, "effects": [...]}
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import attrs
import orjson

from kcp import __version__
from kcp.base.values import frozen
from kcp.controllers import effects as fx
from kcp.machinery import errors

Json = dict[str, Any]

INLINE_BYTES = 400
"""Effects whose JSON is at most this long are written out in the decision row."""

_TARGET_FIELDS = (
    "resource",
    "subresource",
    "namespace",
    "name",
    "type",
    "reason",
    "seconds",
    "method",
    "path",
    "provider",
)


class DecisionSink(Protocol):
    """Where decisions go: the log, in production."""

    def next_id(self) -> int: ...

    def record(self, decided: Decided) -> None: ...


@frozen
class Decided:
    """One decision as the driver hands it over.

    `frontier` holds what changed since this run's previous row and, under `#`, the number of the row in its run:
    rows of one run are written in that order, ids are given when decisions begin. A row with `*` is complete.
    """

    id: int
    controller: str
    key: str
    trigger: str
    frontier: dict[str, int]
    now_us: int
    effects: list[Json]
    memo_before: Json | None
    code_hash: str
    config_hash: str
    epoch: int
    first_rv: int
    last_rv: int
    duration_us: int


def digest(value: Any) -> str:
    """Sixteen hex digits that stand for a JSON value."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def describe(effect: fx.Effect) -> Json:
    """An effect without its outcome: kind, target, digest, and the whole of it when it is small."""
    if isinstance(effect, fx.All):
        described: Json = {"kind": "All", "effects": [describe(e) for e in effect.effects]}
        if effect.slow_start:
            described["slow_start"] = True
        return described
    kind: Any = type(effect)
    body = {
        name: value for name in _fields_of(kind) if (value := getattr(effect, name)) not in (None, "", False)
    }
    described = {"kind": kind.__name__}
    described.update((name, body[name]) for name in _TARGET_FIELDS if name in body)
    _name_target(described, body)
    encoded = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
    described["digest"] = hashlib.sha256(encoded).hexdigest()[:16]
    if len(encoded) <= INLINE_BYTES:
        described["args"] = body
    return described


@cache
def _fields_of(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(kind))


def _name_target(described: Json, body: Json) -> None:
    """Updates name their target inside the object; events what they regard."""
    subject = body.get("object") or body.get("regarding")
    if not isinstance(subject, dict):
        return
    metadata = subject.get("metadata", {})
    for ours, theirs in (("namespace", "namespace"), ("name", "name"), ("generateName", "generateName")):
        if ours not in described and metadata.get(theirs):
            described[ours] = metadata[theirs]


def record_outcome(described: Json, outcome: fx.Outcome) -> Json:
    """The described effect with what became of it."""
    if outcome.skipped:
        return {**described, "outcome": "skipped"}
    if described["kind"] == "All":
        parts = [record_outcome(d, o) for d, o in zip(described["effects"], outcome.all, strict=True)]
        return {**described, "effects": parts}
    if outcome.error is not None:
        return {**described, "outcome": outcome.error.reason or "Unknown", "error": outcome.error.status()}
    written = {**described, "outcome": "ok"}
    if outcome.rv:
        written["rv"] = outcome.rv
    if described["kind"] in ("Live", "LiveList"):
        written["saw"] = _seen(described, outcome)
    elif described["kind"] in ("Request", "External") and outcome.object is not None and not outcome.rv:
        written["saw"] = outcome.object
    return written


def _seen(described: Json, outcome: fx.Outcome) -> Any:
    """What a live read saw: revisions where the log has the objects, the object itself for Leases."""
    whole = described.get("resource") == "leases.coordination.k8s.io"

    def short(obj: Json) -> Json:
        metadata = obj["metadata"]
        if whole:
            return obj
        return {
            "name": metadata["name"],
            "namespace": metadata.get("namespace", ""),
            "rv": metadata["resourceVersion"],
        }

    if described["kind"] == "LiveList":
        return [short(obj) for obj in outcome.items]
    return short(outcome.object) if outcome.object is not None else None


def same_effect(ours: Json, recorded: Json) -> bool:
    """Whether a re-made effect says the same as the recorded one, outcomes aside."""
    if ours["kind"] != recorded["kind"]:
        return False
    if ours["kind"] == "All":
        mine, theirs = ours["effects"], recorded["effects"]
        return len(mine) == len(theirs) and all(same_effect(a, b) for a, b in zip(mine, theirs, strict=True))
    return bool(ours["digest"] == recorded["digest"])


def code_hash(plan: Any) -> str:
    """Version of the package and digest of the planner's module and of the modules of this room that it uses."""
    module = inspect.getmodule(plan)
    sources = [__version__]
    if module is not None:
        sources.append(_source(module))
        package = module.__name__.rpartition(".")[0]
        for name, value in sorted(vars(module).items()):
            origin = inspect.getmodule(value)
            if (
                origin is not None
                and origin is not module
                and package
                and origin.__name__.startswith(package)
                and name != "fx"
            ):
                sources.append(_source(origin))
    return digest(sorted(set(sources)))


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return module.__name__  # built in, or without a source


def config_hash(settings: Mapping[str, Any]) -> str:
    return digest(dict(settings))


def error_from_record(recorded: Json) -> errors.ApiError:
    return errors.from_status(recorded["error"])
