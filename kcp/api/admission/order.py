"""The admission plugins in Kubernetes' order, and the chain that runs them.

Source of the order: k8s v1.36 pkg/kubeapiserver/options/plugins.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio

from kcp.api.admission.plugin import Attributes, Companion, Exact, Mutating, Plugin, Validating, Waiting
from kcp.api.admission.plugins import (
    certificates,
    default_ingress_class,
    default_storage_class,
    default_toleration_seconds,
    device_admin_access,
    limit_ranger,
    namespace_lifecycle,
    node_restriction,
    persistent_volume_claim_resize,
    priority,
    resource_quota,
    runtime_class,
    service_account,
    storage_object_in_use,
    taint_nodes_by_condition,
)
from kcp.api.auth.protocol import Authorizer
from kcp.base.clock import Clock, SystemClock
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.machinery.names import generate_name
from kcp.store.protocol import Event, Head, Key, Store

WAIT_S = 1.5
"""How long a create waits for what a controller is about to make. Kubernetes: 10 tries, 100 to 200 ms apart."""


@frozen
class Parts:
    """What plugins are made of. `store` answers at the published revision."""

    store: Store
    entropy: Entropy
    authorizer: Authorizer
    clock: Clock


Factory = Callable[[Parts], Plugin]

ORDER: tuple[tuple[str, Factory | None], ...] = (
    ("NamespaceLifecycle", lambda parts: namespace_lifecycle.NamespaceLifecycle(parts.store)),
    ("LimitRanger", lambda parts: limit_ranger.LimitRanger(parts.store)),
    (
        "ServiceAccount",
        lambda parts: service_account.ServiceAccount(
            parts.store, lambda base: generate_name(base, parts.entropy)
        ),
    ),
    ("NodeRestriction", lambda parts: node_restriction.NodeRestriction(parts.store)),
    ("TaintNodesByCondition", lambda parts: taint_nodes_by_condition.TaintNodesByCondition()),
    ("PodSecurity", None),
    ("Priority", lambda parts: priority.Priority(parts.store)),
    ("DefaultTolerationSeconds", lambda parts: default_toleration_seconds.DefaultTolerationSeconds()),
    ("DefaultStorageClass", lambda parts: default_storage_class.DefaultStorageClass(parts.store)),
    ("StorageObjectInUseProtection", lambda parts: storage_object_in_use.StorageObjectInUseProtection()),
    (
        "PersistentVolumeClaimResize",
        lambda parts: persistent_volume_claim_resize.PersistentVolumeClaimResize(parts.store),
    ),
    ("RuntimeClass", lambda parts: runtime_class.RuntimeClass(parts.store)),
    ("CertificateApproval", lambda parts: certificates.CertificateApproval(parts.authorizer)),
    ("CertificateSigning", lambda parts: certificates.CertificateSigning(parts.authorizer)),
    ("ClusterTrustBundleAttest", None),
    ("CertificateSubjectRestriction", lambda parts: certificates.CertificateSubjectRestriction()),
    ("DefaultIngressClass", lambda parts: default_ingress_class.DefaultIngressClass(parts.store)),
    ("DeviceAdminAccess", lambda parts: device_admin_access.DeviceAdminAccess(parts.store)),
    ("PodTopologyLabels", None),
    ("NodeDeclaredFeatureValidator", None),
    ("PodResizeValidator", None),
    ("MutatingAdmissionPolicy", None),
    ("MutatingAdmissionWebhook", None),
    ("ValidatingAdmissionPolicy", None),
    ("ValidatingAdmissionWebhook", None),
    ("ResourceQuota", lambda parts: resource_quota.ResourceQuota(parts.clock.now)),
)
"""Name and how to make it; None keeps the place of a plugin that is not there yet."""


@frozen
class _Selected:
    """The plugins that care for one (operation, kind, subresource), phase by phase."""

    mutating: tuple[Mutating, ...]
    validating: tuple[Validating, ...]
    exact: tuple[Exact, ...]
    waiting: tuple[Waiting, ...]
    leaves_gaps: bool
    """Whether a mutating plugin may add what has defaults of its own; the built-in ones add whole things."""


class AdmissionChain:
    """Runs the plugins that care for a request, in order."""

    def __init__(self, plugins: Sequence[Plugin], store: Store | None = None) -> None:
        self._plugins = tuple(plugins)
        self._store = store
        self._selected: dict[tuple[object, ...], _Selected] = {}

    @property
    def names(self) -> list[str]:
        return [plugin.name for plugin in self._plugins]

    def _of(self, attributes: Attributes) -> _Selected:
        key = (attributes.operation, attributes.kind, attributes.subresource)
        selected = self._selected.get(key)
        if selected is None:
            selected = self._selected[key] = self._select(attributes)
        return selected

    def _select(self, attributes: Attributes) -> _Selected:
        caring = [plugin for plugin in self._plugins if plugin.handles(attributes)]
        return _Selected(
            tuple(plugin for plugin in caring if isinstance(plugin, Mutating)),
            tuple(plugin for plugin in caring if isinstance(plugin, Validating)),
            tuple(plugin for plugin in caring if isinstance(plugin, Exact)),
            tuple(plugin for plugin in caring if isinstance(plugin, Waiting)),
            any(getattr(plugin, "leaves_gaps", False) for plugin in caring),
        )

    def mutate(self, attributes: Attributes) -> bool:
        """The mutating phase. True when the object's defaults must run again afterwards."""
        selected = self._of(attributes)
        for plugin in selected.mutating:
            plugin.admit(attributes)
        return selected.leaves_gaps

    def validate(self, attributes: Attributes) -> None:
        for plugin in self._of(attributes).validating:
            plugin.validate(attributes)

    def settle(self, attributes: Attributes, head: Head) -> Sequence[Companion]:
        """What exact plugins demand. Raises an ApiError to refuse."""
        exact = self._of(attributes).exact
        if not exact:
            return ()
        companions: list[Companion] = []
        for plugin in exact:
            companions += plugin.settle(attributes, head)
        return companions

    async def wait(self, attributes: Attributes) -> None:
        """Give controllers a moment to make what the request needs; admission decides afterwards in any case."""
        for plugin in self._of(attributes).waiting:
            key = plugin.awaited(attributes)
            if key is not None and self._store is not None:
                await _appears(self._store, key)


async def _appears(store: Store, key: Key) -> None:
    appeared = anyio.Event()

    def listener(events: Sequence[Event]) -> None:
        if any(event.key == key for event in events):
            appeared.set()

    unlisten = store.listen(listener)
    try:
        with anyio.move_on_after(WAIT_S):
            await appeared.wait()
    finally:
        unlisten()


def default_chain(
    store: Store,
    entropy: Entropy,
    authorizer: Authorizer,
    switches: Mapping[str, bool] | None = None,
    clock: Clock | None = None,
) -> AdmissionChain:
    """Every plugin that is on by default, NodeRestriction included; `switches` turns single ones off."""
    parts, switches = Parts(store, entropy, authorizer, clock or SystemClock()), switches or {}
    plugins = [factory(parts) for name, factory in ORDER if factory is not None and switches.get(name, True)]
    return AdmissionChain(plugins, store)
