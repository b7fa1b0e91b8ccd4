"""Python's cycle collector, told what a long-lived server knows: most objects stay, few form cycles."""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 50_000
MIDDLE_EVERY, OLD_EVERY = 20, 100


def settle() -> None:
    """Call once after start: what lives now is never scanned again, and new objects are scanned in larger lots.

    With the defaults a server that creates pods spends about a tenth of its time looking at caches that never die.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_EVERY, OLD_EVERY)
