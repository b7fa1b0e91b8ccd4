"""What conformance asks of a container's environment, seen in what the container prints."""

from __future__ import annotations

import base64
from typing import Any

from tests.conformance.containers import first, pods_of
from tests.conformance.door import Door
from tests.conformance.objects import container, is_running, pod
from tests.conformance.pods import phase
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-node] "
PRINTABLE = ("1.2.3.", "p_", "-", "$%&/()?", "with space")
"""Prefixes that names of variables may have: everything that can be printed but `=`."""


async def printed(door: Door, pods: str, *, script: str = "env", **more: Any) -> tuple[Json, list[str]]:
    """A pod that ended well, and the lines that its container printed."""
    body = pod("printer", restartPolicy="Never")
    body["spec"]["containers"] = [container("main", script, **more)]
    await door.create(pods, body)
    found = await door.eventually(f"{pods}/printer", phase("Succeeded"))
    answer = await door.ask("GET", f"{pods}/printer/log")
    return found, answer.body.decode().splitlines()


def of_field(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def of_resource(name: str, resource: str) -> Json:
    return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource}}}


# -- from ConfigMaps and Secrets


async def with_data(door: Door, namespace: str, kind: str, **data: str) -> str:
    """Path of the pods beside a ConfigMap or Secret named `source`."""
    pods = await pods_of(door, namespace)
    if kind == "secret":
        data = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    plural = "configmaps" if kind == "configMap" else "secrets"
    await door.create(pods.replace("/pods", f"/{plural}"), {"metadata": {"name": "source"}, "data": data})
    return pods


async def by_key(door: Door, kind: str) -> None:
    pods = await with_data(door, f"env-key-{kind.lower()}", kind, **{"data-1": "value-1"})
    source = {"valueFrom": {f"{kind}KeyRef": {"name": "source", "key": "data-1"}}}
    absent = {f"{kind}KeyRef": {"name": "nothing", "key": "data-1", "optional": True}}
    env = [{"name": "DATA_1", **source}, {"name": "ABSENT", "valueFrom": absent}]
    _, lines = await printed(door, pods, env=env)
    assert "DATA_1=value-1" in lines and not any(line.startswith("ABSENT") for line in lines)


async def by_source(door: Door, kind: str) -> None:
    pods = await with_data(door, f"env-from-{kind.lower()}", kind, data_1="value-1", data_2="value-2")
    reference = {f"{kind}Ref": {"name": "source"}}
    _, lines = await printed(door, pods, envFrom=[reference, {"prefix": "p_", **reference}])
    assert {"data_1=value-1", "data_2=value-2", "p_data_1=value-1", "p_data_2=value-2"} <= set(lines)


async def by_prefix(door: Door, kind: str) -> None:
    pods = await with_data(door, f"env-prefix-{kind.lower()}", kind, key="value")
    sources = [{"prefix": prefix, f"{kind}Ref": {"name": "source"}} for prefix in PRINTABLE]
    _, lines = await printed(door, pods, envFrom=sources)
    assert {f"{prefix}key=value" for prefix in PRINTABLE} <= set(lines)


@on_nodes(PREFIX + "ConfigMap should be consumable via environment variable [NodeConformance]")
async def config_map_key(door: Door) -> None:
    await by_key(door, "configMap")


@on_nodes(PREFIX + "ConfigMap should be consumable via the environment [NodeConformance]")
async def config_map_source(door: Door) -> None:
    await by_source(door, "configMap")


@on_nodes(PREFIX + "ConfigMap should be consumable as environment variable names with various prefixes")
async def config_map_prefix(door: Door) -> None:
    await by_prefix(door, "configMap")


@on_nodes(PREFIX + "Secrets should be consumable from pods in env vars [NodeConformance]")
async def secret_key(door: Door) -> None:
    await by_key(door, "secret")


@on_nodes(PREFIX + "Secrets should be consumable via the environment [NodeConformance]")
async def secret_source(door: Door) -> None:
    await by_source(door, "secret")


@on_nodes(
    PREFIX + "Secrets should be consumable as environment variable names variable names with various prefixes"
)
async def secret_prefix(door: Door) -> None:
    await by_prefix(door, "secret")


