"""The review kinds: who am I, may I, may they, what may I, whose token is this.

Each function takes the validated review and returns it with its status. Nothing is stored.
Source: k8s v1.36 pkg/registry/authentication, pkg/registry/authorization.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kcp.api.auth.node import NODES_GROUP
from kcp.api.auth.protocol import Attributes, UserInfo
from kcp.api.auth.rbac import RbacAuthorizer
from kcp.api.auth.rules import Rule
from kcp.api.auth.tokens import TokenUnion
from kcp.api.context import Call, Server
from kcp.machinery.errors import BadRequest, Unauthorized
from kcp.machinery.times import format_time

Json = dict[str, Any]
Review = Callable[[Server, Call, Json], Awaitable[Json]]

AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"


def user_document(user: UserInfo) -> Json:
    """A user as authentication.k8s.io/v1 UserInfo."""
    out: Json = {"username": user.name}
    if user.uid:
        out["uid"] = user.uid
    if user.groups:
        out["groups"] = list(user.groups)
    if user.extra:
        out["extra"] = {key: list(values) for key, values in user.extra}
    return out


def _user_of(spec: Json) -> UserInfo:
    """The user that a SubjectAccessReview asks about."""
    extra = tuple(sorted((key, tuple(values)) for key, values in (spec.get("extra") or {}).items()))
    return UserInfo(spec.get("user", ""), spec.get("uid", ""), tuple(spec.get("groups") or ()), extra)


def attributes_of(spec: Json, user: UserInfo) -> Attributes:
    """The question of a review's spec."""
    asked = spec.get("resourceAttributes")
    if asked is None:
        path = spec.get("nonResourceAttributes") or {}
        return Attributes(user, path.get("verb", ""), path=path.get("path", ""), resource_request=False)
    return Attributes(
        user,
        asked.get("verb", ""),
        asked.get("group", ""),
        asked.get("version", ""),
        asked.get("resource", ""),
        asked.get("subresource", ""),
        asked.get("namespace", ""),
        asked.get("name", ""),
    )


def _decide(server: Server, review: Json, user: UserInfo) -> Json:
    verdict, reason = server.authorizer.authorize(attributes_of(review.get("spec") or {}, user))
    status: Json = {"allowed": verdict == "allow"}
    if verdict == "deny":
        status["denied"] = True
    if reason:
        status["reason"] = reason
    return {**review, "status": status}


async def subject_access_review(server: Server, call: Call, review: Json) -> Json:
    return _decide(server, review, _user_of(review.get("spec") or {}))


async def local_subject_access_review(server: Server, call: Call, review: Json) -> Json:
    """Raises BadRequest when the question is about another namespace than the path's."""
    asked = ((review.get("spec") or {}).get("resourceAttributes") or {}).get("namespace", "")
    if asked != call.info.namespace:
        raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {call.info.namespace}")
    return _decide(server, review, _user_of(review.get("spec") or {}))


async def self_subject_access_review(server: Server, call: Call, review: Json) -> Json:
    return _decide(server, review, call.user)


async def self_subject_review(server: Server, call: Call, review: Json) -> Json:
    """An object of its own, whatever was sent."""
    return {
        "apiVersion": review["apiVersion"],
        "kind": review["kind"],
        "metadata": {"creationTimestamp": format_time(server.clock.now())},
        "status": {"userInfo": user_document(call.user)},
    }


async def self_subject_rules_review(server: Server, call: Call, review: Json) -> Json:
    """Raises BadRequest without a namespace. The list is of RBAC; what the node authorizer allows is not in it."""
    namespace = (review.get("spec") or {}).get("namespace", "")
    if not namespace:
        raise BadRequest("no namespace on request")
    rbac = server.extras.get("rbac")
    rules, problem = rbac.rules_for(call.user, namespace) if isinstance(rbac, RbacAuthorizer) else ([], "")
    problems = [problem] if problem else []
    if NODES_GROUP in call.user.groups:
        problems.insert(0, "node authorizer does not support user rule resolution")
    status: Json = {
        "resourceRules": [_resource_rule(rule) for rule in rules if rule.resources],
        "nonResourceRules": [_path_rule(rule) for rule in rules if rule.urls],
        "incomplete": bool(problems),
    }
    if problems:
        status["evaluationError"] = "; ".join(problems)
    return {**review, "status": status}


def _pick(rule: Rule, keys: tuple[str, ...]) -> Json:
    return {key: rule.source[key] for key in keys if rule.source.get(key)}


def _resource_rule(rule: Rule) -> Json:
    return _pick(rule, ("verbs", "apiGroups", "resources", "resourceNames"))


def _path_rule(rule: Rule) -> Json:
    return _pick(rule, ("verbs", "nonResourceURLs"))


async def token_review(server: Server, call: Call, review: Json) -> Json:
    """Raises BadRequest without a token. A bad token is an answer, not an error."""
    spec = review.get("spec") or {}
    token = spec.get("token", "")
    if not token:
        raise BadRequest("token is required for TokenReview in authentication")
    audiences = tuple(spec.get("audiences") or server.settings.api_audiences)
    tokens = getattr(server.authenticator, "tokens", TokenUnion())
    try:
        identity = tokens.authenticate_token(token, audiences)
    except Unauthorized as error:
        return {**review, "status": {"user": {}, "error": error.message}}
    status: Json = {"authenticated": True, "user": user_document(identity.user)}
    if identity.audiences:
        status["audiences"] = list(identity.audiences)
    return {**review, "status": status}


REVIEWS: Mapping[tuple[str, str], Review] = {
    (AUTHENTICATION, "TokenReview"): token_review,
    (AUTHENTICATION, "SelfSubjectReview"): self_subject_review,
    (AUTHORIZATION, "SubjectAccessReview"): subject_access_review,
    (AUTHORIZATION, "LocalSubjectAccessReview"): local_subject_access_review,
    (AUTHORIZATION, "SelfSubjectAccessReview"): self_subject_access_review,
    (AUTHORIZATION, "SelfSubjectRulesReview"): self_subject_rules_review,
}
"""(group, kind) -> how it is answered."""
