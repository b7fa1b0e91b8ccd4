"""The keys of daemons that share a log: a Secret in that log, made by whoever starts first.

    authority and token key     Secret kube-system/kcp-pki, keys ca.crt, ca.key, sa.key
    serving and admin pairs     each daemon's own, signed by that authority

The Secret is read and written through the store, before anything is served. Two first starts at once: the one whose
create comes first in the log wins, the other takes what it finds. Keys that cannot be read, those of a redacted export
among them, are replaced by what this daemon has in its files.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping

import structlog

from kcp.api.auth.service_account import SigningKey
from kcp.api.bootstrap import kind_rows
from kcp.api.own_writes import IDENTITY, MANAGER
from kcp.apis.catalog import build_catalog
from kcp.base.certs import CertificateError, load_certificate, load_private_key
from kcp.base.clock import Clock
from kcp.base.entropy import Entropy
from kcp.base.values import frozen
from kcp.machinery.document import Json, normal
from kcp.machinery.times import format_time
from kcp.store.protocol import Actor, Cause, Head, Keep, Key, Operation, Put, Record, Store

log = structlog.get_logger()

KEY = Key("secrets", "kube-system", "kcp-pki")
CA_CERTIFICATE, CA_KEY, TOKEN_KEY = "ca.crt", "ca.key", "sa.key"


@frozen
class SharedKeys:
    """PEM, as it lies in files."""

    ca_certificate: bytes
    ca_key: bytes
    token_key: bytes

    def data(self) -> dict[str, str]:
        named = {CA_CERTIFICATE: self.ca_certificate, CA_KEY: self.ca_key, TOKEN_KEY: self.token_key}
        return {name: b64encode(pem).decode() for name, pem in named.items()}


def keys_in(secret: Mapping[str, object]) -> SharedKeys | None:
    """The keys of the Secret; None when they are not whole or do not belong together."""
    data = secret.get("data")
    if not isinstance(data, dict):
        return None
    try:
        keys = SharedKeys(*(b64decode(data[name]) for name in (CA_CERTIFICATE, CA_KEY, TOKEN_KEY)))
        SigningKey.load(keys.token_key)
        _check_pair(keys)
    except (KeyError, ValueError):
        return None
    return keys


def _check_pair(keys: SharedKeys) -> None:
    if load_certificate(keys.ca_certificate).public_key() != load_private_key(keys.ca_key).public_key():
        raise CertificateError("certificate and private key do not belong together")


async def agree(store: Store, own: SharedKeys, clock: Clock, entropy: Entropy) -> SharedKeys:
    """The keys that all daemons on this log use: those in the log, or else `own`, which are in the log then."""
    store.register(kind_rows(build_catalog().kinds()))
    secret = _secret(own, clock, entropy)

    def change(current: Record | None, head: Head) -> Put | Keep:
        del head
        if current is None:
            return Put(normal(secret), secret)
        if keys_in(current.value) is not None:
            return Keep()
        repaired = {**current.value, "data": own.data()}
        return Put(normal(repaired), repaired)

    cause = Cause(Actor(IDENTITY.name, IDENTITY.groups, MANAGER, MANAGER))
    committed = await store.append(Operation(KEY, change, cause))
    assert committed.record is not None
    agreed = keys_in(committed.record.value)
    assert agreed is not None
    if committed.previous is not None and committed.op is not None:
        log.warning("shared keys could not be read and were replaced", secret=str(KEY))
    return agreed


def _secret(keys: SharedKeys, clock: Clock, entropy: Entropy) -> Json:
    """Immutable: other keys take a new Secret, and daemons that are started again."""
    metadata = {
        "name": KEY.name,
        "namespace": KEY.namespace,
        "uid": entropy.uid(),
        "creationTimestamp": format_time(clock.now()),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "data": keys.data(),
        "immutable": True,
        "type": "Opaque",
    }
