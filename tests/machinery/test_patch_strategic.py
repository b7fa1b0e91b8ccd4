"""Strategic merge patch: the documented examples, every directive, order, texts.

Source of the examples: Kubernetes' documentation "Update API Objects in Place Using kubectl patch" and the design
proposals for $retainKeys, $deleteFromPrimitiveList and $setElementOrder.
"""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.errors import ApiError, BadRequest, Invalid
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.patch.strategic import strategic_merge
from kcp.machinery.schema.compile import Schema, schema_for

Json = dict[str, Any]


def schema_of(kind: str, group: str = "") -> Schema:
    schema = schema_for(GroupVersionKind(group, "v1", kind))
    assert schema is not None
    return schema


DEPLOYMENT = schema_of("Deployment", "apps")
POD = schema_of("Pod")
SERVICE = schema_of("Service")
NODE = schema_of("Node")


def deployment(**pod: Any) -> Json:
    return {"spec": {"template": {"spec": pod}}}


def pod(*containers: Json, **fields: Any) -> Json:
    return {"spec": {"containers": list(containers), **fields}}


def names(items: list[Json], key: str = "name") -> list[Any]:
    return [item[key] for item in items]


def test_a_container_is_added_in_front() -> None:
    """kubectl patch with one more container: the list merges by name, the patch's items come first."""
    before = deployment(containers=[{"name": "patch-demo-ctr", "image": "nginx"}])
    after = strategic_merge(
        before, deployment(containers=[{"name": "patch-demo-ctr-2", "image": "redis"}]), DEPLOYMENT
    )
    assert after == deployment(
        containers=[
            {"name": "patch-demo-ctr-2", "image": "redis"},
            {"name": "patch-demo-ctr", "image": "nginx"},
        ]
    )


def test_tolerations_have_no_merge_key_and_are_replaced() -> None:
    before = deployment(tolerations=[{"key": "dedicated", "effect": "NoSchedule"}])
    new = [{"key": "disktype", "effect": "NoSchedule", "value": "ssd"}]
    assert strategic_merge(before, deployment(tolerations=new), DEPLOYMENT) == deployment(tolerations=new)


def test_an_item_is_merged_field_by_field() -> None:
    before = pod({"name": "a", "image": "nginx", "env": [{"name": "X", "value": "1"}]}, {"name": "b"})
    patch = pod({"name": "a", "image": "redis", "env": [{"name": "Y", "value": "2"}]})
    after = strategic_merge(before, patch, POD)
    assert after["spec"]["containers"][0] == {
        "name": "a",
        "image": "redis",
        "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}],
    }
    assert after["spec"]["containers"][1] is before["spec"]["containers"][1]


def test_null_removes_a_member() -> None:
    before = pod({"name": "a", "image": "x"}, nodeName="n")
    assert strategic_merge(before, {"spec": {"nodeName": None, "hostname": None}}, POD) == pod(
        {"name": "a", "image": "x"}
    )


def test_nulls_inside_new_members_are_dropped() -> None:
    after = strategic_merge(
        {"spec": {}}, {"spec": {"securityContext": {"runAsUser": None, "fsGroup": 1}}}, POD
    )
    assert after == {"spec": {"securityContext": {"fsGroup": 1}}}


def test_retain_keys_clears_what_is_not_named() -> None:
    before = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge(before, patch, DEPLOYMENT) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_retain_keys_in_a_merged_list() -> None:
    before = pod(volumes=[{"name": "v", "emptyDir": {}}, {"name": "w", "hostPath": {"path": "/"}}])
    patch = {
        "spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}
    }
    assert strategic_merge(before, patch, POD)["spec"]["volumes"] == [
        {"name": "v", "configMap": {"name": "c"}},
        {"name": "w", "hostPath": {"path": "/"}},
    ]


def test_retain_keys_must_name_all_members_of_the_patch() -> None:
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "x", "rollingUpdate": {}}}}
    with pytest.raises(BadRequest, match=r"^invalid patch format of retainKeys$"):
        strategic_merge({"spec": {"strategy": {}}}, patch, DEPLOYMENT)


def test_delete_an_item() -> None:
    before = pod({"name": "a"}, {"name": "b"})
    assert strategic_merge(before, pod({"$patch": "delete", "name": "a"}), POD) == pod({"name": "b"})


def test_replace_a_list() -> None:
    before = pod({"name": "a"}, {"name": "b"})
    assert strategic_merge(before, pod({"$patch": "replace"}, {"name": "c"}), POD) == pod({"name": "c"})


def test_replace_a_map() -> None:
    before = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    patch = {"metadata": {"labels": {"$patch": "replace", "c": "3"}}}
    assert strategic_merge(before, patch, POD) == {"metadata": {"labels": {"c": "3"}}}


def test_delete_a_map() -> None:
    before = {"metadata": {"labels": {"a": "1"}}}
    assert strategic_merge(before, {"metadata": {"labels": {"$patch": "delete"}}}, POD) == {
        "metadata": {"labels": {}}
    }


