"""What every container runtime below the node agent promises. One suite, each implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import attrs
import pytest

from kcp.base.clock import LoopClock
from kcp.base.entropy import SeededEntropy
from kcp.node.addresses import AddressPool
from kcp.node.runtime.protocol import ContainerConfig, NotFound, Runtime, RuntimeFailure, SandboxConfig
from kcp.node.runtime.sim import SimRuntime
from kcp.node.timers import Timers
from tests.support.background import running

Json = dict[str, Any]
pytestmark = pytest.mark.sim


@attrs.define
class Bench:
    """A runtime with shorthands. `run(script)` makes a sandbox and starts one container that runs a shell script."""

    runtime: Runtime
    changed: list[str] = attrs.field(factory=list)

    def pod(self, uid: str = "u1", **metadata: Any) -> Json:
        meta = {"uid": uid, "name": f"pod-{uid}", "namespace": "default", **metadata}
        return {"metadata": meta, "spec": {"containers": []}}

    async def sandbox(self, uid: str = "u1", **metadata: Any) -> str:
        return await self.runtime.run_pod_sandbox(SandboxConfig(self.pod(uid, **metadata)))

    async def container(self, sandbox: str, script: str = "", *, uid: str = "u1", attempt: int = 0) -> str:
        spec = {"name": "main", "image": "registry.example/app:1"}
        if script:
            spec["command"] = ["sh", "-c", script]  # type: ignore[assignment]
        image = await self.runtime.pull_image(spec["image"])
        config = ContainerConfig(self.pod(uid), spec, "containers", image, attempt)
        return await self.runtime.create_container(sandbox, config)

    async def run(self, script: str = "", *, uid: str = "u1") -> str:
        container = await self.container(await self.sandbox(uid), script, uid=uid)
        await self.runtime.start_container(container)
        return container

    async def state(self, uid: str = "u1") -> tuple[str, int]:
        latest = (await self.runtime.pod_status(uid)).latest("main")
        assert latest is not None
        return latest.state, latest.exit_code


def sim(timers: Timers) -> Runtime:
    return SimRuntime(
        host_ip="10.0.0.2",
        addresses=AddressPool("10.128.0.0/29"),
        timers=timers,
        clock=LoopClock(),
        entropy=SeededEntropy(1),
    )


@pytest.fixture(params=[pytest.param(sim, id="sim")])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    timers = Timers(LoopClock())
    make: Callable[[Timers], Runtime] = request.param
    found = Bench(make(timers))
    found.runtime.subscribe(found.changed.append)
    async with running(timers.run):
        yield found


async def test_it_says_what_it_is(bench: Bench) -> None:
    version = await bench.runtime.version()
    assert version.runtime_name
    assert version.runtime_api_version == "v1"
    assert bench.runtime.scheme


async def test_a_sandbox_has_an_address_and_gives_it_back(bench: Bench) -> None:
    first = await bench.sandbox("u1")
    second = await bench.sandbox("u2")
    ips = [(await bench.runtime.pod_status(uid)).sandboxes[0].ips[0] for uid in ("u1", "u2")]
    assert len(set(ips)) == 2
    await bench.runtime.stop_pod_sandbox(first)
    status = await bench.runtime.pod_status("u1")
    assert (status.sandbox, status.sandboxes[0].ready) == (None, False)
    await bench.runtime.remove_pod_sandbox(second)
    assert await bench.runtime.pod_uids() == ["u1"]


async def test_addresses_do_not_run_out_when_sandboxes_go(bench: Bench) -> None:
    for i in range(20):
        await bench.runtime.remove_pod_sandbox(await bench.sandbox(f"u{i}"))
    assert await bench.runtime.pod_uids() == []


async def test_no_address_left_is_a_failure_not_a_crash(bench: Bench) -> None:
    with pytest.raises(RuntimeFailure, match="no IP addresses available"):
        for i in range(20):
            await bench.sandbox(f"u{i}")


async def test_a_container_is_created_then_runs_then_ends(bench: Bench) -> None:
    container = await bench.container(await bench.sandbox(), "sleep 5; exit 3")
    assert await bench.state() == ("created", 0)
    await bench.runtime.start_container(container)
    assert await bench.state() == ("running", 0)
    await anyio.sleep(6)
    assert await bench.state() == ("exited", 3)
    assert bench.changed == ["u1"]
    status = (await bench.runtime.pod_status("u1")).latest("main")
    assert status is not None and status.started_at is not None and status.finished_at is not None
    assert (status.finished_at - status.started_at).total_seconds() == pytest.approx(5, abs=0.5)
    assert status.reason == "Error"


async def test_the_newest_run_comes_first_with_its_attempt(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    for attempt in range(4):
        await bench.runtime.start_container(
            await bench.container(sandbox, f"exit {attempt}", attempt=attempt)
        )
    runs = (await bench.runtime.pod_status("u1")).containers
    assert [run.attempt for run in runs][:2] == [3, 2]


async def test_stopping_is_quick_and_idempotent(bench: Bench) -> None:
    container = await bench.run("sleep 1000")
    for _ in range(2):
        await bench.runtime.stop_container(container, 10)
    await anyio.sleep(11)
    state, code = await bench.state()
    assert (state, code in (137, 143)) == ("exited", True)
    await bench.runtime.stop_container("unknown", 1)


async def test_no_grace_means_kill(bench: Bench) -> None:
    container = await bench.run("sleep 1000")
    await bench.runtime.stop_container(container, 0)
    assert await bench.state() == ("exited", 137)


async def test_a_stopped_sandbox_has_no_running_container(bench: Bench) -> None:
    await bench.run("sleep 1000")
    status = await bench.runtime.pod_status("u1")
    await bench.runtime.stop_pod_sandbox(status.sandboxes[0].id)
    assert (await bench.runtime.pod_status("u1")).running() == []


async def test_unknown_things(bench: Bench) -> None:
    assert (await bench.runtime.pod_status("nobody")).sandboxes == ()
    await bench.runtime.stop_pod_sandbox("unknown")
    await bench.runtime.remove_pod_sandbox("unknown")
    await bench.runtime.remove_container("unknown")
    assert list(bench.runtime.logs("unknown")) == []
    with pytest.raises(NotFound):
        await bench.runtime.start_container("unknown")
    with pytest.raises(NotFound):
        await bench.container("unknown")


async def test_exec_answers_with_code_and_output(bench: Bench) -> None:
    container = await bench.run("sleep 1000")
    result = await bench.runtime.exec_sync(container, ["sh", "-c", "echo hi; exit 4"], 5)
    assert (result.exit_code, result.output.strip()) == (4, b"hi")
    with pytest.raises(TimeoutError):
        await bench.runtime.exec_sync(container, ["sleep", "60"], 1)


async def test_exec_needs_a_running_container(bench: Bench) -> None:
    container = await bench.run("exit 0")
    await anyio.sleep(1)
    with pytest.raises(NotFound):
        await bench.runtime.exec_sync(container, ["true"], 1)


async def test_images_are_there_once_pulled(bench: Bench) -> None:
    name = "registry.example/tool:2"
    assert await bench.runtime.image_status(name) is None
    image = await bench.runtime.pull_image(name)
    assert await bench.runtime.image_status(name) == image
    assert "@sha256:" in image.ref
    assert image in await bench.runtime.list_images()
    with pytest.raises(RuntimeFailure, match="no such host"):
        await bench.runtime.pull_image("invalid.test/none:1")


async def test_logs_are_kept_after_the_end(bench: Bench) -> None:
    container = await bench.run("echo one; echo two")
    await anyio.sleep(1)
    assert [line.text for line in bench.runtime.logs(container)] == ["one", "two"]


async def test_resources_change_in_place(bench: Bench) -> None:
    container = await bench.run("sleep 1000")
    await bench.runtime.update_container_resources(container, {"limits": {"cpu": "2"}})
    status = (await bench.runtime.pod_status("u1")).latest("main")
    assert status is not None
    assert (status.state, status.resources) == ("running", {"limits": {"cpu": "2"}})
