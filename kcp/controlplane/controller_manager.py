"""The controllers as a process of their own, over HTTPS, against any Kubernetes API server.

What decides is the same `ControllerRun` as inside the daemon. Each controller acts under its own service account, as far
as it is asked for; all read through one set of caches. Garbage collection follows everything that the server has: its
caches are its own, and it starts anew when resources come or go.
Source: k8s v1.36 cmd/kube-controller-manager/app/controllermanager.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs
import structlog

from kcp.api.auth.service_account import SigningKey
from kcp.base.certs import Authority
from kcp.base.clock import Clock, SystemClock
from kcp.base.values import frozen
from kcp.client.account_tokens import AccountToken
from kcp.client.cache.shared_informer import InformerFactory
from kcp.client.client import Client
from kcp.client.mapper import Mapping as ResourceMapping
from kcp.client.recorder import EventRecorder
from kcp.client.workqueue.queue import QueueMetrics
from kcp.client.workqueue.rate_limiting import RateLimitingQueue, controller_rate_limiter
from kcp.controllers import effects as fx
from kcp.controllers.certificates.signing import PROVIDER as CERTIFICATES
from kcp.controllers.device_metrics import CLAIMS, MEASURED, DeviceMeter
from kcp.controllers.driver import ControllerRun
from kcp.controllers.execute import External
from kcp.controllers.service_account_tokens import PROVIDER as TOKENS
from kcp.controllers.sources import Controller, Everything
from kcp.controllers.table import CONTROLLERS, OFF_BY_DEFAULT, by_name
from kcp.controlplane import standalone
from kcp.controlplane.providers import Certificates, Tokens
from kcp.controlplane.standalone import Component, ComponentSettings, configuration
from kcp.machinery.errors import ApiError

log = structlog.get_logger()

Json = dict[str, Any]

ACCOUNTS = "kube-system"
REDISCOVER_S = 30.0
RETRY_S = 2.0

ALIASES: Mapping[str, str] = {
    "csrapproving": "certificatesigningrequest-approving-controller",
    "csrcleaner": "certificatesigningrequest-cleaner-controller",
    "csrsigning": "certificatesigningrequest-signing-controller",
    "endpoint": "endpoints-controller",
    "endpointslicemirroring": "endpointslice-mirroring-controller",
    "garbagecollector": "garbage-collector-controller",
    "legacy-service-account-token-cleaner": "legacy-serviceaccount-token-cleaner-controller",
    "nodeipam": "node-ipam-controller",
    "nodelifecycle": "node-lifecycle-controller",
    "podgc": "pod-garbage-collector-controller",
    "pv-protection": "persistentvolume-protection-controller",
    "pvc-protection": "persistentvolumeclaim-protection-controller",
    "root-ca-cert-publisher": "root-ca-certificate-publisher-controller",
    "bootstrapsigner": "bootstrap-signer-controller",
    "tokencleaner": "token-cleaner-controller",
}
"""Names of before 1.28 that are not the new one without its ending. Source: cmd/kube-controller-manager/names."""


@frozen
class ControllerManagerSettings:
    """What kube-controller-manager's flags of the same names say; files are PEM."""

    controllers: tuple[str, ...] = ("*",)
    use_service_account_credentials: bool = True
    root_ca_file: str = ""
    cluster_signing_cert_file: str = ""
    cluster_signing_key_file: str = ""
    service_account_private_key_file: str = ""
    service_cluster_ip_range: str = ""
    cluster_cidr: str = ""


def select(names: Sequence[str]) -> tuple[Controller, ...]:
    """The controllers that `--controllers` asks for: `*` all on by default, `name` one, `-name` all but that one.

    Raises ValueError for an unknown name.
    """
    wanted: set[str] = set()
    unwanted: set[str] = set()
    for name in names:
        if name != "*":
            (unwanted if name.startswith("-") else wanted).add(_known(name.removeprefix("-")))
    chosen = []
    for controller in (*CONTROLLERS, *OFF_BY_DEFAULT):
        by_default = "*" in names and controller in CONTROLLERS and controller.name not in unwanted
        if controller.name in wanted or by_default:
            chosen.append(controller)
    return tuple(chosen)


