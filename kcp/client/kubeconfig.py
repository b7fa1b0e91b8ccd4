"""Kubeconfig files: read, merge, choose a context, connect; and the in-cluster configuration of a pod.

    transport = connect(load(default_paths()))
    transport = connect(load([Path("kubeconfig")]), context="admin")
    transport = connect(in_cluster())

Source: k8s v1.36 client-go/tools/clientcmd, client-go/rest/config.go.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from kcp.base.clock import Clock, SystemClock
from kcp.base.settings import environment_value, home_directory
from kcp.base.values import frozen
from kcp.client.credentials import Credentials, ExecCredentials, ExecPlugin, StaticCredentials, TokenFile
from kcp.client.https import HttpsTransport, target_of
from kcp.machinery.codec.yaml import decode_yaml, encode_yaml
from kcp.wire.connect import client_tls

Json = dict[str, Any]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(ValueError):
    """Raised when a configuration cannot be read or names what it does not have."""


@frozen
class Cluster:
    server: str
    certificate_authority_pem: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    extensions: Json = attrs.field(factory=dict)


@frozen
class User:
    client_certificate_pem: str = ""
    client_key_pem: str = ""
    token: str = ""
    token_file: str = ""
    username: str = ""
    password: str = ""
    exec: ExecPlugin | None = None
    impersonate: Mapping[str, str] = attrs.field(factory=dict)
    """Impersonation headers; several values of one name are joined by a newline."""


@frozen
class Context:
    cluster: str
    user: str = ""
    namespace: str = ""


@frozen
class Kubeconfig:
    """What one file, or several merged, say."""

    clusters: Mapping[str, Cluster] = attrs.field(factory=dict)
    users: Mapping[str, User] = attrs.field(factory=dict)
    contexts: Mapping[str, Context] = attrs.field(factory=dict)
    current_context: str = ""

    def context(self, name: str = "") -> Context:
        """A context by name, or the current one. Raises KubeconfigError."""
        name = name or self.current_context
        if not name:
            raise KubeconfigError("invalid configuration: no configuration has been provided")
        if name not in self.contexts:
            raise KubeconfigError(f'context "{name}" does not exist')
        return self.contexts[name]

    def cluster_and_user(self, name: str = "") -> tuple[Cluster, User]:
        context = self.context(name)
        cluster = self.clusters.get(context.cluster)
        if cluster is None:
            raise KubeconfigError(f'cluster "{context.cluster}" does not exist')
        if context.user and context.user not in self.users:
            raise KubeconfigError(f'auth info "{context.user}" does not exist')
        return cluster, self.users.get(context.user, User())


def default_paths() -> list[Path]:
    """$KUBECONFIG, else ~/.kube/config."""
    paths = [Path(part) for part in environment_value("KUBECONFIG").split(":") if part]
    return paths or [home_directory() / ".kube" / "config"]


def load(paths: Sequence[Path]) -> Kubeconfig:
    """Read and merge; the first file that names something wins. Missing files are skipped when there are several.

    Raises KubeconfigError.
    """
    existing = [path for path in paths if len(paths) == 1 or path.exists()]
    merged = Kubeconfig()
    for path in reversed(existing):
        one = _read(path)
        merged = Kubeconfig(
            {**merged.clusters, **one.clusters},
            {**merged.users, **one.users},
            {**merged.contexts, **one.contexts},
            one.current_context or merged.current_context,
        )
    return merged


def _read(path: Path) -> Kubeconfig:
    try:
        return parse(path.read_bytes(), path.parent)
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise KubeconfigError(f"error loading config file {path}: {error}") from error


def parse(content: bytes, directory: Path) -> Kubeconfig:
    """From the bytes of a file; relative paths in it are relative to `directory`."""
    document, _ = decode_yaml(content)
    document = document or {}
    return Kubeconfig(
        {
            row["name"]: _cluster(row.get("cluster") or {}, directory)
            for row in document.get("clusters") or ()
        },
        {row["name"]: _user(row.get("user") or {}, directory) for row in document.get("users") or ()},
        {row["name"]: _context(row.get("context") or {}) for row in document.get("contexts") or ()},
        document.get("current-context") or "",
    )


def _context(row: Json) -> Context:
    return Context(row.get("cluster", ""), row.get("user", ""), row.get("namespace", ""))


def _cluster(row: Json, directory: Path) -> Cluster:
    extensions = {each.get("name", ""): each.get("extension") for each in row.get("extensions") or ()}
    return Cluster(
        row.get("server", ""),
        _pem(row, "certificate-authority", directory),
        bool(row.get("insecure-skip-tls-verify")),
        row.get("tls-server-name", ""),
        row.get("proxy-url", ""),
        extensions,
    )


def _user(row: Json, directory: Path) -> User:
    plugin = row.get("exec")
    token_file = row.get("tokenFile", "")
    return User(
        _pem(row, "client-certificate", directory),
        _pem(row, "client-key", directory),
        row.get("token", ""),
        str(directory / token_file) if token_file else "",
        row.get("username", ""),
        row.get("password", ""),
        ExecPlugin.parse(plugin, directory) if plugin else None,
        _impersonation(row),
    )


def _impersonation(row: Json) -> dict[str, str]:
    headers = {
        "impersonate-user": row.get("as", ""),
        "impersonate-uid": row.get("as-uid", ""),
        "impersonate-group": "\n".join(row.get("as-groups") or ()),
    }
    for name, values in (row.get("as-user-extra") or {}).items():
        headers[f"impersonate-extra-{name.lower()}"] = "\n".join(values)
    return {name: value for name, value in headers.items() if value}


def _pem(row: Json, field: str, directory: Path) -> str:
    """The inline data if there is any, else the file's content."""
    data = row.get(f"{field}-data")
    if data:
        return base64.b64decode(data).decode()
    path = row.get(field)
    return (directory / path).read_text() if path else ""


