"""Asking whether a user may: `authorizer.group("apps").resource("deployments").namespace(ns).check("create").allowed()`.

The answers come from whoever evaluates the expression: the variable `authorizer` is bound to `Authorizer(user, ask)`.

Source: k8s v1.36 apiserver/pkg/cel/library/authz.go.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Protocol

import attrs

from kcp.base.values import frozen
from kcp.machinery.cel.functions import Functions, member
from kcp.machinery.cel.types import BOOL, STRING, opaque
from kcp.machinery.cel.values import CelError

AUTHORIZER: Final = opaque("kubernetes.authorization.Authorizer")
PATH_CHECK: Final = opaque("kubernetes.authorization.PathCheck")
GROUP_CHECK: Final = opaque("kubernetes.authorization.GroupCheck")
RESOURCE_CHECK: Final = opaque("kubernetes.authorization.ResourceCheck")
DECISION: Final = opaque("kubernetes.authorization.Decision")
CHECK_COST: Final = 350_000
"""One check; so an expression has room for two."""


@frozen
class Decision:
    """The answer: `error` is set when it could not be found out."""

    cel_type: ClassVar[str] = "kubernetes.authorization.Decision"
    allowed: bool
    reason: str = ""
    error: str = ""


@frozen
class ResourceAttributes:
    """What is asked about a resource; the selectors are texts as in a list request."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""
    label_selector: str = ""


class Ask(Protocol):
    """Answers checks. `service_account` is (namespace, name) when it is not about the request's own user."""

    def resource(
        self, attributes: ResourceAttributes, service_account: tuple[str, str] | None
    ) -> Decision: ...

    def path(self, verb: str, path: str, service_account: tuple[str, str] | None) -> Decision: ...


@frozen
class Authorizer:
    cel_type: ClassVar[str] = "kubernetes.authorization.Authorizer"
    ask: Ask
    service_account: tuple[str, str] | None = None


@frozen
class PathCheck:
    cel_type: ClassVar[str] = "kubernetes.authorization.PathCheck"
    authorizer: Authorizer
    path: str


@frozen
class GroupCheck:
    cel_type: ClassVar[str] = "kubernetes.authorization.GroupCheck"
    authorizer: Authorizer
    group: str


@frozen
class ResourceCheck:
    """Also what `authorizer.requestResource` is bound to."""

    cel_type: ClassVar[str] = "kubernetes.authorization.ResourceCheck"
    authorizer: Authorizer
    attributes: ResourceAttributes


def _path(authorizer: Authorizer, path: str) -> PathCheck:
    if not path:
        raise CelError("path must not be empty")
    return PathCheck(authorizer, path)


def _account(authorizer: Authorizer, namespace: str, name: str) -> Authorizer:
    return Authorizer(authorizer.ask, (namespace, name))


def _resource(check: GroupCheck, resource: str) -> ResourceCheck:
    return ResourceCheck(check.authorizer, ResourceAttributes("", check.group, resource))


def _with(field: str) -> Any:
    return lambda check, value: attrs.evolve(
        check, attributes=attrs.evolve(check.attributes, **{field: value})
    )


def _check_resource(check: ResourceCheck, verb: str) -> Decision:
    attributes = attrs.evolve(check.attributes, verb=verb)
    return check.authorizer.ask.resource(attributes, check.authorizer.service_account)


def _check_path(check: PathCheck, verb: str) -> Decision:
    return check.authorizer.ask.path(verb, check.path, check.authorizer.service_account)


_NARROWED: Final = ("subresource", "namespace", "name")

LIBRARY: Final[Functions] = {
    "path": (member("authorizer_path", (AUTHORIZER, STRING), PATH_CHECK, _path),),
    "group": (member("authorizer_group", (AUTHORIZER, STRING), GROUP_CHECK, GroupCheck),),
    "serviceAccount": (
        member("authorizer_serviceaccount", (AUTHORIZER, STRING, STRING), AUTHORIZER, _account),
    ),
    "resource": (member("groupcheck_resource", (GROUP_CHECK, STRING), RESOURCE_CHECK, _resource),),
    **{
        name: (member(f"resourcecheck_{name}", (RESOURCE_CHECK, STRING), RESOURCE_CHECK, _with(name)),)
        for name in _NARROWED
    },
    "fieldSelector": (
        member("authorizer_fieldselector", (RESOURCE_CHECK, STRING), RESOURCE_CHECK, _with("field_selector")),
    ),
    "labelSelector": (
        member("authorizer_labelselector", (RESOURCE_CHECK, STRING), RESOURCE_CHECK, _with("label_selector")),
    ),
    "check": (
        member("pathcheck_check", (PATH_CHECK, STRING), DECISION, _check_path, CHECK_COST),
        member("resourcecheck_check", (RESOURCE_CHECK, STRING), DECISION, _check_resource, CHECK_COST),
    ),
    "errored": (member("decision_errored", (DECISION,), BOOL, lambda decision: bool(decision.error)),),
    "error": (member("decision_error", (DECISION,), STRING, lambda decision: decision.error),),
    "allowed": (
        member(
            "decision_allowed", (DECISION,), BOOL, lambda decision: decision.allowed and not decision.error
        ),
    ),
    "reason": (member("decision_reason", (DECISION,), STRING, lambda decision: decision.reason),),
}
