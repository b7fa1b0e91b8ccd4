"""API priority and fairness: which FlowSchema and priority level a request belongs to, said in two headers.

The levels shed no load here: one process serves requests in order, and `InFlight` bounds them.
Source: k8s v1.36 apiserver/pkg/util/flowcontrol/rule.go, apiserver/pkg/server/filters/priority-and-fairness.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from kcp.api.auth.protocol import UserInfo
from kcp.api.auth.service_account import username
from kcp.api.context import Call, RequestInfo, Server
from kcp.store.protocol import Event, Store
from kcp.wire.http import Response

Json = dict[str, Any]
FLOW_SCHEMAS = "flowschemas.flowcontrol.apiserver.k8s.io"
PRIORITY_LEVELS = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"
MEMO_SIZE = 8192


def matches(schema: Json, user: UserInfo, info: RequestInfo) -> bool:
    """Whether a FlowSchema takes this request: some rule's subjects and resources fit."""
    rules = schema.get("spec", {}).get("rules") or ()
    return any(_subjects(rule, user) and _target(rule, info) for rule in rules)


def _subjects(rule: Json, user: UserInfo) -> bool:
    return any(_subject(subject, user) for subject in rule.get("subjects") or ())


def _subject(subject: Json, user: UserInfo) -> bool:
    match subject.get("kind"):
        case "User":
            return subject["user"]["name"] in ("*", user.name)
        case "Group":
            name = subject["group"]["name"]
            return name == "*" or name in user.groups
        case "ServiceAccount":
            account = subject["serviceAccount"]
            if account["name"] == "*":
                return user.name.startswith(username(account["namespace"], ""))
            return user.name == username(account["namespace"], account["name"])
    return False


def _target(rule: Json, info: RequestInfo) -> bool:
    if info.is_resource:
        return any(_resource_rule(each, info) for each in rule.get("resourceRules") or ())
    return any(_path_rule(each, info) for each in rule.get("nonResourceRules") or ())


def _contains(values: Sequence[str] | None, wanted: str) -> bool:
    return bool(values) and ("*" in values or wanted in values)  # type: ignore[operator]


def _resource_rule(rule: Json, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (
        _contains(rule.get("verbs"), info.verb)
        and _contains(rule.get("apiGroups"), info.group)
        and _contains(rule.get("resources"), resource)
    ):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _contains(rule.get("namespaces"), info.namespace)


def _path_rule(rule: Json, info: RequestInfo) -> bool:
    if not _contains(rule.get("verbs"), info.verb):
        return False
    return any(
        url == "*" or url == info.path or (url.endswith("/*") and info.path.startswith(url[:-1]))
        for url in rule.get("nonResourceURLs") or ()
    )


@attrs.define
class FlowControl:
    _store: Store
    _schemas: list[tuple[Json, str]] | None = None
    _memo: dict[tuple[str, ...], tuple[str, str]] = attrs.field(factory=dict)

    @classmethod
    def of(cls, server: Server) -> FlowControl:
        control = cls(server.store)
        server.store.listen(control.on_events)
        return control

    def on_events(self, events: Sequence[Event]) -> None:
        if any(event.key.resource in (FLOW_SCHEMAS, PRIORITY_LEVELS) for event in events):
            self._schemas = None
            self._memo.clear()

    def leave(self, call: Call, response: Response) -> None:
        if call.request.identity is not None:
            return
        schema_uid, level_uid = self._classify(call.user, call.info)
        if schema_uid:
            response.headers.append(("x-kubernetes-pf-flowschema-uid", schema_uid))
            response.headers.append(("x-kubernetes-pf-prioritylevel-uid", level_uid))

    def _classify(self, user: UserInfo, info: RequestInfo) -> tuple[str, str]:
        path = "" if info.is_resource else info.path
        key = (
            user.name,
            *user.groups,
            info.verb,
            info.group,
            info.resource,
            info.subresource,
            info.namespace,
            path,
        )
        found = self._memo.get(key)
        if found is None:
            found = self._find(user, info)
            if len(self._memo) >= MEMO_SIZE:
                self._memo.clear()
            self._memo[key] = found
        return found

    def _find(self, user: UserInfo, info: RequestInfo) -> tuple[str, str]:
        if self._schemas is None:
            self._schemas = self._load()
        for schema, level_uid in self._schemas:
            if matches(schema, user, info):
                return schema["metadata"]["uid"], level_uid
        return "", ""

    def _load(self) -> list[tuple[Json, str]]:
        """(FlowSchema, uid of its level) by precedence, then name; schemas without a level are left out."""
        levels = {record.key.name: record.uid for record in self._store.list(PRIORITY_LEVELS)}
        schemas = [record.value for record in self._store.list(FLOW_SCHEMAS)]
        schemas.sort(key=lambda s: (s["spec"].get("matchingPrecedence", 1000), s["metadata"]["name"]))
        named = [(s, levels.get(s["spec"]["priorityLevelConfiguration"]["name"], "")) for s in schemas]
        return [(schema, uid) for schema, uid in named if uid]