# -- from the pod


@on_nodes(
    PREFIX + "Downward API should provide pod name, namespace and IP address as env vars [NodeConformance]"
)
async def of_the_pod(door: Door) -> None:
    pods = await pods_of(door, "env-pod")
    env = [
        of_field("POD_NAME", "metadata.name"),
        of_field("POD_NAMESPACE", "metadata.namespace"),
        of_field("POD_IP", "status.podIP"),
    ]
    _, lines = await printed(door, pods, env=env)
    assert {"POD_NAME=printer", "POD_NAMESPACE=env-pod"} <= set(lines)
    assert any(line.startswith("POD_IP=10.") for line in lines)


@on_nodes(PREFIX + "Downward API should provide pod UID as env vars [NodeConformance]")
async def of_the_uid(door: Door) -> None:
    pods = await pods_of(door, "env-uid")
    found, lines = await printed(door, pods, env=[of_field("POD_UID", "metadata.uid")])
    assert f"POD_UID={found['metadata']['uid']}" in lines


@on_nodes(PREFIX + "Downward API should provide host IP as an env var [NodeConformance]")
async def of_the_host(door: Door) -> None:
    pods = await pods_of(door, "env-host")
    found, lines = await printed(door, pods, env=[of_field("HOST_IP", "status.hostIP")])
    assert f"HOST_IP={found['status']['hostIP']}" in lines


@on_nodes(PREFIX + "Downward API should provide hostIPs as an env var [NodeConformance]")
async def of_the_hosts(door: Door) -> None:
    pods = await pods_of(door, "env-hosts")
    found, lines = await printed(door, pods, env=[of_field("HOST_IPS", "status.hostIPs")])
    assert f"HOST_IPS={','.join(each['ip'] for each in found['status']['hostIPs'])}" in lines


AMOUNTS = [
    of_resource("CPU_LIMIT", "limits.cpu"),
    of_resource("MEMORY_LIMIT", "limits.memory"),
    of_resource("CPU_REQUEST", "requests.cpu"),
    of_resource("MEMORY_REQUEST", "requests.memory"),
]


@on_nodes(
    PREFIX
    + "Downward API should provide container's limits.cpu/memory and requests.cpu/memory as env vars [NodeConformance]"
)
async def of_amounts(door: Door) -> None:
    pods = await pods_of(door, "env-amounts")
    resources = {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}
    _, lines = await printed(door, pods, env=AMOUNTS, resources=resources)
    assert {"CPU_LIMIT=2", "MEMORY_LIMIT=67108864", "CPU_REQUEST=1", "MEMORY_REQUEST=33554432"} <= set(lines)


@on_nodes(
    PREFIX + "Downward API should provide default limits.cpu/memory from node allocatable [NodeConformance]"
)
async def of_the_node(door: Door) -> None:
    pods = await pods_of(door, "env-allocatable")
    _, lines = await printed(door, pods, env=AMOUNTS[:2])
    assert {"CPU_LIMIT=64", f"MEMORY_LIMIT={256 << 30}"} <= set(lines)


# -- from each other


@on_nodes(PREFIX + "Variable Expansion should allow composing env vars into new env vars [NodeConformance]")
async def composed(door: Door) -> None:
    pods = await pods_of(door, "expand-env")
    env = [
        {"name": "FOO", "value": "foo-value"},
        {"name": "BAR", "value": "bar-value"},
        {"name": "FOOBAR", "value": "$(FOO);;$(BAR);;$(NOBODY);;$$(FOO)"},
    ]
    _, lines = await printed(door, pods, env=env)
    assert {"FOO=foo-value", "FOOBAR=foo-value;;bar-value;;$(NOBODY);;$(FOO)"} <= set(lines)


@on_nodes(
    PREFIX + "Variable Expansion should allow substituting values in a container's command [NodeConformance]"
)
async def in_command(door: Door) -> None:
    pods = await pods_of(door, "expand-command")
    env = [{"name": "TEST_VAR", "value": "test-value"}]
    script = 'TEST_VAR=wrong echo "$(TEST_VAR)"'
    _, lines = await printed(door, pods, script="", env=env, command=["sh", "-c", script])
    assert lines == ["test-value"]


