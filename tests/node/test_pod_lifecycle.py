"""What happens to pods on a node, seen through the API."""

from __future__ import annotations

import anyio
import pytest

from tests.node.support import Json, Nodes, condition, main, simple_pod, state, with_nodes


def reasons(events: list[tuple[str, str, str]]) -> list[str]:
    return sorted({reason for _, reason, _ in events})


def test_a_plain_pod_runs_after_one_status_write() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod())
        created = int(nodes.cluster.server.store.rv)
        status = pod["status"]
        assert status["phase"] == "Running"
        assert status["podIP"] == status["podIPs"][0]["ip"] != status["hostIP"]
        assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
            ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
        )
        assert state(pod)["containerID"].startswith("sim://")
        assert (state(pod)["ready"], state(pod)["started"], state(pod)["restartCount"]) == (True, True, 0)
        managers = [entry["manager"] for entry in pod["metadata"]["managedFields"]]
        assert managers == ["kcp", "kubelet"]
        await anyio.sleep(30)
        assert (await nodes.pod("web"))["metadata"]["resourceVersion"] == pod["metadata"]["resourceVersion"]
        assert created >= int(pod["metadata"]["resourceVersion"])

    with_nodes(check)


def test_events_tell_what_a_kubelet_tells() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod("first"))
        await nodes.run(simple_pod("second"))
        first, second = await nodes.events("first"), await nodes.events("second")
        image = '"registry.example/app:1"'
        assert ("Normal", "Pulling", f"Pulling image {image}") in first
        assert any(
            message.startswith(f"Successfully pulled image {image} in 0s (0s incl") for _, _, message in first
        )
        assert sorted(second) == [
            ("Normal", "Created", "Container created"),
            (
                "Normal",
                "Pulled",
                f"Container image {image} already present on machine and can be accessed by the pod",
            ),
            ("Normal", "Started", "Container started"),
        ]
        found = (await nodes.client.list("events")).items
        event = next(e for e in found if e["involvedObject"]["name"] == "second")
        assert event["source"] == {"component": "kubelet", "host": "node-1"}
        assert event["involvedObject"]["fieldPath"] == "spec.containers{main}"

    with_nodes(check)


def test_deletion_kills_tells_and_removes() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod())
        await nodes.client.delete("pods", "web", "default")
        await anyio.sleep(0.5)
        assert await nodes.pods() == []
        assert ("Normal", "Killing", "Stopping container main") in await nodes.events("web")
        assert nodes.fleet.agents["node-1"].workers == {}
        assert nodes.fleet.agents["node-1"].room.pods == 0

    with_nodes(check)


@pytest.mark.parametrize(("stop", "gone_after_s"), [("5s", 5), ("never", 20)])
def test_a_container_may_use_its_grace_period(stop: str, gone_after_s: int) -> None:
    async def check(nodes: Nodes) -> None:
        pod = simple_pod(annotations={"sim.kcp/stop.main": stop}, terminationGracePeriodSeconds=20)
        await nodes.run(pod)
        await nodes.client.delete("pods", "web", "default")
        await anyio.sleep(gone_after_s - 0.5)
        assert (await nodes.pod("web"))["status"]["phase"] == "Running"
        await anyio.sleep(1)
        assert await nodes.pods() == []

    with_nodes(check)


def test_a_shorter_grace_period_takes_effect() -> None:
    async def check(nodes: Nodes) -> None:
        pod = simple_pod(annotations={"sim.kcp/stop.main": "never"}, terminationGracePeriodSeconds=600)
        await nodes.run(pod)
        await nodes.client.delete("pods", "web", "default")
        await anyio.sleep(1)
        await nodes.client.delete("pods", "web", "default", grace_s=3)
        await anyio.sleep(1)
        assert await nodes.pods() == ["web"]
        await anyio.sleep(3)
        assert await nodes.pods() == []

    with_nodes(check)


