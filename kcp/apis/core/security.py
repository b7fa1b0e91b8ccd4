"""Security contexts of pods and containers.

Source: k8s v1.36 pkg/apis/core/validation/validation.go (ValidateSecurityContext, validatePodSpecSecurityContext).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kcp.apis.core import checks
from kcp.apis.core.checks import Errors, Json
from kcp.apis.core.volume import local_descending_path
from kcp.machinery.errors import FieldError, duplicate, forbidden, invalid, required, unsupported

_PROFILE_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
_ID_RANGE = "must be between 0 and 2147483647, inclusive"
SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def all_containers(spec: Json, path: str) -> Iterator[tuple[Json, str]]:
    """Init, regular and ephemeral containers with their paths."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(field) or ()):
            yield container, f"{path}.{field}[{i}]"


def _ids(errors: Errors, context: Json, fields: tuple[str, ...], path: str) -> None:
    for field in fields:
        value = context.get(field)
        if value is not None and not 0 <= value <= checks.MAX_INT32:
            errors.append(invalid(f"{path}.{field}", value, _ID_RANGE))


def _seccomp(errors: Errors, profile: Json | None, path: str) -> None:
    if profile is None:
        return
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    checks.one_of(errors, kind, _PROFILE_TYPES, f"{path}.type", "type is required when seccompProfile is set")
    where = f"{path}.localhostProfile"
    if kind == "Localhost":
        if local is None:
            errors.append(required(where, "must be set when seccomp type is Localhost"))
        else:
            local_descending_path(errors, local, where)
    elif local is not None:
        errors.append(invalid(where, profile, "can only be set when seccomp type is Localhost"))


def apparmor_profile(errors: Errors, profile: Json | None, path: str) -> None:
    if profile is None:
        return
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    where = f"{path}.localhostProfile"
    if kind == "Localhost":
        _local_apparmor(errors, local, where)
    elif kind not in _PROFILE_TYPES:
        why = "type is required when appArmorProfile is set"
        checks.one_of(errors, kind, _PROFILE_TYPES, f"{path}.type", why)
    elif local is not None:
        errors.append(invalid(where, local, "can only be set when AppArmor type is Localhost"))


def _local_apparmor(errors: Errors, local: str | None, path: str) -> None:
    if not local or not (trimmed := local.strip()):
        if local and local != local.strip():
            errors.append(invalid(path, local, "must not be padded with whitespace"))
        else:
            errors.append(required(path, "must be set when AppArmor type is Localhost"))
        return
    if trimmed != local:
        errors.append(invalid(path, local, "must not be padded with whitespace"))
    if len(local.encode()) > 4095:
        errors.append(FieldError("Too long", path, "", "may not be more than 4095 bytes"))


def container_security_context(errors: Errors, context: Json, path: str, host_users: bool) -> None:
    _ids(errors, context, ("runAsUser", "runAsGroup"), path)
    if (mount := context.get("procMount")) is not None:
        if mount not in ("Default", "Unmasked"):
            errors.append(unsupported(f"{path}.procMount", mount, ("Default", "Unmasked")))
        if host_users and mount == "Unmasked":
            text = "`hostUsers` must be false to use `Unmasked`"
            errors.append(invalid(f"{path}.procMount", mount, text))
    _seccomp(errors, context.get("seccompProfile"), f"{path}.seccompProfile")
    if context.get("allowPrivilegeEscalation") is False:
        _no_escalation(errors, context, path)
    windows_options(errors, context.get("windowsOptions"), f"{path}.windowsOptions")
    apparmor_profile(errors, context.get("appArmorProfile"), f"{path}.appArmorProfile")


def _no_escalation(errors: Errors, context: Json, path: str) -> None:
    if context.get("privileged"):
        text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        errors.append(invalid(path, context, text))
    for capability in (context.get("capabilities") or {}).get("add") or ():
        if capability == "CAP_SYS_ADMIN":
            text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            errors.append(invalid(path, context, text))


_ENUMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("supplementalGroupsPolicy", ("Merge", "Strict")),
    ("seLinuxChangePolicy", ("MountOption", "Recursive")),
)


def pod_security_context(errors: Errors, spec: Json, context: Json, path: str) -> None:
    _ids(errors, context, ("fsGroup", "runAsUser", "runAsGroup"), path)
    for i, group in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= group <= checks.MAX_INT32:
            errors.append(invalid(f"{path}.supplementalGroups[{i}]", group, _ID_RANGE))
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        text = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid(f"{path}.shareProcessNamespace", True, text))
    if sysctls := context.get("sysctls"):
        _sysctls(errors, spec, sysctls, f"{path}.sysctls")
    change = context.get("fsGroupChangePolicy")
    if change is not None and change not in ("Always", "OnRootMismatch"):
        where = f"{path}.fsGroupChangePolicy"
        errors.append(unsupported(where, change, ("Always", "OnRootMismatch")))
    _seccomp(errors, context.get("seccompProfile"), f"{path}.seccompProfile")
    windows_options(errors, context.get("windowsOptions"), f"{path}.windowsOptions")
    apparmor_profile(errors, context.get("appArmorProfile"), f"{path}.appArmorProfile")
    for field, allowed in _ENUMS:
        value = context.get(field)
        if value is not None and value not in allowed:
            errors.append(unsupported(f"{path}.{field}", value, allowed))


