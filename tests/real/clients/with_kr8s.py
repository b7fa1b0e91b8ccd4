"""kr8s, unmodified: objects that know how to change themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.daemon import Daemon, eventually

kr8s = pytest.importorskip("kr8s", reason="the PyPI package kr8s is not installed")

pytestmark = pytest.mark.real


@pytest.fixture
def api(daemon: Daemon) -> Iterator[Any]:
    yield kr8s.api(kubeconfig=str(daemon.kubeconfig))


@pytest.fixture
def namespace(request: pytest.FixtureRequest, api: Any) -> Iterator[str]:
    from kr8s.objects import Namespace

    name = request.node.name.lower().removeprefix("test_").replace("_", "-")[:40]
    made = Namespace({"metadata": {"name": name}}, api=api)
    made.create()
    yield name
    made.delete()


def config_map(api: Any, namespace: str, name: str, **data: str) -> Any:
    from kr8s.objects import ConfigMap

    metadata = {"name": name, "namespace": namespace, "labels": {"made-by": "test"}}
    return ConfigMap({"metadata": metadata, "data": data}, api=api)


def test_an_object_s_life(api: Any, namespace: str) -> None:
    obj = config_map(api, namespace, "a", x="1")
    assert not obj.exists()
    obj.create()
    assert obj.exists() and obj.metadata.uid
    obj.patch({"data": {"y": "2"}})
    assert dict(obj.data) == {"x": "1", "y": "2"}
    obj.label(tier="front")
    obj.annotate({"note": "yes"})
    obj.refresh()
    assert (obj.labels["tier"], obj.annotations["note"]) == ("front", "yes")
    obj.patch([{"op": "remove", "path": "/data/x"}], type="json")
    assert dict(obj.data) == {"y": "2"}
    obj.delete()
    eventually(lambda: not obj.exists(), "the object goes")


def test_get_selects(api: Any, namespace: str) -> None:
    for name in ("a", "b"):
        config_map(api, namespace, name).create()
    found = list(api.get("configmaps", namespace=namespace, label_selector={"made-by": "test"}))
    assert sorted(each.name for each in found) == ["a", "b"]
    one = list(api.get("cm", namespace=namespace, field_selector="metadata.name=b"))
    assert [each.name for each in one] == ["b"]


def test_a_deployment_scales(api: Any, namespace: str) -> None:
    from kr8s.objects import Deployment

    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    web = Deployment({"metadata": {"name": "web", "namespace": namespace}, "spec": spec}, api=api)
    web.create()
    eventually(lambda: len(list(web.pods())) == 1, "one pod")
    web.patch({"spec": {"replicas": 2}})
    eventually(lambda: len(list(web.pods())) == 2, "two pods")
    web.delete(propagation_policy="Foreground")


def test_a_watch(api: Any, namespace: str) -> None:
    config_map(api, namespace, "a").create()
    seen = []
    for kind, obj in api.watch("configmaps", namespace=namespace, label_selector="made-by=test"):
        seen.append((kind, obj.name))
        if len(seen) == 1:
            config_map(api, namespace, "b").create()
        else:
            break
    assert seen == [("ADDED", "a"), ("ADDED", "b")]


def test_what_the_server_is(api: Any) -> None:
    assert api.version()["gitVersion"].startswith("v1.36")
    assert api.whoami() == "kubernetes-admin"
    assert "deployments" in {resource["name"] for resource in api.api_resources()}


def test_errors(api: Any, namespace: str) -> None:
    with pytest.raises(kr8s.NotFoundError):
        config_map(api, namespace, "nope").refresh()
    obj = config_map(api, namespace, "a")
    obj.create()
    with pytest.raises(kr8s.ServerError, match="already exists"):
        obj.create()
    with pytest.raises(kr8s.ServerError, match="Invalid value"):
        config_map(api, namespace, "A_B").create()
