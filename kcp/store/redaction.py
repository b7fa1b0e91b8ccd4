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
from kcp.store.protocol import Key
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


def blank(key: Key, kind: str, group: str, version: str, uid: str) -> Json:
    """What a purge leaves of a version: which object it was."""
    named = {"name": key.name, "uid": uid, **({"namespace": key.namespace} if key.namespace else {})}
    return {"apiVersion": f"{group}/{version}" if group else version, "kind": kind, "metadata": named}


def blank_inside(value: Any, kind: str, key: Key) -> Any:
    """Any JSON value; versions of the object in it keep apiVersion, kind, and what names them."""
    if isinstance(value, dict):
        if value.get("kind") == kind and _names(value.get("metadata"), key):
            metadata = {name: value["metadata"][name] for name in _NAMING if name in value["metadata"]}
            return {"apiVersion": value.get("apiVersion", ""), "kind": kind, "metadata": metadata}
        return {name: blank_inside(item, kind, key) for name, item in value.items()}
    if isinstance(value, list):
        return [blank_inside(item, kind, key) for item in value]
    return value


_NAMING = ("name", "namespace", "uid", "resourceVersion")


def _names(metadata: Any, key: Key) -> bool:
    return (
        isinstance(metadata, dict)
        and metadata.get("name") == key.name
        and (metadata.get("namespace") or "") == key.namespace
    )


def blank_columns(connection: sqlite3.Connection, kind: str, key: Key) -> None:
    """Versions of the object that decisions and inputs of a file carry become blank."""
    for table, column, places in _DOCUMENTS:
        names = ", ".join(places)
        found = connection.execute(
            f"SELECT {names}, {column} FROM {table} WHERE instr({column}, ?) ORDER BY {names}",
            (f'"{key.name}"',),
        ).fetchall()
        where = " AND ".join(f"{name} = ?" for name in places)
        for *place, text in found:
            old = orjson.loads(text)
            new = blank_inside(old, kind, key)
            if new != old:
                body = orjson.dumps(new, option=orjson.OPT_SORT_KEYS)
                connection.execute(
                    f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE {where}", (body, *place)
                )


_DOCUMENTS = (
    ("decisions", "effects", ("decision_id",)),
    ("decisions", "memo", ("decision_id",)),
    ("inputs", "payload", ("rv_after", "seq")),
)


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
