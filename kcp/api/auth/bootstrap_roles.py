"""The roles and bindings that every cluster has: Kubernetes' own, and those of kcp's components.

`bootstrap_roles.json` holds Kubernetes' 1.36 defaults, one object a line; `component_roles.json` what kcp adds.
Source: k8s v1.36 plugin/pkg/auth/authorizer/rbac/bootstrappolicy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from kcp.api.auth.rbac import aggregated_rules
from kcp.api.auth.rules import Rule

Json = dict[str, Any]

_HERE = Path(__file__).resolve().parent
_FILES = ("bootstrap_roles.json", "component_roles.json")
_API_VERSION = "rbac.authorization.k8s.io/v1"
BOOTSTRAPPING, AUTOUPDATE = "kubernetes.io/bootstrapping", "rbac.authorization.kubernetes.io/autoupdate"


def _rows() -> tuple[Json, ...]:
    """Read anew each time: once at a start, and for the few roles that are asked for."""
    return tuple(row for name in _FILES for row in orjson.loads((_HERE / name).read_bytes()))


def bootstrap_objects() -> list[Json]:
    """All of them, roles before the bindings that name them, aggregated rules filled in. Fresh dicts."""
    objects = [_object(row) for row in _rows()]
    roles = [obj for obj in objects if obj["kind"] == "ClusterRole"]
    # aggregating roles select each other (admin takes edit's parts), so the parts are settled first
    for role in roles:
        if "aggregationRule" in role:
            role["rules"] = aggregated_rules(role, [r for r in roles if "aggregationRule" not in r])
    return objects


def _object(row: Json) -> Json:
    metadata: Json = {
        "name": row["name"],
        "labels": {BOOTSTRAPPING: "rbac-defaults", **row.get("labels", {})},
        "annotations": {AUTOUPDATE: "true"},
    }
    if "namespace" in row:
        metadata["namespace"] = row["namespace"]
    rest = {key: value for key, value in row.items() if key not in ("kind", "name", "namespace", "labels")}
    return {
        "apiVersion": _API_VERSION,
        "kind": row["kind"],
        "metadata": metadata,
        **orjson.loads(orjson.dumps(rest)),
    }


def role_rules(name: str) -> list[Rule]:
    """The rules of a default ClusterRole, for authorizers that do not read the store."""
    row = next(row for row in _rows() if row["kind"] == "ClusterRole" and row["name"] == name)
    return [Rule.of(rule) for rule in row.get("rules", ())]
