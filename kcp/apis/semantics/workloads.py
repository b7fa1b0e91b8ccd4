"""What controllers of pods share: template hashes, revision annotations, surge arithmetic, the order of deletion.

Source: k8s v1.36 pkg/controller/controller_utils.go, pkg/controller/deployment/util/deployment_util.go.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cmp_to_key
from typing import Any

import orjson

from kcp.apis.semantics import pods
from kcp.machinery.intstr import scaled_value
from kcp.machinery.times import parse_time

Json = dict[str, Any]

POD_TEMPLATE_HASH = "pod-template-hash"
CONTROLLER_REVISION_HASH = "controller-revision-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
CHANGE_CAUSE = "kubernetes.io/change-cause"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NOT_COPIED = frozenset(
    {
        LAST_APPLIED,
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    }
)
"""Annotations of a Deployment that its ReplicaSets do not inherit."""

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_PHASE_ORDER: Mapping[str, int] = {"Pending": 0, "Unknown": 1, "Running": 2}


def safe_encode(text: str) -> str:
    """Digits as characters that spell no words. Source: apimachinery/pkg/util/rand SafeEncodeString."""
    return "".join(_ALPHABET[ord(char) % len(_ALPHABET)] for char in text)


def stable_hash(value: Any, collision_count: int | None = None) -> str:
    """Up to ten safe characters, the same for equal JSON in any process.

    Equal means equal as canonical JSON: the order of keys does not count. The value differs from Kubernetes' own
    (which hashes a Go dump); nobody compares the two.
    """
    digest = hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
    if collision_count is not None:
        digest.update(collision_count.to_bytes(4, "little"))
    return safe_encode(str(int.from_bytes(digest.digest()[:4], "big")))


def template_without_hash(template: Json) -> Json:
    """A pod template without the labels that controllers add: what decides whether two templates are equal."""
    metadata = template.get("metadata") or {}
    own = metadata.get("labels") or {}
    labels = {key: value for key, value in own.items() if key != POD_TEMPLATE_HASH}
    kept = {key: value for key, value in metadata.items() if key not in ("labels", "creationTimestamp")}
    if labels:
        kept["labels"] = labels
    return {**template, "metadata": kept}


def pod_template_hash(template: Json, collision_count: int | None = None) -> str:
    return stable_hash(template_without_hash(template), collision_count)


def equal_templates(one: Json, other: Json) -> bool:
    """Equal but for the pod-template-hash label."""
    return template_without_hash(one) == template_without_hash(other)


def with_label(labels: Mapping[str, str] | None, key: str, value: str) -> dict[str, str]:
    return {**(labels or {}), key: value}


def selector_with_label(selector: Json, key: str, value: str) -> Json:
    """A label selector that additionally asks for key=value."""
    return {**selector, "matchLabels": with_label(selector.get("matchLabels"), key, value)}


def is_owned_by(obj: Json, owner: Json) -> bool:
    """Whether `owner` is the controller of `obj`, by uid."""
    uid = owner.get("metadata", {}).get("uid")
    references = obj.get("metadata", {}).get("ownerReferences") or ()
    return any(reference.get("controller") and reference.get("uid") == uid for reference in references)


def inherited_annotations(owner: Json) -> dict[str, str]:
    """The annotations that a Deployment hands to its ReplicaSets."""
    own = owner.get("metadata", {}).get("annotations") or {}
    return {key: value for key, value in own.items() if key not in NOT_COPIED}


def revision(obj: Json) -> int:
    """The revision annotation as a number; 0 when absent or malformed."""
    text = (obj.get("metadata", {}).get("annotations") or {}).get(REVISION, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def annotated_replicas(obj: Json, key: str) -> int | None:
    """The desired-replicas or max-replicas annotation; None when absent or malformed."""
    text = (obj.get("metadata", {}).get("annotations") or {}).get(key, "")
    return int(text) if text.isascii() and text.isdigit() else None


def replicas(obj: Json) -> int:
    """spec.replicas, 1 when unset."""
    value = (obj.get("spec") or {}).get("replicas")
    return 1 if value is None else int(value)


def resolve_fenceposts(
    max_surge: int | str | None, max_unavailable: int | str | None, desired: int
) -> tuple[int, int]:
    """(surge, unavailable) as numbers: surge rounds up, unavailable down, and they are never both zero."""
    surge = scaled_value(0 if max_surge is None else max_surge, desired, True)
    unavailable = scaled_value(0 if max_unavailable is None else max_unavailable, desired, False)
    return (surge, 1) if surge == 0 and unavailable == 0 else (surge, unavailable)


def _rolling_update(deployment: Json) -> Json | None:
    strategy = (deployment.get("spec") or {}).get("strategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return None
    return strategy.get("rollingUpdate") or {}


def _rolling_numbers(deployment: Json) -> tuple[int, int]:
    rolling = _rolling_update(deployment)
    if rolling is None:
        return 0, 0
    return resolve_fenceposts(rolling.get("maxSurge"), rolling.get("maxUnavailable"), replicas(deployment))


def max_surge(deployment: Json) -> int:
    """Pods that may exist above the desired number; 0 unless the strategy is RollingUpdate."""
    return _rolling_numbers(deployment)[0]


def max_unavailable(deployment: Json) -> int:
    """Pods that may be missing; at most the desired number, 0 when that is 0."""
    desired = replicas(deployment)
    return min(_rolling_numbers(deployment)[1], desired) if desired else 0


def min_available(deployment: Json) -> int:
    return (
        replicas(deployment) - max_unavailable(deployment) if _rolling_update(deployment) is not None else 0
    )


def _logarithmic_rank(moment: datetime, now: datetime) -> int:
    """Bucket of an age: pods of about the same age are equals. Source: logarithmicRankDiff, in nanoseconds."""
    delta = now - moment
    nanoseconds = ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000
    return int(math.log2(nanoseconds)) if nanoseconds > 0 else -1


def _created(pod: Json) -> datetime | None:
    text = pod.get("metadata", {}).get("creationTimestamp")
    return parse_time(text) if text else None


def _uid(pod: Json) -> str:
    uid: str = pod.get("metadata", {}).get("uid", "")
    return uid


def _compare_moments(one: Json, other: Json, of: Callable[[Json], datetime | None], now: datetime) -> int:
    """Younger first in logarithmic buckets, ties by uid; 0 when the moments are equal."""
    first, second = of(one), of(other)
    if first == second:
        return 0
    if first is None or second is None:
        return -1 if first is None else 1
    difference = _logarithmic_rank(first, now) - _logarithmic_rank(second, now)
    return difference if difference else (-1 if _uid(one) < _uid(other) else 1)


def _static_rank(pod: Json) -> tuple[int, int, int, int]:
    return (
        int(pods.is_assigned(pod)),
        _PHASE_ORDER.get(pods.phase(pod), 0),
        int(pods.is_ready(pod)),
        pods.deletion_cost(pod),
    )


def deletion_order(
    candidates: Sequence[Json], ranks: Sequence[int], now: datetime, count: int | None = None
) -> list[Json]:
    """The pods in the order in which a controller deletes them: the least valuable first; the first `count` of them.

    `ranks[i]` is how many related active pods share the node of `candidates[i]`; crowded nodes lose pods first. Pods that
    these two set apart are not compared any further, so a few of many are found quickly.
    Source: ActivePodsWithRanks.
    """
    alike: dict[tuple[Any, int], list[Json]] = {}
    for pod, rank in zip(candidates, ranks, strict=True):
        alike.setdefault((_static_rank(pod), -rank), []).append(pod)
    order: list[Json] = []
    for value in sorted(alike):
        if count is not None and len(order) >= count:
            break
        order += _by_age(alike[value], now, ready=bool(value[0][2]))
    return order[:count]


def _by_age(alike: Sequence[Json], now: datetime, *, ready: bool) -> list[Json]:
    """Ready for the shortest time first, then restarted most often, then youngest."""

    def compare(one: tuple[Any, Json], other: tuple[Any, Json]) -> int:
        if ready:
            by_readiness = _compare_moments(one[1], other[1], pods.ready_since, now)
            if by_readiness:
                return by_readiness
        if one[0] != other[0]:
            return -1 if one[0] < other[0] else 1
        return _compare_moments(one[1], other[1], _created, now)

    entries = [(tuple(-count for count in pods.restarts(pod)), pod) for pod in alike]
    return [pod for _, pod in sorted(entries, key=cmp_to_key(compare))]
