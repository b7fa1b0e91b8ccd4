from __future__ import annotations

import base64
import stat
from pathlib import Path

import attrs
import orjson
import pytest

from kcp.base.certs import Authority
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.client import kubeconfig
from kcp.client.credentials import ExecCredentials, ExecPlugin, StaticCredentials, TokenFile
from kcp.client.kubeconfig import Kubeconfig, KubeconfigError
from kcp.machinery.errors import Unauthorized

CA = Authority.create("kubernetes", VirtualClock(), SeededEntropy(1))


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def config_text(ca: str, user: str, name: str = "dev") -> str:
    return f"""
apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster: {{server: "https://10.0.0.5:6443/k8s", {ca}, tls-server-name: kubernetes}}
users:
- name: {name}
  user: {user}
contexts:
- name: {name}
  context: {{cluster: {name}, user: {name}, namespace: shop}}
current-context: {name}
"""


def test_data_and_files_are_equal_and_files_are_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(CA.certificate_pem)
    inline = base64.b64encode(CA.certificate_pem).decode()
    certificate, key = CA.issue("alice", ["dev"])
    (tmp_path / "alice.crt").write_bytes(certificate)
    (tmp_path / "alice.key").write_bytes(key)
    user = "{client-certificate: alice.crt, client-key: alice.key}"
    by_file = kubeconfig.load([written(tmp_path / "a", config_text("certificate-authority: ca.crt", user))])
    by_data = kubeconfig.load(
        [written(tmp_path / "b", config_text(f"certificate-authority-data: {inline}", user))]
    )
    assert by_file == by_data
    assert by_file.users["dev"].client_certificate_pem == certificate.decode()
    transport = kubeconfig.connect(by_file)
    assert (transport.target.host, transport.target.port, transport.prefix) == ("10.0.0.5", 6443, "/k8s")
    assert transport.target.server_name == "kubernetes"
    assert transport.target.tls is not None


def test_the_first_file_that_names_something_wins(tmp_path: Path) -> None:
    first = written(tmp_path / "1", config_text("insecure-skip-tls-verify: true", "{token: one}"))
    second = written(tmp_path / "2", config_text("insecure-skip-tls-verify: true", "{token: two}"))
    third = written(tmp_path / "3", config_text("insecure-skip-tls-verify: true", "{token: three}", "prod"))
    merged = kubeconfig.load([first, tmp_path / "absent", second, third])
    assert merged.users["dev"].token == "one"
    assert merged.current_context == "dev"
    assert merged.context("prod").namespace == "shop"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError, match="No such file"):
        kubeconfig.load([tmp_path / "absent"])
    with pytest.raises(KubeconfigError, match="no configuration has been provided"):
        Kubeconfig().context()
    with pytest.raises(KubeconfigError, match='context "x" does not exist'):
        Kubeconfig().context("x")
    broken = Kubeconfig(contexts={"c": kubeconfig.Context("gone", "nobody")}, current_context="c")
    with pytest.raises(KubeconfigError, match='cluster "gone" does not exist'):
        broken.cluster_and_user()
    with pytest.raises(KubeconfigError, match="error loading config file"):
        kubeconfig.load([written(tmp_path / "bad", "clusters: [{cluster: {}}]")])
    proxied = config_text("proxy-url: http://proxy", "{}")
    with pytest.raises(KubeconfigError, match="proxy-url is not supported"):
        kubeconfig.connect(kubeconfig.load([written(tmp_path / "p", proxied)]))


async def test_tokens_and_passwords_become_headers(tmp_path: Path) -> None:
    plain = config_text("insecure-skip-tls-verify: true", "{token: abc, as: jane, as-groups: [a, b]}")
    transport = kubeconfig.connect(kubeconfig.load([written(tmp_path / "t", plain)]))
    assert await transport.credentials.headers() == {"authorization": "Bearer abc"}
    assert transport._impersonate == {"impersonate-user": "jane", "impersonate-group": "a\nb"}
    basic = config_text("insecure-skip-tls-verify: true", "{username: u, password: p}")
    transport = kubeconfig.connect(kubeconfig.load([written(tmp_path / "b", basic)]))
    assert await transport.credentials.headers() == {"authorization": "Basic dTpw"}


async def test_a_token_file_is_read_again_every_minute(tmp_path: Path) -> None:
    clock, path = VirtualClock(), written(tmp_path / "token", "one\n")
    credentials = TokenFile(path, clock)
    assert (await credentials.headers())["authorization"] == "Bearer one"
    path.write_text("two")
    assert (await credentials.headers())["authorization"] == "Bearer one"
    clock.advance(60)
    assert (await credentials.headers())["authorization"] == "Bearer two"
    path.write_text("three")
    credentials.rejected()
    assert (await credentials.headers())["authorization"] == "Bearer three"
    path.unlink()
    clock.advance(60)
    assert (await credentials.headers())["authorization"] == "Bearer three"
    with pytest.raises(Unauthorized, match="failed to read token file"):
        await TokenFile(tmp_path / "absent", clock).headers()


