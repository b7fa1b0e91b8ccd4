"""The four patch types."""

from __future__ import annotations

import pytest

from kcp.machinery.errors import ApiError, BadRequest, Conflict, Invalid, NotFound, UnsupportedMediaType
from tests.api.harness import CONFIG_MAPS, DEPLOYMENTS, config_map, deployment, running_api

APPLY = "apply-patch+yaml"


async def test_merge_patch() -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map(a="1", b="2"))
        patched = await api.patch(f"{CONFIG_MAPS}/settings", {"data": {"a": None, "c": "3"}})
        assert patched["data"] == {"b": "2", "c": "3"}


async def test_json_patch() -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map(a="1"))
        path = f"{CONFIG_MAPS}/settings"
        patch = [
            {"op": "test", "path": "/data/a", "value": "1"},
            {"op": "add", "path": "/data/b", "value": "2"},
        ]
        assert (await api.patch(path, patch, "json-patch+json"))["data"] == {"a": "1", "b": "2"}
        with pytest.raises(Invalid, match=r"the server rejected our request due to an error in our request"):
            await api.patch(path, [{"op": "test", "path": "/data/a", "value": "9"}], "json-patch+json")


async def test_strategic_merge_patch_merges_containers_by_name() -> None:
    async with running_api() as api:
        await api.create(DEPLOYMENTS, deployment())
        container = {"name": "web", "image": "web:2"}
        patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
        patched = await api.patch(f"{DEPLOYMENTS}/web", patch, "strategic-merge-patch+json")
        [found] = patched["spec"]["template"]["spec"]["containers"]
        assert (found["image"], found["imagePullPolicy"]) == ("web:2", "IfNotPresent")


async def test_a_patch_of_nothing_takes_no_revision() -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map(a="1"))
        before = api.store.rv
        await api.patch(f"{CONFIG_MAPS}/settings", {"data": {"a": "1"}})
        assert api.store.rv == before


async def test_a_resource_version_in_a_patch_is_a_precondition() -> None:
    async with running_api() as api:
        created = await api.create(CONFIG_MAPS, config_map(a="1"))
        path, rv = f"{CONFIG_MAPS}/settings", created["metadata"]["resourceVersion"]
        await api.patch(path, {"metadata": {"resourceVersion": rv}, "data": {"a": "2"}})
        with pytest.raises(Conflict):
            await api.patch(path, {"metadata": {"resourceVersion": rv}, "data": {"a": "3"}})


async def test_unknown_fields_of_a_patch_are_warned_of_or_refused() -> None:
    async with running_api() as api:
        await api.create(DEPLOYMENTS, deployment())
        answer = await api.call(
            "PATCH", f"{DEPLOYMENTS}/web", {"spec": {"foo": 1}}, content_type="application/merge-patch+json"
        )
        assert answer.warnings == ['unknown field "spec.foo"']
        with pytest.raises(Invalid) as caught:
            await api.patch(f"{DEPLOYMENTS}/web", {"spec": {"foo": 1}}, params={"fieldValidation": "Strict"})
        assert caught.value.message.startswith(' "" is invalid: patch: Invalid value: ')
        assert caught.value.message.endswith('strict decoding error: unknown field "spec.foo"')


async def test_a_malformed_patch_is_a_bad_request() -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map())
        with pytest.raises(BadRequest, match=r"error decoding patch"):
            await api.patch(f"{CONFIG_MAPS}/settings", b"{")
        with pytest.raises(BadRequest):
            await api.patch(f"{CONFIG_MAPS}/settings", [1])
        with pytest.raises(NotFound):
            await api.patch(f"{CONFIG_MAPS}/other", {})


async def test_other_types_are_not_supported() -> None:
    async with running_api() as api:
        with pytest.raises(UnsupportedMediaType) as caught:
            await api.patch(f"{CONFIG_MAPS}/settings", {}, "json")
        assert caught.value.message == (
            "the body of the request was in an unknown format - accepted media types include:"
            " application/json-patch+json, application/merge-patch+json,"
            " application/strategic-merge-patch+json, application/apply-patch+yaml"
        )


async def test_apply_creates_then_updates() -> None:
    async with running_api() as api:
        path = f"{CONFIG_MAPS}/settings"
        first = await api.call(
            "PATCH",
            path,
            config_map(a="1"),
            content_type=f"application/{APPLY}",
            params={"fieldManager": "me"},
        )
        assert first.status == 201
        [entry] = first.value["metadata"]["managedFields"]
        assert (entry["manager"], entry["operation"]) == ("me", "Apply")
        second = await api.patch(path, config_map(b="2"), APPLY, params={"fieldManager": "me"})
        assert second["data"] == {"b": "2"}
        rv = api.store.rv
        api.clock.advance(5)
        await api.patch(path, config_map(b="2"), APPLY, params={"fieldManager": "me"})
        assert api.store.rv == rv


