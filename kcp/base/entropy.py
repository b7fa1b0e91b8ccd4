"""Chance, injected.

One named stream per component: one more draw in one of them does not shift another, so a seeded run stays
comparable after an unrelated change.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import MutableSequence
from typing import Any, Protocol

import attrs

SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""What generated names end in. Source: k8s v1.36 apimachinery/pkg/util/rand."""


class Entropy(Protocol):
    def uid(self) -> str:
        """A version-4 UUID in lower-case canonical form, never given twice."""
        ...

    def name_suffix(self, length: int = 5) -> str:
        """Random characters of `SUFFIX_ALPHABET`, as generateName appends them."""
        ...

    def jitter(self, base_s: float, factor: float) -> float:
        """Uniform in [base_s, base_s * (1 + factor)), as wait.Jitter."""
        ...

    def uniform(self, low: float, high: float) -> float: ...

    def below(self, n: int) -> int:
        """Uniform integer in [0, n)."""
        ...

    def shuffle(self, items: MutableSequence[Any]) -> None: ...

    def token_bytes(self, n: int) -> bytes:
        """Bytes fit for keys and tokens (predictable only under a seed)."""
        ...

    def stream(self, name: str) -> Entropy:
        """An independent stream, the same for the same name and seed."""
        ...


_UUID4_BITS = 4 << 76 | 2 << 62
_RANDOM_BITS = ~(0xF << 76 | 3 << 62)


def _uuid4(bits: int) -> str:
    """128 random bits as a version 4 UUID."""
    text = f"{bits & _RANDOM_BITS | _UUID4_BITS:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


POOL_BYTES = 4096
"""Bytes asked of the operating system at once."""


@attrs.define
class SystemEntropy:
    """The operating system's randomness for keys and tokens; a generator seeded by it for names, uids and jitter."""

    _rng: random.Random = attrs.field(factory=random.Random)
    _pool: bytes = b""

    def uid(self) -> str:
        return _uuid4(self._rng.getrandbits(128))

    def name_suffix(self, length: int = 5) -> str:
        chance, letters = self._rng.random, len(SUFFIX_ALPHABET)
        return "".join([SUFFIX_ALPHABET[int(chance() * letters)] for _ in range(length)])

    def jitter(self, base_s: float, factor: float) -> float:
        return base_s * (1.0 + self._rng.random() * factor)

    def uniform(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)

    def below(self, n: int) -> int:
        return self._rng.randrange(n)

    def shuffle(self, items: MutableSequence[Any]) -> None:
        self._rng.shuffle(items)

    def token_bytes(self, n: int) -> bytes:
        if n > POOL_BYTES:
            return secrets.token_bytes(n)
        if len(self._pool) < n:
            self._pool = secrets.token_bytes(POOL_BYTES)
        taken, self._pool = self._pool[:n], self._pool[n:]
        return taken

    def stream(self, name: str) -> Entropy:
        """One generator serves all: nobody can tell, and each is 2.5 KiB."""
        del name
        return SystemEntropy(self._rng)


@attrs.define
class SeededEntropy:
    """The same draws for the same seed and stream name, in any process."""

    seed: int
    name: str = ""
    _rng: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        digest = hashlib.sha256(f"{self.seed}/{self.name}".encode()).digest()
        self._rng = random.Random(int.from_bytes(digest, "big"))

    def uid(self) -> str:
        return _uuid4(self._rng.getrandbits(128))

    def name_suffix(self, length: int = 5) -> str:
        return "".join(self._rng.choices(SUFFIX_ALPHABET, k=length))

    def jitter(self, base_s: float, factor: float) -> float:
        return base_s * (1.0 + self._rng.random() * factor)

    def uniform(self, low: float, high: float) -> float:
        return self._rng.uniform(low, high)

    def below(self, n: int) -> int:
        return self._rng.randrange(n)

    def shuffle(self, items: MutableSequence[Any]) -> None:
        self._rng.shuffle(items)

    def token_bytes(self, n: int) -> bytes:
        return self._rng.randbytes(n)

    def stream(self, name: str) -> Entropy:
        return SeededEntropy(self.seed, f"{self.name}/{name}")
