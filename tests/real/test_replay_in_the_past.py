"""kubectl on a recorded log: it sees the moment where a replay stands, follows its steps, and can change nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from tests.real import kubectl as kubectls
from tests.real.daemon import ENTRY, environment, eventually, kcp
from tests.real.kubectl import Kubectl
from tests.real.test_sql_history_replay import CHANGE, other_code
from tests.replay import stories

pytestmark = pytest.mark.real
__all__ = ["other_code"]


@attrs.define
class Replay:
    """A session in a process, with its server."""

    process: subprocess.Popen[str]
    kubectl: Kubectl

    def say(self, line: str) -> str:
        """The first line of the answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stories.rollout(tmp_path_factory.mktemp("past") / "log.kcp")


@pytest.fixture
def replay(log: Path, tmp_path: Path) -> Iterator[Replay]:
    """Standing before the first ReplicaSet's pods are created."""
    try:
        program = kubectls.binary("path")
    except kubectls.Missing as reason:
        pytest.skip(str(reason))
    stop = 'controller == "replicaset" && effects.exists(e, e.kind == "Create" && e.resource == "pods")'
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "replay", str(log), "--break", stop, "--serve", "127.0.0.1:0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(tmp_path), cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.fullmatch(r"export KUBECONFIG=(\S+)\n", process.stdout.readline())
        assert found is not None
        assert "replicaset-controller" in process.stdout.readline()
        yield Replay(process, Kubectl(program, {**environment(tmp_path), "KUBECONFIG": found[1]}))
    finally:
        process.communicate("quit\n", timeout=30)
    assert process.returncode == 0
    assert not Path(found[1]).exists()


def names(kubectl: Kubectl) -> list[str]:
    return kubectl("get", "pods", "-o", "name").split()


def test_state_follows_the_steps(replay: Replay) -> None:
    kubectl = replay.kubectl
    assert names(kubectl) == []
    assert kubectl.rows("get", "deployments")[1][:2] == ["web", "0/3"]
    replay.say("goto 2026-01-01T00:00:14Z")
    assert len(names(kubectl)) == 3
    assert kubectl.rows("get", "deployments")[1][:2] == ["web", "3/3"]
    assert kubectl.rows("get", "pods")[1][-1].endswith("s"), "ages are those of then"
    replay.say("goto first")
    assert names(kubectl) == []
    replay.say("goto last")
    assert kubectl("get", "deployments", "-o", "name") == ""


def test_a_watch_sees_the_steps_and_ends_when_one_goes_back(replay: Replay, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with seen.open("w", encoding="utf-8") as out:
        watch = subprocess.Popen(
            [str(replay.kubectl.program), "get", "pods", "--watch", "--output-watch-events", "-o", "name"],
            env=replay.kubectl.environment, stdout=out, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        # kubectl lists before it watches: what it has not listed when the session moves on it will be told
        replay.say("goto 2026-01-01T00:00:14Z")
        eventually(
            lambda: len(set(re.findall(r"pod/web-\S+", seen.read_text(encoding="utf-8")))) == 3,
            "three pods are seen",
        )
        replay.say("goto first")
        eventually(lambda: watch.poll() is not None, "the watch ended")
    finally:
        watch.kill()
        watch.wait()


def test_nothing_can_be_changed(replay: Replay) -> None:
    kubectl = replay.kubectl
    replay.say("goto 2026-01-01T00:00:14Z")
    pod = names(kubectl)[0]
    for arguments in (
        ("delete", pod), ("scale", "deployment/web", "--replicas=9"), ("label", pod, "a=b"), ("create", "namespace", "x"),
    ):  # fmt: skip
        assert re.search(
            r"\(MethodNotAllowed\).*this is the past, revision \d+", kubectl.fails(*arguments)
        ), arguments
    assert "nothing runs here that could answer log" in kubectl.fails("logs", pod)
    assert "nothing runs here that could answer exec" in kubectl.fails("exec", pod, "--", "true")
    assert kubectl("auth", "can-i", "list", "pods").strip() == "yes"


def test_only_the_kubeconfig_opens_it(replay: Replay) -> None:
    server = replay.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    answer = replay.kubectl.run(
        "get", "pods", "--kubeconfig=/dev/null", f"--server={server}", "--insecure-skip-tls-verify", "--username=x", "--password=y"
    )  # fmt: skip
    assert answer.returncode != 0
    assert "Unauthorized" in answer.stderr or "logged in" in answer.stderr


def test_divergences_are_told_the_same_by_any_number_of_processes(
    log: Path, tmp_path: Path, other_code: Callable[[str, str, str], Path]
) -> None:
    package = other_code(*CHANGE)
    one, two = (
        kcp("replay", log, "--continue", "-j", jobs, home=tmp_path, package=package) for jobs in ("1", "2")
    )
    assert (one.returncode, two.returncode) == (3, 3), one.stderr + two.stderr
    assert one.stdout == two.stdout
    assert re.search(r"^replicaset-controller: .*: \d+ decisions?$", one.stdout, re.M), one.stdout
    assert "  recorded  " in one.stdout and "changed since the recording" in one.stdout
    assert "kubernetes-admin through kcp created deployment default/web" in one.stdout
