"""Every active namespace has the ConfigMap `kube-root-ca.crt`; edits are repaired."""

from __future__ import annotations

from kcp.controllers import effects as fx
from kcp.controllers.root_ca import CONTROLLER, DESCRIPTION, touched
from kcp.machinery import meta
from tests.support.builders import namespace
from tests.support.planning import World, of_type, writes

KEY = "team/kube-root-ca.crt"
SETTINGS = {"root_ca": "-----BEGIN CERTIFICATE-----"}


def test_it_is_published_with_its_description() -> None:
    world = World(namespace("team"))
    world.plan(CONTROLLER, "team", SETTINGS)
    made = world.get("configmaps", KEY)
    assert made["data"] == {"ca.crt": SETTINGS["root_ca"]}
    assert meta.annotations(made)["kubernetes.io/description"] == DESCRIPTION
    assert not writes(world.plan(CONTROLLER, "team", SETTINGS))


def test_an_edit_is_repaired_and_foreign_annotations_stay() -> None:
    world = World(namespace("team"))
    world.plan(CONTROLLER, "team", SETTINGS)
    current = world.get("configmaps", KEY)
    annotations = {**meta.annotations(current), "example.com/mine": "1"}
    world.put(
        {
            **current,
            "data": {"ca.crt": "x", "more": "y"},
            "metadata": {**current["metadata"], "annotations": annotations},
        }
    )
    world.plan(CONTROLLER, "team", SETTINGS)
    repaired = world.get("configmaps", KEY)
    assert repaired["data"] == {"ca.crt": SETTINGS["root_ca"]}
    assert meta.annotations(repaired)["example.com/mine"] == "1"


def test_a_namespace_that_goes_gets_none() -> None:
    world = World({**namespace("team"), "status": {"phase": "Terminating"}})
    assert not of_type(world.plan(CONTROLLER, "team", SETTINGS), fx.Create)


def test_other_config_maps_do_not_concern_it() -> None:
    ours = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-root-ca.crt", "namespace": "team"},
    }
    assert touched(ours, None, {}) == ["team"]
    assert touched({**ours, "metadata": {"name": "other", "namespace": "team"}}, None, {}) == []
