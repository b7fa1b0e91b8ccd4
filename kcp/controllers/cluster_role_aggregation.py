"""ClusterRole aggregation: a role with an aggregationRule has the rules of all roles that it selects.

Source: k8s v1.36 pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.sources import Controller, Fan
from kcp.machinery import meta
from kcp.machinery.labels import from_label_selector

Json = dict[str, Any]
ROLES = "clusterroles.rbac.authorization.k8s.io"
MANAGER = "clusterrole-aggregation-controller"


def plan(key: str, view: fx.View, env: fx.Env) -> fx.Plan:
    del env
    role = view.roles.get(key)
    if role is None or role.get("aggregationRule") is None:
        return
    rules = aggregated_rules(role, view)
    if rules == (role.get("rules") or []):
        return
    applied = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": meta.name(role)},
        "rules": rules,
    }
    yield fx.Patch(ROLES, "", meta.name(role), applied, type="apply", field_manager=MANAGER, force=True)


def aggregated_rules(role: Json, view: fx.View) -> list[Json]:
    """Selector by selector, the roles of each by name; a rule that is there already is not repeated."""
    rules: list[Json] = []
    for item in role["aggregationRule"].get("clusterRoleSelectors") or ():
        selector = from_label_selector(item)
        for other in view.roles.list():
            if meta.name(other) == meta.name(role) or not selector.matches(meta.labels(other)):
                continue
            rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules


def touched_role(old: Json | None, new: Json | None, readers: Mapping[str, Any]) -> list[str]:
    """Any role may be part of any aggregated one."""
    if old is not None and new is not None:
        same_rules = old.get("rules") == new.get("rules")
        same_rule = old.get("aggregationRule") == new.get("aggregationRule")
        if same_rules and same_rule and meta.labels(old) == meta.labels(new):
            return []
    return [meta.name(role) for role in readers["roles"].index("aggregated", "yes")]


def aggregated(role: Json) -> list[str]:
    return ["yes"] if role.get("aggregationRule") is not None else []


CONTROLLER = Controller(
    name="clusterrole-aggregation-controller",
    identity="clusterrole-aggregation-controller",
    plan=plan,
    watches={"roles": Fan(ROLES, keys=touched_role, indexes={"aggregated": aggregated})},
)
