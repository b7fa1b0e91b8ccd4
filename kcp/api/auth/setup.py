"""Puts authenticators and authorizers together, the way kubeadm configures kube-apiserver.

auth = setup(store, clock, client_ca_pems=[…], tokens=[…], anonymous=True)
Server(authenticator=auth.authenticator, authorizer=auth.authorizer, extras={"rbac": auth.rbac}, …)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from kcp.api.auth.bootstrap_roles import role_rules
from kcp.api.auth.node import NodeAuthorizer
from kcp.api.auth.protocol import Authenticator, Authorizer
from kcp.api.auth.rbac import RbacAuthorizer, rbac_authorizer
from kcp.api.auth.tokens import BearerTokens, TokenAuthenticator, TokenUnion
from kcp.api.auth.union import PrivilegedGroup, UnionAuthenticator, UnionAuthorizer
from kcp.api.auth.x509 import CertificateVerifier, ClientCertificates, FrontProxy
from kcp.base.clock import Clock
from kcp.base.values import frozen
from kcp.store.protocol import Event, Key, Store

Json = dict[str, Any]


@frozen
class Auth:
    authenticator: Authenticator
    authorizer: Authorizer
    rbac: RbacAuthorizer
    """The server's extra `rbac`: rule reviews and escalation checks ask it."""


@attrs.define
class PodsByNode:
    """Pods of each node, indexed when first asked for and kept by the store's events."""

    store: Store
    _by_node: dict[str, dict[Key, Json]] | None = None

    def __call__(self, node: str) -> Sequence[Json]:
        if self._by_node is None:
            self._by_node = {}
            for record in self.store.list("pods"):
                self._put(record.key, record.value)
        return list(self._by_node.get(node, {}).values())

    def _put(self, key: Key, pod: Json) -> None:
        assert self._by_node is not None
        if node := (pod.get("spec") or {}).get("nodeName"):
            self._by_node.setdefault(node, {})[key] = pod

    def on_events(self, events: Sequence[Event]) -> None:
        if self._by_node is None:
            return
        for event in events:
            if event.key.resource == "pods":
                self._follow(event)

    def _follow(self, event: Event) -> None:
        assert self._by_node is not None
        node = (event.record.value.get("spec") or {}).get("nodeName")
        if event.op.name == "DELETED":
            self._by_node.get(node or "", {}).pop(event.key, None)
        else:
            self._put(event.key, event.record.value)


def live_objects(store: Store) -> Any:
    """(resource, namespace, name) -> the live object, or None."""

    def get(resource: str, namespace: str, name: str) -> Json | None:
        record = store.get(Key(resource, namespace, name))
        return None if record is None else record.value

    return get


def setup(
    store: Store,
    clock: Clock,
    *,
    client_ca_pems: Sequence[bytes] = (),
    front_proxy_ca_pems: Sequence[bytes] = (),
    front_proxy_names: tuple[str, ...] = (),
    tokens: Sequence[TokenAuthenticator] = (),
    audiences: tuple[str, ...] = (),
    anonymous: bool = True,
) -> Auth:
    """Certificates, then tokens, then anonymous; system:masters, then nodes, then RBAC."""
    authenticators: list[Authenticator] = []
    if front_proxy_ca_pems:
        verifier = CertificateVerifier.of(front_proxy_ca_pems, clock)
        authenticators.append(FrontProxy(verifier, front_proxy_names))
    if client_ca_pems:
        authenticators.append(ClientCertificates(CertificateVerifier.of(client_ca_pems, clock)))
    union = TokenUnion(tuple(tokens))
    authenticators.append(BearerTokens(union, audiences))
    pods = PodsByNode(store)
    store.listen(pods.on_events)
    rbac = rbac_authorizer(store)
    nodes = NodeAuthorizer(role_rules("system:node"), pods, live_objects(store))
    authorizer = UnionAuthorizer((PrivilegedGroup(), nodes, rbac))
    return Auth(UnionAuthenticator(tuple(authenticators), anonymous, union), authorizer, rbac)
