"""Service: types, IP families, ports; addresses and node ports themselves are allocated elsewhere.

Source: k8s v1.36 pkg/registry/core/service/strategy.go, pkg/apis/core/validation/validation.go, pkg/api/service.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.strategies import STATUS_RESET, keep, metadata_of, spec_of, status_of, text_at
from kcp.apis.kind import Column, Printer, Strategy
from kcp.apis.printing import AGE, NAME, age, format_labels, name_of, or_none, wide
from kcp.machinery import names
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, unsupported

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_TRAFFIC_POLICIES = ("Cluster", "Local")
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_AFFINITIES = ("ClientIP", "None")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_MAX_AFFINITY_S = 86400
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_HINTS = "service.kubernetes.io/topology-aware-hints"
_MODE = "service.kubernetes.io/topology-mode"


def is_externally_accessible(spec: Json) -> bool:
    """Whether the external traffic policy means anything."""
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def needs_health_check_port(spec: Json) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def is_headless(spec: Json) -> bool:
    return spec.get("clusterIPs") == ["None"]


def default_service(service: Json) -> None:
    spec = service.setdefault("spec", {})
    affinity = spec.get("sessionAffinity") or "None"
    spec["sessionAffinity"] = affinity
    if affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    elif affinity == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        if config.get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800}}
    kind = spec["type"] = spec.get("type") or "ClusterIP"
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if not port.get("targetPort"):
            port["targetPort"] = port.get("port") or 0
    if is_externally_accessible(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec.get("internalTrafficPolicy") is None and kind in ("ClusterIP", "LoadBalancer", "NodePort"):
        spec["internalTrafficPolicy"] = "Cluster"
    if kind == "LoadBalancer":
        if spec.get("allocateLoadBalancerNodePorts") is None:
            spec["allocateLoadBalancerNodePorts"] = True
        for ingress in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if ingress.get("ip") and ingress.get("ipMode") is None:
                ingress["ipMode"] = "VIP"


def _normalize_cluster_ips(new: Json, old: Json | None) -> None:
    """Keep clusterIP and clusterIPs in step for clients that know only one of them.

    Source: k8s v1.36 pkg/registry/core/service/storage (normalizeClusterIPs).
    """
    single, plural = new.get("clusterIP") or "", new.get("clusterIPs") or []
    if old is None:
        if single and not plural:
            new["clusterIPs"] = [single]
        return
    was_single, was_plural = old.get("clusterIP") or "", old.get("clusterIPs") or []
    if single == was_single:
        if was_plural and not plural:
            new["clusterIPs"] = list(was_plural)
    elif plural == was_plural:
        new.pop("clusterIPs", None)
        if single:
            new["clusterIPs"] = [single]


def _patch_allocated(after: Json, before: Json) -> None:
    """Carry over what the server allocated when an update leaves it out.

    Source: k8s v1.36 pkg/registry/core/service/storage (patchAllocatedValues).
    """
    if "ExternalName" not in (before.get("type"), after.get("type")):
        if not after.get("clusterIP"):
            keep(after, before, "clusterIP")
        if not after.get("clusterIPs") and after.get("clusterIP") == before.get("clusterIP"):
            keep(after, before, "clusterIPs")
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if not after.get(field):
                keep(after, before, field)
    if _needs_node_ports(before) and _needs_node_ports(after):
        _patch_node_ports(after, before)
    both_checked = needs_health_check_port(before) and needs_health_check_port(after)
    if both_checked and not after.get("healthCheckNodePort"):
        keep(after, before, "healthCheckNodePort")


def _needs_node_ports(spec: Json) -> bool:
    return spec.get("type") in ("LoadBalancer", "NodePort")


def _patch_node_ports(after: Json, before: Json) -> None:
    """By port name, unless the number already serves another port."""
    known = {port.get("name"): port.get("nodePort") for port in before.get("ports") or ()}
    taken = {port["nodePort"] for port in after.get("ports") or () if port.get("nodePort")}
    for port in after.get("ports") or ():
        found = known.get(port.get("name"))
        if not port.get("nodePort") and found and found not in taken:
            port["nodePort"] = found


def prepare_create(service: Json) -> None:
    service["status"] = {"loadBalancer": {}}
    _normalize_cluster_ips(service["spec"], None)


def prepare_update(new: Json, old: Json) -> None:
    keep(new, old, "status")
    after, before = new["spec"], spec_of(old)
    _patch_allocated(after, before)
    _normalize_cluster_ips(after, before)
    _drop_for_type(new, after, before)


def _drop_for_type(new: Json, after: Json, before: Json) -> None:
    """Fields that the old type had and the new one does not need go, unless the client changed them too."""
    if before.get("type") != "ExternalName" and after.get("type") == "ExternalName":
        same = [after.get(field) == before.get(field) for field in ("clusterIP", "clusterIPs")]
        if all(same):
            after.pop("clusterIP", None)
            after.pop("clusterIPs", None)
        for field in ("ipFamilies", "ipFamilyPolicy"):
            _drop_if_same(after, before, field)
    if _needs_node_ports(before) and not _needs_node_ports(after):
        _drop_node_ports(after, before)
    if needs_health_check_port(before) and not needs_health_check_port(after):
        _drop_if_same(after, before, "healthCheckNodePort")
    if before.get("type") == "LoadBalancer" and after.get("type") != "LoadBalancer":
        _drop_if_same(after, before, "allocateLoadBalancerNodePorts")
        _drop_if_same(after, before, "loadBalancerClass")
    if is_externally_accessible(before) and not is_externally_accessible(after):
        _drop_if_same(after, before, "externalTrafficPolicy")
    if after.get("type") != "LoadBalancer" and (new.get("status") or {}).get("loadBalancer"):
        new["status"] = {**new["status"], "loadBalancer": {}}


def _drop_if_same(after: Json, before: Json, field: str) -> None:
    if after.get(field) == before.get(field):
        after.pop(field, None)


def _drop_node_ports(after: Json, before: Json) -> None:
    was = {port.get("nodePort") for port in before.get("ports") or ()}
    ports = after.get("ports") or ()
    if all(not port.get("nodePort") or port["nodePort"] in was for port in ports):
        for port in ports:
            port.pop("nodePort", None)


# -- rules ------------------------------------------------------------------------------------------


def validate_service(service: Json) -> list[FieldError]:
    return _validate(service, {})


def _validate(service: Json, before: Json) -> list[FieldError]:
    """`before`: the stored spec, whose addresses may stay as they are."""
    errors: Errors = []
    metadata, spec = metadata_of(service), spec_of(service)
    _topology_annotations(errors, metadata.get("annotations") or {})
    ports, kind = spec.get("ports") or [], spec.get("type") or ""
    headless = is_headless(spec)
    if not ports and not headless and kind != "ExternalName":
        errors.append(required("spec.ports"))
    if kind in ("LoadBalancer", "NodePort") and headless:
        text = f"may not be set to 'None' for {kind} services"
        errors.append(invalid("spec.clusterIPs[0]", "None", text))
    elif kind == "ExternalName":
        _external_name(errors, spec)
    _ports(errors, ports)
    if selector := spec.get("selector"):
        checks.label_map(errors, selector, "spec.selector")
    _session_affinity(errors, spec)
    if kind != "ExternalName":
        _cluster_ips(errors, spec, headless, before.get("clusterIPs") or ())
    for i, ip in enumerate(spec.get("externalIPs") or ()):
        count = len(errors)
        checks.ip(errors, ip, f"spec.externalIPs[{i}]", before.get("externalIPs") or ())
        if len(errors) == count:
            checks.non_special_ip(errors, ip, f"spec.externalIPs[{i}]")
    checks.one_of(errors, kind, TYPES, "spec.type")
    _port_uniqueness(errors, ports, kind)
    _load_balancer(errors, spec, metadata.get("annotations") or {}, before)
    _traffic(errors, spec)
    return errors


def _topology_annotations(errors: Errors, annotations: Json) -> None:
    hints, mode = annotations.get(_HINTS), annotations.get(_MODE)
    if hints is not None and mode is not None and hints != mode:
        text = f"must match annotations[{_HINTS}] when both are specified"
        errors.append(invalid(f"metadata.annotations[{_MODE}]", mode, text))


def _external_name(errors: Errors, spec: Json) -> None:
    text = "may not be set for ExternalName services"
    for field in ("clusterIPs", "ipFamilies"):
        if spec.get(field):
            errors.append(forbidden(f"spec.{field}", text))
    if spec.get("ipFamilyPolicy") is not None:
        errors.append(forbidden("spec.ipFamilyPolicy", text))
    name = (spec.get("externalName") or "").removesuffix(".")
    if name:
        checks.dns_subdomain(errors, name, "spec.externalName")
    else:
        errors.append(required("spec.externalName"))


def _ports(errors: Errors, ports: list[Json]) -> None:
    seen: set[str] = set()
    for i, port in enumerate(ports):
        path, name = f"spec.ports[{i}]", port.get("name") or ""
        if not name:
            if len(ports) > 1:
                errors.append(required(f"{path}.name"))
        else:
            checks.dns_label(errors, name, f"{path}.name")
            if name in seen:
                errors.append(duplicate(f"{path}.name", name))
            seen.add(name)
        checks.port_number(errors, port.get("port"), f"{path}.port")
        if port.get("protocol") not in _PROTOCOLS:
            checks.one_of(errors, port.get("protocol"), _PROTOCOLS, f"{path}.protocol")
        checks.port(errors, port.get("targetPort"), f"{path}.targetPort")
        if (protocol := port.get("appProtocol")) is not None:
            checks.qualified_name(errors, protocol, f"{path}.appProtocol")


def _port_uniqueness(errors: Errors, ports: list[Json], kind: str) -> None:
    if kind == "ClusterIP":
        for i, port in enumerate(ports):
            if port.get("nodePort"):
                text = "may not be used when `type` is 'ClusterIP'"
                errors.append(forbidden(f"spec.ports[{i}].nodePort", text))
    node_ports: set[tuple[Any, Any]] = set()
    for i, port in enumerate(ports):
        if not port.get("nodePort"):
            continue
        key = (port.get("protocol"), port["nodePort"])
        if key in node_ports:
            errors.append(duplicate(f"spec.ports[{i}].nodePort", port["nodePort"]))
        node_ports.add(key)
    seen: set[tuple[Any, Any]] = set()
    for i, port in enumerate(ports):
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            shown = {
                "Name": "", "Protocol": key[0], "AppProtocol": None, "Port": key[1], "TargetPort": 0, "NodePort": 0,
            }  # fmt: skip
            errors.append(duplicate(f"spec.ports[{i}]", shown))
        seen.add(key)


def _session_affinity(errors: Errors, spec: Json) -> None:
    affinity, config = spec.get("sessionAffinity") or "", spec.get("sessionAffinityConfig")
    path = "spec.sessionAffinityConfig"
    checks.one_of(errors, affinity, _AFFINITIES, "spec.sessionAffinity")
    if affinity == "None" and config is not None:
        errors.append(forbidden(path, "must not be set when session affinity is None"))
    if affinity != "ClientIP":
        return
    text = "when session affinity type is ClientIP"
    client = (config or {}).get("clientIP")
    seconds = (client or {}).get("timeoutSeconds")
    if config is None:
        errors.append(required(path, text))
    elif client is None:
        errors.append(required(f"{path}.clientIP", text))
    elif seconds is None:
        errors.append(required(f"{path}.clientIP.timeoutSeconds", text))
    elif not 0 < seconds <= _MAX_AFFINITY_S:
        limit = f"must be greater than 0 and less than {_MAX_AFFINITY_S}"
        errors.append(invalid(f"{path}.clientIP.timeoutSeconds", seconds, limit))


def _cluster_ips(errors: Errors, spec: Json, headless: bool, stored: Sequence[str]) -> None:
    """clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy. Source: ValidateServiceClusterIPsRelatedFields."""
    single, ips = spec.get("clusterIP") or "", spec.get("clusterIPs") or []
    families, policy = spec.get("ipFamilies") or [], spec.get("ipFamilyPolicy")
    path = "spec.clusterIPs"
    if single and not ips:
        errors.append(required(path))
    elif single and ips[0] != single:
        errors.append(invalid(path, ips, "first value must match `clusterIP`"))
    elif not single and ips:
        errors.append(invalid(path, ips, "must be empty when `clusterIP` is not specified"))
    for i, family in enumerate(families):
        if family not in _FAMILIES:
            errors.append(unsupported(f"spec.ipFamilies[{i}]", family, _FAMILIES))
        if family in families[:i]:
            errors.append(duplicate(f"spec.ipFamilies[{i}]", family))
    if policy is not None and policy not in _FAMILY_POLICIES:
        errors.append(unsupported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES))
    if _wrong_ips(errors, ips, path, stored):
        return
    if len(ips) > 1 and not checks.is_dual_stack(ips):
        errors.append(invalid(path, ips, "may specify no more than one IP for each IP family"))
    if not headless:
        for i, (ip, family) in enumerate(zip(ips, families, strict=False)):
            if family in _FAMILIES and checks.is_ipv6(ip) != (family == "IPv6"):
                text = f"expected an {family} value as indicated by `ipFamilies[{i}]`"
                errors.append(invalid(f"{path}[{i}]", ip, text))


def _wrong_ips(errors: Errors, ips: list[str], path: str, stored: Sequence[str]) -> bool:
    wrong = False
    for i, ip in enumerate(ips):
        if i == 0 and ip == "None":
            if len(ips) > 1:
                wrong = True
                errors.append(invalid(path, ips, "'None' must be the first and only value"))
            continue
        count = len(errors)
        checks.ip(errors, ip, f"{path}[{i}]", stored)
        wrong = wrong or len(errors) > count
    if len(ips) > 2:
        errors.append(invalid(path, ips, "may only hold up to 2 values"))
    return wrong


def _load_balancer(errors: Errors, spec: Json, annotations: Json, before: Json) -> None:
    is_lb = spec.get("type") == "LoadBalancer"
    only = "may only be used when `type` is 'LoadBalancer'"
    stored = [value.strip() for value in before.get("loadBalancerSourceRanges") or ()]
    _source_ranges(errors, spec, annotations, is_lb, stored)
    allocate = spec.get("allocateLoadBalancerNodePorts")
    if allocate is not None and not is_lb:
        errors.append(forbidden("spec.allocateLoadBalancerNodePorts", only))
    if allocate is None and is_lb:
        errors.append(required("allocateLoadBalancerNodePorts"))
    if (name := spec.get("loadBalancerClass")) is not None:
        if is_lb:
            checks.qualified_name(errors, name, "spec.loadBalancerClass")
        else:
            errors.append(forbidden("spec.loadBalancerClass", only))


def _source_ranges(errors: Errors, spec: Json, annotations: Json, is_lb: bool, stored: Sequence[str]) -> None:
    only = "may only be used when `type` is 'LoadBalancer'"
    if ranges := spec.get("loadBalancerSourceRanges"):
        if not is_lb:
            errors.append(forbidden("spec.LoadBalancerSourceRanges", only))
        for i, value in enumerate(ranges):
            checks.cidr(errors, value.strip(), f"spec.LoadBalancerSourceRanges[{i}]", stored)
    elif (text := annotations.get(_SOURCE_RANGES)) is not None:
        path = f"metadata.annotations[{_SOURCE_RANGES}]"
        if not is_lb:
            errors.append(forbidden(path, only))
        for value in text.strip().split(",") if text.strip() else ():
            checks.cidr(errors, value.strip(), path)


def _traffic(errors: Errors, spec: Json) -> None:
    external, port = spec.get("externalTrafficPolicy") or "", spec.get("healthCheckNodePort") or 0
    if is_externally_accessible(spec):
        checks.one_of(errors, external, _TRAFFIC_POLICIES, "spec.externalTrafficPolicy")
    elif external:
        text = "may only be set for externally-accessible services"
        errors.append(invalid("spec.externalTrafficPolicy", external, text))
    if port and not needs_health_check_port(spec):
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(invalid("spec.healthCheckNodePort", port, text))
    elif port:
        checks.port_number(errors, port, "spec.healthCheckNodePort")
    internal = spec.get("internalTrafficPolicy")
    if internal is None:
        if spec.get("type") in ("ClusterIP", "LoadBalancer", "NodePort"):
            errors.append(required("spec.internalTrafficPolicy"))
    elif internal not in _TRAFFIC_POLICIES:
        errors.append(unsupported("spec.internalTrafficPolicy", internal, _TRAFFIC_POLICIES))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        errors.append(unsupported("spec.trafficDistribution", distribution, _DISTRIBUTIONS))


# -- updates ----------------------------------------------------------------------------------------

_ONCE = "may not change once set"


def validate_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    after, before = spec_of(new), spec_of(old)
    if "ExternalName" not in (after.get("type"), before.get("type")):
        _cluster_ip_changes(errors, after, before)
        if not is_headless(after) and not is_headless(before):
            _family_changes(errors, after, before)
    both_balanced = after.get("type") == "LoadBalancer" == before.get("type")
    if both_balanced and after.get("loadBalancerClass") != before.get("loadBalancerClass"):
        errors.append(invalid("spec.loadBalancerClass", after.get("loadBalancerClass"), _ONCE))
    both_checked = needs_health_check_port(after) and needs_health_check_port(before)
    if both_checked and (after.get("healthCheckNodePort") or 0) != (before.get("healthCheckNodePort") or 0):
        errors.append(forbidden("spec.healthCheckNodePort", checks.IMMUTABLE))
    errors += _validate(new, before)
    return errors


def _cluster_ip_changes(errors: Errors, after: Json, before: Json) -> None:
    if is_headless(after) and is_headless(before):
        return
    new, old = after.get("clusterIPs") or [], before.get("clusterIPs") or []
    if len(new) == len(old):
        for i, (ip, was) in enumerate(zip(new, old, strict=True)):
            if ip != was:
                errors.append(invalid(f"spec.clusterIPs[{i}]", new, _ONCE))
        return
    if not new:
        errors.append(invalid("spec.clusterIPs[0]", None, "primary clusterIP can not be unset"))
    if old and new and new[0] != old[0]:
        errors.append(invalid("spec.clusterIPs[0]", new, _ONCE))
    if len(old) > len(new) == 1 and after.get("ipFamilyPolicy") != "SingleStack":
        text = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        errors.append(invalid("spec.ipFamilyPolicy", after.get("ipFamilyPolicy"), text))


def _family_changes(errors: Errors, after: Json, before: Json) -> None:
    new, old = after.get("ipFamilies") or [], before.get("ipFamilies") or []
    if len(new) == len(old):
        for family, was in zip(new, old, strict=True):
            if family != was:
                errors.append(invalid("spec.ipFamilies[0]", new, _ONCE))
        return
    if len(old) > len(new) and not after.get("clusterIPs"):
        errors.append(invalid("spec.ipFamilies[0]", new or None, "primary ipFamily can not be unset"))
    if old and new and new[0] != old[0]:
        errors.append(invalid("spec.ipFamilies[0]", after.get("clusterIPs"), _ONCE))
    if len(old) > len(new) == 1 and after.get("ipFamilyPolicy") != "SingleStack":
        text = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        errors.append(invalid("spec.ipFamilyPolicy", after.get("ipFamilyPolicy"), text))


def validate_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    ingresses = (status_of(new).get("loadBalancer") or {}).get("ingress") or []
    path = "status.loadBalancer.ingress"
    if ingresses and spec_of(old).get("type") != "LoadBalancer":
        return [forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")]
    before = (status_of(old).get("loadBalancer") or {}).get("ingress") or ()
    stored = [ingress["ip"] for ingress in before if ingress.get("ip")]
    for i, ingress in enumerate(ingresses):
        _ingress(errors, ingress, f"{path}[{i}]", stored)
    return errors


def _ingress(errors: Errors, ingress: Json, path: str, stored: Sequence[str]) -> None:
    ip, mode, host = ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname")
    if ip:
        checks.ip(errors, ip, f"{path}.ip", stored)
    if ip and mode is None:
        errors.append(required(f"{path}.ipMode", "must be specified when `ip` is set"))
    elif mode is not None and not ip:
        errors.append(forbidden(f"{path}.ipMode", "may not be specified when `ip` is not set"))
    elif mode is not None and mode not in ("Proxy", "VIP"):
        errors.append(unsupported(f"{path}.ipMode", mode, ("Proxy", "VIP")))
    if host:
        checks.dns_subdomain(errors, host, f"{path}.hostname")
        if names.parse_ip(host) is not None:
            text = "must be a DNS name, not an IP address"
            errors.append(invalid(f"{path}.hostname", host, text))


def _prepare_status(new: Json, old: Json) -> None:
    keep(new, old, "spec")


def _warnings(new: Json, old: Json | None) -> list[str]:
    """Source: k8s v1.36 pkg/api/service/warnings.go."""
    found = []
    spec, annotations = spec_of(new), metadata_of(new).get("annotations") or {}
    if _HINTS in annotations:
        found.append(f"annotation {_HINTS} is deprecated, please use the trafficDistribution field instead")
    if is_headless(spec) and (spec.get("loadBalancerIP") or spec.get("externalIPs")):
        for field, shown in (("loadBalancerIP", "loadBalancerIP"), ("externalIPs", "externalIPs")):
            if spec.get(field):
                found.append(f'spec.{shown}: {shown} is ignored when clusterIP is "None"')
    if is_headless(spec) and spec.get("sessionAffinity") not in (None, "None"):
        found.append("spec.SessionAffinity: SessionAffinity is ignored for headless services")
    return found


# -- printing ---------------------------------------------------------------------------------------

_COLUMNS = (
    NAME,
    Column("Type"),
    Column("Cluster-IP"),
    Column("External-IP"),
    Column("Port(s)"),
    AGE,
    wide("Selector"),
)


def _external_ip(service: Json) -> str:
    spec = spec_of(service)
    kind, external = spec.get("type"), spec.get("externalIPs") or []
    if kind in ("ClusterIP", "NodePort"):
        return ",".join(external) or "<none>"
    if kind == "ExternalName":
        return spec.get("externalName") or ""
    if kind != "LoadBalancer":
        return "<unknown>"
    ingresses = (status_of(service).get("loadBalancer") or {}).get("ingress") or ()
    found = {ingress.get("ip") or ingress.get("hostname") or "" for ingress in ingresses} - {""}
    return ",".join([*sorted(found), *external]) or "<pending>"


def _port_text(port: Json) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port') or 0}{node}/{port.get('protocol') or ''}"


def _cells(service: Json, now: datetime) -> list[Any]:
    spec = spec_of(service)
    ips = spec.get("clusterIPs") or ()
    return [
        name_of(service),
        spec.get("type") or "",
        ips[0] if ips else "<none>",
        _external_ip(service),
        or_none(",".join(map(_port_text, spec.get("ports") or ()))),
        age(service, now),
        format_labels(spec.get("selector")),
    ]


STRATEGIES: dict[str, Strategy] = {
    "Service": Strategy(
        default=default_service,
        prepare_create=prepare_create,
        prepare_update=prepare_update,
        prepare_status=_prepare_status,
        validate_create=validate_service,
        validate_update=validate_update,
        validate_status=validate_status,
        warnings=_warnings,
        selectable={
            "spec.clusterIP": text_at("spec", "clusterIP"),
            "spec.type": text_at("spec", "type"),
        },
        name_rule="dns_label",
        has_generation=False,
        allow_create_on_update=True,
        reset_fields=STATUS_RESET,
    )
}
PRINTERS: dict[str, Printer] = {"Service": Printer(_COLUMNS, _cells)}
