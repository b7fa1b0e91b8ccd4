"""Which resource an object of a source belongs to: the built-in ones, those of CRDs found on the way, and good guesses."""

from __future__ import annotations

from functools import cache
from typing import Any

from kcp.apis.catalog import ALPHA_VERSIONS, build_catalog
from kcp.apis.kind import Kind
from kcp.machinery.document import normal
from kcp.machinery.gvk import GroupVersion, group_resource
from kcp.store.foreign import Change
from kcp.store.protocol import Key, KindRow

Json = dict[str, Any]
CRD = ("apiextensions.k8s.io", "CustomResourceDefinition")


@cache
def _catalog() -> tuple[dict[tuple[str, str], Kind], dict[tuple[str, str], Kind]]:
    """Stored kinds by (group, kind) and by (group, plural); the newest version counts."""
    by_kind: dict[tuple[str, str], Kind] = {}
    by_plural: dict[tuple[str, str], Kind] = {}
    for kind in build_catalog(ALPHA_VERSIONS).kinds():
        if kind.stored:
            by_kind.setdefault((kind.group, kind.gvk.kind), kind)
            by_plural.setdefault((kind.group, kind.plural), kind)
    return by_kind, by_plural


class Kinds:
    """The resources of one import. `rows` has those that were asked for."""

    def __init__(self) -> None:
        self.rows: dict[str, KindRow] = {}
        self._custom: dict[tuple[str, str], KindRow] = {}

    def of_object(self, obj: Json, plural: str = "") -> tuple[KindRow, Json] | None:
        """The resource of an object, and the object as it is stored; None for what is no object of an API.

        `plural`, when the source tells it, spares the guess for custom kinds. Learns from CRDs.
        """
        api_version, kind, metadata = obj.get("apiVersion"), obj.get("kind"), obj.get("metadata")
        if not (isinstance(api_version, str) and isinstance(kind, str) and isinstance(metadata, dict)):
            return None
        try:
            group = GroupVersion.parse(api_version)
        except ValueError:
            return None
        known = _catalog()[0].get((group.group, kind))
        if known is not None:
            return self._stored(known, obj)
        if not plural and (group.group, kind) not in self._custom:
            plural = guess_plural(kind)
        row = self._custom.get((group.group, kind))
        if row is None:
            namespaced = bool(metadata.get("namespace"))
            row = _row(group.group, group.version, kind, plural, namespaced)
            self._custom[group.group, kind] = row
        return self._use(row), obj

    def _stored(self, kind: Kind, obj: Json) -> tuple[KindRow, Json]:
        """As the API server stores it: events of events.k8s.io as core events, and so on."""
        if kind.to_storage is not None:
            obj = kind.to_storage(obj)
            found = self.of_object(obj)
            assert found is not None
            return found
        if (kind.group, kind.gvk.kind) == CRD:
            self._learn(obj)
        row = KindRow(kind.resource, kind.group, kind.version, kind.gvk.kind, kind.plural, kind.namespaced)
        return self._use(row), obj

    def of_resource(self, group: str, version: str, plural: str, namespaced: bool) -> KindRow | None:
        """The resource of a URL or a key; None for virtual ones, whose objects are never stored."""
        known = _catalog()[1].get((group, plural))
        if known is not None:
            stored = known.storage_resource or known.resource
            if stored != known.resource:
                other_group = stored.partition(".")[2]
                return self.of_resource(other_group, "v1", stored.partition(".")[0], namespaced)
            return self._use(
                KindRow(
                    known.resource, known.group, known.version, known.gvk.kind, known.plural, known.namespaced
                )
            )
        if is_builtin_group(group):
            return None
        for row in self._custom.values():
            if (row.group, row.plural) == (group, plural):
                return self._use(row)
        row = _row(group, version, guess_kind(plural), plural, namespaced)
        self._custom[group, row.kind] = row
        return self._use(row)

    def _learn(self, crd: Json) -> None:
        spec = crd.get("spec") or {}
        names, group = spec.get("names") or {}, spec.get("group")
        if group and names.get("kind") and names.get("plural"):
            versions = [v for v in spec.get("versions") or () if v.get("storage")] or [{"name": "v1"}]
            namespaced = spec.get("scope") != "Cluster"
            row = _row(group, versions[0]["name"], names["kind"], names["plural"], namespaced)
            self._custom[group, names["kind"]] = row

    def _use(self, row: KindRow) -> KindRow:
        return self.rows.setdefault(row.resource, row)


def _row(group: str, version: str, kind: str, plural: str, namespaced: bool) -> KindRow:
    return KindRow(group_resource(group, plural), group, version, kind, plural, namespaced)


def is_builtin_group(group: str) -> bool:
    """Groups whose resources are all known: what is not among them is virtual."""
    return not group or any(group == known for known, _ in _catalog()[0]) or group.endswith(
        ("authorization.k8s.io", "authentication.k8s.io", "metrics.k8s.io")
    )  # fmt: skip


def guess_plural(kind: str) -> str:
    """Source: k8s v1.36 apimachinery/pkg/api/meta UnsafeGuessKindToResource."""
    singular = kind.lower()
    if singular.endswith("endpoints"):
        return singular
    if singular.endswith("s"):
        return singular + "es"
    if singular.endswith("y"):
        return singular[:-1] + "ies"
    return singular + "s"


def guess_kind(plural: str) -> str:
    for ending, instead in (("ies", "y"), ("ses", "s"), ("s", "")):
        if plural.endswith(ending):
            return (plural[: -len(ending)] + instead).capitalize()
    return plural.capitalize()


def change_of(kinds: Kinds, obj: Json, plural: str = "", **fields: Any) -> Change | None:
    """The change that leaves `obj`; None for what is no object. `fields` are those of Change, but key, body and uid."""
    found = kinds.of_object(obj, plural)
    if found is None or not found[1]["metadata"].get("name"):
        return None
    row, stored = found
    metadata = stored["metadata"]
    key = Key(row.resource, metadata.get("namespace") or "", metadata["name"])
    return Change(key, body=normal(stored), uid=metadata.get("uid") or "", **fields)
