"""A user's plugin: one class in one file, and the adapter that lets a profile run it.

    class DataLocality:
        def filter(self, pod, node): ...        # None: passes; a text: why not; Unresolvable(text): nor if pods went
        def score(self, pod, node): ...         # 0..100, or anything when `normalize` is there
        def normalize(self, scores): ...        # of the feasible nodes, in their order -> 0..100 each

For all nodes at once, instead of or beside these:

        def filter_all(self, pod, nodes): ...   # an array: True where the node passes; `reason` is the text
        def score_all(self, pod, nodes): ...    # an array of integers

`pod` is the object as in the API, `node` a `node_views.Node`, `nodes` a `node_views.Nodes`. All is read-only, and nothing
may depend on anything else: no clock, no chance, no file, no network, nothing remembered. Else a decision could not be made
again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from kcp.scheduler.framework.node_views import Node, Nodes
from kcp.scheduler.framework.plugin import MAX_SCORE, Codes, Cycle, Reasons, Rows
from kcp.scheduler.framework.status import UNRESOLVABLE, UNSCHEDULABLE
from kcp.scheduler.terms import Ints

Json = dict[str, Any]
METHODS = ("filter", "score", "filter_all", "score_all")
FILTERS, SCORES = ("filter", "filter_all"), ("score", "score_all")


class Unresolvable(str):
    """A refusal that removing pods from the node would not mend."""

    __slots__ = ()


class PluginFailed(Exception):
    """Raised when a user's plugin raised, or answered what no plugin may answer."""


def points_of(plugin: type) -> tuple[str, ...]:
    """The extension points at which a class acts."""
    found = [
        point
        for point, methods in (("filter", FILTERS), ("score", SCORES))
        if any(hasattr(plugin, m) for m in methods)
    ]
    return tuple(found)


def adapted(name: str, plugin: Any) -> Any:
    """The plugin as a profile runs it."""
    points = points_of(type(plugin))
    if points == ("filter",):
        return UserFilter(name, plugin)
    return UserScore(name, plugin) if points == ("score",) else UserFilterScore(name, plugin)


class UserFilter:
    """`per_node`: only nodes that all filters before it pass are looked at; a plugin with `filter_all` sees all."""

    per_pod = True
    reasons: ClassVar[Reasons] = {1: (UNSCHEDULABLE, ""), 2: (UNRESOLVABLE, "")}

    def __init__(self, name: str, plugin: Any) -> None:
        self.name = name
        self.plugin = plugin
        self.per_node = not hasattr(plugin, "filter_all")

    def active(self, cycle: Cycle) -> bool:
        return True

    def codes(self, cycle: Cycle, rows: Rows) -> Codes:
        if self.per_node:
            verdicts = [self._refusal(cycle, info) for info in cycle.state.rows(rows)]
            return np.array([_code(verdict) for verdict in verdicts], np.int8)
        passes = _called(self.name, "filter", self.plugin.filter_all, cycle.info.pod, Nodes(cycle.state))
        codes: Codes = (~np.asarray(passes, np.bool_)).astype(np.int8)[rows]
        return codes

    def texts(self, cycle: Cycle, index: int) -> list[str]:
        verdict = self._refusal(cycle, cycle.state.infos[index]) if hasattr(self.plugin, "filter") else None
        reason = getattr(self.plugin, "reason", "") or f"node(s) didn't satisfy plugin {self.name}"
        return [str(verdict) if isinstance(verdict, str) and verdict else reason]

    def _refusal(self, cycle: Cycle, info: Any) -> Any:
        return _called(self.name, "filter", self.plugin.filter, cycle.info.pod, Node(info))


class UserScore:
    per_pod = True

    def __init__(self, name: str, plugin: Any) -> None:
        self.name = name
        self.plugin = plugin

    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        return user_scores(self.name, self.plugin, cycle, feasible)


class UserFilterScore(UserFilter):
    def scores(self, cycle: Cycle, feasible: Rows, count: int) -> Ints | None:
        return user_scores(self.name, self.plugin, cycle, feasible)


def user_scores(name: str, plugin: Any, cycle: Cycle, feasible: Rows) -> Ints:
    state, pod = cycle.state, cycle.info.pod
    indexes = np.arange(len(state))[feasible].tolist()
    if hasattr(plugin, "score_all"):
        raw = np.asarray(_called(name, "score", plugin.score_all, pod, Nodes(state)))[indexes].tolist()
    else:
        raw = [_called(name, "score", plugin.score, pod, Node(state.infos[i])) for i in indexes]
    if hasattr(plugin, "normalize"):
        raw = list(_called(name, "score", plugin.normalize, raw))
    return _checked(name, raw, len(indexes))


def _checked(name: str, raw: list[Any], count: int) -> Ints:
    if len(raw) != count:
        raise PluginFailed(f"plugin {name!r} gave {len(raw)} scores for {count} nodes")
    for score in raw:
        if not 0 <= score <= MAX_SCORE:
            raise PluginFailed(
                f'plugin "{name}" returns an invalid score {score}, it should in the range of '
                f"[0, {MAX_SCORE}] after normalizing"
            )
    return np.array([int(score) for score in raw], np.int64)


def _code(verdict: Any) -> int:
    if isinstance(verdict, Unresolvable):
        return 2
    if verdict is None or verdict is True or verdict == "":
        return 0
    if verdict is False or isinstance(verdict, str):
        return 1
    raise PluginFailed(f"a filter answers None, a bool or a text, not {type(verdict).__name__}")


def _called(name: str, point: str, method: Any, *given: Any) -> Any:
    try:
        return method(*given)
    except Exception as error:
        raise PluginFailed(f'running "{name}" {point} plugin: {error!r}') from error


def made(name: str, plugin: type, args: Mapping[str, Any]) -> Any:
    """An instance, given its arguments if it wants any. Raises PluginFailed."""
    try:
        return adapted(name, plugin(dict(args)) if args else plugin())
    except Exception as error:
        raise PluginFailed(f'initializing plugin "{name}": {error!r}') from error
