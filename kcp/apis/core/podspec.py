"""The PodSpec and the pod template: defaults and rules that Pods and all workloads share.

Source: k8s v1.36 pkg/apis/core/validation/validation.go (ValidatePodSpec, ValidatePodTemplateSpec),
pkg/apis/core/v1/defaults.go (SetDefaults_PodSpec).
"""

from __future__ import annotations

from typing import Any

from kcp.apis.core import checks, scheduling, security
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.container import (
    PodContext,
    containers,
    default_containers,
    default_pull_policy,
    ephemeral_containers,
    init_containers,
)
from kcp.apis.core.resources import default_list, pod_level, requirements
from kcp.apis.core.volume import check_volumes, default_volumes
from kcp.machinery import names
from kcp.machinery.errors import duplicate, forbidden, invalid, required, too_long, unsupported

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
PREEMPTION_POLICIES = ("PreemptLowerPriority", "Never")
_POD_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
MIRROR_POD = "kubernetes.io/config.mirror"


def default_pod_spec(spec: Json) -> None:
    """Defaults that a PodSpec has everywhere, in pods and in templates."""
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    _default_service_account(spec)
    if volumes := spec.get("volumes"):
        default_volumes(volumes, default_pull_policy)
    for field in ("containers", "initContainers", "ephemeralContainers"):
        if found := spec.get(field):
            default_containers(found)
    if resources := spec.get("resources"):
        default_list(resources.get("limits"))
        default_list(resources.get("requests"))
    default_list(spec.get("overhead"))


def _default_service_account(spec: Json) -> None:
    """serviceAccount is the old name of serviceAccountName; both are always shown."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def default_template(holder: Json) -> None:
    """Defaults of `holder.template`."""
    template = holder.setdefault("template", {})
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


def pod_spec(errors: Errors, spec: Json, path: str, *, pod_name: str = "", is_pod: bool = False) -> None:
    """Everything that ValidatePodSpec checks; `is_pod` for a Pod's own spec, not a template's."""
    grace_s = spec.get("terminationGracePeriodSeconds")
    if grace_s is None:
        errors.append(required(f"{path}.terminationGracePeriodSeconds"))
    volumes = spec.get("volumes")
    valid = check_volumes(errors, volumes, f"{path}.volumes", pod_name, is_pod) if volumes else {}
    claims = spec.get("resourceClaims") or ()
    if claims:
        _resource_claims(errors, claims, f"{path}.resourceClaims")
    context = PodContext(
        valid,
        tuple(claim.get("name") for claim in claims if claim.get("name")),
        grace_s,
        spec.get("restartPolicy") or "",
        spec.get("hostUsers") is not False,
    )
    regular = spec.get("containers") or []
    containers(errors, regular, f"{path}.containers", context)
    if init := spec.get("initContainers"):
        init_containers(errors, init, regular, f"{path}.initContainers", context)
    if spec.get("ephemeralContainers"):
        ephemeral_containers(errors, spec, f"{path}.ephemeralContainers", context)
    if spec.get("resources"):
        pod_level(errors, spec, f"{path}.resources")
    if spec.get("hostNetwork"):
        _host_network(errors, regular, f"{path}.containers", is_pod)
    _policies(errors, spec, path)
    _optional(errors, spec, path)


def _policies(errors: Errors, spec: Json, path: str) -> None:
    restart, dns = spec.get("restartPolicy"), spec.get("dnsPolicy")
    if restart not in RESTART_POLICIES:
        checks.one_of(errors, restart, RESTART_POLICIES, f"{path}.restartPolicy")
    if dns not in DNS_POLICIES:
        checks.one_of(errors, dns, DNS_POLICIES, f"{path}.dnsPolicy")


def _optional(errors: Errors, spec: Json, path: str) -> None:
    """Fields that most pods do not have, in Kubernetes' order."""
    if selector := spec.get("nodeSelector"):
        checks.label_map(errors, selector, f"{path}.nodeSelector")
    if context := spec.get("securityContext"):
        security.pod_security_context(errors, spec, context, f"{path}.securityContext")
    if secrets := spec.get("imagePullSecrets"):
        _pull_secrets(errors, secrets, f"{path}.imagePullSecrets")
    if affinity := spec.get("affinity"):
        scheduling.affinity(errors, affinity, f"{path}.affinity")
    if spec.get("dnsConfig") is not None or spec.get("dnsPolicy") == "None":
        _dns_config(errors, spec.get("dnsConfig"), spec.get("dnsPolicy"), f"{path}.dnsConfig")
    for i, gate in enumerate(spec.get("readinessGates") or ()):
        where = f"{path}.readinessGates[{i}].conditionType"
        checks.qualified_name(errors, gate.get("conditionType") or "", where)
    if gates := spec.get("schedulingGates"):
        scheduling.scheduling_gates(errors, gates, f"{path}.schedulingGates")
    if constraints := spec.get("topologySpreadConstraints"):
        where = f"{path}.topologySpreadConstraints"
        scheduling.topology_spread(errors, constraints, where)
    if _has_windows_options(spec):
        security.host_process(errors, spec, path)
    if spec.get("hostUsers") is False:
        _host_users(errors, spec, path)
    _names(errors, spec, path)
    if (tolerations := spec.get("tolerations")) is not None:
        scheduling.tolerations(errors, tolerations, f"{path}.tolerations")
    if aliases := spec.get("hostAliases"):
        _host_aliases(errors, aliases, f"{path}.hostAliases")
    _classes(errors, spec, path)
    if spec.get("os") is not None:
        security.operating_system(errors, spec, path)


