"""What the controllers of sets, jobs, daemons, volumes and quotas promise at every revision.

As in `invariants.py` each sees every event once; limits count as the object had them within the last two minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from kcp.apis.semantics import pods as pod_facts
from kcp.apis.semantics import quota as quota_facts
from kcp.apis.semantics import workloads
from kcp.base.clock import moment
from kcp.machinery import meta
from kcp.machinery.quantity import parse
from kcp.replay.device_invariants import DevicesOnce
from kcp.replay.invariants import Invariant, Limit
from kcp.store.protocol import Event, Op

Json = dict[str, Any]
JOBS, STATEFULSETS, DAEMONSETS = "jobs.batch", "statefulsets.apps", "daemonsets.apps"
CLAIMS, VOLUMES, QUOTAS = "persistentvolumeclaims", "persistentvolumes", "resourcequotas"
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
POD_INDEX = "apps.kubernetes.io/pod-index"
HOSTNAME = "metadata.name"


def _parallelism(job: Json) -> int:
    return 0 if job["spec"].get("suspend") else int(job["spec"].get("parallelism", 1))


LIMITS: Mapping[str, Callable[[Json], int]] = {
    "replicationcontrollers": workloads.replicas,
    JOBS: _parallelism,
}
"""How many active pods an owner of this kind may have. A StatefulSet may have more: it fills its ordinals whether or not
it has adopted pods of others. See `Ordinals`.
"""


def _job_index(pod: Json) -> str:
    return meta.annotations(pod).get(COMPLETION_INDEX, "")


def _set_index(pod: Json) -> str:
    return meta.labels(pod).get(POD_INDEX, "")


def _daemon_node(pod: Json) -> str:
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get(
        "nodeSelectorTerms", ()
    )
    fields = [field for term in terms for field in term.get("matchFields", ())]
    return next((field["values"][0] for field in fields if field["key"] == HOSTNAME), "")


IDENTITIES: Mapping[str, Callable[[Json], str]] = {
    "StatefulSet": _set_index,
    "Job": _job_index,
    "DaemonSet": _daemon_node,
}
"""What no two active pods of one owner have in common; empty where there is none."""


@attrs.define
class Group:
    """The active pods of an owner, by uid, with their identities."""

    key: str
    limit: Limit | None = None
    shares: int = 1
    """So many may have one identity: two while a DaemonSet surges."""
    pods: dict[str, str] = attrs.field(factory=dict)


@attrs.define
class Members:
    """Never more active pods than replicas or parallelism; one per StatefulSet ordinal, per index of an Indexed Job, per
    node of a DaemonSet.
    """

    name = "members"
    as_stamped = False
    groups: dict[str, Group] = attrs.field(factory=dict)
    group_of: dict[str, str] = attrs.field(factory=dict)

    def see(self, event: Event) -> Iterator[str]:
        resource = event.key.resource
        if resource == "pods":
            yield from self._pod(event)
        elif resource in (*LIMITS, STATEFULSETS, DAEMONSETS):
            self._owner(event)

    def _owner(self, event: Event) -> None:
        uid, resource, obj = event.record.uid, event.key.resource, event.record.value
        if event.op is Op.DELETED:
            self.groups.pop(uid, None)
            return
        group = self.groups.setdefault(uid, Group(str(event.key)))
        if resource in LIMITS:
            group.limit = group.limit or Limit()
            group.limit.set(LIMITS[resource](obj), event.ts_us)
        elif resource == DAEMONSETS:
            rolling = (obj["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
            group.shares = max(group.shares, 2 if rolling.get("maxSurge") else 1)

    def _pod(self, event: Event) -> Iterator[str]:
        uid, pod = event.record.uid, event.record.value
        controller = meta.controller_of(pod)
        active = event.op is not Op.DELETED and pod_facts.is_active(pod) and controller is not None
        owner_uid = controller["uid"] if active and controller is not None else ""
        before = self.group_of.pop(uid, "")
        if before and before != owner_uid and before in self.groups:
            self.groups[before].pods.pop(uid, None)
        group = self.groups.get(owner_uid)
        if group is None or controller is None:
            return
        self.group_of[uid] = owner_uid
        identity_of = IDENTITIES.get(controller["kind"])
        group.pods[uid] = identity_of(pod) if identity_of else ""
        if before == owner_uid:
            return
        if event.op is Op.ADDED:
            yield from self._joined(event, group, group.pods[uid])
        elif group.limit is not None:
            group.limit.allow(len(group.pods), event.ts_us)

    def _joined(self, event: Event, group: Group, identity: str) -> Iterator[str]:
        if group.limit is not None and len(group.pods) > (limit := group.limit.largest(event.ts_us)):
            yield f"{group.key} has {len(group.pods)} active pods, at most {limit} are allowed"
        same = sum(1 for other in group.pods.values() if other == identity) if identity else 0
        if same > group.shares:
            yield f"{group.key} has {same} active pods for {identity}"


@attrs.define
class NeverBack:
    """What only goes one way: generations, deletion, phases that are final, nodes of pods, what a Job counted."""

    name = "never back"
    as_stamped = False

    def see(self, event: Event) -> Iterator[str]:
        if event.op is not Op.MODIFIED or event.previous is None:
            return
        old, new = event.previous.value, event.record.value
        if meta.is_deleting(old) and not meta.is_deleting(new):
            yield f"{event.key}: its deletion was taken back"
        generation, before = meta.generation(new), meta.generation(old)
        if generation < before:
            yield f"{event.key}: generation {generation} after {before}"
        observed = (new.get("status") or {}).get("observedGeneration") or 0
        if generation and isinstance(observed, int) and observed > generation:
            yield f"{event.key}: generation {observed} is observed, {generation} is the newest"
        one_way = _ONE_WAY.get(event.key.resource)
        if one_way is not None:
            yield from (f"{event.key}: {text}" for text in one_way(old, new))


def _pod_goes(old: Json, new: Json) -> Iterator[str]:
    if pod_facts.is_terminal(old) and pod_facts.phase(new) != pod_facts.phase(old):
        yield f"phase {pod_facts.phase(new)} after {pod_facts.phase(old)}"
    node = old["spec"].get("nodeName")
    if node and new["spec"].get("nodeName") != node:
        yield f"it moves from {node} to {new['spec'].get('nodeName')}"


def _job_goes(old: Json, new: Json) -> Iterator[str]:
    was, now = old.get("status") or {}, new.get("status") or {}
    if now.get("succeeded", 0) < was.get("succeeded", 0):
        yield f"succeeded falls from {was['succeeded']} to {now.get('succeeded', 0)}"
    if now.get("failed", 0) < was.get("failed", 0) and not new["spec"].get("suspend"):
        yield f"failed falls from {was['failed']} to {now.get('failed', 0)}"
    completions = new["spec"].get("completions")
    if completions is not None and now.get("succeeded", 0) > completions:
        yield f"{now['succeeded']} succeeded of {completions}"
    for kind in ("Complete", "Failed"):
        if meta.condition_is(old, kind) and not meta.condition_is(new, kind):
            yield f"it is not {kind} any more"


def _claim_goes(old: Json, new: Json) -> Iterator[str]:
    volume = old["spec"].get("volumeName")
    if volume and new["spec"].get("volumeName") != volume:
        yield f"it moves from {volume} to {new['spec'].get('volumeName')}"


_ONE_WAY: Mapping[str, Callable[[Json, Json], Iterator[str]]] = {
    "pods": _pod_goes,
    JOBS: _job_goes,
    CLAIMS: _claim_goes,
}


@attrs.define
class Bindings:
    """A volume is Bound to one claim, and a claim to one volume."""

    name = "bindings"
    as_stamped = False
    claim_of: dict[str, str] = attrs.field(factory=dict)
    """the bound claim by the volume's name"""
    volume_of: dict[str, str] = attrs.field(factory=dict)
    """the volume's name by the claim's uid"""

    def see(self, event: Event) -> Iterator[str]:
        if event.key.resource != CLAIMS:
            return
        uid, claim = event.record.uid, event.record.value
        volume = claim["spec"].get("volumeName", "")
        bound = event.op is not Op.DELETED and (claim.get("status") or {}).get("phase") == "Bound"
        before = self.volume_of.pop(uid, "")
        if before:
            self.claim_of.pop(before, None)
        if not bound:
            return
        other = self.claim_of.get(volume)
        if other is not None:
            yield f"{event.key} is bound to {volume}, as is {other}"
        self.volume_of[uid], self.claim_of[volume] = volume, str(event.key)


