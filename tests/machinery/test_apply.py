"""Server-side apply: who owns what, conflicts, removal, sharing, subresources, times.

The scenarios and the managedFields are those of Kubernetes' documentation (Server-Side Apply) and of what
`kubectl get --show-managed-fields` prints on a cluster.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kcp.machinery.errors import ApiError, BadRequest, Conflict
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.patch.apply import LAST_APPLIED, server_side_apply, update_managed_fields
from kcp.machinery.patch.managers import MAX_UPDATERS
from kcp.machinery.schema.compile import Schema, compile_custom_resource, schema_for

Json = dict[str, Any]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)


def schema_of(kind: str, group: str = "") -> Schema:
    schema = schema_for(GroupVersionKind(group, "v1", kind))
    assert schema is not None
    return schema


DEPLOYMENT = schema_of("Deployment", "apps")
CONFIG_MAP = schema_of("ConfigMap")


def deployment(replicas: int | None = None, image: str | None = None, **spec: Any) -> Json:
    body: Json = {**spec}
    if replicas is not None:
        body["replicas"] = replicas
    if image is not None:
        body["template"] = {"spec": {"containers": [{"name": "web", "image": image}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": body,
    }


def nothing() -> Json:
    """A configuration that says nothing: an empty spec would own the spec."""
    return {key: value for key, value in deployment().items() if key != "spec"}


def config_map(**data: str) -> Json:
    body: Json = {"data": data} if data else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default"},
        **body,
    }


def stored(obj: Json) -> Json:
    """As if the object had been stored: with an identity."""
    return {**obj, "metadata": {**obj["metadata"], "uid": "u1"}}


def apply(
    live: Json | None,
    applied: Json,
    manager: str,
    *,
    force: bool = False,
    now: datetime = NOW,
    schema: Schema | None = DEPLOYMENT,
    subresource: str = "",
) -> Json:
    result = server_side_apply(
        live,
        applied,
        schema=schema,
        manager=manager,
        force=force,
        subresource=subresource,
        api_version=applied["apiVersion"],
        now=now,
    )
    return stored(result) if "uid" not in result["metadata"] else result


def update(
    live: Json | None,
    new: Json,
    manager: str,
    *,
    now: datetime = NOW,
    schema: Schema | None = DEPLOYMENT,
    subresource: str = "",
    reset: tuple[tuple[str, ...], ...] = (),
) -> Json:
    return update_managed_fields(
        live,
        new,
        schema=schema,
        manager=manager,
        subresource=subresource,
        api_version=new["apiVersion"],
        now=now,
        reset_fields=reset,
    )


def edited(obj: Json, **spec: Any) -> Json:
    return {**obj, "spec": {**obj["spec"], **spec}}


def fields_of(obj: Json, manager: str, operation: str = "Apply", subresource: str = "") -> Json | None:
    for entry in obj["metadata"].get("managedFields", ()):
        if (entry["manager"], entry["operation"], entry.get("subresource", "")) == (
            manager,
            operation,
            subresource,
        ):
            fields: Json = entry["fieldsV1"]
            return fields
    return None


def times_of(obj: Json) -> dict[str, str]:
    return {entry["manager"]: entry["time"] for entry in obj["metadata"]["managedFields"]}


# Golden managedFields


CREATED: Json = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "nginx",
        "namespace": "default",
        "uid": "u1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"app": "nginx"},
    },
    "spec": {
        "progressDeadlineSeconds": 600,
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "selector": {"matchLabels": {"app": "nginx"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {
            "metadata": {"labels": {"app": "nginx"}},
            "spec": {
                "containers": [
                    {
                        "name": "nginx",
                        "image": "nginx",
                        "imagePullPolicy": "Always",
                        "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        "resources": {},
                        "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "File",
                    }
                ],
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30,
            },
        },
    },
    "status": {},
}

CREATED_FIELDS = """
{"f:metadata":{"f:labels":{".":{},"f:app":{}}},
 "f:spec":{"f:progressDeadlineSeconds":{},"f:replicas":{},"f:revisionHistoryLimit":{},"f:selector":{},
  "f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}},
  "f:template":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},
   "f:spec":{"f:containers":{"k:{\\"name\\":\\"nginx\\"}":{".":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},
     "f:ports":{".":{},"k:{\\"containerPort\\":80,\\"protocol\\":\\"TCP\\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},
     "f:resources":{},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},
    "f:dnsPolicy":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},
    "f:terminationGracePeriodSeconds":{}}}}}
