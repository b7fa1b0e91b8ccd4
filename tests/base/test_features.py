from __future__ import annotations

import pytest

from kcp.base.features import FEATURES, FeatureGateError, FeatureGates


def test_defaults() -> None:
    gates = FeatureGates()
    assert gates.enabled("WatchListClient")
    assert not gates.enabled("MaxUnavailableStatefulSet")
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)


def test_flags_change_gates_and_groups() -> None:
    gates = FeatureGates.parse("MaxUnavailableStatefulSet=true, AllAlpha=true,GangScheduling=false")
    assert gates.enabled("MaxUnavailableStatefulSet")
    assert gates.enabled("WorkloadAwarePreemption")
    assert not gates.enabled("GangScheduling")
    assert not FeatureGates.parse("AllBeta=false").enabled("WatchList")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Nonsense=true", "unrecognized feature gate: Nonsense"),
        ("WatchList", "missing bool value for WatchList"),
        (
            "WatchList=maybe",
            'invalid value of WatchList=maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (
            "InOrderInformers=false",
            "cannot set feature gate InOrderInformers to false, feature is locked to true",
        ),
    ],
)
def test_what_is_wrong_is_said_in_kubernetes_words(text: str, error: str) -> None:
    with pytest.raises(FeatureGateError) as raised:
        FeatureGates.parse(text)
    assert str(raised.value) == error
