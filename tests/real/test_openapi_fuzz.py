"""schemathesis against our own OpenAPI documents: requests made from what we publish never meet a 500.

One example per operation in an ordinary run; KCP_SCHEMATHESIS=5 asks for more.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.api.test_fuzz import LIKE_KUBERNETES
from tests.real.daemon import Daemon, environment

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1800)]
EXAMPLES = os.environ.get("KCP_SCHEMATHESIS", "1")
GROUPS = (
    "api/v1", "apis/apps/v1", "apis/batch/v1", "apis/networking.k8s.io/v1", "apis/rbac.authorization.k8s.io/v1",
    "apis/storage.k8s.io/v1", "apis/autoscaling/v2", "apis/policy/v1", "apis/coordination.k8s.io/v1", "apis/discovery.k8s.io/v1",
    "apis/authorization.k8s.io/v1", "apis/admissionregistration.k8s.io/v1", "apis/certificates.k8s.io/v1",
)  # fmt: skip


NO_WATCHES = '[parameters]\n"query.watch" = false\n'
"""Settings for schemathesis: a watch answers for as long as it likes, which to the tool is a request that hangs."""


def _identity(daemon: Daemon) -> tuple[Path, Path]:
    """The CA and the administrator's certificate with its key, as files."""
    config = yaml.safe_load(daemon.kubeconfig.read_text(encoding="utf-8"))
    user, authority, pair = config["users"][0]["user"], daemon.home / "ca.pem", daemon.home / "pair.pem"
    authority.write_bytes(b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]))
    pair.write_bytes(b64decode(user["client-certificate-data"]) + b64decode(user["client-key-data"]))
    return authority, pair


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="schemathesis is not installed")
@pytest.mark.parametrize("group", GROUPS)
def test_what_we_publish_is_what_we_take(make_daemon: Callable[..., Daemon], group: str) -> None:
    daemon = make_daemon().start()  # of its own: the requests take away roles and namespaces
    authority, pair = _identity(daemon)
    config = daemon.home / "schemathesis.toml"
    config.write_text(NO_WATCHES, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(config),
        "run",
        f"https://127.0.0.1:{daemon.port}/openapi/v3/{group}",
    ]
    command += ["--request-cert", str(pair), "--tls-verify", str(authority), "--checks", "not_a_server_error"]
    command += ["--max-examples", EXAMPLES, "--phases", "fuzzing", "--no-color", "--seed", "1"]
    command += ["--exclude-path-regex", "/(proxy|watch|exec|attach|portforward|log)(/|$)"]
    done = subprocess.run(
        command,
        env=environment(daemon.home),
        cwd=daemon.home,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    text = done.stdout + done.stderr
    bodies = re.findall(r"\[500\] Internal Server Error:\s+(.*)", text)
    assert all(any(like.decode() in body for like in LIKE_KUBERNETES) for body in bodies), bodies
    assert done.returncode in (0, 1) and bool(bodies) == bool(done.returncode), text[:6000]
