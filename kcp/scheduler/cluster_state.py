"""The cluster as the scheduler sees it: arrays over nodes, pods by uid, and the objects that plugins ask about.

The state is a pure fold: what it says depends on the objects applied and on the pods assumed, not on the order in which
they came. Nodes are numbered in the order of their names, so an index compares like a name.

    apply(resource, old, new)     an object was added, changed or removed
    assume(uid, node)             a decision that is not in the log yet; forget(uid) takes it back
    settle()                      renumbers after nodes came or went; called before each decision

`dirty` lists the node indexes whose pods or capacity changed; caches remember how far they have read. `epoch` rises when
they must compute anew: nodes came or went, labels, taints or images changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from kcp.apis.semantics import nodes as node_facts
from kcp.apis.semantics import pods, taints
from kcp.machinery import meta
from kcp.scheduler.dra.devices import CLASSES, DEVICE_KINDS, Devices
from kcp.scheduler.dra.extended import class_by_resource
from kcp.scheduler.pod_class import (
    BASE_RESOURCES,
    PodClass,
    PodInfo,
    Shape,
    class_key,
    normalized_image,
    parse_class,
    pod_key,
    scheduling_volumes,
    shape_of,
)
from kcp.scheduler.terms import Bools, Counter, Domains, Group, Ids, Ints, Matcher, Term

Json = dict[str, Any]
Weigh = Callable[[PodClass], int]
Account = Callable[[PodInfo, int], None]
"""Told of each pod that comes onto a node (1) or leaves one (-1)."""

ATTACHMENTS = "volumeattachments.storage.k8s.io"
RESOURCES = (
    "pods",
    "nodes",
    "namespaces",
    "services",
    "replicationcontrollers",
    "replicasets.apps",
    "statefulsets.apps",
    "poddisruptionbudgets.policy",
    "persistentvolumes",
    "persistentvolumeclaims",
    "storageclasses.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "csidrivers.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io",
    ATTACHMENTS,
    *DEVICE_KINDS,
)
"""Everything a decision may depend on."""
POD_GROUPS = "podgroups.scheduling.k8s.io"
OPTIONAL_RESOURCES = (POD_GROUPS,)
"""Followed when a plugin looks at them, since an API need not serve them."""
_SELECTING = frozenset({"services", "replicationcontrollers", "replicasets.apps", "statefulsets.apps"})
AVOIDS_PODS = "scheduler.alpha.kubernetes.io/preferAvoidPods"
"""Annotation of a node: whose pods it would rather not have."""
MAX_DIRTY_PER_NODE = 4
MAX_IDLE_CLASSES = 4096


@attrs.define(eq=False)
class NodeInfo:
    """One node. `index` is valid after `settle`; -1 before. `version` rises whenever its pods, nominations or amounts change. A node that is gone but still has pods has no `node`."""

    name: str
    node: Json | None = None
    index: int = -1
    labels: dict[str, str] = attrs.field(factory=dict)
    taints: list[Json] = attrs.field(factory=list)
    unschedulable: bool = False
    allocatable: dict[str, int] = attrs.field(factory=dict)
    images: dict[str, int] = attrs.field(factory=dict)
    features: frozenset[str] = frozenset()
    avoids: str = ""
    pods: dict[str, PodInfo] = attrs.field(factory=dict)
    version: int = 0

    def set(self, node: Json) -> bool:
        """Take over the node's present form; returns whether anything but the allocatable amounts changed."""
        old = self._facts()
        self.node = node
        self.labels = node_facts.labels(node)
        self.taints = taints.taints(node)
        self.unschedulable = node_facts.is_unschedulable(node)
        status = node.get("status") or {}
        self.allocatable = pods.amounts(pods.resource_list(status.get("allocatable")))
        self.images = _image_sizes(status)
        self.features = frozenset(status.get("declaredFeatures") or ())
        self.avoids = meta.annotations(node).get(AVOIDS_PODS, "")
        return old != self._facts()

    def _facts(self) -> tuple[Any, ...]:
        return self.labels, self.taints, self.unschedulable, self.images, self.features, self.avoids


def _image_sizes(status: Json) -> dict[str, int]:
    return {
        normalized_image(name): int(image.get("sizeBytes") or 0)
        for image in status.get("images") or ()
        for name in image.get("names") or ()
    }