@attrs.define
class Quotas:
    """No create passes a limit: not the quota's own account of what is used, what there is counts."""

    name = "quotas"
    as_stamped = True
    quotas: dict[str, dict[str, Json]] = attrs.field(factory=dict)
    """by namespace and name"""
    objects: dict[str, dict[str, dict[str, Json]]] = attrs.field(factory=dict)
    """by resource, namespace and name: those that a quota may count"""

    def see(self, event: Event) -> Iterator[str]:
        key, obj = event.key, event.record.value
        if key.resource == QUOTAS:
            quotas = self.quotas.setdefault(key.namespace, {})
            quotas.pop(key.name, None)
            if event.op is not Op.DELETED:
                quotas[key.name] = obj
        if key.resource not in ("pods", "configmaps"):
            return
        objects = self.objects.setdefault(key.resource, {}).setdefault(key.namespace, {})
        objects.pop(key.name, None)
        if event.op is Op.DELETED:
            return
        objects[key.name] = obj
        if event.op is Op.ADDED:
            for quota in self.quotas.get(key.namespace, {}).values():
                yield from self._exceeded(event, quota, list(objects.values()))

    def _exceeded(self, event: Event, quota: Json, objects: list[Json]) -> Iterator[str]:
        resource, now = event.key.resource, moment(event.ts_us)
        mine = quota_facts.counted(quota, resource, event.record.value, now)
        if not mine:
            return
        hard = quota["spec"].get("hard", {})
        total = quota_facts.total_usage(quota, resource, objects, now)
        for name in sorted(mine):
            if name in total and total[name] > parse(hard[name]):
                yield f"{event.key} is created: {total[name]} of {hard[name]} {name}"