def test_a_finalizer_keeps_the_object_with_its_last_status() -> None:
    async def check(nodes: Nodes) -> None:
        pod = simple_pod(containers=[main("sleep 1000")], restartPolicy="Never")
        pod["metadata"]["finalizers"] = ["example.com/hold"]
        await nodes.run(pod)
        await nodes.client.delete("pods", "web", "default")
        await anyio.sleep(1)
        left = await nodes.pod("web")
        assert left["status"]["phase"] == "Failed"
        assert state(left)["state"]["terminated"]["exitCode"] == 143
        assert left["metadata"]["deletionGracePeriodSeconds"] == 0

    with_nodes(check)


def test_forced_deletion_frees_the_node() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod(annotations={"sim.kcp/stop.main": "never"}))
        await nodes.client.delete("pods", "web", "default", grace_s=0)
        await anyio.sleep(0.5)
        agent = nodes.fleet.agents["node-1"]
        assert (agent.workers, agent.room.pods, await agent.runtime.pod_uids()) == ({}, 0, [])

    with_nodes(check)


@pytest.mark.parametrize(
    ("policy", "command", "phase", "restarts"),
    [
        ("Never", "exit 0", "Succeeded", 0),
        ("Never", "exit 3", "Failed", 0),
        ("OnFailure", "true", "Succeeded", 0),
        ("OnFailure", "exit 3", "Running", 1),
        ("Always", "true", "Running", 1),
    ],
)
def test_restart_policies(policy: str, command: str, phase: str, restarts: int) -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod(containers=[main(command)], restartPolicy=policy))
        assert (pod["status"]["phase"], state(pod)["restartCount"]) == (phase, restarts)
        if phase in ("Succeeded", "Failed"):
            over = state(pod)["state"]["terminated"]
            assert over["reason"] == ("Completed" if phase == "Succeeded" else "Error")
            reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
            assert condition(pod, "Ready")["reason"] == reason
            assert condition(pod, "PodReadyToStartContainers")["status"] == "False"

    with_nodes(check)


def test_a_job_like_pod_succeeds_when_its_command_ends() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(
            simple_pod(containers=[main("echo hi; sleep 30; exit 0")], restartPolicy="Never")
        )
        assert pod["status"]["phase"] == "Running"
        await anyio.sleep(30)
        assert (await nodes.pod("web"))["status"]["phase"] == "Succeeded"

    with_nodes(check)


def test_a_crash_loop_backs_off_ten_seconds_doubling() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod(containers=[main("exit 1")]))
        where = f"web_default({pod['metadata']['uid']})"
        assert state(pod)["state"]["waiting"] == {
            "reason": "CrashLoopBackOff",
            "message": f"back-off 10s restarting failed container=main pod={where}",
        }
        assert state(pod)["lastState"]["terminated"]["exitCode"] == 1
        assert condition(pod, "Ready")["message"] == "containers with unready status: [main]"
        counts = []
        for _ in range(4):
            counts.append(state(await nodes.pod("web"))["restartCount"])
            await anyio.sleep(10)
        assert counts == [1, 2, 2, 3]
        text = f"Back-off restarting failed container main in pod {where}"
        assert ("Warning", "BackOff", text) in await nodes.events("web")

    with_nodes(check)


def test_init_containers_run_one_after_the_other() -> None:
    async def check(nodes: Nodes) -> None:
        inits = [main("sleep 5", "one"), main("sleep 5", "two")]
        pod = await nodes.run(simple_pod(initContainers=inits))
        assert pod["status"]["phase"] == "Pending"
        assert "running" in state(pod, "one")["state"]
        assert state(pod, "two")["state"] == {"waiting": {"reason": "PodInitializing"}}
        assert condition(pod, "Initialized") | {"reason": "", "message": ""} == condition(
            pod, "Initialized"
        ) | {
            "reason": "",
            "message": "",
        }
        assert condition(pod, "Initialized")["message"] == "containers with incomplete status: [one two]"
        await anyio.sleep(5)
        pod = await nodes.pod("web")
        assert condition(pod, "Initialized")["message"] == "containers with incomplete status: [two]"
        assert state(pod, "one")["ready"] is True
        await anyio.sleep(5)
        pod = await nodes.pod("web")
        assert pod["status"]["phase"] == "Running"
        assert condition(pod, "Initialized")["status"] == "True"

    with_nodes(check)


