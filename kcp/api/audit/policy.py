"""Which requests are told, and how much of them: an audit.k8s.io/v1 Policy, whose first rule that fits decides.

Source: k8s v1.36 apiserver/pkg/audit/policy, apiserver/pkg/apis/audit/validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from kcp.api.auth.protocol import Attributes
from kcp.base.values import frozen
from kcp.machinery.codec.yaml import YamlError, decode_yaml
from kcp.machinery.errors import FieldError, invalid, required, unsupported
from kcp.machinery.names import is_dns1123_subdomain

Json = dict[str, Any]
Level = Literal["None", "Metadata", "Request", "RequestResponse"]
Stage = Literal["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]

API_VERSION, KIND = "audit.k8s.io/v1", "Policy"
LEVELS = ("None", "Metadata", "Request", "RequestResponse")
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")


class PolicyError(ValueError):
    """Raised when a policy file cannot be used; names the file."""


@frozen
class Telling:
    """How a request is told."""

    level: Level = "None"
    omitted: frozenset[str] = frozenset()
    """Stages without an event."""
    without_managed_fields: bool = False

    def reaches(self, level: Level) -> bool:
        return LEVELS.index(self.level) >= LEVELS.index(level)


@frozen
class Rule:
    """One rule: whom and what it means, empty meaning any, and how that is told."""

    users: tuple[str, ...]
    groups: tuple[str, ...]
    verbs: tuple[str, ...]
    namespaces: tuple[str, ...]
    resources: tuple[Json, ...]
    paths: tuple[str, ...]
    telling: Telling

    def means(self, asked: Attributes) -> bool:
        if self.users and asked.user.name not in self.users:
            return False
        if self.groups and not any(group in self.groups for group in asked.user.groups):
            return False
        if self.verbs and asked.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return self._means_resource(asked)
        return not self.paths or self._means_path(asked)

    def _means_resource(self, asked: Attributes) -> bool:
        if not asked.resource_request or (self.namespaces and asked.namespace not in self.namespaces):
            return False
        return not self.resources or any(_covers(each, asked) for each in self.resources)

    def _means_path(self, asked: Attributes) -> bool:
        return not asked.resource_request and any(_path_fits(spec, asked.path) for spec in self.paths)


def _path_fits(spec: str, path: str) -> bool:
    return spec in ("*", path) or (spec.endswith("*") and path.startswith(spec.rstrip("*")))


def _covers(group_resources: Json, asked: Attributes) -> bool:
    if (group_resources.get("group") or "") != asked.group:
        return False
    resources, names = group_resources.get("resources") or (), group_resources.get("resourceNames") or ()
    if not resources:
        return True
    return (not names or asked.name in names) and any(_is_resource(each, asked) for each in resources)


def _is_resource(text: str, asked: Attributes) -> bool:
    """`pods`, `pods/log`, `*`, `pods/*` (subresources and the resource itself), `*/scale`."""
    whole = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    if text in ("*", whole):
        return True
    if asked.subresource and text == f"*/{asked.subresource}":
        return True
    return text.endswith("/*") and text.removesuffix("/*") == asked.resource


@frozen
class Policy:
    rules: tuple[Rule, ...]

    def telling(self, asked: Attributes) -> Telling:
        """What no rule means is not told."""
        return next((rule.telling for rule in self.rules if rule.means(asked)), NOTHING)


NOTHING = Telling()
EVERYTHING = Policy((Rule((), (), (), (), (), (), Telling("Metadata", frozenset({"RequestReceived"}))),))
"""Without a policy file: who asked for what when, and what came of it."""


def _rule(rule: Json, omitted: Sequence[str], without_managed_fields: bool) -> Rule:
    own = rule.get("omitManagedFields")
    return Rule(
        users=tuple(rule.get("users") or ()),
        groups=tuple(rule.get("userGroups") or ()),
        verbs=tuple(rule.get("verbs") or ()),
        namespaces=tuple(rule.get("namespaces") or ()),
        resources=tuple(rule.get("resources") or ()),
        paths=tuple(rule.get("nonResourceURLs") or ()),
        telling=Telling(
            cast(Level, rule["level"]),
            frozenset((*omitted, *(rule.get("omitStages") or ()))),
            without_managed_fields if own is None else bool(own),
        ),
    )


def parse(document: Any) -> Policy:
    """Raises PolicyError."""
    if not isinstance(document, dict) or (document.get("apiVersion"), document.get("kind")) != (
        API_VERSION,
        KIND,
    ):
        raise PolicyError(f"expected a {KIND} of {API_VERSION}")
    rules = document.get("rules") or []
    try:
        faults = [fault for at, rule in enumerate(rules) for fault in _faults(rule, f"rules[{at}]")]
        if faults:
            raise PolicyError(_aggregate(faults))
        if not rules:
            raise PolicyError("loaded illegal policy with 0 rules")
        omitted = document.get("omitStages") or ()
        bare = bool(document.get("omitManagedFields"))
        return Policy(tuple(_rule(rule, omitted, bare) for rule in rules))
    except (AttributeError, TypeError, KeyError):
        raise PolicyError("a rule does not have the form of a PolicyRule") from None


def read(path: str | Path) -> Policy:
    """The policy in a YAML or JSON file. Raises PolicyError."""
    try:
        document, repeated = decode_yaml(Path(path).read_bytes())
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise PolicyError(f"cannot read the audit policy {path}: {why}") from None
    except YamlError as error:
        raise PolicyError(f"failed decoding: {error}: from file {path}") from None
    if repeated:
        raise PolicyError(f"failed decoding: {repeated[0]}: from file {path}")
    try:
        return parse(document)
    except PolicyError as error:
        raise PolicyError(f"{error}: from file {path}") from None


def _aggregate(faults: Sequence[FieldError]) -> str:
    texts = list(dict.fromkeys(str(fault) for fault in faults))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _faults(rule: Json, path: str) -> list[FieldError]:
    faults = [*_level_faults(rule.get("level"), f"{path}.level")]
    urls = rule.get("nonResourceURLs") or []
    for at, url in enumerate(urls):
        faults += _url_faults(url, f"{path}.nonResourceURLs[{at}]")
    for each in rule.get("resources") or ():
        faults += _resource_faults(each, f"{path}.resources")
    for at, stage in enumerate(rule.get("omitStages") or ()):
        if stage not in STAGES:
            faults.append(
                invalid(f"{path}.omitStages[{at}]", stage, "allowed stages are " + ",".join(STAGES))
            )
    if urls and (rule.get("resources") or rule.get("namespaces")):
        text = "rules cannot apply to both regular resources and non-resource URLs"
        faults.append(invalid(f"{path}.nonResourceURLs", urls, text))
    return faults


def _level_faults(level: Any, path: str) -> list[FieldError]:
    if not level:
        return [required(path)]
    return [] if level in LEVELS else [unsupported(path, level, LEVELS)]


def _url_faults(url: str, path: str) -> list[FieldError]:
    if url == "*":
        return []
    faults = []
    if not url.startswith("/"):
        faults.append(invalid(path, url, "non-resource URL rules must begin with a '/' character"))
    if "*" in url[:-1]:
        text = "non-resource URL wildcards '*' must be the final character of the rule"
        faults.append(invalid(path, url, text))
    return faults


def _resource_faults(each: Json, path: str) -> list[FieldError]:
    faults, group = [], each.get("group") or ""
    if group and (wrong := is_dns1123_subdomain(group)):
        faults.append(invalid(f"{path}.group", group, ",".join(wrong)))
    if each.get("resourceNames") and not each.get("resources"):
        text = "using resourceNames requires at least one resource"
        faults.append(invalid(f"{path}.resourceNames", each["resourceNames"], text))
    return faults