@attrs.define
class Ordinals:
    """A StatefulSet makes no pod of an ordinal that it does not want."""

    name = "ordinals"
    as_stamped = False
    sets: dict[str, tuple[int, Limit]] = attrs.field(factory=dict)
    """first ordinal and replicas, by uid"""

    def see(self, event: Event) -> Iterator[str]:
        uid, obj = event.record.uid, event.record.value
        if event.key.resource == STATEFULSETS:
            known = self.sets.pop(uid, None)
            if event.op is not Op.DELETED:
                limit = known[1] if known is not None else Limit()
                limit.set(workloads.replicas(obj), event.ts_us)
                self.sets[uid] = int((obj["spec"].get("ordinals") or {}).get("start") or 0), limit
        elif event.key.resource == "pods" and event.op is Op.ADDED:
            controller = meta.controller_of(obj)
            if controller is not None and controller["uid"] in self.sets:
                start, limit = self.sets[controller["uid"]]
                wanted = limit.largest(event.ts_us)
                if int(event.key.name.rpartition("-")[2]) >= start + wanted:
                    yield f"{event.key} is created, {wanted} are wanted"


def workload_invariants() -> list[Invariant]:
    return [Members(), NeverBack(), Bindings(), Quotas(), Ordinals(), DevicesOnce()]
