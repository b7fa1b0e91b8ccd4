"""What an API server writes into etcd: keys under /registry, values as protobuf, JSON, or encrypted.

    /registry/pods/default/web-1                         builtin kinds, by plural, some under other names
    /registry/services/specs/default/web                 services; their endpoints beside them
    /registry/example.com/widgets/default/w              custom kinds and some groups: group first

The object says what it is; the key serves where there is none (deletions, encrypted values).
Source: k8s v1.36 pkg/registry/*/storage, pkg/kubeapiserver/default_storage_factory_builder.go.
"""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from kcp.machinery.codec.protobuf import ProtobufError, UnknownProtobufKind, decode_protobuf
from kcp.machinery.codec.protobuf_table import MAGIC
from kcp.replay.importers.kinds import Kinds, change_of
from kcp.replay.importers.moments import manager_of, written_us
from kcp.replay.importers.reading import Faults
from kcp.store.foreign import Change
from kcp.store.protocol import Actor, Key

Json = dict[str, Any]
PREFIXES = (b"/registry/", b"/kubernetes.io/", b"/openshift.io/")
ENCRYPTED = b"k8s:enc:"
_OTHER_NAMES = {"minions": "nodes", "controllers": "replicationcontrollers", "ingress": "ingresses"}
_GROUPS = {
    **dict.fromkeys(("deployments", "replicasets", "statefulsets", "daemonsets", "controllerrevisions"), "apps"),
    **dict.fromkeys(("jobs", "cronjobs"), "batch"),
    **dict.fromkeys(("roles", "rolebindings", "clusterroles", "clusterrolebindings"), "rbac.authorization.k8s.io"),
    "leases": "coordination.k8s.io", "endpointslices": "discovery.k8s.io", "poddisruptionbudgets": "policy",
    "horizontalpodautoscalers": "autoscaling", "ingresses": "networking.k8s.io", "networkpolicies": "networking.k8s.io",
    "storageclasses": "storage.k8s.io", "volumeattachments": "storage.k8s.io", "priorityclasses": "scheduling.k8s.io",
}  # fmt: skip
"""Of resources whose key has no group in it, as far as they are likely to be encrypted or deleted unseen."""
_NO_OBJECTS = frozenset({"ranges", "masterleases", "health", "apiserver.openshift.io", "compact_rev_key"})


@attrs.define
class Registry:
    """Turns revisions of keys into changes, in the order in which they are given."""

    kinds: Kinds
    faults: Faults
    strange: int = 0
    """Keys and values that belong to no object of an API."""
    unknown: dict[str, int] = attrs.field(factory=dict)
    """Kinds that are known by their bytes alone."""
    _keys: dict[bytes, Key] = attrs.field(factory=dict)

    def put(self, where: str, key: bytes, value: bytes, rv: int, created_rv: int) -> Change | None:
        path = _path(key)
        if path is None or path[0] in _NO_OBJECTS:
            self.strange += 1
            return None
        obj = self._decoded(where, value)
        if obj is None:
            return self._untold(key, path, rv, created_rv)
        plural = path[1] if "." in path[0] and len(path) > 2 else ""
        created = rv == created_rv
        change = change_of(
            self.kinds, obj, plural, rv=rv, ts_us=written_us(obj), created=created, created_rv=created_rv,
            actor=Actor("", field_manager=manager_of(obj)),
        )  # fmt: skip
        if change is None:
            self.strange += 1
            return None
        self._keys[key] = change.key
        return change

    def delete(self, key: bytes, rv: int) -> Change | None:
        """None for what was never an object, or went before the history begins."""
        place = self._keys.get(key)
        return None if place is None else Change(place, rv=rv, removed=True)

    def notes(self) -> list[str]:
        found = [
            f"{count} values without a readable body: {what}" for what, count in sorted(self.unknown.items())
        ]
        if self.strange:
            found.append(f"{self.strange} revisions of keys that are no objects of an API")
        return found

    def _decoded(self, where: str, value: bytes) -> Json | None:
        """The object; None when nobody can read it, which is told once."""
        if value.startswith(ENCRYPTED):
            self._count("encrypted")
            return None
        try:
            if value.startswith(MAGIC):
                return decode_protobuf(value)
            found = orjson.loads(value)
        except UnknownProtobufKind as error:
            self._count(str(error))
            return None
        except (ProtobufError, orjson.JSONDecodeError) as error:
            self.faults.add(where, f"neither protobuf nor JSON of an object: {error}")
            return None
        return found if isinstance(found, dict) else {}

    def _count(self, what: str) -> None:
        self.unknown[what] = self.unknown.get(what, 0) + 1

    def _untold(self, key: bytes, path: list[str], rv: int, created_rv: int) -> Change | None:
        """That it changed is known all the same."""
        place = self._keys.get(key) or self._place(path)
        if place is None:
            self.strange += 1
            return None
        self._keys[key] = place
        return Change(place, rv=rv, created=rv == created_rv, created_rv=created_rv)

    def _place(self, path: list[str]) -> Key | None:
        group, plural, rest = _split(path)
        row = self.kinds.of_resource(group, "v1", plural, len(rest) == 2)
        if row is None or not rest or len(rest) > 2:
            return None
        return Key(row.resource, rest[0] if len(rest) == 2 else "", rest[-1])


def _path(key: bytes) -> list[str] | None:
    for prefix in PREFIXES:
        if key.startswith(prefix):
            return key[len(prefix) :].decode("utf-8", "replace").split("/")
    return None


def _split(path: list[str]) -> tuple[str, str, list[str]]:
    """(group, plural, the names)."""
    if path[0] == "services" and len(path) > 1:
        return "", {"specs": "services"}.get(path[1], path[1]), path[2:]
    if "." in path[0] and len(path) > 2:
        return path[0], path[1], path[2:]
    plural = _OTHER_NAMES.get(path[0], path[0])
    return _GROUPS.get(plural, ""), plural, path[1:]
