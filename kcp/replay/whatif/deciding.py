"""Who decides in a what-if, and what comes of one decision."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from kcp.base.values import frozen
from kcp.scheduler.cycle import Decision, enough, feasible_nodes, pre_filter, total_scores
from kcp.scheduler.framework.plugin import Cycle
from kcp.scheduler.framework.runtime import Framework
from kcp.scheduler.pod_class import PodInfo
from kcp.scheduler.profiles import Configuration, Profile
from kcp.store import protocol

ProfileOf = Callable[[str, protocol.Decision | None], Profile | None]
"""(scheduler, recorded decision or None) -> the profile that decides; None: nobody does, so that the record counts."""


def decide_by(configuration: Configuration) -> ProfileOf:
    """The profiles of a configuration. Pods of schedulers that it does not have fare as recorded."""
    known = {profile.name: profile for profile in configuration.profiles}
    return lambda scheduler, decision: known.get(scheduler)


@frozen
class Made:
    """A decision that was taken here about the pod of that uid, or seen in the log. `node` is "" for none; `text` says why."""

    uid: str
    node: str
    victims: tuple[str, ...]
    at_us: int
    text: str


def like_recorded(framework: Framework, info: PodInfo, decision: Decision, recorded: str) -> Decision:
    """With the recorded node, where that has the best score too: a tie that falls otherwise is no difference.

    A pod that gets devices stays with the node that they are on.
    """
    if decision.ties < 2 or decision.node == recorded or not recorded or decision.allocations:
        return decision
    state = framework.state
    cache, cycle = framework.class_cache(info.cls), Cycle(state, info, framework)
    if pre_filter(cycle) is not None:
        return decision
    feasible = enough(framework, feasible_nodes(framework, cache, cycle), decision.cycle, decision.seed)
    totals = total_scores(framework, cache, cycle, feasible)
    names = [state.infos[index].name for index in feasible[totals == totals.max()].tolist()]
    return attrs.evolve(decision, node=recorded) if recorded in names else decision
