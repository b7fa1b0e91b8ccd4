"""Token Secrets: filled, removed with their account, forgotten by it, retired after a year."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.service_account_tokens import (
    CLEANER,
    CONTROLLER,
    INVALID_SINCE,
    LAST_USED,
    NAME,
    TRACKING,
    UID,
    gone_account,
    touched_secret,
)
from kcp.machinery import meta
from kcp.machinery.errors import Timeout
from tests.support.builders import metadata, pod
from tests.support.planning import START, World, of_type, writes

Json = dict[str, Any]
KEY = "default/robot-token"
SETTINGS = {"root_ca": "CA"}


def account(uid: str = "sa-1", secrets: tuple[str, ...] = ()) -> Json:
    built: Json = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("robot", uid=uid)}
    if secrets:
        built["secrets"] = [{"name": name} for name in secrets]
    return built


def token(uid: str = "", *, labels: Json | None = None, **more: Any) -> Json:
    annotations = {NAME: "robot", **({UID: uid} if uid else {})}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata("robot-token", annotations=annotations, labels=labels or {}, **more),
        "type": "kubernetes.io/service-account-token",
    }


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def run(world: World) -> list[fx.Effect]:
    world.answers["service-account-tokens/issue"] = {"data": {"token": encoded("t0k3n")}}
    return world.plan(CONTROLLER, KEY, SETTINGS)


def test_a_token_is_filled_in() -> None:
    world = World(account(), token())
    effects = run(world)
    (asked,) = of_type(effects, fx.External)
    assert asked.args == {"namespace": "default", "account": "robot", "uid": "sa-1", "secret": "robot-token"}
    filled = world.get("secrets", KEY)
    assert filled["data"] == {
        "ca.crt": encoded("CA"),
        "namespace": encoded("default"),
        "token": encoded("t0k3n"),
    }
    assert meta.annotations(filled) == {NAME: "robot", UID: "sa-1"}
    assert run(world) == []


def test_only_what_is_missing_or_old_is_filled() -> None:
    data = {"ca.crt": encoded("old"), "namespace": encoded("x"), "token": encoded("kept")}
    world = World(account(), {**token("sa-1"), "data": data})
    effects = run(world)
    assert of_type(effects, fx.External) == []
    assert world.get("secrets", KEY)["data"] == {**data, "ca.crt": encoded("CA")}


def test_a_stale_view_waits_for_the_newer_one() -> None:
    world = World(account(), token())
    plan = CONTROLLER.plan(KEY, world.view(CONTROLLER), fx.Env(START, None, SETTINGS, CONTROLLER.name))
    assert isinstance(next(plan), fx.Live)
    newer = world.put(world.get("secrets", KEY))
    try:
        plan.send(fx.Outcome(object=newer))
    except StopIteration:
        return
    raise AssertionError("acted on a stale view")


def test_a_token_of_nobody_or_of_another_account_is_deleted() -> None:
    for world in (World(token()), World(account("sa-2"), token("sa-1"))):
        effects = run(world)
        assert of_type(effects, fx.Live) == [fx.Live("serviceaccounts", "default", "robot")]
        assert world.all("secrets") == []


def test_nothing_is_deleted_when_nobody_could_say() -> None:
    world = World(token())
    world.fail[fx.Live] = Timeout("slow")
    assert writes(run(world)) == []


def test_the_account_forgets_a_token_that_is_gone() -> None:
    world = World(account(secrets=("robot-token", "other")))
    (key,) = touched_secret(token(), None, {})
    world.plan(CONTROLLER, key, SETTINGS)
    assert world.get("serviceaccounts", "default/robot")["secrets"] == [{"name": "other"}]
    there = World(account(secrets=("robot-token",)), token())
    assert there.plan(CONTROLLER, key, SETTINGS) == []


def test_what_queues_a_token() -> None:
    world = World(token())
    readers = {"secrets": world.view(CONTROLLER).secrets}
    assert touched_secret(None, world.get("secrets", KEY), readers) == [KEY]
    assert touched_secret(None, {**token(), "type": "Opaque"}, readers) == []
    assert gone_account(account(), None, readers) == [KEY]
    assert gone_account(account(), account("sa-2"), readers) == [KEY]
    assert gone_account(account(), account(), readers) == []


# The cleaner of unused tokens.

YEAR = timedelta(days=365)


def day(ago: timedelta) -> str:
    return (START - ago).date().isoformat()


def aged(*, since: timedelta = 3 * YEAR, labels: Json | None = None, **extra: Any) -> World:
    tracking = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(TRACKING, "kube-system"),
        "data": {"since": day(since)},
    }
    old = token("sa-1", labels=labels, creationTimestamp="2022-01-01T00:00:00Z")
    return World(
        tracking, old, extra.get("account", account(secrets=("robot-token",))), *extra.get("more", ())
    )


def clean(world: World) -> list[fx.Effect]:
    return writes(world.plan(CLEANER, "tick"))


def test_an_unused_token_is_marked_and_a_period_later_deleted() -> None:
    world = aged()
    clean(world)
    assert meta.labels(world.get("secrets", KEY)) == {INVALID_SINCE: "2026-01-01"}
    world.sleep(365 * 86400)
    assert clean(world) == []
    world.sleep(86400)
    (deleted,) = clean(world)
    assert isinstance(deleted, fx.Delete) and deleted.rv


def test_tokens_that_stay() -> None:
    mounts = {"volumes": [{"name": "t", "secret": {"secretName": "robot-token"}}]}
    assert clean(aged(since=timedelta(days=100))) == []
    assert clean(aged(labels={LAST_USED: day(timedelta(days=10))})) == []
    assert clean(aged(account=account())) == []
    assert clean(aged(more=(pod("web", spec=mounts),))) == []
    assert clean(World(account(secrets=("robot-token",)), token("sa-1"))) == []


def test_a_token_used_long_ago_is_unused() -> None:
    assert len(clean(aged(labels={LAST_USED: day(2 * YEAR)}))) == 1
