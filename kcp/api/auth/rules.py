"""RBAC policy rules: does one allow a request, does one set cover another.

Source: k8s v1.36 pkg/apis/rbac/v1/evaluation_helpers.go,
component-helpers/auth/rbac/validation/policy_comparator.go, pkg/registry/rbac/validation/policy_compact.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

from kcp.base.values import frozen
from kcp.machinery.errors import go_quote

Json = dict[str, Any]


@frozen
class Rule:
    """One policy rule, as sets for asking and as the JSON it came from."""

    source: Json
    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    names: frozenset[str]
    urls: tuple[str, ...]

    @classmethod
    def of(cls, source: Json) -> Rule:
        return cls(
            source,
            _words(tuple(source.get("verbs") or ())),
            _words(tuple(source.get("apiGroups") or ())),
            _words(tuple(source.get("resources") or ())),
            _words(tuple(source.get("resourceNames") or ())),
            tuple(source.get("nonResourceURLs") or ()),
        )

    def allows_verb(self, verb: str) -> bool:
        return "*" in self.verbs or verb in self.verbs

    def allows_resource(self, verb: str, group: str, resource: str, subresource: str) -> bool:
        """Without regard to names."""
        if not self.allows_verb(verb) or not ("*" in self.groups or group in self.groups):
            return False
        resources = self.resources
        if "*" in resources:
            return True
        if not subresource:
            return resource in resources
        return f"{resource}/{subresource}" in resources or f"*/{subresource}" in resources

    def allows_path(self, verb: str, path: str) -> bool:
        return self.allows_verb(verb) and any(_url_covers(url, path) for url in self.urls)


@lru_cache(maxsize=4096)
def _words(words: tuple[str, ...]) -> frozenset[str]:
    """Shared: hundreds of rules name the same verbs and groups."""
    return frozenset(words)


def _url_covers(owned: str, path: str) -> bool:
    return owned == path or (owned.endswith("*") and path.startswith(owned.rstrip("*")))


def uncovered(owned: Sequence[Rule], wanted: Sequence[Rule]) -> list[Json]:
    """What `wanted` allows and `owned` does not, in atoms of one verb on one thing."""
    return [atom for rule in wanted for atom in _atoms(rule) if not any(_covers(own, atom) for own in owned)]


def _atoms(rule: Rule) -> Iterator[Json]:
    source = rule.source
    verbs, names = source.get("verbs") or [], source.get("resourceNames") or [None]
    for group, resource, verb, name in product(
        source.get("apiGroups") or [], source.get("resources") or [], verbs, names
    ):
        atom = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        yield atom if name is None else {**atom, "resourceNames": [name]}
    for url, verb in product(rule.urls, verbs):
        yield {"nonResourceURLs": [url], "verbs": [verb]}


def _covers(own: Rule, atom: Json) -> bool:
    (verb,) = atom["verbs"]
    if "nonResourceURLs" in atom:
        return own.allows_path(verb, atom["nonResourceURLs"][0])
    (group,), (combined,) = atom["apiGroups"], atom["resources"]
    resource, _, subresource = combined.partition("/")
    if not own.allows_resource(verb, group, resource, subresource):
        return False
    wanted = atom.get("resourceNames") or [""]
    return not own.names or wanted[0] in own.names


def compact(atoms: Sequence[Json]) -> list[Json]:
    """Atoms of the same group, resource and name with their verbs put together; paths stay apart."""
    merged: dict[tuple[object, ...], Json] = {}
    for atom in atoms:
        is_path = "nonResourceURLs" in atom
        parts = ("nonResourceURLs", "verbs") if is_path else ("apiGroups", "resources", "resourceNames")
        key = tuple(tuple(atom.get(part, ())) for part in parts)
        if key in merged:
            merged[key]["verbs"] += [verb for verb in atom["verbs"] if verb not in merged[key]["verbs"]]
        else:
            merged[key] = {**atom, "verbs": list(atom["verbs"])}
    return list(merged.values())


_PARTS = (
    ("APIGroups", "apiGroups"),
    ("Resources", "resources"),
    ("NonResourceURLs", "nonResourceURLs"),
    ("ResourceNames", "resourceNames"),
    ("Verbs", "verbs"),
)


def go_text(rule: Json) -> str:
    """`{APIGroups:["apps"], Resources:["deployments"], Verbs:["create" "get"]}`."""
    shown = []
    for label, key in _PARTS:
        if values := rule.get(key):
            quoted = " ".join(go_quote(value) for value in values)
            shown.append(f"{label}:[{quoted}]")
    return "{" + ", ".join(shown) + "}"
