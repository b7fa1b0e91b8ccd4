"""delete and deletecollection."""

from __future__ import annotations

from typing import Any

import pytest

from kcp.machinery.errors import BadRequest, Conflict, Forbidden, Invalid, NotFound
from tests.api.harness import CONFIG_MAPS, DEPLOYMENTS, PODS, Api, config_map, deployment, pod, running_api


async def _bound_pod(api: Api, name: str = "web") -> None:
    await api.create(PODS, pod(name))
    await api.create(
        f"{PODS}/{name}/binding", {"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}}
    )


async def test_deleting_answers_with_a_status() -> None:
    async with running_api() as api:
        created = await api.create(CONFIG_MAPS, config_map())
        answer = await api.delete(f"{CONFIG_MAPS}/settings")
        assert answer.value == {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {"name": "settings", "kind": "configmaps", "uid": created["metadata"]["uid"]},
        }
        with pytest.raises(NotFound):
            await api.delete(f"{CONFIG_MAPS}/settings")


async def test_some_kinds_answer_with_the_object() -> None:
    async with running_api() as api:
        await api.create(PODS, pod())
        assert (await api.delete(f"{PODS}/web")).value["kind"] == "Pod"


async def test_a_running_pod_gets_its_grace() -> None:
    async with running_api() as api:
        await _bound_pod(api)
        marked = (await api.delete(f"{PODS}/web")).value["metadata"]
        assert marked["deletionTimestamp"] == "2026-01-01T00:00:30Z"
        assert marked["deletionGracePeriodSeconds"] == 30
        rv = api.store.rv
        await api.delete(f"{PODS}/web")
        await api.delete(f"{PODS}/web", gracePeriodSeconds=60)
        assert api.store.rv == rv
        shorter = (await api.delete(f"{PODS}/web", gracePeriodSeconds=10)).value["metadata"]
        assert shorter["deletionTimestamp"] == "2026-01-01T00:00:10Z"
        await api.delete(f"{PODS}/web", gracePeriodSeconds=0)
        assert api.stored("pods", "web") is None


async def test_an_unscheduled_pod_goes_at_once() -> None:
    async with running_api() as api:
        await api.create(PODS, pod())
        await api.delete(f"{PODS}/web")
        assert api.stored("pods", "web") is None


@pytest.mark.parametrize(
    ("options", "finalizers"),
    [
        ({"propagationPolicy": "Foreground"}, ["foregroundDeletion"]),
        ({"propagationPolicy": "Orphan"}, ["orphan"]),
        ({"orphanDependents": True}, ["orphan"]),
    ],
)
async def test_propagation_becomes_a_finalizer(options: dict[str, Any], finalizers: list[str]) -> None:
    async with running_api() as api:
        await api.create(DEPLOYMENTS, deployment())
        marked = (await api.delete(f"{DEPLOYMENTS}/web", **options)).value["metadata"]
        assert marked["finalizers"] == finalizers
        assert marked["deletionTimestamp"]
        assert marked["generation"] == 2


async def test_replication_controllers_orphan_by_default() -> None:
    async with running_api() as api:
        path = "/api/v1/namespaces/default/replicationcontrollers"
        template = deployment()["spec"]["template"]
        await api.create(path, {"metadata": {"name": "rc"}, "spec": {"template": template}})
        assert (await api.delete(f"{path}/rc")).value["metadata"]["finalizers"] == ["orphan"]


async def test_the_old_way_of_cascading_is_accepted_not_done() -> None:
    async with running_api() as api:
        obj = config_map()
        obj["metadata"]["finalizers"] = ["example.com/a"]
        await api.create(CONFIG_MAPS, obj)
        assert (await api.delete(f"{CONFIG_MAPS}/settings", orphanDependents=False)).status == 202


async def test_preconditions_hold_or_conflict() -> None:
    async with running_api() as api:
        created = await api.create(CONFIG_MAPS, config_map())
        path, metadata = f"{CONFIG_MAPS}/settings", created["metadata"]
        with pytest.raises(Conflict) as caught:
            await api.delete(path, preconditions={"uid": "other"})
        assert caught.value.message == (
            'Operation cannot be fulfilled on ConfigMap "settings": the UID in the precondition (other) does not match'
            f" the UID in record ({metadata['uid']}). The object might have been deleted and then recreated"
        )
        with pytest.raises(Conflict, match=r"The object might have been modified"):
            await api.delete(path, preconditions={"resourceVersion": "1"})
        held = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        await api.delete(path, preconditions=held)


async def test_contradicting_options_are_invalid() -> None:
    async with running_api() as api:
        with pytest.raises(Invalid) as caught:
            await api.delete(f"{CONFIG_MAPS}/x", propagationPolicy="Orphan", orphanDependents=True)
        assert caught.value.message == (
            'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan":'
            " orphanDependents and deletionPropagation cannot be both set"
        )


async def test_options_of_a_wrong_type_are_a_bad_request() -> None:
    async with running_api() as api:
        with pytest.raises(BadRequest) as caught:
            await api.delete(f"{CONFIG_MAPS}/x", gracePeriodSeconds="soon")
        assert caught.value.message == (
            'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: json: cannot unmarshal string into Go'
            " struct field DeleteOptions.gracePeriodSeconds of type int64"
        )


async def test_options_in_the_query() -> None:
    async with running_api() as api:
        await _bound_pod(api)
        await api.call("DELETE", f"{PODS}/web", params={"gracePeriodSeconds": "0"})
        assert api.stored("pods", "web") is None


async def test_a_collection_goes_by_selector() -> None:
    async with running_api() as api:
        for number in range(4):
            obj = config_map(f"c{number}")
            obj["metadata"]["labels"] = {"half": str(number // 2)}
            await api.create(CONFIG_MAPS, obj)
        answer = await api.call("DELETE", CONFIG_MAPS, params={"labelSelector": "half=1"})
        assert answer.names == ["c2", "c3"]
        assert (await api.list(CONFIG_MAPS)).names == ["c0", "c1"]


async def test_namespaces_terminate_before_they_go() -> None:
    async with running_api() as api:
        await api.create("/api/v1/namespaces", {"metadata": {"name": "old"}})
        path = "/api/v1/namespaces/old"
        marked = (await api.delete(path)).value
        assert marked["status"]["phase"] == "Terminating"
        assert marked["spec"]["finalizers"] == ["kubernetes"]
        again = (await api.delete(path)).value
        assert again["metadata"]["resourceVersion"] == marked["metadata"]["resourceVersion"]
        await api.update(f"{path}/finalize", {**marked, "spec": {"finalizers": []}})
        assert api.stored("namespaces", "old", "") is None


async def test_immortal_namespaces_stay() -> None:
    async with running_api() as api:
        with pytest.raises(Forbidden) as caught:
            await api.delete("/api/v1/namespaces/default")
        assert caught.value.message == (
            'namespaces "default" is forbidden: this namespace may not be deleted'
        )
