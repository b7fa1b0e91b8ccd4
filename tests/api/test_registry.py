"""The generic registry: what every kind gets from create and update."""

from __future__ import annotations

import anyio
import pytest

from kcp.api.auth.protocol import UserInfo
from kcp.base.entropy import SeededEntropy
from kcp.machinery.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
)
from kcp.store.protocol import Key, Op
from tests.api.harness import CONFIG_MAPS, DEPLOYMENTS, PODS, config_map, deployment, pod, running_api
from tests.api.requests import signing_request


class Suffixes(SeededEntropy):
    """Draws the suffixes it is told to."""

    def __init__(self, suffixes: list[str]) -> None:
        super().__init__(1)
        self._suffixes = suffixes

    def name_suffix(self, length: int = 5) -> str:
        return self._suffixes.pop(0)


LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
EVENTS = "/api/v1/namespaces/default/events"


async def test_a_created_object_has_what_the_server_owns() -> None:
    async with running_api() as api:
        answer = await api.call("POST", DEPLOYMENTS, deployment())
        metadata = answer.value["metadata"]
        assert answer.status == 201
        assert metadata["namespace"] == "default"
        assert metadata["creationTimestamp"] == "2026-01-01T00:00:00Z"
        assert metadata["generation"] == 1
        assert len(metadata["uid"]) == 36
        assert metadata["resourceVersion"] == str(api.store.rv) == str(answer.result.revision)
        [entry] = metadata["managedFields"]
        assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("tester", "Update", "apps/v1")


async def test_what_admission_adds_belongs_to_nobody() -> None:
    async with running_api() as api:
        created = await api.create(PODS, pod())
        [entry] = created["metadata"]["managedFields"]
        assert "f:tolerations" not in entry["fieldsV1"]["f:spec"]
        assert "f:volumes" not in entry["fieldsV1"]["f:spec"]


async def test_a_client_cannot_set_what_the_server_owns() -> None:
    async with running_api() as api:
        obj = config_map()
        obj["metadata"] |= {"uid": "x", "deletionTimestamp": "2020-01-01T00:00:00Z", "generation": 7}
        created = await api.create(CONFIG_MAPS, obj)
        assert created["metadata"]["uid"] != "x"
        assert "deletionTimestamp" not in created["metadata"]
        assert "generation" not in created["metadata"]


async def test_resource_version_on_create_is_refused() -> None:
    async with running_api() as api:
        obj = config_map()
        obj["metadata"]["resourceVersion"] = "5"
        with pytest.raises(ApiError, match=r"^resourceVersion should not be set on objects to be created$"):
            await api.create(CONFIG_MAPS, obj)


async def test_a_create_ignores_a_revision_that_is_no_number_an_update_does_not() -> None:
    async with running_api() as api:
        for name, revision in (("a", "a/b/c"), ("b", "-1"), ("c", str(2**64))):
            obj = config_map(name)
            obj["metadata"]["resourceVersion"] = revision
            created = await api.create(CONFIG_MAPS, obj)
            assert created["metadata"]["resourceVersion"].isdigit()
        obj = config_map("a")
        obj["metadata"]["resourceVersion"] = "a/b/c"
        with pytest.raises(ApiError, match=r'^strconv\.ParseUint: parsing "a/b/c": invalid syntax$'):
            await api.update(f"{CONFIG_MAPS}/a", obj)


async def test_another_namespace_than_the_path_is_refused() -> None:
    async with running_api() as api:
        obj = config_map()
        obj["metadata"]["namespace"] = "elsewhere"
        with pytest.raises(BadRequest) as caught:
            await api.create(CONFIG_MAPS, obj)
        assert caught.value.message == (
            "the namespace of the provided object does not match the namespace sent on the request"
        )


async def test_names_are_required_generated_and_unique() -> None:
    async with running_api() as api:
        with pytest.raises(Invalid, match=r"metadata.name: Required value: name or generateName is required"):
            await api.create(CONFIG_MAPS, {"metadata": {}})
        names = {(await api.create(PODS, pod("web-")))["metadata"]["name"] for _ in range(5)}
        assert len(names) == 5
        assert all(name.startswith("web-") and len(name) == 9 for name in names)
        await api.create(CONFIG_MAPS, config_map())
        with pytest.raises(AlreadyExists, match=r'^configmaps "settings" already exists$'):
            await api.create(CONFIG_MAPS, config_map())


