"""What an admission plugin is.

A plugin has a name, says which requests it cares for, and takes part in one or more phases: mutating ones change
`attributes.object` in place (the request's own copy), validating ones refuse, exact ones are asked again inside the
writer, against the staged state, where nothing can slip in between.
Source: k8s v1.36 apiserver/pkg/admission/interfaces.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import attrs

from kcp.api.auth.protocol import UserInfo
from kcp.apis.kind import Kind
from kcp.base.values import frozen
from kcp.machinery.errors import Forbidden
from kcp.store.protocol import Change, Head, Key

AdmissionVerb = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


@attrs.define(slots=True)
class Attributes:
    """One request as admission sees it. `object` is None on delete, `old` is None on create."""

    operation: AdmissionVerb
    kind: Kind
    subresource: str
    namespace: str
    name: str
    object: dict[str, Any] | None
    old: dict[str, Any] | None
    user: UserInfo
    dry_run: bool = False
    options: dict[str, Any] = attrs.field(factory=dict)
    warn: Callable[[str], None] = lambda text: None

    @property
    def new(self) -> dict[str, Any]:
        """The object of a create or update."""
        assert self.object is not None
        return self.object


@frozen
class Companion:
    """Another object that must change in the same transaction, and how."""

    key: Key
    change: Change


class Plugin(Protocol):
    """A built-in plugin. Answers from memory; webhooks are not plugins of this kind."""

    @property
    def name(self) -> str: ...

    def handles(self, attributes: Attributes) -> bool:
        """Depends on operation, kind and subresource alone: the answer is remembered for them."""
        ...


@runtime_checkable
class Mutating(Plugin, Protocol):
    def admit(self, attributes: Attributes) -> None:
        """The mutating phase. Raises an ApiError to refuse."""
        ...


@runtime_checkable
class Validating(Plugin, Protocol):
    def validate(self, attributes: Attributes) -> None:
        """The validating phase, after all mutation. Raises an ApiError to refuse."""
        ...


@runtime_checkable
class Exact(Plugin, Protocol):
    def settle(self, attributes: Attributes, head: Head) -> Sequence[Companion]:
        """Asked twice: before the write on what is published, and inside the writer on what is staged.

        Pure. Raises an ApiError to refuse. What it returns changes together with the object or not at all.
        """
        ...


@runtime_checkable
class Waiting(Plugin, Protocol):
    def awaited(self, attributes: Attributes) -> Key | None:
        """An object that is missing but about to be made by a controller, worth a short wait before admission."""
        ...


def refused(attributes: Attributes, why: str) -> Forbidden:
    """`pods "x" is forbidden: <why>`, under the name or the generateName of the object."""
    name = attributes.name
    if not name:
        metadata = (attributes.object or {}).get("metadata") or {}
        name = metadata.get("name") or metadata.get("generateName") or "Unknown"
    return Forbidden.of(attributes.kind.group, attributes.kind.plural, name, why)
