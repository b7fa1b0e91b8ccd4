"""RBAC: roles and bindings, read live, compiled on demand, remembered until one of them changes.

Source: k8s v1.36 plugin/pkg/auth/authorizer/rbac/rbac.go, pkg/registry/rbac/validation/rule.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from kcp.api.auth.protocol import MASTERS, Attributes, Authorizer, UserInfo, Verdict
from kcp.api.auth.rules import Rule, compact, go_text, uncovered
from kcp.api.auth.service_account import username
from kcp.base.values import frozen
from kcp.machinery.errors import Forbidden, NotFound, go_quote
from kcp.machinery.labels import from_label_selector
from kcp.store.protocol import Event, Store

Json = dict[str, Any]
ListObjects = Callable[[str], Sequence[Json]]
"""The live objects of a group resource, as decoded documents."""

GROUP = "rbac.authorization.k8s.io"
ROLES, CLUSTER_ROLES = f"roles.{GROUP}", f"clusterroles.{GROUP}"
ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS = f"rolebindings.{GROUP}", f"clusterrolebindings.{GROUP}"
_RESOURCES = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
MEMO_SIZE = 16_384


@frozen
class Grant:
    """One subject of one binding: what it gives, or why its role cannot be resolved."""

    namespace: str
    """"" for the whole cluster."""
    reason: str
    rules: tuple[Rule, ...]
    problem: str = ""


@frozen
class _Answer:
    """What a user's rules say about one verb on one resource: for any name, for some names, and what was broken."""

    everything: str | None
    names: dict[str, str]
    problem: str


@attrs.define
class _Policy:
    """All roles and bindings of one moment, by subject."""

    roles: dict[tuple[str, str], tuple[Rule, ...]]
    """(namespace, name) -> rules; cluster roles under the empty namespace."""
    users: dict[str, list[Grant]] = attrs.field(factory=dict)
    groups: dict[str, list[Grant]] = attrs.field(factory=dict)

    def grants(self, user: UserInfo, namespace: str) -> list[Grant]:
        """Those of the whole cluster first, then the namespace's."""
        found = list(self.users.get(user.name, ()))
        for group in user.groups:
            found += self.groups.get(group, ())
        return [g for g in found if not g.namespace] + [
            g for g in found if namespace and g.namespace == namespace
        ]


@attrs.define
class RbacAuthorizer:
    """Answers from memory. `on_events` must see every change of roles and bindings (see `rbac_authorizer`)."""

    list_objects: ListObjects
    _policy: _Policy | None = None
    _memo: dict[tuple[Any, ...], _Answer] = attrs.field(factory=dict)

    def on_events(self, events: Sequence[Event]) -> None:
        if any(event.key.resource in _RESOURCES for event in events):
            self._policy = None
            self._memo.clear()

    def authorize(self, attributes: Attributes) -> tuple[Verdict, str]:
        answer = self._answer(attributes)
        if answer.everything is not None:
            return "allow", answer.everything
        if attributes.name and (reason := answer.names.get(attributes.name)) is not None:
            return "allow", reason
        return "no opinion", answer.problem

    def _answer(self, asked: Attributes) -> _Answer:
        key: tuple[Any, ...] = (
            (asked.user, asked.verb, asked.group, asked.resource, asked.subresource, asked.namespace)
            if asked.resource_request
            else (asked.user, asked.verb, asked.path)
        )
        answer = self._memo.get(key)
        if answer is None:
            answer = self._evaluate(asked)
            if len(self._memo) >= MEMO_SIZE:
                self._memo.clear()
            self._memo[key] = answer
        return answer

    def _evaluate(self, asked: Attributes) -> _Answer:
        names: dict[str, str] = {}
        problems: list[str] = []
        for grant in self._current().grants(asked.user, asked.namespace):
            if grant.problem:
                problems.append(grant.problem)
            for rule in grant.rules:
                if not _matches(rule, asked):
                    continue
                reason = f"RBAC: allowed by {grant.reason}"
                if not rule.names or not asked.resource_request:
                    return _Answer(reason, {}, "")
                for name in rule.names:
                    names.setdefault(name, reason)
        return _Answer(None, names, f"RBAC: {_aggregate(problems)}" if problems else "")

    def rules_for(self, user: UserInfo, namespace: str) -> tuple[list[Rule], str]:
        """Every rule that applies to the user in the namespace, and what could not be resolved ("" if all could)."""
        grants = self._current().grants(user, namespace)
        problems = [grant.problem for grant in grants if grant.problem]
        return [rule for grant in grants for rule in grant.rules], _aggregate(problems) if problems else ""

    def rules_of(self, role_ref: Json, namespace: str) -> tuple[Rule, ...]:
        """The rules that a binding in `namespace` ("" for a cluster role binding) would give. Raises NotFound."""
        rules, problem = _resolve(self._current().roles, role_ref, namespace)
        if problem:
            raise NotFound.of(GROUP, role_ref.get("kind", "").lower(), role_ref.get("name", ""))
        return rules

    def _current(self) -> _Policy:
        if self._policy is None:
            self._policy = _compile(self.list_objects)
        return self._policy


