"""How many more pods fit into the cluster of a moment: what a person hands in, made into pods as the API server would.

with Incident.open(".kcp") as incident:
    for found in fit_documents(incident, documents_of(text)):
        found.pod, found.fit.count, found.fit.text
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from kcp.base.values import frozen
from kcp.machinery import meta
from kcp.machinery.codec.yaml import YamlError, decode_yaml
from kcp.replay.explaining import revision_at
from kcp.replay.incident import Incident
from kcp.replay.rehearsal import Rehearse, rehearsing
from kcp.replay.scheduling import Profiles, newest_scheduling
from kcp.scheduler import profiles
from kcp.scheduler.cluster_state import RESOURCES, ClusterState
from kcp.scheduler.fit import Fit, fit
from kcp.scheduler.profiles import Configuration, Profile

Json = dict[str, Any]
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
}
_SPREADING = {
    "ReplicaSet": "replicasets.apps",
    "ReplicationController": "replicationcontrollers",
    "StatefulSet": "statefulsets.apps",
}
"""Owners whose selector counts when pods are spread by default."""
_REPLICA_SETS = _SPREADING["ReplicaSet"]
_HASH = "pod-template-hash"
_NEW = "fit"
"""Hash of a template that no ReplicaSet has."""
_STEM = 50
_SEPARATOR = re.compile(r"^---(?:[ \t].*)?$", re.MULTILINE)


@frozen
class Fitted:
    """The answer for one document. `rv` is the revision of the state; `scheduler` the one that was asked."""

    kind: str
    pod: str
    rv: int
    scheduler: str
    fit: Fit


@frozen
class Asked:
    """One document: the pod it makes, and who owns that pod where spreading looks at it. `owner` need not exist."""

    kind: str
    namespace: str
    name: str
    pod: Json
    owner: Json | None

    @property
    def resource(self) -> str:
        return _SPREADING[(self.owner or {})["kind"]]


def documents_of(text: str) -> list[Json]:
    """The objects in a YAML or JSON text, those in Lists too. Raises ValueError."""
    found: list[Json] = []
    for part in _SEPARATOR.split(text):
        try:
            document, _ = decode_yaml(part.encode())
        except YamlError as error:
            raise ValueError(str(error)) from error
        if document is None:
            continue
        if not isinstance(document, dict) or not document.get("kind"):
            raise ValueError("every document needs apiVersion and kind")
        found += document["items"] if str(document["kind"]).endswith("List") else [document]
    return found


def fit_documents(
    incident: Incident,
    documents: Sequence[Json],
    *,
    namespace: str = "default",
    at: int | datetime | None = None,
    configuration: Configuration | None = None,
    most: int | None = None,
) -> Iterator[Fitted]:
    """One after the other, each on the state of the moment alone. Kinds that make no pods are left out.

    The scheduler is configured as it was at its newest decision, unless `configuration` is given. Raises ValueError.
    """
    rv = revision_at(incident, at)
    state, newest = state_at(incident, rv), newest_scheduling(incident, rv)
    if configuration is None:
        configuration = Profiles(incident).configuration(newest) if newest is not None else Configuration()
    drawn = newest.effects[0] if newest is not None else {"cycle": 0, "seed": 0}
    wanted = [_asked(state, each, namespace) for each in documents]
    asked = [each for each in wanted if each is not None]
    if not asked:
        raise ValueError("there is nothing in it that makes pods")
    with rehearsing(incident.place, rv) as rehearse:
        for each in asked:
            pod = _made(each, rehearse)
            framework = profiles.build(state, _profile(configuration, pod))
            with _owned(state, each):
                found = fit(framework, pod, cycle=drawn["cycle"] + 1, seed=drawn["seed"], most=most)
            yield Fitted(each.kind, f"{each.namespace}/{each.name}", rv, framework.name, found)


def state_at(incident: Incident, rv: int) -> ClusterState:
    """What a scheduler knows whose informers stand at `rv`."""
    state = ClusterState()
    for resource in RESOURCES:
        incident.log.fold(resource, partial(state.apply, resource)).move_to(rv)
    state.settle()
    return state


def _profile(configuration: Configuration, pod: Json) -> Profile:
    name = pod["spec"].get("schedulerName") or profiles.DEFAULT_NAME
    try:
        return configuration.profile(name)
    except KeyError:
        there = ", ".join(profile.name for profile in configuration.profiles)
        raise ValueError(f"the pod asks for scheduler {name!r}; there is {there}") from None


# --- from a document to a pod ---


def _asked(state: ClusterState, document: Json, namespace: str) -> Asked | None:
    kind, metadata = str(document["kind"]), document.get("metadata") or {}
    name = metadata.get("name") or str(metadata.get("generateName") or kind.lower()).rstrip("-")
    namespace = metadata.get("namespace") or namespace
    if kind == "Pod":
        return Asked(kind, namespace, name, document, None)
    if kind not in _TEMPLATES:
        return None
    template: Any = document
    for part in _TEMPLATES[kind]:
        template = template.get(part) or {}
    if not template.get("spec"):
        raise ValueError(f"{kind} {name!r} has no pod template")
    owner = _owner(state, document, kind, namespace, name)
    if kind == "Deployment" and owner is not None:
        template = owner["spec"]["template"]
    return Asked(kind, namespace, name, template, owner)


def _owner(state: ClusterState, document: Json, kind: str, namespace: str, name: str) -> Json | None:
    """Whose pods they are: of a Deployment its present ReplicaSet with that template, else the one it would get."""
    if kind == "Deployment":
        return _replica_set(state, document, namespace, name)
    if kind not in _SPREADING:
        return None
    known = state.objects[_SPREADING[kind]].get(f"{namespace}/{name}")
    return (
        {**document, "metadata": {"name": name, "namespace": namespace}}
        if known is None
        else {**known, "kind": kind}
    )


def _replica_set(state: ClusterState, deployment: Json, namespace: str, name: str) -> Json:
    template = deployment["spec"]["template"]
    for key in sorted(state.objects[_REPLICA_SETS]):
        known = state.objects[_REPLICA_SETS][key]
        owners = [f"{owner['kind']}/{owner['name']}" for owner in meta.owner_references(known)]
        is_its = meta.namespace(known) == namespace and f"Deployment/{name}" in owners
        if is_its and _unhashed(known["spec"]["template"]) == _unhashed(template):
            return {**known, "kind": "ReplicaSet"}
    labels = {**((template.get("metadata") or {}).get("labels") or {}), _HASH: _NEW}
    selector = deployment["spec"].get("selector") or {}
    chosen = {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), _HASH: _NEW}}
    made = {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}}
    metadata = {"name": f"{name}-{_NEW}", "namespace": namespace}
    return {"kind": "ReplicaSet", "metadata": metadata, "spec": {"selector": chosen, "template": made}}


def _unhashed(template: Json) -> tuple[Any, Any]:
    labels = (template.get("metadata") or {}).get("labels") or {}
    return {key: value for key, value in labels.items() if key != _HASH}, template.get("spec")


def _made(asked: Asked, rehearse: Rehearse) -> Json:
    """As the API server would store it, without what keeps it from being scheduled."""
    given = asked.pod.get("metadata") or {}
    metadata = {field: given[field] for field in ("labels", "annotations") if field in given}
    spec = dict(asked.pod.get("spec") or {})
    if "uid" in given:
        spec.pop("nodeName", None)
    if spec.get("nodeName"):
        raise ValueError(f"{asked.kind} {asked.name!r} names its node: no scheduler is asked about it")
    spec.pop("schedulingGates", None)
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "generateName": f"{asked.name[:_STEM]}-"},
        "spec": spec,
    }
    made = rehearse("pods", manifest, asked.namespace)
    pod = {**made, "metadata": {**made["metadata"], "name": asked.name}}
    references = given.get("ownerReferences")
    if asked.owner is not None:
        references = [{
            "apiVersion": "v1" if asked.owner["kind"] == "ReplicationController" else "apps/v1",
            "kind": asked.owner["kind"],
            "name": asked.owner["metadata"]["name"],
            "controller": True,
        }]  # fmt: skip
    return {**pod, "metadata": {**pod["metadata"], "ownerReferences": references}} if references else pod


@contextmanager
def _owned(state: ClusterState, asked: Asked) -> Iterator[None]:
    """The owner is in the state meanwhile."""
    owner = asked.owner
    if owner is None or meta.key_of(owner) in state.objects[asked.resource]:
        yield
        return
    state.apply(asked.resource, None, owner)
    try:
        yield
    finally:
        state.apply(asked.resource, owner, None)
