"""ObjectMeta: readers, conditions, and the rules on create and update."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kcp.machinery import meta
from kcp.machinery.names import NameRule

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "rs", "uid": "u1"}}


def faults(
    metadata: dict[str, Any], *, namespaced: bool = True, rule: NameRule = "dns_subdomain"
) -> list[str]:
    return [str(e) for e in meta.validate_object_meta(metadata, namespaced=namespaced, name_rule=rule)]


def update_faults(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    return [str(e) for e in meta.validate_object_meta_update(new, old)]


def named(**more: Any) -> dict[str, Any]:
    return {"name": "web", "namespace": "default", **more}


def stored(**more: Any) -> dict[str, Any]:
    created = "2026-01-01T00:00:00Z"
    return {**named(), "uid": "u", "resourceVersion": "1", "creationTimestamp": created, **more}


def test_readers_of_an_empty_object() -> None:
    empty: dict[str, Any] = {}
    assert (meta.name(empty), meta.namespace(empty), meta.uid(empty), meta.resource_version(empty)) == (
        "",
    ) * 4
    assert dict(meta.labels(empty)) == dict(meta.annotations({"metadata": {"annotations": None}})) == {}
    assert (meta.owner_references(empty), meta.finalizers(empty)) == ([], [])
    assert not meta.is_deleting(empty)
    assert meta.controller_of(empty) is None
    assert meta.condition(empty, "Ready") is None
    assert meta.generation(empty) == 0


def test_keys() -> None:
    assert meta.key_of({"metadata": named()}) == "default/web"
    assert meta.key_of({"metadata": {"name": "node"}}) == "node"
    assert meta.split_key("default/web") == ("default", "web")
    assert meta.split_key("node") == ("", "node")
    with pytest.raises(ValueError, match='unexpected key format: "a/b/c"'):
        meta.split_key("a/b/c")


def test_the_controller_is_the_marked_owner() -> None:
    reference = meta.owner_reference(OWNER)
    plain = meta.owner_reference(OWNER, controller=False, block=False)
    pod = {"metadata": {"ownerReferences": [plain, reference]}}
    assert reference == {
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u1",
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    assert "controller" not in plain
    assert meta.controller_of(pod) is reference
    assert meta.is_controlled_by(pod, OWNER)
    assert not meta.is_controlled_by({"metadata": {"ownerReferences": [plain]}}, OWNER)


def test_a_new_condition_gets_its_time() -> None:
    conditions = meta.set_condition(None, {"type": "Ready", "status": "True"}, NOW)
    assert conditions == [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}]


def test_the_transition_time_moves_only_with_the_status() -> None:
    old = [{"type": "Ready", "status": "True", "reason": "A", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
    same = meta.set_condition(old, {"type": "Ready", "status": "True", "reason": "B"}, NOW)
    other = meta.set_condition(old, {"type": "Ready", "status": "False"}, NOW)
    assert same[0]["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert same[0]["reason"] == "B"
    assert other[0]["lastTransitionTime"] == "2026-01-02T03:04:05Z"
    assert old[0]["reason"] == "A", "the given list is not changed"
    assert meta.remove_condition(other, "Ready") == []
    assert meta.condition_is({"status": {"conditions": other}}, "Ready", "False")


def test_a_name_is_required() -> None:
    assert faults({"namespace": "default"}) == [
        "metadata.name: Required value: name or generateName is required"
    ]


def test_the_rule_of_the_kind_applies_to_both_names() -> None:
    texts = faults({"generateName": "AB-", "name": "AB-x", "namespace": "default"}, rule="dns_label")
    assert texts[0].startswith('metadata.generateName: Invalid value: "AB-": a lowercase RFC 1123 label must')
    assert texts[1].startswith('metadata.name: Invalid value: "AB-x": a lowercase RFC 1123 label must')
    assert len(texts) == 2


def test_namespaces() -> None:
    assert faults({"name": "a"}) == ["metadata.namespace: Required value"]
    assert faults(named(), namespaced=False) == ["metadata.namespace: Forbidden: not allowed on this type"]
    assert faults({"name": "a", "namespace": "A"})[0].startswith(
        'metadata.namespace: Invalid value: "A": a low'
    )
    assert faults(named()) == faults({"name": "node"}, namespaced=False) == []


def test_labels_annotations_and_generation() -> None:
    texts = faults(named(labels={"a b": "-"}, annotations={"A/B": "", "a b": ""}, generation=-1))
    assert texts[0] == "metadata.generation: Invalid value: -1: must be greater than or equal to 0"
    assert texts[1].startswith(
        'metadata.labels: Invalid value: "a b": name part must consist of alphanumeric'
    )
    assert texts[2].startswith('metadata.labels: Invalid value: "-": a valid label must be an empty string')
    assert texts[3].startswith('metadata.annotations: Invalid value: "a b": name part must consist of')
    assert len(texts) == 4


def test_the_case_of_annotation_keys_does_not_matter() -> None:
    assert faults(named(annotations={"Example.COM/Key": "x"})) == []
    assert faults(named(labels={"Example.COM/Key": "x"})) != []


@pytest.mark.parametrize(("size", "wrong"), [(256 * 1024 - 1, False), (256 * 1024, True)])
def test_annotations_have_a_limit_in_bytes(size: int, wrong: bool) -> None:
    texts = faults(named(annotations={"a": "é" * (size // 2) + "x" * (size % 2)}))
    assert texts == (["metadata.annotations: Too long: may not be more than 262144 bytes"] if wrong else [])


def test_owner_references() -> None:
    texts = faults(named(ownerReferences=[{"apiVersion": "a/b/c"}]))
    assert texts == [
        'metadata.ownerReferences.apiVersion: Invalid value: "a/b/c": version must not be empty',
        'metadata.ownerReferences.kind: Invalid value: "": must not be empty',
        'metadata.ownerReferences.name: Invalid value: "": must not be empty',
        'metadata.ownerReferences.uid: Invalid value: "": must not be empty',
    ]


def test_an_event_may_not_own_and_one_owner_controls() -> None:
    event = {"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "1"}
    assert faults(named(ownerReferences=[event]))[0].endswith(
        "/v1, Kind=Event is disallowed from being an owner"
    )
    two = [meta.owner_reference(OWNER), {**meta.owner_reference(OWNER), "name": "other"}]
    assert faults(named(ownerReferences=two))[0].endswith(
        'Only one reference can have Controller set to true. Found "true" in references for '
        "ReplicaSet/rs and ReplicaSet/other"
    )


def test_finalizers() -> None:
    assert faults(named(finalizers=["example.com/x", "orphan"])) == []
    both = faults(named(finalizers=["orphan", "foregroundDeletion"]))
    assert both == [
        'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: '
        "finalizer orphan and foregroundDeletion cannot be both set"
    ]
    assert faults(named(finalizers=["a b"]))[0].startswith(
        'metadata.finalizers: Invalid value: "a b": name part'
    )


def test_managed_fields() -> None:
    entry = {"operation": "Patch", "fieldsType": "X", "manager": "m" * 129 + "\n", "subresource": "s" * 257}
    assert faults(named(managedFields=[entry])) == [
        'metadata.managedFields[0].operation: Invalid value: "Patch": must be `Apply` or `Update`',
        'metadata.managedFields[0].fieldsType: Invalid value: "X": must be `FieldsV1`',
        "metadata.managedFields[0].manager: Too long: may not be more than 128 bytes",
        f'metadata.managedFields[0].manager: Invalid value: "{"m" * 129}\\n": invalid character U+000A (at position 129)',
        "metadata.managedFields[0].subresource: Too long: may not be more than 256 bytes",
    ]
    assert (
        faults(named(managedFields=[{"operation": "Apply", "fieldsType": "FieldsV1", "manager": "kubectl"}]))
        == []
    )


def test_an_update_keeps_what_is_immutable() -> None:
    new = stored(name="x", uid="v", creationTimestamp="2026-01-01T00:00:01Z", deletionGracePeriodSeconds=3)
    assert update_faults(new, stored()) == [
        'metadata.name: Invalid value: "x": field is immutable',
        'metadata.uid: Invalid value: "v": field is immutable',
        'metadata.creationTimestamp: Invalid value: "2026-01-01T00:00:01Z": field is immutable',
        "metadata.deletionGracePeriodSeconds: Invalid value: 3: field is immutable",
    ]
    assert update_faults(stored(), stored()) == []


def test_an_update_names_its_version_and_does_not_go_back() -> None:
    assert update_faults(stored(resourceVersion=""), stored()) == [
        'metadata.resourceVersion: Invalid value: "": must be specified for an update'
    ]
    assert update_faults(stored(generation=1), stored(generation=2)) == [
        "metadata.generation: Invalid value: 1: must not be decremented"
    ]


def test_no_new_finalizers_while_deleting() -> None:
    deleting = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a.b/c"]}
    new = stored(**{**deleting, "finalizers": ["z.z/z", "a.b/d", "a.b/c"]})
    assert update_faults(new, stored(**deleting)) == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new "
        'finalizers []string{"a.b/d", "z.z/z"}'
    ]
    assert update_faults(stored(**{**deleting, "finalizers": []}), stored(**deleting)) == []


def test_conditions_of_kinds_that_use_the_common_type() -> None:
    good = {"type": "Ready", "status": "True", "reason": "Ok", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    assert meta.validate_conditions([good], "status.conditions") == []
    texts = [str(e) for e in meta.validate_conditions([good, {"type": "Ready", "status": "x"}], "c")]
    assert texts == [
        'c[1].type: Duplicate value: "Ready"',
        'c[1].status: Unsupported value: "x": supported values: "False", "True", "Unknown"',
        "c[1].lastTransitionTime: Required value: must be set",
        "c[1].reason: Required value: must be set",
    ]
