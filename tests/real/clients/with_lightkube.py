"""lightkube, unmodified: typed models, generic resources, apply."""

from __future__ import annotations

from typing import Any

import pytest

from tests.real.daemon import Daemon, eventually

lightkube = pytest.importorskip("lightkube", reason="the PyPI package lightkube is not installed")

pytestmark = pytest.mark.real


@pytest.fixture
def client(daemon: Daemon, namespace: str) -> Any:
    config = lightkube.KubeConfig.from_file(str(daemon.kubeconfig))
    return lightkube.Client(config=config, namespace=namespace, field_manager="tester")


def config_map(name: str, **data: str) -> Any:
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import ConfigMap

    return ConfigMap(metadata=ObjectMeta(name=name, labels={"made-by": "test"}), data=data)


def test_an_object_s_life(client: Any) -> None:
    from lightkube.resources.core_v1 import ConfigMap
    from lightkube.types import PatchType

    made = client.create(config_map("a", x="1"))
    made.data["y"] = "2"
    assert client.replace(made).data == {"x": "1", "y": "2"}
    assert client.patch(ConfigMap, "a", {"data": {"x": None}}).data == {"y": "2"}
    merged = client.patch(ConfigMap, "a", {"data": {"z": "3"}}, patch_type=PatchType.MERGE)
    assert merged.data == {"y": "2", "z": "3"}
    assert client.get(ConfigMap, "a").metadata.uid == made.metadata.uid
    client.delete(ConfigMap, "a")
    with pytest.raises(lightkube.ApiError) as gone:
        client.get(ConfigMap, "a")
    assert (gone.value.status.code, gone.value.status.reason) == (404, "NotFound")


def test_lists_come_in_pages(client: Any) -> None:
    from lightkube.resources.core_v1 import ConfigMap

    for number in range(7):
        client.create(config_map(f"m-{number}"))
    found = client.list(ConfigMap, labels={"made-by": "test"}, chunk_size=3)
    assert [each.metadata.name for each in found] == [f"m-{number}" for number in range(7)]


def test_a_watch_with_resume(client: Any) -> None:
    from lightkube.resources.core_v1 import ConfigMap

    first = client.create(config_map("a"))
    client.create(config_map("b"))
    client.delete(ConfigMap, "a")
    seen = []
    for kind, obj in client.watch(
        ConfigMap, labels={"made-by": "test"}, resource_version=first.metadata.resourceVersion
    ):
        seen.append((kind, obj.metadata.name))
        if len(seen) == 2:
            break
    assert seen == [("ADDED", "b"), ("DELETED", "a")]


def test_apply_and_conflicts(client: Any) -> None:
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import ConfigMap

    def wanted(**data: str) -> Any:
        return ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="applied"), data=data)

    assert client.apply(wanted(x="1", y="1")).data == {"x": "1", "y": "1"}
    assert client.apply(wanted(x="2")).data == {"x": "2"}
    with pytest.raises(lightkube.ApiError) as conflict:
        client.apply(wanted(x="3"), field_manager="other")
    assert (conflict.value.status.code, conflict.value.status.reason) == (409, "Conflict")
    assert client.apply(wanted(x="3"), field_manager="other", force=True).data == {"x": "3"}


def test_scale_and_status_are_resources_of_their_own(client: Any) -> None:
    from lightkube.models.apps_v1 import DeploymentSpec
    from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
    from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import Pod

    labels = {"app": "web"}
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=[Container(name="web", image="web:1")])
    )
    spec = DeploymentSpec(replicas=1, selector=LabelSelector(matchLabels=labels), template=template)
    client.create(Deployment(metadata=ObjectMeta(name="web"), spec=spec))
    client.wait(Deployment, "web", for_conditions=["Progressing"])
    scale = client.get(Deployment.Scale, name="web")
    scale.spec.replicas, scale.metadata.resourceVersion = 2, None
    client.replace(scale, "web")
    eventually(lambda: len(list(client.list(Pod, labels=labels))) == 2, "two pods")
    assert client.get(Deployment.Status, name="web").status.replicas is not None


def test_generic_resources(client: Any) -> None:
    from lightkube.generic_resource import create_namespaced_resource

    leases: Any = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases")
    made = client.create(leases(metadata={"name": "lead"}, spec={"holderIdentity": "me"}))
    assert made.spec["holderIdentity"] == "me"
    assert [each.metadata.name for each in client.list(leases)] == ["lead"]


def test_errors(client: Any) -> None:
    client.create(config_map("a"))
    for obj, code, reason in ((config_map("a"), 409, "AlreadyExists"), (config_map("A_B"), 422, "Invalid")):
        with pytest.raises(lightkube.ApiError) as refused:
            client.create(obj)
        assert (refused.value.status.code, refused.value.status.reason) == (code, reason)


def test_the_asynchronous_client_and_a_token(daemon: Daemon, client: Any, namespace: str) -> None:
    import asyncio

    from lightkube.models.authentication_v1 import TokenRequestSpec
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import ConfigMap, ServiceAccount, ServiceAccountToken

    client.create(ServiceAccount(metadata=ObjectMeta(name="robot")))
    request = client.create(
        ServiceAccountToken(metadata=ObjectMeta(), spec=TokenRequestSpec(audiences=[])), "robot"
    )
    config = lightkube.KubeConfig.from_file(str(daemon.kubeconfig))
    cluster = next(iter(config.clusters.values()))
    robot = lightkube.KubeConfig.from_one(
        cluster=cluster, user=lightkube.config.models.User(token=request.status.token)
    )

    async def read() -> None:
        robots = lightkube.AsyncClient(config=robot, namespace=namespace)
        with pytest.raises(lightkube.ApiError) as refused:
            await robots.get(ConfigMap, "a")
        assert refused.value.status.code == 403
        assert f"system:serviceaccount:{namespace}:robot" in refused.value.status.message
        await robots.close()

    asyncio.run(read())