@pytest.mark.parametrize(("policy", "phase"), [("Never", "Failed"), ("Always", "Pending")])
def test_a_failing_init_container(policy: str, phase: str) -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod(initContainers=[main("exit 1", "init")], restartPolicy=policy))
        assert pod["status"]["phase"] == phase
        assert "containerID" not in state(pod)
        assert condition(pod, "Initialized")["status"] == "False"

    with_nodes(check)


def test_a_sidecar_starts_first_and_ends_last() -> None:
    async def check(nodes: Nodes) -> None:
        sidecar = main("", "proxy", restartPolicy="Always")
        pod = simple_pod(initContainers=[sidecar], containers=[main("sleep 20")], restartPolicy="Never")
        pod = await nodes.run(pod)
        assert pod["status"]["phase"] == "Running"
        assert (state(pod, "proxy")["started"], state(pod, "proxy")["ready"]) == (True, True)
        await anyio.sleep(20)
        pod = await nodes.pod("web")
        assert pod["status"]["phase"] == "Succeeded"
        assert "terminated" in state(pod, "proxy")["state"]

    with_nodes(check)


def test_a_sidecar_restarts_while_the_pod_runs() -> None:
    async def check(nodes: Nodes) -> None:
        sidecar = main("sleep 5; exit 1", "proxy", restartPolicy="Always")
        pod = await nodes.run(simple_pod(initContainers=[sidecar], restartPolicy="Never"), settle_s=8)
        assert pod["status"]["phase"] == "Running"
        assert state(pod, "proxy")["restartCount"] == 1
        assert condition(pod, "Initialized")["status"] == "True"

    with_nodes(check)


def test_a_startup_probe_of_a_sidecar_holds_the_others_back() -> None:
    async def check(nodes: Nodes) -> None:
        probe = {"httpGet": {"port": 80}, "initialDelaySeconds": 10}
        sidecar = main("", "proxy", restartPolicy="Always", startupProbe=probe)
        pod = await nodes.run(simple_pod(initContainers=[sidecar]))
        assert pod["status"]["phase"] == "Pending"
        assert state(pod)["state"] == {"waiting": {"reason": "PodInitializing"}}
        await anyio.sleep(10)
        assert (await nodes.pod("web"))["status"]["phase"] == "Running"

    with_nodes(check)


def test_readiness_comes_after_the_initial_delay() -> None:
    async def check(nodes: Nodes) -> None:
        probe = {"httpGet": {"port": 80}, "initialDelaySeconds": 10}
        pod = await nodes.run(simple_pod(containers=[main(readinessProbe=probe)]))
        assert (pod["status"]["phase"], condition(pod, "Ready")["status"]) == ("Running", "False")
        assert condition(pod, "ContainersReady")["reason"] == "ContainersNotReady"
        await anyio.sleep(10)
        assert condition(await nodes.pod("web"), "Ready")["status"] == "True"

    with_nodes(check)


def test_readiness_follows_its_probe() -> None:
    async def check(nodes: Nodes) -> None:
        probe = {"httpGet": {"port": 80}, "periodSeconds": 2, "failureThreshold": 2}
        notes = {"sim.kcp/readiness.main": "pass,fail@20s,pass@40s"}
        pod = await nodes.run(simple_pod(annotations=notes, containers=[main(readinessProbe=probe)]))
        seen = [condition(pod, "Ready")["status"]]
        for _ in range(2):
            await anyio.sleep(24)
            pod = await nodes.pod("web")
            seen.append(condition(pod, "Ready")["status"])
        assert seen == ["True", "False", "True"]
        assert state(pod)["restartCount"] == 0
        text = "Readiness probe failed: HTTP probe failed with statuscode: 500"
        assert ("Warning", "Unhealthy", text) in await nodes.events("web")

    with_nodes(check)