async def test_a_generated_name_that_is_taken_is_tried_again() -> None:
    async with running_api() as api:
        api.server.entropy = Suffixes(["aaaaa", "aaaaa", "bbbbb"])
        base = {"metadata": {"generateName": "c-"}}
        assert (await api.create(CONFIG_MAPS, base))["metadata"]["name"] == "c-aaaaa"
        assert (await api.create(CONFIG_MAPS, base))["metadata"]["name"] == "c-bbbbb"


async def test_generated_names_run_out() -> None:
    async with running_api() as api:
        api.server.entropy = Suffixes(["aaaaa"] * 9)
        await api.create(CONFIG_MAPS, {"metadata": {"generateName": "c-"}})
        with pytest.raises(AlreadyExists, match=r"was not able to generate a unique name for the object"):
            await api.create(CONFIG_MAPS, {"metadata": {"generateName": "c-"}})


async def test_an_invalid_object_names_every_fault() -> None:
    async with running_api() as api:
        with pytest.raises(Invalid) as caught:
            await api.create(CONFIG_MAPS, config_map("Bad_Name", **{"bad key": "x"}))
        assert caught.value.message.startswith(
            'ConfigMap "Bad_Name" is invalid: [metadata.name: Invalid value'
        )
        assert {cause["field"] for cause in caught.value.details["causes"]} == {
            "metadata.name",
            "data[bad key]",
        }


async def test_a_stale_resource_version_is_a_conflict() -> None:
    async with running_api() as api:
        first = await api.create(CONFIG_MAPS, config_map(a="1"))
        await api.update(f"{CONFIG_MAPS}/settings", config_map(a="2"))
        with pytest.raises(Conflict) as caught:
            await api.update(f"{CONFIG_MAPS}/settings", {**first, "data": {"a": "3"}})
        assert caught.value.message == (
            'Operation cannot be fulfilled on configmaps "settings": the object has been modified;'
            " please apply your changes to the latest version and try again"
        )


async def test_another_incarnation_is_a_conflict() -> None:
    async with running_api() as api:
        first = await api.create(CONFIG_MAPS, config_map())
        await api.delete(f"{CONFIG_MAPS}/settings")
        second = await api.create(CONFIG_MAPS, config_map())
        del first["metadata"]["resourceVersion"]
        with pytest.raises(Conflict) as caught:
            await api.update(f"{CONFIG_MAPS}/settings", first)
        wanted, found = first["metadata"]["uid"], second["metadata"]["uid"]
        assert f"UID in precondition: {wanted}, UID in object meta: {found}" in caught.value.message


async def test_an_update_without_resource_version_is_refused_for_some_kinds() -> None:
    async with running_api() as api:
        lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}
        await api.create(LEASES, lease)
        with pytest.raises(Invalid) as caught:
            await api.update(f"{LEASES}/l", lease)
        assert caught.value.message == (
            'leases.coordination.k8s.io "l" is invalid: metadata.resourceVersion: Invalid value: 0:'
            " must be specified for an update"
        )


async def test_some_kinds_are_created_by_an_update() -> None:
    async with running_api() as api:
        lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}
        assert (await api.call("PUT", f"{LEASES}/l", lease)).status == 201
        with pytest.raises(NotFound, match=r'^configmaps "settings" not found$'):
            await api.update(f"{CONFIG_MAPS}/settings", config_map())


async def test_creating_by_an_update_needs_the_right_to_create() -> None:
    async with running_api() as api:
        api.authorizer.denied.add(("create", "leases"))
        with pytest.raises(Forbidden, match=r'cannot create resource "leases"'):
            await api.update(f"{LEASES}/l", {"metadata": {"name": "l"}, "spec": {}})


