"""Ephemeral volumes: one claim each, owned by the pod, and never somebody else's."""

from __future__ import annotations

from typing import Any

from kcp.controllers import effects as fx
from kcp.controllers.persistent_volume.ephemeral import CONTROLLER, touched_claim, touched_pod
from kcp.machinery import meta
from kcp.machinery.errors import Forbidden
from tests.support.builders import metadata, pod
from tests.support.planning import World, events, writes

Json = dict[str, Any]
KEY = "default/web"
CLAIMS = "persistentvolumeclaims"


def scratch_pod(**more: Any) -> Json:
    template = {
        "metadata": {"labels": {"of": "scratch"}, "annotations": {"a": "b"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    volumes = [
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}},
        {"name": "e", "emptyDir": {}},
    ]
    return pod("web", spec={"volumes": volumes}, **more)


def test_the_claim_is_what_the_template_says() -> None:
    world = World(scratch_pod())
    world.plan(CONTROLLER, KEY)
    made = world.get(CLAIMS, "default/web-scratch")
    (owner,) = meta.owner_references(made)
    assert owner == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "web",
        "uid": meta.uid(world.get("pods", KEY)),
        "controller": True,
        "blockOwnerDeletion": True,
    }
    assert (meta.labels(made), meta.annotations(made)) == ({"of": "scratch"}, {"a": "b"})
    assert made["spec"]["resources"] == {"requests": {"storage": "1Gi"}}
    assert world.plan(CONTROLLER, KEY) == []


def test_a_claim_of_somebody_else_is_not_used() -> None:
    stranger = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata("web-scratch"),
        "spec": {},
    }
    world = World(scratch_pod(), stranger)
    effects = world.plan(CONTROLLER, KEY)
    text = "ephemeral volume scratch: PVC default/web-scratch was not created for pod default/web (pod is not owner)"
    assert events(effects) == [("FailedBinding", text)]
    assert writes(effects) == []
    readers = {"pods": world.view(CONTROLLER).pods}
    assert touched_claim(world.get(CLAIMS, "default/web-scratch"), None, readers) == [KEY]


def test_a_refused_claim_is_told_of() -> None:
    world = World(scratch_pod())
    world.fail[fx.Create] = Forbidden("exceeded quota")
    text = "ephemeral volume scratch: create PVC web-scratch: exceeded quota"
    assert events(world.plan(CONTROLLER, KEY)) == [("FailedBinding", text)]


def test_pods_that_go_or_have_none_need_nothing() -> None:
    going = scratch_pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert World(going).plan(CONTROLLER, KEY) == []
    assert touched_pod(None, pod("plain"), {}) == []
    assert touched_pod(None, scratch_pod(), {}) == [KEY]
    assert touched_pod(scratch_pod(), scratch_pod(), {}) == []