def test_a_failed_liveness_probe_restarts_the_container() -> None:
    async def check(nodes: Nodes) -> None:
        probe = {"exec": {"command": ["cat", "/healthy"]}, "periodSeconds": 5, "failureThreshold": 2}
        notes = {"sim.kcp/liveness.main": "pass,fail@20s"}
        await nodes.run(simple_pod(annotations=notes, containers=[main(livenessProbe=probe)]), settle_s=28)
        pod = await nodes.pod("web")
        assert (pod["status"]["phase"], state(pod)["restartCount"]) == ("Running", 1)
        text = "Container main failed liveness probe, will be restarted"
        assert ("Normal", "Killing", text) in await nodes.events("web")

    with_nodes(check)


def test_an_exec_probe_that_exits_with_an_error_fails() -> None:
    async def check(nodes: Nodes) -> None:
        probe = {"exec": {"command": ["/bin/false"]}, "periodSeconds": 1}
        pod = await nodes.run(simple_pod(containers=[main(readinessProbe=probe)]), settle_s=10)
        assert condition(pod, "Ready")["status"] == "False"

    with_nodes(check)


def test_a_deadline_fails_the_pod() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod(activeDeadlineSeconds=10))
        assert pod["status"]["phase"] == "Running"
        await anyio.sleep(10)
        status = (await nodes.pod("web"))["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
        assert status["message"] == "Pod was active on the node longer than the specified deadline"

    with_nodes(check)


def test_readiness_gates() -> None:
    async def check(nodes: Nodes) -> None:
        gate = "example.com/lb"
        pod = await nodes.run(simple_pod(readinessGates=[{"conditionType": gate}]))
        text = f'corresponding condition of pod readiness gate "{gate}" does not exist.'
        assert (condition(pod, "Ready")["reason"], condition(pod, "Ready")["message"]) == (
            "ReadinessGatesNotReady",
            text,
        )
        assert condition(pod, "ContainersReady")["status"] == "True"
        for value, ready in (("False", "False"), ("True", "True"), ("False", "False")):
            patch = {"status": {"conditions": [{"type": gate, "status": value}]}}
            await nodes.client.patch("pods", "web", patch, "strategic", "default", subresource="status")
            await anyio.sleep(0.5)
            pod = await nodes.pod("web")
            assert condition(pod, "Ready")["status"] == ready
            assert condition(pod, gate)["status"] == value
        assert (
            condition(pod, "Ready")["message"]
            == f'the status of pod readiness gate "{gate}" is not "True", but False'
        )

    with_nodes(check)


def test_an_image_that_cannot_be_pulled() -> None:
    async def check(nodes: Nodes) -> None:
        image = "invalid.registry/app:1"
        pod = await nodes.run(simple_pod(containers=[{"name": "main", "image": image}]))
        waiting = state(pod)["state"]["waiting"]
        assert (pod["status"]["phase"], waiting["reason"]) == ("Pending", "ErrImagePull")
        await anyio.sleep(3)
        waiting = state(await nodes.pod("web"))["state"]["waiting"]
        assert waiting["reason"] == "ImagePullBackOff"
        assert waiting["message"].startswith(
            f'Back-off pulling image "{image}": ErrImagePull: failed to pull and unpack'
        )
        events = await nodes.events("web")
        assert ("Warning", "Failed", "Error: ErrImagePull") in events
        assert ("Normal", "BackOff", f'Back-off pulling image "{image}"') in events
        assert ("Warning", "Failed", "Error: ImagePullBackOff") in events

    with_nodes(check)


def test_a_busy_neighbour_does_not_hurry_a_container_in_back_off() -> None:
    async def check(nodes: Nodes) -> None:
        probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1}
        containers = [
            main(name="fine", readinessProbe=probe),
            {"name": "main", "image": "invalid.test/none:1"},
        ]
        notes = {"sim.kcp/readiness.fine": "fail"}
        pod = await nodes.run(simple_pod(annotations=notes, containers=containers), settle_s=9)
        assert state(pod)["state"]["waiting"]["reason"] == "ImagePullBackOff"
        found = (await nodes.client.list("events")).items
        assert [e["count"] for e in found if e["reason"] == "BackOff"] == [1]

    with_nodes(check)