def rbac_authorizer(store: Store) -> RbacAuthorizer:
    """An authorizer over the objects in the store, kept up to date by it."""

    def list_objects(resource: str) -> Sequence[Json]:
        return [record.value for record in store.list(resource)]

    authorizer = RbacAuthorizer(list_objects)
    store.listen(authorizer.on_events)
    return authorizer


def _matches(rule: Rule, asked: Attributes) -> bool:
    if asked.resource_request:
        return rule.allows_resource(asked.verb, asked.group, asked.resource, asked.subresource)
    return rule.allows_path(asked.verb, asked.path)


def _aggregate(problems: Sequence[str]) -> str:
    unique = list(dict.fromkeys(problems))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"


def _compile(list_objects: ListObjects) -> _Policy:
    policy = _Policy(_roles(list_objects))
    for binding in list_objects(CLUSTER_ROLE_BINDINGS):
        _bind(policy, binding, "")
    for binding in list_objects(ROLE_BINDINGS):
        _bind(policy, binding, binding["metadata"]["namespace"])
    return policy


def _roles(list_objects: ListObjects) -> dict[tuple[str, str], tuple[Rule, ...]]:
    roles: dict[tuple[str, str], tuple[Rule, ...]] = {}
    cluster_roles = list_objects(CLUSTER_ROLES)
    for role in cluster_roles:
        rules = (
            aggregated_rules(role, cluster_roles) if role.get("aggregationRule") else role.get("rules") or ()
        )
        roles["", role["metadata"]["name"]] = tuple(Rule.of(rule) for rule in rules)
    for role in list_objects(ROLES):
        metadata = role["metadata"]
        roles[metadata["namespace"], metadata["name"]] = tuple(
            Rule.of(rule) for rule in role.get("rules") or ()
        )
    return roles


def aggregated_rules(role: Json, cluster_roles: Sequence[Json]) -> list[Json]:
    """The rules of an aggregating ClusterRole: those of all it selects, in name order, each once.

    Source: k8s v1.36 pkg/controller/clusterroleaggregation.
    """
    rules: list[Json] = []
    name = role["metadata"]["name"]
    ordered = sorted(cluster_roles, key=lambda each: str(each["metadata"]["name"]))
    for selector in role["aggregationRule"].get("clusterRoleSelectors") or ():
        wanted = from_label_selector(selector)
        for other in ordered:
            if other["metadata"]["name"] != name and wanted.matches(other["metadata"].get("labels") or {}):
                rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules


def _resolve(
    roles: dict[tuple[str, str], tuple[Rule, ...]], ref: Json, namespace: str
) -> tuple[tuple[Rule, ...], str]:
    """(rules, problem)."""
    kind, name = ref.get("kind", ""), ref.get("name", "")
    if kind not in ("Role", "ClusterRole"):
        return (), f"unsupported role reference kind: {go_quote(kind)}"
    rules = roles.get((namespace if kind == "Role" else "", name))
    if rules is None:
        return (), f"{kind.lower()}.{GROUP} {go_quote(name)} not found"
    return rules, ""


