"""The interpreter, told what a long-lived server knows."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import linecache
import sys
from collections.abc import Iterator

YOUNG_OBJECTS = 50_000
MIDDLE_EVERY, OLD_EVERY = 20, 100
SWITCH_S = 0.0001


def forget_sources() -> None:
    """Drop the lines of source that attrs and `inspect` left in memory, 2 MiB of them; tracebacks read them anew."""
    linecache.clearcache()


def _give_back() -> None:
    """Free memory that glibc keeps for later to the system; other C libraries have no such call."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def collection_put_off() -> Iterator[None]:
    """For work that makes very much that stays: the collector would look at all of it again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def settle() -> None:
    """Call once after start: what lives now is never scanned again, and new objects are scanned in larger lots.

    With the defaults a server that creates pods spends about a tenth of its time looking at caches that never die;
    and a thread that has to put a batch on the disk waits 5 ms for the interpreter lock before it may start, as long
    as the loop has work, so that the disk and the loop take turns instead of working side by side.
    """
    forget_sources()
    gc.collect()
    _give_back()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_EVERY, OLD_EVERY)
    sys.setswitchinterval(SWITCH_S)
