"""What an importer gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kcp.base.values import frozen
from kcp.replay.importers.kinds import Kinds
from kcp.replay.importers.reading import Faults
from kcp.store.foreign import Change
from kcp.store.protocol import Input


@frozen
class Told:
    """`base_rv`: what is told up to there was found and did not happen before our eyes. `notes` are for people."""

    changes: Sequence[Change]
    base_rv: int = 0
    inputs: Sequence[Input] = ()
    notes: Sequence[str] = ()


Reader = Callable[[Sequence[Path], Faults, Kinds], Told]
"""Raises Malformed for a source that cannot be read at all; faults in its parts go to Faults."""
