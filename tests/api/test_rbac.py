"""RBAC: who may what, why, and who may hand it on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.api.auth.bootstrap_roles import bootstrap_objects, role_rules
from kcp.api.auth.node import NodeAuthorizer
from kcp.api.auth.protocol import Attributes
from kcp.api.auth.rbac import check_escalation
from kcp.api.auth.rules import Rule, compact, go_text, uncovered
from kcp.api.auth.union import PrivilegedGroup, UnionAuthorizer
from kcp.machinery.errors import Forbidden, NotFound
from tests.api.support import asks, binding, cluster_role, rbac, role, rule, user

ALICE = user("alice", "dev")


def test_a_cluster_role_binding_allows_everywhere_and_says_why() -> None:
    authorizer = rbac(cluster_role("reader", rule("get list", "pods")), binding("b", "reader", "User:alice"))
    assert authorizer.authorize(asks(ALICE, "get", "pods", "any")) == (
        "allow",
        'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "reader" to User "alice"',
    )
    assert authorizer.authorize(asks(ALICE, "delete", "pods", "any")) == ("no opinion", "")
    assert authorizer.authorize(asks(user("bob"), "get", "pods", "any")) == ("no opinion", "")


def test_a_role_binding_allows_in_its_namespace_only() -> None:
    authorizer = rbac(
        role("a", "reader", rule("get", "pods")), binding("b", "reader", "Group:dev", namespace="a")
    )
    verdict, reason = authorizer.authorize(asks(ALICE, "get", "pods", "a"))
    assert (verdict, reason) == (
        "allow",
        'RBAC: allowed by RoleBinding "b/a" of Role "reader" to Group "dev"',
    )
    assert authorizer.authorize(asks(ALICE, "get", "pods", "other"))[0] == "no opinion"
    assert authorizer.authorize(asks(ALICE, "get", "pods"))[0] == "no opinion"


def test_service_accounts_match_by_user_name() -> None:
    authorizer = rbac(
        cluster_role("reader", rule("get", "pods")), binding("b", "reader", "ServiceAccount:kube-system/x")
    )
    account = user("system:serviceaccount:kube-system:x")
    verdict, reason = authorizer.authorize(asks(account, "get", "pods"))
    assert verdict == "allow"
    assert reason.endswith('to ServiceAccount "x/kube-system"')


@pytest.mark.parametrize(
    ("resources", "subresource", "allowed"),
    [
        ("pods", "", True),
        ("pods", "log", False),
        ("pods/log", "log", True),
        ("pods/log", "", False),
        ("*/log", "log", True),
        ("*", "log", True),
        ("*", "", True),
    ],
)
def test_subresources_are_things_of_their_own(resources: str, subresource: str, allowed: bool) -> None:
    authorizer = rbac(cluster_role("r", rule("get", resources)), binding("b", "r", "User:alice"))
    verdict, _ = authorizer.authorize(asks(ALICE, "get", "pods", subresource=subresource))
    assert (verdict == "allow") is allowed


def test_resource_names_limit_to_those_names() -> None:
    authorizer = rbac(
        cluster_role("r", rule("get list", "configmaps", names="a b")), binding("b", "r", "User:alice")
    )
    assert authorizer.authorize(asks(ALICE, "get", "configmaps", "n", name="a"))[0] == "allow"
    assert authorizer.authorize(asks(ALICE, "get", "configmaps", "n", name="c"))[0] == "no opinion"
    assert authorizer.authorize(asks(ALICE, "list", "configmaps", "n"))[0] == "no opinion"


def test_paths_match_exactly_or_by_trailing_star() -> None:
    authorizer = rbac(cluster_role("r", rule("get", urls="/healthz /api/*")), binding("b", "r", "User:alice"))

    def may(path: str) -> bool:
        return authorizer.authorize(Attributes(ALICE, "get", path=path, resource_request=False))[0] == "allow"

    assert [may(path) for path in ("/healthz", "/healthz/x", "/api/v1", "/apis")] == [
        True,
        False,
        True,
        False,
    ]


def test_a_binding_to_a_missing_role_is_reported_in_the_denial() -> None:
    authorizer = rbac(binding("b", "gone", "User:alice"), binding("c", "lost", "User:alice", namespace="n"))
    _, reason = authorizer.authorize(asks(ALICE, "get", "pods", "n"))
    assert reason == (
        'RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, '
        'role.rbac.authorization.k8s.io "lost" not found]'
    )


def test_aggregating_roles_hold_what_their_labels_select() -> None:
    label = {"rbac.example.com/aggregate": "true"}
    authorizer = rbac(
        cluster_role("sum", aggregationRule={"clusterRoleSelectors": [{"matchLabels": label}]}),
        cluster_role("part", rule("get", "pods"), labels=label),
        binding("b", "sum", "User:alice"),
    )
    assert authorizer.authorize(asks(ALICE, "get", "pods"))[0] == "allow"


def test_rules_for_lists_everything_that_applies() -> None:
    authorizer = rbac(
        cluster_role("r", rule("get", "pods")),
        role("n", "s", rule("list", "secrets")),
        binding("b", "r", "User:alice"),
        binding("c", "s", "Group:dev", namespace="n"),
    )
    rules, problem = authorizer.rules_for(ALICE, "n")
    assert ([sorted(each.resources) for each in rules], problem) == ([["pods"], ["secrets"]], "")


def test_masters_may_everything() -> None:
    union = UnionAuthorizer((PrivilegedGroup(), rbac()))
    assert union.authorize(asks(user("root", "system:masters"), "delete", "nodes"))[0] == "allow"
    assert union.authorize(asks(ALICE, "delete", "nodes"))[0] == "no opinion"


# --- handing rights on -------------------------------------------------------------------------------------------


def test_a_role_with_more_than_one_holds_is_refused_with_what_is_missing() -> None:
    authorizer = rbac(cluster_role("r", rule("get", "pods")), binding("b", "r", "User:alice"))
    new = role("n", "new", rule("get list watch", "pods"), rule("get", "secrets"))
    with pytest.raises(Forbidden) as caught:
        check_escalation(authorizer, authorizer, ALICE, "roles", "n", new)
    assert caught.value.message == (
        'roles.rbac.authorization.k8s.io "new" is forbidden: user "alice" '
        '(groups=["dev" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}'
    )


def test_escalate_and_bind_allow_it() -> None:
    authorizer = rbac(
        cluster_role("r", rule("escalate", "roles", "rbac.authorization.k8s.io")),
        cluster_role("s", rule("bind", "clusterroles", "rbac.authorization.k8s.io", names="big")),
        cluster_role("big", rule("*", "*", "*")),
        binding("b", "r", "User:alice"),
        binding("c", "s", "User:alice"),
    )
    check_escalation(authorizer, authorizer, ALICE, "roles", "n", role("n", "x", rule("get", "secrets")))
    check_escalation(authorizer, authorizer, ALICE, "clusterrolebindings", "", binding("y", "big", "User:z"))
    with pytest.raises(NotFound):
        missing = binding("y", "missing", "User:z")
        check_escalation(authorizer, authorizer, ALICE, "clusterrolebindings", "", missing)


def test_an_update_that_grants_nothing_new_passes() -> None:
    authorizer = rbac()
    old = role("n", "x", rule("get", "secrets"))
    check_escalation(authorizer, authorizer, ALICE, "roles", "n", {**old}, old)


VERBS, RESOURCES = st.sampled_from(["get", "list", "*"]), st.sampled_from(["pods", "pods/log", "*", "*/log"])
RULES = st.lists(
    st.builds(
        lambda verbs, resources, names: {
            "apiGroups": [""],
            "verbs": verbs,
            "resources": resources,
            **({"resourceNames": names} if names else {}),
        },
        st.lists(VERBS, min_size=1, max_size=2, unique=True),
        st.lists(RESOURCES, min_size=1, max_size=2, unique=True),
        st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
    ),
    max_size=3,
)


@given(RULES, RULES)
def test_what_is_covered_is_allowed(owned: list[Any], wanted: list[Any]) -> None:
    """If nothing is missing, every single right of the wanted rules is one of the owned ones."""
    own, want = [Rule.of(each) for each in owned], [Rule.of(each) for each in wanted]
    if uncovered(own, want):
        return
    for each in want:
        for verb in each.verbs - {"*"}:
            for resource in ("pods", "pods/log"):
                kind, _, sub = resource.partition("/")
                if each.allows_resource(verb, "", kind, sub):
                    assert any(o.allows_resource(verb, "", kind, sub) for o in own)


@given(RULES)
def test_rules_cover_themselves(rules: list[Any]) -> None:
    compiled = [Rule.of(each) for each in rules]
    assert uncovered(compiled, compiled) == []


def test_compact_texts() -> None:
    atoms = [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
        {"nonResourceURLs": ["/x"], "verbs": ["get"]},
    ]
    assert [go_text(each) for each in compact(atoms)] == [
        '{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}',
        '{NonResourceURLs:["/x"], Verbs:["get"]}',
    ]


# --- the default policy ------------------------------------------------------------------------------------------


def test_the_default_roles_are_whole() -> None:
    objects = bootstrap_objects()
    names = {(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) for obj in objects}
    assert len(names) == len(objects) >= 133
    for obj in objects:
        assert obj["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults"
        if obj["kind"].endswith("Binding"):
            ref = obj["roleRef"]
            place = obj["metadata"].get("namespace", "") if ref["kind"] == "Role" else ""
            assert (ref["kind"], place, ref["name"]) in names
    roles = {obj["metadata"]["name"]: obj for obj in objects if obj["kind"] == "ClusterRole"}
    assert all(roles[name]["rules"] for name in ("admin", "edit", "view"))


def test_default_roles_give_components_what_they_need_and_no_more() -> None:
    authorizer = rbac(*bootstrap_objects())
    deployments = user("system:serviceaccount:kube-system:deployment-controller", "system:serviceaccounts")
    scheduler = user("system:kube-scheduler")
    assert authorizer.authorize(asks(deployments, "create", "replicasets", "d", group="apps"))[0] == "allow"
    assert authorizer.authorize(asks(deployments, "get", "secrets", "d"))[0] == "no opinion"
    assert authorizer.authorize(asks(scheduler, "create", "pods", "d", subresource="binding"))[0] == "allow"
    assert authorizer.authorize(asks(scheduler, "get", "secrets", "d"))[0] == "no opinion"
    anonymous = Attributes(user("x"), "get", path="/version", resource_request=False)
    assert authorizer.authorize(anonymous)[0] == "allow"


def _pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "d"}, "spec": {"nodeName": node, **spec}}


def test_nodes_read_only_what_their_pods_refer_to() -> None:
    pods = [
        _pod("a", "n1", volumes=[{"name": "v", "secret": {"secretName": "mine"}}], serviceAccountName="web"),
        _pod("b", "n2", volumes=[{"name": "v", "secret": {"secretName": "theirs"}}], serviceAccountName="db"),
    ]
    pods[0]["spec"]["resourceClaims"] = [
        {"name": "x", "resourceClaimName": "own"},
        {"name": "y", "resourceClaimTemplateName": "t"},
    ]
    pods[0]["status"] = {"resourceClaimStatuses": [{"name": "y", "resourceClaimName": "made"}]}
    nodes = NodeAuthorizer(
        role_rules("system:node"),
        lambda node: [pod for pod in pods if pod["spec"]["nodeName"] == node],
        lambda resource, namespace, name: None,
    )
    kubelet = user("system:node:n1", "system:nodes")

    def may(verb: str, resource: str, **more: Any) -> bool:
        return nodes.authorize(asks(kubelet, verb, resource, **more))[0] == "allow"

    assert may("get", "secrets", namespace="d", name="mine")
    assert not may("get", "secrets", namespace="d", name="theirs")
    assert not may("list", "secrets", namespace="d")
    dra = {"group": "resource.k8s.io", "namespace": "d"}
    assert may("get", "resourceclaims", name="own", **dra) and may(
        "get", "resourceclaims", name="made", **dra
    )
    assert not may("get", "resourceclaims", name="other", **dra) and not may("list", "resourceclaims", **dra)
    assert may("create", "serviceaccounts", namespace="d", name="web", subresource="token")
    assert not may("create", "serviceaccounts", namespace="d", name="db", subresource="token")
    assert may("update", "leases", group="coordination.k8s.io", namespace="kube-node-lease", name="n1")
    assert not may("update", "leases", group="coordination.k8s.io", namespace="kube-node-lease", name="n2")
    assert may("patch", "nodes", name="n1", subresource="status")
    assert not may("delete", "namespaces", name="d")
    assert nodes.authorize(asks(user("alice"), "get", "pods")) == ("no opinion", "")
