"""Feature gates as one table: Kubernetes 1.36's names, stages and defaults, as far as kcp's parts ask for them.

    gates = FeatureGates.parse("InPlacePodVerticalScaling=false,AllAlpha=true")
    gates.enabled("OrderedNamespaceDeletion")

Source: k8s v1.36 pkg/features/kube_features.go, component-base/featuregate/feature_gate.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from kcp.base.values import frozen

Stage = Literal["ALPHA", "BETA", "GA", "DEPRECATED"]


@frozen
class Feature:
    """`locked`: the default cannot be changed. `since`: the release that gave it this stage and default."""

    name: str
    stage: Stage
    default: bool
    since: str
    locked: bool = False


FEATURES: tuple[Feature, ...] = (
    # API machinery and clients
    Feature("APIServerTracing", "GA", True, "1.34", locked=True),
    Feature("AtomicFIFO", "BETA", True, "1.36"),
    Feature("CBORServingAndStorage", "ALPHA", False, "1.32"),
    Feature("ConcurrentWatchObjectDecode", "BETA", False, "1.31"),
    Feature("ConsistentListFromCache", "GA", True, "1.34", locked=True),
    Feature("CoordinatedLeaderElection", "BETA", False, "1.33"),
    Feature("InOrderInformers", "GA", True, "1.36", locked=True),
    Feature("MutatingAdmissionPolicy", "GA", True, "1.36", locked=True),
    Feature("OrderedNamespaceDeletion", "GA", True, "1.34", locked=True),
    Feature("StreamingCollectionEncodingToJSON", "GA", True, "1.34", locked=True),
    Feature("UnlockWhileProcessing", "BETA", True, "1.36"),
    Feature("ValidatingAdmissionPolicy", "GA", True, "1.30", locked=True),
    Feature("WatchList", "BETA", True, "1.34"),
    Feature("WatchListClient", "BETA", True, "1.35"),
    # workloads
    Feature("DeploymentReplicaSetTerminatingReplicas", "BETA", True, "1.35"),
    Feature("HPAConfigurableTolerance", "BETA", True, "1.35"),
    Feature("JobManagedBy", "GA", True, "1.35", locked=True),
    Feature("MaxUnavailableStatefulSet", "BETA", False, "1.35"),
    Feature("MutableSchedulingDirectivesForSuspendedJobs", "BETA", True, "1.36"),
    Feature("StaleControllerConsistencyDaemonSet", "BETA", True, "1.36"),
    Feature("StaleControllerConsistencyJob", "BETA", True, "1.36"),
    Feature("StaleControllerConsistencyReplicaSet", "BETA", True, "1.36"),
    Feature("StaleControllerConsistencyStatefulSet", "BETA", True, "1.36"),
    # certificates and tokens
    Feature("ClusterTrustBundle", "BETA", False, "1.33"),
    Feature("PodCertificateRequest", "BETA", False, "1.35"),
    # scheduling
    Feature("DynamicResourceAllocation", "GA", True, "1.35", locked=True),
    Feature("GangScheduling", "ALPHA", False, "1.35"),
    Feature("GenericWorkload", "ALPHA", False, "1.35"),
    Feature("NominatedNodeNameForExpectation", "BETA", True, "1.35"),
    Feature("OpportunisticBatching", "BETA", True, "1.35"),
    Feature("PodSchedulingReadiness", "GA", True, "1.30", locked=True),
    Feature("SchedulerAsyncAPICalls", "BETA", False, "1.35"),
    Feature("SchedulerAsyncPreemption", "BETA", True, "1.33"),
    Feature("SchedulerPopFromBackoffQ", "BETA", True, "1.33"),
    Feature("SchedulerQueueingHints", "GA", True, "1.34", locked=True),
    Feature("TaintTolerationComparisonOperators", "ALPHA", False, "1.35"),
    Feature("TopologyAwareWorkloadScheduling", "ALPHA", False, "1.36"),
    Feature("WorkloadAwarePreemption", "ALPHA", False, "1.36"),
    # nodes
    Feature("InPlacePodVerticalScaling", "GA", True, "1.35", locked=True),
    Feature("KubeletPSI", "BETA", True, "1.34"),
    Feature("NodeSwap", "GA", True, "1.34", locked=True),
    Feature("PodLevelResources", "BETA", True, "1.34"),
    Feature("PodReadyToStartContainersCondition", "BETA", True, "1.29"),
    Feature("SidecarContainers", "GA", True, "1.33", locked=True),
    Feature("UserNamespacesSupport", "BETA", True, "1.33"),
    # network and storage
    Feature("MultiCIDRServiceAllocator", "GA", True, "1.34", locked=True),
    Feature("PreferSameTrafficDistribution", "GA", True, "1.35", locked=True),
    Feature("RecoverVolumeExpansionFailure", "GA", True, "1.34", locked=True),
    Feature("VolumeAttributesClass", "GA", True, "1.34", locked=True),
)  # fmt: skip

_TABLE: Mapping[str, Feature] = {feature.name: feature for feature in FEATURES}
_GROUPS: Mapping[str, Stage] = {"AllAlpha": "ALPHA", "AllBeta": "BETA"}


class FeatureGateError(ValueError):
    """Raised when a gate is unknown, locked, or its value is no boolean; Kubernetes' texts."""


_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


@frozen
class FeatureGates:
    """Which features are on. `values` holds every gate of the table."""

    values: Mapping[str, bool] = attrs.field(
        factory=lambda: {feature.name: feature.default for feature in FEATURES}
    )

    @classmethod
    def parse(cls, text: str) -> FeatureGates:
        """From `--feature-gates`: `A=true,B=false`. Raises FeatureGateError."""
        chosen: dict[str, bool] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                raise FeatureGateError(f"missing bool value for {name}")
            if value not in _BOOLEANS:
                why = f'strconv.ParseBool: parsing "{value}": invalid syntax'
                raise FeatureGateError(f"invalid value of {name}={value}, err: {why}")
            chosen[name] = _BOOLEANS[value]
        return cls.of(chosen)

    @classmethod
    def of(cls, chosen: Mapping[str, bool]) -> FeatureGates:
        """From names and values; AllAlpha and AllBeta are applied first. Raises FeatureGateError."""
        values = {feature.name: feature.default for feature in FEATURES}
        for group, stage in _GROUPS.items():
            if group in chosen:
                members = (f.name for f in FEATURES if f.stage == stage and not f.locked)
                values.update(dict.fromkeys(members, chosen[group]))
        for name, value in chosen.items():
            if name not in _GROUPS:
                values[name] = _allowed(name, value)
        return cls(values)

    def enabled(self, name: str) -> bool:
        """Whether the feature is on. Asking for a name that the table does not have is a bug (KeyError)."""
        return self.values[name]


def _allowed(name: str, value: bool) -> bool:
    feature = _TABLE.get(name)
    if feature is None:
        raise FeatureGateError(f"unrecognized feature gate: {name}")
    if feature.locked and value != feature.default:
        default = str(feature.default).lower()
        raise FeatureGateError(
            f"cannot set feature gate {name} to {str(value).lower()}, feature is locked to {default}"
        )
    return value
