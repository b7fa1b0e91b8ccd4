"""Profiles: which plugins run, in which order, with which weights and arguments; KubeSchedulerConfiguration v1.

Source: k8s v1.36 pkg/scheduler/apis/config/v1/default_plugins.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.framework.runtime import Framework, PluginSet
from kcp.scheduler.plugins.image_locality import ImageLocality
from kcp.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from kcp.scheduler.plugins.node_affinity import NodeAffinity
from kcp.scheduler.plugins.node_name import NodeName
from kcp.scheduler.plugins.node_ports import NodePorts
from kcp.scheduler.plugins.node_resources_fit import BalancedAllocation, NodeResourcesFit, ShapeCache
from kcp.scheduler.plugins.node_unschedulable import NodeUnschedulable
from kcp.scheduler.plugins.node_volume_limits import NodeVolumeLimits
from kcp.scheduler.plugins.pod_topology_spread import PodTopologySpread
from kcp.scheduler.plugins.taint_toleration import TaintToleration
from kcp.scheduler.plugins.volume_binding import VolumeBinding
from kcp.scheduler.plugins.volume_restrictions import VolumeRestrictions
from kcp.scheduler.plugins.volume_zone import VolumeZone
from kcp.scheduler.preemption import PreemptionArgs, post_filter

Json = dict[str, Any]
DEFAULT_NAME = "default-scheduler"
API_VERSION = "kubescheduler.config.k8s.io/v1"

DEFAULT_PLUGINS: tuple[tuple[str, int], ...] = (
    ("SchedulingGates", 0),
    ("PrioritySort", 0),
    ("NodeUnschedulable", 0),
    ("NodeName", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 0),
    ("NodeVolumeLimits", 0),
    ("VolumeBinding", 0),
    ("VolumeZone", 0),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DynamicResources", 2),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 0),
    ("NodeDeclaredFeatures", 0),
)
"""(name, score weight), in the order of the MultiPoint list."""

_FACTORIES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "NodeUnschedulable": lambda args: NodeUnschedulable(),
    "NodeName": lambda args: NodeName(),
    "TaintToleration": lambda args: TaintToleration(),
    "NodeAffinity": NodeAffinity,
    "NodePorts": lambda args: NodePorts(),
    "NodeResourcesFit": NodeResourcesFit,
    "VolumeRestrictions": lambda args: VolumeRestrictions(),
    "NodeVolumeLimits": lambda args: NodeVolumeLimits(),
    "VolumeBinding": lambda args: VolumeBinding(),
    "VolumeZone": lambda args: VolumeZone(),
    "PodTopologySpread": PodTopologySpread,
    "InterPodAffinity": InterPodAffinity,
    "NodeResourcesBalancedAllocation": BalancedAllocation,
    "ImageLocality": lambda args: ImageLocality(),
}
SCORING = frozenset(
    {"TaintToleration", "NodeAffinity", "NodeResourcesFit", "PodTopologySpread", "InterPodAffinity",
     "NodeResourcesBalancedAllocation", "ImageLocality"}
)  # fmt: skip
_ELSEWHERE = frozenset(
    {"SchedulingGates", "PrioritySort", "DynamicResources", "DefaultPreemption", "DefaultBinder",
     "NodeDeclaredFeatures"}
)  # fmt: skip
"""Known names that have no object here: the queue, the post-filters or the binder act on them."""
_POINTS = (
    "preEnqueue", "queueSort", "preFilter", "filter", "postFilter", "preScore", "score", "reserve", "permit",
    "preBind", "bind", "postBind",
)  # fmt: skip


class ConfigError(ValueError):
    """Raised when a KubeSchedulerConfiguration cannot be used; the message says where."""


@attrs.frozen
class Profile:
    """`filters` and `scores` are in order; `args` by plugin name."""

    name: str = DEFAULT_NAME
    enabled: tuple[str, ...] = tuple(name for name, _ in DEFAULT_PLUGINS)
    filters: tuple[str, ...] = tuple(name for name, _ in DEFAULT_PLUGINS)
    scores: tuple[tuple[str, int], ...] = tuple(
        (name, weight or 1) for name, weight in DEFAULT_PLUGINS if name in SCORING
    )
    post_filters: tuple[str, ...] = ("DynamicResources", "DefaultPreemption")
    pre_enqueue: tuple[str, ...] = ("SchedulingGates", "DefaultPreemption")
    args: Mapping[str, Json] = attrs.field(factory=dict)


@attrs.frozen
class Configuration:
    """What a scheduler process does. Times in seconds."""

    profiles: tuple[Profile, ...] = (Profile(),)
    initial_backoff_s: float = 1.0
    max_backoff_s: float = 10.0


def build(state: ClusterState, profile: Profile) -> Framework:
    """The profile's plugins on a state."""
    made = {
        name: _FACTORIES[name](profile.args.get(name) or {})
        for name in dict.fromkeys((*profile.enabled, *profile.filters, *(n for n, _ in profile.scores)))
        if name in _FACTORIES
    }
    filters = [made[n] for n in profile.filters if n in made and _is_filter(made[n])]
    scores = [(made[n], weight) for n, weight in profile.scores if n in made and _is_score(made[n])]
    weights = dict(profile.scores)
    plugins = PluginSet(
        pre_filters=tuple(p for p in filters if hasattr(p, "pre_filter")),
        filters=tuple(filters),
        scores=tuple(scores),
        fit=made.get("NodeResourcesFit"),
        fit_weight=weights.get("NodeResourcesFit", 0),
        fit_filters="NodeResourcesFit" in profile.filters,
        balanced=made.get("NodeResourcesBalancedAllocation"),
        balanced_weight=weights.get("NodeResourcesBalancedAllocation", 0),
        spread=made.get("PodTopologySpread"),
        inter_pod=made.get("InterPodAffinity"),
        pre_enqueue=profile.pre_enqueue,
        post_filters=profile.post_filters,
        shape_cache=ShapeCache,
    )
    args = profile.args.get("DefaultPreemption") or {}
    preemption = PreemptionArgs(
        int(args.get("minCandidateNodesPercentage", 10)), int(args.get("minCandidateNodesAbsolute", 100))
    )
    return Framework(state, profile.name, plugins, preemption, post_filter)