_SYSCTL_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL_FORMAT = f"^({_SYSCTL_SEGMENT}[\\./])*{_SYSCTL_SEGMENT}$"
_SYSCTL = re.compile(_SYSCTL_FORMAT.removesuffix("$"))
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def _sysctls(errors: Errors, spec: Json, sysctls: list[Json], path: str) -> None:
    seen: set[str] = set()
    for i, sysctl in enumerate(sysctls):
        here, name = f"{path}[{i}].name", sysctl.get("name") or ""
        if not name:
            errors.append(required(here))
        elif len(name) > 253 or not _SYSCTL.fullmatch(name):
            text = f"must have at most 253 characters and match regex {_SYSCTL_FORMAT}"
            errors.append(invalid(here, name, text))
        elif name in seen:
            errors.append(duplicate(here, name))
        seen.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            errors.append(invalid(here, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and dotted.startswith(_IPC_SYSCTLS):
            errors.append(invalid(here, name, "may not be specified when 'hostIPC' is true"))


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NETBIOS = re.compile(r"[^\\/:*?\"<>|.][^\\/:*?\"<>|]{0,14}")
_DNS_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DNS_DOMAIN = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
_USER_CHARACTERS = re.compile(r"[\"/\\:;|=,+*?<>@\[\]]")


def windows_options(errors: Errors, options: Json | None, path: str) -> None:
    if options is None:
        return
    if (name := options.get("gmsaCredentialSpecName")) is not None:
        checks.dns_subdomain(errors, name, f"{path}.gmsaCredentialSpecName")
    if (spec := options.get("gmsaCredentialSpec")) is not None:
        where = f"{path}.gmsaCredentialSpec"
        if not spec:
            errors.append(invalid(where, spec, "gmsaCredentialSpec cannot be an empty string"))
        elif len(spec.encode()) > 64 * 1024:
            errors.append(invalid(where, spec, "gmsaCredentialSpec size must be under 64 KiB"))
    if (user := options.get("runAsUserName")) is not None:
        for text in _windows_user(user):
            errors.append(invalid(f"{path}.runAsUserName", user, text))


def _windows_user(value: str) -> list[str]:
    if not value:
        return ["runAsUserName cannot be an empty string"]
    if _CONTROL.search(value):
        return ["runAsUserName cannot contain control characters"]
    if value.count("\\") > 1:
        return ["runAsUserName cannot contain more than one backslash"]
    domain, has_domain, user = value.rpartition("\\")
    found = []
    if len(domain) >= 256:
        found.append("runAsUserName's Domain length must be under 256 characters")
    if has_domain and not (_NETBIOS.fullmatch(domain) or _DNS_DOMAIN.fullmatch(domain)):
        found.append("runAsUserName's Domain doesn't match the NetBios nor the DNS format")
    if not user:
        found.append("runAsUserName's User cannot be empty")
    elif len(user) > 104:
        found.append("runAsUserName's User length must not be longer than 104 characters")
    if user and not user.strip(". "):
        found.append("runAsUserName's User cannot contain only periods or spaces")
    if _USER_CHARACTERS.search(user):
        found.append("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]")
    return found


def host_process(errors: Errors, spec: Json, path: str) -> None:
    """Windows HostProcess: all containers or none, and with the host's network."""
    pod = ((spec.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    total = count = 0
    for container, here in all_containers(spec, path):
        total += 1
        own = ((container.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
        if pod is not None and own is not None and pod != own:
            was = "true" if pod else "false"
            text = f"pod hostProcess value must be identical if both are specified, was {was}"
            errors.append(invalid(f"{here}.securityContext.windowsOptions.hostProcess", own, text))
        count += bool(own or (own is None and pod))
    if not count:
        return
    if count != total:
        text = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        errors.append(invalid(path, "", text))
    if not spec.get("hostNetwork"):
        text = "hostNetwork must be true if pod contains any hostProcess containers"
        errors.append(invalid(f"{path}.hostNetwork", False, text))


_NOT_ON_WINDOWS_POD = (
    ("appArmorProfile", "securityContext."), ("seLinuxOptions", "securityContext."), ("hostUsers", ""),
    ("hostPID", ""), ("hostIPC", ""), ("seccompProfile", "securityContext."), ("fsGroup", "securityContext."),
    ("fsGroupChangePolicy", "securityContext."), ("sysctls", "securityContext."),
    ("shareProcessNamespace", ""), ("runAsUser", "securityContext."), ("runAsGroup", "securityContext."),
    ("supplementalGroups", "securityContext."), ("supplementalGroupsPolicy", "securityContext."),
    ("seLinuxChangePolicy", "securityContext."),
)  # fmt: skip
_NOT_ON_WINDOWS_CONTAINER = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem",
    "privileged", "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup",
)  # fmt: skip
_PLAIN_BOOLEANS = ("hostPID", "hostIPC", "sysctls")


def operating_system(errors: Errors, spec: Json, path: str) -> None:
    """`spec.os` and the fields that it rules out."""
    name = spec["os"].get("name") or ""
    if not name:
        errors.append(required(f"{path}.os.name", "cannot be empty"))
    elif name not in ("linux", "windows"):
        errors.append(unsupported(f"{path}.os", name, ("linux", "windows")))
    elif name == "linux":
        _linux(errors, spec, path)
    else:
        _windows(errors, spec, path)


def _linux(errors: Errors, spec: Json, path: str) -> None:
    text = "windows options cannot be set for a linux pod"
    if (spec.get("securityContext") or {}).get("windowsOptions") is not None:
        errors.append(forbidden(f"{path}.securityContext.windowsOptions", text))
    for container, here in all_containers(spec, path):
        if (container.get("securityContext") or {}).get("windowsOptions") is not None:
            errors.append(forbidden(f"{here}.securityContext.windowsOptions", text))


def _windows(errors: Errors, spec: Json, path: str) -> None:
    text = "cannot be set for a windows pod"
    context = spec.get("securityContext") or {}
    for field, prefix in _NOT_ON_WINDOWS_POD:
        value = (context if prefix else spec).get(field)
        if value is not None and (value or field not in _PLAIN_BOOLEANS):
            errors.append(forbidden(f"{path}.{prefix}{field}", text))
    for container, here in all_containers(spec, path):
        own = container.get("securityContext") or {}
        for field in _NOT_ON_WINDOWS_CONTAINER:
            if own.get(field) is not None:
                errors.append(forbidden(f"{here}.securityContext.{field}", text))


# -- the annotations that came before the fields ----------------------------------------------------


def profile_annotations(errors: Errors, annotations: Json, spec: Json, path: str) -> None:
    """Form of the seccomp and AppArmor annotations; `path` is that of the annotations."""
    names = {container.get("name") for container, _ in all_containers(spec, "spec")}
    for key, value in annotations.items():
        if key == SECCOMP_POD or key.startswith(SECCOMP_CONTAINER):
            _seccomp_annotation(errors, value, f"{path}.{key}")
        elif key.startswith(APPARMOR):
            container = key.removeprefix(APPARMOR)
            if container not in names:
                errors.append(invalid(f"{path}[{key}]", container, "container not found"))
            if value not in ("", "runtime/default", "unconfined") and not value.startswith("localhost/"):
                text = f'invalid AppArmor profile name: "{value}"'
                errors.append(invalid(f"{path}[{key}]", value, text))


def _seccomp_annotation(errors: Errors, value: str, path: str) -> None:
    if value in ("runtime/default", "docker/default", "unconfined"):
        return
    if value.startswith("localhost/"):
        local_descending_path(errors, value.removeprefix("localhost/"), path)
    else:
        errors.append(invalid(path, value, "must be a valid seccomp profile"))


def profiles_match(errors: Errors, annotations: Json, spec: Json, path: str) -> None:
    """Where annotation and field are both there they say the same."""
    pod = spec.get("securityContext") or {}
    if (profile := pod.get("seccompProfile")) is not None and SECCOMP_POD in annotations:
        here = f"{path}.securityContext.seccompProfile"
        _match(errors, annotations[SECCOMP_POD], profile, "seccomp", here)
    for container, here in all_containers(spec, path):
        own = container.get("securityContext") or {}
        key = SECCOMP_CONTAINER + (container.get("name") or "")
        if (profile := own.get("seccompProfile")) is not None and key in annotations:
            where = f"{here}.securityContext.seccompProfile"
            _match(errors, annotations[key], profile, "seccomp", where)
    if (spec.get("os") or {}).get("name") == "windows":
        return
    for container, here in all_containers(spec, path):
        own = container.get("securityContext") or {}
        profile = own.get("appArmorProfile") or pod.get("appArmorProfile")
        key = APPARMOR + (container.get("name") or "")
        if profile is not None and key in annotations:
            where = f"{here}.securityContext.appArmorProfile"
            _match(errors, annotations[key], profile, "apparmor", where)


def _match(errors: Errors, annotation: str, profile: Json, what: str, path: str) -> None:
    kind = profile.get("type")
    defaults = ("runtime/default", "docker/default") if what == "seccomp" else ("runtime/default",)
    allowed = {"Unconfined": ("unconfined",), "RuntimeDefault": defaults}.get(kind or "")
    text = f"{what} type in annotation and field must match"
    if allowed is not None:
        if annotation not in allowed:
            errors.append(forbidden(f"{path}.type", text))
    elif kind == "Localhost":
        if not annotation.startswith("localhost/"):
            errors.append(forbidden(f"{path}.type", text))
        elif annotation.removeprefix("localhost/") != profile.get("localhostProfile"):
            text = f"{what} profile in annotation and field must match"
            errors.append(forbidden(f"{path}.localhostProfile", text))


def apparmor_field(annotation: str) -> Json | None:
    """The field that an AppArmor annotation stands for; None when it is not valid."""
    if annotation == "unconfined":
        return {"type": "Unconfined"}
    if annotation == "runtime/default":
        return {"type": "RuntimeDefault"}
    if (
        annotation.startswith("localhost/")
        and (local := annotation.removeprefix("localhost/")).strip() == local
    ):
        return {"type": "Localhost", "localhostProfile": local} if local else None
    return None
