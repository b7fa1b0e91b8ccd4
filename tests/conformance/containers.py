"""What conformance asks of containers that end, fail, are added, or say something."""

from __future__ import annotations

from typing import Any

from tests.conformance.door import STRATEGIC, Door
from tests.conformance.objects import condition, container, is_running, pod
from tests.conformance.pods import inits, phase
from tests.conformance.scoreboard import on_nodes

Json = dict[str, Any]
PREFIX = "[sig-node] "
MESSAGES = "Container Runtime blackbox test on terminated container should report termination message "


async def pods_of(door: Door, name: str) -> str:
    return await door.namespace(name) + "/pods"


def first(found: Json, field: str = "containerStatuses") -> Json:
    status: Json = found["status"][field][0]
    return status


# -- init containers that fail


@on_nodes(
    PREFIX
    + "InitContainer [NodeConformance] should not start app containers if init containers fail on a RestartAlways pod"
)
async def init_fails_for_now(door: Door) -> None:
    pods = await pods_of(door, "init-fails-always")
    watch = await door.watch(pods, await door.revision(pods))
    await door.create(pods, pod("init", initContainers=inits("false", "true")))
    restarts: list[int] = []
    while not restarts or restarts[-1] < 3:
        seen = (await watch.next())["object"]
        for status in seen["status"].get("initContainerStatuses") or ():
            if status["name"] == "init2":
                assert status["state"]["waiting"]["reason"] == "PodInitializing"
            else:
                restarts.append(status["restartCount"])
        for status in seen["status"].get("containerStatuses") or ():
            assert status["state"]["waiting"]["reason"] == "PodInitializing"
    assert restarts == sorted(restarts)
    found = await door.get(f"{pods}/init")
    assert found["status"]["phase"] == "Pending"
    initialized = condition(found, "Initialized")
    assert (initialized["status"], initialized["reason"]) == ("False", "ContainersNotInitialized")
    assert initialized["message"] == "containers with incomplete status: [init1 init2]"


@on_nodes(
    PREFIX
    + "InitContainer [NodeConformance] should not start app containers and fail the pod if init containers fail on a RestartNever pod"
)
async def init_fails_for_ever(door: Door) -> None:
    pods = await pods_of(door, "init-fails-never")
    body = pod("init", "true", restartPolicy="Never", initContainers=inits("true", "false"))
    await door.create(pods, body)
    found = await door.eventually(f"{pods}/init", phase("Failed"))
    done, failed = found["status"]["initContainerStatuses"]
    assert done["state"]["terminated"]["exitCode"] == 0 and failed["state"]["terminated"]["exitCode"] == 1
    assert first(found)["state"]["waiting"]["reason"] == "PodInitializing"
    initialized = condition(found, "Initialized")
    assert (initialized["status"], initialized["reason"]) == ("False", "ContainersNotInitialized")
    assert initialized["message"] == "containers with incomplete status: [init2]"


# -- how a container ends


@on_nodes(
    PREFIX
    + "Container Runtime blackbox test when starting a container that exits should run with the expected status [NodeConformance]"
)
async def exits(door: Door) -> None:
    pods = await pods_of(door, "container-exits")
    cases = (
        ("terminate-cmd-rpa", "Always", "sleep 100000", "2@0s*2", "Running", 2, True),
        ("terminate-cmd-rpof", "OnFailure", "exit 0", "1@0s*1", "Succeeded", 1, False),
        ("terminate-cmd-rpn", "Never", "exit 0", "1@0s*1", "Failed", 0, False),
    )
    for name, policy, script, exit_, wanted, restarts, ready in cases:
        body = pod(name, script, restartPolicy=policy, annotations={"sim.kcp/exit": exit_})
        await door.create(pods, body)

        def holds(found: Json, wanted: str = wanted, restarts: int = restarts) -> bool:
            at_last = phase(wanted)(found) and first(found)["restartCount"] == restarts
            return at_last and (wanted != "Running" or "running" in first(found)["state"])

        status = first(await door.eventually(f"{pods}/{name}", holds))
        assert status["ready"] is ready
        assert ("terminated" in status["state"]) is (wanted != "Running")
    for name, *_, restarts, _ in cases:
        assert first(await door.get(f"{pods}/{name}"))["restartCount"] == restarts


async def message_of(door: Door, namespace: str, script: str, wanted: str, **more: Any) -> str:
    """What a container that ended so leaves behind."""
    pods = await pods_of(door, namespace)
    body = pod("termination-message-container", restartPolicy="Never")
    body["spec"]["containers"] = [container("main", script, **more)]
    await door.create(pods, body)
    found = await door.eventually(f"{pods}/termination-message-container", phase(wanted))
    text: str = first(found)["state"]["terminated"].get("message", "")
    return text