class ResourceColumns:
    """Allocatable and requested amounts of one resource, per node."""

    __slots__ = ("allocatable", "requested")

    def __init__(self, nodes: int) -> None:
        self.allocatable: Ints = np.zeros(nodes, np.int64)
        self.requested: Ints = np.zeros(nodes, np.int64)


class ClusterState:
    """Owned by the scheduler's task."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeInfo] = {}
        self.pods: dict[str, PodInfo] = {}
        self.objects: dict[str, dict[str, Json]] = {
            resource: {} for resource in (*RESOURCES[2:], *OPTIONAL_RESOURCES)
        }
        self.infos: list[NodeInfo] = []
        self.columns: dict[str, ResourceColumns] = {}
        self.scored_cpu: Ints = np.zeros(0, np.int64)
        self.scored_memory: Ints = np.zeros(0, np.int64)
        self.pod_count: Ints = np.zeros(0, np.int64)
        self.max_pods: Ints = np.zeros(0, np.int64)
        self.dirty: list[int] = []
        self.epoch = 0
        self.selecting_version: dict[str, int] = {}
        self.budgets_version = 0
        self.namespaces_version = 0
        self.ports: dict[tuple[str, int], dict[str, dict[str, int]]] = {}
        self.nominations: dict[str, dict[str, PodInfo]] = {}
        self.assumed: dict[str, str] = {}
        self.nominated_here: dict[str, str] = {}
        self.attachments: dict[str, dict[str, Json]] = {}
        """By node: what is attached to it, or about to be, or still."""
        self.reserved: dict[str, str] = {}
        """Volume -> the claim that is being bound to it."""
        self.selecting: dict[str, str] = {}
        """Claim -> the node for which a volume is being asked for."""
        self.together: frozenset[str] = frozenset()
        """The pods of the gang that is being tried: claims that one of them gets are all of theirs."""
        self.devices = Devices()
        self.device_classes: dict[str, str] = {}
        """Extended resource -> the DeviceClass that serves it on nodes which do not offer it themselves."""
        self.accounts: list[Account] = []
        self.evicting: dict[str, tuple[str, ...]] = {}
        self.guard: dict[str, int] = {}
        self._classes: dict[bytes, PodClass] = {}
        self._shapes: dict[Any, Shape] = {}
        self._matching: dict[Any, tuple[Weigh, Counter]] = {}
        self._owned: dict[tuple[str, Term], Counter] = {}
        self._domains: dict[str, Domains] = {}
        self._images: dict[str, tuple[list[tuple[int, int]], int]] | None = None
        self._node_set_changed = False
        self._class_number = 0
        self._max_classes = MAX_IDLE_CLASSES
        for resource in BASE_RESOURCES:
            self.columns[resource] = ResourceColumns(0)

    def __len__(self) -> int:
        """The number of nodes, after `settle`."""
        return len(self.infos)

    # --- objects ---

    def apply(self, resource: str, old: Json | None, new: Json | None) -> None:
        """One object was added (`old` None), changed, or removed (`new` None)."""
        if resource == "pods":
            self._apply_pod(old, new)
        elif resource == "nodes":
            self._apply_node(old, new)
        else:
            self._apply_object(resource, old, new)

    def _apply_object(self, resource: str, old: Json | None, new: Json | None) -> None:
        objects = self.objects[resource]
        obj = new if new is not None else old
        assert obj is not None
        key = meta.key_of(obj)
        before = objects.get(key)
        if new is None:
            objects.pop(key, None)
        else:
            objects[key] = new
        if resource in _SELECTING:
            if _selector(before) != _selector(new) or (before is None) != (new is None):
                namespace = meta.namespace(obj)
                self.selecting_version[namespace] = self.selecting_version.get(namespace, 0) + 1
        elif resource == "namespaces":
            if before is None or new is None or meta.labels(before) != meta.labels(new):
                self._namespace_changed(key)
        elif resource == "poddisruptionbudgets.policy":
            self.budgets_version += 1
        elif resource == ATTACHMENTS:
            self._attached(key, before, new)
        elif resource in DEVICE_KINDS:
            self.devices.apply(resource, key, before, new)
            if resource == CLASSES:
                self._classes_changed(objects)

    def _attached(self, key: str, before: Json | None, new: Json | None) -> None:
        for attachment in (before, new):
            if attachment is not None:
                node = (attachment.get("spec") or {}).get("nodeName") or ""
                self.attachments.setdefault(node, {}).pop(key, None)
                if attachment is new:
                    self.attachments[node][key] = attachment
                elif not self.attachments[node]:
                    del self.attachments[node]

    def _classes_changed(self, classes: Mapping[str, Json]) -> None:
        serving = class_by_resource(classes.values())
        if serving != self.device_classes:
            self.device_classes = serving
            self._bump()

    def namespace_labels(self, namespace: str) -> Mapping[str, str]:
        found = self.objects["namespaces"].get(namespace)
        return meta.labels(found) if found is not None else {}

    def _namespace_changed(self, namespace: str) -> None:
        """Pods of this namespace may now match other terms: count them anew."""
        self.namespaces_version += 1
        for cls in [c for c in self._classes.values() if c.namespace == namespace]:
            placed = [(self.nodes[name], count) for name, count in cls.on_nodes.items()]
            self._count_class(cls, placed, -1)
            self._register_class(cls)
            self._count_class(cls, placed, 1)

    @staticmethod
    def _count_class(cls: PodClass, placed: list[tuple[NodeInfo, int]], sign: int) -> None:
        for counter, weight in cls.weights:
            for info, count in placed:
                if info.index >= 0:
                    counter.add(info.index, sign * weight * count)

    # --- nodes ---

    def _apply_node(self, old: Json | None, new: Json | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        name = obj["metadata"]["name"]
        info = self.nodes.get(name)
        if new is None:
            if info is not None and info.node is not None:
                info.node = None
                self._node_set_changed = True
                if not info.pods:
                    del self.nodes[name]
            return
        if info is None:
            info = self.nodes[name] = NodeInfo(name)
        info.version += 1
        known = info.node is not None
        before = info.allocatable
        changed = info.set(new)
        if not known:
            info.index = -1
            self._node_set_changed = True
        elif info.index < 0:
            return
        elif changed:
            self._write_allocatable(info)
            self._bump()
        elif before != info.allocatable:
            self._write_allocatable(info)
            self.dirty.append(info.index)

    def _bump(self) -> None:
        """What was computed from labels, taints or images no longer holds."""
        self.epoch += 1
        self.dirty.clear()
        self._domains.clear()
        self._images = None
        for _, counter in self._matching.values():
            counter.sums.clear()
        for counter in self._owned.values():
            counter.sums.clear()

    def set_guard(self, levels: Mapping[str, int]) -> None:
        """Which nodes are rather not to be used, and how much so; see NodeFailureGuard."""
        if levels != self.guard:
            self.guard = dict(levels)
            self._bump()

    def settle(self) -> None:
        """Give nodes their numbers. After it, `infos[i]` and row i of every array belong to the i-th name."""
        if not self._node_set_changed:
            if len(self.dirty) > MAX_DIRTY_PER_NODE * len(self.infos) + 1000:
                self.epoch += 1
                self.dirty.clear()
            return
        self._node_set_changed = False
        self.infos = [self.nodes[name] for name in sorted(self.nodes) if self.nodes[name].node is not None]
        moved = np.array([info.index for info in self.infos], np.int64)
        for info in self.nodes.values():
            info.index = -1
        for index, info in enumerate(self.infos):
            info.index = index
        self._move_arrays(moved)
        self._bump()
        for index in np.flatnonzero(moved < 0).tolist():
            self._fill_row(self.infos[index])

    def _move_arrays(self, old_index: NDArray[np.int64]) -> None:
        nodes = len(old_index)
        kept = old_index >= 0
        source = old_index[kept]

        def move(array: Ints) -> Ints:
            moved = np.zeros(nodes, np.int64)
            moved[kept] = array[source]
            return moved

        for columns in self.columns.values():
            columns.allocatable, columns.requested = move(columns.allocatable), move(columns.requested)
        self.scored_cpu, self.scored_memory = move(self.scored_cpu), move(self.scored_memory)
        self.pod_count, self.max_pods = move(self.pod_count), move(self.max_pods)
        for _, counter in self._matching.values():
            counter.move(old_index, nodes)
        for counter in self._owned.values():
            counter.move(old_index, nodes)

    def _fill_row(self, info: NodeInfo) -> None:
        """A node that is new to the arrays, with the pods that are already known to run there."""
        self._write_allocatable(info)
        for pod in list(info.pods.values()):
            self._add_to_arrays(pod.cls, info.index, 1)

    def _write_allocatable(self, info: NodeInfo) -> None:
        for resource in info.allocatable:
            if resource != "pods" and resource not in self.columns:
                self.columns[resource] = ResourceColumns(len(self.infos))
        for resource, columns in self.columns.items():
            columns.allocatable[info.index] = info.allocatable.get(resource, 0)
        self.max_pods[info.index] = info.allocatable.get("pods", 0)

    def column(self, resource: str) -> ResourceColumns:
        found = self.columns.get(resource)
        if found is None:
            found = self.columns[resource] = ResourceColumns(len(self.infos))
        return found

    # --- pods ---

    def _apply_pod(self, old: Json | None, new: Json | None) -> None:
        if old is not None and new is not None and meta.uid(old) != meta.uid(new):
            self._apply_pod(old, None)
            old = None
        obj = new if new is not None else old
        assert obj is not None
        uid = meta.uid(obj)
        info = self.pods.get(uid)
        if new is None or pods.is_terminal(new):
            if info is not None:
                self._remove_pod(info)
            self.assumed.pop(uid, None)
            self.nominated_here.pop(uid, None)
            return
        if info is None:
            self._insert_pod(new)
        else:
            self._update_pod(info, new)

    def classes(self) -> Iterable[PodClass]:
        """Every class that a pod has, and some that none has any more."""
        return self._classes.values()

    def class_of(self, pod: Json) -> PodClass:
        key = class_key(pod)
        found = self._classes.get(key)
        return found if found is not None else self._new_class(pod, key)

    def _insert_pod(self, pod: Json) -> None:
        cls = self.class_of(pod)
        info = PodInfo(pod_key(pod), meta.uid(pod), pod, cls, scheduling_volumes(pod))
        cls.pods += 1
        self.pods[info.uid] = info
        self._place(info)
        self._nominate(info)

    def _update_pod(self, info: PodInfo, pod: Json) -> None:
        key = class_key(pod)
        if key != info.cls.key:
            self._unplace(info)
            info.cls.pods -= 1
            cls = self._classes.get(key)
            info.cls = cls if cls is not None else self._new_class(pod, key)
            info.cls.pods += 1
        info.pod, info.volumes = pod, scheduling_volumes(pod)
        if info.node:
            self.nodes[info.node].version += 1
        self._place(info)
        self._nominate(info)

    def _remove_pod(self, info: PodInfo) -> None:
        self._unplace(info)
        self._drop_nomination(info)
        info.cls.pods -= 1
        del self.pods[info.uid]

    def _place(self, info: PodInfo) -> None:
        """Count the pod where it is bound, else where it is assumed to be."""
        info.bound = info.pod["spec"].get("nodeName") or ""
        if info.bound:
            self.assumed.pop(info.uid, None)
        node = info.bound or self.assumed.get(info.uid, "")
        if node == info.node:
            return
        self._unplace(info)
        if node:
            self.add_to_node(info, node)

    def _unplace(self, info: PodInfo) -> None:
        if info.node:
            self.take_from_node(info)

    def add_to_node(self, info: PodInfo, name: str) -> None:
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = NodeInfo(name)
        info.node = name
        node.version += 1
        node.pods[info.uid] = info
        cls = info.cls
        cls.on_nodes[name] = cls.on_nodes.get(name, 0) + 1
        for address, protocol, port in cls.ports:
            used = self.ports.setdefault((protocol, port), {}).setdefault(name, {})
            used[address] = used.get(address, 0) + 1
        if node.index >= 0:
            self._add_to_arrays(cls, node.index, 1)
            self.dirty.append(node.index)
        for account in self.accounts:
            account(info, 1)

    def take_from_node(self, info: PodInfo) -> None:
        name, info.node = info.node, ""
        node = self.nodes[name]
        del node.pods[info.uid]
        node.version += 1
        cls = info.cls
        left = cls.on_nodes[name] - 1
        if left:
            cls.on_nodes[name] = left
        else:
            del cls.on_nodes[name]
        for address, protocol, port in cls.ports:
            self._free_port(protocol, port, name, address)
        if node.index >= 0:
            self._add_to_arrays(cls, node.index, -1)
            self.dirty.append(node.index)
        for account in self.accounts:
            account(info, -1)
        if node.node is None and not node.pods:
            del self.nodes[name]

    def _free_port(self, protocol: str, port: int, name: str, address: str) -> None:
        by_node = self.ports[(protocol, port)]
        used = by_node[name]
        used[address] -= 1
        if not used[address]:
            del used[address]
            if not used:
                del by_node[name]
                if not by_node:
                    del self.ports[(protocol, port)]

    def _add_to_arrays(self, cls: PodClass, index: int, sign: int) -> None:
        shape = cls.shape
        for resource, amount in shape.real:
            self.column(resource).requested[index] += sign * amount
        self.scored_cpu[index] += sign * shape.cpu
        self.scored_memory[index] += sign * shape.memory
        self.pod_count[index] += sign
        for counter, weight in cls.weights:
            counter.add(index, sign * weight)

    # --- decisions that the log does not have yet ---

    def assume(self, uid: str, node: str) -> None:
        """Count the pod on `node` from now on. Its nomination ends."""
        info = self.pods[uid]
        self.assumed[uid] = node
        self._place(info)
        self._nominate(info)

    def forget(self, uid: str) -> None:
        """The assumption was wrong: the pod is where the log says, if it is there at all."""
        self.assumed.pop(uid, None)
        info = self.pods.get(uid)
        if info is not None:
            if not info.bound:
                self._unplace(info)
            self._nominate(info)

    def nominate(self, uid: str, node: str) -> None:
        """The pod is to run on `node` once its victims are gone ("": its nomination is withdrawn), until the log agrees."""
        info = self.pods.get(uid)
        if info is not None:
            self.nominated_here[uid] = node
            self._nominate(info)

    def withdraw(self, uid: str) -> None:
        """The pod is nominated where the log says, again."""
        self.nominated_here.pop(uid, None)
        info = self.pods.get(uid)
        if info is not None:
            self._nominate(info)

    def _nominate(self, info: PodInfo) -> None:
        in_log = (info.pod.get("status") or {}).get("nominatedNodeName") or ""
        if info.bound or self.nominated_here.get(info.uid) == in_log:
            self.nominated_here.pop(info.uid, None)
        wanted = "" if info.node else self.nominated_here.get(info.uid, in_log)
        if wanted == info.nominated:
            return
        self._drop_nomination(info)
        info.nominated = wanted
        if wanted:
            self.nominations.setdefault(wanted, {})[info.uid] = info
            self._nominations_changed(wanted)

    def _nominations_changed(self, name: str) -> None:
        node = self.nodes.get(name)
        if node is not None:
            node.version += 1

    def _drop_nomination(self, info: PodInfo) -> None:
        if info.nominated:
            self._nominations_changed(info.nominated)
            there = self.nominations[info.nominated]
            del there[info.uid]
            if not there:
                del self.nominations[info.nominated]
            info.nominated = ""

    # --- classes and counters ---

    def _new_class(self, pod: Json, key: bytes) -> PodClass:
        if len(self._classes) > self._max_classes:
            self._drop_idle_classes()
        real, cpu, memory = shape_of(pod)
        shape = self._shapes.get((real, cpu, memory))
        if shape is None:
            shape = self._shapes[(real, cpu, memory)] = Shape(real, cpu, memory)
        cls = parse_class(pod, key, shape)
        self._class_number += 1
        cls.number = self._class_number
        self._classes[key] = cls
        for kind, term, _ in _owned_terms(cls):
            self._owned_counter(kind, term)
        self._register_class(cls)
        return cls

    def _drop_idle_classes(self) -> None:
        self._classes = {key: cls for key, cls in self._classes.items() if cls.pods}
        self._max_classes = max(MAX_IDLE_CLASSES, 2 * len(self._classes))
        shapes = {id(cls.shape) for cls in self._classes.values()}
        self._shapes = {key: shape for key, shape in self._shapes.items() if id(shape) in shapes}
        owned = {(kind, term) for cls in self._classes.values() for kind, term, _ in _owned_terms(cls)}
        self._owned = {key: counter for key, counter in self._owned.items() if key in owned}
        self._matching.clear()
        for cls in self._classes.values():
            self._register_class(cls)
        self.epoch += 1
        self.dirty.clear()

    def _register_class(self, cls: PodClass) -> None:
        weights = [(counter, weigh(cls)) for weigh, counter in self._matching.values()]
        owned: dict[tuple[str, Term], int] = {}
        for kind, term, weight in _owned_terms(cls):
            owned[(kind, term)] = owned.get((kind, term), 0) + weight
        weights += [(self._owned[key], weight) for key, weight in owned.items()]
        cls.weights = [(counter, weight) for counter, weight in weights if weight]
        labels = self.namespace_labels(cls.namespace)
        cls.symmetric = [
            (term, kind, counter)
            for (kind, term), counter in self._owned.items()
            if term.matcher.matches(cls.namespace, cls.labels, labels)
        ]

    def _owned_counter(self, kind: str, term: Term) -> Counter:
        counter = self._owned.get((kind, term))
        if counter is None:
            counter = self._owned[(kind, term)] = Counter(len(self.infos))
            for cls in self._classes.values():
                labels = self.namespace_labels(cls.namespace)
                if term.matcher.matches(cls.namespace, cls.labels, labels):
                    cls.symmetric.append((term, kind, counter))
        return counter

    def _matching_counter(self, key: Any, weigh: Weigh) -> Counter:
        found = self._matching.get(key)
        if found is not None:
            return found[1]
        counter = Counter(len(self.infos))
        self._matching[key] = (weigh, counter)
        for cls in self._classes.values():
            weight = weigh(cls)
            if not weight:
                continue
            cls.weights.append((counter, weight))
            for name, count in cls.on_nodes.items():
                index = self.nodes[name].index
                if index >= 0:
                    counter.add(index, weight * count)
        return counter

    def matching_all(self, matchers: tuple[Matcher, ...]) -> Counter:
        """Counts the pods that match every one of these."""

        def weigh(cls: PodClass) -> int:
            labels = self.namespace_labels(cls.namespace)
            return int(all(m.matches(cls.namespace, cls.labels, labels) for m in matchers))

        return self._matching_counter(("all", matchers), weigh)

    def spreading(self, group: Group) -> Counter:
        """Counts the pods of a namespace that match and are not being deleted."""

        def weigh(cls: PodClass) -> int:
            if cls.namespace != group.namespace or cls.terminating:
                return 0
            return int(group.selector.matches(cls.labels))

        return self._matching_counter(group, weigh)

    # --- what plugins ask about nodes ---

    def domains(self, key: str) -> Domains:
        """The values of a label key over the nodes."""
        found = self._domains.get(key)
        if found is None:
            numbers: dict[str, int] = {}
            ids: list[int] = []
            for info in self.infos:
                value = info.labels.get(key)
                ids.append(-1 if value is None else numbers.setdefault(value, len(numbers)))
            array: Ids = np.array(ids, np.int32)
            lacking = array < 0
            array[lacking] = len(numbers)
            found = Domains(array, len(numbers), tuple(numbers), bool(lacking.any()))
            self._domains[key] = found
        return found

    def rows(self, rows: slice) -> list[NodeInfo]:
        return self.infos[rows]

    def each_node(self, test: Callable[[NodeInfo], bool]) -> Bools:
        return np.fromiter((test(info) for info in self.infos), np.bool_, len(self.infos))

    def image(self, name: str) -> tuple[list[tuple[int, int]], int]:
        """([(node index, size)], number of nodes) that have the image."""
        if self._images is None:
            found: dict[str, list[tuple[int, int]]] = {}
            for index, info in enumerate(self.infos):
                for image, size in info.images.items():
                    found.setdefault(image, []).append((index, size))
            self._images = {image: (there, len(there)) for image, there in found.items()}
        return self._images.get(name, ([], 0))

    def pods_on(self, index: int) -> Iterator[PodInfo]:
        return iter(self.infos[index].pods.values())


def _owned_terms(cls: PodClass) -> Iterator[tuple[str, Term, int]]:
    """The terms that a pod brings to bear on others: (kind, term, weight)."""
    for term in cls.required_anti:
        yield "anti", term, 1
    for term in cls.required:
        yield "hard", term, 1
    for term, weight in cls.preferred:
        yield "preferred", term, weight


def _selector(obj: Json | None) -> Any:
    return (obj.get("spec") or {}).get("selector") if obj is not None else None
