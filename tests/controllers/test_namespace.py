"""What users see of a namespace that goes: pods first, conditions that say what is left, gone only when truly empty."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.namespace import CONTROLLER
from kcp.machinery import meta
from kcp.machinery.errors import InternalError
from tests.support.builders import metadata, namespace, pod
from tests.support.planning import World, of_type

Json = dict[str, Any]
GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


def going() -> World:
    return World(namespace("team", **GOING))


def config(name: str, **more: Any) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name, "team", **more)}


def requests(effects: list[fx.Effect]) -> list[tuple[str, str]]:
    return [(effect.method, effect.path) for effect in of_type(effects, fx.Request)]


def condition(world: World, type_: str) -> tuple[str, str, str]:
    found = meta.condition(world.get("namespaces", "team"), type_)
    assert found is not None, type_
    return found["status"], found["reason"], found["message"]


FINALIZE = ("PUT", "/api/v1/namespaces/team/finalize")


def test_an_active_namespace_is_left_alone() -> None:
    assert not World(namespace("team")).plan(CONTROLLER, "team")


def test_an_empty_one_is_finalized_at_once() -> None:
    world = going()
    effects = world.plan(CONTROLLER, "team")
    assert requests(effects) == [FINALIZE]
    assert world.get("namespaces", "team")["status"]["phase"] == "Terminating"
    (request,) = of_type(effects, fx.Request)
    assert request.body["spec"]["finalizers"] == []
    assert condition(world, "NamespaceContentRemaining") == (
        "False", "ContentRemoved", "All content successfully removed",
    )  # fmt: skip


def test_pods_go_before_anything_else() -> None:
    world = going()
    world.put(pod("a", "team", spec={"terminationGracePeriodSeconds": 30}))
    world.put(config("settings"))
    effects = world.plan(CONTROLLER, "team")
    assert requests(effects) == [("DELETE", "/api/v1/namespaces/team/pods")]
    assert condition(world, "NamespaceContentRemaining") == (
        "True", "SomeResourcesRemain", "Some resources are remaining: pods. has 1 resource instances",
    )  # fmt: skip
    (again,) = of_type(effects, fx.RequeueAfter)
    assert again.seconds == 16


def test_the_rest_goes_by_collection_and_what_stays_is_told() -> None:
    world = going()
    world.put(config("kept", finalizers=["example.com/keep"]))
    effects = world.plan(CONTROLLER, "team")
    assert requests(effects) == [("DELETE", "/api/v1/namespaces/team/configmaps")]
    assert condition(world, "NamespaceFinalizersRemaining") == (
        "True",
        "SomeFinalizersRemain",
        "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances",
    )
    (again,) = of_type(effects, fx.RequeueAfter)
    assert again.seconds == 8.5


def test_what_cannot_be_listed_does_not_pass_for_empty() -> None:
    """Found by simulation: a namespace was removed while a Service was in it, because one list had failed."""
    world = going()
    world.put(config("settings"))
    world.fail[fx.LiveList] = InternalError("try again")
    effects = world.plan(CONTROLLER, "team")
    assert FINALIZE not in requests(effects)
    assert condition(world, "NamespaceDeletionContentFailure")[:2] == ("True", "ContentDeletionFailed")


def test_a_failed_deletion_is_told() -> None:
    world = going()
    world.put(config("settings"))
    world.fail[fx.Request] = InternalError("try again")
    effects = world.plan(CONTROLLER, "team")
    assert FINALIZE not in requests(effects)
    status, reason, message = condition(world, "NamespaceDeletionContentFailure")
    assert (status, reason) == ("True", "ContentDeletionFailed")
    assert message.startswith("Failed to delete all resource types, 1 remaining: ")
