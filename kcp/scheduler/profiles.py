"""Profiles: which plugins run, in which order, with which weights and arguments; KubeSchedulerConfiguration v1.

    configuration = parse_configuration(document)           # raises ConfigError
    framework = build(state, configuration.profiles[0])

Source: k8s v1.36 pkg/scheduler/apis/config/v1/{default_plugins,defaults}.go, framework/runtime/framework.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from kcp.base.values import frozen
from kcp.machinery.codec.yaml import YamlError, decode_yaml
from kcp.machinery.errors import go_quote
from kcp.scheduler import config_fields, config_validation
from kcp.scheduler.cluster_state import ClusterState
from kcp.scheduler.extender import Extender, extender_of
from kcp.scheduler.framework.runtime import Framework, PluginSet
from kcp.scheduler.framework.user_plugin import PluginFailed, made, points_of
from kcp.scheduler.old_names import STRATEGY_NAMES, today
from kcp.scheduler.plugin_table import (
    DEFAULT_PLUGINS,
    GANG_SCHEDULING,
    POINTS,
    ROWS,
    TENANT_QUEUE,
    acts_at,
    defaults_at,
)
from kcp.scheduler.plugins.node_resources_fit import ShapeCache
from kcp.scheduler.preemption import PreemptionArgs, post_filter
from kcp.scheduler.rows import digest
from kcp.scheduler.user_plugins import PluginNotFound, UserPluginSource, is_spec, load

Json = dict[str, Any]
DEFAULT_NAME = "default-scheduler"
API_VERSION = config_validation.API_VERSION
KIND = "KubeSchedulerConfiguration"
_GO_INTERFACES: Mapping[str, str] = {point: f"{point[0].upper()}{point[1:]}Plugin" for point in POINTS}


class ConfigError(ValueError):
    """Raised when a KubeSchedulerConfiguration cannot be used; the message says where."""


@frozen
class UserPlugin:
    """A user's plugin in a profile: enough to find it again, and to know whether it is still the same."""

    spec: str
    path: str = ""
    sha256: str = ""
    points: tuple[str, ...] = ()


@frozen
class Profile:
    """`filters` and `scores` are in order; `args` by plugin name.

    `percentage_of_nodes_to_score` None means all; 0 that it follows the number of nodes. `extended`: the scheduler has
    extenders.
    """

    name: str = DEFAULT_NAME
    enabled: tuple[str, ...] = tuple(name for name, _ in DEFAULT_PLUGINS)
    pre_filters: tuple[str, ...] = defaults_at("preFilter")
    filters: tuple[str, ...] = defaults_at("filter")
    scores: tuple[tuple[str, int], ...] = tuple((n, w) for n, w in DEFAULT_PLUGINS if w and ROWS[n].factory)
    post_filters: tuple[str, ...] = defaults_at("postFilter")
    pre_enqueue: tuple[str, ...] = ("SchedulingGates", "DefaultPreemption")
    queue_sort: str = "PrioritySort"
    args: Mapping[str, Json] = attrs.field(factory=dict)
    percentage_of_nodes_to_score: int | None = None
    extended: bool = False
    user_plugins: Mapping[str, UserPlugin] = attrs.field(factory=dict)


@frozen
class Configuration:
    """What a scheduler process does. Times in seconds.

    `document` is what it was parsed from, None for the defaults; `base` the directory that paths in it start from. `notes`
    say what of it has no effect here.
    """

    profiles: tuple[Profile, ...] = (Profile(),)
    initial_backoff_s: float = 1.0
    max_backoff_s: float = 10.0
    extenders: tuple[Extender, ...] = ()
    notes: tuple[str, ...] = ()
    document: Json | None = None
    base: str = ""

    @property
    def schedules_gangs(self) -> bool:
        """Whether PodGroups are looked at."""
        return any(GANG_SCHEDULING in profile.pre_enqueue for profile in self.profiles)

    def profile(self, name: str) -> Profile:
        """Raises KeyError."""
        return {profile.name: profile for profile in self.profiles}[name]


def config_digest(profile: Profile) -> str:
    """Stands for a profile with the code of users' plugins, wherever their files lie."""
    plugins = {name: attrs.evolve(plugin, path="") for name, plugin in profile.user_plugins.items()}
    return digest(attrs.asdict(attrs.evolve(profile, user_plugins=plugins)))


# --- a profile at work ---


