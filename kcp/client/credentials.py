"""What proves to a server who we are: fixed headers, a token file that is rotated, an exec plugin.

Source: k8s v1.36 client-go/transport/token_source.go, client-go/plugin/pkg/client/auth/exec/exec.go, KEP-541.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import anyio
import attrs
import orjson

from kcp.base.clock import Clock
from kcp.base.settings import process_environment
from kcp.base.values import frozen
from kcp.machinery.errors import Unauthorized
from kcp.machinery.times import parse_time

Json = dict[str, Any]

TOKEN_FILE_PERIOD_S = 60.0
EXEC_TIMEOUT_S = 60.0
_EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class Credentials(Protocol):
    """What proves who we are, besides a client certificate that never changes."""

    @property
    def pair(self) -> tuple[str, str] | None:
        """Certificate and key PEM that came with the credentials; None without."""
        ...

    async def headers(self) -> dict[str, str]:
        """The headers to add to a request; refreshed when they are about to expire."""
        ...

    def rejected(self) -> None:
        """The server answered 401: do not use what you have again."""
        ...


@attrs.define
class StaticCredentials:
    """A bearer token or basic authentication that never changes; nothing at all by default."""

    authorization: str = ""

    @property
    def pair(self) -> tuple[str, str] | None:
        return None

    async def headers(self) -> dict[str, str]:
        return {"authorization": self.authorization} if self.authorization else {}

    def rejected(self) -> None: ...


@attrs.define
class TokenFile:
    """A token that something else renews in place; read again every minute."""

    path: Path
    clock: Clock
    _token: str = attrs.field(init=False, default="")
    _read_at_s: float = attrs.field(init=False, default=float("-inf"))

    @property
    def pair(self) -> tuple[str, str] | None:
        return None

    async def headers(self) -> dict[str, str]:
        if self.clock.monotonic() - self._read_at_s >= TOKEN_FILE_PERIOD_S:
            self._read()
        return {"authorization": f"Bearer {self._token}"}

    def _read(self) -> None:
        try:
            token = self.path.read_text().strip()
        except OSError as error:
            if not self._token:
                raise Unauthorized(f"failed to read token file {self.path}: {error.strerror}") from error
            return  # the old token may live a little longer
        if not token and not self._token:
            raise Unauthorized(f"read empty token from file {self.path}")
        self._token = token or self._token
        self._read_at_s = self.clock.monotonic()

    def rejected(self) -> None:
        self._read_at_s = float("-inf")


@frozen
class ExecPlugin:
    """A command that prints an ExecCredential."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    api_version: str
    provide_cluster_info: bool = False
    install_hint: str = ""

    @classmethod
    def parse(cls, row: Json, directory: Path) -> ExecPlugin:
        """From a kubeconfig. A command with a slash is relative to the file's directory. Raises ValueError."""
        command = row.get("command", "")
        if not command:
            raise ValueError("exec: command must be specified")
        if row.get("apiVersion") not in _EXEC_VERSIONS:
            raise ValueError(f'exec plugin: invalid apiVersion "{row.get("apiVersion", "")}"')
        if "/" in command and not command.startswith("/"):
            command = str(directory / command)
        return cls(
            command,
            tuple(row.get("args") or ()),
            {entry["name"]: entry["value"] for entry in row.get("env") or ()},
            row["apiVersion"],
            bool(row.get("provideClusterInfo")),
            row.get("installHint") or "",
        )


@attrs.define
class ExecCredentials:
    """Runs the plugin when it has nothing, when what it has expired, and after a 401."""

    plugin: ExecPlugin
    cluster: Json
    clock: Clock
    _status: Json | None = attrs.field(init=False, default=None)

    @property
    def pair(self) -> tuple[str, str] | None:
        status = self._status or {}
        certificate = status.get("clientCertificateData")
        return (certificate, status.get("clientKeyData", "")) if certificate else None

    async def headers(self) -> dict[str, str]:
        if self._status is None or self._expired(self._status):
            self._status = await self._run()
        token = self._status.get("token")
        return {"authorization": f"Bearer {token}"} if token else {}

    def rejected(self) -> None:
        self._status = None

    def _expired(self, status: Json) -> bool:
        expires = status.get("expirationTimestamp")
        return bool(expires) and self.clock.now() >= parse_time(expires) - timedelta(seconds=1)

    async def _run(self) -> Json:
        """The status of the ExecCredential. Raises Unauthorized when the plugin fails."""
        info: Json = {
            "apiVersion": self.plugin.api_version,
            "kind": "ExecCredential",
            "spec": {"interactive": False},
        }
        if self.plugin.provide_cluster_info:
            info["spec"]["cluster"] = self.cluster
        environment = {
            **process_environment(),
            **self.plugin.env,
            "KUBERNETES_EXEC_INFO": orjson.dumps(info).decode(),
        }
        output = await self._output(environment)
        return self._parsed(output)

    async def _output(self, environment: Mapping[str, str]) -> bytes:
        command = [self.plugin.command, *self.plugin.args]
        try:
            with anyio.fail_after(EXEC_TIMEOUT_S):
                done = await anyio.run_process(command, env=environment, check=False)
        except FileNotFoundError as error:
            hint = f"\n\n{self.plugin.install_hint}" if self.plugin.install_hint else ""
            raise Unauthorized(
                f"getting credentials: exec: executable {self.plugin.command} not found{hint}"
            ) from error
        except (OSError, TimeoutError) as error:
            raise Unauthorized(f"getting credentials: exec: {error or 'timed out'}") from error
        if done.returncode != 0:
            raise Unauthorized(
                f"getting credentials: exec: executable {self.plugin.command} failed with exit code {done.returncode}"
            )
        return done.stdout

    def _parsed(self, output: bytes) -> Json:
        try:
            credential = orjson.loads(output)
            kind, version, status = credential["kind"], credential["apiVersion"], credential.get("status")
        except (ValueError, KeyError, TypeError) as error:
            raise Unauthorized(f"getting credentials: decoding stdout: {error}") from error
        if kind != "ExecCredential" or version != self.plugin.api_version:
            raise Unauthorized(
                f"getting credentials: exec plugin is configured to use API version {self.plugin.api_version},"
                f" plugin returned version {version}"
            )
        if not isinstance(status, dict) or not (status.get("token") or status.get("clientCertificateData")):
            raise Unauthorized("getting credentials: exec plugin didn't return a token or cert/key pair")
        return status
