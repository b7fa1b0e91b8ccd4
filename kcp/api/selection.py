"""Which objects a list, watch or deletecollection means: label selector, field selector, one name.

Which field labels a kind knows, and how it refuses the others, is decided here.
Source: k8s v1.36 pkg/apis/*/v*/conversion.go (AddFieldLabelConversionsFor…), apimachinery/pkg/runtime/conversion.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from kcp.apis.kind import Json, Kind
from kcp.base.values import frozen
from kcp.machinery.errors import BadRequest, go_quote
from kcp.machinery.fields import FieldSelector, parse_field_selector
from kcp.machinery.labels import Selector, parse_selector

_ALIASES: Mapping[tuple[str, str], str] = {("pods", "spec.host"): "spec.nodeName"}
_OWN_TEXTS: Mapping[str, str] = {
    "jobs.batch": 'field label "{label}" not supported for Job',
    "resourceslices.resource.k8s.io": "field label not supported for {gvk}: {label}",
}
_META: Mapping[str, Callable[[Json], str]] = {
    "metadata.name": lambda obj: str(obj["metadata"].get("name", "")),
    "metadata.namespace": lambda obj: str(obj["metadata"].get("namespace", "")),
}


def _unknown_label(kind: Kind, label: str) -> BadRequest:
    own = _OWN_TEXTS.get(kind.resource)
    if own is not None:
        return BadRequest(own.format(label=label, gvk=kind.gvk))
    if kind.strategy.selectable or kind.custom:
        return BadRequest(f"field label not supported: {label}")
    return BadRequest(
        f'{go_quote(label)} is not a known field selector: only "metadata.name", "metadata.namespace"'
    )


@frozen
class FieldTerm:
    """One requirement on one field: its value equals, or differs from, `value`."""

    label: str
    read: Callable[[Json], str]
    equal: bool
    value: str

    def matches(self, obj: Json) -> bool:
        return (self.read(obj) == self.value) is self.equal


@frozen
class Selection:
    """A compiled selection. `name` and `node_name` are exact values, by which watchers are indexed."""

    labels: Selector | None = None
    fields: tuple[FieldTerm, ...] = ()
    name: str = ""
    node_name: str = ""

    @property
    def empty(self) -> bool:
        return self.labels is None and not self.fields and not self.name

    def matches(self, obj: Json) -> bool:
        metadata = obj["metadata"]
        if self.name and metadata["name"] != self.name:
            return False
        if self.labels is not None and not self.labels.matches(metadata.get("labels") or {}):
            return False
        return all(term.matches(obj) for term in self.fields)

    def exact(self, label: str) -> str:
        """The value that a field must equal, or ""."""
        return next((term.value for term in self.fields if term.equal and term.label == label), "")


EVERYTHING = Selection()


def _terms(kind: Kind, selector: FieldSelector) -> tuple[FieldTerm, ...]:
    selectable = kind.strategy.selectable
    terms = []
    for term in selector.terms:
        label = _ALIASES.get((kind.resource, term.field), term.field)
        read = selectable.get(label) or _META.get(label)
        if read is None:
            raise _unknown_label(kind, label)
        terms.append(FieldTerm(label, read, term.op != "!=", term.value))
    return tuple(terms)


@lru_cache(maxsize=512)
def _compile(kind: Kind, label_selector: str, field_selector: str, name: str) -> Selection:
    labels = parse_selector(label_selector) if label_selector else None
    terms = _terms(kind, parse_field_selector(field_selector)) if field_selector else ()
    named = Selection(None, terms)
    by_name = name or named.exact("metadata.name")
    node_name = named.exact("spec.nodeName") if kind.resource == "pods" else ""
    if labels is not None and labels.empty:
        labels = None
    return Selection(labels, terms, by_name, node_name)


def select(kind: Kind, label_selector: str, field_selector: str, name: str = "") -> Selection:
    """Compile the selectors of a request; `name` comes from the path. Raises BadRequest.

    Compiled selections are remembered: watches and controllers ask for the same ones.
    """
    if not (label_selector or field_selector or name):
        return EVERYTHING
    try:
        return _compile(kind, label_selector, field_selector, name)
    except ValueError as error:
        raise BadRequest(str(error)) from None
