"""Files that a container finds in its volumes, and what happens when a volume cannot be set up."""

from __future__ import annotations

import base64
from typing import Any

import anyio
import pytest

from kcp.node.runtime.program import interpret
from kcp.node.volumes.files import hosts, resolv_conf
from tests.node.support import Nodes, simple_pod, state, with_nodes

Json = dict[str, Any]
FILES = {"/etc/app/key": ("value", 0o644), "/etc/app/deep/er": ("one\ntwo\n", 0o400)}


@pytest.mark.parametrize(
    ("script", "output", "exit_code"),
    [
        ("cat /etc/app/key; echo; cat /etc/app/deep/er", ("value", "one", "two"), 0),
        ("echo -n 'it is '; cat /etc/app/key", ("it is value",), 0),
        ("cat /etc/app/none", ("cat: can't open '/etc/app/none': No such file or directory",), 1),
        ("ls /etc/app", ("deep", "key"), 0),
        ("ls -l /etc/app/key", ("/etc/app/key",), 0),
        ("stat -L -c %a /etc/app/key /etc/app/deep/er", ("644", "400"), 0),
        ("[ -f /etc/app/key ] && echo there", ("there",), 0),
        ("[ ! -e /etc/app/none ] && [ -s /etc/app/key ]; echo $(( 1 + 1 ))", ("2",), 0),
        ("test -r /etc/app/none", (), 1),
        ("echo mine > /etc/app/key; cat /etc/app/key", ("mine",), 0),
        ("cat /etc/app/key > copy; echo on; cat copy", ("on", "value"), 0),
        ("echo -n a; echo b > f; cat f; timeout 5 cat /etc/app/key", ("ab", "value"), 0),
    ],
)
def test_commands_see_files(script: str, output: tuple[str, ...], exit_code: int) -> None:
    program = interpret(["sh", "-c", script], {}, FILES)
    assert (program.output, program.exit_code, program.known) == (output, exit_code, True)


def test_who_gets_no_files_reads_nothing_and_does_not_fail() -> None:
    program = interpret(["sh", "-c", "cat /etc/app/key; stat -c %a /etc/app/key; ls /etc"])
    assert (program.output, program.exit_code) == ((), 0)


def reading(script: str, source: Json, **mount: Any) -> Json:
    body = simple_pod()
    body["spec"]["volumes"] = [{"name": "v", **source}]
    mounts = [{"name": "v", "mountPath": "/etc/app", **mount}]
    body["spec"]["containers"][0].update(command=["sh", "-c", script], volumeMounts=mounts)
    return body


def test_a_container_waits_for_its_volume() -> None:
    async def check(nodes: Nodes) -> None:
        source = {"configMap": {"name": "late", "items": [{"key": "a", "path": "b"}]}}
        pod = await nodes.run(reading("cat /etc/app/b; sleep 100", source))
        name = pod["metadata"]["name"]
        assert state(pod)["state"]["waiting"] == {"reason": "ContainerCreating"}
        text = 'MountVolume.SetUp failed for volume "v" : configmap "late" not found'
        assert ("Warning", "FailedMount", text) in await nodes.events(name)
        late = {"metadata": {"name": "late"}, "data": {"c": "1"}}
        await nodes.client.create("configmaps", late, "default")
        await anyio.sleep(15)
        text = 'MountVolume.SetUp failed for volume "v" : configmap references non-existent config key: a'
        assert ("Warning", "FailedMount", text) in await nodes.events(name)
        await nodes.client.patch("configmaps", "late", {"data": {"a": "1"}}, "merge", "default")
        await anyio.sleep(15)
        assert "running" in state(await nodes.client.get("pods", name, "default"))["state"]

    with_nodes(check)


def test_what_is_optional_may_be_missing_else_who_does_not_look_waits_as_well() -> None:
    async def check(nodes: Nodes) -> None:
        optional = {"secret": {"secretName": "none", "optional": True}}
        pod = await nodes.run(reading("ls /etc/app; sleep 100", optional))
        assert "running" in state(pod)["state"]
        careless = reading("sleep 100", {"secret": {"secretName": "none"}})
        careless["metadata"]["name"] = "careless"
        pod = await nodes.run(careless)
        assert state(pod)["state"]["waiting"] == {"reason": "ContainerCreating"}
        text = 'MountVolume.SetUp failed for volume "v" : secret "none" not found'
        assert ("Warning", "FailedMount", text) in await nodes.events("careless")

    with_nodes(check)


def test_a_part_of_a_volume_is_mounted() -> None:
    async def check(nodes: Nodes) -> None:
        data = {"x": base64.b64encode(b"X").decode(), "y": base64.b64encode(b"Y").decode()}
        await nodes.client.create("secrets", {"metadata": {"name": "s"}, "data": data}, "default")
        items = [{"key": "x", "path": "dir/x"}, {"key": "y", "path": "y"}]
        source = {"secret": {"secretName": "s", "items": items}}
        script = "ls /etc/app; [ -f /etc/app/x ] || exit 3; [ -f /etc/app/y ] && exit 4; sleep 100"
        pod = await nodes.run(reading(script, source, subPath="dir"))
        assert "running" in state(pod)["state"]

    with_nodes(check)


def test_containers_leave_each_other_files_in_empty_volumes() -> None:
    async def check(nodes: Nodes) -> None:
        body = reading("cat /etc/app/sub/hello && exit 7", {"emptyDir": {}})
        writes = "mkdir /out/deep; echo hello > /out/hello; echo -n not here > /tmp/x; exit 0"
        mounts = [{"name": "v", "mountPath": "/out", "subPath": "sub"}]
        body["spec"]["initContainers"] = [
            {"name": "i", "image": "i", "command": ["sh", "-c", writes], "volumeMounts": mounts}
        ]
        body["spec"]["restartPolicy"] = "Never"
        pod = await nodes.run(body)
        assert state(pod)["state"]["terminated"]["exitCode"] == 7

    with_nodes(check)


def test_the_hosts_file_of_both_families_and_without_a_subdomain() -> None:
    pod: Json = {"metadata": {"name": "p", "namespace": "ns"}, "spec": {}}
    lines = hosts(pod, ("10.0.0.1", "fd00::1")).splitlines()
    assert lines[0] == "# Kubernetes-managed hosts file."
    assert lines[-2:] == ["10.0.0.1\tp", "fd00::1\tp"]


def test_the_resolv_conf_of_a_dns_configuration() -> None:
    options = [{"name": "ndots", "value": "2"}, {"name": "edns0"}]
    config = {"nameservers": ["1.1.1.1", "8.8.8.8"], "searches": ["a.local", "b.local"], "options": options}
    lines = ["search a.local b.local", "nameserver 1.1.1.1", "nameserver 8.8.8.8", "options ndots:2 edns0"]
    assert resolv_conf(config).splitlines() == lines
    assert resolv_conf({}) == ""