def test_a_corrected_image_is_tried_at_once() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod(containers=[{"name": "main", "image": "invalid.test/none:1"}]), settle_s=5)
        patch = {"spec": {"containers": [{"name": "main", "image": "registry.example/app:1"}]}}
        await nodes.client.patch("pods", "web", patch, "strategic", "default")
        await anyio.sleep(1)
        assert (await nodes.pod("web"))["status"]["phase"] == "Running"

    with_nodes(check)


def test_a_pull_that_fails_twice_succeeds_the_third_time() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod(annotations={"sim.kcp/pull.main": "fail*2"}), settle_s=9)
        assert pod["status"]["phase"] == "Pending"
        await anyio.sleep(30)
        assert (await nodes.pod("web"))["status"]["phase"] == "Running"

    with_nodes(check)


def test_an_image_that_must_be_there_and_is_not() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod(containers=[main(imagePullPolicy="Never")]))
        text = 'Container image "registry.example/app:1" is not present with pull policy of Never'
        assert state(pod)["state"]["waiting"] == {"reason": "ErrImageNeverPull", "message": text}

    with_nodes(check)


def test_a_host_port_conflict_fails_the_later_pod() -> None:
    async def check(nodes: Nodes) -> None:
        ports = [{"containerPort": 80, "hostPort": 8080}]
        await nodes.run(simple_pod("first", containers=[main(ports=ports)]))
        status = (await nodes.run(simple_pod("second", containers=[main(ports=ports)])))["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "NodePorts")
        text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
        assert status["message"] == f"Pod was rejected: {text}"
        assert ("Warning", "NodePorts", text) in await nodes.events("second")

    with_nodes(check)


def test_a_pod_too_large_for_the_node_is_refused() -> None:
    async def check(nodes: Nodes) -> None:
        big = main(resources={"requests": {"cpu": "3"}})
        await nodes.run(simple_pod("first", containers=[big]))
        status = (await nodes.run(simple_pod("second", containers=[big])))["status"]
        text = "Pod was rejected: Node didn't have enough resource: cpu, requested: 3000, used: 3000, capacity: 4000"
        assert (status["reason"], status["message"]) == ("OutOfcpu", text)
        await nodes.client.delete("pods", "first", "default")
        await anyio.sleep(1)
        assert (await nodes.run(simple_pod("third", containers=[big])))["status"]["phase"] == "Running"

    with_nodes(check)


def test_resizing_in_place_keeps_the_container() -> None:
    async def check(nodes: Nodes) -> None:
        before = await nodes.run(simple_pod(containers=[main(resources={"requests": {"cpu": "1"}})]))
        await resize(nodes, {"requests": {"cpu": "2"}})
        pod = await nodes.pod("web")
        assert state(pod)["resources"] == {"requests": {"cpu": "2"}}
        assert state(pod)["allocatedResources"] == {"cpu": "2"}
        assert state(pod)["containerID"] == state(before)["containerID"]
        events = await nodes.events("web")
        text = 'Pod resize completed: {"containers":[{"name":"main","resources":{"requests":{"cpu":"2"}}}],"generation":2}'
        assert ("Normal", "ResizeCompleted", text) in events

    with_nodes(check)


async def resize(nodes: Nodes, resources: Json) -> None:
    patch = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    await nodes.client.patch("pods", "web", patch, "strategic", "default", subresource="resize")
    await anyio.sleep(1)


@pytest.mark.parametrize(
    ("cpu", "reason", "text"),
    [
        ("9", "Infeasible", "Node didn't have enough capacity: cpu, requested: 9000, capacity: 4000"),
        (
            "3",
            "Deferred",
            "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000",
        ),
    ],
)
def test_a_resize_without_room_is_pending(cpu: str, reason: str, text: str) -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod("other", containers=[main(resources={"requests": {"cpu": "2"}})]))
        await nodes.run(simple_pod(containers=[main(resources={"requests": {"cpu": "1"}})]))
        await resize(nodes, {"requests": {"cpu": cpu}})
        pod = await nodes.pod("web")
        pending = condition(pod, "PodResizePending")
        assert (pending["reason"], pending["message"]) == (reason, text)
        assert state(pod)["resources"] == {"requests": {"cpu": "1"}}
        await nodes.client.delete("pods", "other", "default")
        await anyio.sleep(1)
        pod = await nodes.pod("web")
        types = {entry["type"] for entry in pod["status"]["conditions"]}
        assert ("PodResizePending" in types) == (reason == "Infeasible")

    with_nodes(check)


