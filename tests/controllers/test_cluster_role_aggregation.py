"""Aggregated roles: the rules of everything selected, in order, once."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.cluster_role_aggregation import CONTROLLER, touched_role
from tests.support.planning import World

Json = dict[str, Any]
ROLES = "clusterroles.rbac.authorization.k8s.io"


def rule(resource: str) -> Json:
    return {"apiGroups": [""], "resources": [resource], "verbs": ["get"]}


def role(name: str, *resources: str, part_of: str = "", selects: tuple[str, ...] = ()) -> Json:
    built: Json = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"to": part_of} if part_of else {}},
        "rules": [rule(resource) for resource in resources],
    }
    if selects:
        built["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {"to": s}} for s in selects]}
    return built


def test_rules_come_by_selector_then_by_name_without_repetition() -> None:
    world = World(
        role("all", selects=("edit", "view")),
        role("b", "pods", "services", part_of="edit"),
        role("a", "pods", part_of="view"),
        role("c", "nodes", part_of="view"),
        role("unrelated", "secrets"),
    )
    (patch,) = world.plan(CONTROLLER, "all")
    assert isinstance(patch, fx.Patch)
    assert (patch.type, patch.field_manager, patch.force) == (
        "apply",
        "clusterrole-aggregation-controller",
        True,
    )
    assert patch.patch["rules"] == [rule("pods"), rule("services"), rule("nodes")]
    assert patch.patch["metadata"] == {"name": "all"}


def test_a_role_never_aggregates_itself_and_plain_roles_are_left_alone() -> None:
    world = World(role("all", "pods", part_of="all", selects=("all",)), role("plain", "pods"))
    (patch,) = world.plan(CONTROLLER, "all")
    assert isinstance(patch, fx.Patch) and patch.patch["rules"] == []
    assert world.plan(CONTROLLER, "plain") == []


def test_nothing_to_do_when_the_rules_are_right() -> None:
    world = World(role("all", "pods", selects=("view",)), role("a", "pods", part_of="view"))
    assert world.plan(CONTROLLER, "all") == []


def test_a_change_that_moves_no_rule_queues_nothing() -> None:
    world = World(role("all", selects=("view",)), role("a", "pods", part_of="view"))
    readers = {"roles": world.view(CONTROLLER).roles}
    part = world.get(ROLES, "a")
    annotated = {**part, "metadata": {**part["metadata"], "annotations": {"x": "y"}}}
    assert touched_role(part, annotated, readers) == []
    assert touched_role(part, None, readers) == ["all"]
    assert touched_role(part, role("a", "nodes", part_of="view"), readers) == ["all"]
