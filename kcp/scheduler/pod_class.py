"""The class of a pod: everything in it that scheduling looks at, computed once and shared by all pods alike.

Pods of one workload differ in name and uid; for the scheduler they are the same. Deciding works on classes, so that
parsing quantities, selectors and terms happens once per class and masks and scores can be kept between decisions.
What belongs to a single pod (its claims, its start time, its nomination) stays in `PodInfo`.
"""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from kcp.apis.semantics import affinity, pods, taints, topology, volumes
from kcp.machinery import meta
from kcp.machinery.labels import Selector, from_label_selector
from kcp.scheduler.terms import Counter, Group, Matcher, Term

Json = dict[str, Any]

NOTHING = Selector((), True)
BASE_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_SPREADING_OWNERS = {
    ("v1", "ReplicationController"): "replicationcontrollers",
    ("apps/v1", "ReplicaSet"): "replicasets.apps",
    ("apps/v1", "StatefulSet"): "statefulsets.apps",
}
_SPEC_FIELDS = (
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "overhead",
    "resources",
    "priority",
    "preemptionPolicy",
)
_DISKS = ("gcePersistentDisk", "awsElasticBlockStore", "rbd", "iscsi", "azureDisk", "cinder")


@attrs.frozen(eq=False)
class Shape:
    """A request vector. `real` has what is reserved, without zeros; `cpu`, `memory` what scoring counts at least."""

    real: tuple[tuple[str, int], ...]
    cpu: int
    memory: int

    def request(self, resource: str) -> int:
        return next((amount for name, amount in self.real if name == resource), 0)


@attrs.frozen(eq=False)
class Constraint:
    """A topology spread constraint with its selector compiled. An empty selector counts no pod, but matches the pod itself."""

    key: str
    max_skew: int
    min_domains: int
    group: Group
    matches_self: bool
    honor_affinity: bool
    honor_taints: bool


@attrs.define(eq=False)
class PodClass:
    """`weights` is what one pod of this class adds to which counter; `symmetric` the owned terms it matches.

    `on_nodes` counts the pods of this class by node name: what a new counter starts from.
    """

    key: bytes
    namespace: str
    labels: dict[str, str]
    terminating: bool
    priority: int
    never_preempts: bool
    shape: Shape
    tolerations: list[Json]
    sample: Json
    selects_nodes: bool
    node_signature: bytes
    toleration_signature: bytes
    preferred_nodes: list[Json]
    pinned: tuple[str, ...] | None
    hard_spread: tuple[Constraint, ...]
    soft_spread: tuple[Constraint, ...]
    has_spread: bool
    owner: tuple[str, str] | None
    required: tuple[Term, ...]
    required_anti: tuple[Term, ...]
    preferred: tuple[tuple[Term, int], ...]
    ports: tuple[tuple[str, str, int], ...]
    images: tuple[str, ...]
    image_containers: int
    weights: list[tuple[Counter, int]] = attrs.field(factory=list)
    symmetric: list[tuple[Term, str, Counter]] = attrs.field(factory=list)
    on_nodes: dict[str, int] = attrs.field(factory=dict)
    pods: int = 0
    number: int = 0

    @property
    def touches_other_pods(self) -> bool:
        """Whether a pod of this class changes more for others than resources and pod numbers."""
        return bool(self.weights or self.ports)


@attrs.define(eq=False)
class PodInfo:
    """One pod as the cluster state holds it. `node` is where it counts: bound, or assumed."""

    key: str
    uid: str
    pod: Json
    cls: PodClass
    volumes: tuple[Json, ...]
    node: str = ""
    bound: str = ""
    nominated: str = ""

    @property
    def priority(self) -> int:
        return self.cls.priority

    @property
    def start_time(self) -> str:
        """When it started; a pod without a start time counts as the youngest."""
        return (self.pod.get("status") or {}).get("startTime") or "~"


def _containers(spec: Json, field: str) -> list[list[Any]]:
    found = []
    for container in spec.get(field) or ():
        ports = [p for p in container.get("ports") or () if p.get("hostPort")]
        resources = container.get("resources")
        row: list[Any] = [container.get("image"), resources.get("requests") if resources else None]
        if ports or "restartPolicy" in container:
            row += [ports, container.get("restartPolicy"), container.get("restartPolicyRules")]
        found.append(row)
    return found


def _owner(metadata: Json) -> tuple[str, str] | None:
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            resource = _SPREADING_OWNERS.get((reference.get("apiVersion", ""), reference.get("kind", "")))
            return (resource, reference.get("name", "")) if resource else None
    return None


def class_key(pod: Json) -> bytes:
    """Equal for pods that scheduling cannot tell apart."""
    metadata, spec = pod["metadata"], pod["spec"]
    parts: list[Any] = [
        metadata.get("namespace", ""),
        metadata.get("labels"),
        _containers(spec, "containers"),
        _owner(metadata),
        "deletionTimestamp" in metadata,
    ]
    parts += [spec.get(field) for field in _SPEC_FIELDS]
    if "initContainers" in spec:
        parts.append(_containers(spec, "initContainers"))
    if "hostUsers" in spec:
        parts.append([spec["hostUsers"], spec.get("hostNetwork")])
    if "volumes" in spec:
        parts += [v["image"].get("reference") for v in spec["volumes"] if v.get("image")]
    statuses = (pod.get("status") or {}).get("containerStatuses")
    if statuses and any("resources" in s or "allocatedResources" in s for s in statuses):
        resize = pods.condition(pod, "PodResizePending")
        parts.append([[s.get("name"), s.get("resources"), s.get("allocatedResources")] for s in statuses])
        parts.append(resize.get("reason") if resize else None)
    return orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)


