"""Which address families a Service has: what its policy, its families and its addresses say together.

    cluster IPv4           nothing asked                    SingleStack       [IPv4]
    cluster IPv4           PreferDualStack                  PreferDualStack   [IPv4]
    cluster IPv4           RequireDualStack                 refused
    cluster IPv4, IPv6     PreferDualStack                  PreferDualStack   [IPv4, IPv6]
    any                    headless, without a selector     RequireDualStack  [IPv4, IPv6]

A Service changes between one family and two only when its policy says so, never because the cluster did.
Source: k8s v1.36 pkg/registry/core/service/storage/alloc.go initIPFamilyFields.
"""

from __future__ import annotations

from collections.abc import Sequence

from kcp.apis.kind import Json
from kcp.apis.semantics.services import NONE, address_family
from kcp.machinery.errors import FieldError, invalid

SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
_FAMILIES = ("IPv4", "IPv6")
_POLICY = "spec.ipFamilyPolicy"


def settle_families(spec: Json, before: Json, cluster: Sequence[str]) -> list[FieldError]:
    """Set `ipFamilyPolicy` and `ipFamilies` of a Service that gets addresses, and drop an address that it gives up.

    `before` is the stored spec, empty on create; `cluster` are the families that the cluster has, its default first.
    """
    if before and _keeps_its_preference(spec, before):
        return []
    headless = _headless(spec)
    selectorless = headless and not spec.get("selector")
    policy = (
        spec.get("ipFamilyPolicy") or before.get("ipFamilyPolicy") or (REQUIRE if selectorless else SINGLE)
    )
    spec["ipFamilyPolicy"] = policy
    errors = _given_up(spec, before, policy) if before else []
    errors += _too_many(spec, policy) + _infer(spec, cluster)
    if not errors and not selectorless:
        errors = _not_configured(spec, policy, cluster)
    if errors:
        return errors
    families = list(spec.get("ipFamilies") or cluster[:1])
    if policy != SINGLE and len(families) == 1 and (selectorless or len(cluster) > 1):
        families += [family for family in _FAMILIES if family not in families]
    spec["ipFamilies"] = families
    return []


def _headless(spec: Json) -> bool:
    return spec.get("clusterIP") == NONE or (spec.get("clusterIPs") or [""])[0] == NONE


def _keeps_its_preference(spec: Json, before: Json) -> bool:
    """Whether this is a PreferDualStack Service as before, which stays as the cluster of its day made it."""
    alike = ("type", "ipFamilyPolicy", "clusterIPs", "ipFamilies")
    return spec.get("ipFamilyPolicy") == PREFER and all(spec.get(f) == before.get(f) for f in alike)


def _given_up(spec: Json, before: Json, policy: str) -> list[FieldError]:
    """An update to one family lets the second go; under another policy that is an error."""
    errors = []
    for field, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        now, old = spec.get(field) or [], before.get(field) or []
        if policy == SINGLE:
            if now == old and len(now) > 1:
                spec[field] = now[:1]
        elif now and len(now) < len(old):
            errors.append(invalid(_POLICY, policy, f"must be 'SingleStack' to release the secondary {what}"))
    return errors


def _too_many(spec: Json, policy: str) -> list[FieldError]:
    if policy != SINGLE:
        return []
    text = "must be 'RequireDualStack' or 'PreferDualStack' when multiple"
    return [
        invalid(_POLICY, policy, f"{text} {what} are specified")
        for field, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families"))
        if len(spec.get(field) or ()) == 2
    ]


def _infer(spec: Json, cluster: Sequence[str]) -> list[FieldError]:
    """Addresses that are given say their families."""
    given, families = spec.get("clusterIPs") or [], list(spec.get("ipFamilies") or ())
    errors = []
    for at, ip in enumerate(given):
        if ip == NONE:
            break
        if at < len(families):
            continue
        family = address_family(ip)
        if family in cluster:
            families.append(family)
        else:
            errors.append(
                invalid(f"spec.clusterIPs[{at}]", given, f"{family} is not configured on this cluster")
            )
    if families:
        spec["ipFamilies"] = families
    return errors


def _not_configured(spec: Json, policy: str, cluster: Sequence[str]) -> list[FieldError]:
    errors = []
    if policy == REQUIRE and len(cluster) < 2:
        errors.append(invalid(_POLICY, policy, "this cluster is not configured for dual-stack services"))
    errors += [
        invalid(f"spec.ipFamilies[{at}]", family, "not configured on this cluster")
        for at, family in enumerate(spec.get("ipFamilies") or ())
        if family not in cluster
    ]
    return errors
