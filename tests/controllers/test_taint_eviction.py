"""What NoExecute taints do to pods: at once, after a while, or never; and what stops a running timer."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.taint_eviction import CONTROLLER, tainted_node, touched_pod
from kcp.machinery import meta
from kcp.machinery.errors import InternalError
from tests.support.builders import node, pod
from tests.support.planning import World, events, of_type

Json = dict[str, Any]
TAINT = {"key": "k", "value": "v", "effect": "NoExecute"}
KEY = "default/a"


def tolerating(seconds: int | None) -> Json:
    toleration: Json = {"key": "k", "operator": "Exists", "effect": "NoExecute"}
    if seconds is not None:
        toleration["tolerationSeconds"] = seconds
    return {"tolerations": [toleration]}


def world(spec: Json, *taints: Json) -> World:
    return World(node("n", taints=list(taints or (TAINT,))), pod("a", node="n", phase="Running", spec=spec))


def test_a_pod_that_does_not_tolerate_goes_at_once_and_says_why() -> None:
    here = world({})
    effects = here.plan(CONTROLLER, KEY)
    assert events(effects) == [("TaintManagerEviction", f"Marking for deletion Pod {KEY}")]
    (mark,) = of_type(effects, fx.Patch)
    (condition,) = mark.patch["status"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("DisruptionTarget", "DeletionByTaintManager")
    assert condition["message"] == "Taint manager: deleting due to NoExecute taint"
    assert [delete.name for delete in of_type(effects, fx.Delete)] == ["a"]


def test_a_pod_that_tolerates_for_ever_stays() -> None:
    assert not world(tolerating(None)).plan(CONTROLLER, KEY)


def test_toleration_seconds_delay_it() -> None:
    here = world(tolerating(30))
    (again,) = of_type(here.plan(CONTROLLER, KEY), fx.RequeueAfter)
    assert again.seconds == 30
    here.sleep(29)
    assert not of_type(here.plan(CONTROLLER, KEY), fx.Delete)
    here.sleep(1)
    assert of_type(here.plan(CONTROLLER, KEY), fx.Delete)


def test_a_running_timer_is_left_alone_by_a_new_toleration() -> None:
    here = world(tolerating(30))
    here.plan(CONTROLLER, KEY)
    here.sleep(20)
    current = here.get("pods", KEY)
    here.put({**current, "spec": {**current["spec"], **tolerating(60)}})
    (again,) = of_type(here.plan(CONTROLLER, KEY), fx.RequeueAfter)
    assert again.seconds == 10


def test_the_timer_is_cancelled_when_the_taint_goes() -> None:
    here = world(tolerating(30))
    here.plan(CONTROLLER, KEY)
    here.put(node("n"))
    effects = here.plan(CONTROLLER, KEY)
    assert events(effects) == [("TaintManagerEviction", f"Cancelling deletion of Pod {KEY}")]
    here.sleep(60)
    assert not here.plan(CONTROLLER, KEY)


def test_a_second_taint_that_is_not_tolerated_ends_the_wait() -> None:
    here = world(tolerating(30))
    here.plan(CONTROLLER, KEY)
    here.put(node("n", taints=[TAINT, {"key": "other", "effect": "NoExecute"}]))
    assert of_type(here.plan(CONTROLLER, KEY), fx.Delete)


def test_a_pod_that_could_not_be_marked_is_not_deleted_yet() -> None:
    here = world({})
    here.fail[fx.Patch] = InternalError("try again")
    assert not of_type(here.plan(CONTROLLER, KEY), fx.Delete)


def test_who_is_concerned() -> None:
    here = world({})
    readers = {name: here.view(CONTROLLER)[name] for name in CONTROLLER.watches}
    tainted, plain = here.get("nodes", "n"), node("n")
    assert tainted_node(plain, tainted, readers) == [KEY]
    assert tainted_node(tainted, tainted, readers) == []
    assert touched_pod(None, here.get("pods", KEY), readers) == [KEY]
    assert touched_pod(here.get("pods", KEY), None, readers) == [meta.key_of(here.get("pods", KEY))]
    assert touched_pod(None, pod("free"), readers) == []
    at_ease = World(node("n"), pod("a", node="n"))
    readers = {name: at_ease.view(CONTROLLER)[name] for name in CONTROLLER.watches}
    assert touched_pod(at_ease.get("pods", KEY), None, readers) == []


def test_a_clock_that_is_set_back_lengthens_no_wait() -> None:
    here = world(tolerating(30))
    here.plan(CONTROLLER, KEY)
    here.sleep(-3600)
    (again,) = of_type(here.plan(CONTROLLER, KEY), fx.RequeueAfter)
    assert again.seconds == 30
    here.sleep(30)
    assert of_type(here.plan(CONTROLLER, KEY), fx.Delete)
