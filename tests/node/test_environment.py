"""Variables of containers: where they come from, what they expand to, and what happens when a source is missing."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.base.loop import run_deterministic
from kcp.machinery.errors import NotFound
from kcp.node.environment import ConfigError, Place, check_mounts, environment, expand
from tests.node.support import Nodes, simple_pod, state, with_nodes

Json = dict[str, Any]
PLACE = Place("10.0.0.1", ("10.1.2.3", "fd00::3"), {"cpu": "4", "memory": "8Gi"})
OBJECTS: dict[tuple[str, str], Json] = {
    ("configmaps", "cm"): {"data": {"a": "1", "b": "two"}},
    ("secrets", "s"): {"data": {"token": "c2VjcmV0"}},
}
POD: Json = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app.kubernetes.io/x": "y"}},
    "spec": {"nodeName": "n", "containers": []},
}


async def fetch(resource: str, name: str) -> Json:
    if (resource, name) not in OBJECTS:
        raise NotFound.of("", resource, name)
    return OBJECTS[resource, name]


def variables(**container: Any) -> dict[str, str]:
    async def run() -> dict[str, str]:
        return await environment(POD, {"name": "c", **container}, PLACE, fetch)

    return run_deterministic(run)


def ref(name: str, **source: Any) -> Json:
    return {"name": name, "valueFrom": source}


def test_later_sources_win_and_prefixes_are_put_before() -> None:
    found = variables(
        envFrom=[{"configMapRef": {"name": "cm"}}, {"prefix": "S_", "secretRef": {"name": "s"}}],
        env=[{"name": "a", "value": "own"}, ref("c", configMapKeyRef={"name": "cm", "key": "b"})],
    )
    assert found == {"a": "own", "b": "two", "S_token": "secret", "c": "two"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.labels['app.kubernetes.io/x']", "y"),
        ("metadata.annotations['none']", ""),
        ("spec.nodeName", "n"),
        ("status.hostIP", "10.0.0.1"),
        ("status.podIP", "10.1.2.3"),
        ("status.podIPs", "10.1.2.3,fd00::3"),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert variables(env=[ref("x", fieldRef={"fieldPath": path})]) == {"x": value}


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("requests.cpu", None, "1"),
        ("requests.cpu", "1m", "250"),
        ("limits.memory", "1Mi", "65"),
        ("limits.memory", None, "67108865"),
        ("limits.cpu", None, "4"),
        ("requests.memory", None, "0"),
    ],
)
def test_amounts_are_rounded_up_to_divisors(resource: str, divisor: str | None, value: str) -> None:
    source = {"resource": resource, **({"divisor": divisor} if divisor else {})}
    resources = {"requests": {"cpu": "250m"}, "limits": {"memory": "67108865"}}
    assert variables(env=[ref("x", resourceFieldRef=source)], resources=resources) == {"x": value}


@pytest.mark.parametrize(
    ("container", "text"),
    [
        ({"envFrom": [{"configMapRef": {"name": "no"}}]}, 'configmap "no" not found'),
        ({"env": [ref("x", secretKeyRef={"name": "no", "key": "k"})]}, 'secret "no" not found'),
        (
            {"env": [ref("x", configMapKeyRef={"name": "cm", "key": "k"})]},
            "couldn't find key k in ConfigMap ns/cm",
        ),
        ({"env": [ref("x", secretKeyRef={"name": "s", "key": "k"})]}, "couldn't find key k in Secret ns/s"),
    ],
)
def test_what_is_missing_is_said_in_the_kubelets_words(container: Json, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        variables(**container)
    assert str(raised.value) == text


def test_what_is_optional_may_be_missing() -> None:
    sources = (
        ref("x", secretKeyRef={"name": "no", "key": "k", "optional": True}),
        ref("y", configMapKeyRef={"name": "cm", "key": "no", "optional": True}),
    )
    envs = {"envFrom": [{"configMapRef": {"name": "no", "optional": True}}], "env": list(sources)}
    assert variables(**envs) == {}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $(A", "$A ${A} $(A"),
        ("100$", "100$"),
    ],
)
def test_references(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        ({"subPathExpr": "$(A)/x"}, ""),
        ({"subPathExpr": "$$(B)"}, ""),
        ({"subPath": "a..b"}, ""),
        ({"subPathExpr": "$(C)/$(B)"}, "missing value for B, C"),
        ({"subPathExpr": "/$(A)"}, "error SubPath `/1` must not be an absolute path"),
        ({"subPathExpr": "$(A)/../x"}, "unable to provision SubPath `1/../x`: must not contain '..'"),
    ],
)
def test_paths_of_mounts_stay_in_their_volume(mount: Json, text: str) -> None:
    container = {"volumeMounts": [{"name": "v", "mountPath": "/v", **mount}]}
    if not text:
        check_mounts(container, {"A": "1"})
        return
    with pytest.raises(ConfigError) as raised:
        check_mounts(container, {"A": "1"})
    assert str(raised.value) == text


@given(st.text(st.characters(exclude_characters="$")))
def test_text_without_references_stays(text: str) -> None:
    assert expand(text, {"A": "1"}) == text


def test_a_container_waits_for_its_config_map() -> None:
    async def check(nodes: Nodes) -> None:
        source = {"envFrom": [{"configMapRef": {"name": "late"}}], "command": ["sh", "-c", "env; sleep 100"]}
        body = simple_pod()
        body["spec"]["containers"][0].update(source)
        pod = await nodes.run(body)
        waiting = state(pod)["state"]["waiting"]
        assert waiting == {"reason": "CreateContainerConfigError", "message": 'configmap "late" not found'}
        late = {"metadata": {"name": "late"}, "data": {"A": "1"}}
        await nodes.client.create("configmaps", late, "default")
        await anyio.sleep(15)
        found = await nodes.client.get("pods", pod["metadata"]["name"], "default")
        assert "running" in state(found)["state"]
        events = await nodes.events(pod["metadata"]["name"])
        assert ("Warning", "Failed", 'Error: configmap "late" not found') in events

    with_nodes(check)
