"""A real daemon per test module, every kubectl at hand, a namespace per test."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real import kubectl as kubectls
from tests.real.daemon import Daemon, environment, eventually
from tests.real.https import Api
from tests.real.kubectl import Kubectl

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def make_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons on data directories of their own, not yet started; all are stopped at the end of the module."""
    made: list[Daemon] = []

    def make(*options: str, nodes: int = 0, data: Path | None = None) -> Daemon:
        home = tmp_path_factory.mktemp("daemon")
        daemon = Daemon(data or home / "data", home, nodes=nodes, options=options)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """The module's daemon, with three simulated nodes, running."""
    return make_daemon(nodes=3).start()


@pytest.fixture(scope="module")
def api(daemon: Daemon) -> Api:
    return Api.of(daemon.kubeconfig)


@pytest.fixture
def namespace(api: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh namespace whose default service account exists."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")
    name = f"{words[:40].strip('-')}-{next(_numbers)}"
    made = api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert made.status == 201, made.body
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    eventually(lambda: api.request("GET", account).status == 200, f"{account} exists")
    yield name
    api.request("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def kubectl(request: pytest.FixtureRequest, daemon: Daemon, namespace: str) -> Kubectl:
    """kubectl in the test's namespace: the one on PATH, or the version of an indirect parameter."""
    try:
        program = kubectls.binary(getattr(request, "param", "path"))
    except kubectls.Missing as reason:
        pytest.skip(str(reason))
    return Kubectl(program, {**environment(daemon.home), "KUBECONFIG": str(daemon.kubeconfig)}, namespace)
