"""Roles and bindings."""

from typing import Any

import pytest

from kcp.apis import rbac

Json = dict[str, Any]


def _texts(errors: list[Any]) -> list[str]:
    return [str(error) for error in errors]


def test_a_role_cannot_grant_paths() -> None:
    role: Json = {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]}
    assert _texts(rbac.validate_role(role)) == [
        'rules[0].nonResourceURLs: Invalid value: ["/healthz"]: namespaced rules cannot apply to non-resource URLs'
    ]
    assert rbac.validate_cluster_role(role) == []


def test_a_rule_needs_verbs_groups_and_resources() -> None:
    assert _texts(rbac.validate_role({"rules": [{}]})) == [
        "rules[0].verbs: Required value: verbs must contain at least one value",
        "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        "rules[0].resources: Required value: resource rules must supply at least one resource",
    ]


def test_a_rule_is_about_paths_or_resources() -> None:
    rule = {"verbs": ["get"], "nonResourceURLs": ["*"], "resources": ["pods"]}
    assert _texts(rbac.validate_cluster_role({"rules": [rule]})) == [
        'rules[0].nonResourceURLs: Invalid value: ["*"]: rules cannot apply to both regular resources and non-resource URLs'
    ]


def test_aggregation_needs_a_selector() -> None:
    assert _texts(rbac.validate_cluster_role({"aggregationRule": {}})) == [
        "aggregationRule.clusterRoleSelectors: Required value:"
        " at least one clusterRoleSelector required if aggregationRule is non-nil"
    ]


def _binding(**more: Any) -> Json:
    reference = {"apiGroup": rbac.GROUP, "kind": "ClusterRole", "name": "view"}
    return {"metadata": {"name": "b"}, "roleRef": reference, **more}


def test_groups_of_subjects_are_filled_in() -> None:
    binding = _binding(
        subjects=[{"kind": "User", "name": "ann"}, {"kind": "ServiceAccount", "name": "sa", "namespace": "x"}]
    )
    binding["roleRef"].pop("apiGroup")
    strategy = rbac.STRATEGIES["RoleBinding"]
    strategy.default(binding)
    assert binding["roleRef"]["apiGroup"] == rbac.GROUP
    assert binding["subjects"][0]["apiGroup"] == rbac.GROUP
    assert "apiGroup" not in binding["subjects"][1]
    assert strategy.validate_create(binding) == []


@pytest.mark.parametrize(
    ("subject", "texts"),
    [
        ({"kind": "ServiceAccount", "name": "sa"}, ["subjects[0].namespace: Required value"]),
        (
            {"kind": "ServiceAccount", "name": "sa", "namespace": "x", "apiGroup": "y"},
            ['subjects[0].apiGroup: Unsupported value: "y": supported values: ""'],
        ),
        (
            {"kind": "Group", "apiGroup": rbac.GROUP},
            [
                "subjects[0].name: Required value",
                'subjects[0].name: Invalid value: "": group name cannot be empty',
            ],
        ),
        (
            {"kind": "Robot", "name": "r"},
            [
                'subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group"'
            ],
        ),
    ],
)
def test_subjects(subject: Json, texts: list[str]) -> None:
    assert _texts(rbac.validate_cluster_role_binding(_binding(subjects=[subject]))) == texts


def test_a_cluster_binding_cannot_bind_a_role() -> None:
    binding = _binding()
    binding["roleRef"]["kind"] = "Role"
    assert rbac.validate_role_binding(binding) == []
    assert _texts(rbac.validate_cluster_role_binding(binding)) == [
        'roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"'
    ]


def test_the_role_of_a_binding_stays() -> None:
    new, old = _binding(), _binding()
    new["roleRef"] = {**new["roleRef"], "name": "edit"}
    assert _texts(rbac.validate_role_binding_update(new, old)) == [
        'roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"edit"}:'
        " cannot change roleRef"
    ]


def test_subjects_print_by_kind() -> None:
    subjects = [
        {"kind": "User", "name": "ann"},
        {"kind": "ServiceAccount", "name": "sa", "namespace": "x"},
        {"kind": "Group", "name": "ops"},
        {"kind": "User", "name": "bob"},
    ]
    assert rbac.subject_names(subjects) == (["ann", "bob"], ["ops"], ["x/sa"])