def test_a_resize_policy_may_ask_for_a_restart() -> None:
    async def check(nodes: Nodes) -> None:
        policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
        container = main(resources={"requests": {"memory": "1Gi"}}, resizePolicy=policy)
        await nodes.run(simple_pod(containers=[container]))
        await resize(nodes, {"requests": {"memory": "2Gi"}})
        pod = await nodes.pod("web")
        assert state(pod)["restartCount"] == 1
        assert state(pod)["resources"] == {"requests": {"memory": "2Gi"}}
        assert ("Normal", "Killing", "Container main resize requires restart") in await nodes.events("web")

    with_nodes(check)


def test_an_ephemeral_container_joins_a_running_pod() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod())
        debugger = {"name": "debug", "image": "busybox:1", "command": ["sh", "-c", "sleep 5; exit 2"]}
        patch = {"spec": {"ephemeralContainers": [debugger]}}
        await nodes.client.patch(
            "pods", "web", patch, "strategic", "default", subresource="ephemeralcontainers"
        )
        await anyio.sleep(1)
        assert "running" in state(await nodes.pod("web"), "debug")["state"]
        await anyio.sleep(5)
        pod = await nodes.pod("web")
        assert state(pod, "debug")["state"]["terminated"]["exitCode"] == 2
        assert (pod["status"]["phase"], condition(pod, "Ready")["status"]) == ("Running", "True")

    with_nodes(check)


def test_a_new_image_restarts_the_container() -> None:
    async def check(nodes: Nodes) -> None:
        await nodes.run(simple_pod())
        patch = {"spec": {"containers": [{"name": "main", "image": "registry.example/app:2"}]}}
        await nodes.client.patch("pods", "web", patch, "strategic", "default")
        await anyio.sleep(1)
        pod = await nodes.pod("web")
        assert (state(pod)["image"], state(pod)["restartCount"]) == ("registry.example/app:2", 1)
        text = "Container main definition changed, will be restarted"
        assert ("Normal", "Killing", text) in await nodes.events("web")

    with_nodes(check)


def test_a_pre_stop_hook_runs_inside_the_grace_period() -> None:
    async def check(nodes: Nodes) -> None:
        hook = {"preStop": {"sleep": {"seconds": 8}}}
        await nodes.run(simple_pod(containers=[main(lifecycle=hook)]))
        await nodes.client.delete("pods", "web", "default")
        await anyio.sleep(7.5)
        assert await nodes.pods() == ["web"]
        await anyio.sleep(1)
        assert await nodes.pods() == []

    with_nodes(check)


def test_a_failing_post_start_hook_kills_the_container() -> None:
    async def check(nodes: Nodes) -> None:
        hook = {"postStart": {"exec": {"command": ["false"]}}}
        pod = await nodes.run(simple_pod(containers=[main(lifecycle=hook)]))
        assert "running" not in state(pod)["state"]
        assert ("Warning", "FailedPostStartHook", "PostStartHook failed") in await nodes.events("web")

    with_nodes(check)


def test_container_rules_restart_on_chosen_exit_codes() -> None:
    async def check(nodes: Nodes) -> None:
        rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
        container = main("exit 42", restartPolicy="Never", restartPolicyRules=[rule])
        pod = await nodes.run(simple_pod(containers=[container], restartPolicy="Never"))
        assert (pod["status"]["phase"], state(pod)["restartCount"]) == ("Running", 1)

    with_nodes(check)


