"""What kcp's scheduler would have chosen where another one bound a pod: inferred, as `inferred.py` does it for controllers.

The default profile looks at all that the log had just before the binding. Which of several equally good nodes is taken is chance:
the binding agrees when its node is one of the best. Where it is not, older frontiers are tried, back to the newest version of the
pod: the other scheduler's caches may have been behind.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kcp.base.values import frozen
from kcp.replay.incident import Incident
from kcp.scheduler.explain import NodeVerdict, explain
from kcp.scheduler.profiles import DEFAULT_NAME
from kcp.scheduler.remake import WATCHED, Remaker
from kcp.store.protocol import Event
from kcp.store.redaction import is_purged

Json = dict[str, Any]
USERS = frozenset({"system:kube-scheduler"})
EARLIER_TRIED = 24
NAMED = 3


@frozen
class Choice:
    """At a frontier: whether the node that was taken is one of the best, and what would have been taken, in words."""

    rv: int
    agrees: bool
    told: str
    changes: tuple[str, ...] = ()
    unclear: str = ""


def is_binding(event: Event) -> bool:
    """Whether a scheduler put a pod on a node with this."""
    return (
        event.key.resource == "pods"
        and event.cause.actor.username in USERS
        and event.previous is not None
        and not is_purged(event.record.value)
        and bool(_node(event.record.value))
        and not _node(event.previous.value)
    )


def _node(pod: Json) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")


class Chooser:
    """Stands anywhere in a log and says where a pod would be put."""

    def __init__(self, incident: Incident) -> None:
        self._again = Remaker()
        self._log = incident.log
        self._folds = {name: self._log.fold(name, partial(self._again.move, name)) for name in WATCHED}

    def choices(self, event: Event) -> tuple[Choice, str]:
        """The choice that counts, and the verdict on it: `same`, `older`, `other`, `unclear`."""
        first = self._choice(event, event.rv - 1)
        if first.agrees or first.unclear:
            return first, "unclear" if first.unclear else "same"
        assert event.previous is not None, "a binding changes a pod that is there"
        revisions: set[int] = set()
        for resource in WATCHED:
            steps = self._log.between(resource, event.previous.rv, first.rv)
            revisions.update(step.rv - 1 for step in steps if step.rv > event.previous.rv)
        for rv in sorted(revisions, reverse=True)[:EARLIER_TRIED]:
            found = self._choice(event, rv)
            if found.agrees:
                return found, "older"
        return first, "other"

    def _choice(self, event: Event, rv: int) -> Choice:
        for fold in self._folds.values():
            if fold.rv != rv:
                fold.move_to(rv)
        pod, name = event.record.value, _node(event.record.value)
        profile = pod["spec"].get("schedulerName") or DEFAULT_NAME
        self._again.state.settle()
        info = self._again.state.pods.get(event.record.uid)
        if profile != DEFAULT_NAME:
            return Choice(rv, False, "", unclear=f"nobody knows how the profile {profile} was configured")
        if any(fold.hidden for fold in self._folds.values()):
            return Choice(
                rv, False, "", unclear="the source has no body of some of what the scheduler watches"
            )
        if info is None or not len(self._again.state):
            what = "the pod" if info is None else "the nodes"
            return Choice(rv, False, "", unclear=f"the source does not tell {what} as of then")
        found = explain(self._again.framework, info)
        best = found.best
        if name in best:
            return Choice(rv, True, _bind(event, best))
        verdict = next((each for each in found.nodes if each.node == name), None)
        return Choice(rv, False, _bind(event, best), (_against(name, verdict),))


def _bind(event: Event, best: tuple[str, ...]) -> str:
    if not best:
        return f"no node for pods/{event.key.namespace}/{event.key.name}"
    more = f" or one of {len(best) - NAMED} more" if len(best) > NAMED else ""
    return f"Bind pods/{event.key.namespace}/{event.key.name} to {' or '.join(best[:NAMED])}{more}"


def _against(node: str, verdict: NodeVerdict | None) -> str:
    if verdict is None:
        return f"{node}: the log does not know it as of then"
    if verdict.refusals:
        decisive = verdict.refusals[0]
        return f"{node}: {decisive.plugin} refuses it: {', '.join(decisive.reasons)}"
    scores = ", ".join(f"{plugin} {score}" for plugin, score in verdict.scores.items() if score)
    return f"{node}: a score of {verdict.total} is not the highest ({scores})"