def _bind(policy: _Policy, binding: Json, namespace: str) -> None:
    ref = binding["roleRef"]
    rules, problem = _resolve(policy.roles, ref, namespace)
    name = binding["metadata"]["name"]
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    place = go_quote(f"{name}/{namespace}" if namespace else name)
    head = f"{kind} {place} of {ref.get('kind', '')} {go_quote(ref.get('name', ''))} to"
    for subject in binding.get("subjects") or ():
        table, key, text = _subject(policy, subject, namespace)
        if key:
            table.setdefault(key, []).append(Grant(namespace, f"{head} {text}", rules, problem))


def _subject(policy: _Policy, subject: Json, namespace: str) -> tuple[dict[str, list[Grant]], str, str]:
    """(where it is filed, under what, how Kubernetes describes it); an empty key for what matches nobody."""
    kind, name = subject.get("kind", ""), subject.get("name", "")
    if kind == "Group":
        return policy.groups, name, f"Group {go_quote(name)}"
    if kind == "User":
        return policy.users, name, f"User {go_quote(name)}"
    place = subject.get("namespace") or namespace
    if kind != "ServiceAccount" or not place:
        return policy.users, "", ""
    return policy.users, username(place, name), f"ServiceAccount {go_quote(f'{name}/{place}')}"


def check_escalation(
    authorizer: Authorizer,
    rbac: RbacAuthorizer,
    user: UserInfo,
    plural: str,
    namespace: str,
    new: Json,
    old: Json | None = None,
) -> None:
    """Refuse to hand out rights that the user does not have.

    For roles: all rules must be held, unless `escalate` is allowed. For bindings: all rules of the role must be held,
    unless `bind` on the role is allowed. Updates that change neither rules nor the reference pass.
    Raises Forbidden, or NotFound when a binding's role does not exist.
    """
    if MASTERS in user.groups or plural not in _CHECKS:
        return
    what = _CHECKS[plural]
    if old is not None and all(new.get(field) == old.get(field) for field in what):
        return
    name = new["metadata"].get("name", "")
    wanted = _granted(authorizer, rbac, user, plural, namespace, new)
    if not wanted:
        return
    held, problem = rbac.rules_for(user, namespace)
    missing = uncovered(held, wanted)
    if missing:
        raise Forbidden.of(GROUP, plural, name, _escalation_text(user, missing, problem))


_CHECKS: dict[str, tuple[str, ...]] = {
    "roles": ("rules",),
    "clusterroles": ("rules", "aggregationRule"),
    "rolebindings": ("roleRef", "subjects"),
    "clusterrolebindings": ("roleRef", "subjects"),
}
_ANYTHING: tuple[Json, ...] = (
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
)
"""What an aggregating role may come to hold."""


def _granted(
    authorizer: Authorizer, rbac: RbacAuthorizer, user: UserInfo, plural: str, namespace: str, new: Json
) -> Sequence[Rule]:
    """The rules that this write hands out; none when a special verb allows it anyway."""
    if plural in ("roles", "clusterroles"):
        asked = Attributes(
            user, "escalate", GROUP, "v1", plural, "", namespace, new["metadata"].get("name", "")
        )
        if authorizer.authorize(asked)[0] == "allow":
            return ()
        if new.get("aggregationRule"):
            return [Rule.of(rule) for rule in _ANYTHING]
        return [Rule.of(rule) for rule in new.get("rules") or ()]
    ref = new["roleRef"]
    resource = "roles" if ref.get("kind") == "Role" else "clusterroles"
    asked = Attributes(user, "bind", GROUP, "v1", resource, "", namespace, ref.get("name", ""))
    if authorizer.authorize(asked)[0] == "allow":
        return ()
    return rbac.rules_of(ref, namespace)


def _escalation_text(user: UserInfo, missing: Sequence[Json], problem: str) -> str:
    groups = " ".join(go_quote(group) for group in user.groups)
    lines = "\n".join(sorted({go_text(rule) for rule in compact(missing)}))
    text = (
        f"user {go_quote(user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:"
        f"\n{lines}"
    )
    return f"{text}; resolution errors: [{problem}]" if problem else text
