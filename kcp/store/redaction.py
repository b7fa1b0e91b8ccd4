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
from kcp.store.columns import REDACTED
from kcp.store.protocol import Key

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


PURGED_ANNOTATION = "kcp.io/purged"
"""What the body of a purged version has, so that every reader of documents can tell."""


UNTOLD_ANNOTATION = "kcp.io/untold"
"""The same for a version whose body the source of an import did not have."""


def blank(
    key: Key, kind: str, group: str, version: str, uid: str, annotation: str = PURGED_ANNOTATION
) -> Json:
    """What a purge leaves of a version, and an import makes of one without a body: which object it was."""
    named = {
        "annotations": {annotation: "true"},
        "name": key.name,
        "uid": uid,
        **({"namespace": key.namespace} if key.namespace else {}),
    }
    return {"apiVersion": f"{group}/{version}" if group else version, "kind": kind, "metadata": named}


def is_purged(document: Json) -> bool:
    """Whether nobody can tell what the object was: a purge took it, or the source of an import never had it."""
    return _left_by(document, PURGED_ANNOTATION) or is_untold(document)


def is_untold(document: Json) -> bool:
    """Whether an import's source told of the change, but not what the object was after it."""
    return _left_by(document, UNTOLD_ANNOTATION)


def _left_by(document: Json, annotation: str) -> bool:
    """Nothing but names and the annotation."""
    metadata = document.get("metadata")
    if document.keys() != _LEFT or not isinstance(metadata, dict):
        return False
    annotations = metadata.get("annotations")
    return isinstance(annotations, dict) and annotations.get(annotation) == "true"


_LEFT = frozenset({"apiVersion", "kind", "metadata"})


def blank_inside(value: Any, kind: str, key: Key, revisions: frozenset[int] = frozenset()) -> Any:
    """Any JSON value; versions of the object in it keep apiVersion, kind, and what names them.

    An effect on the object, or one that wrote one of `revisions`, keeps its digest and loses what it would have written.
    """
    if isinstance(value, dict):
        if value.get("kind") == kind and _names(value.get("metadata"), key):
            metadata = {name: value["metadata"][name] for name in _NAMING if name in value["metadata"]}
            return {"apiVersion": value.get("apiVersion", ""), "kind": kind, "metadata": metadata}
        if "args" in value and _aims(value, key, revisions):
            value = {name: item for name, item in value.items() if name != "args"}
        return {name: blank_inside(item, kind, key, revisions) for name, item in value.items()}
    if isinstance(value, list):
        return [blank_inside(item, kind, key, revisions) for item in value]
    return value


def _aims(effect: Json, key: Key, revisions: frozenset[int]) -> bool:
    if effect.get("resource") != key.resource:
        return False
    named = effect.get("name") == key.name and (effect.get("namespace") or "") == key.namespace
    return named or effect.get("rv") in revisions


_NAMING = ("name", "namespace", "uid", "resourceVersion")


def _names(metadata: Any, key: Key) -> bool:
    return (
        isinstance(metadata, dict)
        and metadata.get("name") == key.name
        and (metadata.get("namespace") or "") == key.namespace
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
