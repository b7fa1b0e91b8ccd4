"""The table of built-in resources, and the catalog made of it.

A row says what discovery says of a resource; what is special about its kind stands in the kind's own module, which
exports `STRATEGIES` and `PRINTERS` by kind name. Order is meaning: groups stand in priority order and so do the
versions of a group, because kubectl resolves an unqualified name by it. GA versions are served, alpha ones on demand.
Source: the discovery documents of k8s v1.36.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import import_module
from typing import Any

from kcp.apis import versions
from kcp.apis.kind import Catalog, Json, Kind, Printer, Strategy, Subresource
from kcp.apis.printing import GENERIC
from kcp.base.values import frozen
from kcp.machinery.gvk import GroupVersionKind

STANDARD_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_CHANGE = ("get", "patch", "update")
_PROXY = ("create", "delete", "get", "patch", "update")
_CREATE = ("create",)

SubresourceRow = tuple[str, tuple[str, ...]] | tuple[str, tuple[str, ...], str]
"""Name, verbs, and the kind as `group/version/Kind` or a kind of the same group version; left out: the parent's."""

_STATUS: SubresourceRow = ("status", _CHANGE)
_SCALE: SubresourceRow = ("scale", _CHANGE, "autoscaling/v1/Scale")


@frozen
class Row:
    """One resource. The singular name is the kind in lower case, for every built-in kind."""

    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    subresources: tuple[SubresourceRow, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = STANDARD_VERBS


_ALL = ("all",)
_EXTENSIONS = ("api-extensions",)

_POD_SUBRESOURCES: tuple[SubresourceRow, ...] = (
    ("attach", ("create", "get"), "PodAttachOptions"),
    ("binding", _CREATE, "Binding"),
    ("ephemeralcontainers", _CHANGE),
    ("eviction", _CREATE, "policy/v1/Eviction"),
    ("exec", ("create", "get"), "PodExecOptions"),
    ("log", ("get",)),
    ("portforward", ("create", "get"), "PodPortForwardOptions"),
    ("proxy", _PROXY, "PodProxyOptions"),
    ("resize", _CHANGE),
    _STATUS,
)

ROWS: tuple[tuple[str, str, tuple[Row, ...]], ...] = (
    ("", "v1", (
        Row("bindings", "Binding", verbs=_CREATE),
        Row("componentstatuses", "ComponentStatus", False, ("cs",), verbs=("get", "list")),
        Row("configmaps", "ConfigMap", True, ("cm",)),
        Row("endpoints", "Endpoints", True, ("ep",)),
        Row("events", "Event", True, ("ev",)),
        Row("limitranges", "LimitRange", True, ("limits",)),
        Row("namespaces", "Namespace", False, ("ns",), (("finalize", ("update",)), _STATUS),
            verbs=("create", "delete", "get", "list", "patch", "update", "watch")),
        Row("nodes", "Node", False, ("no",), (("proxy", _PROXY, "NodeProxyOptions"), _STATUS)),
        Row("persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), (_STATUS,)),
        Row("persistentvolumes", "PersistentVolume", False, ("pv",), (_STATUS,)),
        Row("pods", "Pod", True, ("po",), _POD_SUBRESOURCES, _ALL),
        Row("podtemplates", "PodTemplate"),
        Row("replicationcontrollers", "ReplicationController", True, ("rc",), (_SCALE, _STATUS), _ALL),
        Row("resourcequotas", "ResourceQuota", True, ("quota",), (_STATUS,)),
        Row("secrets", "Secret"),
        Row("serviceaccounts", "ServiceAccount", True, ("sa",),
            (("token", _CREATE, "authentication.k8s.io/v1/TokenRequest"),)),
        Row("services", "Service", True, ("svc",), (("proxy", _PROXY, "ServiceProxyOptions"), _STATUS), _ALL),
    )),
    ("apiregistration.k8s.io", "v1", (
        Row("apiservices", "APIService", False, (), (_STATUS,), _EXTENSIONS),
    )),
    ("apps", "v1", (
        Row("controllerrevisions", "ControllerRevision"),
        Row("daemonsets", "DaemonSet", True, ("ds",), (_STATUS,), _ALL),
        Row("deployments", "Deployment", True, ("deploy",), (_SCALE, _STATUS), _ALL),
        Row("replicasets", "ReplicaSet", True, ("rs",), (_SCALE, _STATUS), _ALL),
        Row("statefulsets", "StatefulSet", True, ("sts",), (_SCALE, _STATUS), _ALL),
    )),
    ("events.k8s.io", "v1", (
        Row("events", "Event", True, ("ev",)),
    )),
    ("authentication.k8s.io", "v1", (
        Row("selfsubjectreviews", "SelfSubjectReview", False, verbs=_CREATE),
        Row("tokenreviews", "TokenReview", False, verbs=_CREATE),
    )),
    ("authorization.k8s.io", "v1", (
        Row("localsubjectaccessreviews", "LocalSubjectAccessReview", verbs=_CREATE),
        Row("selfsubjectaccessreviews", "SelfSubjectAccessReview", False, verbs=_CREATE),
        Row("selfsubjectrulesreviews", "SelfSubjectRulesReview", False, verbs=_CREATE),
        Row("subjectaccessreviews", "SubjectAccessReview", False, verbs=_CREATE),
    )),
    ("autoscaling", "v2", (
        Row("horizontalpodautoscalers", "HorizontalPodAutoscaler", True, ("hpa",), (_STATUS,), _ALL),
    )),
    ("autoscaling", "v1", (
        Row("horizontalpodautoscalers", "HorizontalPodAutoscaler", True, ("hpa",), (_STATUS,), _ALL),
    )),
    ("batch", "v1", (
        Row("cronjobs", "CronJob", True, ("cj",), (_STATUS,), _ALL),
        Row("jobs", "Job", True, (), (_STATUS,), _ALL),
    )),
    ("certificates.k8s.io", "v1", (
        Row("certificatesigningrequests", "CertificateSigningRequest", False, ("csr",),
            (("approval", _CHANGE), _STATUS)),
    )),
    ("networking.k8s.io", "v1", (
        Row("ingressclasses", "IngressClass", False),
        Row("ingresses", "Ingress", True, ("ing",), (_STATUS,)),
        Row("ipaddresses", "IPAddress", False, ("ip",)),
        Row("networkpolicies", "NetworkPolicy", True, ("netpol",)),
        Row("servicecidrs", "ServiceCIDR", False, (), (_STATUS,)),
    )),
    ("policy", "v1", (
        Row("poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), (_STATUS,)),
    )),
    ("rbac.authorization.k8s.io", "v1", (
        Row("clusterrolebindings", "ClusterRoleBinding", False),
        Row("clusterroles", "ClusterRole", False),
        Row("rolebindings", "RoleBinding"),
        Row("roles", "Role"),
    )),
    ("storage.k8s.io", "v1", (
        Row("csidrivers", "CSIDriver", False),
        Row("csinodes", "CSINode", False),
        Row("csistoragecapacities", "CSIStorageCapacity"),
        Row("storageclasses", "StorageClass", False, ("sc",)),
        Row("volumeattachments", "VolumeAttachment", False, (), (_STATUS,)),
        Row("volumeattributesclasses", "VolumeAttributesClass", False, ("vac",)),
    )),
    ("admissionregistration.k8s.io", "v1", (
        Row("mutatingadmissionpolicies", "MutatingAdmissionPolicy", False, categories=_EXTENSIONS),
        Row("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", False, categories=_EXTENSIONS),
        Row("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False, categories=_EXTENSIONS),
        Row("validatingadmissionpolicies", "ValidatingAdmissionPolicy", False, (), (_STATUS,), _EXTENSIONS),
        Row("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False,
            categories=_EXTENSIONS),
        Row("validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False, categories=_EXTENSIONS),
    )),
    ("apiextensions.k8s.io", "v1", (
        Row("customresourcedefinitions", "CustomResourceDefinition", False, ("crd", "crds"), (_STATUS,),
            _EXTENSIONS),
    )),
    ("scheduling.k8s.io", "v1", (
        Row("priorityclasses", "PriorityClass", False, ("pc",)),
    )),
    ("coordination.k8s.io", "v1", (
        Row("leases", "Lease"),
    )),
    ("node.k8s.io", "v1", (
        Row("runtimeclasses", "RuntimeClass", False),
    )),
    ("discovery.k8s.io", "v1", (
        Row("endpointslices", "EndpointSlice"),
    )),
    ("resource.k8s.io", "v1", (
        Row("deviceclasses", "DeviceClass", False),
        Row("resourceclaims", "ResourceClaim", True, (), (_STATUS,)),
        Row("resourceclaimtemplates", "ResourceClaimTemplate"),
        Row("resourceslices", "ResourceSlice", False),
    )),
    ("flowcontrol.apiserver.k8s.io", "v1", (
        Row("flowschemas", "FlowSchema", False, (), (_STATUS,)),
        Row("prioritylevelconfigurations", "PriorityLevelConfiguration", False, (), (_STATUS,)),
    )),
)  # fmt: skip

ALPHA_ROWS: tuple[tuple[str, str, tuple[Row, ...]], ...] = (
    ("scheduling.k8s.io", "v1alpha2", (
        Row("podgroups", "PodGroup", True, (), (_STATUS,)),
        Row("workloads", "Workload"),
    )),
)  # fmt: skip
"""Served only when somebody asks for their version."""
ALPHA_VERSIONS = tuple(f"{group}/{version}" for group, version, _ in ALPHA_ROWS)
POD_GROUPS = "scheduling.k8s.io/v1alpha2"
"""The version that has PodGroup."""

MODULES: Mapping[str, str] = {
    "": "core",
    "admissionregistration.k8s.io": "admissionregistration",
    "apiextensions.k8s.io": "apiextensions",
    "apiregistration.k8s.io": "apiregistration",
    "apps": "apps",
    "authentication.k8s.io": "reviews",
    "authorization.k8s.io": "reviews",
    "autoscaling": "autoscaling",
    "batch": "batch",
    "certificates.k8s.io": "certificates",
    "coordination.k8s.io": "coordination",
    "discovery.k8s.io": "discovery",
    "events.k8s.io": "core",
    "flowcontrol.apiserver.k8s.io": "flowcontrol",
    "networking.k8s.io": "networking",
    "node.k8s.io": "node",
    "policy": "policy",
    "rbac.authorization.k8s.io": "rbac",
    "resource.k8s.io": "resource",
    "scheduling.k8s.io": "scheduling",
    "storage.k8s.io": "storage",
}
"""Group -> module below `kcp.apis`, or a package of which every module counts."""

_DEPRECATED: Mapping[str, str] = {
    "ComponentStatus": "v1 ComponentStatus is deprecated in v1.19+",
    "Endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}
"""Source: k8s v1.36 api/core/v1/zz_generated.prerelease-lifecycle.go, apiserver/pkg/endpoints/deprecation."""

_FREE_FINALIZERS = frozenset(
    {"apiextensions.k8s.io", "admissionregistration.k8s.io", "apiregistration.k8s.io", "coordination.k8s.io"}
    | {"events.k8s.io", "node.k8s.io", "policy"}
)
"""Groups whose kinds take any finalizer; so do core Events. Source: which ValidateObjectMeta their validation calls."""

_VIRTUAL = frozenset({"authentication.k8s.io", "authorization.k8s.io"})
_VIRTUAL_CORE = frozenset({"Binding", "ComponentStatus"})


@frozen
class _Conversion:
    """Another version of a resource whose storage form is owned elsewhere."""

    storage_resource: str
    to_storage: Callable[[Json], Json]
    from_storage: Callable[[Json], Json]


_CONVERSIONS: Mapping[tuple[str, str, str], _Conversion] = {
    ("autoscaling", "v1", "HorizontalPodAutoscaler"): _Conversion(
        "horizontalpodautoscalers.autoscaling", versions.hpa_v1_to_v2, versions.hpa_v2_to_v1
    ),
    ("events.k8s.io", "v1", "Event"): _Conversion(
        "events", versions.events_v1_to_core, versions.core_to_events_v1
    ),
}


def _modules(name: str) -> Iterator[Any]:
    module = import_module(f"kcp.apis.{name}")
    yield module
    for entry in pkgutil.iter_modules(getattr(module, "__path__", ())):
        yield import_module(f"kcp.apis.{name}.{entry.name}")


def _collect(name: str) -> tuple[dict[str, Strategy], dict[str, Printer]]:
    strategies: dict[str, Strategy] = {}
    printers: dict[str, Printer] = {}
    for module in _modules(name):
        strategies.update(getattr(module, "STRATEGIES", {}))
        printers.update(getattr(module, "PRINTERS", {}))
    return strategies, printers


def _generic_strategy(row: Row) -> Strategy:
    has_status = any(name == "status" for name, *_ in row.subresources)
    return Strategy(has_status=has_status, has_generation=has_status)


def _subresource(row: SubresourceRow, parent: GroupVersionKind) -> Subresource:
    name, verbs, *rest = row
    if not rest:
        return Subresource(name, verbs, parent)
    group, _, kind = str(rest[0]).rpartition("/")
    if not group:
        return Subresource(name, verbs, GroupVersionKind(parent.group, parent.version, kind))
    foreign, _, version = group.partition("/")
    return Subresource(name, verbs, GroupVersionKind(foreign, version, kind))


def _kind(
    group: str, version: str, row: Row, strategies: Mapping[str, Strategy], printers: Mapping[str, Printer]
) -> Kind:
    gvk = GroupVersionKind(group, version, row.kind)
    conversion = _CONVERSIONS.get((group, version, row.kind))
    own = f"{group}/{row.kind}"
    return Kind(
        gvk=gvk,
        plural=row.plural,
        singular=row.kind.lower(),
        namespaced=row.namespaced,
        verbs=row.verbs,
        short_names=row.short_names,
        categories=row.categories,
        subresources=tuple(_subresource(sub, gvk) for sub in row.subresources),
        strategy=strategies.get(own) or strategies.get(row.kind) or _generic_strategy(row),
        printer=printers.get(own) or printers.get(row.kind) or GENERIC,
        storage_resource=conversion.storage_resource if conversion else "",
        to_storage=conversion.to_storage if conversion else None,
        from_storage=conversion.from_storage if conversion else None,
        kube_finalizers=group not in _FREE_FINALIZERS and row.kind != "Event",
        deprecation="" if group else _DEPRECATED.get(row.kind, ""),
        stored=group not in _VIRTUAL and (group != "" or row.kind not in _VIRTUAL_CORE),
    )


def _with_alpha(alpha: Collection[str]) -> Iterator[tuple[str, str, tuple[Row, ...]]]:
    """An alpha version stands behind the others of its group."""
    wanted = [row for row in ALPHA_ROWS if f"{row[0]}/{row[1]}" in alpha]
    for number, row in enumerate(ROWS):
        yield row
        if all(later[0] != row[0] for later in ROWS[number + 1 :]):
            yield from (found for found in wanted if found[0] == row[0])


def build_catalog(alpha: Collection[str] = ()) -> Catalog:
    """A fresh catalog of every built-in resource, core first; custom resources are added to it later.

    `alpha` are the versions of ALPHA_VERSIONS to serve. A module names a strategy by kind, or by `group/Kind` where two
    groups share the kind and differ.
    """
    found = {name: _collect(name) for name in dict.fromkeys(MODULES.values())}
    kinds = [
        _kind(group, version, row, *found[MODULES[group]])
        for group, version, rows in _with_alpha(alpha)
        for row in rows
    ]
    return Catalog(kinds)