async def test_nothing_changed_takes_no_revision() -> None:
    async with running_api() as api:
        created = await api.create(CONFIG_MAPS, config_map(a="1"))
        before = api.store.rv
        api.clock.advance(60)
        again = await api.update(f"{CONFIG_MAPS}/settings", config_map(a="1"))
        assert again == created
        assert api.store.rv == before


async def test_generation_rises_with_the_spec_alone() -> None:
    async with running_api() as api:
        await api.create(DEPLOYMENTS, deployment())
        path = f"{DEPLOYMENTS}/web"
        labelled = await api.patch(path, {"metadata": {"labels": {"a": "b"}}})
        assert labelled["metadata"]["generation"] == 1
        scaled = await api.patch(path, {"spec": {"replicas": 5}})
        assert scaled["metadata"]["generation"] == 2
        observed = await api.patch(f"{path}/status", {"status": {"observedGeneration": 2}})
        assert observed["metadata"]["generation"] == 2


async def test_status_changes_only_through_its_own_door() -> None:
    async with running_api() as api:
        created = await api.create(DEPLOYMENTS, {**deployment(), "status": {"replicas": 9}})
        assert not created.get("status")
        path = f"{DEPLOYMENTS}/web"
        assert not (await api.patch(path, {"status": {"replicas": 9}})).get("status")
        changed = await api.patch(f"{path}/status", {"status": {"replicas": 9}, "spec": {"replicas": 1}})
        assert changed["status"] == {"replicas": 9}
        assert changed["spec"]["replicas"] == 3