def test_delete_from_a_list_of_scalars() -> None:
    before = {"metadata": {"finalizers": ["a", "b", "c"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"]}}
    after = strategic_merge(before, patch, POD)
    assert sorted(after["metadata"]["finalizers"]) == ["a", "c", "d"]


def test_scalars_are_merged_once() -> None:
    before = {"metadata": {"finalizers": ["a", "b"]}}
    after = strategic_merge(before, {"metadata": {"finalizers": ["b", "c"]}}, POD)
    assert sorted(after["metadata"]["finalizers"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("live", "changes", "order", "expected"),
    [
        (["a", "b", "c"], [], ["c", "b", "a"], ["c", "b", "a"]),
        (["a", "b"], ["c"], ["a", "c", "b"], ["a", "c", "b"]),
        (["a", "server", "b"], ["c"], ["a", "b", "c"], ["a", "server", "b", "c"]),
        (["server", "a"], ["b"], ["b", "a"], ["b", "server", "a"]),
        ([], ["b", "a"], ["b", "a"], ["b", "a"]),
    ],
)
def test_set_element_order(
    live: list[str], changes: list[str], order: list[str], expected: list[str]
) -> None:
    patch: Json = {"$setElementOrder/containers": [{"name": name} for name in order]}
    if changes:
        patch["containers"] = [{"name": name, "image": "new"} for name in changes]
    before: Json = {"spec": {"containers": [{"name": name} for name in live]}} if live else {"spec": {}}
    assert names(strategic_merge(before, {"spec": patch}, POD)["spec"]["containers"]) == expected


def test_set_element_order_of_scalars() -> None:
    before = {"metadata": {"finalizers": ["a", "b"]}}
    patch = {"metadata": {"$setElementOrder/finalizers": ["b", "c", "a"], "finalizers": ["c"]}}
    assert strategic_merge(before, patch, POD)["metadata"]["finalizers"] == ["b", "c", "a"]


def test_a_deletion_needs_no_place_in_the_order() -> None:
    before = pod({"name": "a"}, {"name": "b"})
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "b"}],
            "containers": [{"name": "a", "$patch": "delete"}],
        }
    }
    assert names(strategic_merge(before, patch, POD)["spec"]["containers"]) == ["b"]


def test_an_order_that_contradicts_the_patch_is_refused() -> None:
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "b"}, {"name": "a"}],
        }
    }
    with pytest.raises(ApiError) as caught:
        strategic_merge(pod({"name": "a"}, {"name": "b"}), patch, POD)
    assert caught.value.message == (
        "the order in patch list:\n[map[name:b] map[name:a]]\n "
        "doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]"
    )


def test_ports_of_a_service_merge_by_port() -> None:
    before = {"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443}]}}
    after = strategic_merge(before, {"spec": {"ports": [{"port": 80, "name": "web"}]}}, SERVICE)
    assert after["spec"]["ports"] == [{"port": 80, "name": "web"}, {"port": 443}]


def test_kubectl_cordon_and_taint() -> None:
    before = {
        "spec": {"podCIDR": "10.0.0.0/24"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    after = strategic_merge(
        before, {"spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]}}, NODE
    )
    assert after["spec"] == {
        "podCIDR": "10.0.0.0/24",
        "unschedulable": True,
        "taints": [{"key": "k", "effect": "NoSchedule"}],
    }
    status = strategic_merge(after, {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, NODE)
    assert status["status"]["conditions"] == [{"type": "Ready", "status": "False"}]


def test_a_selector_that_replaces() -> None:
    """PodDisruptionBudgetSpec.selector has the strategy `replace`."""
    budget = schema_of("PodDisruptionBudget", "policy")
    before = {"spec": {"selector": {"matchLabels": {"a": "1"}, "matchExpressions": []}}}
    after = strategic_merge(before, {"spec": {"selector": {"matchLabels": {"b": "2"}}}}, budget)
    assert after == {"spec": {"selector": {"matchLabels": {"b": "2"}}}}


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        (pod({"image": "nginx"}), "map: map[image:nginx] does not contain declared merge key: name"),
        (pod({"$patch": "delete"}), "map: map[$patch:delete] does not contain declared merge key: name"),
        (pod({"$patch": "merge", "name": "a"}), "merging lists cannot yet be specified in the patch"),
        (pod({"$patch": "spin", "name": "a"}), "unknown patch type: spin in map: map[$patch:spin name:a]"),
        ({"metadata": {"$patch": "spin"}}, "unknown patch type: spin in map: map[$patch:spin]"),
        (
            {"spec": {"$setElementOrder/nothing": [1]}},
            'unable to find api field in struct PodSpec for the json field "nothing"',
        ),
        ({"spec": {"$setElementOrder/containers": "x"}}, "expected a []interface {}, but received a string"),
    ],
)
def test_what_does_not_fit_has_kubernetes_text(patch: Json, text: str) -> None:
    before = {"metadata": {"name": "p"}, **pod({"name": "a"})}
    with pytest.raises(ApiError) as caught:
        strategic_merge(before, patch, POD)
    assert (caught.value.code, caught.value.message) == (500, text)


def test_malformed_directives_are_bad_requests() -> None:
    with pytest.raises(BadRequest, match=r"^invalid patch format of primitive list$"):
        strategic_merge({"metadata": {}}, {"metadata": {"$deleteFromPrimitiveList": ["a"]}}, POD)
    with pytest.raises(BadRequest, match=r"^invalid patch format of setElementOrder list$"):
        strategic_merge({"metadata": {}}, {"metadata": {"$setElementOrder": ["a"]}}, POD)


def test_lists_of_lists_are_invalid() -> None:
    with pytest.raises(Invalid):
        strategic_merge({"metadata": {"finalizers": []}}, {"metadata": {"finalizers": [["b"]]}}, POD)


def test_inputs_are_left_alone() -> None:
    before = pod({"name": "a", "image": "x"})
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"name": "b"}],
            "$retainKeys": ["containers"],
        }
    }
    kept = repr(before), repr(patch)
    strategic_merge(before, patch, POD)
    assert (repr(before), repr(patch)) == kept
