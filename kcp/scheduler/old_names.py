"""Names of predicates and priorities that older schedulers had, and what does their work today.

A configuration may still use them; see `today`. A condition of a node is a taint today, so the predicates that looked at
conditions are TaintToleration; spreading over a Service is what PodTopologySpread does by default.
"""

from __future__ import annotations

from collections.abc import Mapping

STRATEGY_NAMES: Mapping[str, str] = {
    "LeastRequestedPriority": "LeastAllocated",
    "LeastRequested": "LeastAllocated",
    "NodeResourcesLeastAllocated": "LeastAllocated",
    "MostRequestedPriority": "MostAllocated",
    "MostRequested": "MostAllocated",
    "NodeResourcesMostAllocated": "MostAllocated",
    "RequestedToCapacityRatioPriority": "RequestedToCapacityRatio",
    "RequestedToCapacityRatio": "RequestedToCapacityRatio",
}
"""Score plugins that are strategies of NodeResourcesFit today."""

OLD_NAMES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("PodFitsHostPorts", "PodFitsPorts"), ("NodePorts",)),
    **dict.fromkeys(("PodFitsHost", "HostName"), ("NodeName",)),
    "PodFitsResources": ("NodeResourcesFit",),
    "GeneralPredicates": ("NodeResourcesFit", "NodeName", "NodePorts", "NodeAffinity"),
    "MatchNodeSelector": ("NodeAffinity",),
    "NoVolumeZoneConflict": ("VolumeZone",),
    "NoDiskConflict": ("VolumeRestrictions",),
    **dict.fromkeys(
        (
            "MaxCSIVolumeCount",
            "MaxCSIVolumeCountPred",
            "MaxEBSVolumeCount",
            "MaxGCEPDVolumeCount",
            "MaxAzureDiskVolumeCount",
        ),
        ("NodeVolumeLimits",),
    ),
    "CheckVolumeBinding": ("VolumeBinding",),
    **dict.fromkeys(
        (
            "CheckNodeMemoryPressure",
            "CheckNodeDiskPressure",
            "CheckNodePIDPressure",
            "CheckNodeCondition",
            "PodToleratesNodeTaints",
            "TaintTolerationPriority",
        ),
        ("TaintToleration",),
    ),
    "CheckNodeUnschedulable": ("NodeUnschedulable",),
    **dict.fromkeys(("MatchInterPodAffinity", "InterPodAffinityPriority"), ("InterPodAffinity",)),
    **dict.fromkeys(
        (
            "EvenPodsSpread",
            "EvenPodsSpreadPriority",
            "SelectorSpread",
            "SelectorSpreadPriority",
            "ServiceSpreading",
            "ServiceSpreadingPriority",
        ),
        ("PodTopologySpread",),
    ),
    "BalancedResourceAllocation": ("NodeResourcesBalancedAllocation",),
    "NodePreferAvoidPodsPriority": ("NodePreferAvoidPods",),
    "NodeAffinityPriority": ("NodeAffinity",),
    "ImageLocalityPriority": ("ImageLocality",),
    "EqualPriority": ("Equal",),
    **dict.fromkeys(STRATEGY_NAMES, ("NodeResourcesFit",)),
}


def today(name: str) -> tuple[str, ...]:
    """What does the work of a plugin of this name: the name itself unless it is an old one."""
    return OLD_NAMES.get(name, (name,))