def _has_windows_options(spec: Json) -> bool:
    if (spec.get("securityContext") or {}).get("windowsOptions"):
        return True
    return any(
        (container.get("securityContext") or {}).get("windowsOptions")
        for field in ("containers", "initContainers", "ephemeralContainers")
        for container in spec.get(field) or ()
    )


def _names(errors: Errors, spec: Json, path: str) -> None:
    if name := spec.get("serviceAccountName"):
        checks.dns_subdomain(errors, name, f"{path}.serviceAccountName")
    if name := spec.get("nodeName"):
        checks.dns_subdomain(errors, name, f"{path}.nodeName")
    if (deadline := spec.get("activeDeadlineSeconds")) is not None and not 1 <= deadline <= checks.MAX_INT32:
        text = f"must be between 1 and {checks.MAX_INT32}, inclusive"
        errors.append(invalid(f"{path}.activeDeadlineSeconds", deadline, text))
    if name := spec.get("hostname"):
        checks.dns_label(errors, name, f"{path}.hostname")
    if name := spec.get("subdomain"):
        checks.dns_label(errors, name, f"{path}.subdomain")
    if (name := spec.get("hostnameOverride")) is not None:
        _hostname_override(errors, spec, name, path)


def _hostname_override(errors: Errors, spec: Json, name: str, path: str) -> None:
    where = f"{path}.hostnameOverride"
    for field in ("setHostnameAsFQDN", "hostNetwork"):
        if spec.get(field):
            text = f"may not be specified when {field} is true"
            errors.append(forbidden(where, text))
    if len(name) > 64:
        errors.append(too_long(where, 64))
    checks.dns_subdomain(errors, name, where)


def _classes(errors: Errors, spec: Json, path: str) -> None:
    if name := spec.get("priorityClassName"):
        checks.dns_subdomain(errors, name, f"{path}.priorityClassName")
    if (name := spec.get("runtimeClassName")) is not None:
        checks.dns_subdomain(errors, name, f"{path}.runtimeClassName")
    if (policy := spec.get("preemptionPolicy")) is not None and policy not in PREEMPTION_POLICIES:
        checks.one_of(errors, policy, PREEMPTION_POLICIES, f"{path}.preemptionPolicy")
    if overhead := spec.get("overhead"):
        requirements(errors, {"limits": overhead}, f"{path}.overhead")


def _host_network(errors: Errors, found: list[Json], path: str, is_pod: bool) -> None:
    for i, container in enumerate(found):
        for j, port in enumerate(container.get("ports") or ()):
            host = port.get("hostPort") or 0
            if (is_pod or host) and host != port.get("containerPort"):
                text = "must match `containerPort` when `hostNetwork` is true"
                errors.append(invalid(f"{path}[{i}].ports[{j}].hostPort", host, text))


def _pull_secrets(errors: Errors, secrets: list[Json], path: str) -> None:
    for i, secret in enumerate(secrets):
        if len(secret) > 1:
            errors.append(invalid(f"{path}[{i}]", secret, "only name may be set"))


def _host_users(errors: Errors, spec: Json, path: str) -> None:
    for field, shown in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(field):
            errors.append(forbidden(f"{path}.{shown}", "when `pod.Spec.HostUsers` is false"))


def _host_aliases(errors: Errors, aliases: list[Json], path: str) -> None:
    for i, alias in enumerate(aliases):
        checks.ip(errors, alias.get("ip") or "", f"{path}[{i}].ip")
        for j, name in enumerate(alias.get("hostnames") or ()):
            checks.dns_subdomain(errors, name, f"{path}[{i}].hostnames[{j}]")


