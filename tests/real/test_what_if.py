"""The session of docs/how-to/what-if.md: a rollout by kubectl, then the question what other code would have made of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real import kubectl as kubectls
from tests.real.daemon import ROOT, Daemon, environment, kcp
from tests.real.kubectl import Kubectl

pytestmark = pytest.mark.real

EXAMPLES = ROOT / "examples/what-if"


@pytest.fixture(scope="module")
def incident(make_daemon: Callable[..., Daemon]) -> Path:
    daemon = make_daemon("--node-cpu", "2", nodes=3).start()
    try:
        program = kubectls.binary("path")
    except kubectls.Missing as reason:
        pytest.skip(str(reason))
    kubectl = Kubectl(program, {**environment(daemon.home), "KUBECONFIG": str(daemon.kubeconfig)})
    kubectl("apply", "-f", EXAMPLES / "shop.yaml")
    kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    kubectl("set", "image", "deployment/shop", "main=shop:2")
    kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    file = daemon.home / "incident.kcplog"
    exported = daemon.kcp("export", file)
    assert exported.returncode == 0, exported.stderr
    daemon.stop()
    return file


def test_run_again_it_comes_to_the_same(incident: Path, tmp_path: Path) -> None:
    done = kcp("replay", incident, "--whole", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("run again: 2 requests from outside\n")
    assert re.search(r"^  pods +8 +8$", done.stdout, re.M)


def test_with_the_example_the_rollout_does_not_come_through(incident: Path, tmp_path: Path) -> None:
    done = kcp("replay", incident, "--swap", f"deployment={EXAMPLES / 'keep_old.py'}:plan", home=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    for shown in (
        r"^\d+ recorded decisions of deployment-controller, made again with it: \d+ identical, \d+ not$",
        r"^  pods +8 +8 +5$",
        r"^rollouts that did not come through\n  deployments.apps/default/shop$",
        r"^  again    rv \d+ MODIFIED replicasets.apps/default/shop-\w+ by system:\S+deployment-controller",
        r"kubernetes-admin through kubectl-set changed deployment default/shop: .*image: shop:1 → shop:2$",
        r"^  Update replicasets.apps/default/shop-\w+ +\| Status deployments.apps/default/shop$",
    ):
        assert re.search(shown, done.stdout, re.M), (shown, done.stdout)


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs/how-to/what-if.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert code and all(block in (EXAMPLES / "keep_old.py").read_text(encoding="utf-8") for block in code)