def _known(name: str) -> str:
    try:
        return by_name(ALIASES.get(name, name)).name
    except KeyError:
        raise ValueError(f'"{name}" is not in the list of known controllers') from None


@frozen
class Given:
    """What the files say that the flags name."""

    controllers: tuple[Controller, ...]
    settings: Mapping[str, Any]
    """By the name of the controllers' own settings."""
    externals: Mapping[str, External]

    @classmethod
    def read(cls, settings: ControllerManagerSettings, trusted: str, clock: Clock) -> Given:
        """Controllers that lack a key are left out. `trusted`: the authority that the kubeconfig trusts.

        Raises OSError, CertificateError and ValueError.
        """
        root_ca = Path(settings.root_ca_file).read_text() if settings.root_ca_file else trusted
        externals: dict[str, External] = {}
        if settings.cluster_signing_cert_file and settings.cluster_signing_key_file:
            pair = [
                Path(p).read_bytes()
                for p in (settings.cluster_signing_cert_file, settings.cluster_signing_key_file)
            ]
            externals[CERTIFICATES] = Certificates(Authority.load(pair[0], pair[1], clock))
        if settings.service_account_private_key_file:
            key = Path(settings.service_account_private_key_file).read_bytes()
            externals[TOKENS] = Tokens(SigningKey.load(key))
        needs = {
            "certificatesigningrequest-signing-controller": CERTIFICATES in externals,
            "serviceaccount-token-controller": TOKENS in externals,
            "root-ca-certificate-publisher-controller": bool(root_ca),
        }
        chosen = select(settings.controllers)
        for controller in chosen:
            if not needs.get(controller.name, True):
                log.info("controller left out for want of a file", controller=controller.name)
        return cls(
            tuple(controller for controller in chosen if needs.get(controller.name, True)),
            {
                "root_ca": root_ca,
                "service_cidrs": _listed(settings.service_cluster_ip_range),
                "cluster_cidrs": _listed(settings.cluster_cidr),
            },
            externals,
        )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@attrs.define
