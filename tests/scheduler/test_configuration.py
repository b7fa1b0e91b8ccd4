"""KubeSchedulerConfiguration v1: strict decoding, validation in Kubernetes' words, the merge rules of plugin sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kcp.scheduler.plugin_table import DEFAULT_PLUGINS
from kcp.scheduler.profiles import (
    ConfigError,
    Configuration,
    Profile,
    config_digest,
    parse_configuration,
    read_configuration,
)

Json = dict[str, Any]
HEAD: Json = {"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"}
CREATING = "initializing profiles: creating profile for scheduler name default-scheduler: "


def parsed(**fields: Any) -> Configuration:
    return parse_configuration({**HEAD, **fields})


def with_plugins(**plugins: Any) -> Profile:
    return parsed(profiles=[{"plugins": plugins}]).profiles[0]


def with_args(name: str, **args: Any) -> list[Json]:
    return [{"pluginConfig": [{"name": name, "args": args}]}]


def enabled(*names: str, **more: Any) -> Json:
    return {"enabled": [{"name": name} for name in names], **more}


WEIGHT_ARGS = ".profiles[0].pluginConfig[0]"
WRONG: list[tuple[Json, str]] = [
    ({"foo": 1}, 'strict decoding error: unknown field "foo"'),
    ({"profiles": [{"bar": 1}]}, 'strict decoding error: unknown field "profiles[0].bar"'),
    (
        {"profiles": [{"plugins": {"sometimes": {}}}]},
        'strict decoding error: unknown field "profiles[0].plugins.sometimes"',
    ),
    (
        {"profiles": with_args("InterPodAffinity", weight=3)},
        f'strict decoding error: decoding {WEIGHT_ARGS}: strict decoding error: unknown field "weight"',
    ),
    (
        {"profiles": with_args("NodeAffinity", kind="InterPodAffinityArgs")},
        f"decoding {WEIGHT_ARGS}: args for plugin NodeAffinity were not of type NodeAffinityArgs, got InterPodAffinityArgs",
    ),
    (
        {"parallelism": "many"},
        "json: cannot unmarshal string into Go struct field KubeSchedulerConfiguration.parallelism of type int32",
    ),
    (
        {"podInitialBackoffSeconds": 1.5},
        "json: cannot unmarshal number 1.5 into Go struct field "
        "KubeSchedulerConfiguration.podInitialBackoffSeconds of type int64",
    ),
    ({"extenders": [{"httpTimeout": "soon"}]}, 'time: invalid duration "soon"'),
    ({"parallelism": 0}, "parallelism: Invalid value: 0: should be an integer value greater than zero"),
    (
        {"percentageOfNodesToScore": 101},
        "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
    ),
    (
        {"podInitialBackoffSeconds": 5, "podMaxBackoffSeconds": 2},
        "podMaxBackoffSeconds: Invalid value: 2: must be greater than or equal to PodInitialBackoffSeconds",
    ),
    (
        {"profiles": [{"schedulerName": "a"}, {}]},
        "profiles[1].schedulerName: Required value",
    ),
    (
        {"leaderElection": {"leaseDuration": "5s"}},
        'leaderElection.leaseDuration: Invalid value: "10s": LeaseDuration must be greater than RenewDeadline',
    ),
    (
        {"leaderElection": {"resourceLock": "endpoints"}},
        'leaderElection.resourceLock: Invalid value: "endpoints": resourceLock value must be "leases"',
    ),
    (
        {"profiles": with_args("InterPodAffinity", hardPodAffinityWeight=101)},
        "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
    ),
    (
        {
            "profiles": with_args(
                "DefaultPreemption", minCandidateNodesPercentage=0, minCandidateNodesAbsolute=0
            )
        },
        "[profiles[0].pluginConfig[0].args.minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same "
        "time as minCandidateNodesAbsolute, profiles[0].pluginConfig[0].args.minCandidateNodesAbsolute: Invalid "
        "value: 0: cannot be zero at the same time as minCandidateNodesPercentage]",
    ),
    (
        {"profiles": with_args("NodeResourcesFit", scoringStrategy={"type": "Most"})},
        f'{CREATING}initializing plugin "NodeResourcesFit": scoringStrategy.type: Unsupported value: "Most": supported '
        'values: "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"',
    ),
    (
        {"profiles": with_args("NodeResourcesFit", scoringStrategy={"type": "RequestedToCapacityRatio"})},
        f'{CREATING}initializing plugin "NodeResourcesFit": scoringStrategy.requestedToCapacityRatio: Required value: '
        "must be specified when type is RequestedToCapacityRatio",
    ),
    (
        {
            "profiles": with_args(
                "NodeResourcesFit",
                scoringStrategy={
                    "type": "RequestedToCapacityRatio",
                    "requestedToCapacityRatio": {
                        "shape": [{"utilization": 50, "score": 11}, {"utilization": 0}]
                    },
                },
            )
        },
        f'{CREATING}initializing plugin "NodeResourcesFit": '
        "[scoringStrategy.requestedToCapacityRatio.shape[1].utilization: Invalid value: 0: values must be sorted in "
        "increasing order, scoringStrategy.requestedToCapacityRatio.shape[0].score: Invalid value: 11: not in valid "
        "range [0, 10]]",
    ),
    (
        {
            "profiles": with_args(
                "PodTopologySpread",
                defaultConstraints=[
                    {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
                ],
            )
        },
        'profiles[0].pluginConfig[0].args.defaultingType: Invalid value: "System": when .defaultConstraints are not empty',
    ),
    (
        {
            "profiles": with_args(
                "PodTopologySpread",
                defaultingType="List",
                defaultConstraints=[
                    {"topologyKey": "zone", "whenUnsatisfiable": "Never", "labelSelector": {}}
                ],
            )
        },
        "[profiles[0].pluginConfig[0].args.defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, "
        "inf), profiles[0].pluginConfig[0].args.defaultConstraints[0].whenUnsatisfiable: Unsupported value: "
        '"Never": supported values: "DoNotSchedule", "ScheduleAnyway", '
        "profiles[0].pluginConfig[0].args.defaultConstraints[0].labelSelector: Forbidden: constraint must not define a "
        "selector, as they deduced for each pod]",
    ),
    (
        {
            "profiles": with_args(
                "NodeResourcesBalancedAllocation", resources=[{"name": "cpu", "weight": 2}, {"name": "cpu"}]
            )
        },
        "[profiles[0].pluginConfig[0].args.resources[0].weight: Invalid value: 2: must be 1, "
        'profiles[0].pluginConfig[0].args.resources[1].name: Duplicate value: "cpu"]',
    ),
    (
        {"profiles": with_args("VolumeBinding", bindTimeoutSeconds=-1)},
        "profiles[0].pluginConfig[0].args.bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not "
        "be a negative value",
    ),
    (
        {
            "profiles": with_args(
                "NodeAffinity", addedAffinity={"requiredDuringSchedulingIgnoredDuringExecution": {}}
            )
        },
        "profiles[0].pluginConfig[0].args.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution."
        "nodeSelectorTerms: Required value: must have at least one node selector term",
    ),
    (
        {"extenders": [{"urlPrefix": "http://e", "prioritizeVerb": "prioritize"}]},
        "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
    ),
    (
        {"extenders": [{"bindVerb": "bind"}, {"bindVerb": "bind"}]},
        'extenders: Invalid value: "found 2 extenders implementing bind": only one extender can implement bind',
    ),
    (
        {"extenders": [{"managedResources": [{"name": "cpu"}]}]},
        'extenders[0].managedResources[0].name: Invalid value: "cpu": is an invalid extended resource name',
    ),
    (
        {"profiles": [{"plugins": {"filter": enabled("EBSLimits")}}]},
        'profiles[0].plugins.filter.enabled[0]: Invalid value: "EBSLimits": was invalid in version "v1" '
        '(KubeSchedulerConfiguration is version "kubescheduler.config.k8s.io/v1")',
    ),
    (
        {"profiles": [{"plugins": {"filter": enabled("Nope")}}]},
        f'{CREATING}FilterPlugin "Nope" does not exist',
    ),
    (
        {"profiles": [{"plugins": {"score": enabled("NodeName")}}]},
        f'{CREATING}plugin "NodeName" does not extend ScorePlugin plugin',
    ),
    (
        {"profiles": [{"plugins": {"filter": enabled("NodeName", "NodeName")}}]},
        f'{CREATING}plugin "NodeName" already registered as "FilterPlugin"',
    ),
    (
        {"profiles": [{"plugins": {"bind": {"disabled": [{"name": "*"}]}}}]},
        f'{CREATING}at least one bind plugin is needed for profile with scheduler name "default-scheduler"',
    ),
    (
        {"profiles": [{"plugins": {"queueSort": {"disabled": [{"name": "*"}]}}}]},
        f"{CREATING}only one queue sort plugin required for profile with scheduler name "
        '"default-scheduler", but got 0',
    ),
]


@pytest.mark.parametrize(("fields", "text"), WRONG, ids=[text[:60] for _, text in WRONG])
def test_what_is_wrong_is_said_in_kubernetes_words(fields: Json, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parsed(**fields)
    assert str(refused.value) == text


def test_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="KubeSchedulerConfiguration"):
        parse_configuration({"apiVersion": "v1", "kind": "Pod"})


def test_nothing_said_is_the_default() -> None:
    assert parsed().profiles == (Profile(),)
    assert parsed(profiles=[{"plugins": {}}]).profiles == (Profile(),)


def test_multi_point_overrides_defaults_in_place_and_adds_at_the_end() -> None:
    profile = with_plugins(
        multiPoint={"enabled": [{"name": "Equal"}, {"name": "TaintToleration", "weight": 9}]}
    )
    assert profile.enabled == (*(name for name, _ in DEFAULT_PLUGINS), "Equal")
    assert dict(profile.scores)["TaintToleration"] == 9
    assert profile.scores[-1] == ("Equal", 1)


def test_a_point_puts_its_overrides_first_and_its_additions_last() -> None:
    filters = with_plugins(
        multiPoint={"disabled": [{"name": "VolumeZone"}]},
        filter=enabled("VolumeZone", "NodePorts", "NodeName"),
    ).filters
    assert filters[:2] == ("NodePorts", "NodeName")
    assert filters[2] == "NodeUnschedulable"
    assert filters[-1] == "VolumeZone"


def test_a_weight_that_a_point_does_not_give_is_one() -> None:
    assert dict(with_plugins(score=enabled("TaintToleration")).scores)["TaintToleration"] == 1
    both = with_plugins(
        multiPoint={"enabled": [{"name": "ImageLocality", "weight": 7}]},
        score={"enabled": [{"name": "ImageLocality", "weight": 4}]},
    )
    assert dict(both.scores)["ImageLocality"] == 4


def test_a_point_can_drop_one_plugin_or_all() -> None:
    profile = with_plugins(
        score={"disabled": [{"name": "*"}]},
        filter={"disabled": [{"name": "NodePorts"}]},
        postFilter={"disabled": [{"name": "DefaultPreemption"}]},
    )
    assert profile.scores == () and profile.post_filters == ("DynamicResources",)
    assert "NodePorts" not in profile.filters and "NodeName" in profile.filters


def test_what_is_enabled_beats_what_is_disabled() -> None:
    profile = with_plugins(
        multiPoint={"disabled": [{"name": "*"}], **enabled("PrioritySort", "NodeName", "DefaultBinder")}
    )
    assert profile.filters == ("NodeName",) and profile.scores == ()


def test_the_percentage_of_a_profile_beats_that_of_all() -> None:
    configuration = parsed(
        percentageOfNodesToScore=30,
        profiles=[{"schedulerName": "a"}, {"schedulerName": "b", "percentageOfNodesToScore": 0}],
    )
    assert [p.percentage_of_nodes_to_score for p in configuration.profiles] == [30, 0]


def test_fields_without_effect_are_noted() -> None:
    configuration = parsed(parallelism=32, clientConnection={"qps": 100, "burst": 200})
    assert [note.partition(" ")[0] for note in configuration.notes] == [
        "parallelism",
        "clientConnection.qps",
    ]


def test_names_of_the_past_mean_what_does_their_work_today() -> None:
    configuration = parsed(
        profiles=[
            {
                "plugins": {
                    "filter": {
                        "disabled": [{"name": "*"}],
                        **enabled("PodFitsHostPorts", "NoDiskConflict", "PodFitsResources"),
                    },
                    "score": {
                        "disabled": [{"name": "*"}],
                        **enabled("MostRequestedPriority", "EqualPriority"),
                    },
                }
            }
        ]
    )
    (profile,) = configuration.profiles
    assert profile.filters == ("NodePorts", "VolumeRestrictions", "NodeResourcesFit")
    assert profile.scores == (("NodeResourcesFit", 1), ("Equal", 1))
    assert profile.args["NodeResourcesFit"]["scoringStrategy"]["type"] == "MostAllocated"
    assert any("MostRequestedPriority" in note for note in configuration.notes)


def test_two_strategies_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        with_plugins(score=enabled("LeastRequestedPriority", "MostRequestedPriority"))


def test_what_an_extender_counts_is_not_counted_here() -> None:
    resource = {"name": "example.com/fpga", "ignoredByScheduler": True}
    (profile,) = parsed(extenders=[{"urlPrefix": "http://e", "managedResources": [resource]}]).profiles
    assert profile.args["NodeResourcesFit"]["ignoredResources"] == ["example.com/fpga"]
    assert profile.extended


def test_a_file_is_read_and_its_faults_name_it(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.yaml"
    file.write_text(
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\npodMaxBackoffSeconds: 60\n"
    )
    assert read_configuration(file).max_backoff_s == 60
    file.write_text(file.read_text() + "podMaxBackoffSeconds: 61\n")
    with pytest.raises(ConfigError, match=r"scheduler\.yaml: strict decoding error: .*already set"):
        read_configuration(file)


def test_another_configuration_has_another_digest() -> None:
    one, other = Profile(), with_plugins(score={"enabled": [{"name": "ImageLocality", "weight": 2}]})
    assert config_digest(one) == config_digest(Profile()) != config_digest(other)
