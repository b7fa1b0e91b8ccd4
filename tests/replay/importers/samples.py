"""Makes the samples of examples/incidents: `python -m tests.replay.importers.samples`. Needs etcd for its snapshot."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import anyio

from kcp.base.loop import run_deterministic
from kcp.machinery.codec.protobuf import encode_protobuf
from tests.real import etcd
from tests.replay.importers.auditing import audited_cluster
from tests.replay.importers.packing import pack
from tests.replay.importers.test_kine import database
from tests.replay.importers.test_kwok import RECORDING
from tests.support.builders import deployment

Json = dict[str, Any]
HERE = Path(__file__).resolve().parents[3] / "examples" / "incidents"
RESOURCES = frozenset({"deployments", "replicasets", "pods", "events"})


async def _play() -> tuple[list[Json], list[Any]]:
    """A Deployment that is scaled and deleted: the audit log, and every event of the log."""
    async with audited_cluster(nodes=1) as (parts, client, audit):
        await client.create("deployments.apps", deployment("web", replicas=2))
        await anyio.sleep(30)
        await client.patch("deployments.apps", "web", {"spec": {"replicas": 3}}, "merge", "default")
        await anyio.sleep(30)
        await client.delete("deployments.apps", "web", "default")
        await anyio.sleep(45)
        return audit.events, list(await parts.store.events_since(0, limit=100_000))


def main() -> None:
    HERE.mkdir(parents=True, exist_ok=True)
    audit, events = run_deterministic(_play, 3)
    kept = [event for event in audit if event["objectRef"]["resource"] in RESOURCES]
    (HERE / "audit.log").write_text(
        "".join(json.dumps(_without_managers(event), separators=(",", ":")) + "\n" for event in kept)
    )
    pods = [event for event in events if event.key.resource == "pods"]
    verbs = ("ADDED", "MODIFIED", "DELETED")
    told = [{"type": verbs[event.op], "object": _without_managers(event.record.value)} for event in pods]
    (HERE / "pods.watch.json").write_text("".join(json.dumps(each, indent=2) + "\n" for each in told))
    (HERE / "kwok.yaml").write_text(RECORDING)
    _trace()
    _kine(events)
    _etcd(events)


def _without_managers(value: Any) -> Any:
    """As with `omitManagedFields: true` in an audit policy: the samples are to be small."""
    if isinstance(value, dict):
        return {name: _without_managers(item) for name, item in value.items() if name != "managedFields"}
    return [_without_managers(item) for item in value] if isinstance(value, list) else value


def _trace() -> None:
    web = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 2},
    }
    told = [
        {"ts": 1767225600, "applied_objs": [web], "deleted_objs": []},
        {"ts": 1767225630, "applied_objs": [{**web, "spec": {"replicas": 3}}], "deleted_objs": []},
        {"ts": 1767225660, "applied_objs": [], "deleted_objs": [web]},
    ]  # fmt: skip
    whole = {
        "version": 2,
        "config": {"trackedObjects": {}},
        "events": told,
        "index": {},
        "pod_lifecycles": {},
    }
    (HERE / "trace.simkube").write_bytes(pack(whole))


def _values(events: list[Any]) -> list[tuple[str, Any]]:
    """(key in /registry, event) of the workloads."""
    plurals = {"deployments.apps": "deployments", "replicasets.apps": "replicasets", "pods": "pods"}
    return [
        (f"/registry/{plurals[e.key.resource]}/{e.key.namespace}/{e.key.name}", e) for e in events if e.key.resource in plurals
    ]  # fmt: skip


def _stored(event: Any) -> bytes:
    value = event.record.value
    metadata = {k: v for k, v in value["metadata"].items() if k != "resourceVersion"}
    return encode_protobuf({**value, "metadata": metadata})


def _kine(events: list[Any]) -> None:
    file = HERE / "kine.db"
    file.unlink(missing_ok=True)
    rows = []
    for key, event in _values(events):
        gone, previous = event.op == 2, event.previous
        rows.append(
            (event.rv, key, int(event.op == 0), int(gone), 0 if event.op == 0 else event.record.oid,
             previous.rv if previous else 0, b"" if gone else _stored(event))
        )  # fmt: skip
    database(file, *rows)


def _etcd(events: list[Any]) -> None:
    directory = Path(tempfile.mkdtemp())
    with etcd.running(directory) as server:
        for key, event in _values(events):
            if event.op == 2:
                server.delete(key)
            else:
                server.put(key, _stored(event))
        file = server.snapshot(directory / "snapshot.db")
    (HERE / "etcd-snapshot.db.gz").write_bytes(gzip.compress(file.read_bytes(), 9, mtime=0))
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