class ControllerManager:
    """One turn of all controllers. Owned by the task of `run`."""

    settings: ControllerManagerSettings
    component: Component
    given: Given
    rows: list[Json] = attrs.field(factory=list)
    devices: DeviceMeter = attrs.field(factory=DeviceMeter)
    _changed: anyio.Event = attrs.field(factory=anyio.Event)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._first_rows()
        informers = self._informers("informers")
        forever = self.component.forever
        if any(controller.name in MEASURED for controller in self.given.controllers):
            claims = informers.informer(CLAIMS).indexer
            self.component.metrics.collect("devices", lambda: self.devices.series(claims))
        async with anyio.create_task_group() as group:
            for controller in self.given.controllers:
                if any(isinstance(source, Everything) for source in controller.watches.values()):
                    group.start_soon(self._follow_everything, controller)
                    continue
                group.start_soon(self._run_one, controller, informers)
            group.start_soon(forever, "informers", informers.run)
            group.start_soon(self._rediscover)

    async def _run_one(self, controller: Controller, informers: InformerFactory) -> None:
        recorder = self._recorder(controller)
        run = self._controller_run(controller, recorder, informers)
        async with anyio.create_task_group() as group:
            group.start_soon(self.component.forever, f"{controller.name} events", recorder.run)
            group.start_soon(self.component.forever, controller.name, run.run)

    async def _follow_everything(self, controller: Controller) -> None:
        """On caches of its own, made anew when the server has other resources than before."""
        while True:
            changed = self._changed
            informers = self._informers(controller.name)
            async with anyio.create_task_group() as group:
                group.start_soon(self._run_one, controller, informers)
                group.start_soon(self.component.forever, "informers", informers.run)
                await changed.wait()
                group.cancel_scope.cancel()

    def _informers(self, name: str) -> InformerFactory:
        """They read under the component's own identity and need no fence."""
        entropy = self.component.entropy.stream(name)
        client = self.component.connections.client()
        return InformerFactory(client, clock=self.component.clock, entropy=entropy)

    def _client(self, controller: Controller) -> Client:
        component = self.component
        credentials = None
        if self.settings.use_service_account_credentials and not controller.identity.startswith("system:"):
            asking = component.connections.client("tokens")
            credentials = AccountToken(asking, ACCOUNTS, controller.identity, component.clock)
        return component.connections.client(controller.name, credentials, component.fence)

    def _recorder(self, controller: Controller) -> EventRecorder:
        component = self.component
        return EventRecorder(
            self._client(controller),
            controller.reporter,
            clock=component.clock,
            entropy=component.entropy.stream(controller.name),
        )

    def _controller_run(
        self, controller: Controller, recorder: EventRecorder, informers: InformerFactory
    ) -> ControllerRun:
        component = self.component
        limiter = controller_rate_limiter(component.clock, controller.retry_base_s)
        observer = QueueMetrics(component.metrics, controller.name)
        return ControllerRun(
            controller=controller,
            client=self._client(controller),
            informers=informers,
            clock=component.clock,
            queue=RateLimitingQueue(clock=component.clock, limiter=limiter, observer=observer),
            sink=self.devices.around(component.sink) if controller.name in MEASURED else component.sink,
            write_event=effect_writer(recorder),
            resources=lambda: self.rows,
            settings={k: v for k, v in self.given.settings.items() if v and k in controller.settings},
            externals=self.given.externals,
            epoch=lambda: component.epoch,
        )

    async def _first_rows(self) -> None:
        """What is served, asked for until the server answers."""
        while not self.rows:
            try:
                self.rows = await self._discover()
            except (ApiError, ValueError) as error:
                log.warning("discovery failed", error=str(error))
                await anyio.sleep(RETRY_S)

    async def _rediscover(self) -> None:
        while True:
            await anyio.sleep(REDISCOVER_S)
            try:
                rows = await self._discover()
            except (ApiError, ValueError) as error:
                log.warning("discovery failed", error=str(error))
                continue
            if rows != self.rows:
                self.rows = rows
                changed, self._changed = self._changed, anyio.Event()
                changed.set()

    async def _discover(self) -> list[Json]:
        mapper = self.component.connections.mapper
        await mapper.discover()
        return resource_rows(await mapper.mappings())


def resource_rows(mappings: Sequence[ResourceMapping]) -> list[Json]:
    """The served resources, each in its preferred version, as controllers get them in their settings."""
    return [
        {
            "resource": mapping.resource,
            "group": mapping.group,
            "version": mapping.version,
            "kind": mapping.kind,
            "plural": mapping.plural,
            "namespaced": mapping.namespaced,
            "verbs": sorted(mapping.verbs),
        }
        for mapping in mappings
    ]


def effect_writer(recorder: EventRecorder) -> Callable[[fx.Event], None]:
    """What a controller's Event effects go to."""

    def write(effect: fx.Event) -> None:
        recorder.event(
            effect.regarding,
            effect.type,
            effect.reason,
            effect.message,
            action=effect.action,
            related=effect.related,
        )

    return write


async def run(
    component: ComponentSettings, settings: ControllerManagerSettings, on_ready: Callable[[str], None]
) -> None:
    """Run until SIGINT or SIGTERM. Raises OSError, ValueError or StoreError when it cannot start."""
    cluster, _ = configuration(component).cluster_and_user(component.context)
    given = Given.read(settings, cluster.certificate_authority_pem, SystemClock())

    async def lead(turn: Component) -> None:
        await ControllerManager(settings, turn, given).run()

    await standalone.run(component, lead, on_ready)