def build(state: ClusterState, profile: Profile) -> Framework:
    """The profile's plugins on a state. Raises ConfigError when a user's plugin is gone or does not start."""
    names = dict.fromkeys((*profile.enabled, *profile.filters, *(n for n, _ in profile.scores)))
    built = {name: plugin for name in names if (plugin := _plugin(profile, name)) is not None}
    for plugin in built.values():
        if hasattr(plugin, "attach"):
            plugin.attach(state)
    filters = [built[n] for n in profile.filters if n in built and _is_filter(built[n])]
    scores = [(built[n], weight) for n, weight in profile.scores if n in built and _is_score(built[n])]
    weights = dict(profile.scores)
    plugins = PluginSet(
        pre_filters=tuple(p for p in filters if hasattr(p, "pre_filter") and p.name in profile.pre_filters),
        filters=tuple(filters),
        scores=tuple(scores),
        fit=built.get("NodeResourcesFit"),
        fit_weight=weights.get("NodeResourcesFit", 0),
        fit_filters="NodeResourcesFit" in profile.filters,
        balanced=built.get("NodeResourcesBalancedAllocation"),
        balanced_weight=weights.get("NodeResourcesBalancedAllocation", 0),
        spread=built.get("PodTopologySpread"),
        inter_pod=built.get("InterPodAffinity"),
        pre_enqueue=profile.pre_enqueue,
        post_filters=profile.post_filters,
        shape_cache=ShapeCache,
        percentage=profile.percentage_of_nodes_to_score,
        base_score=0 if profile.scores or profile.extended else 1,
        tenants=built.get(TENANT_QUEUE),
        devices=built.get("DynamicResources"),
    )
    args = profile.args.get("DefaultPreemption") or {}
    preemption = PreemptionArgs(
        int(args.get("minCandidateNodesPercentage", 10)), int(args.get("minCandidateNodesAbsolute", 100))
    )
    return Framework(state, profile.name, plugins, preemption, post_filter)


def _plugin(profile: Profile, name: str) -> Any:
    args = profile.args.get(name) or {}
    if name in profile.user_plugins:
        own = profile.user_plugins[name]
        try:
            given = {key: value for key, value in args.items() if key != "kcp"}
            return made(name, load(_locator(own)).plugin, given)
        except (PluginNotFound, PluginFailed) as error:
            raise ConfigError(str(error)) from error
    row = ROWS.get(name)
    return row.factory(args) if row is not None and row.factory is not None else None


def _locator(plugin: UserPlugin) -> str:
    return f"{plugin.path}:{plugin.spec.rpartition(':')[2]}" if plugin.path else plugin.spec


def _is_filter(plugin: Any) -> bool:
    return hasattr(plugin, "static_codes") or hasattr(plugin, "codes")


def _is_score(plugin: Any) -> bool:
    return hasattr(plugin, "static_score") or hasattr(plugin, "scores")


# --- the document ---