async def test_apply_conflicts_with_other_managers_unless_forced() -> None:
    async with running_api() as api:
        path = f"{CONFIG_MAPS}/settings"
        await api.patch(path, config_map(a="1"), APPLY, params={"fieldManager": "one"})
        with pytest.raises(Conflict) as caught:
            await api.patch(path, config_map(a="2"), APPLY, params={"fieldManager": "two"})
        assert caught.value.has_cause("FieldManagerConflict")
        forced = await api.patch(
            path, config_map(a="2"), APPLY, params={"fieldManager": "two", "force": "true"}
        )
        assert forced["data"] == {"a": "2"}


async def test_apply_needs_a_manager_and_only_apply_may_be_forced() -> None:
    async with running_api() as api:
        path = f"{CONFIG_MAPS}/settings"
        with pytest.raises(Invalid) as caught:
            await api.patch(path, config_map(), APPLY)
        assert caught.value.message == (
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        )
        with pytest.raises(Invalid, match=r"force: Forbidden: may not be specified for non-apply patch"):
            await api.patch(path, {}, params={"force": "true"})


async def test_apply_refuses_fields_outside_the_schema() -> None:
    async with running_api() as api:
        obj = {**deployment(), "spec": {**deployment()["spec"], "foo": 1}}
        with pytest.raises(ApiError, match=r"field not declared in schema"):
            await api.patch(f"{DEPLOYMENTS}/web", obj, APPLY, params={"fieldManager": "me"})


MERGE, STRATEGIC, JSON = "merge-patch+json", "strategic-merge-patch+json", "json-patch+json"


@pytest.mark.parametrize(
    ("patch", "kind"),
    [
        ({"kind": None}, MERGE),
        ({"apiVersion": "", "kind": ""}, MERGE),
        ({"kind": "Pod"}, STRATEGIC),
        ({"apiVersion": "v2"}, STRATEGIC),
        ([{"op": "replace", "path": "/kind", "value": None}], JSON),
        ([{"op": "remove", "path": "/apiVersion"}], JSON),
    ],
)
async def test_an_object_stays_what_it_is(patch: object, kind: str) -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map(a="1"))
        patched = await api.patch(f"{CONFIG_MAPS}/settings", patch, kind)
        assert (patched["apiVersion"], patched["kind"]) == ("v1", "ConfigMap")


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"kind": "Foo"}, 'no kind "Foo" is registered for version "v1" in scheme'),
        ({"apiVersion": "v2"}, 'no kind "ConfigMap" is registered for version "v2" in scheme'),
        ({"kind": "Pod"}, r"converting \(v1.Pod\) to \(core.ConfigMap\): unknown conversion"),
        ({"apiVersion": "a/b/c"}, "unexpected GroupVersion string: a/b/c"),
        ({"kind": 5}, "cannot unmarshal number into Go struct field ConfigMap.kind of type string"),
    ],
)
async def test_an_object_cannot_become_another_kind(patch: object, why: str) -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map(a="1"))
        with pytest.raises(Invalid, match=why):
            await api.patch(f"{CONFIG_MAPS}/settings", patch)
        assert (await api.get(f"{CONFIG_MAPS}/settings"))["kind"] == "ConfigMap"


async def test_unknown_and_repeated_members_of_operations() -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map(a="1"))
        path = f"{CONFIG_MAPS}/settings"
        patch = [{"op": "add", "path": "/data/b", "value": "2", "note": "x"}]
        answer = await api.call("PATCH", path, patch, content_type="application/json-patch+json")
        assert answer.warnings == ['json patch unknown field "[0].note"']
        with pytest.raises(Invalid, match=r'strict decoding error: json patch unknown field "\[0\]\.note"'):
            await api.patch(path, patch, "json-patch+json", params={"fieldValidation": "Strict"})
        await api.patch(path, patch, "json-patch+json", params={"fieldValidation": "Ignore"})


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"apiVersion": "apps/v1", "kind": "ConfigMap"}, "apps/v1, Kind=ConfigMap"),
        ({"apiVersion": "v1", "kind": "Secret"}, "/v1, Kind=Secret"),
        ({}, "/, Kind="),
    ],
)
async def test_a_configuration_of_another_type_is_refused(configuration: dict[str, str], named: str) -> None:
    async with running_api() as api:
        applied = {**configuration, "metadata": {"name": "settings"}}
        with pytest.raises(BadRequest, match=f"^invalid object type: {named}$"):
            await api.patch(f"{CONFIG_MAPS}/settings", applied, APPLY, params={"fieldManager": "me"})
