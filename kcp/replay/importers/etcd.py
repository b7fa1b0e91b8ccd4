"""etcd snapshots (`etcdctl snapshot save`), and the file `member/snap/db` of a stopped etcd: every revision since the compaction.

    bucket key     17 bytes `main _ sub`, big-endian, in the order of revisions; an 18th, `t`: a tombstone, the key went
    bucket meta    finishedCompactRev: up to there only the newest revision of each living key is left
    value          mvccpb.KeyValue: 1 key · 2 create revision · 3 revision · 4 version · 5 value · 6 lease

Several keys have one revision where one transaction changed them; from an API server that are keys whose lease ran out.
Source: etcd server/storage/mvcc/{revision,kvstore,kvstore_compaction}.go, api/mvccpb/kv.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kcp.machinery.codec.protobuf import ProtobufError, members_of
from kcp.replay.importers.bbolt import Bolt
from kcp.replay.importers.kinds import Kinds
from kcp.replay.importers.reading import Faults, Malformed, content
from kcp.replay.importers.registry import Registry
from kcp.replay.importers.source import Told
from kcp.store.foreign import Change

REVISION_BYTES = 17
COMPACTED = (b"finishedCompactRev", b"scheduledCompactRev")


def read(files: Sequence[Path], faults: Faults, kinds: Kinds) -> Told:
    if len(files) > 1:
        raise Malformed("one snapshot at a time: each has all that is known")
    file = database_of(files[0])
    bolt = Bolt(content(file), str(file))
    registry = Registry(kinds, faults)
    changes = []
    for place, value in bolt.items(b"key"):
        change = _change(f"{file}: revision {_main(place)}", place, value, registry, faults)
        if change is not None:
            changes.append(change)
    return Told(changes, base_rv=_base(bolt), notes=registry.notes())


def database_of(place: Path) -> Path:
    """The file itself, or the one in a data directory."""
    for inside in ("member/snap/db", "snap/db"):
        if (place / inside).is_file():
            return place / inside
    return place


def _base(bolt: Bolt) -> int:
    meta = dict(bolt.items(b"meta"))
    return max((_main(meta[name]) for name in COMPACTED if len(meta.get(name, b"")) >= 8), default=0)


def _main(revision: bytes) -> int:
    return int.from_bytes(revision[:8], "big")


def _change(where: str, place: bytes, value: bytes, registry: Registry, faults: Faults) -> Change | None:
    try:
        fields = members_of(value, 0, len(value))
    except ProtobufError as error:
        faults.add(where, f"no mvccpb.KeyValue: {error}")
        return None
    key, rv = fields.get(1, b""), _main(place)
    if not isinstance(key, bytes):
        faults.add(where, "a KeyValue without a key")
        return None
    if place[REVISION_BYTES:] == b"t":
        return registry.delete(key, rv)
    stored, created = fields.get(5, b""), fields.get(2, 0)
    if not isinstance(stored, bytes) or not isinstance(created, int):
        faults.add(where, "a KeyValue with fields of other types")
        return None
    return registry.put(where, key, stored, rv, created)
