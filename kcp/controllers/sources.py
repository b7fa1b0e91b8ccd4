"""What a controller watches and how a change of it becomes keys to plan.

From this one declaration come informers, indexes, the resources of a decision's frontier and the wait for sync.
Keys are `namespace/name` (or `name`). Mapping functions are pure; they see the old and the new object.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import attrs

from kcp.base.values import frozen
from kcp.client.cache.indexer import IndexFunction, Tally
from kcp.controllers.effects import Planner
from kcp.machinery import meta

Json = dict[str, Any]
Mapper = Callable[[Json | None, Json | None, "Mapping[str, Any]"], Sequence[str]]
"""(old, new, readers by watch name) -> keys. `old` is None for added, `new` is None for deleted objects."""


@frozen
class Self:
    """The controller's own resource: each change queues the object itself."""

    resource: str
    indexes: Mapping[str, Callable[[Json], Sequence[str]]] = {}


@frozen
class Owned:
    """Objects controlled by the controller's own kind: a change queues the controlling owner, old and new.

    Adds index `owner`: the uid of the controlling owner, "" for orphans as `orphan:<namespace>`.
    `orphans` maps an orphan (object without controller) to keys, for adoption. `tallies` are counted by that index.
    """

    resource: str
    owner_kind: str
    owner_group: str = ""
    orphans: Mapper | None = None
    indexes: Mapping[str, Callable[[Json], Sequence[str]]] = {}
    tallies: Mapping[str, Callable[[Json], Hashable]] = {}


@frozen
class Fan:
    """Any other resource: `keys` says what a change of it queues (nothing, by default: it is only read)."""

    resource: str
    keys: Mapper | None = None
    indexes: Mapping[str, Callable[[Json], Sequence[str]]] = {}


@frozen
class Everything:
    """Metadata of every listable resource, custom ones included; for the garbage collector and namespaces."""

    keys: Mapper
    indexes: Mapping[str, Callable[[Json], Sequence[str]]] = {}
    exclude: tuple[str, ...] = ("events", "events.events.k8s.io")


@frozen
class Timer:
    """Queue a fixed key every `period_s`."""

    period_s: float
    key: str = "tick"


Source = Self | Owned | Fan | Everything | Timer


def owner_values(obj: Json) -> list[str]:
    """Index `owner`: the uid of the controlling owner, or `orphan:<namespace>`."""
    controller = meta.controller_of(obj)
    return [controller["uid"]] if controller else [f"orphan:{meta.namespace(obj)}"]


def indexes_of(source: Self | Owned | Fan, prefix: str) -> dict[str, IndexFunction]:
    """The indexes that a source asks of its cache, under names of its controller's own."""
    indexes = dict(source.indexes)
    if isinstance(source, Owned):
        indexes["owner"] = owner_values
    return {prefix + name: function for name, function in indexes.items()}


def tallies_of(source: Self | Owned | Fan, prefix: str) -> dict[str, Tally]:
    """The tallies that a source asks of its cache, under names of its controller's own."""
    tallies = source.tallies if isinstance(source, Owned) else {}
    return {prefix + name: Tally(owner_values, of) for name, of in tallies.items()}


@frozen
class Controller:
    """One row of the table: a planner and what feeds it.

    `identity` is the service account in kube-system under which its requests are made
    (`system:serviceaccount:kube-system:<identity>`), as in Kubernetes' bootstrap roles; one that begins with `system:`
    is a user by itself.
    """

    name: str
    identity: str
    plan: Planner
    watches: Mapping[str, Source]
    workers: int = 5
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    max_retries: int | None = None
    """Forget a key after this many failures in a row; None retries for ever, with backoff."""
    retry_base_s: float = 0.005
    """How long a key waits after its first failure; each further one doubles it."""
    event_source: str = ""
    """The component that its Events name, where Kubernetes' is called otherwise than the controller."""

    @property
    def reporter(self) -> str:
        """The component that its Events name."""
        return self.event_source or self.name

    @property
    def username(self) -> str:
        """The user name of its requests."""
        if self.identity.startswith("system:"):
            return self.identity
        return f"system:serviceaccount:kube-system:{self.identity}"