FALLBACK = {"terminationMessagePolicy": "FallbackToLogsOnError"}


@on_nodes(
    PREFIX
    + MESSAGES
    + "if TerminationMessagePath is set as non-root user and at a non-default path [NodeConformance]"
)
async def own_path(door: Door) -> None:
    path = "/dev/termination-custom-log"
    more = {"terminationMessagePath": path, "securityContext": {"runAsUser": 10000}}
    assert await message_of(door, "message-path", f"echo -n DONE > {path}", "Succeeded", **more) == "DONE"


@on_nodes(
    PREFIX
    + MESSAGES
    + "from log output if TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance]"
)
async def from_log(door: Door) -> None:
    assert await message_of(door, "message-log", "echo -n DONE; false", "Failed", **FALLBACK) == "DONE"


@on_nodes(
    PREFIX
    + MESSAGES
    + "as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance]"
)
async def no_message(door: Door) -> None:
    assert await message_of(door, "message-none", "echo -n DONE; true", "Succeeded", **FALLBACK) == ""


@on_nodes(
    PREFIX
    + MESSAGES
    + "from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance]"
)
async def from_file(door: Door) -> None:
    script = "echo -n OK > /dev/termination-log; echo DONE; true"
    assert await message_of(door, "message-file", script, "Succeeded", **FALLBACK) == "OK"


@on_nodes(
    PREFIX
    + "Kubelet when scheduling a busybox command in a pod should print the output to logs [NodeConformance]"
)
async def logs(door: Door) -> None:
    pods = await pods_of(door, "container-logs")
    await door.create(pods, pod("busybox", "echo 'Hello World' ; sleep 240"))
    await door.eventually(f"{pods}/busybox", is_running)
    answer = await door.ask("GET", f"{pods}/busybox/log")
    assert (answer.status, answer.body) == (200, b"Hello World\n")


# -- ephemeral containers


async def added(door: Door, pods: str, name: str) -> Json:
    """Add an ephemeral container with a patch and wait until it runs."""
    new = {"name": name, "image": "registry.example/debug:1", "command": ["sh", "-c", "sleep 10000"]}
    patch = {"spec": {"ephemeralContainers": [{**new, "targetContainerName": "main", "stdin": True}]}}
    patched = await door.patch(f"{pods}/main/ephemeralcontainers", patch, STRATEGIC)
    assert name in [each["name"] for each in patched["spec"]["ephemeralContainers"]]

    def runs(found: Json) -> bool:
        statuses = found["status"].get("ephemeralContainerStatuses") or ()
        return any(each["name"] == name and "running" in each["state"] for each in statuses)

    found: Json = await door.eventually(f"{pods}/main", runs)
    return found


@on_nodes(
    PREFIX + "Ephemeral Containers [NodeConformance] will start an ephemeral container in an existing pod"
)
async def ephemeral(door: Door) -> None:
    pods = await pods_of(door, "ephemeral-start")
    await door.create(pods, pod("main"))
    await door.eventually(f"{pods}/main", is_running)
    found = await added(door, pods, "debugger")
    (only,) = found["spec"]["ephemeralContainers"]
    assert (only["name"], only["targetContainerName"]) == ("debugger", "main")
    assert first(found)["restartCount"] == 0 and is_running(found)


@on_nodes(
    PREFIX
    + "Ephemeral Containers [NodeConformance] should update the ephemeral containers in an existing pod"
)
async def more_ephemeral(door: Door) -> None:
    pods = await pods_of(door, "ephemeral-update")
    await door.create(pods, pod("main"))
    await door.eventually(f"{pods}/main", is_running)
    await added(door, pods, "debugger")
    read = await door.get(f"{pods}/main/ephemeralcontainers")
    assert len(read["spec"]["ephemeralContainers"]) == 1
    second = {"name": "debugger2", "image": "registry.example/debug:1", "command": ["sleep", "10000"]}
    read["spec"]["ephemeralContainers"].append(second)
    await door.update(f"{pods}/main/ephemeralcontainers", read)
    found = await door.get(f"{pods}/main/ephemeralcontainers")
    assert [each["name"] for each in found["spec"]["ephemeralContainers"]] == ["debugger", "debugger2"]
    await door.eventually(
        f"{pods}/main", lambda each: len(each["status"].get("ephemeralContainerStatuses") or ()) == 2
    )
    found = await door.get(f"{pods}/main")
    del found["spec"]["ephemeralContainers"][0]
    await door.refused(422, "PUT", f"{pods}/main/ephemeralcontainers", found)
