"""What a kind is: the row of the catalog and the strategy that makes it special.

A `Strategy` is a record of plain functions on JSON documents. Each has a default that does the generic thing, so
a kind states only what differs. Functions named `prepare_*` and `default` change the given document in place: it
is the request's own copy, not yet shared. Validation returns field errors and changes nothing.
Source of the split: k8s v1.36 apiserver/pkg/registry/rest (RESTCreateStrategy and its relatives).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import attrs

from kcp.base.values import frozen
from kcp.machinery.errors import FieldError
from kcp.machinery.gvk import GroupVersionKind, GroupVersionResource, group_resource

Json = dict[str, Any]
NameRule = Literal["dns_subdomain", "dns_label", "dns_1035_label", "path_segment", "any"]
Propagation = Literal["Background", "Orphan", "Foreground"]


@frozen
class Column:
    """One column of a Table. `priority` 1 shows only with -o wide."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


@frozen
class Printer:
    """How a kind prints as a Table: columns, and the cells of one object in their order.

    `now` turns timestamps into ages. Source: k8s v1.36 pkg/printers/internalversion/printers.go.
    """

    columns: tuple[Column, ...]
    cells: Callable[[Json, datetime], list[Any]]


def _nothing(obj: Json) -> None: ...


def _nothing_update(new: Json, old: Json) -> None: ...


def _no_errors(obj: Json) -> list[FieldError]:
    return []


def _no_update_errors(new: Json, old: Json) -> list[FieldError]:
    return []


def _no_warnings(new: Json, old: Json | None) -> list[str]:
    return []


@attrs.frozen(slots=True, kw_only=True)
class Strategy:
    """What is special about a kind. `old` is always the stored object, read-only."""

    default: Callable[[Json], None] = _nothing
    """Fill in defaults. Runs after decoding, after mutating admission, and on stored objects of older releases."""
    prepare_create: Callable[[Json], None] = _nothing
    """Reset what a client may not set on create (status) and compute what the server owns."""
    prepare_update: Callable[[Json, Json], None] = _nothing_update
    """(new, old): keep status and other fields that an update of the main resource may not change."""
    prepare_status: Callable[[Json, Json], None] = _nothing_update
    """(new, old): for an update of /status; afterwards everything but status and managedFields equals `old`."""
    validate_create: Callable[[Json], list[FieldError]] = _no_errors
    validate_update: Callable[[Json, Json], list[FieldError]] = _no_update_errors
    """(new, old): the create rules that still apply plus immutability."""
    validate_status: Callable[[Json, Json], list[FieldError]] = _no_update_errors
    warnings: Callable[[Json, Json | None], list[str]] = _no_warnings
    """Texts for Warning headers; `old` is None on create."""
    selectable: Mapping[str, Callable[[Json], str]] = {}
    """Field selector labels besides metadata.name and metadata.namespace."""
    name_rule: NameRule = "dns_subdomain"
    has_status: bool = True
    """Whether the main resource ignores changes of `status` (it has a /status subresource)."""
    keeps_status_on_create: bool = False
    """Whether a create may bring its status along: only Nodes do, since a kubelet registers itself with it."""
    has_generation: bool = True
    """Whether metadata.generation starts at 1 and rises when anything but metadata and status changes."""
    allow_unconditional_update: bool = True
    """Whether an update without resourceVersion is accepted."""
    allow_create_on_update: bool = False
    graceful: Callable[[Json, int | None], int] | None = None
    """(object, requested grace or None) -> effective grace period in seconds; None: removed at once."""
    default_propagation: Propagation = "Background"
    ttl_s: int | None = None
    """How long an object lives unless touched (Events: 3600)."""
    reset_fields: Mapping[str, tuple[tuple[str, ...], ...]] = {}
    """Per subresource ("" = main): field paths that the strategy resets, left out of managedFields."""


@frozen
class Subresource:
    """A subresource as discovery lists it. Empty kind: same as discovery writes an empty responseKind."""

    name: str
    verbs: tuple[str, ...]
    kind: GroupVersionKind | None = None


@attrs.frozen(slots=True, eq=False)
class Kind:
    """A served resource in one version: what discovery says plus how it behaves."""

    gvk: GroupVersionKind
    plural: str
    singular: str
    namespaced: bool
    verbs: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    strategy: Strategy = Strategy()
    printer: Printer | None = None
    storage_resource: str = ""
    """The group resource under which objects are stored, when another version or group owns the storage."""
    to_storage: Callable[[Json], Json] | None = None
    """Convert from this version to the stored one; None when they are the same."""
    from_storage: Callable[[Json], Json] | None = None
    stored: bool = True
    """False for virtual, create-only kinds such as SubjectAccessReview."""
    kube_finalizers: bool = False
    """Whether a finalizer without a slash must be one that Kubernetes knows."""
    deprecation: str = ""
    """The warning that every answer about this kind carries."""
    custom: bool = False
    """Comes from a CustomResourceDefinition."""
    resource: str = attrs.field(init=False)
    """The key under which objects live in the store: `pods`, `deployments.apps`."""

    @resource.default
    def _key_in_store(self) -> str:
        return self.storage_resource or group_resource(self.gvk.group, self.plural)

    @property
    def group(self) -> str:
        return self.gvk.group

    @property
    def version(self) -> str:
        return self.gvk.version

    @property
    def kind(self) -> str:
        return self.gvk.kind

    @property
    def api_version(self) -> str:
        return self.gvk.api_version

    @property
    def gvr(self) -> GroupVersionResource:
        return GroupVersionResource(self.gvk.group, self.gvk.version, self.plural)

    def subresource(self, name: str) -> Subresource | None:
        return next((sub for sub in self.subresources if sub.name == name), None)


class Catalog:
    """The resources a server knows, built-in and custom, by path and by kind, in discovery's order."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._by_gvr: dict[tuple[str, str, str], Kind] = {}
        self._by_gvk: dict[tuple[str, str, str], Kind] = {}
        self.revision = 0
        """Rises when a kind is added or removed, so that discovery and OpenAPI know when to rebuild."""
        for kind in kinds:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        gvk = kind.gvk
        self._by_gvr[(gvk.group, gvk.version, kind.plural)] = kind
        self._by_gvk[(gvk.group, gvk.version, gvk.kind)] = kind
        self.revision += 1

    def remove(self, kind: Kind) -> None:
        gvk = kind.gvk
        self._by_gvr.pop((gvk.group, gvk.version, kind.plural), None)
        self._by_gvk.pop((gvk.group, gvk.version, gvk.kind), None)
        self.revision += 1

    def by_resource(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_gvr.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Kind | None:
        return self._by_gvk.get((group, version, kind))

    def kinds(self) -> list[Kind]:
        """All kinds in the order they were added: groups and versions by priority."""
        return list(self._by_gvr.values())
