"""Every plugin that a profile can name: what makes it, at which extension points it acts, its weight by default.

Source: k8s v1.36 pkg/scheduler/framework/plugins/registry.go, apis/config/v1/default_plugins.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kcp.base.values import frozen
from kcp.scheduler.plugins.dynamic_resources import DynamicResources
from kcp.scheduler.plugins.equal import Equal
from kcp.scheduler.plugins.image_locality import ImageLocality
from kcp.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from kcp.scheduler.plugins.node_affinity import NodeAffinity
from kcp.scheduler.plugins.node_declared_features import NodeDeclaredFeatures
from kcp.scheduler.plugins.node_failure_guard import NodeFailureScore
from kcp.scheduler.plugins.node_name import NodeName
from kcp.scheduler.plugins.node_ports import NodePorts
from kcp.scheduler.plugins.node_prefer_avoid_pods import NodePreferAvoidPods
from kcp.scheduler.plugins.node_resources_fit import BalancedAllocation, NodeResourcesFit
from kcp.scheduler.plugins.node_unschedulable import NodeUnschedulable
from kcp.scheduler.plugins.node_volume_limits import NodeVolumeLimits
from kcp.scheduler.plugins.pod_topology_spread import PodTopologySpread
from kcp.scheduler.plugins.taint_toleration import TaintToleration
from kcp.scheduler.plugins.tenant_queue import TenantQueue
from kcp.scheduler.plugins.volume_binding import VolumeBinding
from kcp.scheduler.plugins.volume_restrictions import VolumeRestrictions
from kcp.scheduler.plugins.volume_zone import VolumeZone

GANG_SCHEDULING, TENANT_QUEUE, NODE_FAILURE_GUARD = "GangScheduling", "TenantQueue", "NodeFailureGuard"
Json = dict[str, Any]
Factory = Callable[[Mapping[str, Any]], Any]

POINTS = (
    "preEnqueue", "queueSort", "preFilter", "filter", "postFilter", "preScore", "score", "reserve", "permit",
    "preBind", "bind", "postBind", "placementGenerate", "placementScore", "placementFeasible",
    "podGroupPostFilter",
)  # fmt: skip
"""Extension points, as the fields of `plugins` are called, besides `multiPoint`."""


@frozen
class Row:
    """One plugin. `factory` None: the queue, the post-filters or the binder act on its name. `weight` 0: it does not score."""

    name: str
    points: tuple[str, ...]
    weight: int = 0
    factory: Factory | None = None
    default: bool = True


def _plain(plugin: Callable[[], Any]) -> Factory:
    return lambda args: plugin()


_FILTERS = ("preFilter", "filter")
_BOTH = ("preFilter", "filter", "preScore", "score")

TABLE: tuple[Row, ...] = (
    Row("SchedulingGates", ("preEnqueue",)),
    Row("PrioritySort", ("queueSort",)),
    Row("NodeUnschedulable", ("filter",), 0, _plain(NodeUnschedulable)),
    Row("NodeName", ("filter",), 0, _plain(NodeName)),
    Row("TaintToleration", ("filter", "preScore", "score"), 3, _plain(TaintToleration)),
    Row("NodeAffinity", _BOTH, 2, NodeAffinity),
    Row("NodePorts", _FILTERS, 0, _plain(NodePorts)),
    Row("NodeResourcesFit", _BOTH, 1, NodeResourcesFit),
    Row("VolumeRestrictions", _FILTERS, 0, _plain(VolumeRestrictions)),
    Row("NodeVolumeLimits", _FILTERS, 0, _plain(NodeVolumeLimits)),
    Row("VolumeBinding", (*_FILTERS, "preScore", "score", "reserve", "preBind"), 0, _plain(VolumeBinding)),
    Row("VolumeZone", _FILTERS, 0, _plain(VolumeZone)),
    Row("PodTopologySpread", _BOTH, 2, PodTopologySpread),
    Row("InterPodAffinity", _BOTH, 2, InterPodAffinity),
    Row(
        "DynamicResources",
        ("preEnqueue", "preFilter", "filter", "postFilter", "score", "reserve", "preBind"),
        2,
        _plain(DynamicResources),
    ),
    Row("DefaultPreemption", ("preEnqueue", "postFilter")),
    Row("NodeResourcesBalancedAllocation", ("preScore", "score"), 1, BalancedAllocation),
    Row("ImageLocality", ("score",), 1, _plain(ImageLocality)),
    Row("DefaultBinder", ("bind",)),
    Row("NodeDeclaredFeatures", _FILTERS, 0, _plain(NodeDeclaredFeatures)),
    Row("NodePreferAvoidPods", ("score",), 10_000, _plain(NodePreferAvoidPods), default=False),
    Row("Equal", ("score",), 1, _plain(Equal), default=False),
    Row(GANG_SCHEDULING, ("preEnqueue",), default=False),
    Row(TENANT_QUEUE, ("queueSort", "filter", "postFilter"), 0, TenantQueue, default=False),
    Row(NODE_FAILURE_GUARD, ("preEnqueue", "score"), 10, _plain(NodeFailureScore), default=False),
)
"""In the order of Kubernetes' MultiPoint list; what is not on by default comes last."""

ROWS: Mapping[str, Row] = {row.name: row for row in TABLE}
DEFAULT_PLUGINS: tuple[tuple[str, int], ...] = tuple((row.name, row.weight) for row in TABLE if row.default)
"""(name, score weight), in the order of the MultiPoint list."""


def acts_at(name: str, point: str) -> bool:
    """Whether a plugin of this name does something at an extension point."""
    return point in ROWS[name].points if name in ROWS else False


def defaults_at(point: str) -> tuple[str, ...]:
    return tuple(name for name, _ in DEFAULT_PLUGINS if acts_at(name, point))
