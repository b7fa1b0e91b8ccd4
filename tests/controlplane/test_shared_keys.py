"""Daemons on one log agree on keys: the first create wins, what cannot be read is replaced."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from kcp.base.certs import Authority, generate_key, private_key_pem
from kcp.base.clock import VirtualClock
from kcp.base.entropy import SeededEntropy
from kcp.controlplane.shared_keys import KEY, SharedKeys, agree, keys_in
from kcp.machinery.document import Json, normal
from kcp.store.log import EventLog
from kcp.store.open import open_store
from kcp.store.protocol import Head, Operation, Put, Record
from kcp.store.redaction import keyed_mask, redact_secret

CLOCK = VirtualClock()


def keys(seed: int) -> SharedKeys:
    entropy = SeededEntropy(seed)
    authority = Authority.create("kubernetes", CLOCK, entropy)
    return SharedKeys(authority.certificate_pem, authority.key_pem, private_key_pem(generate_key(entropy)))


@pytest.fixture
async def store() -> AsyncIterator[EventLog]:
    async with open_store("memory:", clock=CLOCK) as opened:
        yield opened


async def put(store: EventLog, secret: Json) -> None:
    def change(current: Record | None, head: Head) -> Put:
        del current, head
        return Put(normal(secret), secret)

    await store.append(Operation(KEY, change))


async def test_the_first_keeps_its_keys_and_the_second_takes_them(store: EventLog) -> None:
    first, second = keys(1), keys(2)
    assert await agree(store, first, CLOCK, SeededEntropy(1)) == first
    rv = store.rv
    assert await agree(store, second, CLOCK, SeededEntropy(2)) == first
    assert store.rv == rv


async def test_a_redacted_copy_of_the_log_gets_keys_again(store: EventLog) -> None:
    own = keys(1)
    await agree(store, own, CLOCK, SeededEntropy(1))
    found = store.get(KEY)
    assert found is not None
    await put(store, redact_secret(found.value, keyed_mask(b"k")))
    assert await agree(store, own, CLOCK, SeededEntropy(3)) == own
    repaired = store.get(KEY)
    assert repaired is not None and repaired.uid == found.uid


@pytest.mark.parametrize("broken", ["ca.crt", "ca.key", "sa.key"])
def test_keys_are_whole_or_none(broken: str) -> None:
    own, other = keys(1), keys(2)
    good = own.data()
    assert keys_in({"data": good}) == own
    assert keys_in({"data": {name: pem for name, pem in good.items() if name != broken}}) is None
    assert keys_in({"data": {**good, broken: "bm90IGEga2V5"}}) is None
    assert keys_in({"data": {**good, broken: "%"}}) is None
    assert keys_in({}) is None
    if broken != "sa.key":
        assert keys_in({"data": {**good, broken: other.data()[broken]}}) is None
