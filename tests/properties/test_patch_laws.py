"""Laws of patches, field sets and schemas that hold for every document."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kcp.machinery.errors import ApiError
from kcp.machinery.gvk import GroupVersionKind
from kcp.machinery.patch.apply import server_side_apply, update_managed_fields
from kcp.machinery.patch.json_patch import apply_json_patch
from kcp.machinery.patch.merge_patch import apply_merge_patch, diff_merge_patch
from kcp.machinery.patch.ownership import compare, created, owned
from kcp.machinery.patch.strategic import strategic_merge
from kcp.machinery.patch.typed import merge, named_members, remove_items
from kcp.machinery.paths import (
    canonical,
    contains,
    difference,
    intersection,
    members,
    recursive_difference,
    union,
)
from kcp.machinery.schema.compile import DEDUCED, Schema, schema_for
from kcp.machinery.schema.defaults import apply_defaults, drop_voids, prune
from kcp.machinery.schema.validate import check, count_keys

Json = dict[str, Any]

FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def schema_of(kind: str, group: str) -> Schema:
    schema = schema_for(GroupVersionKind(group, "v1", kind))
    assert schema is not None
    return schema


DEPLOYMENT = schema_of("Deployment", "apps")
POD = schema_of("Pod", "")

# Documents


names = st.sampled_from(["a", "b", "c", "d"])
scalars = st.one_of(st.booleans(), st.integers(0, 3), st.sampled_from(["", "x", "y"]))
json_values = st.recursive(
    st.one_of(st.none(), scalars),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)
json_objects = st.dictionaries(names, json_values, max_size=4)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value if v is not None] if isinstance(value, list) else value


solid_objects = json_objects.map(_without_nulls)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({}, optional=fields)


def keyed(
    key: str, values: st.SearchStrategy[Any], **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[list[Json]]:
    item = st.fixed_dictionaries({key: values}, optional=fields)
    return st.lists(item, max_size=3, unique_by=lambda item: item[key])


labels = st.dictionaries(names, st.sampled_from(["1", "2"]), max_size=3)
images = st.sampled_from(["nginx", "redis"])
ports = keyed("containerPort", st.sampled_from([80, 443]), name=names)
resources = some(
    limits=st.dictionaries(st.sampled_from(["cpu", "memory"]), st.sampled_from(["1", "2"]), max_size=2)
)
env = keyed("name", names, value=images)
containers = keyed("name", names, image=images, ports=ports, resources=resources, env=env)
volumes = keyed("name", names, emptyDir=st.just({}))
pod_specs = some(
    containers=containers,
    volumes=volumes,
    nodeSelector=labels,
    hostNetwork=st.booleans(),
    securityContext=some(fsGroup=st.integers(1, 3)),
    tolerations=st.lists(some(key=names), max_size=2),
)
finalizers = st.lists(names, max_size=3, unique=True)
metadata = some(labels=labels, annotations=labels, finalizers=finalizers)
specs = some(
    replicas=st.integers(0, 3),
    paused=st.booleans(),
    selector=some(matchLabels=labels),
    strategy=some(type=st.just("Recreate"), rollingUpdate=some(maxSurge=st.integers(1, 2))),
    template=some(metadata=some(labels=labels), spec=pod_specs),
)
bodies = some(metadata=metadata, spec=specs)


def as_deployment(body: Json) -> Json:
    head = {"apiVersion": "apps/v1", "kind": "Deployment"}
    return {**head, **body, "metadata": {"name": "web", **body.get("metadata", {})}}


deployments = bodies.map(as_deployment)


def apply(live: Json | None, applied: Json, manager: str, *, seconds: int = 0) -> Json:
    result = server_side_apply(
        live,
        applied,
        schema=DEPLOYMENT,
        manager=manager,
        force=True,
        api_version="apps/v1",
        now=NOW + timedelta(seconds=seconds),
    )
    return {**result, "metadata": {**result["metadata"], "uid": "u"}}


def update(live: Json | None, new: Json, manager: str) -> Json:
    return update_managed_fields(
        live, new, schema=DEPLOYMENT, manager=manager, api_version="apps/v1", now=NOW
    )


def content(obj: Json) -> Json:
    hidden = ("managedFields", "uid")
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k not in hidden}}


def entry_of(obj: Json, manager: str) -> Json:
    entries = obj["metadata"].get("managedFields", ())
    return next((entry["fieldsV1"] for entry in entries if entry["manager"] == manager), {})


def present(doc: Json) -> Json:
    """Every field that is there, named structs and empty ones included."""
    return union(created(DEPLOYMENT, doc), named_members(DEPLOYMENT, owned(DEPLOYMENT, doc)))


# Merge patch


@FEW
@given(json_values, json_values)
def test_a_merge_patch_is_idempotent(doc: Any, patch: Any) -> None:
    once = apply_merge_patch(doc, patch)
    assert apply_merge_patch(once, patch) == once


@FEW
@given(solid_objects, solid_objects)
def test_a_merge_patch_carries_the_difference(old: Json, new: Json) -> None:
    assert apply_merge_patch(old, diff_merge_patch(old, new)) == new
    assert diff_merge_patch(new, new) == {}


@FEW
@given(json_objects, json_objects)
def test_merge_patch_leaves_its_inputs_alone(doc: Json, patch: Json) -> None:
    kept = copy.deepcopy((doc, patch))
    apply_merge_patch(doc, patch)
    diff_merge_patch(doc, patch)
    assert (doc, patch) == kept


# JSON patch


@FEW
@given(json_objects, names, json_values)
def test_a_json_patch_sets_and_takes_away(doc: Json, name: str, value: Any) -> None:
    kept = copy.deepcopy(doc)
    added = apply_json_patch(doc, [{"op": "add", "path": f"/{name}", "value": value}])
    assert added == {**doc, name: value}
    removed = apply_json_patch(added, [{"op": "remove", "path": f"/{name}"}])
    assert removed == {k: v for k, v in doc.items() if k != name}
    assert doc == kept


@FEW
@given(json_objects, json_values)
def test_moving_there_and_back_changes_nothing(doc: Json, value: Any) -> None:
    doc = {**doc, "here": value}
    there = {"op": "move", "from": "/here", "path": "/there"}
    back = {"op": "move", "from": "/there", "path": "/here"}
    assert apply_json_patch(doc, [there]) != doc
    assert apply_json_patch(doc, [there, back]) == doc


# Strategic merge patch


@FEW
@given(deployments, bodies)
def test_a_strategic_merge_is_idempotent(doc: Json, patch: Json) -> None:
    once = strategic_merge(doc, patch, DEPLOYMENT)
    assert strategic_merge(once, patch, DEPLOYMENT) == once


@FEW
@given(deployments, bodies)
def test_a_strategic_merge_contains_its_patch(doc: Json, patch: Json) -> None:
    kept = copy.deepcopy((doc, patch))
    after = strategic_merge(doc, patch, DEPLOYMENT)
    for item in patch.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
        found = after["spec"]["template"]["spec"]["containers"]
        merged = next(container for container in found if container["name"] == item["name"])
        assert merged.get("image") == item.get("image", merged.get("image"))
    assert (doc, patch) == kept


@FEW
@given(deployments)
def test_an_empty_strategic_merge_changes_nothing(doc: Json) -> None:
    assert strategic_merge(doc, {}, DEPLOYMENT) == doc


# Field sets


def _sets(schema: Schema, values: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return values.map(lambda value: owned(schema, value))


field_sets = st.one_of(_sets(DEPLOYMENT, deployments), _sets(DEDUCED, solid_objects))


@FEW
@given(field_sets, field_sets, field_sets)
def test_field_sets_obey_the_laws_of_sets(a: Json, b: Json, c: Json) -> None:
    assert union(a, b) == union(b, a)
    assert union(a, union(b, c)) == union(union(a, b), c)
    assert intersection(a, b) == intersection(b, a)
    assert intersection(a, a) == union(a, a) == a
    assert difference(a, a) == recursive_difference(a, a) == {}
    assert union(difference(a, b), intersection(a, b)) == a
    assert intersection(difference(a, b), b) == {}


@FEW
@given(field_sets, field_sets)
def test_members_tell_what_a_set_holds(a: Json, b: Json) -> None:
    in_a, in_b = set(members(a)), set(members(b))
    assert set(members(union(a, b))) == in_a | in_b
    assert set(members(intersection(a, b))) == in_a & in_b
    assert set(members(difference(a, b))) == in_a - in_b
    assert all(contains(a, path) for path in in_a)
    assert canonical(a) == a


# What changed


@FEW
@given(deployments)
def test_the_plan_of_a_new_object_is_the_comparison_with_nothing(doc: Json) -> None:
    changes = compare(DEPLOYMENT, {}, doc)
    assert created(DEPLOYMENT, doc) == union(changes.added, changes.modified)
    assert changes.removed == {}


@FEW
@given(solid_objects)
def test_the_same_without_a_schema(doc: Json) -> None:
    assert created(DEDUCED, doc) == compare(DEDUCED, {}, doc).added


@FEW
@given(deployments, deployments)
def test_a_comparison_backwards_swaps_added_and_removed(a: Json, b: Json) -> None:
    there, back = compare(DEPLOYMENT, a, b), compare(DEPLOYMENT, b, a)
    assert (there.added, there.removed) == (back.removed, back.added)
    assert there.modified == back.modified
    for one, other in ((there.added, there.removed), (there.added, there.modified)):
        assert intersection(one, other) == {}


@FEW
@given(deployments, deployments)
def test_equal_documents_and_only_they_compare_as_the_same(a: Json, b: Json) -> None:
    assert compare(DEPLOYMENT, a, copy.deepcopy(a)).is_same
    if not compare(DEPLOYMENT, a, b).is_same:
        assert a != b


# Merging and removing


@FEW
@given(deployments, deployments)
def test_a_merge_holds_everything_that_was_applied(live: Json, config: Json) -> None:
    merged = merge(DEPLOYMENT, live, config)
    assert merge(DEPLOYMENT, merged, config) == merged
    assert difference(owned(DEPLOYMENT, config), present(merged)) == {}


@FEW
@given(deployments)
def test_removing_everything_that_is_owned_leaves_no_leaf(doc: Json) -> None:
    rest = remove_items(DEPLOYMENT, doc, owned(DEPLOYMENT, doc))
    if isinstance(rest, dict):
        assert all(contains({}, path) for path in members(owned(DEPLOYMENT, rest)))


@FEW
@given(deployments)
def test_removing_nothing_returns_the_same_object(doc: Json) -> None:
    assert remove_items(DEPLOYMENT, doc, {}) is doc


# Server-side apply


@FEW
@given(deployments, deployments)
def test_applying_ones_own_configuration_again_changes_nothing(live: Json, config: Json) -> None:
    live = drop_voids(DEPLOYMENT, live)  # as it comes out of a request's body
    first = apply(update(None, live, "somebody"), config, "ann")
    assume(entry_of(first, "ann"))
    assert apply(first, config, "ann", seconds=60) == first


@FEW
@given(deployments, deployments)
def test_what_an_applier_gives_up_leaves_no_trace(first: Json, second: Json) -> None:
    """An object that one manager alone applied to holds what it applied last."""
    twice = apply(apply(None, first, "ann"), second, "ann")
    once = apply(None, second, "ann")
    assert entry_of(twice, "ann") == entry_of(once, "ann")
    leftover = difference(owned(DEPLOYMENT, content(twice)), owned(DEPLOYMENT, content(once)))
    assert intersection(leftover, owned(DEPLOYMENT, first)) == {}


def _without_empty(value: Any) -> Any:
    if not isinstance(value, dict):
        return [_without_empty(item) for item in value] if isinstance(value, list) else value
    members = ((key, _without_empty(member)) for key, member in value.items())
    return {key: member for key, member in members if member not in ({}, [])}


@FEW
@given(deployments, deployments.map(_without_empty), deployments)
def test_giving_up_takes_nothing_that_another_applied(a: Json, b: Json, a_again: Json) -> None:
    """An empty struct that one applied goes with the last field that another put into it."""
    both = apply(apply(None, a, "ann"), b, "bob")
    after = apply(both, a_again, "ann")
    assert difference(entry_of(after, "bob"), present(content(after))) == {}


@FEW
@given(deployments, deployments)
def test_every_owner_owns_something_that_is_there(old: Json, new: Json) -> None:
    live = update(None, old, "ann")
    after = update({**live, "metadata": {**live["metadata"], "uid": "u"}}, new, "bob")
    assert difference(entry_of(after, "ann"), present(new)) == {}
    assert difference(entry_of(after, "bob"), union(present(old), present(new))) == {}
    assert intersection(entry_of(after, "bob"), entry_of(after, "ann")) == {}


@FEW
@given(deployments, deployments)
def test_apply_leaves_its_inputs_alone(live: Json, config: Json) -> None:
    before = update(None, live, "ann")
    kept = copy.deepcopy((before, config))
    apply(before, config, "bob")
    update(before, config, "bob")
    assert (before, config) == kept


# Schemas


loose = st.recursive(
    st.one_of(st.none(), scalars),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(
                ["metadata", "spec", "containers", "name", "labels", "resources", "limits", "odd"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@FEW
@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "odd"]), loose))
def test_checking_never_fails_and_counts_every_key(doc: Json) -> None:
    assert check(POD, doc).key_count == count_keys(doc)


@FEW
@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "odd"]), loose))
def test_pruning_is_idempotent_and_leaves_nothing_unknown(doc: Json) -> None:
    kept = copy.deepcopy(doc)
    pruned = prune(POD, doc)
    assert prune(POD, pruned) is pruned
    report = check(POD, pruned)
    assert report.errors or not report.unknown
    assert doc == kept


@FEW
@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "odd"]), loose))
def test_dropping_nulls_is_idempotent(doc: Json) -> None:
    clean = drop_voids(POD, doc)
    assert drop_voids(POD, clean) is clean
    report = check(POD, clean)
    assert report.errors or report.unknown or not report.has_voids


@FEW
@given(deployments)
def test_defaults_are_idempotent(doc: Json) -> None:
    once = apply_defaults(DEPLOYMENT, doc)
    assert apply_defaults(DEPLOYMENT, once) is once


@FEW
@given(deployments)
def test_generated_documents_are_right(doc: Json) -> None:
    """The strategy above makes what the API accepts: no law is tested on nothing."""
    report = check(DEPLOYMENT, doc)
    assert (report.unknown, report.errors) == ([], [])
    try:
        apply(None, doc, "ann")
    except ApiError as error:
        raise AssertionError(error.message) from None
