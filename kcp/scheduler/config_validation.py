"""What a KubeSchedulerConfiguration may say, in Kubernetes' words.

Source: k8s v1.36 pkg/scheduler/apis/config/validation/{validation,validation_pluginargs}.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kcp.apis.core import scheduling
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, unsupported
from kcp.machinery.names import is_qualified_name
from kcp.machinery.quantity import Quantity, QuantityError, parse
from kcp.machinery.times import parse_go_duration
from kcp.scheduler.plugin_table import POINTS
from kcp.scheduler.plugins.node_failure_guard import DEFAULTS as GUARD_ARGUMENTS

Json = dict[str, Any]
Errors = list[FieldError]
API_VERSION = "kubescheduler.config.k8s.io/v1"
REMOVED = ("AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits")
"""Plugins that v1 of the configuration no longer knows."""
STRATEGIES = ("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio")
_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_INT32_MAX = 2**31 - 1


def validate(document: Json) -> Errors:
    """Faults of a strictly decoded document, defaults understood."""
    errors: Errors = []
    _connection(errors, document.get("clientConnection") or {})
    _election(errors, document.get("leaderElection") or {})
    if _given(document, "parallelism", 16) <= 0:
        text = "should be an integer value greater than zero"
        errors.append(invalid("parallelism", document["parallelism"], text))
    _profiles(errors, document.get("profiles") or [{}])
    _percentage(errors, document, "percentageOfNodesToScore")
    first, most = (
        _given(document, "podInitialBackoffSeconds", 1),
        _given(document, "podMaxBackoffSeconds", 10),
    )
    if first <= 0:
        errors.append(invalid("podInitialBackoffSeconds", first, "must be greater than 0"))
    if most < first and most != 0:
        text = "must be greater than or equal to PodInitialBackoffSeconds"
        errors.append(invalid("podMaxBackoffSeconds", most, text))
    _extenders(errors, document.get("extenders") or [])
    return errors


def aggregate(errors: Sequence[Any]) -> str:
    """One text; several faults stand in brackets, each once."""
    texts = list(dict.fromkeys(str(error) for error in errors))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _given(document: Json, field: str, default: int) -> int:
    value = document.get(field)
    return default if value is None else int(value)


def _connection(errors: Errors, connection: Json) -> None:
    if (connection.get("burst") or 0) < 0:
        errors.append(invalid("clientConnection.burst", connection["burst"], "must be non-negative"))


def _election(errors: Errors, election: Json) -> None:
    if election.get("leaderElect") is False:
        return
    times = {"leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s"}
    seconds = {name: parse_go_duration(election.get(name) or default) for name, default in times.items()}
    for name, value in seconds.items():
        if value <= 0:
            errors.append(invalid(f"leaderElection.{name}", election[name], "must be greater than zero"))
    if seconds["leaseDuration"] < seconds["renewDeadline"]:
        text = "LeaseDuration must be greater than RenewDeadline"
        errors.append(
            invalid(
                "leaderElection.leaseDuration", election.get("renewDeadline") or times["renewDeadline"], text
            )
        )
    lock = election.get("resourceLock") or "leases"
    if lock != "leases":
        errors.append(invalid("leaderElection.resourceLock", lock, 'resourceLock value must be "leases"'))


def _percentage(errors: Errors, holder: Json, name: str, path: str = "") -> None:
    value = holder.get(name)
    if value is not None and not 0 <= value <= 100:
        errors.append(invalid(f"{path}{name}", value, "not in valid range [0-100]"))


# --- profiles ---


def _profiles(errors: Errors, profiles: list[Json]) -> None:
    seen: dict[str, int] = {}
    for number, profile in enumerate(profiles):
        path = f"profiles[{number}]"
        name = profile.get("schedulerName") or ("default-scheduler" if len(profiles) == 1 else "")
        if not name:
            errors.append(required(f"{path}.schedulerName"))
        _percentage(errors, profile, "percentageOfNodesToScore", f"{path}.")
        _removed_plugins(errors, profile.get("plugins") or {}, f"{path}.plugins")
        _plugin_config(errors, profile.get("pluginConfig") or [], f"{path}.pluginConfig")
        if name in seen:
            errors.append(duplicate(f"{path}.schedulerName", f"profiles[{seen[name]}].schedulerName"))
        seen[name] = number
    _queue_sort(errors, profiles)


def _removed(name: str, path: str) -> FieldError:
    return invalid(
        path, name, f'was invalid in version "v1" (KubeSchedulerConfiguration is version "{API_VERSION}")'
    )


def _removed_plugins(errors: Errors, plugins: Json, path: str) -> None:
    for point in POINTS:
        for number, plugin in enumerate((plugins.get(point) or {}).get("enabled") or ()):
            if plugin.get("name") in REMOVED:
                errors.append(_removed(plugin["name"], f"{path}.{point}.enabled[{number}]"))


def _plugin_config(errors: Errors, entries: list[Json], path: str) -> None:
    seen: list[str] = []
    for number, entry in enumerate(entries):
        here, name = f"{path}[{number}]", entry.get("name") or ""
        if name in seen:
            errors.append(duplicate(here, name))
        seen.append(name)
        check = _ARGS.get(name)
        if name in REMOVED:
            errors.append(_removed(name, here))
        elif check is not None:
            check(errors, entry.get("args") or {}, f"{here}.args")


def _queue_sort(errors: Errors, profiles: list[Json]) -> None:
    sets = [(profile.get("plugins") or {}).get("queueSort") or {} for profile in profiles]
    enabled = sets[0].get("enabled") or []
    if len(enabled) > 1:
        text = "only one queue sort plugin can be enabled"
        errors.append(invalid("profiles[0].plugins.queueSort.Enabled", len(enabled), text))
    for number, each in enumerate(sets[1:], 1):
        if each != sets[0]:
            text = "must be the same for all profiles"
            errors.append(invalid(f"profiles[{number}].plugins.queueSort", each, text))


# --- arguments ---


def _preemption(errors: Errors, args: Json, path: str) -> None:
    percentage = _given(args, "minCandidateNodesPercentage", 10)
    absolute = _given(args, "minCandidateNodesAbsolute", 100)
    names = (f"{path}.minCandidateNodesPercentage", f"{path}.minCandidateNodesAbsolute")
    if not 0 <= percentage <= 100:
        errors.append(invalid(names[0], percentage, "not in valid range [0, 100]"))
    if absolute < 0:
        errors.append(invalid(names[1], absolute, "not in valid range [0, inf)"))
    if percentage == 0 and absolute == 0:
        text = "cannot be zero at the same time as "
        errors.append(invalid(names[0], 0, f"{text}minCandidateNodesAbsolute"))
        errors.append(invalid(names[1], 0, f"{text}minCandidateNodesPercentage"))


def _inter_pod_affinity(errors: Errors, args: Json, path: str) -> None:
    weight = _given(args, "hardPodAffinityWeight", 1)
    if not 0 <= weight <= 100:
        errors.append(invalid(f"{path}.hardPodAffinityWeight", weight, "not in valid range [0, 100]"))


def _spread(errors: Errors, args: Json, path: str) -> None:
    constraints: list[Json] = args.get("defaultConstraints") or []
    kind = args.get("defaultingType") or "System"
    if kind not in ("System", "List"):
        errors.append(unsupported(f"{path}.defaultingType", kind, ("System", "List")))
    elif kind == "System" and constraints:
        errors.append(invalid(f"{path}.defaultingType", kind, "when .defaultConstraints are not empty"))
    seen: list[tuple[Any, Any]] = []
    for number, constraint in enumerate(constraints):
        here = f"{path}.defaultConstraints[{number}]"
        _constraint(errors, constraint, here)
        what = (constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or "")
        if what in seen:
            errors.append(duplicate(here, f"{{{what[0]}, {what[1]}}}"))
        seen.append(what)


def _constraint(errors: Errors, constraint: Json, path: str) -> None:
    skew = constraint.get("maxSkew") or 0
    if skew <= 0:
        errors.append(invalid(f"{path}.maxSkew", skew, "not in valid range (0, inf)"))
    key = constraint.get("topologyKey")
    if not key:
        errors.append(required(f"{path}.topologyKey", "can not be empty"))
    else:
        _label_name(errors, key, f"{path}.topologyKey")
    when = constraint.get("whenUnsatisfiable")
    if not when:
        errors.append(required(f"{path}.whenUnsatisfiable", "can not be empty"))
    elif when not in ("DoNotSchedule", "ScheduleAnyway"):
        errors.append(unsupported(f"{path}.whenUnsatisfiable", when, ("DoNotSchedule", "ScheduleAnyway")))
    if constraint.get("labelSelector") is not None:
        text = "constraint must not define a selector, as they deduced for each pod"
        errors.append(forbidden(f"{path}.labelSelector", text))


def _label_name(errors: Errors, name: str, path: str) -> None:
    errors += [invalid(path, name, text) for text in is_qualified_name(name)]


def _balanced(errors: Errors, args: Json, path: str) -> None:
    seen: list[str] = []
    for number, resource in enumerate(args.get("resources") or ()):
        here, name = f"{path}.resources[{number}]", resource.get("name") or ""
        if name in seen:
            errors.append(duplicate(f"{here}.name", name))
        seen.append(name)
        weight = resource.get("weight") or 1
        if weight != 1:
            errors.append(invalid(f"{here}.weight", weight, "must be 1"))


def _node_affinity(errors: Errors, args: Json, path: str) -> None:
    added = args.get("addedAffinity") or {}
    here = f"{path}.addedAffinity"
    if added.get(_REQUIRED) is not None:
        scheduling.node_selector(errors, added[_REQUIRED], f"{here}.{_REQUIRED}")
    for number, preferred in enumerate(added.get(_PREFERRED) or ()):
        term = preferred.get("preference") or {}
        scheduling.node_selector_term(errors, term, f"{here}.{_PREFERRED}[{number}]", False)


def _volume_binding(errors: Errors, args: Json, path: str) -> None:
    timeout = _given(args, "bindTimeoutSeconds", 600)
    if timeout < 0:
        text = "invalid BindTimeoutSeconds, should not be a negative value"
        errors.append(invalid(f"{path}.bindTimeoutSeconds", timeout, text))
    if args.get("shape") is not None:
        text = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring"
        errors.append(invalid(f"{path}.shape", args["shape"], text))


def _dynamic_resources(errors: Errors, args: Json, path: str) -> None:
    filter_timeout, binding_timeout = args.get("filterTimeout"), args.get("bindingTimeout")
    if filter_timeout is not None and parse_go_duration(filter_timeout) < 0:
        errors.append(invalid(f"{path}.filterTimeout", filter_timeout, "must be zero or positive"))
    if binding_timeout is not None and parse_go_duration(binding_timeout) < 1:
        errors.append(invalid(f"{path}.bindingTimeout", binding_timeout, "must be at least 1 second"))


def _gang_scheduling(errors: Errors, args: Json, path: str) -> None:
    after = _given(args, "reserveAfterSeconds", 300)
    if after < 0:
        errors.append(invalid(f"{path}.reserveAfterSeconds", after, "must be greater than or equal to 0"))


def _tenant_queue(errors: Errors, args: Json, path: str) -> None:
    label = args.get("queueLabel")
    if label:
        _label_name(errors, label, f"{path}.queueLabel")
    queues: list[Json] = args.get("queues") or []
    names = [queue.get("name") or "" for queue in queues]
    parents = {queue.get("parent") or "" for queue in queues}
    for number, queue in enumerate(queues):
        here, name = f"{path}.queues[{number}]", names[number]
        if not name:
            errors.append(required(f"{here}.name"))
        elif name in names[:number]:
            errors.append(duplicate(f"{here}.name", name))
        if name in parents and (name == "default" or queue.get("namespaces")):
            errors.append(invalid(f"{here}.name", name, "only queues without children have pods"))
        _queue(errors, queue, here)
        _queue_parent(errors, queue, queues, here)


def _queue(errors: Errors, queue: Json, path: str) -> None:
    if _given(queue, "weight", 1) < 1:
        errors.append(invalid(f"{path}.weight", queue["weight"], "must be greater than 0"))
    amounts: dict[str, dict[str, Quantity]] = {}
    for field in ("guarantee", "deserved", "capability"):
        amounts[field] = {}
        for resource, value in (queue.get(field) or {}).items():
            try:
                amounts[field][resource] = parse(value)
            except QuantityError as fault:
                errors.append(invalid(f"{path}.{field}[{resource}]", value, str(fault)))
    for lower, upper in (("guarantee", "deserved"), ("deserved", "capability"), ("guarantee", "capability")):
        for resource, amount in amounts[lower].items():
            if resource in amounts[upper] and amount > amounts[upper][resource]:
                text = f"must be less than or equal to {upper}"
                errors.append(invalid(f"{path}.{lower}[{resource}]", str(amount), text))


def _queue_parent(errors: Errors, queue: Json, queues: list[Json], path: str) -> None:
    """The way up must end."""
    above = {each.get("name") or "": each.get("parent") or "" for each in queues}
    seen, parent = [queue.get("name") or ""], queue.get("parent") or ""
    while parent:
        if parent not in above:
            errors.append(invalid(f"{path}.parent", parent, "no such queue"))
            return
        if parent in seen:
            errors.append(invalid(f"{path}.parent", queue["parent"], "leads back to the queue itself"))
            return
        seen.append(parent)
        parent = above[parent]


def _failure_guard(errors: Errors, args: Json, path: str) -> None:
    for name, default in GUARD_ARGUMENTS.items():
        value = _given(args, name, default)
        if value <= 0:
            errors.append(invalid(f"{path}.{name}", value, "must be greater than 0"))
    share = _given(args, "maxPenalizedPercent", GUARD_ARGUMENTS["maxPenalizedPercent"])
    if share > 100:
        errors.append(invalid(f"{path}.maxPenalizedPercent", share, "not in valid range [1-100]"))


_ARGS: Mapping[str, Callable[[Errors, Json, str], None]] = {
    "DefaultPreemption": _preemption,
    "InterPodAffinity": _inter_pod_affinity,
    "NodeAffinity": _node_affinity,
    "NodeResourcesBalancedAllocation": _balanced,
    "PodTopologySpread": _spread,
    "VolumeBinding": _volume_binding,
    "DynamicResources": _dynamic_resources,
    "GangScheduling": _gang_scheduling,
    "TenantQueue": _tenant_queue,
    "NodeFailureGuard": _failure_guard,
}


def fit_faults(args: Json) -> Errors:
    """NodeResourcesFitArgs, which the plugin itself checks: paths begin at the arguments."""
    errors: Errors = []
    for number, name in enumerate(args.get("ignoredResources") or ()):
        _label_name(errors, name, f"ignoredResources[{number}]")
    for number, group in enumerate(args.get("ignoredResourceGroups") or ()):
        here = f"ignoredResourceGroups[{number}]"
        if "/" in group:
            errors.append(invalid(here, group, "resource group name can't contain '/'"))
        _label_name(errors, group, here)
    strategy = args.get("scoringStrategy")
    if strategy is not None:
        _strategy(errors, strategy)
    return errors


def _strategy(errors: Errors, strategy: Json) -> None:
    kind = strategy.get("type") or ""
    if kind not in STRATEGIES:
        errors.append(unsupported("scoringStrategy.type", kind, STRATEGIES))
    for number, resource in enumerate(strategy.get("resources") or ()):
        weight = resource.get("weight") or 1
        if not 0 < weight <= 100:
            text = f"resource weight of {resource.get('name', '')} not in valid range (0, 100]"
            errors.append(invalid(f"scoringStrategy.resources[{number}].weight", weight, text))
    ratio, here = strategy.get("requestedToCapacityRatio"), "scoringStrategy.requestedToCapacityRatio"
    if kind == "RequestedToCapacityRatio":
        if ratio is None:
            text = "must be specified when type is RequestedToCapacityRatio"
            errors.append(required(here, text))
        else:
            _shape(errors, ratio.get("shape") or [], f"{here}.shape")
    elif ratio is not None:
        errors.append(forbidden(here, "must be nil when type is not RequestedToCapacityRatio"))


def _shape(errors: Errors, shape: list[Json], path: str) -> None:
    if not shape:
        errors.append(required(path, "at least one point must be specified"))
        return
    points = [(point.get("utilization") or 0, point.get("score") or 0) for point in shape]
    for number in range(1, len(points)):
        if points[number - 1][0] >= points[number][0]:
            text = "values must be sorted in increasing order"
            errors.append(invalid(f"{path}[{number}].utilization", points[number][0], text))
            break
    for number, (utilization, score) in enumerate(points):
        if not 0 <= utilization <= 100:
            text = "not in valid range [0, 100]"
            errors.append(invalid(f"{path}[{number}].utilization", utilization, text))
        if not 0 <= score <= 10:
            errors.append(invalid(f"{path}[{number}].score", score, "not in valid range [0, 10]"))


# --- extenders ---


def _extenders(errors: Errors, extenders: list[Json]) -> None:
    seen: list[str] = []
    for number, extender in enumerate(extenders):
        path = f"extenders[{number}]"
        weight = extender.get("weight") or 0
        if extender.get("prioritizeVerb") and weight <= 0:
            errors.append(invalid(f"{path}.weight", weight, "must have a positive weight applied to it"))
        for position, resource in enumerate(extender.get("managedResources") or ()):
            here, name = f"{path}.managedResources[{position}].name", resource.get("name") or ""
            _extended_resource(errors, name, here)
            if name in seen:
                errors.append(invalid(here, name, "duplicate extender managed resource name"))
            seen.append(name)
    binders = sum(1 for extender in extenders if extender.get("bindVerb"))
    if binders > 1:
        what = f"found {binders} extenders implementing bind"
        errors.append(invalid("extenders", what, "only one extender can implement bind"))


def _extended_resource(errors: Errors, name: str, path: str) -> None:
    faults = is_qualified_name(name)
    errors += [invalid(path, name, text) for text in faults]
    native = "/" not in name or "kubernetes.io/" in name
    if not faults and (native or name.startswith("requests.")):
        errors.append(invalid(path, name, "is an invalid extended resource name"))
