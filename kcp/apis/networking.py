"""networking.k8s.io: Ingress, IngressClass, NetworkPolicy, IPAddress, ServiceCIDR.

Source: k8s v1.36 pkg/apis/networking/validation/validation.go, pkg/apis/networking/v1/defaults.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors
from kcp.apis.kind import Json, Printer, Strategy
from kcp.apis.preparing import STATUS_RESETS, zero_status
from kcp.apis.printing import AGE, NAME, NONE, age, columns, format_label_selector, name_of
from kcp.machinery import names
from kcp.machinery.errors import FieldError, forbidden, invalid, required, too_long, unsupported

INGRESS_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_CLASS_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"
MAX_CONTROLLER_LENGTH = 250

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_PATH_PARTS = ("//", "/./", "/../", "%2f", "%2F")
_BAD_PATH_ENDS = ("/..", "/.")
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_POLICY_TYPES = ("Ingress", "Egress")
_SCOPES = ("Cluster", "Namespace")
_NOT_AN_IP = "must be a DNS name, not an IP address"


def _default_ingress(ingress: Json) -> None:
    for rule in (ingress.get("spec") or {}).get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            path.setdefault("backend", {})


def _check_host(errors: Errors, host: str, path: str) -> None:
    check = names.is_wildcard_dns1123_subdomain if "*" in host else names.is_dns1123_subdomain
    checks.texts(errors, check(host), host, path)


def _check_typed_reference(errors: Errors, reference: Json, path: str) -> None:
    group = reference.get("apiGroup")
    if group is not None:
        checks.texts(errors, names.is_dns1123_subdomain(group), group, f"{path}.apiGroup")
    for field in ("kind", "name"):
        value = reference.get(field) or ""
        if not value:
            errors.append(required(f"{path}.{field}"))
        else:
            checks.texts(errors, names.is_path_segment_name(value), value, f"{path}.{field}")


def _check_service_port(errors: Errors, port: Json, path: str) -> None:
    name, number = port.get("name") or "", port.get("number") or 0
    if name and number:
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif name:
        checks.texts(errors, names.is_port_name(name), name, f"{path}.service.port.name")
    elif number:
        checks.texts(errors, names.is_port_num(number), number, f"{path}.service.port.number")
    else:
        errors.append(required(path, "port name or number is required"))


def _check_backend(errors: Errors, backend: Json, path: str) -> None:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        errors.append(invalid(path, "", "cannot set both resource and service backends"))
    elif resource is not None:
        _check_typed_reference(errors, resource, f"{path}.resource")
    elif service is not None:
        name = service.get("name") or ""
        if not name:
            errors.append(required(f"{path}.service.name"))
        else:
            checks.texts(errors, names.is_dns1123_label(name), name, f"{path}.service.name")
        _check_service_port(errors, service.get("port") or {}, path)
    else:
        errors.append(invalid(path, "", "resource or service backend is required"))


def _check_url_path(errors: Errors, kind: str, value: str, path: str) -> None:
    if kind == "ImplementationSpecific":
        if value and not value.startswith("/"):
            errors.append(invalid(path, value, "must be an absolute path"))
        return
    if not value.startswith("/"):
        errors.append(invalid(path, value, "must be an absolute path"))
    for part in _BAD_PATH_PARTS:
        if part in value:
            errors.append(invalid(path, value, f"must not contain '{part}'"))
    for end in _BAD_PATH_ENDS:
        if value.endswith(end):
            errors.append(invalid(path, value, f"cannot end with '{end}'"))


def _check_http_path(errors: Errors, entry: Json, path: str) -> None:
    kind = entry.get("pathType")
    if kind is None:
        errors.append(required(f"{path}.pathType", "pathType must be specified"))
        return
    if kind in _PATH_TYPES:
        _check_url_path(errors, kind, entry.get("path") or "", f"{path}.path")
    else:
        errors.append(unsupported(f"{path}.pathType", kind, _PATH_TYPES))
    _check_backend(errors, entry.get("backend") or {}, f"{path}.backend")


def _check_rule_value(errors: Errors, rule: Json, path: str) -> None:
    http = rule.get("http")
    if http is None:
        return
    paths = http.get("paths") or []
    if not paths:
        errors.append(required(f"{path}.http.paths"))
    for index, entry in enumerate(paths):
        _check_http_path(errors, entry, f"{path}.http.paths[{index}]")


def _check_rule(errors: Errors, rule: Json, path: str, *, lenient_wildcards: bool) -> None:
    host = rule.get("host") or ""
    if host:
        if names.parse_ip(host) is not None:
            errors.append(invalid(f"{path}.host", host, _NOT_AN_IP))
        _check_host(errors, host, f"{path}.host")
    if "*" not in host or not lenient_wildcards:
        _check_rule_value(errors, rule, path)


def _secret_name_faults(entry: Json) -> list[str]:
    name = entry.get("secretName") or ""
    return names.is_dns1123_subdomain(name) if name else []


def _check_tls(errors: Errors, entry: Json, path: str, *, lenient_secrets: bool) -> None:
    for index, host in enumerate(entry.get("hosts") or ()):
        _check_host(errors, host, f"{path}.hosts[{index}]")
    if not lenient_secrets:
        checks.texts(errors, _secret_name_faults(entry), entry.get("secretName"), f"{path}.secretName")


def _has_bad_secret(ingress: Json) -> bool:
    return any(_secret_name_faults(entry) for entry in (ingress.get("spec") or {}).get("tls") or ())


def _has_bad_wildcard(ingress: Json) -> bool:
    errors: Errors = []
    for rule in (ingress.get("spec") or {}).get("rules") or ():
        if "*" in (rule.get("host") or ""):
            _check_rule_value(errors, rule, "")
    return bool(errors)


def _check_ingress(errors: Errors, ingress: Json, old: Json | None) -> None:
    """`old` loosens what was already stored: faults that older releases accepted may stay."""
    spec = ingress.get("spec") or {}
    rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and backend is None:
        text = "either `defaultBackend` or `rules` must be specified"
        errors.append(invalid("spec", spec.get("rules"), text))
    if backend is not None:
        _check_backend(errors, backend, "spec.defaultBackend")
    lenient = old is not None and _has_bad_wildcard(old)
    for index, rule in enumerate(rules):
        _check_rule(errors, rule, f"spec.rules[{index}]", lenient_wildcards=lenient)
    lenient = old is not None and _has_bad_secret(old)
    for index, entry in enumerate(spec.get("tls") or ()):
        _check_tls(errors, entry, f"spec.tls[{index}]", lenient_secrets=lenient)
    name = spec.get("ingressClassName")
    if name is not None:
        checks.texts(errors, names.is_dns1123_subdomain(name), name, "spec.ingressClassName")


def validate_ingress(ingress: Json) -> list[FieldError]:
    errors: Errors = []
    _check_ingress(errors, ingress, None)
    annotation = (ingress["metadata"].get("annotations") or {}).get(INGRESS_CLASS_ANNOTATION)
    name = (ingress.get("spec") or {}).get("ingressClassName")
    if annotation is not None and name is not None and annotation != name:
        text = "must match `ingressClassName` when both are specified"
        errors.append(invalid(f"annotations.{INGRESS_CLASS_ANNOTATION}", annotation, text))
    return errors


def validate_ingress_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    _check_ingress(errors, new, old)
    return errors


def _ingress_points(ingress: Json) -> list[Json]:
    found: list[Json] = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return found


def validate_ingress_status(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    path, stored = "status.loadBalancer.ingress", [entry.get("ip") or "" for entry in _ingress_points(old)]
    for index, entry in enumerate(_ingress_points(new)):
        ip, host = entry.get("ip") or "", entry.get("hostname") or ""
        if ip:
            checks.ip(errors, ip, f"{path}[{index}].ip", stored)
        if host:
            checks.texts(errors, names.is_dns1123_subdomain(host), host, f"{path}[{index}].hostname")
            if names.parse_ip(host) is not None:
                errors.append(invalid(f"{path}[{index}].hostname", host, _NOT_AN_IP))
    return errors


def _ingress_warnings(new: Json, old: Json | None) -> list[str]:
    annotations = new["metadata"].get("annotations") or {}
    if old is None and INGRESS_CLASS_ANNOTATION in annotations:
        return [
            f"annotation \"{INGRESS_CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
        ]
    return []


def _format_hosts(rules: list[Json]) -> str:
    """The first three hosts; what is left counts rules, as Kubernetes counts."""
    hosts: list[str] = []
    hidden = False
    for rule in rules:
        hidden = hidden or len(hosts) == 3
        if not hidden and rule.get("host"):
            hosts.append(rule["host"])
    if not hosts:
        return "*"
    text = ",".join(hosts)
    return f"{text} + {len(rules) - 3} more..." if hidden else text


def format_load_balancer(status: Json | None) -> str:
    """Addresses of a load balancer's ingress points, sorted, without duplicates."""
    ingress = ((status or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = {entry.get("ip") or entry.get("hostname") or "" for entry in ingress}
    return ",".join(sorted(address for address in found if address))


def _ingress_cells(ingress: Json, now: datetime) -> list[Any]:
    spec = ingress.get("spec") or {}
    name = spec.get("ingressClassName")
    return [
        name_of(ingress),
        NONE if name is None else name,
        _format_hosts(spec.get("rules") or []),
        format_load_balancer(ingress.get("status")),
        "80, 443" if spec.get("tls") else "80",
        age(ingress, now),
    ]


def _default_ingress_class(ingress_class: Json) -> None:
    parameters = (ingress_class.get("spec") or {}).get("parameters")
    if parameters is not None and parameters.get("scope") is None:
        parameters["scope"] = "Cluster"


def _check_parameters(errors: Errors, parameters: Json, path: str) -> None:
    _check_typed_reference(errors, parameters, path)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        errors.append(required(f"{path}.scope"))
    elif scope not in _SCOPES:
        errors.append(unsupported(f"{path}.scope", scope, _SCOPES))
    elif namespace is None:
        if scope == "Namespace":
            errors.append(required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'"))
    elif scope == "Cluster":
        errors.append(forbidden(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'"))
    else:
        checks.texts(errors, names.is_dns1123_label(namespace), namespace, f"{path}.namespace")


def validate_ingress_class(ingress_class: Json) -> list[FieldError]:
    errors: Errors = []
    spec = ingress_class.get("spec") or {}
    controller = spec.get("controller") or ""
    if not controller:
        errors.append(required("spec.controller"))
    else:
        if len(controller.encode()) > MAX_CONTROLLER_LENGTH:
            errors.append(too_long("spec.controller", MAX_CONTROLLER_LENGTH))
        errors += names.is_domain_prefixed_path(controller, "spec.controller")
    if spec.get("parameters") is not None:
        _check_parameters(errors, spec["parameters"], "spec.parameters")
    return errors


def validate_ingress_class_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    new_spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    checks.same(errors, new_spec.get("controller"), old_spec.get("controller"), "spec.controller")
    return errors + validate_ingress_class(new)


def _ingress_class_cells(ingress_class: Json, now: datetime) -> list[Any]:
    spec = ingress_class.get("spec") or {}
    parameters, text = spec.get("parameters"), NONE
    if parameters is not None:
        group = parameters.get("apiGroup")
        kind = parameters.get("kind", "")
        text = f"{kind}.{group}" if group is not None else kind
        text = f"{text}/{parameters.get('name', '')}"
    annotations = (ingress_class.get("metadata") or {}).get("annotations") or {}
    name = name_of(ingress_class)
    if annotations.get(DEFAULT_CLASS_ANNOTATION) == "true":
        name = f"{name} (default)"
    return [name, spec.get("controller", ""), text, age(ingress_class, now)]


def _default_ports(rules: list[Json] | None) -> None:
    for rule in rules or ():
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _default_network_policy(policy: Json) -> None:
    spec = policy.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    _default_ports(spec.get("ingress"))
    _default_ports(spec.get("egress"))
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _check_policy_port(errors: Errors, entry: Json, path: str) -> None:
    protocol, port, end = entry.get("protocol"), entry.get("port"), entry.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        errors.append(unsupported(f"{path}.protocol", protocol, _PROTOCOLS))
    if port is None:
        if end is not None:
            errors.append(
                invalid(f"{path}.endPort", end, "may not be specified when `port` is not specified")
            )
    elif isinstance(port, str):
        if end is not None:
            errors.append(invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"))
        checks.texts(errors, names.is_port_name(port), port, f"{path}.port")
    else:
        checks.texts(errors, names.is_port_num(port), port, f"{path}.port")
        if end is not None:
            if end < port:
                errors.append(invalid(f"{path}.endPort", end, "must be greater than or equal to `port`"))
            checks.texts(errors, names.is_port_num(end), end, f"{path}.endPort")


def _check_ip_block(errors: Errors, block: Json, path: str, stored: Collection[str]) -> None:
    cidr = block.get("cidr") or ""
    if not cidr:
        errors.append(required(f"{path}.cidr"))
        return
    checks.cidr(errors, cidr, f"{path}.cidr", stored)
    outer = names.parse_cidr(cidr)
    if outer is None:
        return
    for index, text in enumerate(block.get("except") or ()):
        here = f"{path}.except[{index}]"
        checks.cidr(errors, text, here, stored)
        inner = names.parse_cidr(text)
        if inner is not None and not _strictly_within(inner.network, outer.network):
            errors.append(invalid(here, text, "must be a strict subset of `cidr`"))


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _strictly_within(inner: _Network, outer: _Network) -> bool:
    if inner.version != outer.version or inner.prefixlen <= outer.prefixlen:
        return False
    return inner.network_address in outer


def _check_peer(errors: Errors, peer: Json, path: str, stored: Collection[str]) -> None:
    count = 0
    for field in ("podSelector", "namespaceSelector"):
        if peer.get(field) is not None:
            count += 1
            checks.label_selector(errors, peer[field], f"{path}.{field}")
    block = peer.get("ipBlock")
    if block is not None:
        count += 1
        _check_ip_block(errors, block, f"{path}.ipBlock", stored)
    if count == 0:
        errors.append(required(path, "must specify a peer"))
    elif count > 1 and block is not None:
        errors.append(forbidden(path, "may not specify both ipBlock and another peer"))


def _check_policy_rules(
    errors: Errors, rules: list[Json] | None, peers: str, path: str, stored: Collection[str]
) -> None:
    for index, rule in enumerate(rules or ()):
        for at, port in enumerate(rule.get("ports") or ()):
            _check_policy_port(errors, port, f"{path}[{index}].ports[{at}]")
        for at, peer in enumerate(rule.get(peers) or ()):
            _check_peer(errors, peer, f"{path}[{index}].{peers}[{at}]", stored)


def _blocks(policy: Json) -> list[str]:
    """Every CIDR that a policy names."""
    spec = policy.get("spec") or {}
    peers = [peer for rule in spec.get("ingress") or () for peer in rule.get("from") or ()]
    peers += [peer for rule in spec.get("egress") or () for peer in rule.get("to") or ()]
    blocks = [peer["ipBlock"] for peer in peers if peer.get("ipBlock")]
    return [cidr for block in blocks for cidr in (block.get("cidr"), *(block.get("except") or ())) if cidr]


def validate_network_policy_update(new: Json, old: Json) -> list[FieldError]:
    """A CIDR that the stored policy names anywhere may be named anywhere."""
    return validate_network_policy(new, _blocks(old))


def validate_network_policy(policy: Json, stored: Collection[str] = ()) -> list[FieldError]:
    errors: Errors = []
    spec = policy.get("spec") or {}
    checks.label_selector(errors, spec.get("podSelector"), "spec.podSelector")
    _check_policy_rules(errors, spec.get("ingress"), "from", "spec.ingress", stored)
    _check_policy_rules(errors, spec.get("egress"), "to", "spec.egress", stored)
    types = spec.get("policyTypes") or []
    if len(types) > len(_POLICY_TYPES):
        errors.append(invalid("spec.policyTypes", types, "may not specify more than two policyTypes"))
        return errors
    for index, kind in enumerate(types):
        if kind not in _POLICY_TYPES:
            errors.append(unsupported(f"spec.policyTypes[{index}]", kind, _POLICY_TYPES))
    return errors


def _network_policy_cells(policy: Json, now: datetime) -> list[Any]:
    selector = (policy.get("spec") or {}).get("podSelector") or {}
    return [name_of(policy), format_label_selector(selector), age(policy, now)]


def _check_parent(errors: Errors, parent: Json, path: str) -> None:
    group = parent.get("group") or ""
    if group:
        checks.texts(errors, names.is_dns1123_subdomain(group), group, f"{path}.group")
    for field, needed in (("resource", True), ("name", True), ("namespace", False)):
        value = parent.get(field) or ""
        if value:
            checks.texts(errors, names.is_path_segment_name(value), value, f"{path}.{field}")
        elif needed:
            errors.append(required(f"{path}.{field}"))


def validate_ip_address(address: Json) -> list[FieldError]:
    """The name is the address in its canonical form."""
    errors: Errors = []
    name = address["metadata"].get("name") or ""
    if name:
        checks.texts(errors, names.is_canonical_ip(name), name, "metadata.name")
    parent = (address.get("spec") or {}).get("parentRef")
    if parent is None:
        errors.append(required("spec.parentRef"))
    else:
        _check_parent(errors, parent, "spec.parentRef")
    return errors


def validate_ip_address_update(new: Json, old: Json) -> list[FieldError]:
    errors: Errors = []
    new_parent, old_parent = (obj.get("spec") or {} for obj in (new, old))
    checks.same(errors, new_parent.get("parentRef"), old_parent.get("parentRef"), "spec.parentRef")
    return errors


def _ip_address_cells(address: Json, _now: datetime) -> list[Any]:
    parent, text = (address.get("spec") or {}).get("parentRef"), NONE
    if parent is not None:
        resource, group = parent.get("resource", ""), parent.get("group") or ""
        parts = [f"{resource}.{group}".lower() if group else resource.lower()]
        parts += [parent["namespace"]] if parent.get("namespace") else []
        text = "/".join([*parts, parent.get("name", "")])
    return [name_of(address), text]


def _cidrs(obj: Json) -> list[str]:
    found: list[str] = (obj.get("spec") or {}).get("cidrs") or []
    return found


def _check_cidrs(errors: Errors, obj: Json) -> None:
    cidrs, path = _cidrs(obj), "spec.cidrs"
    if not cidrs:
        errors.append(required(path, "at least one CIDR required"))
        return
    if len(cidrs) > 2:
        errors.append(invalid(path, obj.get("spec"), "may only hold up to 2 values"))
        return
    for index, cidr in enumerate(cidrs):
        checks.texts(errors, names.is_cidr(cidr, strict=True), cidr, f"{path}[{index}]")
    parsed = [names.parse_cidr(cidr) for cidr in cidrs]
    if len(parsed) == 2 and parsed[0] and parsed[1] and parsed[0].version == parsed[1].version:
        text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        errors.append(invalid(path, cidrs, text))


def validate_service_cidr(obj: Json) -> list[FieldError]:
    errors: Errors = []
    _check_cidrs(errors, obj)
    return errors


def validate_service_cidr_update(new: Json, old: Json) -> list[FieldError]:
    """Immutable, but a second CIDR may be added to become dual-stack."""
    errors: Errors = []
    after, before = _cidrs(new), _cidrs(old)
    if len(after) == len(before):
        for index, cidr in enumerate(after):
            checks.same(errors, cidr, before[index], f"spec.cidrs[{index}]")
    elif len(before) == 1 and len(after) == 2:
        checks.same(errors, after[0], before[0], "spec.cidrs[0]")
        _check_cidrs(errors, new)
    else:
        errors.append(invalid("spec.cidrs", after, checks.IMMUTABLE))
    return errors


def _service_cidr_cells(obj: Json, now: datetime) -> list[Any]:
    return [name_of(obj), ",".join(_cidrs(obj)), age(obj, now)]


STRATEGIES: Mapping[str, Strategy] = {
    "Ingress": Strategy(
        default=_default_ingress,
        prepare_create=zero_status(loadBalancer={}),
        validate_create=validate_ingress,
        validate_update=validate_ingress_update,
        validate_status=validate_ingress_status,
        warnings=_ingress_warnings,
        reset_fields=STATUS_RESETS,
    ),
    "IngressClass": Strategy(
        default=_default_ingress_class,
        validate_create=validate_ingress_class,
        validate_update=validate_ingress_class_update,
        has_status=False,
    ),
    "NetworkPolicy": Strategy(
        default=_default_network_policy,
        validate_create=validate_network_policy,
        validate_update=validate_network_policy_update,
        has_status=False,
    ),
    "IPAddress": Strategy(
        validate_create=validate_ip_address,
        validate_update=validate_ip_address_update,
        name_rule="any",
        has_status=False,
        has_generation=False,
    ),
    "ServiceCIDR": Strategy(
        validate_create=validate_service_cidr,
        validate_update=validate_service_cidr_update,
        has_generation=False,
        reset_fields=STATUS_RESETS,
    ),
}
PRINTERS: Mapping[str, Printer] = {
    "Ingress": Printer(columns(NAME, "Class", "Hosts", "Address", "Ports", AGE), _ingress_cells),
    "IngressClass": Printer(columns(NAME, "Controller", "Parameters", AGE), _ingress_class_cells),
    "NetworkPolicy": Printer(columns(NAME, "Pod-Selector", AGE), _network_policy_cells),
    "IPAddress": Printer(columns(NAME, "ParentRef"), _ip_address_cells),
    "ServiceCIDR": Printer(columns(NAME, "CIDRs", AGE), _service_cidr_cells),
}
