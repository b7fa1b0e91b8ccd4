"""May they? One question to the authorizer per request.

Source: k8s v1.36 apiserver/pkg/endpoints/filters/authorization.go,
apiserver/pkg/endpoints/handlers/responsewriters/errors.go.
"""

from __future__ import annotations

import attrs

from kcp.api.auth.protocol import Attributes, Authorizer, UserInfo
from kcp.api.context import Call, RequestInfo, Server
from kcp.machinery.errors import Forbidden, go_quote

AUDIT = "audit"
"""The extra of a server that has an audit log."""

_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def attributes_of(user: UserInfo, info: RequestInfo) -> Attributes:
    if not info.is_resource:
        return Attributes(user, info.verb, path=info.path, resource_request=False)
    return Attributes(
        user, info.verb, info.group, info.version, info.resource, info.subresource, info.namespace, info.name
    )


def denial(attributes: Attributes) -> str:
    """`User "x" cannot list resource "pods" in API group "" in the namespace "default"`."""
    user, verb = go_quote(attributes.user.name), attributes.verb
    if not attributes.resource_request:
        return f"User {user} cannot {verb} path {go_quote(attributes.path)}"
    resource = attributes.resource
    if attributes.subresource:
        resource = f"{resource}/{attributes.subresource}"
    text = (
        f"User {user} cannot {verb} resource {go_quote(resource)} in API group {go_quote(attributes.group)}"
    )
    if attributes.namespace:
        return f"{text} in the namespace {go_quote(attributes.namespace)}"
    return f"{text} at the cluster scope"


def forbidden(attributes: Attributes, reason: str) -> Forbidden:
    text = denial(attributes).translate(_HTML)
    if reason:
        text = f"{text}: {reason}"
    return Forbidden.of(attributes.group, attributes.resource, attributes.name, text)


@attrs.define
class Authorization:
    authorizer: Authorizer
    noting: bool = False
    """Whether an audit log wants to know what was decided and why."""

    @classmethod
    def of(cls, server: Server) -> Authorization:
        return cls(server.authorizer, AUDIT in server.extras)

    def enter(self, call: Call) -> None:
        """Raises Forbidden."""
        attributes = attributes_of(call.user, call.info)
        verdict, reason = self.authorizer.authorize(attributes)
        if self.noting:
            call.annotations["authorization.k8s.io/decision"] = "allow" if verdict == "allow" else "forbid"
            call.annotations["authorization.k8s.io/reason"] = reason
        if verdict != "allow":
            raise forbidden(attributes, reason)