async def test_a_dry_run_goes_through_everything_and_stores_nothing() -> None:
    async with running_api() as api:
        before = api.store.rv
        answer = await api.call("POST", PODS, pod(), params={"dryRun": "All"})
        assert answer.status == 201
        assert answer.value["spec"]["serviceAccountName"] == "default"
        assert "resourceVersion" not in answer.value["metadata"]
        with pytest.raises(Invalid):
            await api.call("POST", CONFIG_MAPS, config_map("Bad_Name"), params={"dryRun": "All"})
        created = await api.create(CONFIG_MAPS, config_map(a="1"))
        tried = await api.update(f"{CONFIG_MAPS}/settings", config_map(a="2"), params={"dryRun": "All"})
        assert tried["data"] == {"a": "2"}
        assert tried["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
        await api.call("DELETE", f"{CONFIG_MAPS}/settings", params={"dryRun": "All"})
        assert api.stored("configmaps", "settings") == created
        assert api.store.rv == before + 1


async def test_the_last_finalizer_removes_an_object_under_deletion() -> None:
    async with running_api() as api:
        obj = config_map()
        obj["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
        await api.create(CONFIG_MAPS, obj)
        path = f"{CONFIG_MAPS}/settings"
        marked = (await api.delete(path)).value
        assert marked["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
        assert marked["metadata"]["deletionGracePeriodSeconds"] == 0
        await api.patch(path, {"metadata": {"finalizers": ["example.com/b"]}})
        with pytest.raises(Invalid, match=r"no new finalizers can be added if the object is being deleted"):
            await api.patch(path, {"metadata": {"finalizers": ["example.com/b", "example.com/c"]}})
        await api.patch(path, {"metadata": {"finalizers": None}})
        assert api.stored("configmaps", "settings") is None


async def test_concurrent_patches_all_count() -> None:
    async with running_api() as api:
        await api.create(CONFIG_MAPS, config_map())

        async def add(number: int) -> None:
            await api.patch(f"{CONFIG_MAPS}/settings", {"data": {f"k{number}": "x"}})

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(add, number)
        stored = api.stored("configmaps", "settings")
        assert stored is not None
        assert len(stored["data"]) == 20


async def test_renewing_a_lease_writes_no_event() -> None:
    async with running_api() as api:
        lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}
        await api.create(LEASES, lease)
        seen: list[Op] = []
        unlisten = api.store.listen(lambda events: seen.extend(event.op for event in events))
        await api.patch(f"{LEASES}/l", {"spec": {"renewTime": "2026-01-01T00:00:01.000000Z"}})
        await api.patch(f"{LEASES}/l", {"spec": {"holderIdentity": "b"}})
        unlisten()
        assert seen == [Op.RENEWED, Op.MODIFIED]


async def test_events_live_for_an_hour() -> None:
    async with running_api() as api:
        event = {
            "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
            "reason": "Started",
            "type": "Normal",
            "message": "started",
        }
        await api.create(EVENTS, event)
        record = api.store.get(Key("events", "default", "e"))
        assert record is not None and record.expires_us is not None
        lived_us = record.expires_us - int(api.clock.now().timestamp() * 1_000_000)
        assert lived_us == 3600 * 1_000_000


async def test_an_event_is_served_in_both_groups() -> None:
    async with running_api() as api:
        event = {
            "metadata": {"name": "e"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web"},
            "reason": "Started",
            "type": "Normal",
            "message": "started",
        }
        await api.create(EVENTS, event)
        other = await api.get("/apis/events.k8s.io/v1/namespaces/default/events/e")
        assert other["apiVersion"] == "events.k8s.io/v1"
        assert (other["note"], other["regarding"]["name"]) == ("started", "web")


async def test_the_requestor_of_a_certificate_is_who_asked() -> None:
    async with running_api() as api:
        alice = UserInfo("alice", "u1", ("staff",))
        path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        created = await api.create(path, signing_request("alice"), user=alice)
        assert (created["spec"]["username"], created["spec"]["groups"]) == ("alice", ["staff"])


async def test_a_create_waits_for_the_default_service_account() -> None:
    async with running_api() as api:
        await api.create("/api/v1/namespaces", {"metadata": {"name": "fresh"}})

        async def controller() -> None:
            await anyio.sleep(0)
            await api.create("/api/v1/namespaces/fresh/serviceaccounts", {"metadata": {"name": "default"}})

        async with anyio.create_task_group() as group:
            group.start_soon(controller)
            created = await api.create("/api/v1/namespaces/fresh/pods", pod())
        assert created["spec"]["serviceAccountName"] == "default"


async def test_a_finalizer_without_a_slash_must_be_known_to_kubernetes() -> None:
    why = 'metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified'
    async with running_api() as api:
        bare = config_map(a="1")
        with pytest.raises(Invalid) as refused:
            await api.create(CONFIG_MAPS, {**bare, "metadata": {**bare["metadata"], "finalizers": ["mine"]}})
        assert why in str(refused.value)
        await api.create(CONFIG_MAPS, bare)
        path = f"{CONFIG_MAPS}/settings"
        with pytest.raises(Invalid) as refused:
            await api.patch(path, {"metadata": {"finalizers": ["mine"]}})
        assert why in str(refused.value)
        await api.patch(path, {"metadata": {"finalizers": ["orphan", "example.com/mine"]}})
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "l", "finalizers": ["mine"]},
        }
        await api.create(LEASES, lease)


async def test_an_update_that_removes_answers_with_the_object_that_was_sent() -> None:
    async with running_api() as api:
        held = config_map(a="1")
        await api.create(CONFIG_MAPS, {**held, "metadata": {**held["metadata"], "finalizers": ["a/b"]}})
        path = f"{CONFIG_MAPS}/settings"
        await api.call("DELETE", path)
        rehearsed = await api.patch(path, {"metadata": {"finalizers": None}}, params={"dryRun": "All"})
        gone = await api.patch(path, {"metadata": {"finalizers": None}, "data": {"a": "2"}})
        assert "finalizers" not in gone["metadata"]
        assert "finalizers" not in rehearsed["metadata"]
        assert gone["data"] == {"a": "2"}
        assert gone["metadata"]["resourceVersion"] == str(api.store.rv)
        with pytest.raises(NotFound):
            await api.call("GET", path)


@pytest.mark.parametrize("name", ["Web_1.x", "a:b"])
async def test_names_of_events_and_budgets_are_path_segments(name: str) -> None:
    async with running_api() as api:
        event = {"apiVersion": "v1", "kind": "Event", "involvedObject": {"namespace": "default"}}
        created = await api.create(EVENTS, {**event, "metadata": {"name": name}})
        assert created["metadata"]["name"] == name
        with pytest.raises(Invalid, match="may not contain '/'"):
            await api.create(EVENTS, {**event, "metadata": {"name": "a/b"}})
