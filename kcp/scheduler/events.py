"""Changes of the cluster, turned into state and into moves of the queue.

Source: k8s v1.36 pkg/scheduler/eventhandlers.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from kcp.apis.semantics import pods
from kcp.machinery import meta
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.hints import Action, ClusterEvent, node_changes, pod_changes
from kcp.scheduler.profiles import DEFAULT_NAME
from kcp.scheduler.queue import SchedulingQueue
from kcp.scheduler.unclaimed import Unclaimed

Json = dict[str, Any]
_QUIET = frozenset(
    {"namespaces", "services", "replicationcontrollers", "replicasets.apps", "statefulsets.apps"}
)
"""No plugin waits for these."""


class Own(Protocol):
    def follow(self, resource: str, old: Json | None, new: Json | None) -> Iterable[str]:
        """The state took a change. Returns the pods that may not have to be kept out any more."""
        ...


class Follower:
    """Owned by the scheduler's task; `follow` is an informer handler."""

    def __init__(
        self,
        state: ClusterState,
        queue: SchedulingQueue,
        names: frozenset[str],
        now_us: Callable[[], int],
        wake: Callable[[], None],
        own: Own | None = None,
    ) -> None:
        self._state = state
        self._queue = queue
        self._names = names
        self._now_us = now_us
        self._wake = wake
        self._own = own
        self.unclaimed = Unclaimed()

    def follow(self, resource: str, old: Json | None, new: Json | None) -> None:
        if old is not None and new is not None and meta.uid(old) != meta.uid(new):
            self.follow(resource, old, None)
            old = None
        if resource == "pods" and self._concerns_another(new if new is not None else old):
            self._another(old, new)
            return
        self._state.apply(resource, old, new)
        recheck = self._own.follow(resource, old, new) if self._own is not None else ()
        if resource == "pods":
            self._pod(old, new)
        elif resource == "nodes":
            self._node(old, new)
        elif resource not in _QUIET:
            self._object(resource, old, new)
        if recheck:
            self._queue.recheck(recheck, self._now_us())
        self._wake()

    def _concerns_another(self, pod: Json | None) -> bool:
        """Whether the pod takes no room and some other scheduler places it: no decision of ours depends on it."""
        assert pod is not None
        spec = pod["spec"]
        return (
            not spec.get("nodeName")
            and bool(self._names)
            and (spec.get("schedulerName") or DEFAULT_NAME) not in self._names
        )

    def _another(self, old: Json | None, new: Json | None) -> None:
        due_us = self.unclaimed.due_us()
        self._waiting(old, new)
        if self.unclaimed.due_us() != due_us:
            self._wake()

    def _move(self, resource: str, actions: tuple[Action, ...], old: Json | None, new: Json | None) -> None:
        self._queue.move(ClusterEvent(resource, actions, old, new), self._now_us())

    def _object(self, resource: str, old: Json | None, new: Json | None) -> None:
        action: Action = "add" if old is None else "delete" if new is None else "update"
        self._move(resource, (action,), old, new)

    def _node(self, old: Json | None, new: Json | None) -> None:
        if old is None:
            self._move("nodes", ("add",), None, new)
        elif new is None:
            self._move("nodes", ("delete",), old, None)
        else:
            actions = node_changes(old, new)
            if actions:
                self._move("nodes", actions, old, new)

    def _pod(self, old: Json | None, new: Json | None) -> None:
        was, now = _runs(old), _runs(new)
        if now and not was:
            assert new is not None
            self._queue.remove(meta.uid(new))
            self.unclaimed.forget(meta.uid(new))
            self._move("pods", ("add",), None, new)
        elif was and now:
            assert old is not None and new is not None
            actions = pod_changes(old, new) if old is not new else ()
            if actions:
                self._move("pods", actions, old, new)
        elif was:
            self._move("pods", ("delete",), old, None)
        if not now:
            self._waiting(old, new)

    def _waiting(self, old: Json | None, new: Json | None) -> None:
        if new is None or pods.is_terminal(new):
            obj = new if new is not None else old
            assert obj is not None
            self._queue.remove(meta.uid(obj))
            self.unclaimed.forget(meta.uid(obj))
            return
        if (new["spec"].get("schedulerName") or DEFAULT_NAME) not in self._names:
            if DEFAULT_NAME in self._names:
                self.unclaimed.see(new, self._now_us())
            return
        uid = meta.uid(new)
        info = self._state.pods.get(uid)
        if info is None or info.node:
            return
        if uid in self._queue.pods and old is not None:
            self._queue.update(old, new, info.priority, self._now_us())
        else:
            self._queue.add(new, info.priority, self._now_us())

    def unassumed(self, pod: Json, node: str) -> None:
        """A pod that was counted on a node is not there after all: what its deletion would free is free."""
        gone = {**pod, "spec": {**pod["spec"], "nodeName": node}}
        self._move("pods", ("delete",), gone, None)


def _runs(pod: Json | None) -> bool:
    """Whether the pod takes room on a node."""
    return pod is not None and bool(pod["spec"].get("nodeName")) and not pods.is_terminal(pod)
