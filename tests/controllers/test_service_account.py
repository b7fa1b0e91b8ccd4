"""Every active namespace has the ServiceAccount `default`."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.service_account import CONTROLLER, removed_default
from tests.support.builders import metadata, namespace
from tests.support.planning import World, of_type

Json = dict[str, Any]


def account(name: str) -> Json:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name, "team")}


def test_a_new_namespace_gets_its_account_once() -> None:
    world = World(namespace("team"))
    world.plan(CONTROLLER, "team")
    assert world.get("serviceaccounts", "team/default")["kind"] == "ServiceAccount"
    assert not world.plan(CONTROLLER, "team")


def test_a_namespace_that_goes_gets_none() -> None:
    gone = namespace("team")
    world = World({**gone, "status": {"phase": "Terminating"}})
    assert not world.plan(CONTROLLER, "team")


def test_only_the_removal_of_default_concerns_it() -> None:
    assert removed_default(account("default"), None, {}) == ["team"]
    assert removed_default(account("other"), None, {}) == []
    assert removed_default(account("default"), account("default"), {}) == []
    world = World(namespace("team"))
    assert len(of_type(world.plan(CONTROLLER, "team"), fx.Create)) == 1
