"""What NodeFailureGuard must not forget when its scheduler ends: which workload went down with which nodes, and who is held.

The ConfigMap `node-failure-guard` of kube-system has it, a key for each workload; several schedulers share it, each the
owner of its keys:

    data:
      3f0c…-uid: '{"killed":{"n1":"2026-01-01T00:01:02.000000Z","n2":"…"},"heldUntil":"…"}'

It changes when a node dies with suspects on it or a hold ends, which is rare. Whoever schedules next reads it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs
import orjson
import structlog

from kcp.base.clock import microseconds, moment
from kcp.client.client import Client
from kcp.client.transport import Unreachable
from kcp.machinery.errors import ApiError, NotFound
from kcp.machinery.times import format_micro_time, parse_time

Json = dict[str, Any]
log = structlog.get_logger()
NAMESPACE, NAME = "kube-system", "node-failure-guard"
MAX_WORKLOADS = 1000
"""Of more the newest are kept: a ConfigMap is 1 MiB at most."""


@attrs.define
class Record:
    """Of one workload. `killed` in the order of the deaths; `held_until_us` 0: it is not held."""

    killed: list[tuple[int, str]] = attrs.field(factory=list)
    held_until_us: int = 0

    @property
    def newest_us(self) -> int:
        return max([self.held_until_us, *(at for at, _ in self.killed)])


def config_map(records: Mapping[str, Record]) -> Json:
    newest = sorted(records, key=lambda workload: (-records[workload].newest_us, workload))[:MAX_WORKLOADS]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": {workload: _text(records[workload]) for workload in sorted(newest)},
    }


def _text(record: Record) -> str:
    document: Json = {"killed": {node: _time(at) for at, node in record.killed}}
    if record.held_until_us:
        document["heldUntil"] = _time(record.held_until_us)
    return orjson.dumps(document).decode()


def _time(us: int) -> str:
    return format_micro_time(moment(us))


def records_of(data: Mapping[str, str]) -> dict[str, Record]:
    """What cannot be read is left out: somebody else wrote it."""
    found: dict[str, Record] = {}
    for workload, text in data.items():
        try:
            document = orjson.loads(text)
            killed = sorted((_us(at), str(node)) for node, at in document["killed"].items())
            until = _us(document["heldUntil"]) if "heldUntil" in document else 0
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("guard memory not understood", workload=workload, error=str(error))
            continue
        found[workload] = Record(killed, until)
    return found


def _us(text: str) -> int:
    time: datetime = parse_time(text)
    return microseconds(time)


async def read(client: Client) -> dict[str, Record]:
    """Nothing, when it is not there or cannot be had: then the guard begins anew."""
    try:
        found = await client.get("configmaps", NAME, NAMESPACE)
    except NotFound:
        return {}
    except (ApiError, Unreachable) as error:
        log.warning("guard memory not read", error=str(error))
        return {}
    return records_of(found.get("data") or {})