def scheduling_volumes(pod: Json) -> tuple[Json, ...]:
    """The volumes that a volume plugin looks at: claims, ephemeral claims, disks, inline CSI volumes."""
    found = pod["spec"].get("volumes")
    if not found:
        return ()
    kinds = ("persistentVolumeClaim", "ephemeral", "csi", *_DISKS)
    return tuple(v for v in found if any(v.get(kind) is not None for kind in kinds))


def affinity_term(pod: Json, term: Json) -> Term:
    """A pod affinity term: explicit namespaces and those of its selector; with neither, the pod's own namespace."""
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    namespaces, selector = term.get("namespaces") or (), term.get("namespaceSelector")
    if not namespaces and selector is None:
        namespaces = (metadata.get("namespace", ""),)
    matcher = Matcher(
        tuple(sorted(set(namespaces))),
        from_label_selector(selector) if selector is not None else None,
        from_label_selector(topology.term_selector(term, labels)),
    )
    return Term(matcher, term.get("topologyKey", ""))


def constraint_of(constraint: Json, namespace: str, labels: dict[str, str]) -> Constraint:
    selector = from_label_selector(topology.constraint_selector(constraint, labels))
    return spread_constraint(constraint, selector, namespace, labels)


def spread_constraint(
    constraint: Json, selector: Selector, namespace: str, labels: dict[str, str]
) -> Constraint:
    return Constraint(
        key=constraint["topologyKey"],
        max_skew=int(constraint["maxSkew"]),
        min_domains=int(constraint.get("minDomains") or 1),
        group=Group(namespace, NOTHING if selector.empty else selector),
        matches_self=selector.matches(labels),
        honor_affinity=constraint.get("nodeAffinityPolicy", "Honor") != "Ignore",
        honor_taints=constraint.get("nodeTaintsPolicy", "Ignore") == "Honor",
    )


def _preferred(pod: Json) -> tuple[tuple[Term, int], ...]:
    found = []
    for kind, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for weighted in topology.affinity_terms(pod, kind, required=False):
            term = affinity_term(pod, weighted.get("podAffinityTerm") or {})
            found.append((term, sign * int(weighted.get("weight", 0))))
    return tuple(found)


def _required(pod: Json, kind: str) -> tuple[Term, ...]:
    return tuple(affinity_term(pod, term) for term in topology.affinity_terms(pod, kind, required=True))


def normalized_image(name: str) -> str:
    """With the tag `latest` when it has none; a colon before the last slash is a port."""
    return f"{name}:latest" if name.rfind(":") <= name.rfind("/") else name


def _images(spec: Json) -> tuple[str, ...]:
    named = [c.get("image") or "" for f in ("initContainers", "containers") for c in spec.get(f) or ()]
    named += [v["image"].get("reference") or "" for v in spec.get("volumes") or () if v.get("image")]
    return tuple(normalized_image(name) for name in named)


def shape_of(pod: Json) -> tuple[tuple[tuple[str, int], ...], int, int]:
    """(real requests by name, non-zero millicores, non-zero bytes)."""
    real = pods.amounts(pods.requests(pod))
    cpu, memory = pods.non_zero_requests(pod)
    return tuple(sorted((name, amount) for name, amount in real.items() if amount)), cpu, memory


def parse_class(pod: Json, key: bytes, shape: Shape) -> PodClass:
    metadata, spec = pod["metadata"], pod["spec"]
    labels: dict[str, str] = metadata.get("labels") or {}
    spread = spec.get("topologySpreadConstraints") or ()
    preferred = affinity.preferred_terms(pod)
    required = affinity.node_affinity(pod).get("requiredDuringSchedulingIgnoredDuringExecution")
    pinned = affinity.pinned_names(pod)
    return PodClass(
        key=key,
        namespace=metadata.get("namespace", ""),
        labels=labels,
        terminating="deletionTimestamp" in metadata,
        priority=pods.priority(pod),
        never_preempts=spec.get("preemptionPolicy") == "Never",
        shape=shape,
        tolerations=taints.tolerations(pod),
        sample=pod,
        selects_nodes=bool(spec.get("nodeSelector")) or required is not None,
        node_signature=_signature([spec.get("nodeSelector") or None, required]),
        toleration_signature=_signature(spec.get("tolerations")),
        preferred_nodes=preferred,
        pinned=None if pinned is None else tuple(sorted(pinned)),
        hard_spread=tuple(
            constraint_of(c, metadata.get("namespace", ""), labels)
            for c in spread
            if c.get("whenUnsatisfiable") == "DoNotSchedule"
        ),
        soft_spread=tuple(
            constraint_of(c, metadata.get("namespace", ""), labels)
            for c in spread
            if c.get("whenUnsatisfiable") == "ScheduleAnyway"
        ),
        has_spread=bool(spread),
        owner=_owner(metadata),
        required=_required(pod, "podAffinity"),
        required_anti=_required(pod, "podAntiAffinity"),
        preferred=_preferred(pod),
        ports=tuple(pods.host_ports(pod)),
        images=_images(spec),
        image_containers=len(spec.get("initContainers") or ()) + len(spec.get("containers") or ()),
    )


def _signature(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def pod_key(pod: Json) -> str:
    return meta.key_of(pod)


def claim_names(info: PodInfo) -> list[tuple[str, bool]]:
    """(claim, whether it is an ephemeral volume's) in the order of the pod's volumes."""
    return list(volumes.claim_names(info.pod)) if info.volumes else []
