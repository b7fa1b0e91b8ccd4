"""KWOK recordings (`kwokctl snapshot record`): YAML documents, the objects at the start and then ResourcePatches.

    apiVersion: action.kwok.x-k8s.io/v1alpha1
    kind: ResourcePatch
    resource: {group: apps, version: v1, resource: deployments}
    target: {name: web, namespace: default}
    durationNanosecond: 1500000000          since the recording began
    method: create | patch | delete
    template: …                              the object, or a strategic merge patch (merge patch for custom kinds)

There are no revisions, so they are made here, in the order of the recording; of times only distances are told.
Source: kubernetes-sigs/kwok pkg/apis/action/v1alpha1/resource_patch_types.go, pkg/utils/patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from kcp.machinery.codec.yaml import YamlError, decode_yaml
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.patch.merge_patch import apply_merge_patch
from kcp.machinery.patch.strategic import strategic_merge
from kcp.machinery.schema.compile import schema_for
from kcp.replay.importers.kinds import Kinds, change_of
from kcp.replay.importers.moments import written_us
from kcp.replay.importers.reading import Faults, content
from kcp.replay.importers.source import Told
from kcp.store.foreign import Change
from kcp.store.protocol import Key

Json = dict[str, Any]
GROUP = b"action.kwok.x-k8s.io/"
METHODS = frozenset({"create", "patch", "delete"})


def read(files: Sequence[Path], faults: Faults, kinds: Kinds, start_us: int = 0) -> Told:
    """`start_us`: when the recording began; 0: when the newest object at its start was written, else 1970."""
    found = [each for file in files for each in documents(file, faults)]
    patches = [(where, doc) for where, doc in found if doc.get("kind") == "ResourcePatch"]
    others = [(where, doc) for where, doc in found if doc.get("kind") != "ResourcePatch"]
    told = start_us or max(
        (written_us(doc) for _, doc in others if isinstance(doc.get("metadata"), dict)), default=0
    )
    recording = _Recording(faults, kinds, told)
    for where, doc in others:
        recording.put(where, doc, told, created=False)
    for where, doc in patches:
        recording.take(where, doc)
    notes = ["it records no revisions: they were made up, in the order of the recording"]
    if not start_us:
        notes.append("it records no times but distances: --start TIME says when it began")
    return Told(recording.changes, base_rv=0, notes=notes)


def documents(file: Path, faults: Faults) -> Iterator[tuple[str, Json]]:
    """(`file:line` of its beginning, document) of a YAML stream."""
    first, pending = 1, []
    for number, line in enumerate([*content(file).splitlines(keepends=True), b"---\n"], 1):
        if line.rstrip() != b"---" and not line.startswith(b"--- "):
            pending.append(line)
            continue
        text = b"".join(pending)
        if text.strip():
            yield from _document(f"{file}:{first}", text, faults)
        first, pending = number + 1, []


def _document(where: str, text: bytes, faults: Faults) -> Iterator[tuple[str, Json]]:
    try:
        value, _ = decode_yaml(text)
    except YamlError as error:
        faults.add(where, str(error))
        return
    if isinstance(value, dict) and isinstance(value.get("items"), list):
        yield from ((where, item) for item in value["items"] if isinstance(item, dict))
    elif isinstance(value, dict):
        yield where, value
    elif value is not None:
        faults.add(where, "a document that is no object")


@attrs.define
class _Recording:
    """Plays the patches; `known` has each object as it is after those played so far."""

    faults: Faults
    kinds: Kinds
    start_us: int
    changes: list[Change] = attrs.field(factory=list)
    known: dict[Key, Json] = attrs.field(factory=dict)

    def put(self, where: str, obj: Json, ts_us: int, *, created: bool, plural: str = "") -> None:
        change = change_of(self.kinds, obj, plural, ts_us=ts_us, created=created)
        if change is None:
            self.faults.add(where, "an object without apiVersion, kind or name")
            return
        self.known[change.key] = obj
        self.changes.append(change)

    def take(self, where: str, patch: Json) -> None:
        resource, target = patch.get("resource"), patch.get("target")
        method, after = patch.get("method"), patch.get("durationNanosecond", 0)
        if not isinstance(resource, dict) or not isinstance(target, dict) or not target.get("name"):
            self.faults.add(where, "a ResourcePatch without resource or target")
        elif method not in METHODS or not isinstance(after, int):
            self.faults.add(where, f"a ResourcePatch with method {method!r} and durationNanosecond {after!r}")
        else:
            self._apply(where, patch, resource, target, self.start_us + after // 1000)

    def _apply(self, where: str, patch: Json, resource: Json, target: Json, ts_us: int) -> None:
        plural, namespace = str(resource.get("resource")), str(target.get("namespace") or "")
        row = self.kinds.of_resource(
            resource.get("group") or "", resource.get("version") or "v1", plural, bool(namespace)
        )
        template = _template(patch.get("template"))
        if row is None:
            self.faults.add(where, f"{plural} are no resource that is stored")
            return
        key = Key(row.resource, namespace, target["name"])
        before = self.known.get(key)
        if patch["method"] == "delete":
            self.known.pop(key, None)
            self.changes.append(Change(key, ts_us=ts_us, removed=True))
        elif template is None:
            self.faults.add(where, "a ResourcePatch whose template is no object")
        elif patch["method"] == "create":
            named = {"apiVersion": _api_version(row.group, row.version), "kind": row.kind, **template}
            self.put(where, named, ts_us, created=before is None, plural=plural)
        elif before is None:
            self.faults.add(where, f"it patches {key}, which nothing before it made")
        else:
            self.put(where, patched(before, template), ts_us, created=False, plural=plural)


def _template(given: Any) -> Json | None:
    """Written as YAML, or as the text of JSON."""
    if isinstance(given, str):
        try:
            given = orjson.loads(given)
        except orjson.JSONDecodeError:
            return None
    return given if isinstance(given, dict) else None


def patched(obj: Json, patch: Json) -> Json:
    group, _, version = str(obj.get("apiVersion")).rpartition("/")
    schema = schema_for(GroupVersionKind(group, version, str(obj.get("kind"))))
    result: Json = apply_merge_patch(obj, patch) if schema is None else strategic_merge(obj, patch, schema)
    return result


def _api_version(group: str, version: str) -> str:
    return f"{group}/{version}" if group else version
