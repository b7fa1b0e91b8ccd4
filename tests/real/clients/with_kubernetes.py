"""The official Python client, unmodified: what its users do, against a daemon of its own."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.daemon import Daemon, eventually

kubernetes = pytest.importorskip("kubernetes", reason="the PyPI package kubernetes is not installed")

pytestmark = pytest.mark.real
Json = dict[str, Any]


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Any]:
    made = kubernetes.config.new_client_from_config(str(daemon.kubeconfig))
    yield made
    made.close()


@pytest.fixture
def core(client: Any) -> Any:
    return kubernetes.client.CoreV1Api(client)


@pytest.fixture
def apps(client: Any) -> Any:
    return kubernetes.client.AppsV1Api(client)


def config_map(name: str, **data: str) -> Json:
    return {"metadata": {"name": name, "labels": {"made-by": "test"}}, "data": data}


def deployment(name: str) -> Any:
    models = kubernetes.client
    container = models.V1Container(
        name="web",
        image="registry.example/web:1",
        ports=[models.V1ContainerPort(container_port=80)],
        env=[models.V1EnvVar(name="A", value="1")],
    )
    template = models.V1PodTemplateSpec(
        metadata=models.V1ObjectMeta(labels={"app": name}), spec=models.V1PodSpec(containers=[container])
    )
    spec = models.V1DeploymentSpec(
        replicas=2, selector=models.V1LabelSelector(match_labels={"app": name}), template=template
    )
    return models.V1Deployment(metadata=models.V1ObjectMeta(name=name), spec=spec)


def refused(call: Any, *arguments: Any, **options: Any) -> tuple[int, Json]:
    """Status code and decoded Status of a call that must fail."""
    with pytest.raises(kubernetes.client.ApiException) as error:
        call(*arguments, **options)
    return error.value.status, json.loads(error.value.body)


def test_typed_objects_go_there_and_back(core: Any, apps: Any, namespace: str) -> None:
    made = apps.create_namespaced_deployment(namespace, deployment("web"))
    assert (made.spec.replicas, made.spec.strategy.type, made.metadata.generation) == (2, "RollingUpdate", 1)
    made.spec.replicas, made.metadata.resource_version = 3, None
    replaced = apps.replace_namespaced_deployment("web", namespace, made)
    assert replaced.spec.replicas == 3
    eventually(
        lambda: len(core.list_namespaced_pod(namespace, label_selector="app=web").items) == 3, "three pods"
    )
    read = apps.read_namespaced_deployment_scale("web", namespace)
    assert (read.spec.replicas, read.status.selector) == (3, "app=web")
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 0}})
    eventually(
        lambda: all(pod.metadata.deletion_timestamp for pod in core.list_namespaced_pod(namespace).items),
        "no pods",
    )


def test_the_default_patch_is_strategic(apps: Any, namespace: str) -> None:
    apps.create_namespaced_deployment(namespace, deployment("web"))
    env = [{"name": "B", "value": "2"}]
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "web", "env": env}]}}}}
    patched = apps.patch_namespaced_deployment("web", namespace, patch)
    (container,) = patched.spec.template.spec.containers
    assert [each.name for each in container.env] == ["B", "A"]
    assert container.image == "registry.example/web:1"


def test_a_list_of_operations_is_a_json_patch(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map("settings", a="1"))
    operations = [{"op": "replace", "path": "/data/a", "value": "2"}]
    assert core.patch_namespaced_config_map("settings", namespace, operations).data == {"a": "2"}
    code, status = refused(
        core.patch_namespaced_config_map,
        "settings",
        namespace,
        [{"op": "test", "path": "/data/a", "value": "9"}],
    )
    assert (code, status["reason"]) == (422, "Invalid")


def test_lists_come_in_pages(core: Any, namespace: str) -> None:
    for number in range(7):
        core.create_namespaced_config_map(namespace, config_map(f"page-{number}"))
    seen, token, pages = [], None, 0
    while token != "":
        page = core.list_namespaced_config_map(
            namespace, label_selector="made-by=test", limit=3, _continue=token
        )
        seen += [item.metadata.name for item in page.items]
        token, pages = page.metadata._continue or "", pages + 1
    assert (seen, pages) == ([f"page-{number}" for number in range(7)], 3)


def test_a_watch_goes_on_where_the_last_one_stopped(core: Any, namespace: str) -> None:
    rv = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, config_map("first"))
    core.create_namespaced_config_map(namespace, config_map("second"))
    options = {"label_selector": "made-by=test", "timeout_seconds": 20}
    stream = kubernetes.watch.Watch().stream(
        core.list_namespaced_config_map, namespace, resource_version=rv, **options
    )
    (event,) = itertools.islice(stream, 1)
    assert (event["type"], event["object"].metadata.name) == ("ADDED", "first")
    stream.close()
    core.delete_namespaced_config_map("first", namespace)
    resumed = kubernetes.watch.Watch().stream(
        core.list_namespaced_config_map,
        namespace,
        resource_version=event["object"].metadata.resource_version,
        **options,
    )
    seen = [(each["type"], each["object"].metadata.name) for each in itertools.islice(resumed, 2)]
    assert seen == [("ADDED", "second"), ("DELETED", "first")]
    resumed.close()


def test_a_watch_that_lists_first_ends_after_its_time(core: Any, namespace: str) -> None:
    core.create_namespaced_config_map(namespace, config_map("one"))
    watch = kubernetes.watch.Watch()
    stream = watch.stream(
        core.list_namespaced_config_map, namespace, label_selector="made-by=test", timeout_seconds=1
    )
    assert [event["object"].metadata.name for event in stream] == ["one"]


def test_the_dynamic_client_discovers(client: Any, namespace: str) -> None:
    dynamic = kubernetes.dynamic.DynamicClient(client)
    maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")
    made = maps.create(
        body={**config_map("d", a="1"), "apiVersion": "v1", "kind": "ConfigMap"}, namespace=namespace
    )
    assert made.data.a == "1"
    patched = maps.patch(
        body={"metadata": {"name": "d"}, "data": {"b": "2"}}, namespace=namespace,
        content_type="application/merge-patch+json",
    )  # fmt: skip
    assert patched.data.to_dict() == {"a": "1", "b": "2"}
    applied = maps.server_side_apply(
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"c": "3"}},
        namespace=namespace, field_manager="me",
    )  # fmt: skip
    assert sorted(applied.data.to_dict()) == ["a", "b", "c"]
    assert "me" in [entry.manager for entry in applied.metadata.managedFields]
    assert [
        item.metadata.name for item in maps.get(namespace=namespace, label_selector="made-by=test").items
    ] == ["d"]
    for event in maps.watch(namespace=namespace, name="d", timeout=5):
        assert (event["type"], event["object"].data.c) == ("ADDED", "3")
        break
    maps.delete(name="d", namespace=namespace)
    with pytest.raises(kubernetes.dynamic.exceptions.NotFoundError):
        maps.get(name="d", namespace=namespace)
    leases = dynamic.resources.get(api_version="coordination.k8s.io/v1", kind="Lease")
    assert leases.namespaced and "watch" in leases.verbs


def test_errors_say_what_kubernetes_says(core: Any, namespace: str) -> None:
    code, status = refused(core.read_namespaced_config_map, "nope", namespace)
    assert (code, status["reason"], status["message"]) == (404, "NotFound", 'configmaps "nope" not found')
    core.create_namespaced_config_map(namespace, config_map("a"))
    code, status = refused(core.create_namespaced_config_map, namespace, config_map("a"))
    assert (code, status["reason"]) == (409, "AlreadyExists")
    stale = core.read_namespaced_config_map("a", namespace)
    core.patch_namespaced_config_map("a", namespace, {"data": {"x": "1"}})
    code, status = refused(core.replace_namespaced_config_map, "a", namespace, stale)
    assert (code, status["reason"]) == (409, "Conflict")
    code, status = refused(core.create_namespaced_config_map, namespace, config_map("A_B"))
    assert (code, status["reason"], status["details"]["causes"][0]["field"]) == (
        422,
        "Invalid",
        "metadata.name",
    )


def test_delete_and_delete_collection(core: Any, namespace: str) -> None:
    for name in ("a", "b", "c"):
        core.create_namespaced_config_map(namespace, config_map(name))
    done = core.delete_namespaced_config_map("a", namespace)
    assert (done["status"], done["details"]["name"]) == ("Success", "a")
    core.delete_collection_namespaced_config_map(namespace, label_selector="made-by=test")
    assert core.list_namespaced_config_map(namespace, label_selector="made-by=test").items == []


def test_a_service_account_token_lets_in_and_rbac_decides(
    daemon: Daemon, core: Any, client: Any, namespace: str
) -> None:
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "robot"}})
    request = core.create_namespaced_service_account_token(
        "robot", namespace, {"spec": {"expirationSeconds": 600}}
    )
    configuration = kubernetes.client.Configuration()
    configuration.host, configuration.ssl_ca_cert = (
        client.configuration.host,
        client.configuration.ssl_ca_cert,
    )
    configuration.api_key = {"authorization": f"Bearer {request.status.token}"}
    with kubernetes.client.ApiClient(configuration) as robot:
        me = kubernetes.client.AuthenticationV1Api(robot).create_self_subject_review({})
        assert me.status.user_info.username == f"system:serviceaccount:{namespace}:robot"
        theirs = kubernetes.client.CoreV1Api(robot)
        code, status = refused(theirs.list_namespaced_secret, namespace)
        assert (code, status["reason"]) == (403, "Forbidden")
        rbac = kubernetes.client.RbacAuthorizationV1Api(client)
        rbac.create_namespaced_role_binding(
            namespace,
            {
                "metadata": {"name": "robot"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
                "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": namespace}],
            },
        )
        assert theirs.list_namespaced_secret(namespace).items == []


def test_many_threads_share_one_client(core: Any, namespace: str) -> None:
    def work(number: int) -> None:
        core.create_namespaced_config_map(namespace, config_map(f"thread-{number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(core.list_namespaced_config_map(namespace, label_selector="made-by=test").items) == 8


def test_leader_election_by_lease(client: Any, daemon: Daemon, namespace: str) -> None:
    api = kubernetes.client.CoordinationV1Api(client)
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000001Z"}
    lease = api.create_namespaced_lease(namespace, {"metadata": {"name": "leader"}, "spec": spec})
    lease.spec.holder_identity = "you"
    stolen = api.replace_namespaced_lease("leader", namespace, lease)
    assert stolen.spec.holder_identity == "you"
    code, _ = refused(api.replace_namespaced_lease, "leader", namespace, lease)
    assert code == 409