def _is_filter(plugin: Any) -> bool:
    return hasattr(plugin, "static_codes") or hasattr(plugin, "codes")


def _is_score(plugin: Any) -> bool:
    return hasattr(plugin, "static_score") or hasattr(plugin, "scores")


def parse_configuration(document: Json) -> Configuration:
    """A KubeSchedulerConfiguration. Raises ConfigError."""
    if document.get("apiVersion") != API_VERSION or document.get("kind") != "KubeSchedulerConfiguration":
        raise ConfigError(f"want {API_VERSION} KubeSchedulerConfiguration")
    rows = document.get("profiles") or [{}]
    profiles = tuple(_profile(row, number) for number, row in enumerate(rows))
    names = [profile.name for profile in profiles]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(f'profiles[{number}].schedulerName: Duplicate value: "{name}"')
    return Configuration(
        profiles,
        float(document.get("podInitialBackoffSeconds", 1)),
        float(document.get("podMaxBackoffSeconds", 10)),
    )


def _profile(row: Json, number: int) -> Profile:
    args = {entry["name"]: entry.get("args") or {} for entry in row.get("pluginConfig") or ()}
    plugins = row.get("plugins") or {}
    everywhere = _merged(DEFAULT_PLUGINS, plugins.get("multiPoint") or {}, number)
    for point in plugins:
        if point != "multiPoint" and point not in _POINTS:
            raise ConfigError(f"profiles[{number}].plugins: unknown extension point {point}")

    def at(point: str) -> list[tuple[str, int]]:
        return _merged(everywhere, plugins.get(point) or {}, number)

    scores = [(name, weight or 1) for name, weight in at("score") if name in SCORING]
    return Profile(
        name=row.get("schedulerName") or DEFAULT_NAME,
        enabled=tuple(name for name, _ in everywhere),
        filters=tuple(name for name, _ in at("filter")),
        scores=tuple(scores),
        post_filters=tuple(n for n, _ in at("postFilter") if n in ("DynamicResources", "DefaultPreemption")),
        pre_enqueue=tuple(n for n, _ in at("preEnqueue") if n in ("SchedulingGates", "DefaultPreemption")),
        args=args,
    )


def _merged(base: Sequence[tuple[str, int]], changes: Json, number: int) -> list[tuple[str, int]]:
    """A plugin enabled again is overridden in place; `disabled: [{name: "*"}]` drops all of the base."""
    disabled = {entry["name"] for entry in changes.get("disabled") or ()}
    enabled = {entry["name"]: int(entry.get("weight") or 0) for entry in changes.get("enabled") or ()}
    for name in enabled:
        if name not in _FACTORIES and name not in _ELSEWHERE:
            raise ConfigError(f"profiles[{number}].plugins: unknown plugin {name}")
    kept = [] if "*" in disabled else [(n, w) for n, w in base if n not in disabled]
    merged = [(name, enabled.pop(name) or weight if name in enabled else weight) for name, weight in kept]
    return merged + list(enabled.items())
