"""Taking secrets out of what leaves the log: equal values stay equal, nothing can be read back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import sqlite3
from collections.abc import Callable
from typing import Any

import orjson

from kcp.machinery.document import Json, normal
from kcp.store.tables import REDACTED

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

Mask = Callable[[Any], str]


def keyed_mask(key: bytes) -> Mask:
    """Masks a value by a digest under `key`; who forgets the key can never guess values from digests."""

    def mask(value: Any) -> str:
        digest = hmac.new(key, orjson.dumps(value, option=orjson.OPT_SORT_KEYS), hashlib.sha256).hexdigest()
        return f"redacted-{digest[:16]}"

    return mask


def redact_secret(secret: Json, mask: Mask) -> Json:
    """The Secret with every value masked; `data` stays valid base64."""
    redacted = dict(secret)
    for field, encode in (("data", _base64), ("stringData", str)):
        values = secret.get(field)
        if isinstance(values, dict):
            redacted[field] = {name: encode(mask(value)) for name, value in values.items()}
    annotations = (secret.get("metadata") or {}).get("annotations") or {}
    if LAST_APPLIED in annotations:
        masked = {**annotations, LAST_APPLIED: mask(annotations[LAST_APPLIED])}
        redacted["metadata"] = {**secret["metadata"], "annotations": masked}
    return redacted


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def redact_inside(value: Any, mask: Mask) -> Any:
    """Any JSON value with the Secrets in it redacted."""
    if isinstance(value, dict):
        if value.get("kind") == "Secret" and value.get("apiVersion") == "v1":
            return redact_secret(value, mask)
        return {key: redact_inside(item, mask) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_inside(item, mask) for item in value]
    return value


def redact_rows(connection: sqlite3.Connection, mask: Mask) -> int:
    """Redact Secrets in events, decisions and inputs of a file; returns the event rows touched."""
    found = connection.execute(
        "SELECT e.rv, CAST(e.body AS BLOB) FROM events e JOIN objects o ON o.oid = e.oid JOIN kinds k ON k.kind_id = o.kind_id"
        " WHERE k.grp = '' AND k.plural = 'secrets' AND e.body IS NOT NULL ORDER BY e.rv"
    ).fetchall()
    for rv, body in found:
        value = redact_secret(orjson.loads(body), mask)
        connection.execute(
            "UPDATE events SET body = CAST(? AS TEXT), flags = flags | ? WHERE rv = ?",
            (normal(value), REDACTED, rv),
        )
    for table, column in (("decisions", "effects"), ("decisions", "memo"), ("inputs", "payload")):
        _redact_column(connection, table, column, mask)
    return len(found)


def _redact_column(connection: sqlite3.Connection, table: str, column: str, mask: Mask) -> None:
    key = "decision_id" if table == "decisions" else "rv_after, seq"
    names = [name.strip() for name in key.split(",")]
    where = " AND ".join(f"{name} = ?" for name in names)
    found = connection.execute(
        f"SELECT {key}, {column} FROM {table} WHERE {column} LIKE '%\"Secret\"%' ORDER BY {key}"
    ).fetchall()
    for *place, text in found:
        value = orjson.dumps(redact_inside(orjson.loads(text), mask), option=orjson.OPT_SORT_KEYS)
        connection.execute(f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE {where}", (value, *place))