def read_configuration(path: str | Path) -> Configuration:
    """The configuration in a YAML or JSON file; paths in it are relative to it. Raises ConfigError."""
    file = Path(path)
    try:
        document, repeated = decode_yaml(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from None
    except YamlError as error:
        raise ConfigError(f"{file}: {error}") from None
    if repeated:
        raise ConfigError(f"{file}: {config_fields.strict_error([f'yaml: {text}' for text in repeated])}")
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: no {KIND}")
    try:
        return parse_configuration(document, str(file.absolute().parent))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def parse_configuration(document: Json, base: str = "") -> Configuration:
    """A KubeSchedulerConfiguration. Paths in it are relative to `base`. Raises ConfigError."""
    given, kind = document.get("apiVersion"), document.get("kind")
    if given != API_VERSION or kind != KIND:
        raise ConfigError(
            f"no kind {go_quote(str(kind or ''))} is registered for version {go_quote(str(given or ''))}: "
            f"want {API_VERSION} {KIND}"
        )
    _decode(document)
    faults = config_validation.validate(document)
    if faults:
        raise ConfigError(config_validation.aggregate(faults))
    notes = _without_effect(document)
    profiles = tuple(_profile(row, document, base, notes) for row in document.get("profiles") or [{}])
    return Configuration(
        profiles,
        _seconds(document, "podInitialBackoffSeconds", 1),
        _seconds(document, "podMaxBackoffSeconds", 10),
        tuple(extender_of(row, base) for row in document.get("extenders") or ()),
        tuple(notes),
        document,
        base,
    )


def _seconds(document: Json, field: str, default: int) -> float:
    value = document.get(field)
    return float(default if value is None else value)


def _decode(document: Json) -> None:
    """Types and unknown fields, those of the plugins' arguments after the others."""
    try:
        unknown = config_fields.unknown_fields(document, KIND)
        if unknown:
            raise ConfigError(config_fields.strict_error(unknown))
        faults = [
            fault
            for number, profile in enumerate(document.get("profiles") or ())
            for position, entry in enumerate(profile.get("pluginConfig") or ())
            for fault in _unknown_args(entry, f".profiles[{number}].pluginConfig[{position}]")
        ]
    except config_fields.DecodingError as error:
        raise ConfigError(str(error)) from None
    if faults:
        raise ConfigError(config_fields.strict_error(faults))


def _unknown_args(entry: Json, where: str) -> list[str]:
    name, args = entry.get("name") or "", entry.get("args")
    struct = config_fields.args_struct(name)
    if not struct or args is None:
        return []
    if not isinstance(args, dict):
        raise config_fields.DecodingError(f"decoding {where}: json: cannot unmarshal into {struct}")
    kind = args.get("kind") or struct
    if kind != struct:
        raise ConfigError(f"decoding {where}: args for plugin {name} were not of type {struct}, got {kind}")
    unknown = config_fields.unknown_fields(args, struct)
    return [f"decoding {where}: {config_fields.strict_error(unknown)}"] if unknown else []


_NO_EFFECT: tuple[tuple[str, str], ...] = (
    ("parallelism", "parallelism has no effect: all nodes are looked at in one step"),
    ("clientConnection", "clientConnection.qps and burst have no effect: nothing slows bindings down"),
    ("leaderElection", "leaderElection has no effect inside a daemon: its own election counts"),
    ("enableProfiling", "enableProfiling has no effect"),
    ("enableContentionProfiling", "enableContentionProfiling has no effect"),
    ("delayCacheUntilActive", "delayCacheUntilActive has no effect: caches are filled when it is the turn"),
)


def _without_effect(document: Json) -> list[str]:
    return [text for field, text in _NO_EFFECT if document.get(field) is not None]


# --- one profile of it ---


@attrs.define
class _Names:
    """What the names in one profile mean. `sources` are users' plugins by the name they go by."""

    base: str
    notes: list[str]
    args: dict[str, Json]
    sources: dict[str, UserPluginSource] = attrs.field(factory=dict)

    def known(self, name: str) -> bool:
        return name in ROWS or name in self.sources

    def acts_at(self, name: str, point: str) -> bool:
        if name in self.sources:
            return point in points_of(self.sources[name].plugin)
        return acts_at(name, point)

    def meant(self, name: str) -> tuple[str, ...]:
        """The plugins of today that an entry of a plugin set means."""
        own = ((self.args.get(name) or {}).get("kcp") or {}).get("plugin")
        if own or (is_spec(name) and name not in ROWS):
            return (self._load(str(own or name), name if own else ""),)
        found = today(name)
        if found != (name,):
            self._note(f"plugin {name} is a name of the past: {', '.join(found)} stands in")
        if name in STRATEGY_NAMES:
            self._strategy(name)
        return found

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _strategy(self, name: str) -> None:
        args = self.args.setdefault("NodeResourcesFit", {})
        scoring = {"type": STRATEGY_NAMES[name], **(args.get("scoringStrategy") or {})}
        if scoring["type"] != STRATEGY_NAMES[name]:
            raise ConfigError(
                f"plugin {name} and strategy {scoring['type']} of NodeResourcesFit exclude each other"
            )
        self.args["NodeResourcesFit"] = {**args, "scoringStrategy": scoring}

    def _load(self, spec: str, called: str) -> str:
        try:
            source = load(spec, self.base)
        except PluginNotFound as error:
            raise ConfigError(str(error)) from error
        name = called or source.name
        if name not in self.sources:
            self.sources[name] = source
            for line in source.impurities:
                self._note(f"plugin {name}: {line}; what a plugin says must follow from its arguments alone")
        if spec in self.args:
            self.args.setdefault(name, self.args.pop(spec))
        return name


def _profile(row: Json, document: Json, base: str, notes: list[str]) -> Profile:
    name = row.get("schedulerName") or DEFAULT_NAME
    args = {entry.get("name") or "": entry.get("args") or {} for entry in row.get("pluginConfig") or ()}
    names = _Names(base, notes, args)
    try:
        profile = _merged_profile(name, row.get("plugins") or {}, names)
        _check_fit(names.args.get("NodeResourcesFit") or {})
    except ConfigError as error:
        text = f"initializing profiles: creating profile for scheduler name {name}: {error}"
        raise ConfigError(text) from error
    percentage = row.get("percentageOfNodesToScore")
    return attrs.evolve(
        profile,
        args=_with_ignored(names.args, document.get("extenders") or []),
        percentage_of_nodes_to_score=document.get("percentageOfNodesToScore")
        if percentage is None
        else percentage,
        extended=bool(document.get("extenders")),
        user_plugins={
            called: UserPlugin(source.spec, source.path, source.sha256, points_of(source.plugin))
            for called, source in sorted(names.sources.items())
        },
    )


def _check_fit(args: Json) -> None:
    faults = config_validation.fit_faults(args)
    if faults:
        raise ConfigError(f'initializing plugin "NodeResourcesFit": {config_validation.aggregate(faults)}')


def _with_ignored(args: dict[str, Json], extenders: Sequence[Json]) -> dict[str, Json]:
    """Resources that an extender counts are not counted here."""
    ignored = [
        resource.get("name") or ""
        for extender in extenders
        for resource in extender.get("managedResources") or ()
        if resource.get("ignoredByScheduler")
    ]
    if not ignored:
        return args
    fit = args.get("NodeResourcesFit") or {}
    return {
        **args,
        "NodeResourcesFit": {**fit, "ignoredResources": [*(fit.get("ignoredResources") or ()), *ignored]},
    }


Entries = list[tuple[str, int]]
"""(plugin, weight or 0) in order."""


def _merged_profile(name: str, plugins: Json, names: _Names) -> Profile:
    everywhere = _merged_set(DEFAULT_PLUGINS, plugins.get("multiPoint") or {}, names)
    for plugin, _ in everywhere:
        if not names.known(plugin):
            raise ConfigError(f"{_GO_INTERFACES['preFilter']} {go_quote(plugin)} does not exist")
    at = {point: _at_point(everywhere, plugins.get(point) or {}, point, names) for point in POINTS}
    _one_queue_sort(name, at["queueSort"])
    if not at["bind"]:
        raise ConfigError(
            f"at least one bind plugin is needed for profile with scheduler name {go_quote(name)}"
        )
    weights = _weights(everywhere, plugins.get("score") or {}, names)
    scores = tuple((plugin, weights[plugin]) for plugin in at["score"] if _scores(plugin, names))
    return Profile(
        name=name,
        enabled=tuple(plugin for plugin, _ in everywhere),
        pre_filters=tuple(at["preFilter"]),
        filters=tuple(at["filter"]),
        scores=scores,
        post_filters=tuple(at["postFilter"]),
        pre_enqueue=tuple(p for p in at["preEnqueue"] if p != "DynamicResources"),
        queue_sort=at["queueSort"][0],
    )


def _scores(name: str, names: _Names) -> bool:
    if name in names.sources:
        return True
    return ROWS[name].weight > 0 and ROWS[name].factory is not None


def _one_queue_sort(name: str, at: Sequence[str]) -> None:
    if len(at) != 1:
        raise ConfigError(
            f"only one queue sort plugin required for profile with scheduler name {go_quote(name)}, but got {len(at)}"
        )


def _entries(rows: Sequence[Json], names: _Names) -> Entries:
    return [
        (plugin, int(row.get("weight") or 0)) for row in rows for plugin in names.meant(row.get("name") or "")
    ]


def _disabled(changes: Json, names: _Names) -> frozenset[str]:
    return frozenset(plugin for plugin, _ in _entries(changes.get("disabled") or (), names))


def _merged_set(base: Sequence[tuple[str, int]], changes: Json, names: _Names) -> Entries:
    """A plugin enabled again is overridden in place; `disabled: [{name: "*"}]` drops all of the base."""
    disabled = _disabled(changes, names)
    enabled = dict(_entries(changes.get("enabled") or (), names))
    kept = [] if "*" in disabled else [(n, w) for n, w in base if n not in disabled]
    merged = [(name, enabled.get(name, weight)) for name, weight in kept]
    there = {name for name, _ in merged}
    return merged + [(name, weight) for name, weight in enabled.items() if name not in there]


def _at_point(everywhere: Entries, changes: Json, point: str, names: _Names) -> list[str]:
    """First what the point overrides, then what comes through multiPoint, then what the point adds."""
    own = [plugin for plugin, _ in _entries(changes.get("enabled") or (), names)]
    disabled = _disabled(changes, names)
    for number, plugin in enumerate(own):
        if not names.known(plugin):
            raise ConfigError(f"{_GO_INTERFACES[point]} {go_quote(plugin)} does not exist")
        if not names.acts_at(plugin, point):
            raise ConfigError(f"plugin {go_quote(plugin)} does not extend {_GO_INTERFACES[point]} plugin")
        if plugin in own[:number]:
            raise ConfigError(
                f"plugin {go_quote(plugin)} already registered as {go_quote(_GO_INTERFACES[point])}"
            )
    if "*" in disabled:
        return own
    through = [p for p, _ in everywhere if names.acts_at(p, point) and p not in disabled]
    overridden = [plugin for plugin in own if plugin in through]
    return [
        *overridden,
        *(plugin for plugin in through if plugin not in overridden),
        *(plugin for plugin in own if plugin not in overridden),
    ]


def _weights(everywhere: Entries, score: Json, names: _Names) -> dict[str, int]:
    """A weight given at the point score counts before one of multiPoint; none given is 1."""
    found: dict[str, int] = {}
    for plugin, weight in [*_entries(score.get("enabled") or (), names), *everywhere]:
        found.setdefault(plugin, weight or _unsaid(plugin))
    return found


def _unsaid(plugin: str) -> int:
    row = ROWS.get(plugin)
    return 1 if row is None or row.default else row.weight