def plugin(tmp_path: Path, body: str) -> ExecPlugin:
    path = tmp_path / "plugin"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    row = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./plugin",
        "args": ["login"],
        "env": [{"name": "REGION", "value": "eu"}],
        "provideClusterInfo": True,
    }
    return ExecPlugin.parse(row, tmp_path)


async def test_an_exec_plugin_is_asked_when_needed_and_told_the_cluster(tmp_path: Path) -> None:
    status = {"token": "'$1-$REGION-$n'", "expirationTimestamp": "2026-01-01T01:00:00Z"}
    answer = orjson.dumps(
        {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    ).decode()
    log = tmp_path / "calls"
    script = f"echo \"$KUBERNETES_EXEC_INFO\" >> {log}; n=$(wc -l < {log}); echo '{answer}'"
    clock = VirtualClock()
    credentials = ExecCredentials(plugin(tmp_path, script), {"server": "https://x"}, clock)
    assert (await credentials.headers())["authorization"] == "Bearer login-eu-1"
    assert (await credentials.headers())["authorization"] == "Bearer login-eu-1"
    clock.advance(3600)
    assert (await credentials.headers())["authorization"] == "Bearer login-eu-2"
    credentials.rejected()
    assert (await credentials.headers())["authorization"] == "Bearer login-eu-3"
    info = orjson.loads(log.read_text().splitlines()[0])
    assert info["spec"] == {"interactive": False, "cluster": {"server": "https://x"}}


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 3", "failed with exit code 3"),
        ("echo nonsense", "decoding stdout"),
        ('echo \'{"kind":"ExecCredential","apiVersion":"v9"}\'', "plugin returned version v9"),
        (
            'echo \'{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{}}\'',
            "didn't return a token or cert/key pair",
        ),
    ],
)
async def test_a_plugin_that_fails_is_an_authentication_error(
    tmp_path: Path, script: str, error: str
) -> None:
    credentials = ExecCredentials(plugin(tmp_path, script), {}, VirtualClock())
    with pytest.raises(Unauthorized, match=error):
        await credentials.headers()


async def test_a_plugin_may_bring_a_client_certificate(tmp_path: Path) -> None:
    certificate, key = CA.issue("alice", ["dev"])
    status = {"clientCertificateData": certificate.decode(), "clientKeyData": key.decode()}
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    (tmp_path / "answer").write_bytes(orjson.dumps(answer))
    credentials = ExecCredentials(plugin(tmp_path, f"cat {tmp_path}/answer"), {}, VirtualClock())
    assert credentials.pair is None
    assert await credentials.headers() == {}
    assert credentials.pair == (certificate.decode(), key.decode())


def test_in_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(
        KubeconfigError, match="KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
    ):
        kubeconfig.in_cluster(tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "ca.crt").write_bytes(CA.certificate_pem)
    (tmp_path / "namespace").write_text("shop\n")
    config = kubeconfig.in_cluster(tmp_path)
    assert config.clusters["in-cluster"].server == "https://[fd00::1]:443"
    assert config.context().namespace == "shop"
    assert config.users["in-cluster"].token_file == str(tmp_path / "token")


def test_default_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    assert kubeconfig.default_paths() == [Path("/a"), Path("/b")]
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", "/home/u")
    assert kubeconfig.default_paths() == [Path("/home/u/.kube/config")]


def test_what_is_rendered_can_be_read_back(tmp_path: Path) -> None:
    certificate, key = CA.issue("admin", ["system:masters"])
    content = kubeconfig.render(
        "https://127.0.0.1:6443", CA.certificate_pem, "admin", certificate_pem=certificate, key_pem=key
    )
    config = kubeconfig.parse(content, tmp_path)
    cluster, user = config.cluster_and_user()
    assert cluster.certificate_authority_pem == CA.certificate_pem.decode()
    assert (user.client_certificate_pem, user.client_key_pem) == (certificate.decode(), key.decode())
    assert config.current_context == "admin@kcp"
    transport = kubeconfig.connect(config)
    assert isinstance(transport.credentials, StaticCredentials)


async def test_other_credentials_stand_in_for_all_that_the_user_has() -> None:
    certificate, key = CA.issue("admin")
    text = kubeconfig.render(
        "https://127.0.0.1:6443", CA.certificate_pem, "admin", certificate_pem=certificate, key_pem=key
    )
    config = kubeconfig.parse(text, Path())
    user = attrs.evolve(config.users["admin"], impersonate={"impersonate-user": "root"})
    own = kubeconfig.connect(attrs.evolve(config, users={"admin": user}))
    other = kubeconfig.connect(
        attrs.evolve(config, users={"admin": user}), credentials=StaticCredentials("Bearer t")
    )
    assert await other.credentials.headers() == {"authorization": "Bearer t"}
    assert (own._impersonate, other._impersonate) == ({"impersonate-user": "root"}, {})
    assert own.target.tls is not None and other.target.tls is not None
