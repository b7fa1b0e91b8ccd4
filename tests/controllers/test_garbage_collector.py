"""What users see of the garbage collector: whose owners are gone goes; orphans and foreground deletion keep their order."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.garbage_collector import BURST, CONTROLLER, affected
from kcp.machinery import meta
from kcp.machinery.errors import InternalError
from tests.support.builders import metadata, owner_ref, replicaset
from tests.support.planning import World, events, of_type

Json = dict[str, Any]
GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


def config(name: str, *owners: Json, namespace: str = "default", **more: Any) -> Json:
    refs = {"ownerReferences": [*owners]} if owners else {}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name, namespace, **refs, **more)}


def reference(owner: Json, **more: Any) -> Json:
    return {**owner_ref(owner, controller=False, block=False), **more}


def plan(world: World, obj: Json) -> list[fx.Effect]:
    return world.plan(CONTROLLER, meta.uid(obj))


def test_an_object_with_a_living_owner_stays() -> None:
    world = World(replicaset("web"))
    child = world.put(config("child", reference(world.get("replicasets.apps", "default/web"))))
    assert not plan(world, child)


def test_an_object_whose_owner_is_gone_goes_too() -> None:
    world = World(replicaset("web"))
    child = world.put(config("child", reference(world.get("replicasets.apps", "default/web"))))
    del world.objects["replicasets.apps"]["default/web"]
    (delete,) = of_type(plan(world, child), fx.Delete)
    assert (delete.name, delete.uid, delete.propagation) == ("child", meta.uid(child), "Background")
    assert delete.rv == child["metadata"]["resourceVersion"]


def test_an_owner_of_the_same_name_with_another_uid_is_another_owner() -> None:
    world = World(replicaset("web"))
    child = world.put(
        config("child", reference(world.get("replicasets.apps", "default/web"), uid="of-before"))
    )
    assert of_type(plan(world, child), fx.Delete)


def test_nothing_is_deleted_when_the_owner_cannot_be_asked_for() -> None:
    world = World(replicaset("web"))
    child = world.put(config("child", reference(world.get("replicasets.apps", "default/web"))))
    del world.objects["replicasets.apps"]["default/web"]
    world.fail[fx.Live] = InternalError("try again")
    assert not of_type(plan(world, child), fx.Delete)


def test_one_living_owner_is_enough_and_dangling_references_are_dropped() -> None:
    world = World(replicaset("web"))
    owner = world.get("replicasets.apps", "default/web")
    child = world.put(config("child", reference(owner), reference(owner, name="gone", uid="gone")))
    (patch,) = of_type(plan(world, child), fx.Patch)
    assert [ref["uid"] for ref in patch.patch["metadata"]["ownerReferences"]] == [meta.uid(owner)]
    assert world.get("configmaps", "default/child")


def test_a_foreground_deletion_waits_for_those_that_block_it() -> None:
    world = World()
    owner = world.put(
        {**replicaset("web"), "metadata": metadata("web", finalizers=["foregroundDeletion"], **GOING)}
    )
    world.put(config("child", reference(owner, blockOwnerDeletion=True)))
    (delete,) = plan(world, owner)
    assert isinstance(delete, fx.Delete) and delete.name == "child"
    (patch,) = of_type(plan(world, owner), fx.Patch)
    assert patch.patch["metadata"]["finalizers"] is None


def test_a_waiting_owner_deletes_a_middle_object_in_the_foreground() -> None:
    world = World()
    owner = world.put(
        {**replicaset("web"), "metadata": metadata("web", finalizers=["foregroundDeletion"], **GOING)}
    )
    middle = world.put(config("middle", reference(owner, blockOwnerDeletion=True)))
    world.put(config("leaf", reference(middle)))
    (delete,) = of_type(plan(world, middle), fx.Delete)
    assert delete.propagation == "Foreground"


def test_orphaning_frees_the_dependents_before_the_owner_goes() -> None:
    world = World()
    owner = world.put({**replicaset("web"), "metadata": metadata("web", finalizers=["orphan"], **GOING)})
    world.put(config("child", reference(owner)))
    first, second = of_type(plan(world, owner), fx.Patch)
    assert (first.name, first.patch["metadata"]["ownerReferences"]) == ("child", None)
    assert (second.name, second.patch["metadata"]["finalizers"]) == ("web", None)


def test_an_owner_is_kept_while_a_dependent_could_not_be_freed() -> None:
    world = World()
    owner = world.put({**replicaset("web"), "metadata": metadata("web", finalizers=["orphan"], **GOING)})
    world.put(config("child", reference(owner)))
    world.fail[fx.Patch] = InternalError("try again")
    assert [effect.name for effect in of_type(plan(world, owner), fx.Patch)] == ["child"]


def test_a_circle_of_foreground_deletions_is_broken() -> None:
    world = World()
    first = world.put(config("first", finalizers=["foregroundDeletion"], **GOING))
    second = world.put(config("second", reference(first, blockOwnerDeletion=True)))
    current = world.get("configmaps", "default/first")
    refs = [reference(second, blockOwnerDeletion=True)]
    world.put({**current, "metadata": {**current["metadata"], "ownerReferences": refs}})
    effects = plan(world, second)
    (patch,) = of_type(effects, fx.Patch)
    assert [ref["blockOwnerDeletion"] for ref in patch.patch["metadata"]["ownerReferences"]] == [False]


def test_an_owner_in_another_namespace_is_no_owner() -> None:
    world = World(config("owner", namespace="other"))
    child = world.put(config("child", reference(world.get("configmaps", "other/owner"))))
    effects = plan(world, child)
    ((reason, message),) = events(effects)
    assert reason == "OwnerRefInvalidNamespace"
    assert message.endswith('does not exist in namespace "default"')
    assert of_type(effects, fx.Delete)


def test_a_cluster_scoped_object_is_never_collected_for_a_namespaced_owner() -> None:
    world = World(config("owner"))
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": metadata(
            "volume", "", ownerReferences=[reference(world.get("configmaps", "default/owner"))]
        ),
    }
    effects = plan(world, world.put(volume))
    assert [reason for reason, _ in events(effects)] == ["OwnerRefInvalidNamespace"]
    assert not of_type(effects, fx.Delete)


def test_only_changes_of_the_graph_concern_anybody() -> None:
    world = World(replicaset("web"))
    owner = world.get("replicasets.apps", "default/web")
    child = world.put(config("child", reference(owner)))
    view = {"meta": world.view(CONTROLLER).meta}
    assert affected(None, child, view) == [], "its owner is plainly there"
    assert affected(child, {**child, "data": {"a": "b"}}, view) == []
    assert affected(owner, None, view) == [meta.uid(owner)], "its dependents are seen to together"
    going = {**owner, "metadata": {**owner["metadata"], **GOING}}
    assert affected(owner, going, view) == []
    waiting = {**owner, "metadata": {**going["metadata"], "finalizers": ["foregroundDeletion"]}}
    assert affected(owner, waiting, view) == [meta.uid(owner)]


def test_a_new_object_is_looked_at_unless_all_its_owners_are_plainly_there() -> None:
    world = World(replicaset("web"), config("other"))
    there, other = world.get("replicasets.apps", "default/web"), world.get("configmaps", "default/other")
    waiting = world.put(config("waiting", finalizers=["foregroundDeletion"], **GOING))
    doubtful = {
        "absent": reference(there, uid="of-before"),
        "misnamed": reference(there, name="another"),
        "waiting": reference(waiting),
    }
    view = {"meta": world.view(CONTROLLER).meta}
    for name, ref in doubtful.items():
        child = world.put(config(name, reference(other), ref))
        assert affected(None, child, view) == [meta.uid(child)], name


def test_dependents_of_what_is_gone_are_collected_together_with_one_look_at_the_owner() -> None:
    world = World(replicaset("web"))
    owner = world.get("replicasets.apps", "default/web")
    for number in range(BURST + 20):
        world.put(config(f"child-{number:04d}", reference(owner)))
    keeper = world.put(config("keeper"))
    world.put(config("kept", reference(owner), reference(keeper)))
    world.put(config("going", reference(owner), **GOING))
    del world.objects["replicasets.apps"]["default/web"]
    effects = plan(world, owner)
    assert len(of_type(effects, fx.Live)) == 1 and len(of_type(effects, fx.Delete)) == BURST
    assert isinstance(effects[-1], fx.RequeueAfter) and effects[-1].seconds == 0
    effects = plan(world, owner)
    assert len(of_type(effects, fx.Delete)) == 20 and not of_type(effects, fx.RequeueAfter)
    assert [effect.name for effect in of_type(effects, fx.Patch)] == ["kept"]
    assert [meta.name(obj) for obj in world.all("configmaps")] == ["going", "keeper", "kept"]


def test_many_dependents_are_set_free_in_several_plans() -> None:
    world = World()
    owner = world.put({**replicaset("web"), "metadata": metadata("web", finalizers=["orphan"], **GOING)})
    for number in range(BURST + 1):
        world.put(config(f"child-{number:04d}", reference(owner)))
    first = plan(world, owner)
    assert len(of_type(first, fx.Patch)) == BURST and of_type(first, fx.RequeueAfter)
    assert [effect.name for effect in of_type(plan(world, owner), fx.Patch)] == ["child-0500", "web"]
