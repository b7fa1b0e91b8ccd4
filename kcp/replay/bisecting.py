"""Since when no node takes a pod, and what took the last one away.

    found = find_loss(incident, explain_pod(incident, "default/big"))
    found.event, found.nodes            # what happened; the nodes that would have taken the pod just before

The pod is asked for at one revision after the other, back from where it was refused, as if it had been there all the time:
the question is put to every revision, since whether there is room goes up and down.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs

from kcp.replay.cursor import Fold
from kcp.replay.explaining import Explained, NothingToExplain
from kcp.replay.incident import Incident
from kcp.replay.scheduling import Profiles
from kcp.scheduler import profiles
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.cycle import feasible_names
from kcp.scheduler.explain import NodeVerdict, explain
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.profiles import Profile
from kcp.scheduler.remake import WATCHED
from kcp.store.protocol import Event, Op

Json = dict[str, Any]
STEP_REVISIONS = 2000
ASKED = "asked"
"""Uid of the pod that is asked for."""


@attrs.frozen
class Loss:
    """`nodes` would have taken the pod before `event`; `verdicts` say why they do not any more. `event` None: none ever did."""

    rv: int
    event: Event | None
    nodes: tuple[str, ...] = ()
    verdicts: tuple[NodeVerdict, ...] = ()

    @property
    def what(self) -> str:
        """The event in a few words."""
        assert self.event is not None
        key, value = self.event.key, self.event.record.value
        name = f"{key.namespace}/{key.name}" if key.namespace else key.name
        return f"{value['kind']} {name} {_how(self.event, value)}"


def _how(event: Event, value: Json) -> str:
    before = event.previous.value if event.previous is not None else {}
    node = (value.get("spec") or {}).get("nodeName")
    if event.op is Op.DELETED:
        return "was deleted"
    if event.key.resource == "pods" and node and node != (before.get("spec") or {}).get("nodeName"):
        return f"was bound to {node}"
    return "came" if event.op is Op.ADDED else "changed"


def find_loss(incident: Incident, explained: Explained) -> Loss:
    """The last revision, up to the one that is explained, at which the pod lost its last node. Raises NothingToExplain."""
    asking = _Asking(incident, explained)
    until = explained.rv
    asking.move_to(until)
    if nodes := asking.nodes():
        raise NothingToExplain(
            f"at revision {until} the pod is not without a node: {', '.join(nodes)} would take it"
        )
    first = incident.log.first_rv
    while until > first:
        begin = max(first, until - STEP_REVISIONS)
        found = asking.last_loss(begin, until)
        if found is not None:
            return found
        until = begin
    return Loss(first, None)


class _Asking:
    """The state of one revision, with the pod in it, which runs nowhere."""

    def __init__(self, incident: Incident, explained: Explained) -> None:
        self._log = incident.log
        self._state = ClusterState()
        self._folds: dict[str, Fold] = {
            resource: self._log.fold(resource, partial(self._state.apply, resource)) for resource in WATCHED
        }
        self._framework = self._built(incident, explained)
        self.move_to(explained.rv)
        self._state.apply("pods", None, self._alone(explained))

    def _built(self, incident: Incident, explained: Explained) -> Framework:
        decision = explained.decision
        profile = Profiles(incident).of(decision) if decision is not None else Profile()
        return profiles.build(self._state, profile)

    def _alone(self, explained: Explained) -> Json:
        """The pod as it was then, under another uid."""
        pod = self._folds["pods"].indexer.get(explained.pod)
        if pod is None:
            raise NothingToExplain(f'the log has no pod "{explained.pod}" at revision {explained.rv}')
        metadata = {**pod["metadata"], "uid": ASKED}
        spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
        return {**pod, "metadata": metadata, "spec": spec, "status": {}}

    def move_to(self, rv: int) -> None:
        for fold in self._folds.values():
            fold.move_to(rv)

    def nodes(self) -> list[str]:
        return feasible_names(self._framework, self._state.pods[ASKED], cycle=0, seed=0)

    def last_loss(self, begin: int, end: int) -> Loss | None:
        """Between two revisions; the pod has no node at the end."""
        self.move_to(begin)
        nodes, lost = self.nodes(), None
        for event in self._log.events(begin, end):
            if event.key.resource not in self._folds:
                continue
            self._folds[event.key.resource].move_to(event.rv)
            now = self.nodes()
            if nodes and not now:
                lost = event, tuple(nodes)
            nodes = now
        return None if lost is None else self._told(*lost)

    def _told(self, event: Event, nodes: tuple[str, ...]) -> Loss:
        self.move_to(event.rv)
        verdicts = {v.node: v for v in explain(self._framework, self._state.pods[ASKED]).nodes}
        return Loss(event.rv, event, nodes, tuple(verdicts[name] for name in nodes if name in verdicts))