def in_cluster(directory: Path = SERVICE_ACCOUNT) -> Kubeconfig:
    """What a pod has: its service account's token and the address in its environment. Raises KubeconfigError."""
    host, port = environment_value("KUBERNETES_SERVICE_HOST"), environment_value("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise KubeconfigError(
            "unable to load in-cluster configuration,"
            " KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
        )
    try:
        authority = (directory / "ca.crt").read_text()
        namespace = (directory / "namespace").read_text().strip()
    except OSError as error:
        raise KubeconfigError(f"in-cluster configuration: {error}") from error
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Kubeconfig(
        {"in-cluster": Cluster(server, authority)},
        {"in-cluster": User(token_file=str(directory / "token"))},
        {"in-cluster": Context("in-cluster", "in-cluster", namespace)},
        "in-cluster",
    )


def connect(
    config: Kubeconfig,
    *,
    context: str = "",
    clock: Clock | None = None,
    user_agent: str = "kcp",
    credentials: Credentials | None = None,
) -> HttpsTransport:
    """A transport for a context. Nothing is sent yet. Raises KubeconfigError.

    `credentials` stand in for all that the context's user has, its client certificate and impersonation included.
    """
    cluster, user = config.cluster_and_user(context)
    if credentials is not None:
        user = User()
    if cluster.proxy_url:
        raise KubeconfigError("proxy-url is not supported")
    if not cluster.server:
        raise KubeconfigError("no server found for the cluster")
    tls_for = partial(_tls, cluster)
    try:
        tls = tls_for((user.client_certificate_pem, user.client_key_pem))
        target = target_of(cluster.server, tls, cluster.tls_server_name)
    except (ValueError, ssl.SSLError) as error:
        raise KubeconfigError(str(error)) from error
    return HttpsTransport(
        target,
        credentials or _credentials(cluster, user, clock or SystemClock()),
        prefix=urlsplit(cluster.server).path if not target.unix_path else "",
        user_agent=user_agent,
        impersonate=dict(user.impersonate),
        tls_for=tls_for,
    )


def _tls(cluster: Cluster, pair: tuple[str, str]) -> ssl.SSLContext:
    return client_tls(
        ca_pem=cluster.certificate_authority_pem,
        certificate_pem=pair[0],
        key_pem=pair[1],
        verify=not cluster.insecure_skip_tls_verify,
    )


def _credentials(cluster: Cluster, user: User, clock: Clock) -> Credentials:
    """Of what a user has, the first of: token file, token, basic, exec plugin."""
    if user.token_file:
        return TokenFile(Path(user.token_file), clock)
    if user.token:
        return StaticCredentials(f"Bearer {user.token}")
    if user.username or user.password:
        pair = f"{user.username}:{user.password}".encode()
        return StaticCredentials(f"Basic {base64.b64encode(pair).decode()}")
    if user.exec is not None:
        return ExecCredentials(user.exec, _cluster_info(cluster), clock)
    return StaticCredentials()


def _cluster_info(cluster: Cluster) -> Json:
    """What a plugin that asks for it is told about the cluster."""
    authority = base64.b64encode(cluster.certificate_authority_pem.encode()).decode()
    info = {
        "server": cluster.server,
        "tls-server-name": cluster.tls_server_name,
        "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
        "certificate-authority-data": authority,
        "config": cluster.extensions.get("client.authentication.k8s.io/exec"),
    }
    return {name: value for name, value in info.items() if value}


def render(
    server: str,
    ca_pem: bytes,
    user: str,
    *,
    certificate_pem: bytes = b"",
    key_pem: bytes = b"",
    token: str = "",
    cluster: str = "kcp",
    namespace: str = "",
) -> bytes:
    """A kubeconfig file with one context, everything inline."""
    credentials: Json = {"token": token} if token else {}
    if certificate_pem:
        credentials["client-certificate-data"] = base64.b64encode(certificate_pem).decode()
        credentials["client-key-data"] = base64.b64encode(key_pem).decode()
    authority = base64.b64encode(ca_pem).decode()
    name = f"{user}@{cluster}"
    context = {"cluster": cluster, "user": user, **({"namespace": namespace} if namespace else {})}
    return encode_yaml(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": cluster, "cluster": {"server": server, "certificate-authority-data": authority}}
            ],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": name, "context": context}],
            "current-context": name,
        }
    )