@on_nodes(
    PREFIX + "Variable Expansion should allow substituting values in a container's args [NodeConformance]"
)
async def in_args(door: Door) -> None:
    pods = await pods_of(door, "expand-args")
    env = [{"name": "TEST_VAR", "value": "test-value"}]
    args = ['TEST_VAR=wrong echo "$(TEST_VAR)"']
    found, lines = await printed(door, pods, script="", env=env, command=["sh", "-c"], args=args)
    assert lines == ["test-value"] and first(found)["state"]["terminated"]["exitCode"] == 0


# -- in the paths of mounts


async def mounted(door: Door, namespace: str, *env: Json) -> str:
    """The path of a pod whose container mounts what SUBPATH says of an empty volume; it has to wait."""
    pods = await pods_of(door, namespace)
    mount = {"name": "workdir", "mountPath": "/logscontainer", "subPathExpr": "$(SUBPATH)"}
    body = pod("mounted", volumes=[{"name": "workdir", "emptyDir": {}}])
    body["spec"]["containers"][0].update(volumeMounts=[mount], env=list(env))
    await door.create(pods, body)
    found = await door.eventually(
        f"{pods}/mounted",
        lambda each: (
            each["status"].get("containerStatuses")
            and "CreateContainerConfigError" in str(first(each)["state"].get("waiting"))
        ),
    )
    assert found["status"]["phase"] == "Pending"
    return f"{pods}/mounted"


async def never_runs(door: Door, path: str, message: str) -> None:
    found = await door.get(path)
    assert first(found)["state"]["waiting"]["message"] == message
    await door.always(path, lambda each: not is_running(each) and first(each)["restartCount"] == 0, 60)


@on_nodes(
    PREFIX + "Variable Expansion should fail substituting values in a volume subpath with absolute path"
)
async def absolute_path(door: Door) -> None:
    path = await mounted(door, "subpath-absolute", {"name": "SUBPATH", "value": "/tmp"})
    await never_runs(door, path, "error SubPath `/tmp` must not be an absolute path")


@on_nodes(PREFIX + "Variable Expansion should fail substituting values in a volume subpath with backticks")
async def back_steps(door: Door) -> None:
    path = await mounted(door, "subpath-back", {"name": "SUBPATH", "value": ".."})
    await never_runs(door, path, "unable to provision SubPath `..`: must not contain '..'")


@on_nodes(
    PREFIX
    + "Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container [Slow]"
)
async def corrected(door: Door) -> None:
    path = await mounted(door, "subpath-corrected", of_field("SUBPATH", "metadata.annotations['mysubpath']"))
    assert first(await door.get(path))["state"]["waiting"]["message"] == "missing value for SUBPATH"
    await door.patch(path, {"metadata": {"annotations": {"mysubpath": "mypath"}}})
    await door.eventually(path, is_running)
    await door.delete(path)
    await door.gone(path)


# -- of Services


@on_nodes("[sig-node] Pods should contain environment variables for services [NodeConformance]")
async def of_services(door: Door) -> None:
    pods = await pods_of(door, "env-services")
    spec = {"selector": {"name": "server"}, "ports": [{"port": 8765, "targetPort": 8080}]}
    services = pods.replace("/pods", "/services")
    made = await door.create(services, {"metadata": {"name": "fooservice"}, "spec": spec})
    ip = made["spec"]["clusterIP"]
    _, lines = await printed(door, pods)
    assert {
        f"FOOSERVICE_SERVICE_HOST={ip}",
        "FOOSERVICE_SERVICE_PORT=8765",
        f"FOOSERVICE_PORT=tcp://{ip}:8765",
        "FOOSERVICE_PORT_8765_TCP_PORT=8765",
        "FOOSERVICE_PORT_8765_TCP_PROTO=tcp",
        f"FOOSERVICE_PORT_8765_TCP=tcp://{ip}:8765",
        f"FOOSERVICE_PORT_8765_TCP_ADDR={ip}",
    } <= set(lines)