def test_a_rule_may_restart_all_containers() -> None:
    async def check(nodes: Nodes) -> None:
        rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}
        watcher = main("sleep 5; exit 88", "watcher", restartPolicy="Never", restartPolicyRules=[rule])
        pod = simple_pod(initContainers=[main("true", "setup")], containers=[main(), watcher])
        pod = await nodes.run(pod, settle_s=7)
        assert pod["status"]["phase"] == "Running"
        assert [state(pod, name)["restartCount"] for name in ("setup", "main", "watcher")] == [1, 1, 1]

    with_nodes(check)


def test_an_out_of_memory_kill() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(
            simple_pod(annotations={"sim.kcp/oom.main": "3s"}, restartPolicy="Never"), settle_s=4
        )
        over = state(pod)["state"]["terminated"]
        assert (over["reason"], over["exitCode"], pod["status"]["phase"]) == ("OOMKilled", 137, "Failed")

    with_nodes(check)


def test_a_sandbox_that_hangs_keeps_the_pod_pending_but_deletable() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod(annotations={"sim.kcp/sandbox": "hang"}))
        assert (pod["status"]["phase"], condition(pod, "PodReadyToStartContainers")["status"]) == (
            "Pending",
            "False",
        )
        assert state(pod)["state"] == {"waiting": {"reason": "ContainerCreating"}}
        await nodes.client.delete("pods", "web", "default")
        await anyio.sleep(1)
        assert await nodes.pods() == []

    with_nodes(check)


def test_logs_are_what_the_command_echoes() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod(containers=[main("echo one; echo two; sleep 100")]))
        logs = nodes.fleet.logs
        assert logs(pod, "main", {}) == b"one\ntwo\n"
        assert logs(pod, "main", {"tailLines": "1"}) == b"two\n"
        assert (
            logs(pod, "main", {"timestamps": "true", "limitBytes": "31"})
            == b"2026-01-01T00:00:01.000000000Z "
        )

    with_nodes(check)


def test_logs_of_a_container_that_never_ran() -> None:
    async def check(nodes: Nodes) -> None:
        pod = await nodes.run(simple_pod(initContainers=[main("sleep 100", "init")]))
        with pytest.raises(
            Exception, match='container "main" in pod "web" is waiting to start: PodInitializing'
        ):
            nodes.fleet.logs(pod, "main", {})
        with pytest.raises(Exception, match='previous terminated container "init" in pod "web" not found'):
            nodes.fleet.logs(pod, "init", {"previous": "true"})

    with_nodes(check)


@pytest.mark.parametrize(("kind", "phase"), [("Job", "Succeeded"), ("ReplicaSet", "Running")])
def test_what_is_not_understood_ends_for_a_job_and_runs_for_others(kind: str, phase: str) -> None:
    async def check(nodes: Nodes) -> None:
        pod = simple_pod(
            initContainers=[main(name="setup")], restartPolicy="Never" if kind == "Job" else "Always"
        )
        owner = {"apiVersion": "x/v1", "kind": kind, "name": "o", "uid": "o", "controller": True}
        pod["metadata"]["ownerReferences"] = [owner]
        assert (await nodes.run(pod, settle_s=3))["status"]["phase"] == phase

    with_nodes(check)


def test_a_command_sees_its_environment() -> None:
    async def check(nodes: Nodes) -> None:
        path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        env = [{"name": "INDEX", "valueFrom": {"fieldRef": {"fieldPath": path}}}]
        container = main("if [ $(($INDEX % 2)) -eq 0 ]; then exit 0; else exit 41; fi", env=env)
        codes = []
        for index in range(2):
            notes = {"batch.kubernetes.io/job-completion-index": str(index)}
            pod = simple_pod(f"p-{index}", annotations=notes, containers=[container], restartPolicy="Never")
            codes.append(state(await nodes.run(pod))["state"]["terminated"]["exitCode"])
        assert codes == [0, 41]

    with_nodes(check)
