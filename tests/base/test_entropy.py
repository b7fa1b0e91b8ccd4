from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcp.base.entropy import SUFFIX_ALPHABET, Entropy, SeededEntropy, SystemEntropy


def draws(entropy: Entropy) -> list[object]:
    items = list(range(9))
    entropy.shuffle(items)
    return [
        entropy.uid(),
        entropy.name_suffix(),
        entropy.jitter(1, 1),
        entropy.uniform(0, 1),
        entropy.below(1000),
        items,
        entropy.token_bytes(8),
    ]


@pytest.mark.parametrize("entropy", [SystemEntropy(), SeededEntropy(3)], ids=["system", "seeded"])
def test_what_every_entropy_gives(entropy: Entropy) -> None:
    uids = {entropy.uid() for _ in range(600)}
    assert len(uids) == 600
    assert all(str(uuid.UUID(uid)) == uid and uuid.UUID(uid).version == 4 for uid in uids)
    assert set(entropy.name_suffix(200)) <= set(SUFFIX_ALPHABET)
    assert all(1 <= entropy.jitter(1, 0.5) < 1.5 for _ in range(100))
    assert len(entropy.token_bytes(33)) == 33


@given(st.integers(), st.text(max_size=5))
def test_a_stream_is_the_same_for_the_same_seed_and_name(seed: int, name: str) -> None:
    assert draws(SeededEntropy(seed).stream(name)) == draws(SeededEntropy(seed).stream(name))


def test_one_more_draw_in_one_stream_shifts_no_other() -> None:
    one, two = SeededEntropy(1), SeededEntropy(1)
    one.stream("a").uid()
    one.uid()
    assert draws(one.stream("b")) == draws(two.stream("b"))
    assert draws(one.stream("a")) != draws(two.stream("b"))
    assert draws(SeededEntropy(1)) != draws(SeededEntropy(2))