"""


def test_what_the_creator_of_a_deployment_owns() -> None:
    created = update(None, CREATED, "kubectl-create")
    assert created["metadata"]["managedFields"] == [
        {
            "manager": "kubectl-create",
            "operation": "Update",
            "apiVersion": "apps/v1",
            "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": json.loads(CREATED_FIELDS),
        }
    ]


def test_what_the_deployment_controller_owns_in_the_status() -> None:
    """The annotation map is new, so its creator owns the map too; status is always there, so nobody owns it."""
    live = update(None, CREATED, "kubectl-create")
    condition = {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}
    new = {
        **live,
        "metadata": {**live["metadata"], "annotations": {"deployment.kubernetes.io/revision": "1"}},
        "status": {"observedGeneration": 1, "replicas": 1, "conditions": [condition]},
    }
    after = update(live, new, "kube-controller-manager", subresource="status", now=LATER)
    assert fields_of(after, "kube-controller-manager", "Update", "status") == json.loads(
        """
        {"f:metadata":{"f:annotations":{".":{},"f:deployment.kubernetes.io/revision":{}}},
         "f:status":{"f:conditions":{".":{},"k:{\\"type\\":\\"Available\\"}":
           {".":{},"f:reason":{},"f:status":{},"f:type":{}}},"f:observedGeneration":{},"f:replicas":{}}}
        """
    )
    assert fields_of(after, "kubectl-create", "Update") == json.loads(CREATED_FIELDS)
    assert times_of(after) == {
        "kubectl-create": "2026-01-01T00:00:00Z",
        "kube-controller-manager": "2026-01-01T00:01:00Z",
    }


def test_the_applied_config_map_of_the_documentation() -> None:
    applied = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "test-cm", "namespace": "default", "labels": {"test-label": "test"}},
        "data": {"key": "some value"},
    }
    live = apply(None, applied, "kubectl", schema=CONFIG_MAP)
    assert live["metadata"]["managedFields"] == [
        {
            "manager": "kubectl",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:test-label": {}}}, "f:data": {"f:key": {}}},
        }
    ]
    changed = update(
        live, {**live, "data": {"key": "new value"}}, "kube-controller-manager", now=LATER, schema=CONFIG_MAP
    )
    assert [(e["manager"], e["operation"], e["fieldsV1"]) for e in changed["metadata"]["managedFields"]] == [
        ("kubectl", "Apply", {"f:metadata": {"f:labels": {"f:test-label": {}}}}),
        ("kube-controller-manager", "Update", {"f:data": {"f:key": {}}}),
    ]


def test_what_an_applier_of_a_deployment_owns() -> None:
    """Named structs are not owned, list items are, and so is their key field."""
    live = apply(None, deployment(3, "nginx"), "ann")
    assert fields_of(live, "ann") == {
        "f:spec": {
            "f:replicas": {},
            "f:template": {
                "f:spec": {"f:containers": {'k:{"name":"web"}': {".": {}, "f:name": {}, "f:image": {}}}}
            },
        }
    }


def test_the_default_of_a_key_names_the_item() -> None:
    container = {"name": "web", "ports": [{"containerPort": 80}]}
    live = apply(None, deployment(template={"spec": {"containers": [container]}}), "ann")
    fields = fields_of(live, "ann")
    assert fields is not None
    ports = fields["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"web"}']["f:ports"]
    assert list(ports) == ['k:{"containerPort":80,"protocol":"TCP"}']


# Conflicts


def test_a_conflict_names_who_owns_the_field() -> None:
    live = update(None, stored(deployment(3, "a")), "kubectl-client-side-apply")
    with pytest.raises(Conflict) as caught:
        apply(live, deployment(5), "ann")
    assert caught.value.message == (
        'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas'
    )
    assert caught.value.details == {
        "causes": [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "kubectl-client-side-apply" using apps/v1',
                "field": ".spec.replicas",
            }
        ]
    }
    assert caught.value.code == 409


def test_several_conflicts_are_grouped_by_manager() -> None:
    live = apply(None, deployment(image="a"), "bob")
    live = update(live, edited(live, replicas=3), "scaler")
    with pytest.raises(Conflict) as caught:
        apply(live, deployment(5, "b"), "ann")
    assert caught.value.message == (
        "Apply failed with 2 conflicts: "
        'conflicts with "bob":\n- .spec.template.spec.containers[name="web"].image\n'
        'conflicts with "scaler" using apps/v1:\n- .spec.replicas'
    )


def test_a_subresource_is_named_in_the_conflict() -> None:
    live = apply(None, deployment(3, "a"), "ann")
    live = update(live, edited(live, replicas=9), "hpa", subresource="scale")
    with pytest.raises(Conflict) as caught:
        apply(live, deployment(3, "a"), "ann")
    assert caught.value.message == (
        'Apply failed with 1 conflict: conflict with "hpa" with subresource "scale" using apps/v1: .spec.replicas'
    )


def test_force_takes_the_field_over() -> None:
    live = apply(None, deployment(3, "a"), "ann")
    live = apply(live, deployment(5), "bob", force=True, now=LATER)
    assert live["spec"]["replicas"] == 5
    assert fields_of(live, "bob") == {"f:spec": {"f:replicas": {}}}
    ann = fields_of(live, "ann")
    assert ann is not None and "f:replicas" not in ann["f:spec"]
    assert times_of(live) == {"ann": "2026-01-01T00:00:00Z", "bob": "2026-01-01T00:01:00Z"}


def test_applying_the_same_value_shares_the_field() -> None:
    live = apply(None, deployment(3, "a"), "ann")
    live = apply(live, deployment(3), "bob", now=LATER)
    assert fields_of(live, "bob") == {"f:spec": {"f:replicas": {}}}
    ann = fields_of(live, "ann")
    assert ann is not None and "f:replicas" in ann["f:spec"]
    with pytest.raises(Conflict):
        apply(live, deployment(4), "bob")


# Giving up


def test_a_field_that_is_no_longer_applied_is_removed() -> None:
    live = apply(None, deployment(3, "a", paused=True), "ann")
    live = apply(live, deployment(3, "a"), "ann")
    assert "paused" not in live["spec"]
    fields = fields_of(live, "ann")
    assert fields is not None and "f:paused" not in fields["f:spec"]


def test_a_field_that_somebody_else_owns_stays() -> None:
    live = apply(None, deployment(3, "a"), "ann")
    live = apply(live, deployment(3), "bob")
    live = apply(live, deployment(image="a"), "ann")
    assert live["spec"]["replicas"] == 3
    live = apply(live, nothing(), "bob")
    assert "replicas" not in live["spec"]
    assert fields_of(live, "bob") is None


def test_what_nobody_applied_stays() -> None:
    """Defaults and what updates left are owned by nobody or by updaters: giving up does not touch them."""
    live = apply(None, deployment(3, "a", paused=True), "ann")
    live = {**live, "spec": {**live["spec"], "progressDeadlineSeconds": 600}}
    live = apply(live, deployment(3, "a"), "ann")
    assert live["spec"]["progressDeadlineSeconds"] == 600
    assert "paused" not in live["spec"]


def test_a_list_item_is_removed_by_its_key() -> None:
    both = {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}
    live = apply(None, deployment(template={"spec": both}), "ann")
    live = apply(live, deployment(template={"spec": {"containers": [{"name": "b", "image": "2"}]}}), "ann")
    assert live["spec"]["template"]["spec"]["containers"] == [{"name": "b", "image": "2"}]


def test_an_item_that_two_own_keeps_what_the_other_set() -> None:
    def one(**fields: Any) -> Json:
        return deployment(template={"spec": {"containers": [{"name": "web", **fields}]}})

    live = apply(None, one(image="1", workingDir="/"), "ann")
    live = apply(live, one(tty=True), "bob")
    live = apply(live, one(image="1"), "ann")
    assert live["spec"]["template"]["spec"]["containers"] == [{"name": "web", "image": "1", "tty": True}]
    live = apply(live, nothing(), "ann")
    assert live["spec"]["template"]["spec"]["containers"] == [{"name": "web", "tty": True}]


def test_a_struct_goes_with_its_last_field() -> None:
    pod = {"spec": {"containers": [{"name": "a"}], "securityContext": {"fsGroup": 1}}}
    live = apply(None, deployment(template=pod), "ann")
    live = apply(live, deployment(template={"spec": {"containers": [{"name": "a"}]}}), "ann")
    assert "securityContext" not in live["spec"]["template"]["spec"]


def test_a_label_is_removed_and_the_others_stay() -> None:
    def labelled(**labels: str) -> Json:
        return {**config_map(), "metadata": {"name": "c", "labels": labels}}

    live = apply(None, labelled(a="1", b="2"), "ann", schema=CONFIG_MAP)
    live = update(
        live,
        {**live, "metadata": {**live["metadata"], "labels": {**live["metadata"]["labels"], "c": "3"}}},
        "bob",
        schema=CONFIG_MAP,
    )
    live = apply(live, labelled(a="1"), "ann", schema=CONFIG_MAP)
    assert live["metadata"]["labels"] == {"a": "1", "c": "3"}


def test_items_of_a_set_are_owned_one_by_one() -> None:
    def held(*finalizers: str) -> Json:
        return {**config_map(), "metadata": {"name": "c", "finalizers": list(finalizers)}}

    live = apply(None, held("e.com/a", "e.com/b"), "ann", schema=CONFIG_MAP)
    assert fields_of(live, "ann") == {
        "f:metadata": {"f:finalizers": {'v:"e.com/a"': {}, 'v:"e.com/b"': {}}},
    }
    live = apply(live, held("e.com/c"), "bob", schema=CONFIG_MAP)
    live = apply(live, held("e.com/b"), "ann", schema=CONFIG_MAP)
    assert live["metadata"]["finalizers"] == ["e.com/b", "e.com/c"]


def test_an_atomic_list_is_one_field() -> None:
    def tolerating(key: str) -> Json:
        return deployment(template={"spec": {"tolerations": [{"key": key}]}})

    live = apply(None, tolerating("a"), "ann")
    with pytest.raises(Conflict, match=r"\.spec\.template\.spec\.tolerations$"):
        apply(live, tolerating("b"), "bob")
    live = apply(live, tolerating("b"), "bob", force=True)
    assert live["spec"]["template"]["spec"]["tolerations"] == [{"key": "b"}]
    assert fields_of(live, "ann") is None


def test_applied_lists_keep_the_live_order_unless_the_applied_one_differs() -> None:
    def named(*names: str) -> Json:
        return deployment(template={"spec": {"containers": [{"name": name} for name in names]}})

    live = apply(None, named("a", "b", "c"), "ann")
    live = apply(live, named("c", "d"), "bob")
    assert [c["name"] for c in live["spec"]["template"]["spec"]["containers"]] == ["a", "b", "c", "d"]
    live = apply(live, named("b", "a", "c"), "ann")
    assert [c["name"] for c in live["spec"]["template"]["spec"]["containers"]] == ["b", "d", "a", "c"]


# Updates


def test_an_update_takes_a_field_from_its_applier() -> None:
    live = apply(None, deployment(3, "a"), "ann")
    live = update(live, edited(live, replicas=5), "bob", now=LATER)
    assert fields_of(live, "bob", "Update") == {"f:spec": {"f:replicas": {}}}
    ann = fields_of(live, "ann")
    assert ann is not None and "f:replicas" not in ann["f:spec"]


def test_the_worked_example_of_the_module() -> None:
    live = apply(None, deployment(3, "a"), "ann")
    live = update(live, edited(live, replicas=5), "bob")
    with pytest.raises(Conflict, match='conflict with "bob"'):
        apply(live, deployment(3, "b"), "ann")
    live = apply(live, deployment(image="b"), "ann")
    assert (live["spec"]["replicas"], live["spec"]["template"]["spec"]["containers"][0]["image"]) == (5, "b")
    live = apply(live, deployment(5), "eve")
    live = apply(live, nothing(), "eve")
    assert live["spec"]["replicas"] == 5
    assert fields_of(live, "bob", "Update") == {"f:spec": {"f:replicas": {}}}


def test_a_removed_field_belongs_to_nobody() -> None:
    live = update(None, stored(config_map(a="1", b="2")), "ann", schema=CONFIG_MAP)
    new = update(live, {**live, "data": {"a": "1"}}, "bob", now=LATER, schema=CONFIG_MAP)
    assert fields_of(new, "ann", "Update") == {"f:data": {".": {}, "f:a": {}}}
    assert fields_of(new, "bob", "Update") is None
    assert times_of(new) == {"ann": "2026-01-01T00:00:00Z"}


def test_an_update_that_changes_nothing_keeps_the_times() -> None:
    live = update(None, stored(deployment(3, "a")), "ann")
    assert update(live, dict(live), "bob", now=LATER) == live


def test_repeated_updates_of_one_manager_share_an_entry() -> None:
    live = update(None, stored(config_map(a="1")), "ann", schema=CONFIG_MAP)
    live = update(live, {**live, "data": {"a": "1", "b": "2"}}, "ann", now=LATER, schema=CONFIG_MAP)
    assert len(live["metadata"]["managedFields"]) == 1
    assert fields_of(live, "ann", "Update") == {"f:data": {".": {}, "f:a": {}, "f:b": {}}}
    assert times_of(live) == {"ann": "2026-01-01T00:01:00Z"}


def test_a_struct_that_is_no_pointer_is_not_created_by_anybody() -> None:
    container = {"name": "web"}
    live = update(None, stored(deployment(template={"spec": {"containers": [container]}})), "ann")
    limits = {**container, "resources": {"limits": {"cpu": "1"}}}
    new = update(live, edited(live, template={"spec": {"containers": [limits]}}), "bob")
    fields = fields_of(new, "bob", "Update")
    assert fields is not None
    item = fields["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"web"}']
    assert item == {"f:resources": {"f:limits": {".": {}, "f:cpu": {}}}}


def test_reset_fields_are_not_owned() -> None:
    new = {**stored(deployment(3)), "status": {"replicas": 3}}
    created = update(None, new, "ann", reset=(("status",),))
    assert fields_of(created, "ann", "Update") == {"f:spec": {"f:replicas": {}}}
    status = update(
        created,
        {**edited(created, replicas=4), "status": {"replicas": 4}},
        "kubelet",
        subresource="status",
        reset=(("spec",),),
    )
    assert fields_of(status, "kubelet", "Update", "status") == {"f:status": {"f:replicas": {}}}
    assert fields_of(status, "ann", "Update") == {"f:spec": {"f:replicas": {}}}


def test_a_request_may_set_or_reset_managed_fields() -> None:
    live = update(None, stored(config_map(a="1")), "ann", schema=CONFIG_MAP)
    reset = {**live, "metadata": {**live["metadata"], "managedFields": []}}
    assert "managedFields" not in update(live, reset, "bob", schema=CONFIG_MAP)["metadata"]
    without = {**live, "metadata": {k: v for k, v in live["metadata"].items() if k != "managedFields"}}
    assert update(live, without, "bob", schema=CONFIG_MAP) == live
    entry = {**live["metadata"]["managedFields"][0], "manager": "eve"}
    handed = {**live, "metadata": {**live["metadata"], "managedFields": [entry]}}
    assert fields_of(update(live, handed, "bob", schema=CONFIG_MAP), "eve", "Update") is not None
    broken = {**live, "metadata": {**live["metadata"], "managedFields": [{**entry, "operation": "Spin"}]}}
    assert update(live, broken, "bob", schema=CONFIG_MAP) == live


def test_an_object_without_managed_fields_stays_untracked_until_it_is_applied_to() -> None:
    live = stored(config_map(a="1"))
    assert (
        "managedFields"
        not in update(live, {**live, "data": {"a": "2"}}, "bob", schema=CONFIG_MAP)["metadata"]
    )
    applied = apply(live, config_map(b="2"), "ann", now=LATER, schema=CONFIG_MAP)
    assert fields_of(applied, "before-first-apply", "Update") == {"f:data": {".": {}, "f:a": {}}}
    assert fields_of(applied, "ann") == {"f:data": {"f:b": {}}}
    with pytest.raises(Conflict, match='conflict with "before-first-apply" using v1'):
        apply(live, config_map(a="2"), "ann", schema=CONFIG_MAP)


def test_at_most_ten_updaters_the_oldest_become_ancient() -> None:
    live = update(None, stored(config_map(k0="v")), "m0", schema=CONFIG_MAP)
    for n in range(1, MAX_UPDATERS + 3):
        new = {**live, "data": {**live["data"], f"k{n}": "v"}}
        live = update(live, new, f"m{n}", now=NOW + timedelta(seconds=n), schema=CONFIG_MAP)
    entries = live["metadata"]["managedFields"]
    assert len(entries) == MAX_UPDATERS
    assert fields_of(live, "ancient-changes", "Update") == {
        "f:data": {".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}, "f:k3": {}}
    }
    assert entries[0]["manager"] == "ancient-changes"


# Times and repetition


def test_applying_again_changes_nothing_not_even_the_time() -> None:
    live = apply(None, deployment(3, "a"), "ann")
    assert apply(live, deployment(3, "a"), "ann", now=LATER) is live


def test_applying_something_else_moves_the_time() -> None:
    live = apply(None, deployment(3, "a"), "ann")
    assert times_of(apply(live, deployment(4, "a"), "ann", now=LATER)) == {"ann": "2026-01-01T00:01:00Z"}
    assert times_of(apply(live, deployment(3), "ann", now=LATER)) == {"ann": "2026-01-01T00:01:00Z"}


def test_an_applier_keeps_one_entry_across_versions() -> None:
    hpa_v1 = schema_of("HorizontalPodAutoscaler", "autoscaling")
    applied = {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3},
    }
    live = apply(None, applied, "ann", schema=hpa_v1)
    hpa_v2 = schema_for(GroupVersionKind("autoscaling", "v2", "HorizontalPodAutoscaler"))
    live = apply(
        {**live, "apiVersion": "autoscaling/v2"},
        {**applied, "apiVersion": "autoscaling/v2"},
        "ann",
        schema=hpa_v2,
    )
    assert [entry["apiVersion"] for entry in live["metadata"]["managedFields"]] == ["autoscaling/v2"]


# What cannot be applied


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"foo": 1}, ".spec.foo: field not declared in schema"),
        ({"replicas": "3"}, ".spec.replicas: expected numeric (int or float), got string"),
        (
            {"template": {"spec": {"containers": [{"image": "a"}]}}},
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits "
            'key field "name" (and doesn\'t have default value)',
        ),
        (
            {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}},
            '.spec.template.spec.containers: duplicate entries for key [name="a"]',
        ),
        (
            {"template": {"spec": {"containers": [{"name": "a", "image": 5}]}}},
            '.spec.template.spec.containers[name="a"].image: expected string, '
            "got &value.valueUnstructured{Value:5}",
        ),
        ({"template": []}, ".spec.template: expected map, got &{[]}"),
        ({"paused": "x"}, ".spec.paused: expected boolean, got &{x}"),
    ],
)
def test_a_configuration_that_is_no_document_of_its_kind(spec: Json, fault: str) -> None:
    with pytest.raises(ApiError) as caught:
        apply(None, {**deployment(), "spec": spec}, "ann")
    assert (caught.value.code, caught.value.message) == (
        500,
        f"failed to create typed patch object (default/web; apps/v1, Kind=Deployment): {fault}",
    )


def test_several_faults_are_listed() -> None:
    with pytest.raises(ApiError) as caught:
        apply(None, {**deployment(), "spec": {"replicas": "3", "paused": 1}}, "ann")
    assert caught.value.message.endswith(
        "errors:\n  .spec.replicas: expected numeric (int or float), got string\n"
        "  .spec.paused: expected boolean, got &{1}"
    )


def test_the_version_must_be_the_requests() -> None:
    with pytest.raises(BadRequest) as caught:
        server_side_apply(
            None, deployment(), schema=DEPLOYMENT, manager="a", api_version="apps/v1beta1", now=NOW
        )
    assert caught.value.message == (
        "Incorrect version specified in apply patch. Specified patch version: apps/v1, expected: apps/v1beta1"
    )


def test_managed_fields_cannot_be_applied() -> None:
    with pytest.raises(BadRequest, match=r"^metadata\.managedFields must be nil$"):
        apply(None, {**deployment(), "metadata": {"name": "a", "managedFields": []}}, "ann")


# From client-side apply


def client_side(applied: Json) -> Json:
    annotations = {LAST_APPLIED: json.dumps(applied)}
    new = {**applied, "metadata": {**applied["metadata"], "annotations": annotations, "uid": "u1"}}
    return update(None, new, "kubectl-client-side-apply")


def test_kubectl_takes_over_what_it_applied_client_side() -> None:
    live = client_side(deployment(3, "a"))
    after = apply(live, deployment(4, "b"), "kubectl")
    assert after["spec"]["replicas"] == 4
    assert json.loads(after["metadata"]["annotations"][LAST_APPLIED])["spec"]["replicas"] == 4


def test_kubectl_still_conflicts_with_others() -> None:
    live = client_side(deployment(3, "a"))
    live = update(live, edited(live, replicas=7), "hpa", now=LATER)
    with pytest.raises(Conflict) as caught:
        apply(live, deployment(4, "b"), "kubectl")
    assert (
        caught.value.message
        == 'Apply failed with 1 conflict: conflict with "hpa" using apps/v1: .spec.replicas'
    )


def test_others_are_not_handed_anything_over() -> None:
    with pytest.raises(Conflict):
        apply(client_side(deployment(3, "a")), deployment(4), "flux")


# Custom resources


THING: Json = {"apiVersion": "e.com/v1", "kind": "Thing", "metadata": {"name": "t"}}


def test_without_a_schema_maps_are_granular_and_lists_atomic() -> None:
    live = apply(None, {**THING, "spec": {"a": {"b": 1}, "l": [{"x": 1}]}}, "ann", schema=None)
    assert fields_of(live, "ann") == {
        "f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}, "f:l": {}},
    }
    live = apply(live, {**THING, "spec": {"a": {"c": 2}}}, "bob", schema=None)
    assert live["spec"] == {"a": {"b": 1, "c": 2}, "l": [{"x": 1}]}
    live = apply(live, {**THING, "spec": {"l": [{"x": 1}]}}, "ann", schema=None)
    assert live["spec"] == {"a": {"c": 2}, "l": [{"x": 1}]}


def test_a_created_custom_resource_owns_its_structs() -> None:
    """There is no Go type whose zero value would hold them."""
    schema = compile_custom_resource(
        {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        }
    )
    created = update(None, {**THING, "spec": {"n": 1}}, "ann", schema=schema)
    assert fields_of(created, "ann", "Update") == {"f:spec": {".": {}, "f:n": {}}}


def test_a_list_with_keys_in_a_custom_resource() -> None:
    schema = compile_custom_resource(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "parts": {
                            "type": "array",
                            "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["id"],
                            "items": {"type": "object", "properties": {"id": {"type": "string"}, "v": {}}},
                        }
                    },
                }
            },
        }
    )
    live = apply(None, {**THING, "spec": {"parts": [{"id": "a", "v": 1}]}}, "ann", schema=schema)
    live = apply(live, {**THING, "spec": {"parts": [{"id": "b", "v": 2}]}}, "bob", schema=schema)
    live = apply(live, {**THING, "spec": {"parts": []}}, "ann", schema=schema)
    assert live["spec"]["parts"] == [{"id": "b", "v": 2}]


def test_a_type_that_became_atomic_is_owned_as_a_whole() -> None:
    def schema(**marks: str) -> Schema:
        one = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, **marks}
        return compile_custom_resource({"type": "object", "properties": {"one": one}})

    live = apply(None, {**THING, "one": {"a": 1, "b": 1}}, "ann", schema=schema())
    live = apply(
        live, {**THING, "one": {"a": 1, "b": 2}}, "ann", schema=schema(**{"x-kubernetes-map-type": "atomic"})
    )
    assert fields_of(live, "ann") == {"f:one": {}}


def test_entries_of_a_version_that_is_gone_are_dropped() -> None:
    live = apply(None, config_map(a="1"), "ann", schema=CONFIG_MAP)
    old = {
        **live["metadata"]["managedFields"][0],
        "manager": "old",
        "operation": "Update",
        "apiVersion": "v0",
    }
    live = {
        **live,
        "metadata": {**live["metadata"], "managedFields": [*live["metadata"]["managedFields"], old]},
    }
    new = update_managed_fields(
        live,
        {**live, "data": {"a": "2"}},
        schema=CONFIG_MAP,
        manager="bob",
        api_version="v1",
        now=LATER,
        convert=lambda obj, version: None,
    )
    assert [entry["manager"] for entry in new["metadata"]["managedFields"]] == ["bob"]


def test_inputs_are_left_alone() -> None:
    live = apply(None, deployment(3, "a"), "ann")
    applied = deployment(4)
    kept = json.dumps(live), json.dumps(applied)
    apply(live, applied, "bob", force=True)
    assert (json.dumps(live), json.dumps(applied)) == kept


def test_what_a_spec_owns_is_the_same_when_it_was_seen_before_and_nobody_can_change_it() -> None:
    first = update(None, deployment(3, "a"), "ann")
    again = update(None, deployment(3, "a"), "ann")
    other = update(None, deployment(3, "a", minReadySeconds=5), "ann")
    assert fields_of(first, "ann", "Update") == fields_of(again, "ann", "Update")
    assert fields_of(other, "ann", "Update") != fields_of(first, "ann", "Update")
    bob = update(again, edited(again, replicas=4), "bob")
    assert "f:replicas" not in (fields_of(bob, "ann", "Update") or {})["f:spec"]
    assert (
        "f:replicas" in (fields_of(update(None, deployment(3, "a"), "ann"), "ann", "Update") or {})["f:spec"]
    )


def test_a_spec_with_numbers_that_no_json_has_is_owned_as_any_other() -> None:
    huge = edited(deployment(3, "a"), minReadySeconds=2**70)
    assert fields_of(update(None, huge, "ann"), "ann", "Update") is not None