def _dns_config(errors: Errors, config: Json | None, policy: str | None, path: str) -> None:
    servers = (config or {}).get("nameservers") or []
    if policy == "None":
        if config is None:
            errors.append(required(path, "must provide `dnsConfig` when `dnsPolicy` is None"))
            return
        if not servers:
            text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            errors.append(required(f"{path}.nameservers", text))
            return
    assert config is not None
    if len(servers) > 3:
        text = "must not have more than 3 nameservers"
        errors.append(invalid(f"{path}.nameservers", servers, text))
    for i, server in enumerate(servers):
        checks.ip(errors, server, f"{path}.nameservers[{i}]")
    _dns_searches(errors, config.get("searches") or [], f"{path}.searches")
    for i, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(required(f"{path}.options[{i}]", "must not be empty"))


def _dns_searches(errors: Errors, searches: list[str], path: str) -> None:
    if len(searches) > 32:
        errors.append(invalid(path, searches, "must not have more than 32 search paths"))
    if len(" ".join(searches)) > 2048:
        text = "must not have more than 2048 characters (including spaces) in the search list"
        errors.append(invalid(path, searches, text))
    for i, search in enumerate(searches):
        if search == ".":
            continue
        search = search.removesuffix(".")
        found = names.is_dns1123_subdomain_with_underscore(search)
        checks.texts(errors, found, search, f"{path}[{i}]")


def _resource_claims(errors: Errors, claims: Any, path: str) -> None:
    seen: set[str] = set()
    for i, claim in enumerate(claims):
        here = f"{path}[{i}]"
        name = claim.get("name") or ""
        if not name:
            errors.append(required(f"{here}.name"))
        elif name in seen:
            errors.append(duplicate(f"{here}.name", name))
        else:
            checks.dns_label(errors, name, f"{here}.name")
        seen.add(name)
        given = [f for f in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(f) is not None]
        if len(given) == 2:
            text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errors.append(invalid(here, claim, text))
        if not given:
            text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            errors.append(invalid(here, claim, text))
        for field in given:
            checks.dns_subdomain(errors, claim[field], f"{here}.{field}")


def pod_annotations(errors: Errors, annotations: Json | None, spec: Json, path: str) -> None:
    """Annotations that mean something to pods; `path` is that of the annotations."""
    if not annotations:
        return
    if MIRROR_POD in annotations and not spec.get("nodeName"):
        text = "must set spec.nodeName if mirror pod annotation is set"
        errors.append(invalid(f"{path}[{MIRROR_POD}]", annotations[MIRROR_POD], text))
    cost = annotations.get(_POD_DELETION_COST)
    if cost is not None and not _is_cost(cost):
        errors.append(invalid(f"{path}[{_POD_DELETION_COST}]", cost, "must be a 32bit integer"))
    security.profile_annotations(errors, annotations, spec, path)


def _is_cost(text: str) -> bool:
    """An int32 without a plus sign or leading zeros. Source: helper.GetDeletionCostFromPodAnnotations."""
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or (digits[0] == "0" and text != "0"):
        return False
    return -(2**31) <= int(text) <= checks.MAX_INT32


def pod_template(errors: Errors, template: Json, path: str) -> None:
    """Everything that ValidatePodTemplateSpec checks; `path` is that of the template."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    template_metadata(errors, metadata, spec, path)
    pod_spec(errors, spec, f"{path}.spec")
    if annotations := metadata.get("annotations"):
        security.profiles_match(errors, annotations, spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        text = "ephemeral containers not allowed in pod template"
        errors.append(forbidden(f"{path}.spec.ephemeralContainers", text))


def template_metadata(errors: Errors, metadata: Json, spec: Json, path: str) -> None:
    checks.label_map(errors, metadata.get("labels"), f"{path}.labels")
    checks.annotation_map(errors, metadata.get("annotations"), f"{path}.annotations")
    pod_annotations(errors, metadata.get("annotations"), spec, f"{path}.annotations")


def selected_template(
    errors: Errors, template: Json, selector: Any, path: str, owner: str, *, check: bool = True
) -> None:
    """A workload's template: matches its selector, restarts always, has no deadline.

    `selector` is a machinery Selector; `check` false leaves out the PodSpec (StatefulSets do).
    """
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    labels = metadata.get("labels")
    if not selector.empty and not selector.matches(labels or {}):
        text = "`selector` does not match template `labels`"
        errors.append(invalid(f"{path}.metadata.labels", labels, text))
    if check:
        pod_template(errors, template, path)
    else:
        template_metadata(errors, metadata, spec, path)
    if spec.get("restartPolicy") != "Always":
        errors.append(unsupported(f"{path}.spec.restartPolicy", spec.get("restartPolicy") or "", ("Always",)))
    if spec.get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {owner} is not Supported"
        errors.append(forbidden(f"{path}.spec.activeDeadlineSeconds", text))
